"""Summaries are recomputed from episodes; comparisons need the same tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.leaderboards.toy import TOY, ToyAgent, half_right
from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.agents import scripted_agent
from treegrpo.leaderboards.bundle import Bundle, read_bundle
from treegrpo.leaderboards.errors import TasksDiffer
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.stats.budget import budget_curve
from treegrpo.leaderboards.summary import compare, spent_by_task, success_by_task, summarise


def bundle(out: Path, agent: Any, **changes: Any) -> Bundle:
    settings: dict[str, Any] = {"split": "test", "num_tasks": 8, "trials": 2, "seed": 0}
    evaluate(agent, TOY, out=out, **settings | changes)
    return read_bundle(out)


def test_a_summary_counts_episodes_and_averages_over_tasks(tmp_path: Path) -> None:
    summary = summarise(bundle(tmp_path / "b", ToyAgent(half_right, tokens=3)))
    assert summary.success.mean == 0.5
    assert summary.success.num_tasks == 8
    assert summary.reward.mean == pytest.approx(0.6)
    # solved in 2 turns or given up after 4
    assert (summary.turns, summary.tool_calls, summary.sampled_tokens) == (3.0, 1.0, 48)
    assert summary.end_reasons == {"answered": 8, "turn_limit": 8}
    # difficulties take turns by index, and so do solved tasks
    assert [i.mean for i in summary.success_by_difficulty.values()] == [1.0, 0.0]


def test_one_missing_count_makes_the_total_unknown(tmp_path: Path) -> None:
    class Forgetful(ToyAgent):
        def finish(self, key: str) -> int | None:
            return None if key == "3/1" else 5

    summary = summarise(bundle(tmp_path / "b", Forgetful(half_right)))
    assert summary.sampled_tokens is None


def test_before_and_after_are_paired_by_task(tmp_path: Path) -> None:
    before = bundle(tmp_path / "before", ToyAgent(half_right))
    after = bundle(tmp_path / "after", scripted_agent("oracle"), trials=3, seed=9)
    found = compare(before, after)
    assert list(found) == ["all", "1", "2"]
    assert found["all"].difference.mean == 0.5
    assert (found["all"].wins, found["all"].ties, found["all"].losses) == (4, 4, 0)
    assert found["1"].difference.mean == 0.0
    assert found["2"].difference.mean == 1.0


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"split": "train"}, "split"),
        ({"num_tasks": 7}, "tasks"),
        ({"first_index": 1}, "tasks"),
        ({"env_kwargs": {"format": "xml"}}, "env_kwargs"),
    ],
)
def test_other_tasks_are_not_compared(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    before = bundle(tmp_path / "before", ToyAgent(half_right))
    after = bundle(tmp_path / "after", ToyAgent(half_right), **changes)
    with pytest.raises(TasksDiffer, match=f"their {field} differ"):
        compare(before, after)


def test_what_was_spent_by_task_gives_a_budget_curve(tmp_path: Path) -> None:
    found = bundle(tmp_path / "b", ToyAgent(half_right, tokens=3))
    # solved in 2 turns or given up after 4
    curve = budget_curve(spent_by_task(found, "turns"))
    assert [(point.budget, point.score.mean) for point in curve] == [(2.0, 0.5)]
    assert success_by_task(found)["0"] in ([1.0, 1.0], [0.0, 0.0])
    (tokens,) = budget_curve(spent_by_task(found, "sampled_tokens"), budgets=[3])
    assert (tokens.score.mean, tokens.spent) == (0.5, 3.0)
    calls = {one.cost for spent in spent_by_task(found, "tool_calls").values() for one in spent}
    assert calls == {0, 2}
    with pytest.raises(TreegrpoError, match="unknown is not zero"):
        budget_curve(spent_by_task(found, "dollars"), unit="dollars")
