"""The report of conformance runs: a JSON file with one column per backend and level, and a page.

A run replaces its own columns and keeps the others, so that a page shows several backends.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from treegrpo.sandboxes.base import Capabilities
from treegrpo.sandboxes.conformance.abuse import ROWS
from treegrpo.sandboxes.conformance.case import Outcome, Status

FORK_ROWS: dict[str, str] = {
    "F1": "changes stay in the fork",
    "F2": "random programs: a fork equals a replay",
    "F3": "threads, locks, background work",
    "F4": "open, buffered, deleted and mapped files",
    "F5": "pipes, sockets, children, databases",
    "F6": "random state",
    "F7": "timers and clocks",
    "F8": "process ids, logging, multiprocessing",
    "F9": "a fork of a running state",
    "F10": "dead, closed and evicted states",
    "F11": "many forks, long chains, budgets",
    "F12": "crashes of supervisor and client",
    "F13": "linear algebra in fork and parent",
}


class Line(BaseModel):
    """One outcome in the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    group: str
    row: str
    statement: str
    status: Status
    checks: int
    seconds: float
    detail: str = ""
    declared: str = ""


class Column(BaseModel):
    """One backend at one level on one host."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: str
    level: str
    kernel: str
    python: str
    missing: dict[str, str] = Field(default_factory=dict)  # feature -> reason
    outcomes: tuple[Line, ...]


class Report(BaseModel):
    """Columns by their heading, "process L3"."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    columns: dict[str, Column] = Field(default_factory=dict)


def column_of(capabilities: Capabilities, outcomes: Iterable[Outcome]) -> Column:
    """Return one run as a column."""
    return Column(
        backend=capabilities.backend,
        level=capabilities.level.name,
        kernel=platform.release(),
        python=platform.python_version(),
        missing={feature.name: feature.reason for feature in capabilities.missing()},
        outcomes=tuple(Line.model_validate(asdict(outcome)) for outcome in outcomes),
    )


def read_report(path: Path) -> Report:
    """Return the report in a file, an empty one if there is none."""
    if not path.exists():
        return Report()
    return Report.model_validate_json(path.read_text(encoding="utf-8"))


def page(report: Report) -> str:
    """Return the page of a report, in Markdown: rows by columns, then what is open or fails."""
    columns = report.columns
    lines = [
        "# What the sandboxes were put through",
        "",
        "Made by `python -m treegrpo.sandboxes.conformance --backend process --json FILE "
        "--table FILE`; not edited by hand. A cell counts the attacks or cases of its row: "
        "`holds`; `open`, where the level does not promise it, by declaration; `skipped`, where "
        "the host cannot be asked; `FAILS`. What each level means: [sandboxes](sandboxes.md).",
        "",
        *(
            f"- **{heading}**: Linux {column.kernel}, Python {column.python}."
            for heading, column in columns.items()
        ),
        "",
        "## Abuse",
        "",
        *_table("attack", {str(row): name for row, name in ROWS.items()}, columns),
        "",
        "## Forks",
        "",
        *_table("case", FORK_ROWS, columns),
        "",
        "## Function",
        "",
        *_table("case", {"": "everything that the interface promises"}, columns),
    ]
    lines += ["", "## Open", "", *(_open(columns) or ["Nothing."])]
    for title, status in (("Failing", "fails"), ("Skipped", "skipped")):
        found = [
            f"- {heading}, {line.name}: {line.statement.rstrip('.')}. {_one_line(line.detail)}"
            for heading, column in columns.items()
            for line in column.outcomes
            if line.status == status
        ]
        lines += ["", f"## {title}", "", *(found or ["Nothing."])]
    lines += ["", "## What was tried", "", *_attacks(columns)]
    return "\n".join(lines) + "\n"


def _open(columns: dict[str, Column]) -> list[str]:
    """Return a line for each case that is open somewhere: where, and what is so there."""
    where: dict[tuple[str, str, str], list[str]] = {}
    for heading, column in columns.items():
        for line in column.outcomes:
            if line.status == "open":
                found = where.setdefault((line.name, line.statement, line.declared), [])
                found.append(heading)
    return [
        f"- {name} ({', '.join(headings)}): not promised is that {_lower(statement)}. "
        f"{_upper(declared)}."
        for (name, statement, declared), headings in where.items()
    ]


def _attacks(columns: dict[str, Column]) -> list[str]:
    """Return a line for each promise: the row, what is promised, the attacks on it."""
    tried: dict[tuple[str, str], dict[str, None]] = {}
    for column in columns.values():
        for line in column.outcomes:
            if line.group == "abuse":
                names = tried.setdefault((line.row, line.statement), {})
                names[line.name.partition("-")[2]] = None
    return [
        f"- {row}. {_upper(promise)}: {', '.join(names)}."
        for (row, promise), names in tried.items()
    ]


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".")


def _lower(text: str) -> str:
    kept = text[1:2].isupper()  # an abbreviation
    return (text if kept else text[:1].lower() + text[1:]).rstrip(".")


def _table(kind: str, rows: dict[str, str], columns: dict[str, Column]) -> list[str]:
    lines = [
        f"| # | {kind} | {' | '.join(columns)} |",
        f"|---|---|{'---|' * len(columns)}",
    ]
    for row, name in rows.items():
        cells = [_cell([o for o in c.outcomes if o.row == row]) for c in columns.values()]
        lines.append(f"| {row} | {name} | {' | '.join(cells)} |")
    return lines


def _cell(outcomes: Sequence[Line]) -> str:
    counts = {
        word: sum(outcome.status == status for outcome in outcomes)
        for status, word in (
            ("holds", "holds"),
            ("open", "open"),
            ("skipped", "skipped"),
            ("fails", "FAILS"),
        )
    }
    return ", ".join(f"{word} {count}" for word, count in counts.items() if count) or "not run"


def _one_line(text: str, size: int = 240) -> str:
    flat = " ".join(text.split()).replace("|", "\\|")
    return flat if len(flat) <= size else f"{flat[:size]}..."
