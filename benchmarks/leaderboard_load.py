"""Does a leaderboard's server lose anything when many submit and read, and it is killed?

    python -m benchmarks.leaderboard_load [--quick] [--json FILE] [--postgres URL]

200 bundles are submitted at once by 20 owners while 5,000 pages are read; when half of the
submissions are accepted, the server and its verifiers are killed, then started again. At the end
the ledger is checked and every accepted bundle is compared, byte by byte, with what was sent.
SQLite always; PostgreSQL where the URL of an empty database is given.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks._board_load import ENV, OWNERS, READERS, Load, make_bundles, run_load
from benchmarks._record import write_record

QUESTION = "Does a leaderboard's server lose anything when many submit and read, and it is killed?"
FULL, QUICK = (200, 5_000), (4, 100)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument("--quick", action="store_true", help="4 submissions, 100 pages")
    parser.add_argument("--json", type=Path, help="write the record here")
    parser.add_argument("--postgres", help="URL of an empty database")
    arguments = parser.parse_args(argv)
    submissions, reads = QUICK if arguments.quick else FULL
    loads: list[Load] = []
    with tempfile.TemporaryDirectory(prefix="treegrpo-load-") as name:
        folder = Path(name)
        bundles = make_bundles(folder, submissions)
        for url in (f"sqlite:///{folder / 'board.sqlite'}", arguments.postgres):
            if url is not None:
                place = folder / str(len(loads))
                place.mkdir()
                loads.append(run_load(url, place, bundles, reads, kill_workers=not arguments.quick))
    Console().print(_table(loads))
    if arguments.json:
        write_record(
            arguments.json,
            question=QUESTION,
            seeds=list(range(submissions)),
            rows=[_row(load) for load in loads],
            metrics=metrics(loads),
            notes={"env": ENV, "owners": OWNERS, "readers": READERS},
        )


def metrics(loads: Sequence[Load]) -> dict[str, float]:
    """Return the counts and times of each database."""
    found: dict[str, float] = {}
    for load in loads:
        for name, value in _row(load).items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                found[f"load_{name}_{load.database}"] = value
    return found


def _row(load: Load) -> dict[str, Any]:
    """Return a load without its raw times, of which there are thousands."""
    row = {k: v for k, v in asdict(load).items() if not isinstance(v, list)}
    return row | {
        "lost": len(load.lost),
        "wrong_pages": len(load.wrong_pages),
        "read_p50_ms": statistics.median(load.read_ms),
        "read_p99_ms": statistics.quantiles(load.read_ms, n=100)[98],
        "submit_p50_ms": statistics.median(load.submit_ms),
        "submit_max_ms": max(load.submit_ms),
        "faults": [*load.lost[:10], *load.wrong_pages[:10]],
    }


def _table(loads: Sequence[Load]) -> Table:
    table = Table(title="A server under load, killed in the middle", title_justify="left")
    table.add_column("what")
    for load in loads:
        table.add_column(load.database, justify="right")
    rows = [_row(load) for load in loads]
    for name in (
        "submissions", "accepted", "verified", "lost", "reads", "wrong_pages", "unanswered_reads",
        "read_p50_ms", "read_p99_ms", "submit_p50_ms", "submit_max_ms", "drained_s",
    ):  # fmt: skip
        values = [row[name] for row in rows]
        cells = [f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" for value in values]
        table.add_row(name.replace("_", " "), *cells)
    return table


if __name__ == "__main__":
    main()
