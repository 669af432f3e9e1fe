"""What evaluate() runs, records and refuses."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.unit.leaderboards.toy import TOY, ToyAgent, half_right, steps_of
from treegrpo.envs.errors import TreegrpoError, UnknownEnv, UnknownOption, UnknownSplit
from treegrpo.leaderboards.agents import EpisodeView, scripted_agent
from treegrpo.leaderboards.bundle import Bundle, read_bundle
from treegrpo.leaderboards.errors import BundleError, ProviderFailed
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.head import Terms
from treegrpo.leaderboards.schema import SuiteRef
from treegrpo.leaderboards.summary import EvaluationSummary
from treegrpo.leaderboards.usage import Usage


def run(out: Path, agent: Any = None, **changes: Any) -> EvaluationSummary:
    settings: dict[str, Any] = {"split": "test", "num_tasks": 6, "trials": 2, "seed": 3}
    agent = scripted_agent("oracle") if agent is None else agent
    env_id = changes.pop("env_id", TOY)
    return evaluate(agent, env_id, out=out, **settings | changes)


def without_times(bundle: Bundle) -> list[dict[str, Any]]:
    return [episode.model_dump(exclude={"wall_seconds"}) for episode in bundle.episodes]


def test_the_oracle_solves_everything(tmp_path: Path) -> None:
    summary = run(tmp_path / "b")
    assert (summary.success.mean, summary.failures, summary.turns) == (1.0, {}, 2.0)
    assert summary.reward.mean == pytest.approx(1.1)
    assert summary.success_by_difficulty.keys() == {1, 2}
    assert summary.end_reasons == {"answered": 12}
    bundle = read_bundle(tmp_path / "b")
    first = bundle.episodes[0]
    assert (first.reward, first.reward_components) == ("1.1", {"right": "1.0", "style": "0.1"})
    assert first.tokens.output is None
    assert summary.sampled_tokens is None
    assert summary.digest == bundle.digest
    assert len(steps_of(bundle.events(first))) == 2


def test_every_task_gets_every_trial_under_seeds_of_its_own(tmp_path: Path) -> None:
    run(tmp_path / "b", num_tasks=3, trials=4, first_index=5)
    episodes = read_bundle(tmp_path / "b").episodes
    pairs = [(episode.index, episode.trial) for episode in episodes]
    assert pairs == [(index, trial) for index in (5, 6, 7) for trial in range(4)]
    assert len({episode.seed for episode in episodes}) == 12


@pytest.mark.parametrize("concurrency", [1, 5, 64])
def test_concurrency_changes_nothing_but_the_batches(tmp_path: Path, concurrency: int) -> None:
    agent = ToyAgent(half_right)
    run(tmp_path / "b", agent, concurrency=concurrency)
    run(tmp_path / "all", ToyAgent(half_right))
    assert max(agent.batches) == min(concurrency, 12)
    one, other = read_bundle(tmp_path / "b"), read_bundle(tmp_path / "all")
    assert without_times(one) == without_times(other)
    for mine, theirs in zip(one.episodes, other.episodes, strict=True):
        assert one.events(mine) == other.events(theirs)
    assert sorted(agent.finished) == sorted(f"{i}/{t}" for i in range(6) for t in range(2))


def test_an_agent_sees_only_what_is_new(tmp_path: Path) -> None:
    seen: dict[str, list[list[str]]] = {}

    def look(view: EpisodeView) -> str:
        roles = [message["role"] for message in view.messages_delta]
        seen.setdefault(view.key, []).append(roles)
        return view.env.oracle()

    run(tmp_path / "b", ToyAgent(look), num_tasks=1, trials=1)
    assert seen == {"0/0": [["user"], ["tool"]]}


def test_tokens_are_summed_and_zero_is_not_null(tmp_path: Path) -> None:
    assert run(tmp_path / "b", ToyAgent(half_right, tokens=7)).sampled_tokens == 84
    assert run(tmp_path / "c", ToyAgent(half_right, tokens=0)).sampled_tokens == 0


@pytest.mark.parametrize(
    ("trouble", "who"),
    [("reset", "environment"), ("step", "environment"), ("grader", "grader"), ("nan", "grader")],
)
def test_a_crash_costs_its_own_episode(tmp_path: Path, trouble: str, who: str) -> None:
    whole = read_bundle_of(tmp_path / "whole", num_tasks=10)
    summary = run(tmp_path / "b", num_tasks=10, env_kwargs={"trouble": trouble})
    assert summary.failures.keys() == {who}
    assert 0 < summary.failures[who] < 20
    assert summary.success.mean == pytest.approx(1 - summary.failures[who] / 20)
    for episode, untroubled in zip(
        read_bundle(tmp_path / "b").episodes, whole.episodes, strict=True
    ):
        if episode.failure is None:
            assert episode.reward == untroubled.reward
        else:
            assert (episode.reward, episode.success) == ("0.0", False)
            assert episode.failure_detail
            assert episode.reward_components == {}


def read_bundle_of(out: Path, agent: Any = None, **changes: Any) -> Bundle:
    run(out, agent, **changes)
    return read_bundle(out)


def test_a_crashing_agent_costs_its_own_episodes(tmp_path: Path) -> None:
    def act(view: EpisodeView) -> Any:
        index = view.env.episode.index
        if index == 1:
            raise RuntimeError("out of ideas")
        return {2: 42, 3: "\ud800 half a character"}.get(index) or view.env.oracle()

    summary = run(tmp_path / "b", ToyAgent(act))
    failed = {e.index: e.failure_detail for e in read_bundle(tmp_path / "b").episodes if e.failure}
    assert failed == {
        1: "RuntimeError: out of ideas",
        2: "TypeError: the agent gave int, not a text",
    }
    assert summary.failures == {"policy": 4}
    assert summary.first_failure == "RuntimeError: out of ideas"
    assert summary.success.mean == 0.5  # task 3 is wrong, but no failure


def test_a_wrong_number_of_actions_is_the_agents_failure(tmp_path: Path) -> None:
    class Short(ToyAgent):
        def act(self, episodes: Any) -> list[str]:
            return super().act(episodes)[:-1]

    summary = run(tmp_path / "b", Short(half_right))
    assert summary.failures == {"policy": 12}
    assert "0 actions for 1 episodes" in str(summary.first_failure)


@pytest.mark.parametrize("tokens", [-1, "many"])
def test_a_wrong_count_of_tokens_is_the_agents_failure(tmp_path: Path, tokens: Any) -> None:
    assert run(tmp_path / "b", ToyAgent(half_right, tokens=tokens)).failures == {"policy": 12}


def test_a_task_that_differs_between_trials_is_the_environments_failure(tmp_path: Path) -> None:
    summary = run(tmp_path / "b", trials=3, env_kwargs={"trouble": "fickle"})
    assert summary.failures == {"environment": 12}
    assert "differs between trials" in str(summary.first_failure)


def test_progress_counts_episodes(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    run(tmp_path / "b", progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done, 12) for done in range(1, 13)]


def test_the_manifest_says_how_to_run_it_again(tmp_path: Path) -> None:
    run(tmp_path / "b", env_kwargs={"trouble": "", "format": "xml"})
    manifest = json.loads((tmp_path / "b" / "run.json").read_text())
    assert manifest["command"] == (
        "treegrpo eval --agent oracle --env tests/Toy-v0 --split test --tasks 6 --trials 2 "
        "--seed 3 --first-index 0 --env-arg 'trouble=\"\"' --env-arg 'format=\"xml\"' --out DIR"
    )
    assert manifest["env_kwargs"] == {"trouble": "", "format": "xml"}
    assert len(manifest["env_digest"]) == 64
    assert {"treegrpo", "python", "gymnasium"} <= manifest["versions"].keys()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"env_id": "tests/Tou-v0"}, UnknownEnv, "Did you mean 'tests/Toy-v0'"),
        ({"split": "tset"}, UnknownSplit, "Did you mean 'test'"),
        ({"env_kwargs": {"troubel": "x"}}, UnknownOption, "Did you mean 'trouble'"),
        ({"num_tasks": 51}, UnknownOption, "Task index 50 asked for; the split has 0 to 49"),
        ({"first_index": -1}, UnknownOption, "Task index -1"),
        ({"num_tasks": 0}, TreegrpoError, "num_tasks=0 asked for; give a whole number"),
        ({"trials": 0}, TreegrpoError, "trials=0"),
        ({"concurrency": 0}, TreegrpoError, "concurrency=0"),
        ({"seed": -1}, TreegrpoError, "field seed"),
        ({"env_kwargs": {"trouble": Path("x")}}, TreegrpoError, "field env_kwargs.trouble"),
    ],
)
def test_a_wrong_request_is_refused_and_leaves_nothing(
    tmp_path: Path, changes: dict[str, Any], error: type[TreegrpoError], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(tmp_path / "b", **changes)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_path_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(BundleError, match="exists already"):
        run(tmp_path / "b")
    assert list((tmp_path / "b").iterdir()) == []


def test_only_the_unfinished_part_is_on_disk_while_episodes_are_played(tmp_path: Path) -> None:
    found: set[str] = set()

    def look(view: EpisodeView) -> str:
        found.update(path.name for path in tmp_path.iterdir())
        return view.env.oracle()

    run(tmp_path / "b", ToyAgent(look))
    assert found == {".b.part"}
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_stopping_by_hand_before_the_first_end_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(view: EpisodeView) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", ToyAgent(stop))
    assert list(tmp_path.iterdir()) == []


def stopping_at(task: int) -> ToyAgent:
    def act(view: EpisodeView) -> str:
        if view.env.episode.index == task:
            raise KeyboardInterrupt
        return view.env.oracle()

    return ToyAgent(act)


def test_a_stopped_evaluation_goes_on_with_the_same_call(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", stopping_at(4), concurrency=1)
    assert [path.name for path in tmp_path.iterdir()] == [".b.part"]
    calls: list[tuple[int, int]] = []
    rest = stopping_at(-1)
    run(tmp_path / "b", rest, concurrency=1, progress=lambda *counts: calls.append(counts))
    assert rest.finished == ["4/0", "4/1", "5/0", "5/1"]
    assert calls == [(done, 12) for done in range(8, 13)]
    whole = read_bundle_of(tmp_path / "whole", agent=stopping_at(-1))
    resumed = read_bundle(tmp_path / "b")
    assert without_times(resumed) == without_times(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "whole"]


def test_a_torn_line_and_a_cut_log_are_played_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", stopping_at(4), concurrency=1)
    part = tmp_path / ".b.part"
    progress = part / "progress.jsonl"
    rows = progress.read_bytes().splitlines(keepends=True)
    chain = json.loads(rows[2])["episode"]["chain"]
    (part / "bundle" / "trajectories" / f"{chain}.jsonl.gz").write_bytes(b"cut")
    (part / "bundle" / "trajectories" / "stray.jsonl.gz").write_bytes(b"")
    progress.write_bytes(b"".join(rows)[:-5])
    rest = stopping_at(-1)
    run(tmp_path / "b", rest, concurrency=1)
    assert rest.finished == ["0/1", "3/1", "4/0", "4/1", "5/0", "5/1"]


def test_another_evaluation_does_not_take_over_a_half_finished_one(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", stopping_at(4), concurrency=1)
    with pytest.raises(BundleError, match=r"half finished in .*: its trials, seed differ"):
        run(tmp_path / "b", stopping_at(-1), trials=3, seed=4)
    progress = tmp_path / ".b.part" / "progress.jsonl"
    progress.write_bytes(progress.read_bytes().splitlines(keepends=True)[0] + b"{}\n")
    with pytest.raises(BundleError, match="line 2 holds no episode"):
        run(tmp_path / "b", stopping_at(-1))


def test_two_processes_do_not_write_one_bundle(tmp_path: Path) -> None:
    def start_another(view: EpisodeView) -> str:
        with pytest.raises(BundleError, match="another process is writing it"):
            run(tmp_path / "b")
        return view.env.oracle()

    assert run(tmp_path / "b", ToyAgent(start_another)).failures == {}


def test_no_space_is_one_message_and_nothing_half_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("treegrpo.leaderboards.files.os.fsync", full)
    with pytest.raises(BundleError, match=r"cannot be written: No space left on device\. Fini"):
        run(tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_found_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    agent = ToyAgent(half_right)
    with pytest.raises(BundleError, match="cannot be written"):
        run(tmp_path / "file" / "b", agent)
    assert agent.batches == []


def test_usage_is_kept_by_kind_and_null_stays_null(tmp_path: Path) -> None:
    usage = Usage(input=90, cached=40, output=9, dollars=Decimal("0.0310"), requests=2)
    summary = run(tmp_path / "b", ToyAgent(half_right, tokens=usage), num_tasks=1, trials=2)
    [first, _] = read_bundle(tmp_path / "b").episodes
    assert first.tokens.model_dump() == {
        "input": 90, "cached": 40, "output": 9, "reasoning": None
    }  # fmt: skip
    assert (first.dollars, first.requests) == ("0.031", 2)
    assert summary.sampled_tokens == 18


def test_a_failed_service_is_not_the_agents_failure(tmp_path: Path) -> None:
    def act(view: EpisodeView) -> str:
        raise ProviderFailed("503 from the model")

    summary = run(tmp_path / "b", ToyAgent(act), num_tasks=2)
    assert summary.failures == {"provider": 4}
    assert summary.success.mean == 0.0
    assert summary.first_failure == "ProviderFailed: 503 from the model"


def test_the_terms_stand_in_the_manifest(tmp_path: Path) -> None:
    suite = SuiteRef(name="treegrpo/core-v1", digest="1" * 64)
    terms = Terms(
        suite=suite, track="search", training="zero-shot", registration="2" * 64,
        prices="2026-11", command="treegrpo eval --agent x",
    )  # fmt: skip
    run(tmp_path / "b", terms=terms, num_tasks=1)
    manifest = read_bundle(tmp_path / "b").manifest
    assert (manifest.suite, manifest.track, manifest.training) == (suite, "search", "zero-shot")
    assert (manifest.registration, manifest.prices) == ("2" * 64, "2026-11")
    assert manifest.command == "treegrpo eval --agent x"
    assert manifest.budgets.model_dump() == {
        "max_turns": 4, "max_tool_calls": 16, "max_seconds": None,
        "max_observation_chars": 4_000, "max_action_chars": 8_000,
    }  # fmt: skip
