from __future__ import annotations

import copy
import functools
import itertools
import threading
import warnings
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from tests.unit.envs.toys import Sum
from treegrpo.envs import Message, Task, ToolEnv, tool
from treegrpo.envs.errors import (
    EpisodeOver,
    GraderFailed,
    NoEpisode,
    SnapshotUnsupported,
    TreegrpoError,
    UnknownOption,
    UnknownSplit,
)


def call(name: str, **arguments: Any) -> str:
    return Sum().encode_call(name, **arguments)


def started(env: ToolEnv | None = None, seed: int = 0) -> ToolEnv:
    env = Sum() if env is None else env
    env.reset(seed=seed)
    return env


def test_an_episode_from_reset_to_the_answer() -> None:
    env = Sum()
    observation, info = env.reset(seed=3, options={"split": "test", "index": 4})
    assert observation == f"Add up.\n{env.task.question}"
    assert [m["role"] for m in info["messages"]] == ["system", "user"]
    assert (info["split"], info["index"], info["difficulty"], info["turn"]) == ("test", 4, 1, 0)
    assert info["task_id"] == env.task.id and info["success"] is False

    missing = env.task.answer
    observation, reward, terminated, truncated, info = env.step(call("add", number=missing))
    assert (observation, reward, terminated, truncated) == (
        f"The total is {missing}.",
        0.0,
        False,
        False,
    )
    assert info["messages"] == [{"role": "tool", "name": "add", "content": observation}]
    assert info["reward_components"] == {} and info["end_reason"] is None

    _, reward, terminated, truncated, info = env.step(call("answer"))
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info["reward_components"] == {"sum": 1.0} and info["success"] is True
    assert (info["end_reason"], info["turn"], info["tool_calls"]) == ("answered", 2, 2)
    assert env.episode.episode_return == 1.0
    with pytest.raises(EpisodeOver, match=r"has ended \(answered\)"):
        env.step("more")


def test_a_wrong_answer_scores_nothing() -> None:
    env = started()
    _, reward, terminated, _, info = env.step(call("answer"))
    assert (reward, terminated, info["success"]) == (0.0, True, False)


@pytest.mark.parametrize(
    ("action", "kind", "says"),
    [
        ("I do not know.", "parse", "No tool call found."),
        ("<tool_call>{oops</tool_call>", "parse", "not valid JSON"),
        (
            '<tool_call>{"name": "fly"}</tool_call>',
            "unknown_tool",
            "Unknown tool 'fly'. Tools: add",
        ),
        ('<tool_call>{"name": "reset"}</tool_call>', "unknown_tool", "Unknown tool 'reset'"),
        (call("add"), "bad_arguments", "number: Field required. add takes: number."),
        (call("add", number="x"), "bad_arguments", "number: Input should be a valid integer"),
    ],
)
def test_what_an_agent_does_wrong_is_an_observation(action: str, kind: str, says: str) -> None:
    env = started()
    observation, reward, terminated, truncated, info = env.step(action)
    assert says in observation
    assert info["errors"] == [kind]
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert env.state["total"] == 0


class Fails(Sum):
    """Tools and scorers that raise."""

    def roll(self) -> str:
        raise ZeroDivisionError("by zero")

    def score(self, state: Any, transcript: Sequence[Message], task: Task) -> float:
        return {"raise": 1 / 0 if state["total"] == 1 else 0.0, "nan": float("nan")}["nan"]


def test_a_tools_exception_is_an_observation() -> None:
    observation, *_, info = started(Fails()).step(call("roll"))
    assert observation == "Tool 'roll' failed: ZeroDivisionError: by zero"
    assert info["errors"] == ["tool_error"]


@pytest.mark.parametrize(
    "given", [True, 1, 0.5, np.float32(0.5), np.int64(1), np.bool_(True), Fraction(1, 2)]
)
def test_any_kind_of_number_is_a_score(monkeypatch: pytest.MonkeyPatch, given: Any) -> None:
    monkeypatch.setattr(Fails, "score", lambda *_: given)
    env = started(Fails())
    reward = env.step(call("answer"))[1]
    assert type(reward) is float and reward == float(given)


