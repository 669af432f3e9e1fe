"""Run the conformance suite and write its report: see --help."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from treegrpo.sandboxes import open_backend
from treegrpo.sandboxes.base import Level, SandboxSpec
from treegrpo.sandboxes.conformance import check_backend
from treegrpo.sandboxes.conformance.case import Outcome
from treegrpo.sandboxes.conformance.report import Column, Report, column_of, page, read_report
from treegrpo.sandboxes.errors import SandboxUnavailable


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if nothing fails, else 1; writes the report's files."""
    parser = argparse.ArgumentParser(prog="python -m treegrpo.sandboxes.conformance")
    parser.add_argument("--backend", default="process", help="process or docker")
    parser.add_argument("--option", action="append", default=[], help="name=value for the backend")
    parser.add_argument("--level", action="append", default=[], help="L1, L2, L3; repeatable")
    parser.add_argument("--only", default="", help="part of the names of the cases to run")
    parser.add_argument("--rounds", type=float, default=1.0, help="1 is the full suite")
    parser.add_argument("--json", type=Path, help="file to put the outcomes into")
    parser.add_argument("--table", type=Path, help="page to write")
    given = parser.parse_args(arguments)
    options: dict[str, object] = dict(pair.split("=", 1) for pair in given.option)
    columns: dict[str, Column] = {}
    for level in given.level or _levels(given.backend, options):
        at = {**options, "level": Level[level]} if given.backend == "process" else options
        column = _run(given.backend, at, given.only, given.rounds)
        columns[f"{column.backend} {column.level}"] = column
    report = read_report(given.json) if given.json else Report()
    report = Report(columns={**report.columns, **columns})
    if given.json:
        given.json.write_text(report.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if given.table:
        given.table.write_text(page(report), encoding="utf-8")
    lines = [line for column in columns.values() for line in column.outcomes]
    return int(any(line.status == "fails" for line in lines))


def _levels(backend: str, options: dict[str, object]) -> list[str]:
    """Return the levels to run at: the host's, and those below it that can be forced."""
    with open_backend(backend, **options) as opened:
        highest = opened.probe().level
    if backend != "process":
        return [highest.name]
    return [level.name for level in sorted(Level, reverse=True) if Level.L1 <= level <= highest]


def _run(backend: str, options: dict[str, object], only: str, rounds: float) -> Column:
    outcomes: list[Outcome] = []
    with open_backend(backend, **options) as opened:
        capabilities = opened.probe()
        root = opened.create(SandboxSpec(min_level=Level.L1))
        capabilities = replace(capabilities, level=root.level)
    for outcome in check_backend(
        lambda: open_backend(backend, **options), rounds=rounds, only=only
    ):
        outcomes.append(outcome)
        sys.stdout.write(f"{outcome.seconds:7.2f} s  {outcome.status:8} {outcome.name}")
        told = "; ".join(text for text in (outcome.declared, outcome.detail[:300]) if text)
        sys.stdout.write(f"  {told}\n" if told else "\n")
        sys.stdout.flush()
    return column_of(capabilities, outcomes)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SandboxUnavailable as error:
        sys.exit(f"error: {error}")
