"""The pages that `treegrpo view` and the demo write, from a training run or a bundle."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from treegrpo.cli.view_trees import by_question, question_tree
from treegrpo.envs.errors import DataFileError, TreegrpoError
from treegrpo.leaderboards.bundle import EPISODES, MANIFEST, read_bundle
from treegrpo.leaderboards.site.viewer import ViewerPage, render_viewer, write_episode_pages
from treegrpo.leaderboards.site.viewer_bundle import render_bundle
from treegrpo.leaderboards.site.viewer_model import Link
from treegrpo.leaderboards.site.viewer_training import SECONDS, TrainingRun, render_training
from treegrpo.tree import Tree, read_trees

METRICS, TIMINGS, TREES, CONFIG = "metrics.jsonl", "timings.jsonl", "trees.jsonl", "config.json"
INDEX = "index.html"
MARK = ".treegrpo-view"
"""A file that says a folder was written here, and may be written anew."""

_SHOWN_SETTINGS = ("env", "model", "credit", "loss", "expansion", "seed", "steps")


@dataclass(frozen=True)
class Written:
    """What was written: the page to open, and how many trees or episodes it leads to."""

    index: Path
    shown: str


def is_bundle(path: Path) -> bool:
    """Return whether the folder says that it is a bundle."""
    return (path / MANIFEST).is_file() and (path / EPISODES).is_file()


def is_training_run(path: Path) -> bool:
    """Return whether the folder holds the rows of a training run."""
    return (path / METRICS).is_file()


@contextlib.contextmanager
def written_anew(out: Path) -> Generator[Path]:
    """Yield a new folder that takes the place of `out` at the end; after an error, nothing does.

    Raises:
        TreegrpoError: `out` is there and holds something else than such pages.
    """
    if out.exists() and not out.is_dir():
        raise TreegrpoError(f"Pages in '{out}' asked for, but that is a file. Give --out DIR.")
    if out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file():
        raise TreegrpoError(
            f"Pages in '{out}' asked for, but it holds other files, which would be lost. "
            "Give an empty or a new folder with --out DIR."
        )
    final = out.resolve()
    part = final.with_name(f".{final.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        (part / MARK).write_text("Written by treegrpo view, which may write it anew.\n")
        yield part
        if final.is_dir():
            shutil.rmtree(final)
        part.rename(final)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def write_bundle_view(path: Path, out: Path) -> Written:
    """Write the pages of a bundle, which is checked first; they are not replayed.

    Raises:
        BundleError: names the file, the line and the field that is wrong.
    """
    bundle = read_bundle(path)
    manifest, episodes = bundle.manifest, bundle.episodes
    links = [Link("All episodes", f"../{INDEX}")]
    with written_anew(out) as part:
        pages = write_episode_pages(manifest, episodes, bundle.events, part, links=links)
        (part / INDEX).write_text(render_bundle(manifest, episodes), encoding="utf-8")
    return Written(out / INDEX, f"{len(pages):,} episodes")


def write_training_view(paths: Sequence[Path], out: Path, success_reward: float) -> Written:
    """Write the page of one or several runs, and a page of trees for every step that kept any.

    Raises:
        DataFileError: a file of a run is malformed; names the line and the field.
    """
    runs: list[TrainingRun] = []
    number = 0
    with written_anew(out) as part:
        for name, path in _named(paths):
            folder = Path("steps") / name if len(paths) > 1 else Path("steps")
            pages, questions = _write_steps(path, name, part, folder, success_reward)
            number += questions
            runs.append(TrainingRun(name, _rows(path), _settings(path), pages))
        title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs: {_names(runs)}"
        (part / INDEX).write_text(render_training(runs, title), encoding="utf-8")
    return Written(out / INDEX, f"trees of {number:,} question{'s' if number != 1 else ''}")


def trees_page(
    trees: Iterable[Tree],
    *,
    title: str,
    success_reward: float = 1.0,
    max_questions: int | None = None,
    **around: Any,
) -> str:
    """Return one page of all trees, or of `max_questions` questions at even distances.

    Args:
        trees: in any number; trees of one step and question are drawn as one.
        title: heading of the page.
        success_reward: episode reward from which on a leaf is correct.
        max_questions: None shows all.
        around: further fields of ViewerPage.

    Raises:
        DataFileError: there is no tree.
    """
    questions = by_question(trees)
    if not questions:
        raise DataFileError(
            "A page of rollout trees asked for, but there is none. Name a run that has saved "
            "the trees of at least one step (save_trees)."
        )
    shown = questions if max_questions is None else _spread(questions, max_questions)
    page = ViewerPage(
        title=title,
        trees=tuple(question_tree(question, success_reward) for question in shown),
        source=TREES,
        **around,
    )
    return render_viewer(page)


def _write_steps(
    path: Path, name: str, out: Path, folder: Path, success_reward: float
) -> tuple[dict[int, str], int]:
    """Write a page per step with trees; return the pages by step and the number of questions."""
    pages: dict[int, str] = {}
    questions = 0
    if not (path / TREES).is_file():
        return pages, questions
    (out / folder).mkdir(parents=True, exist_ok=True)
    up = "/".join([".."] * len(folder.parts)) + f"/{INDEX}"
    for step, of_step in groupby(read_trees(path / TREES), key=lambda tree: tree.step):
        trees = list(of_step)
        questions += len(by_question(trees))
        page = folder / f"{step + 1:06d}.html"
        title = f"{name}, step {step + 1}"
        text = trees_page(
            trees, title=title, success_reward=success_reward, links=(Link("All steps", up),)
        )
        (out / page).write_text(text, encoding="utf-8")
        pages[step] = page.as_posix()
    return pages, questions


def _rows(path: Path) -> tuple[Mapping[str, Any], ...]:
    """Return the rows of metrics with the seconds since the first step, where they are known."""
    from treegrpo.runfolder import read_rows

    timings = path / TIMINGS
    timed = read_rows(timings) if timings.is_file() else []
    seconds = {row.get("step"): row.get("total") for row in timed}
    rows = read_rows(path / METRICS)
    total = 0.0
    for row in rows:
        took = seconds.get(row.get("step"))
        if isinstance(took, int | float):
            total += took
            row[SECONDS] = total
    return tuple(rows)


def _settings(path: Path) -> tuple[tuple[str, str], ...]:
    """Return the settings that tell runs apart; none where config.json cannot be read."""
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))["config"]
        return tuple((key, str(config[key])) for key in _SHOWN_SETTINGS if key in config)
    except (OSError, ValueError, KeyError, TypeError):
        return ()


def _named(paths: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Yield a name for each run that no other has: its folder's, with a number where needed."""
    taken: set[str] = set()
    for path in paths:
        name = path.resolve().name or "run"
        unique = name
        while unique in taken:
            unique = f"{name}-{len(taken) + 1}"
        taken.add(unique)
        yield unique, path


def _names(runs: Sequence[TrainingRun]) -> str:
    names = [run.name for run in runs]
    return ", ".join(names if len(names) <= 6 else [*names[:5], "..."])


def _spread(questions: list[list[Tree]], number: int) -> list[list[Tree]]:
    """Return `number` questions at even distances, the first and the last among them."""
    if number >= len(questions):
        return questions
    if number == 1:
        return questions[-1:]
    last = len(questions) - 1
    return [questions[round(i * last / (number - 1))] for i in range(number)]
