"""Episodes of a bundle as trees and pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.unit.leaderboards.toy import TOY, ToyAgent, half_right
from treegrpo.leaderboards.bundle import Bundle, read_bundle
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.schema import SearchEntry
from treegrpo.leaderboards.site.viewer import (
    episode_file,
    render_episode,
    write_episode_pages,
)
from treegrpo.leaderboards.site.viewer_bundle import render_bundle
from treegrpo.leaderboards.site.viewer_events import episode_outcome, episode_tree
from treegrpo.leaderboards.site.viewer_model import Link


def played(out: Path, action: Any, **options: Any) -> Bundle:
    """Return a bundle of two tasks; the answer of the first is even where it says so."""
    evaluate(
        ToyAgent(action, tokens=7), TOY, split="test", num_tasks=4, trials=1, seed=0, out=out,
        env_kwargs=options,
    )  # fmt: skip
    return read_bundle(out)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return played(tmp_path_factory.mktemp("viewer") / "bundle", half_right)


def test_an_episode_is_its_start_and_then_step_after_step(bundle: Bundle) -> None:
    episode = bundle.episodes[0]
    events = bundle.events(episode)
    tree = episode_tree(events, bundle.manifest, episode)
    assert [(node.id, node.parent, node.step) for node in tree.nodes] == [
        ("0", None, 0), ("1", "0", 1), ("2", "1", 2),
    ]  # fmt: skip
    assert tree.nodes[0].observation == events[0].observation
    assert '"name": "guess"' in tree.nodes[1].action
    assert tree.nodes[1].state_hash == events[1].state_hash
    last = tree.nodes[-1]
    assert (last.reward, last.outcome, tree.nodes[1].outcome) == (1.1, "correct", None)
    assert last.reward_parts == {"right": "1.0", "style": "0.1"}
    facts = dict(tree.facts)
    assert (facts["turns"], facts["sampled tokens"], facts["reward"]) == ("2", "7", "1.1")
    assert "dollars" not in facts  # nobody counted


def test_what_a_search_spent_in_forks_stands_in_the_facts(bundle: Bundle) -> None:
    spent = SearchEntry(branches=4, turns=1200, tool_calls=9)
    episode = bundle.episodes[0].model_copy(update={"search": spent})
    facts = dict(episode_tree(bundle.events(episode), bundle.manifest, episode).facts)
    assert (facts["branches searched"], facts["turns in forks"]) == ("4", "1,200")


def test_what_went_wrong_is_told_apart(bundle: Bundle) -> None:
    wrong = episode_tree(bundle.events(bundle.episodes[1]), bundle.manifest, bundle.episodes[1])
    assert [node.outcome for node in wrong.nodes][-1] == "truncated"
    assert wrong.nodes[-1].end_reason == bundle.episodes[1].end_reason


def test_an_episode_whose_reset_failed_still_has_a_page(tmp_path: Path) -> None:
    broken = played(tmp_path / "broken", lambda view: view.env.oracle(), trouble="reset")
    failed = [episode for episode in broken.episodes if episode.failure is not None]
    assert failed, "no task with an even answer among the four"
    tree = episode_tree([], broken.manifest, failed[0])
    assert [node.outcome for node in tree.nodes] == ["failed"]
    assert "no world today" in str(tree.nodes[0].failure)
    assert "no world today" in render_episode([], manifest=broken.manifest, episode=failed[0])


def test_every_episode_gets_the_page_that_others_link_to(bundle: Bundle, tmp_path: Path) -> None:
    links = [Link("All episodes", "../index.html")]
    pages = write_episode_pages(
        bundle.manifest, bundle.episodes, bundle.events, tmp_path, links=links
    )
    run = bundle.digest[:32]
    assert [page.name for page in pages] == [f"{run}-{i}-0.html" for i in range(4)]
    assert {page.parent for page in pages} == {tmp_path / "episodes"}
    index = render_bundle(bundle.manifest, bundle.episodes)
    targets = re.findall(r'<a href="([^"]+)"', index)
    assert targets == [f"episodes/{episode_file(bundle.digest, one)}" for one in bundle.episodes]
    assert all((tmp_path / target).is_file() for target in targets)
    assert 'href="../index.html"' in pages[0].read_text()


def test_the_page_of_a_bundle_counts_its_outcomes(bundle: Bundle) -> None:
    index = render_bundle(bundle.manifest, bundle.episodes)
    outcomes = [episode_outcome(episode) for episode in bundle.episodes]
    assert outcomes == ["correct", "wrong", "correct", "wrong"]
    assert "2 of 4 episodes" in index
    assert index.count('class="outcome correct"') == 2
