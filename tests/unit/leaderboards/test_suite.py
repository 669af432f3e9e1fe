"""A whole suite: a bundle per entry, one score, and a second call that goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.leaderboards.toy import TOY, ToyAgent, half_right
from treegrpo.envs.errors import TreegrpoError, UnknownSplit
from treegrpo.envs.suites import Suite, SuiteEntry
from treegrpo.leaderboards.agents import EpisodeView, scripted_agent
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.errors import BundleError
from treegrpo.leaderboards.suite import SuiteSummary, evaluate_suite, place_of
from treegrpo.leaderboards.verify import verify

PLAIN = SuiteEntry(TOY, weight=3, null_success=0.25, oracle_success=0.75)
XML = SuiteEntry(TOY, {"format": "xml"}, split="train", weight=1)
SUITE = Suite("tests/two-v1", (PLAIN, XML))


def run(out: Path, agent: Any, suite: Suite = SUITE, **changes: Any) -> SuiteSummary:
    extent: dict[str, Any] = {"num_tasks": 4, "trials": 1, "seed": 0}
    return evaluate_suite(agent, suite, out=out, **extent | changes)


def test_each_entry_has_its_bundle_and_all_have_one_score(tmp_path: Path) -> None:
    found = run(tmp_path / "s", ToyAgent(half_right))
    # (0.5 - 0.25) / (0.75 - 0.25) = 0.5 with weight 3; 0.5 with weight 1
    assert found.score.score.mean == pytest.approx(0.5)
    whole = run(tmp_path / "o", scripted_agent("oracle"))
    # 1.5 with weight 3, not clipped; 1 with weight 1
    assert whole.score.score.mean == pytest.approx((3 * 1.5 + 1) / 4)
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == [
        "tests-Toy-v0", "tests-Toy-v0-format-xml",
    ]  # fmt: skip
    manifest = read_bundle(place_of(tmp_path / "s", XML)).manifest
    assert (manifest.env_kwargs, manifest.split) == ({"format": "xml"}, "train")
    assert manifest.suite is not None
    assert (manifest.suite.name, manifest.suite.digest) == (SUITE.name, SUITE.digest)
    assert verify(place_of(tmp_path / "s", XML)).verified


def test_a_second_call_keeps_what_is_finished_and_goes_on(tmp_path: Path) -> None:
    def stop(view: EpisodeView) -> str:
        if view.env.episode.split == "train" and view.env.episode.index == 2:
            raise KeyboardInterrupt
        return half_right(view)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "s", ToyAgent(stop), concurrency=1)
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == [
        ".tests-Toy-v0-format-xml.part", "tests-Toy-v0",
    ]  # fmt: skip
    begun, seen, rest = list[str](), list[tuple[int, int]](), ToyAgent(half_right)
    found = run(
        tmp_path / "s", rest, concurrency=1, begin=begun.append,
        progress=lambda *counts: seen.append(counts),
    )  # fmt: skip
    assert rest.finished == ["2/0", "3/0"]
    assert begun == [PLAIN.name, XML.name]
    assert seen == [(4, 4), (2, 4), (3, 4), (4, 4)]
    assert found == run(tmp_path / "s", ToyAgent(half_right))  # nothing is left to play


def test_bundles_of_another_evaluation_are_not_taken_over(tmp_path: Path) -> None:
    run(tmp_path / "s", ToyAgent(half_right))
    with pytest.raises(TreegrpoError, match=r"tests-Toy-v0' holds a bundle of another.*its seed"):
        run(tmp_path / "s", ToyAgent(half_right), seed=1)
    with pytest.raises(TreegrpoError, match="its agent differ"):
        run(tmp_path / "s", scripted_agent("oracle"))
    (tmp_path / "s" / "tests-Toy-v0" / "run.json").write_text("{}")
    with pytest.raises(BundleError, match=r"run\.json"):
        run(tmp_path / "s", ToyAgent(half_right))


def test_every_entry_is_checked_before_the_first_is_played(tmp_path: Path) -> None:
    suite = Suite("tests/wrong-v1", (PLAIN, SuiteEntry(TOY, {"format": "xml"}, split="tset")))
    agent = ToyAgent(half_right)
    with pytest.raises((UnknownSplit, TreegrpoError)):
        run(tmp_path / "s", agent, Suite("tests/wrong-v1", (PLAIN, XML)), num_tasks=51)
    with pytest.raises(TreegrpoError):
        run(tmp_path / "s", agent, suite)
    assert agent.batches == []
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="cannot be written: Not a directory"):
        run(tmp_path / "file" / "s", ToyAgent(half_right))
