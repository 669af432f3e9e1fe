"""What trials of one task say on a run's page: numbers computed by hand, or none at all."""

from __future__ import annotations

import re

import pytest

from tests.board_fixture import AGENTS, make_detail
from treegrpo.leaderboards.board import RunDetail
from treegrpo.leaderboards.schema import EpisodeRecord
from treegrpo.leaderboards.site.pages import render_run
from treegrpo.leaderboards.site.trials import MAX_K, trial_facts

DETAIL = make_detail(AGENTS[3], 3)


def episodes(trials: int, *solved: int) -> list[EpisodeRecord]:
    """Return tasks of so many trials, of which the first so many are solved."""
    return [
        DETAIL.episodes[0].model_copy(
            update={"index": index, "trial": trial, "success": trial < count}
        )
        for index, count in enumerate(solved)
        for trial in range(trials)
    ]


def detail(found: list[EpisodeRecord]) -> RunDetail:
    return DETAIL.model_copy(update={"episodes": found})


def test_four_tasks_of_four_trials_by_hand() -> None:
    """Solved 4, 3, 1 and 0 of 4.

    pass@2 = mean(1, 1, 1 - 3/6, 0), pass^2 = mean(1, 3/6, 0, 0).
    Two agree: mean(1, 6/12, 6/12, 1). Trial variance 1.5 / 12 = 1/8; MS between 2.5 / 3; task
    variance (5/6 - 1/8) / 4 = 17/96; the share of the tasks is 17 / (17 + 12).
    """
    found = {fact.name: fact.value for fact in trial_facts(episodes(4, 4, 3, 1, 0))}
    assert list(found) == [
        "pass@1", "pass^1", "pass@2", "pass^2", "two trials of a task agree",
        "variance that lies between tasks", "worst tenth of the tasks",
    ]  # fmt: skip
    assert list(found.values()) == pytest.approx([0.5, 0.5, 0.625, 0.375, 0.75, 17 / 29, 0.0])


def test_the_page_shows_each_with_its_word_and_interval() -> None:
    page = render_run(detail(episodes(4, 4, 3, 1, 0)))
    rows = re.findall(
        r'<tr><th scope="row" class="text">([^<]+)</th><td>([^<]+)<abbr class="word" '
        r'title="recomputed">c</abbr></td><td class="text">([^<]+)</td></tr>',
        page,
    )
    shown = {name: (value, span) for name, value, span in rows}
    assert {name: value for name, (value, _) in shown.items()} == {
        "pass@1": "50.0 %", "pass^1": "50.0 %", "pass@2": "62.5 %", "pass^2": "37.5 %",
        "two trials of a task agree": "75.0 %", "variance that lies between tasks": "58.6 %",
        "worst tenth of the tasks": "0.0 %",
    }  # fmt: skip
    assert shown["worst tenth of the tasks"][1] == "no interval"
    low, high = re.findall(r"[0-9.]+", shown["pass^2"][1])
    assert float(low) < 37.5 < float(high)


@pytest.mark.parametrize("found", [[], episodes(1, 1, 0), episodes(4, 2)])
def test_a_single_trial_or_task_says_nothing_of_trials(found: list[EpisodeRecord]) -> None:
    assert trial_facts(found) == []
    assert 'id="trials"' not in render_run(detail(found))


def test_a_task_with_fewer_trials_limits_k() -> None:
    mixed = episodes(6, 3, 2)[:-3]  # 6 trials, and 3
    names = [fact.name for fact in trial_facts(mixed)]
    assert names[:3] == ["pass@1", "pass^1", "two trials of a task agree"]


def test_without_any_variance_no_part_of_it_is_named_and_k_ends_at_ten() -> None:
    names = [fact.name for fact in trial_facts(episodes(40, 40, 40))]
    assert names[2 * MAX_K - 1] == "pass^10"
    assert names[2 * MAX_K :] == ["two trials of a task agree", "worst tenth of the tasks"]
