"""Summaries are recomputed from episodes; comparisons need the same tasks."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.unit.leaderboards.toy import TOY, ToyAgent, half_right
from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.agents import EpisodeView, scripted_agent
from treegrpo.leaderboards.agents.search import SearchAgent
from treegrpo.leaderboards.bundle import Bundle, read_bundle
from treegrpo.leaderboards.errors import ProviderFailed, TasksDiffer
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.render import failures_line
from treegrpo.leaderboards.stats.budget import budget_curve
from treegrpo.leaderboards.summary import compare, cost, spent_by_task, success_by_task, summarise
from treegrpo.leaderboards.usage import Usage


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


def test_a_search_costs_what_all_of_its_branches_cost(tmp_path: Path) -> None:
    found = bundle(tmp_path / "b", SearchAgent(scripted_agent("oracle"), expand=3), num_tasks=1)
    summary = summarise(found)
    # two turns to the answer, and three forks at each of them
    assert (summary.turns, summary.search_turns, summary.search_tool_calls) == (2.0, 6.0, 6.0)
    for episode in found.episodes:
        assert (cost(episode, "turns"), cost(episode, "tool_calls")) == (8, 8)
        assert cost(episode, "sampled_tokens") is None
    alone = summarise(bundle(tmp_path / "alone", scripted_agent("oracle")))
    assert (alone.search_turns, alone.search_tool_calls) == (None, None)


def test_totals_are_exact_or_unknown(tmp_path: Path) -> None:
    usage = Usage(input=10, output=2, dollars=Decimal("0.1"), requests=1)
    summary = summarise(bundle(tmp_path / "b", ToyAgent(half_right, tokens=usage)))
    assert (summary.input_tokens, summary.requests) == (160, 16)
    assert summary.dollars == Decimal("1.6")
    uncounted = summarise(bundle(tmp_path / "c", ToyAgent(half_right, tokens=2)))
    assert (uncounted.input_tokens, uncounted.requests, uncounted.dollars) == (None, None, None)


def test_failures_of_the_infrastructure_are_told_apart(tmp_path: Path) -> None:
    def act(view: EpisodeView) -> str:
        if view.env.episode.index == 0:
            raise ProviderFailed("down")
        if view.env.episode.index == 1:
            raise RuntimeError("no idea")
        return view.env.oracle()

    summary = summarise(bundle(tmp_path / "b", ToyAgent(act)))
    assert summary.failures == {"policy": 2, "provider": 2}
    assert summary.infrastructure_failures == {"provider": 2}
    assert summary.success.mean == 0.75
    line = failures_line([summary, summary])
    assert line is not None
    assert line.startswith("4 of 32 episodes failed without the agent's doing (provider 4).")
    assert failures_line([summarise(bundle(tmp_path / "c", scripted_agent("null")))]) is None