@pytest.mark.parametrize("given", ["1", np.str_("1"), b"1", None, [1.0], 1j, {"a": 1.0, "b": "1"}])
def test_what_is_no_number_is_the_graders_failure(
    monkeypatch: pytest.MonkeyPatch, given: Any
) -> None:
    monkeypatch.setattr(Fails, "score", lambda *_: given)
    env = started(Fails())
    with pytest.raises(GraderFailed, match=r"^score\(\) of Fails gave \{.*\}: no number$"):
        env.step(call("answer"))


def test_a_task_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fails, "make_task", lambda *_: {"question": "?"})
    words = r"Task \d+ of Fails asked for; .* gave \{'question': '\?'\}, no Task\. Return Task\("
    with pytest.raises(TreegrpoError, match=words):
        started(Fails())


def test_a_state_that_cannot_be_copied_is_refused_before_it_is_scored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Fails, "setup", lambda *_: {"total": 0, "lock": threading.Lock()})
    with pytest.raises(SnapshotUnsupported, match=r"copying self\.state: cannot pickle"):
        started(Fails()).step(call("answer"))


def test_a_failing_or_infinite_score_is_the_graders_failure() -> None:
    env = started(Fails())
    with pytest.raises(GraderFailed, match="not finite"):
        env.step(call("answer"))
    env.reset(seed=0)
    env.step(call("add", number=1))
    with pytest.raises(GraderFailed, match=r"raised ZeroDivisionError.* at test_core\.py:\d+$"):
        env.step(call("answer"))


def test_the_turn_limit_truncates_and_still_scores() -> None:
    env = started()
    env.step(call("add", number=env.task.answer))
    for _ in range(6):
        assert env.step("hm")[1:4] == (0.0, False, False)
    _, reward, terminated, truncated, info = env.step("hm")
    assert (terminated, truncated) == (False, True)
    assert (info["end_reason"], reward) == ("turn_limit", 1.0)


def test_the_tool_call_limit_stops_in_the_middle_of_an_action() -> None:
    env = started()
    *_, truncated, info = env.step(call("add", number=1) * 20)
    assert (truncated, info["end_reason"], info["tool_calls"]) == (True, "tool_call_limit", 16)
    assert env.state["total"] == 16


def test_a_cap_lowers_the_tool_call_limit_of_one_episode() -> None:
    env = started()
    env.cap_tool_calls(2)
    env.cap_tool_calls(5)
    twin = env.fork()
    for episode in (env, twin):
        *_, info = episode.step(call("add", number=1) * 3)
        assert (info["end_reason"], info["tool_calls"]) == ("tool_call_limit", 2)
    env.reset(seed=0)
    assert env.episode.max_tool_calls == env.max_tool_calls


def test_the_clock_truncates() -> None:
    env = Sum()
    env.max_seconds = 0.0
    env.reset(seed=0)
    *_, truncated, info = env.step(call("roll"))
    assert (truncated, info["end_reason"]) == (True, "time_limit")


def test_an_episode_of_one_turn_terminates() -> None:
    env = Sum()
    env.max_turns = 1
    env.reset(seed=0)
    *_, terminated, truncated, info = env.step("hm")
    assert (terminated, truncated, info["end_reason"]) == (True, False, "turn_limit")


def test_calls_behind_the_end_are_not_run() -> None:
    env = started()
    env.step(call("add", number=1) + call("answer") + call("add", number=1))
    assert (env.state["total"], env.episode.end_reason) == (1, "answered")


class Loud(Sum):
    """Tools that say more than may be shown."""

    max_observation_chars = 100
    max_action_chars = 300

    def roll(self) -> str:
        return "x" * 99 + "\ud800"

    def add(self, number: int) -> str:
        return "y" * 70


