"""Is a leaderboard read at once, how fast is a score verified, and do its intervals hold?

    python -m benchmarks.leaderboard [--quick] [--json FILE]

Four parts: a board of 500 made-up runs (200,000 episodes) read from SQLite; recorded episodes
replayed step by step; the coverage of the intervals in simulation; the size of a page of 1,000
rows with everything that it loads.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks._board_coverage import NOMINAL, Coverage, Question, cells, coverage, summary
from benchmarks._board_fill import Size, fill_board
from benchmarks._record import write_record
from treegrpo.leaderboards import site
from treegrpo.leaderboards.agents import scripted_agent
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.site.pages import render_board
from treegrpo.leaderboards.store import Store, open_store
from treegrpo.leaderboards.store.ranking import rerank
from treegrpo.leaderboards.verify import verify_bundle

QUESTION = "Is a leaderboard read at once, how fast is a score verified, do its intervals hold?"
TARGETS = {"board_200k_episodes_ms": 150.0, "page_1000_rows_kb": 200.0}
ENVS = (
    "treegrpo/SearchQA-v1",
    "treegrpo/SQL-v1",
    "treegrpo/Service-v0",
    "treegrpo/WebShop-v0",
    "treegrpo/Crafting-v0",
    "treegrpo/Notes-v0",
)
SEED = 0


@dataclass(frozen=True)
class Effort:
    """Size of the board and of the page, reads, tasks per environment, experiments per cell."""

    board: Size
    page_rows: int
    reads: int
    tasks: int
    cells: int | None
    experiments: int


FULL = Effort(Size(500, 100, 4), 1000, reads=30, tasks=50, cells=None, experiments=1000)
QUICK = Effort(Size(500, 100, 4), 1000, reads=3, tasks=2, cells=8, experiments=100)


@dataclass(frozen=True)
class Row:
    """One measurement; times in milliseconds are medians."""

    part: str
    name: str
    value: float
    unit: str
    repeats: int


def board_rows(effort: Effort, folder: Path) -> list[Row]:
    """Return the times to read, open and rank a board, and the size of its file."""
    size = effort.board
    episodes = size.runs * size.tasks * size.trials
    url = f"sqlite:///{folder / 'board.sqlite'}"
    with open_store(url, create=True) as store:
        began = time.perf_counter()
        key = fill_board(store, size, seed=SEED)
        filled = 1000 * (time.perf_counter() - began)
        reads = [
            ("read", lambda: store.board(key.id)),
            ("environment page", lambda: store.environment_detail(key.env_id, {}, key.split)),
            ("rank (done when a run is added)", lambda: _rank(store, key.id)),
            ("check the ledger", lambda: store.check_ledger()),
        ]
        rows = [
            Row("board", name, _median_ms(call, effort.reads), "ms", effort.reads)
            for name, call in reads
        ]
    opened = _median_ms(lambda: _open_and_read(url, key.id), effort.reads)
    rows.append(Row("board", "open, then read", opened, "ms", effort.reads))
    megabytes = (folder / "board.sqlite").stat().st_size / 1e6
    rows.append(Row("board", f"file of {episodes:,} episodes", megabytes, "MB", 1))
    rows.append(Row("board", f"fill {size.runs} runs", filled, "ms", 1))
    return rows


def verify_rows(effort: Effort, folder: Path) -> list[Row]:
    """Return the steps a second of CPU time that a replay verifies, by environment."""
    rows: list[Row] = []
    steps = seconds = 0.0
    for env_id in ENVS:
        out = folder / env_id.rpartition("/")[2]
        agent = scripted_agent("oracle")
        evaluate(agent, env_id, split="test", num_tasks=effort.tasks, trials=1, seed=SEED, out=out)
        bundle = read_bundle(out)
        began = time.process_time()
        report = verify_bundle(bundle)
        spent = time.process_time() - began
        assert report.verified, report.first_difference
        played = sum(episode.turns for episode in bundle.episodes)
        rows.append(Row("verify", env_id, played / spent, "steps/s", len(bundle.episodes)))
        steps, seconds = steps + played, seconds + spent
    rows.append(Row("verify", "all", steps / seconds, "steps/s", len(ENVS)))
    return rows


def coverage_rows(effort: Effort) -> tuple[list[Row], list[Coverage]]:
    """Return how often intervals hold the truth in simulation, and every cell."""
    chosen = cells()
    if effort.cells is not None:
        chosen = chosen[:: max(1, len(chosen) // effort.cells)]
    found = [coverage(cell, repeats=effort.experiments, seed=SEED) for cell in chosen]
    rows: list[Row] = []
    questions: tuple[Question, ...] = ("tasks like these", "these tasks")
    for question in questions:
        for name, value in summary(found, question).items():
            unit = "cells" if "cells" in name else "share"
            rows.append(Row("coverage", f"{question}: {name}", value, unit, effort.experiments))
    return rows, found


def page_rows(effort: Effort, folder: Path) -> list[Row]:
    """Return the size of a board's page, its data and everything it loads."""
    with open_store(f"sqlite:///{folder / 'page.sqlite'}", create=True) as store:
        key = fill_board(store, Size(effort.page_rows, 20, 1), seed=SEED)
        board = store.board(key.id)
        took = _median_ms(lambda: render_board(board), effort.reads)
    page = render_board(board)
    root = Path(site.__file__).parent
    names = sorted(set(re.findall(r"(?:src|href)=\"[./]*static/([\w.]+)\"", page)))
    assert names, "a page has a style and scripts of its own"
    loaded = sum((root / "static" / name).stat().st_size for name in names)
    size = len(page.encode())
    return [
        Row("page", f"page and data of {len(board.rows):,} rows", size / 1000, "kB", 1),
        Row("page", "style and scripts", loaded / 1000, "kB", len(names)),
        Row("page", "in all", (size + loaded) / 1000, "kB", 1),
        Row("page", "written in", took, "ms", effort.reads),
    ]


