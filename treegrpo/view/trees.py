"""One self-contained HTML page that shows rollout trees to people.

The page needs no network and no JavaScript; with JavaScript it shows one question at a time.
All text in it is escaped by the template engine and freed of control characters before; a
content policy in the page forbids every load and allows only the two inline blocks, by digest.
"""

import base64
import contextlib
import hashlib
import math
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from treegrpo.envs.errors import DataFileError, TreegrpoError
from treegrpo.tree import Tree, read_trees
from treegrpo.view.curve import learning_curve
from treegrpo.view.page import TINTS, Look, build_question, credit_scale, signed
from treegrpo.view.text import clean_text

MAX_PAGE_BYTES = 400_000
"""A page stays below this: texts are cut first, then questions left out, one always shown."""

_TEXT_LIMITS = (2_000, 600, 240)  # characters per text, tried in turn
_Questions = list[list[Tree]]


@dataclass(frozen=True)
class Headline:
    """The run in a few formatted words; what the summary does not hold is an empty string."""

    before: str
    after: str
    interval: str
    facts: tuple[tuple[str, str], ...]


def render_trees(
    trees: Path | str | Sequence[Tree],
    out_html: Path | str,
    *,
    title: str = "Rollout trees",
    summary: Mapping[str, object] | None = None,
    curve: Sequence[Mapping[str, object]] | None = None,
    max_questions: int = 12,
    success_reward: float = 1.0,
    difficulty_unit: str = "hop",
) -> Path:
    """Return the path of the written page; a file that was there is replaced at once.

    Args:
        trees: a trees.jsonl file, or the trees themselves. Trees with the same trainer step and
            question belong together. Of more than `max_questions` questions, the page shows as
            many at even distances from first to last, and says so.
        out_html: where to write; missing folders are made.
        title: heading and window title.
        summary: the run's summary.json; unknown or missing keys are passed over.
        curve: rows of metrics.jsonl with `step` and `success_rate` or `reward_mean`.
        max_questions: at least 1; fewer are shown where the page would grow past 400 kB.
        success_reward: episode reward from which on a leaf counts as correct.
        difficulty_unit: what one unit of difficulty is called, in the singular.

    Raises:
        DataFileError: the tree file cannot be read or is malformed; names line and field.
        TreegrpoError: no tree at all, or the page cannot be written.
    """
    if max_questions < 1:
        raise TreegrpoError(
            f"A page with {max_questions} questions asked for; max_questions must be 1 or more."
        )
    questions = _read(trees)
    head = {
        "title": clean_text(title),
        "headline": _headline(summary or {}),
        "curve": learning_curve(curve or []),
        "unit": difficulty_unit,
        "num_questions": len(questions),
        "num_trees": sum(map(len, questions)),
    }
    page = b""
    for max_chars, number in _sizes(min(max_questions, len(questions))):
        shown = _spread(questions, number)
        scale = credit_scale(tree for question in shown for tree in question)
        look = Look(scale=scale, success_reward=success_reward, max_chars=max_chars)
        views = [build_question(question, look) for question in shown]
        page = _render(head, questions=views, scale=signed(scale)).encode("utf-8")
        if len(page) < MAX_PAGE_BYTES:
            break
    return _write(Path(out_html), page)


def _read(trees: Path | str | Sequence[Tree]) -> _Questions:
    """Return the trees by question, both in the order in which they stand."""
    is_file = isinstance(trees, Path | str)
    source: Iterable[Tree] = read_trees(Path(trees)) if isinstance(trees, Path | str) else trees
    grouped: dict[tuple[int, str], list[Tree]] = {}
    for tree in source:
        if tree.nodes:
            grouped.setdefault((tree.step, tree.question_id), []).append(tree)
    if not grouped and is_file:
        raise DataFileError(
            f"Rollout trees asked for from '{trees}', but it holds none. Name the trees.jsonl of "
            "a run that has finished at least one training step."
        )
    if not grouped:
        raise TreegrpoError("A page of rollout trees asked for, but no tree was given.")
    return list(grouped.values())


def _sizes(number: int) -> Iterable[tuple[int, int]]:
    """Yield (text limit, questions) from the fullest page to the smallest."""
    yield from ((limit, number) for limit in _TEXT_LIMITS)
    while number > 1:
        number = max(1, number * 3 // 4)
        yield _TEXT_LIMITS[-1], number


def _spread(questions: _Questions, number: int) -> _Questions:
    """Return `number` questions at even distances, the first and the last among them."""
    if number == 1:
        return questions[-1:]
    last = len(questions) - 1
    return [questions[round(i * last / (number - 1))] for i in range(number)]


def _headline(summary: Mapping[str, object]) -> Headline:
    def number(key: str) -> float | None:
        value = summary.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        return float(value) if math.isfinite(value) else None

    def percent(key: str, unit: str = " %") -> str:
        value = number(key)
        return "" if value is None else f"{100 * value:.0f}{unit}"

    low, high = percent("success_after_low", ""), percent("success_after_high")
    facts = (
        ("sampled tokens", _counted(number("sampled_tokens"))),
        ("tool calls", _counted(number("tool_calls"))),
        ("sharing ratio", "" if (r := number("sharing_ratio")) is None else f"{r:.2f}"),
        ("time", "" if (s := number("seconds_total")) is None else _duration(s)),
        ("credit", clean_text(str(summary.get("algo", "")))),
        ("seed", _counted(number("seed"), "")),
    )
    return Headline(
        before=percent("success_before"),
        after=percent("success_after"),
        interval=f"{low} to {high}" if low and high else "",
        facts=tuple(fact for fact in facts if fact[1]),
    )


def _counted(value: float | None, separator: str = ",") -> str:
    return "" if value is None else f"{round(value):,}".replace(",", separator)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("treegrpo.view"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _render(head: Mapping[str, object], **body: object) -> str:
    style = _templates().get_template("trees.css.j2").render(tints=TINTS)
    script = _templates().get_template("trees.js.j2").render()
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"style-src {_source_digest(style)}; script-src {_source_digest(script)}"
    )
    # Both blocks are the project's own files and hold no data: the only unescaped text.
    blocks = {"style": Markup(style), "script": Markup(script), "policy": policy, "tints": TINTS}
    return _templates().get_template("trees.html.j2").render(**head, **body, **blocks)


def _source_digest(text: str) -> str:
    """Return the text's digest as a content policy names it."""
    found = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest())
    return f"'sha256-{found.decode('ascii')}'"


def _write(path: Path, page: bytes) -> Path:
    """Write through a temporary neighbour, so that no half page is ever seen."""
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
        with os.fdopen(handle, "wb") as file:
            file.write(page)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
        raise TreegrpoError(
            f"Asked to write the page '{path}', found: {error.strerror or error}. "
            "Name a file in a folder that can be written and has room."
        ) from error
    return path
