"""The pages of a leaderboard as text; what a folder holds and what a server answers is the same.

    index.html                  every board
    boards/BOARD.html           one ranking: table, plot, comparison
    environments/ID.html        one environment with its options and split
    runs/RUN.html               one run, RUN being `run_name` of its digest
    data/RUN.js                 its outcomes, loaded by comparisons
    boards/BOARD.json           a board in full
    static/                     style and scripts

Links are relative, so the pages work in any folder. Every text goes through autoescape, after
what is hidden in it has been made visible. A content policy in the page forbids every other
script and style; a server can send `POLICY` as a header too.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic import JsonValue

from treegrpo.leaderboards.board import (
    Board,
    BoardKey,
    BoardRow,
    EnvironmentDetail,
    RunDetail,
    TaskDifficulty,
)
from treegrpo.leaderboards.site import text
from treegrpo.leaderboards.site.data import board_data, embedded, environment_id, run_name
from treegrpo.leaderboards.site.trials import trial_facts
from treegrpo.leaderboards.site.viewer import episode_file

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; "
    "trusted-types treegrpo"
)
STATIC = Path(__file__).parent / "static"
ASSETS = (
    "site.css", "board.css", "page.js", "rows.js", "state.js", "table.js", "chart.js", "plot.js",
    "board.js", "statistics.js", "compare.js",
)  # fmt: skip
"""The files of `STATIC` that the pages load; those of the viewer stand in its own pages."""
MAX_EPISODES = 2_000
"""A run's page lists so many episodes; the bundle has all of them."""
_TIERS = ("claimed", "replayed", "fresh")
_BEST_ROWS = 3


def render_index(boards: Sequence[Board]) -> str:
    """Return the page of all boards, by environment, each with its best rows."""
    groups: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for board in boards:
        ranked = [row for row in board.rows if row.pinned is None]
        # Outdated rows are never the best, wherever the board has them.
        best = sorted(ranked, key=lambda row: (row.outdated, -row.success))[:_BEST_ROWS]
        groups[board.key.env_id].append(
            {
                "key": board.key,
                "rows": best,
                "ranked": len(ranked),
                "kind": _tasks(board.key),
                "size": _size(board),
                "twins": _twins(board.rows),
            }
        )
    return _render("index.html.j2", "", groups=groups)


def render_board(board: Board) -> str:
    """Return the page of one board: table, plot and comparison, drawn by scripts."""
    return _render(
        "board.html.j2",
        "../",
        key=board.key,
        kind=_tasks(board.key),
        size=_size(board),
        environment=_environment(board.key),
        data=Markup(embedded(board_data(board))),
    )


def render_environment(detail: EnvironmentDetail) -> str:
    """Return the page of one environment: floors, ceiling, replays on record, difficulty."""
    bins = [0] * 10
    for task in detail.tasks:
        bins[min(9, int(10 * task.success))] += 1
    return _render(
        "environment.html.j2",
        "../",
        detail=detail,
        kinds={key.id: _tasks(key) for key in detail.boards},
        levels=_levels(detail.tasks),
        bins=bins,
        unsolved=sum(task.success == 0 for task in detail.tasks),
        saturated=sum(task.success == 1 for task in detail.tasks),
    )


def render_run(detail: RunDetail) -> str:
    """Return the page of one run: numbers, setting, verifications, ledger, command, episodes."""
    row, episodes = detail.row, detail.episodes[:MAX_EPISODES]
    return _render(
        "run.html.j2",
        "../",
        detail=detail,
        row=row,
        kind=_tasks(detail.key),
        environment=_environment(detail.key),
        facts=_facts(detail),
        trials=trial_facts(detail.episodes),
        last=detail.verifications[-1] if detail.verifications else None,
        episodes=episodes,
        episode_pages=[episode_file(row.digest, episode) for episode in episodes],
    )


