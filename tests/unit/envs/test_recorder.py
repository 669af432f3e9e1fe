from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.envs.toys import Sum
from treegrpo.envs import make
from treegrpo.envs.baselines import oracle_action
from treegrpo.envs.digest import digest
from treegrpo.envs.errors import LogError, NoEpisode, UnknownEnv
from treegrpo.envs.recorder import (
    CHAIN_TAG,
    MAX_LINE_CHARS,
    Event,
    Recorder,
    decimal,
    read_log,
    replay,
    verify_chain,
    write_log,
)
from treegrpo.envs.snapshot import core_of

ENV = "treegrpo/SearchQA-v0"


def recorded(seed: int = 5, **kwargs: Any) -> list[Event]:
    env = make(ENV, **kwargs)
    recorder = Recorder(env)
    recorder.reset(seed=seed, options={"split": "test", "index": 2})
    recorder.step("What?")
    while not core_of(env).episode.ended:
        recorder.step(oracle_action(core_of(env)))
    return recorder.events


def rechained(events: list[Event]) -> list[Event]:
    """Return the events with hashes that fit: what a forger would write."""
    previous, result = digest(CHAIN_TAG), list[Event]()
    for event in events:
        previous = digest([previous, event.model_dump(exclude={"chain"})])
        result.append(event.model_copy(update={"chain": previous}))
    return result


def test_a_log_has_what_is_needed_to_play_it_again() -> None:
    first, second, *_, last = recorded(top_k=3, render_mode="ansi")
    assert first.kind == "reset" and second.kind == "step" and last.kind == "step"
    assert (first.env_id, first.env_kwargs, first.seed) == (ENV, {"top_k": 3}, 5)
    assert first.options == {"split": "test", "index": 2}
    assert (second.step, second.action, second.reward) == (1, "What?", "0.0")
    assert second.observation_digest == digest(second.observation)
    assert (last.reward, last.terminated, last.end_reason) == ("1.0", True, "answered")


def test_a_recorded_episode_verifies_and_replays() -> None:
    events = recorded()
    assert verify_chain(events) == events[-1].chain
    report = replay(events)
    assert report.matches and report.steps == len(events)


def test_the_recorder_returns_what_the_environment_returns() -> None:
    env, twin = make(ENV), make(ENV)
    recorder = Recorder(env)
    assert recorder.reset(seed=1) == twin.reset(seed=1)
    assert recorder.step("x") == twin.step("x")
    before = recorder.chain
    recorder.reset(seed=1)
    assert len(recorder.events) == 1 and recorder.chain != before


def test_a_log_is_read_back_as_written(tmp_path: Path) -> None:
    events, path = recorded(), tmp_path / "log.jsonl"
    write_log(path, events)
    assert read_log(path) == events
    assert [entry.name for entry in tmp_path.iterdir()] == ["log.jsonl"]


def test_any_change_breaks_the_chain() -> None:
    events = recorded()
    for number, event in enumerate(events):
        for field, value in event.model_dump().items():
            if field in ("kind", "step"):
                continue
            others = {bool: not value, int: 77, dict: {"x": 1}}
            forged = [*events]
            forged[number] = event.model_copy(update={field: others.get(type(value), "x")})
            with pytest.raises(LogError, match=f"event {number}, field chain"):
                verify_chain(forged)


def test_a_missing_moved_or_added_event_is_noticed() -> None:
    events = recorded()
    broken = {
        "one reset was expected": [events[1:], [*events, events[0]]],
        "an event is missing": [[events[0], *events[2:]], [events[0], events[2], events[1]]],
        "holds no event": [[]],
    }
    for says, logs in broken.items():
        for log in logs:
            with pytest.raises(LogError, match=says):
                verify_chain(log)


def test_an_observations_text_must_be_the_one_of_its_digest() -> None:
    events = recorded()
    events[1] = events[1].model_copy(update={"observation": "Well done."})
    with pytest.raises(LogError, match="event 1, field observation"):
        verify_chain(rechained(events))


@pytest.mark.parametrize(
    ("number", "field", "value"),
    [
        (0, "task_id", "other"),
        (1, "reward", "1.0"),
        (1, "terminated", True),
        (2, "state_hash", "0" * 64),
        (2, "end_reason", "answered"),
    ],
)
def test_a_forged_log_diverges_where_it_was_forged(number: int, field: str, value: Any) -> None:
    events = recorded()
    expected = events[number].model_dump()[field]
    events[number] = events[number].model_copy(update={field: value})
    report = replay(rechained(events))
    assert not report.matches and report.divergence is not None
    assert (report.steps, report.divergence.step, report.divergence.field) == (
        number,
        number,
        field,
    )
    assert (report.divergence.expected, report.divergence.got) == (str(value), str(expected))


def test_actions_behind_the_end_diverge() -> None:
    events = recorded()
    extra = events[-1].model_copy(update={"step": len(events)})
    report = replay(rechained([*events, extra]))
    assert report.divergence is not None
    assert (report.divergence.field, report.steps) == ("error", len(events))
    assert "the episode has ended" in report.divergence.got