def test_long_observations_are_cut_and_stay_in_the_space() -> None:
    env = started(Loud())
    observation, *_, info = env.step(call("roll"))
    assert observation == "x" * 99 + "?"
    observation, *_, info = env.step(call("add", number=1) * 3)
    assert observation == "y" * 70 + "\n" + "y" * 29 + " [cut]"
    assert observation == "\n".join(m["content"] for m in info["messages"])
    assert observation in env.observation_space


def test_long_actions_are_cut_and_lone_surrogates_replaced() -> None:
    env = started(Loud())
    env.step("\udfff" + "a" * 400)
    action = env.messages[-2]["content"]
    assert action == "?" + "a" * 299


@pytest.mark.parametrize(
    ("length", "found"), [(301, "301"), (600, "600"), (601, "more than 600"), (9_999, "more than")]
)
def test_of_an_action_that_is_too_long_nothing_is_run(length: int, found: str) -> None:
    env = started(Sum())
    env.max_action_chars = 300
    action = call("add", number=1) + call("answer", text="x" * 9_999)
    observation, reward, terminated, truncated, info = env.step(action[:length])
    assert observation.startswith(f"The action is too long: found {found}")
    assert observation.endswith(
        " characters, at most 300 are read. Nothing was run. Write a shorter one."
    )
    assert (reward, terminated, truncated, info["errors"]) == (0.0, False, False, ["parse"])
    assert (env.state["total"], info["tool_calls"], len(info["messages"])) == (0, 0, 1)


def test_an_action_of_just_the_limit_is_run() -> None:
    env = started(Sum())
    env.max_action_chars = len(call("add", number=1))
    assert env.step(call("add", number=1))[-1]["errors"] == [] and env.state["total"] == 1


def test_many_faults_do_not_flood_the_observation() -> None:
    observation, *_, info = started().step("<tool_call>{</tool_call>" * 300)
    assert observation.count("not valid JSON") == 3
    assert info["errors"] == ["parse"] * 3


def test_before_reset_every_call_says_so() -> None:
    env = Sum()
    for ask in (env.snapshot, env.fork, env.state_hash, lambda: env.step("x"), lambda: env.state):
        with pytest.raises(NoEpisode, match=r"Sum has no episode yet. Call reset\(\) first."):
            ask()


def test_wrong_reset_options_say_what_there_is() -> None:
    env = Sum()
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"dificulty": 1}, UnknownOption, "Did you mean 'difficulty'?"),
        ({"split": "tets"}, UnknownSplit, "it has: train, test. Did you mean 'test'?"),
        ({"index": 1_000}, UnknownOption, "the split has 0 to 999, which are 1,000 tasks. Choose"),
        ({"index": -1}, UnknownOption, "the split has 0 to 999"),
        ({"index": "2"}, UnknownOption, "an index is an integer"),
        ({"difficulty": 9}, UnknownOption, "the split has 1, 2."),
        ({"task_id": "nope", "split": "test"}, UnknownOption, "Give its index instead"),
        ({"index": 1, "difficulty": 1}, UnknownOption, "index and difficulty asked for together"),
    ]
    for options, kind, says in wrong:
        with pytest.raises(kind) as caught:
            env.reset(seed=0, options=options)
        assert says in str(caught.value)


def test_options_choose_the_task() -> None:
    env = Sum()
    for difficulty in (1, 2):
        for seed in range(5):
            _, info = env.reset(seed=seed, options={"difficulty": difficulty})
            assert info["difficulty"] == difficulty
    _, info = env.reset(seed=0, options={"split": "test", "index": 7})
    _, again = env.reset(seed=1, options={"split": "test", "task_id": info["task_id"]})
    assert (again["index"], again["task_id"]) == (7, info["task_id"])
    assert {env.reset(seed=seed)[1]["index"] for seed in range(20)} != {7}


