"""Replay: honest bundles match, and forgers with right digests and chains do not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.unit.leaderboards.toy import TOY, Toy, ToyAgent, forge, half_right
from treegrpo.envs import register
from treegrpo.envs.digest import digest
from treegrpo.leaderboards.agents import scripted_agent
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.errors import BundleError
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.schema import EpisodeRecord
from treegrpo.leaderboards.verify import WORDS, Options, VerifyReport, verify


def bundle_of(out: Path, agent: Any = None, **env_kwargs: Any) -> Path:
    agent = ToyAgent(half_right, tokens=5) if agent is None else agent
    evaluate(
        agent, TOY, split="test", num_tasks=6, trials=2, seed=1, out=out, env_kwargs=env_kwargs
    )
    return out


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_of(tmp_path_factory.mktemp("bundles") / "original")


def outcomes(report: VerifyReport) -> dict[str, int]:
    found: dict[str, int] = {}
    for outcome in report.outcomes:
        found[outcome.outcome] = found.get(outcome.outcome, 0) + 1
    return found


@pytest.mark.parametrize("name", ["oracle", "null", "random"])
def test_scripted_agents_verify(tmp_path: Path, name: str) -> None:
    report = verify(bundle_of(tmp_path / "b", scripted_agent(name)))
    assert report.verified
    assert outcomes(report) == {"match": 12}
    assert report.first_difference is None
    assert report.changed == ()


@pytest.mark.parametrize("trouble", ["reset", "step", "grader", "nan", "fickle"])
def test_bundles_with_failures_verify(tmp_path: Path, trouble: str) -> None:
    path = bundle_of(tmp_path / "b", scripted_agent("oracle"), trouble=trouble)
    assert any(episode.failure for episode in read_bundle(path).episodes)
    report = verify(path)
    # Tasks that are drawn anew at every reset cannot be replayed, and verification says so.
    assert report.verified == (trouble != "fickle")


def test_words_say_what_was_replayed(original: Path) -> None:
    words = verify(original).words
    assert words == WORDS
    assert words["success"] == words["turns"] == words["tool_calls"] == "replayed"
    assert words["interval"] == "recomputed"
    assert words["sampled_tokens"] == words["wall_seconds"] == "declared"


def test_progress_counts_episodes(original: Path) -> None:
    calls: list[tuple[int, int]] = []
    verify(original, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 12) for done in range(1, 13)]


def last_reward(value: str) -> Any:
    def change(record: EpisodeRecord, log: list[dict[str, Any]]) -> None:
        if not record.success:
            log[-1]["reward"] = value

    return change


def test_a_changed_reward_is_found_though_every_hash_is_right(
    original: Path, tmp_path: Path
) -> None:
    def solved(record: EpisodeRecord) -> dict[str, Any]:
        if record.success:
            return {}
        parts = {"right": "1.0", "style": "0.1"}
        return {"success": True, "reward": "1.1", "reward_components": parts}

    forged = forge(original, tmp_path / "f", episode=solved, events=last_reward("1.1"))
    report = verify(forged)
    assert not report.verified
    assert outcomes(report) == {"match": 6, "diverged": 6}
    assert report.first_difference == (
        "task 1, trial 0: diverged at step 4, field reward: recorded 1.1, replayed 0.1"
    )
    assert set(report.words.values()) == {"declared"}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"success": True}, "success"),
        ({"reward": "1.1"}, "reward"),
        ({"reward_components": {"right": "1.0"}}, "reward_components"),
        ({"turns": 1}, "turns"),
        ({"tool_calls": 7}, "tool_calls"),
        ({"end_reason": "answered"}, "end_reason"),
        ({"state_hash": "0" * 64}, "state_hash"),
        ({"failure": "environment"}, "reward"),
    ],
)
def test_a_changed_episode_record_is_found(
    original: Path, tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    forged = forge(
        original, tmp_path / "f", episode=lambda e: changes if (e.index, e.trial) == (1, 1) else {}
    )
    report = verify(forged)
    assert outcomes(report) == {"match": 11, "diverged": 1}
    assert f"task 1, trial 1: diverged at step 4, field {field}: " in str(report.first_difference)


def test_an_episode_that_its_manifest_contradicts_is_not_read(
    original: Path, tmp_path: Path
) -> None:
    for name, changes, says in (
        ("d", {"difficulty": 9}, "line 1, field task_id/difficulty"),
        ("t", {"task_id": "easy"}, "line 1, field task_id/difficulty"),
        ("c", {"chain": "0" * 64}, "found nothing"),
        ("n", {"trajectory": None}, "line 1, field trajectory"),
    ):
        forged = forge(original, tmp_path / name, episode=lambda _, changes=changes: changes)
        with pytest.raises(BundleError, match=says):
            verify(forged)


def test_declared_numbers_are_not_compared(original: Path, tmp_path: Path) -> None:
    forged = forge(
        original, tmp_path / "f", episode=lambda e: {"dollars": "0.5", "wall_seconds": "0.0"}
    )
    assert verify(forged).verified


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("action", "I give up, really."),
        ("terminated", True),
        ("truncated", True),
        ("end_reason", "solved"),
        ("state_hash", "0" * 64),
    ],
)
def test_any_changed_field_of_an_event_is_found(
    original: Path, tmp_path: Path, field: str, value: Any
) -> None:
    def change(record: EpisodeRecord, log: list[dict[str, Any]]) -> None:
        if record.index == 3:
            log[1][field] = value

    report = verify(forge(original, tmp_path / "f", events=change))
    assert outcomes(report) == {"match": 10, "diverged": 2}
    assert "task 3, trial 0: diverged at step 1, field" in str(report.first_difference)


def test_a_changed_observation_is_found(original: Path, tmp_path: Path) -> None:
    def change(record: EpisodeRecord, log: list[dict[str, Any]]) -> None:
        log[1]["observation"] = "sun"

    def consistent(record: EpisodeRecord, log: list[dict[str, Any]]) -> None:
        log[1] |= {"observation": "sun", "observation_digest": digest("sun")}

    with pytest.raises(BundleError, match="event 1, field observation"):
        verify(forge(original, tmp_path / "f", events=change))
    report = verify(forge(original, tmp_path / "g", events=consistent))
    assert "step 1, field observation: recorded sun, replayed" in str(report.first_difference)
    assert outcomes(report) == {"diverged": 12}


def test_left_out_and_added_actions_are_found(original: Path, tmp_path: Path) -> None:
    def cut(record: EpisodeRecord, log: list[dict[str, Any]]) -> None:
        log.pop()

    def add(record: EpisodeRecord, log: list[dict[str, Any]]) -> None:
        log.append(log[-1] | {"step": len(log)})

    def clear(record: EpisodeRecord, log: list[dict[str, Any]]) -> None:
        log.clear()

    cut_report = verify(forge(original, tmp_path / "cut", events=cut))
    assert "field end: recorded the end of the episode" in str(cut_report.first_difference)
    added_report = verify(forge(original, tmp_path / "added", events=add))
    assert "replayed the episode had ended" in str(added_report.first_difference)
    cleared = verify(forge(original, tmp_path / "cleared", events=clear))
    for report in (cut_report, added_report, cleared):
        assert outcomes(report) == {"diverged": 12}


def test_a_failure_cannot_carry_a_score(original: Path, tmp_path: Path) -> None:
    def clear(record: EpisodeRecord, log: list[dict[str, Any]]) -> None:
        log.clear()

    forged = forge(
        original,
        tmp_path / "f",
        events=clear,
        episode=lambda e: {"failure": "environment", "chain": None, "success": True},
    )
    assert outcomes(verify(forged)) == {"diverged": 12}


def test_an_altered_log_is_named_when_the_forger_left_the_chain(
    original: Path, tmp_path: Path
) -> None:
    forged = forge(original, tmp_path / "f", events=last_reward("1.1"), rechain=False)
    with pytest.raises(BundleError, match=r"trajectories/\w+\.jsonl\.gz, event 4, field chain"):
        verify(forged)


def test_other_env_kwargs_than_recorded_are_found(original: Path, tmp_path: Path) -> None:
    def easier(fields: dict[str, Any]) -> None:
        fields["env_kwargs"] = {"format": "xml"}

    report = verify(forge(original, tmp_path / "f", head=easier))
    assert outcomes(report) == {"diverged": 12}


def test_other_tasks_are_an_environment_mismatch(original: Path, tmp_path: Path) -> None:
    def easier(fields: dict[str, Any]) -> None:
        fields["tasks"][0]["digest"] = "0" * 64

    report = verify(forge(original, tmp_path / "f", head=easier))
    assert outcomes(report) == {"environment-mismatch": 2, "match": 10}


def test_a_changed_grader_is_found(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "score", lambda self, state, transcript, task: 0.5)
    report = verify(original)
    assert report.changed == ("scorer_digest",)
    assert outcomes(report) == {"environment-mismatch": 12}


def test_an_environment_that_crashes_now_is_found(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(self: Toy, *args: Any) -> Any:
        raise RuntimeError("gone")

    monkeypatch.setattr(Toy, "step", crash)
    report = verify(original)
    assert "replayed environment: RuntimeError: gone" in str(report.first_difference)
    monkeypatch.setattr(Toy, "setup", crash)
    assert "at reset, field event" in str(verify(original).first_difference)


SOURCE = """
from tests.unit.leaderboards.toy import Toy
class Child(Toy):
    def score(self, state, transcript, task):
        return {}