def test_an_option_that_the_environment_refuses_diverges() -> None:
    events = recorded()
    events[0] = events[0].model_copy(update={"options": {"split": "secret"}})
    report = replay(rechained(events))
    assert report.divergence is not None and "Split 'secret'" in report.divergence.got


def test_the_caller_decides_what_a_log_may_ask_for() -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def make_it(id: str, **kwargs: Any) -> Any:
        asked.append((id, kwargs))
        return make(id, **kwargs)

    assert replay(recorded(top_k=1), make=make_it).matches
    assert asked == [(ENV, {"top_k": 1})]
    events = recorded()
    events[0] = events[0].model_copy(update={"env_id": "treegrpo/Gone-v0"})
    with pytest.raises(UnknownEnv):
        replay(rechained(events))


@pytest.mark.parametrize("length", [8_001, 16_000, 16_001, 300_000])
def test_an_action_that_is_too_long_is_replayed(length: int) -> None:
    recorder = Recorder(env := make(ENV))
    recorder.reset(seed=0)
    assert "The action is too long" in recorder.step("\U0001f600" * length)[0]
    event = recorder.events[1]
    assert event.kind == "step" and len(event.action) == min(length, 16_001)
    assert replay(recorder.events).matches
    env.close()


def test_long_texts_are_kept_in_part_and_hashed_whole() -> None:
    env = make("treegrpo/SQL-v0")
    env.unwrapped.max_action_chars = 9_000  # type: ignore[attr-defined]
    recorder = Recorder(env)
    observation, _ = recorder.reset(seed=0)
    recorder.step("\ud800" + "x" * 10_000)
    event = recorder.events[1]
    assert event.kind == "step" and event.action == "?" + "x" * 10_000
    assert recorder.events[0].observation == observation[:2_000]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2: not valid JSON"),
        ("[" * 100_000, "line 2: not valid JSON"),
        ("[]", "line 2, one object was expected, found a list of 0"),
        ("{}", "line 2, field kind: 'reset' or 'step' was expected, found none"),
        ('{"kind": "leap"}', "line 2, field kind: 'reset' or 'step' was expected, found the strin"),
        ('{"kind": "reset", "seed": "1"}', "line 2, field observation: it is missing"),
        ({"reward": "much"}, "field reward: a number written as a text was expected, found the st"),
        ({"step": "1"}, "line 2, field step: a whole number was expected, found the string '1'"),
        ({"chain": "x"}, "line 2, field chain: a digest of 64 hex digits was expected, found the"),
        ({"terminated": 1}, "field terminated: true or false was expected, found the number 1"),
        ({"action": None}, "line 2, field action: a text was expected, found null"),
        ({"extra": 1}, "line 2, field extra: a log has no such field"),
        ("x" * (MAX_LINE_CHARS + 1), "line 2: the log is too large"),
        ("\u00e9", "line 2: byte 0xc3 found, where a log has ASCII text alone"),
    ],
)
def test_a_malformed_log_is_named_by_line_and_field(
    tmp_path: Path, line: str | dict[str, Any], says: str
) -> None:
    events, path = recorded(), tmp_path / "log.jsonl"
    if isinstance(line, dict):
        line = json.dumps(events[1].model_dump() | line)
    path.write_text(json.dumps(events[0].model_dump()) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(LogError) as caught:
        read_log(path)
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"Reading an action log from '{path}', line 2")
    assert str(caught.value).endswith(" Give a log as treegrpo play --log writes it.")


def test_files_that_cannot_be_read_or_written_are_named(tmp_path: Path) -> None:
    missing = tmp_path / "none" / "log.jsonl"
    with pytest.raises(LogError, match=f"from '{missing}': it cannot be read .No such file"):
        read_log(missing)
    with pytest.raises(LogError, match=f"from '{tmp_path}': it cannot be read .Is a directory"):
        read_log(tmp_path)
    with pytest.raises(LogError, match=f"Writing an action log to '{missing}': it cannot be writ"):
        write_log(missing, recorded())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(LogError, match="empty': the file is empty"):
        read_log(tmp_path / "empty")


def test_what_nobody_could_replay_is_not_recorded() -> None:
    with pytest.raises(LogError, match="Sum was made without an id"):
        Recorder(Sum()).reset(seed=0)
    with pytest.raises(NoEpisode, match=r"Call reset\(\) first"):
        Recorder(make(ENV)).step("x")
    with pytest.raises(LogError, match=r"event 0, field options\.index"):
        Recorder(make(ENV)).reset(seed=0, options={"index": np.int64(2)})


@pytest.mark.parametrize("reward", [0.0, 1.0, -0.1, 1 / 3, 1e-12, 1e300])
def test_rewards_are_exact_decimals(reward: float) -> None:
    assert float(decimal(reward)) == reward


@pytest.mark.parametrize("reward", [float("nan"), float("inf")])
def test_rewards_are_finite(reward: float) -> None:
    with pytest.raises(LogError, match="must be finite"):
        decimal(reward)