def test_the_seed_decides_everything_whatever_was_before() -> None:
    one, other = Sum(), Sum()
    one.reset(seed=9)
    one.step(call("roll"))
    for env in (one, other):
        env.reset(seed=5)
        env.step(call("roll"))
    assert one.messages == other.messages
    assert one.state_hash() == other.state_hash()
    one.reset()
    other.reset()
    assert one.state_hash() == other.state_hash()
    other.reset(seed=6)
    assert one.state_hash() != other.state_hash()


def test_what_is_handed_out_can_be_changed_without_effect() -> None:
    env = started()
    before = env.state_hash()
    _, _, _, _, info = env.fork().step(call("roll"))
    shot = env.snapshot()
    _, info = env.restore(shot)
    info["messages"][0]["content"] = "changed"
    info["errors"].append("changed")
    env.messages[0]["content"] = "changed"
    assert env.messages[0]["content"] == "Add up."
    assert env.restore(shot)[1]["messages"][0]["content"] == "Add up."
    assert env.state_hash() == before


def test_forks_go_their_own_ways() -> None:
    env = started()
    env.step(call("add", number=1))
    twin = env.fork()
    twin.step(call("add", number=5))
    assert (env.state["total"], twin.state["total"]) == (1, 6)
    assert (env.episode.turns, twin.episode.turns) == (1, 2)
    env.step(call("add", number=2))
    assert env.state["steps"] == [1, 2] and twin.state["steps"] == [1, 5]


def test_a_fork_inherits_randomness_unless_reseeded() -> None:
    env = started()
    roll = call("roll")
    inherit, fresh, same = env.fork(), env.fork(seed=1), env.fork(seed=1)
    texts = [e.step(roll)[0] for e in (env, inherit, fresh, same)]
    assert texts[0] == texts[1] != texts[2] == texts[3]


def test_a_restore_replaces_the_generator_object() -> None:
    env = started()
    held = env.np_random
    env.restore(env.snapshot())
    assert env.np_random is not held


def test_copies_are_forks() -> None:
    env = started()
    twin = copy.deepcopy(env)
    twin.step(call("add", number=1))
    assert (env.state["total"], twin.state["total"]) == (0, 1)
    new = copy.deepcopy(Sum())
    with pytest.raises(NoEpisode):
        _ = new.state


def test_snapshots_of_other_environments_or_options_are_refused() -> None:
    shot = started().snapshot()
    longer = Sum()
    longer.max_turns = 99
    for other, says in ((Fails(), "the snapshot is of Sum"), (longer, "other options or budgets")):
        with pytest.raises(SnapshotUnsupported, match=says):
            other.restore(shot)
    with pytest.raises(SnapshotUnsupported, match="other options"):
        Sum(format="xml").restore(shot)


class Strays(Sum):
    """Attributes set late: a declared world, and others that are not."""

    shared = ("world",)

    @functools.cached_property
    def world(self) -> list[int]:
        return [1, 2, 3]

    def roll(self) -> str:
        return f"The world has {len(self.world)} parts."

    def add(self, number: int) -> str:
        self.notes = [number]
        return "Noted."


def test_a_late_attribute_is_refused_unless_declared_as_a_world() -> None:
    env = started(Strays())
    env.step(call("roll"))
    assert env.fork().step(call("roll"))[0] == "The world has 3 parts."
    env.step(call("add", number=1))
    with pytest.raises(SnapshotUnsupported, match=r"self\.notes was set after the first reset"):
        env.snapshot()


def test_an_attribute_that_is_deleted_or_replaced_is_noticed() -> None:
    env = Sum()
    env.notes = [1]  # type: ignore[attr-defined]
    env.reset(seed=0)
    env.snapshot()
    env.notes = [1]  # type: ignore[attr-defined]
    with pytest.raises(SnapshotUnsupported, match=r"self\.notes"):
        env.snapshot()
    del env.notes  # type: ignore[attr-defined]
    with pytest.raises(SnapshotUnsupported, match=r"self\.notes"):
        env.fork()


