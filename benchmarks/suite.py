"""How well do the oracle, random calls and doing nothing do on each environment and level?

    python -m benchmarks.suite [--quick] [--json FILE]

Every environment that ships, and every entry of treegrpo/core-v1, on the same test tasks for all
three agents; beside that the steps a second, the time of a snapshot, and its size.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks._overhead_ours import Subject, kind_of
from benchmarks._overhead_rows import Row, lines, metrics
from benchmarks._suite_rows import (
    AGENTS,
    RANDOM_SEED,
    LevelRow,
    by_level,
    level_rows,
    percent,
    success_metrics,
    success_rates,
)
from treegrpo.envs import list_envs, make
from treegrpo.envs.errors import SandboxFailed, TreegrpoError
from treegrpo.envs.law_cases import record_cases
from treegrpo.envs.snapshot import core_of
from treegrpo.envs.suites import Suite, SuiteEntry, find_suite
from treegrpo.sandboxes.errors import SandboxError

EPISODES = 3
"""Recorded for the costs: the oracle's, a mixed one, a random one."""

QUESTION = (
    "How well do the oracle, random calls and doing nothing do on each environment and level?"
)


@dataclass(frozen=True)
class Effort:
    """Test tasks per environment and agent; rounds of timing and the seconds of each part."""

    tasks: int
    rounds: int
    seconds: float


FULL = Effort(tasks=200, rounds=3, seconds=0.5)
QUICK = Effort(tasks=5, rounds=1, seconds=0.02)


@dataclass
class Report:
    """Success by environment, level and agent; timings by environment and round; what failed."""

    success: list[LevelRow] = field(default_factory=list[LevelRow])
    costs: list[Row] = field(default_factory=list[Row])
    missing: dict[str, str] = field(default_factory=dict[str, str])


def entries(suites: Sequence[Suite]) -> dict[str, SuiteEntry]:
    """Return by name every environment that ships, and every entry of the suites."""
    shipped = [SuiteEntry(id) for id in list_envs() if id.startswith("treegrpo/")]
    named = {e.name: e for e in (*shipped, *(e for suite in suites for e in suite.entries))}
    return {name: named[name] for name in sorted(named, key=str.lower)}


def main(words: Sequence[str] | None = None) -> None:
    """Play and measure everything, print the table, write the record and the picture."""
    options = _parse(words)
    console = Console(width=130)
    suites = [find_suite("treegrpo/core-v1")]
    effort = QUICK if options.quick else FULL
    report = measure(entries(suites), effort, console)
    show(report, console)
    if options.json is not None:
        write(report, suites, options.json, effort)


def measure(members: Mapping[str, SuiteEntry], effort: Effort, console: Console) -> Report:
    """Return the success of the three agents, then timings in rounds over all environments.

    An environment that this host cannot run is named in `missing`, with the reason.
    """
    report, subjects = Report(), list[Subject]()
    for name, entry in members.items():
        console.print(f"[dim]playing {name}[/dim]", highlight=False)
        making = partial(make, entry.env, **entry.options)
        try:
            env = core_of(making())
            report.success += level_rows(name, env, effort.tasks)
            cases = record_cases(making, episodes=EPISODES, seed=0, actions=None)
        except (TreegrpoError, SandboxError, SandboxFailed) as error:
            report.missing[name] = str(error)
            continue
        subjects.append(Subject(name, kind_of(env), cases))
        env.close()
    for number in range(effort.rounds):
        console.print(f"[dim]timing, round {number + 1} of {effort.rounds}[/dim]")
        report.costs += [subject.measure(number, effort.seconds) for subject in subjects]
    return report


def show(report: Report, console: Console) -> None:
    """Print one row per environment: success by level and agent, then what a step costs."""
    headings = ("steps/s", "snapshot p50 ms", "bytes")
    table = Table("environment", *AGENTS, *headings, title="success in %, levels 1 to 5, and cost")
    levels = {agent: by_level(report.success, agent) for agent in AGENTS}
    for line in lines(report.costs):
        shot = "-" if line.snapshot_p50 is None else f"{line.snapshot_p50:.3f}"
        success = (" ".join(map(percent, levels[agent][line.env].values())) for agent in AGENTS)
        costs = (f"{line.steps_per_s:,.0f}", shot, f"{line.nbytes or 0:,}")
        table.add_row(line.env.removeprefix("treegrpo/"), *success, *costs)
    console.print(table)
    for name, why in report.missing.items():
        console.print(f"  {name} was not measured: {why}", highlight=False, markup=False)


def write(report: Report, suites: Sequence[Suite], path: Path, effort: Effort) -> None:
    """Write the record, and of a full run the picture beside it."""
    # They load torch and matplotlib, whose threads and memory are kept out of what is measured.
    from benchmarks._record import write_record
    from benchmarks._suite_figure import draw

    success: list[dict[str, Any]] = [
        {"measure": "success", **dataclasses.asdict(row)} for row in report.success
    ]
    best = success_rates(report.success, "oracle")
    costs = [{"measure": "cost", **dataclasses.asdict(row)} for row in report.costs]
    write_record(
        path,
        question=QUESTION,
        seeds=[RANDOM_SEED],
        rows=[*success, *costs],
        metrics=success_metrics(report.success, suites) | metrics(report.costs),
        notes={
            "effort": dataclasses.asdict(effort),
            "suites": {suite.name: suite.digest for suite in suites},
            "unsolved_by_the_oracle": {env: rate for env, rate in best.items() if rate < 1},
            "not_measured": report.missing,
        },
    )
    if effort == FULL:
        draw(report.success, path.with_suffix(".png"))


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument("--quick", action="store_true", help="every measure, few tasks")
    parser.add_argument("--json", type=Path, help="write the record here, the picture beside it")
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