def _facts(detail: RunDetail) -> list[tuple[str, str]]:
    """Return the manifest as pairs of words, or the claim's fields where there is none."""
    manifest = detail.manifest
    if manifest is None:
        claim = detail.claimed or {}
        return [(name.replace("_", " "), _spelled(value)) for name, value in claim.items()]
    agent, budgets = manifest.agent, manifest.budgets
    pairs: list[tuple[str, JsonValue]] = [
        ("run", manifest.digest),
        ("agent's digest", agent.digest),
        ("model", agent.model),
        ("provider", agent.provider),
        ("agent's settings", dict(agent.settings)),
        ("prompt's digest", agent.prompt_digest),
        ("environment's source", manifest.env_digest),
        ("scorer's source", manifest.scorer_digest),
        ("options", manifest.env_kwargs),
        ("limits", budgets.model_dump(mode="json")),
        ("seed", manifest.seed),
        ("first task", manifest.first_index),
        ("track", manifest.track),
        ("training", manifest.training),
        ("registration", manifest.registration),
        ("price table", manifest.prices),
        ("suite", None if manifest.suite is None else manifest.suite.name),
        ("versions", dict(manifest.versions)),
        ("machine", f"{manifest.machine.system}, {manifest.machine.cores} cores"),
        ("evaluated", manifest.created),
        ("Merkle root", manifest.root),
    ]
    return [(name, _spelled(value)) for name, value in pairs]


def _spelled(value: JsonValue) -> str:
    if value is None:
        return "not stated"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_spelled(item)}" for name, item in value.items()) or "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _levels(tasks: Sequence[TaskDifficulty]) -> list[dict[str, Any]]:
    """Return success by level, every task weighing the same; tasks without a level last."""
    groups: defaultdict[int | None, list[TaskDifficulty]] = defaultdict(list)
    for task in tasks:
        groups[task.difficulty].append(task)
    order = sorted(groups, key=lambda level: (level is None, level or 0))
    return [
        {
            "level": level,
            "tasks": groups[level],
            "success": sum(task.success for task in groups[level]) / len(groups[level]),
        }
        for level in order
    ]


def _tasks(key: BoardKey) -> str:
    """Return what a board's rows have in common, in words; a task list by its first digits."""
    if key.tasks == "claimed":
        return "claimed numbers, nothing replayed"
    if key.tasks == "fresh":
        return "registered runs, each on tasks of its own"
    if key.tasks.startswith("fresh:"):
        return f"registered runs on the same tasks, list {key.tasks.removeprefix('fresh:')[:8]}"
    return f"open seeds, the same tasks for all, list {key.tasks[:8]}"


def _size(board: Board) -> str:
    """Return "40 tasks x 2 trials", or "" where the rows do not share a number of tasks."""
    tasks = {row.num_tasks for row in board.rows}
    trials = sorted({row.trials for row in board.rows if row.trials is not None})
    if len(tasks) != 1 or None in tasks or not trials:
        return ""
    (number,) = tasks
    each = str(trials[0]) if len(trials) == 1 else f"{trials[0]} to {trials[-1]}"
    return (
        f"{number:,} {'task' if number == 1 else 'tasks'} \u00d7 "
        f"{each} {'trial' if each == '1' else 'trials'}"
    )


def _twins(rows: Sequence[BoardRow]) -> set[str]:
    """Return the digests of rows that share name and model with another row."""
    count = Counter((row.agent, row.model) for row in rows)
    return {row.digest for row in rows if count[row.agent, row.model] > 1}


def _environment(key: BoardKey) -> str:
    return environment_id(key.env_id, key.env_kwargs, key.split)


def _tier(row: BoardRow) -> str:
    return f"{row.tier} {_TIERS[row.tier]}"


def _visible(value: Any) -> Any:
    """Return what a template is about to print, hidden characters shown; markup stays."""
    return text.visible(value) if type(value) is str else value


@cache
def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("treegrpo.leaderboards.site"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters: dict[str, Any] = {
        "percent": text.percent,
        "interval": text.interval,
        "counted": text.counted,
        "options": text.options,
        "letter": text.letter,
        "run_name": run_name,
        "tier": _tier,
    }
    found.filters.update(filters)
    return found


def _render(template: str, root: str, **values: Any) -> str:
    return _templates().get_template(template).render(root=root, policy=POLICY, **values)