"""


def test_a_changed_environment_is_told_from_a_forged_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "toy_child.py"
    module.write_text(SOURCE.format("1.0"))
    register("tests/ToyChild-v0", "toy_child:Child")
    agent = scripted_agent("null")
    evaluate(
        agent, "tests/ToyChild-v0", split="test", num_tasks=2, trials=1, seed=0, out=tmp_path / "b"
    )
    assert verify(tmp_path / "b").changed == ()

    module.write_text(SOURCE.format("1.0") + "# a comment\n")
    report = verify(tmp_path / "b")
    assert report.changed == ("env_digest", "scorer_digest")
    assert report.replays and not report.verified
    assert str(report.first_difference).startswith(
        "environment-mismatch: env_digest, scorer_digest of the environment here differ"
    )
    assert any("has changed since" in line for line in report.lines())
    assert verify(tmp_path / "b", Options(accept_changed=True)).verified

    monkeypatch.setattr(
        sys.modules["toy_child"].Child, "score", lambda self, state, transcript, task: 0.0
    )
    assert outcomes(verify(tmp_path / "b")) == {"environment-mismatch": 2}


def test_a_strangers_bundle_imports_no_module(original: Path, tmp_path: Path) -> None:
    out = tmp_path / "b"
    evaluate(
        scripted_agent("null"), f"tests.unit.leaderboards.toy:{TOY}",
        split="test", num_tasks=1, trials=1, seed=0, out=out,
    )  # fmt: skip
    with pytest.raises(BundleError, match="--trust-module"):
        verify(out)
    assert verify(out, Options(trust_module=True)).verified


def test_the_report_reads_as_text(original: Path, tmp_path: Path) -> None:
    forged = forge(original, tmp_path / "f", events=last_reward("9.0"))
    lines = verify(forged).lines()
    assert lines[:2] == ["6 of 12 episodes: match", "6 of 12 episodes: diverged"]
    assert lines[2].startswith("First difference: task 1, trial 0: diverged at step 4")
    assert "success: declared" in lines
