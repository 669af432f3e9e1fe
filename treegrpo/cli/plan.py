"""treegrpo leaderboard plan: how many tasks it takes to see a difference."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.render import plain
from treegrpo.leaderboards.stats.planner import Plan, observed, plan
from treegrpo.leaderboards.stats.reliability import VarianceSplit
from treegrpo.leaderboards.summary import success_by_task

DEFAULT_RATE, DEFAULT_SHARE, DEFAULT_CORRELATION = 0.5, 0.5, 0.5
TRIALS = (1, 2, 4, 8)

Difference = Annotated[
    float, typer.Option(help="Difference of success rates to be seen, between 0 and 1.")
]
Power = Annotated[float, typer.Option(help="Chance to see it, between 0.05 and 1.")]
From = Annotated[
    list[Path] | None,
    typer.Option("--from", help="Bundle to take variances from; may be repeated."),
]
Trials = Annotated[
    int | None, typer.Option(min=1, help="Episodes per task; 1, 2, 4 and 8 if not given.")
]
Rate = Annotated[
    float | None, typer.Option(help="Stated success rate, for the variance; not with --from.")
]
TaskShare = Annotated[
    float | None,
    typer.Option(help="Stated part of the variance that is between tasks; not with --from."),
]
Correlation = Annotated[
    float | None,
    typer.Option(help="Stated correlation of two agents' task scores; not with two bundles."),
]


def plan_command(
    difference: Difference,
    power: Power = 0.8,
    from_: From = None,
    trials: Trials = None,
    rate: Rate = None,
    task_share: TaskShare = None,
    correlation: Correlation = None,
) -> None:
    """Print how many tasks show a difference, paired and unpaired (two-sided, 5 %)."""
    if not 0 < difference < 1:
        raise TreegrpoError(
            f"--difference {difference} asked for; success rates differ by a number between 0 "
            "and 1. Give one, such as 0.05."
        )
    split, found = (
        _observed(from_, rate, task_share) if from_ else (_stated(rate, task_share), None)
    )
    if found is not None and correlation is not None:
        raise TreegrpoError(
            f"--correlation {correlation} asked for, but the bundles share tasks and give "
            f"{found:.2f}. Leave the option out, or name one bundle."
        )
    used = next(c for c in (found, correlation, DEFAULT_CORRELATION) if c is not None)
    plans = [
        plan(difference, power=power, variance=split, correlation=used, trials=count)
        for count in ([trials] if trials else TRIALS)
    ]
    console = Console()
    console.print(_table(plans, difference, power))
    source = "observed" if from_ else "stated"
    correlated = "observed" if found is not None else "stated"
    console.print(
        plain(
            f"Variance of an episode ({source}): tasks {split.task:.3f}, trials "
            f"{split.trial:.3f}. Correlation of task scores ({correlated}): {used:.2f}."
        )
    )


def _observed(
    folders: list[Path], rate: float | None, task_share: float | None
) -> tuple[VarianceSplit, float | None]:
    """Return what the bundles show; they are read and checked, not replayed."""
    for name, value in (("--rate", rate), ("--task-share", task_share)):
        if value is not None:
            raise TreegrpoError(
                f"{name} {value} and --from asked for; variances are stated or observed. Leave "
                "one of the two out."
            )
    bundles = [read_bundle(folder) for folder in folders]
    for bundle in bundles[1:]:
        for field in ("env_id", "env_kwargs", "split"):
            if getattr(bundle.manifest, field) != getattr(bundles[0].manifest, field):
                raise TreegrpoError(
                    f"A plan from '{bundles[0].path}' and '{bundle.path}' asked for, but their "
                    f"{field} differ. Name bundles of the same env and split."
                )
    return observed([success_by_task(bundle) for bundle in bundles])


def _stated(rate: float | None, task_share: float | None) -> VarianceSplit:
    success = DEFAULT_RATE if rate is None else rate
    share = DEFAULT_SHARE if task_share is None else task_share
    if not 0 < success < 1:
        raise TreegrpoError(f"--rate {success} asked for; it lies between 0 and 1.")
    if not 0 <= share <= 1:
        raise TreegrpoError(f"--task-share {share} asked for; it lies from 0 to 1.")
    whole = success * (1 - success)
    return VarianceSplit(task=share * whole, trial=(1 - share) * whole)


def _table(plans: list[Plan], difference: float, power: float) -> Table:
    title = f"Tasks to see a difference of {difference:g} with power {power:g}"
    table = Table(title=plain(title), title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("trials", "paired tasks", "episodes each", "unpaired tasks", "episodes each"):
        table.add_column(name, justify="right")
    for one in plans:
        numbers = (
            one.trials,
            one.paired_tasks,
            one.paired_tasks * one.trials,
            one.unpaired_tasks,
            one.unpaired_tasks * one.trials,
        )
        table.add_row(*(f"{number:,}" for number in numbers))
    return table
