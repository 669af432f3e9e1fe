"""treegrpo leaderboard plan, as a user types it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.unit.leaderboards.toy import TOY, ToyAgent, half_right
from treegrpo.cli.leaderboard import leaderboard_app
from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.agents import scripted_agent
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.stats.planner import plan
from treegrpo.leaderboards.stats.reliability import VarianceSplit, variance_split
from treegrpo.leaderboards.summary import success_by_task


def call(*words: object) -> Result:
    return CliRunner().invoke(leaderboard_app, ["plan", *map(str, words)])


def bundle(out: Path, agent: Any, **changes: Any) -> Path:
    settings: dict[str, Any] = {"split": "test", "num_tasks": 12, "trials": 3, "seed": 0}
    evaluate(agent, TOY, out=out, **settings | changes)
    return out


def mixed(out: Path) -> Path:
    """A bundle whose variance lies between tasks: every second task is solved in every trial."""
    return bundle(out, ToyAgent(half_right))


def test_stated_variances_give_the_planner_s_numbers() -> None:
    result = call("--difference", 0.05, "--power", 0.8)
    assert result.exit_code == 0, result.output
    for trials in (1, 2, 4, 8):
        found = plan(
            0.05, power=0.8, variance=VarianceSplit(0.125, 0.125), correlation=0.5, trials=trials
        )
        assert f"{found.paired_tasks:,}" in result.output
        assert f"{found.unpaired_tasks * trials:,}" in result.output
    assert "(stated): tasks 0.125, trials 0.125" in result.output


def test_one_number_of_trials_gives_one_line() -> None:
    options = ("--rate", 0.9, "--task-share", 0.2, "--correlation", 0.9, "--trials", 3)
    result = call("--difference", 0.1, *options)
    found = plan(0.1, power=0.8, variance=VarianceSplit(0.018, 0.072), correlation=0.9, trials=3)
    lines = [line.split() for line in result.output.splitlines() if line.strip()[:1].isdigit()]
    assert [line[:2] for line in lines] == [["3", f"{found.paired_tasks:,}"]]


def test_variances_come_from_a_bundle(tmp_path: Path) -> None:
    folder = mixed(tmp_path / "b")
    split = variance_split(success_by_task(read_bundle(folder)))
    result = call("--difference", 0.2, "--from", folder)
    assert result.exit_code == 0, result.exception
    assert f"(observed): tasks {split.task:.3f}, trials {split.trial:.3f}" in result.output
    assert "scores (stated): 0.50" in " ".join(result.output.split())


def test_two_bundles_give_the_correlation_as_well(tmp_path: Path) -> None:
    first, second = mixed(tmp_path / "a"), mixed(tmp_path / "b")
    result = call("--difference", 0.2, "--from", first, "--from", second)
    assert "scores (observed): 1.00" in " ".join(result.output.split())
    refused = call("--difference", 0.2, "--from", first, "--from", second, "--correlation", 0.3)
    assert isinstance(refused.exception, TreegrpoError)
    assert "the bundles share tasks and give 1.00" in str(refused.exception)


def test_bundles_of_other_splits_are_not_mixed(tmp_path: Path) -> None:
    first, second = mixed(tmp_path / "a"), tmp_path / "b"
    bundle(second, ToyAgent(half_right), split="train")
    refused = call("--difference", 0.2, "--from", first, "--from", second)
    assert isinstance(refused.exception, TreegrpoError)
    assert "their split differ" in str(refused.exception)


def test_a_single_trial_cannot_be_split(tmp_path: Path) -> None:
    folder = bundle(tmp_path / "b", scripted_agent("oracle"), trials=1)
    refused = call("--difference", 0.2, "--from", folder)
    assert isinstance(refused.exception, TreegrpoError)
    assert "Evaluate with --trials 2" in str(refused.exception)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--rate", 1.0), "--rate 1.0 asked for; it lies between 0 and 1"),
        (("--task-share", -0.1), "--task-share -0.1 asked for; it lies from 0 to 1"),
        (("--power", 1.0), "power 1.0 asked for"),
        (("--correlation", "nan"), "correlation nan asked for"),
        (("--from", "x", "--rate", 0.5), "--rate 0.5 and --from asked for"),
        (("--from", "x", "--task-share", 0.5), "--task-share 0.5 and --from asked for"),
        (("--from", "nowhere-at-all"), "found nothing"),
    ],
)
def test_what_has_no_plan_is_refused(options: tuple[object, ...], message: str) -> None:
    refused = call("--difference", 0.1, *options)
    assert isinstance(refused.exception, TreegrpoError)
    assert message in str(refused.exception)


@pytest.mark.parametrize("difference", [2, 1, 0, -0.1, "nan", "inf"])
def test_a_difference_that_rates_cannot_have_is_refused(difference: object) -> None:
    refused = call("--difference", difference)
    assert isinstance(refused.exception, TreegrpoError)
    assert "asked for; success rates differ by a number between 0 and 1" in str(refused.exception)


def test_trials_out_of_range_are_a_usage_error() -> None:
    assert call("--difference", 0.1, "--trials", 0).exit_code == 2