def metrics(rows: Sequence[Row], found: Sequence[Coverage]) -> dict[str, float]:
    """Return the flat numbers of the record."""
    by_name = {(row.part, row.name): row.value for row in rows}
    flat = {
        "board_200k_episodes_ms": by_name["board", "read"],
        "board_200k_episodes_open_ms": by_name["board", "open, then read"],
        "board_environment_page_ms": by_name["board", "environment page"],
        "board_rank_500_rows_ms": by_name["board", "rank (done when a run is added)"],
        "board_check_ledger_ms": by_name["board", "check the ledger"],
        "verify_steps_per_s": by_name["verify", "all"],
        "page_1000_rows_kb": by_name["page", "in all"],
        "coverage_95": sum(one.covered for one in found) / len(found),
        "coverage_cells": len(found),
        "coverage_cells_within_93_97": sum(one.within for one in found),
    }
    for row in rows:
        if row.part == "verify" and row.name != "all":
            name = row.name.rpartition("/")[2].replace("-", "_").lower()
            flat[f"verify_steps_per_s_{name}"] = row.value
        if row.part == "coverage" and row.name.endswith((": mean", ": least", ": most")):
            question, _, name = row.name.partition(": ")
            flat[f"coverage_95_{question.replace(' ', '_')}_{name}"] = row.value
    return flat


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print, and write the record."""
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument("--quick", action="store_true", help="every measure, few repeats")
    parser.add_argument("--json", type=Path, help="write the record here")
    options = parser.parse_args(words)
    effort = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = board_rows(effort, folder) + page_rows(effort, folder)
        rows += verify_rows(effort, folder)
    covered, found = coverage_rows(effort)
    rows += covered
    flat = metrics(rows, found)
    missed = {name: flat[name] for name, most in TARGETS.items() if flat[name] >= most}
    Console().print(_table(rows))
    if missed:
        Console().print(f"Missed: {missed}")
    if options.json:
        write_record(
            options.json,
            question=QUESTION,
            seeds=[SEED],
            rows=[asdict(row) for row in rows] + [one.row() for one in found],
            metrics=flat,
            notes={"effort": asdict(effort), "nominal": NOMINAL, "missed": missed},
        )


def _rank(store: Store, board: str) -> None:
    with store.writing() as session:
        rerank(session, board)


def _open_and_read(url: str, board: str) -> None:
    with open_store(url) as store:
        store.board(board)


def _median_ms(call: Callable[[], Any], repeats: int) -> float:
    times: list[float] = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def _table(rows: Sequence[Row]) -> Table:
    table = Table(title=QUESTION, title_justify="left")
    for name in ("part", "what", "value", "unit", "repeats"):
        table.add_column(name, justify="right" if name in ("value", "repeats") else "left")
    for row in rows:
        value = f"{row.value:,.3f}" if row.unit == "share" else f"{row.value:,.1f}"
        table.add_row(row.part, row.name, value, row.unit, f"{row.repeats:,}")
    return table


if __name__ == "__main__":
    main()