def test_rendering_and_closing() -> None:
    env = Sum(render_mode="ansi")
    env.reset(seed=0)
    env.step("hm")
    rendered = env.render()
    assert rendered is not None and "[assistant] hm" in rendered
    assert started().render() is None
    env.close()
    env.close()
    with pytest.raises(NoEpisode):
        env.step("x")


def test_unknown_tools_and_formats_are_named_to_the_programmer() -> None:
    with pytest.raises(UnknownOption, match="Did you mean 'add'"):
        Sum().encode_call("ad")
    with pytest.raises(UnknownOption, match="known formats: hermes, xml"):
        Sum(format="hermess")


def test_random_actions_are_seeded_and_varied() -> None:
    env = started()
    texts = [env.sample_action(np.random.default_rng(seed)) for seed in range(40)]
    assert texts == [env.sample_action(np.random.default_rng(seed)) for seed in range(40)]
    assert len(set(texts)) > 10
    calls = [text for text in texts if text.startswith("<tool_call>")]
    assert 20 < len(calls) < 40
    for text in texts:
        twin = env.fork()
        assert twin.step(text)[0] in twin.observation_space


class Bare(ToolEnv):
    """An author who forgot everything."""


class Listed(Bare):
    """Tasks from a list, without difficulty levels of its own."""

    def tasks(self, split: str) -> Sequence[Task]:
        hard = Task("b", "Hard?", difficulty=5)
        return [Task("a", "Easy?"), hard] if split == "train" else []

    @tool
    def answer(self) -> str:
        """End."""
        self.finish("gave up")
        return "Bye."

    def score(self, state: Any, transcript: Sequence[Message], task: Task) -> float:
        assert transcript[-1]["role"] == "assistant"
        return 0.5


def test_what_an_author_forgot_is_named() -> None:
    env = Bare()
    with pytest.raises(NotImplementedError, match=r"Bare needs make_task\(\) or tasks\(\)"):
        env.reset(seed=0)
    with pytest.raises(NotImplementedError, match="Bare ships no oracle"):
        env.oracle()


def test_tasks_from_a_list() -> None:
    env = Listed()
    _, info = env.reset(seed=0, options={"difficulty": 5})
    assert (info["task_id"], info["index"]) == ("b", 1)
    _, reward, *_, info = env.step(env.encode_call("answer"))
    assert (reward, info["end_reason"]) == (0.5, "gave up")
    assert info["reward_components"] == {"score": 0.5} and info["success"] is False
    with pytest.raises(UnknownOption, match="Task index 0 asked for; the split has none"):
        env.reset(options={"split": "test", "index": 0})
    with pytest.raises(UnknownOption, match="the split has 0 to 1, which are 2 tasks"):
        env.reset(options={"index": 2})
    with pytest.raises(UnknownOption, match="the split has none"):
        env.reset(seed=0, options={"split": "test"})


def test_gymnasiums_checker_has_nothing_to_say() -> None:
    id = "tests/Sum-v0"
    gymnasium.register(id, entry_point="tests.unit.envs.toys:Sum")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check_env(gymnasium.make(id).unwrapped)
    finally:
        gymnasium.registry.pop(id)


def test_a_vector_of_environments_steps_them_all() -> None:
    envs = gymnasium.vector.SyncVectorEnv(
        [Sum, Sum], autoreset_mode=gymnasium.vector.AutoresetMode.DISABLED
    )
    observations, _ = envs.reset(seed=[1, 2])
    assert all(text.startswith("Add up.") for text in observations)
    observations, *_ = envs.step((call("add", number=1), call("add", number=2)))
    assert list(observations) == ["The total is 1.", "The total is 2."]
    envs.close()


def test_generated_tasks_are_balanced_and_disjoint() -> None:
    env = Sum()
    train, test = env.tasks("train"), env.tasks("test")
    assert [task.difficulty for task in train[:4]] == [1, 2, 1, 2]
    assert train[5] == env.tasks("train")[5] != test[5]
    assert [task.id for task in itertools.islice(train, 3)] == [task.id for task in train[:3]]
    with pytest.raises(IndexError):
        _ = test[50]
