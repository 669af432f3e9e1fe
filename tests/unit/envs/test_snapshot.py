from __future__ import annotations

import copy
import dataclasses
import functools
import pickle
from typing import Any

import gymnasium
import pytest
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, RecordEpisodeStatistics, TimeLimit

from tests.unit.envs.toys import Sum, UnknownWrapper
from treegrpo.envs import Snapshot, ToolEnv, fork, restore, snapshot
from treegrpo.envs.errors import SnapshotUnsupported
from treegrpo.envs.snapshot import core_of

Env = gymnasium.Env[str, str]
ADD = Sum().encode_call("add", number=1)


def stack(max_steps: int = 5) -> Env:
    """Return the stack that gymnasium.make builds."""
    return TimeLimit(OrderEnforcing(PassiveEnvChecker(Sum())), max_episode_steps=max_steps)


class Counting(gymnasium.Wrapper[str, str, str, str]):
    """A wrapper that declares its state."""

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self.counts: list[int] = []

    def step(self, action: str) -> tuple[str, Any, bool, bool, dict[str, Any]]:
        self.counts.append(1)
        return super().step(action)

    def wrapper_state(self) -> dict[str, Any]:
        return {"counts": self.counts}

    def set_wrapper_state(self, state: dict[str, Any]) -> None:
        self.counts = state["counts"]


class Plain(gymnasium.Wrapper[str, str, str, str]):
    """A wrapper without state."""

    stateless = True


def test_it_tells_where_the_episode_stood() -> None:
    env = Sum()
    env.reset(seed=1)
    env.step(ADD)
    shot = env.snapshot()
    assert (shot.env_id, shot.task_id, shot.turn) == ("Sum", env.task.id, 1)
    assert (shot.terminated, shot.truncated, shot.episode_return) == (False, False, 0.0)
    assert shot.hash == env.state_hash() and shot.portable
    assert shot.nbytes == len(shot.to_bytes()) < 5_000
    with pytest.raises(dataclasses.FrozenInstanceError):
        shot.turn = 3  # type: ignore[misc]


def test_it_travels_as_bytes() -> None:
    env = Sum()
    env.reset(seed=1)
    shot = Snapshot.from_bytes(env.snapshot().to_bytes())
    expected = env.step(ADD)
    other = Sum()
    other.restore(shot)
    assert other.step(ADD) == expected and other.state_hash() == env.state_hash()


@pytest.mark.parametrize("data", [b"", b"nonsense", pickle.dumps([1, 2])])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(SnapshotUnsupported, match="the bytes"):
        Snapshot.from_bytes(data)


def test_bytes_of_another_version_are_refused() -> None:
    env = Sum()
    env.reset(seed=1)
    old = dataclasses.replace(env.snapshot(), version=0)
    with pytest.raises(SnapshotUnsupported, match="no snapshot of format 1"):
        Snapshot.from_bytes(pickle.dumps(old))


class Local(Sum):
    """State of a class that no other process can import."""

    def setup(self, task: Any, rng: Any) -> Any:
        class Hidden:
            def state_facts(self) -> int:
                return 1

        return {"hidden": Hidden(), "total": 0}


def test_state_that_cannot_be_pickled_restores_but_is_not_portable() -> None:
    env = Local()
    env.reset(seed=1)
    shot = env.snapshot()
    assert not shot.portable and shot.nbytes == 0
    with pytest.raises(SnapshotUnsupported, match=r"pickling self\.state"):
        shot.to_bytes()
    other = Local()
    other.restore(shot)
    assert other.state_hash() == shot.hash


@pytest.mark.parametrize("point", [0, 1, 2, 3])
def test_a_time_limits_count_is_carried(point: int) -> None:
    env = stack(max_steps=4)
    env.reset(seed=0)
    for _ in range(point):
        env.step(ADD)
    shot, new = snapshot(env), stack(max_steps=4)
    restore(new, shot)
    for other in (fork(env), new, env):
        flags = [other.step(ADD)[3] for _ in range(4 - point)]
        assert flags == [False] * (3 - point) + [True]


def test_a_restored_stack_needs_no_reset() -> None:
    env = stack()
    env.reset(seed=0)
    env.step(ADD)
    shot, other = snapshot(env), stack()
    assert restore(other, shot)[0] == "The total is 1."
    # Gymnasium's checker compares a step with what it kept of the one before.
    assert other.step(ADD)[0] == "The total is 2."
    assert other.step(ADD)[0] == "The total is 3."


def test_wrappers_that_declare_their_state_are_forked_with_it() -> None:
    env = Plain(Counting(Sum()))
    env.reset(seed=0)
    env.step(ADD)
    shot, twin = snapshot(env), fork(env)
    twin.step(ADD)
    assert (env.get_wrapper_attr("counts"), twin.get_wrapper_attr("counts")) == ([1], [1, 1])
    restore(twin, shot)
    twin.step(ADD)
    assert twin.get_wrapper_attr("counts") == [1, 1]
    assert dict(shot.wrappers)["tests.unit.envs.test_snapshot.Counting"] == {"counts": [1]}


def test_wrappers_that_do_not_are_refused() -> None:
    env: Env = UnknownWrapper(Sum())
    env.reset(seed=0)
    for ask in (snapshot, fork):
        with pytest.raises(SnapshotUnsupported, match="UnknownWrapper"):
            ask(env)


def statistics(env: Env, steps: int) -> tuple[float, int]:
    """Return the return and length that the wrapper tells at the end of the episode."""
    info: dict[str, Any] = {}
    for _ in range(steps):
        *_, info = env.step(ADD)
    return info["episode"]["r"], info["episode"]["l"]


def test_episode_statistics_are_carried() -> None:
    env = RecordEpisodeStatistics(stack(max_steps=4))
    env.reset(seed=0)
    env.step(ADD)
    shot, twin = snapshot(env), fork(env)
    new = RecordEpisodeStatistics(stack(max_steps=4))
    restore(new, Snapshot.from_bytes(shot.to_bytes()))
    for other in (twin, new, env):
        assert statistics(other, 3) == (0.0, 4)
        assert other.get_wrapper_attr("episode_count") == 1
    restore(env, shot)
    assert (env.episode_count, list(env.length_queue)) == (0, [])


def test_an_episodes_time_goes_on_from_where_it_stood(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    env = RecordEpisodeStatistics(stack(max_steps=1))
    env.reset(seed=0)
    now[0] = 103.0
    shot = snapshot(env)
    now[0] = 5.0  # another process's clock
    restore(env, shot)
    now[0] = 7.0
    assert env.step(ADD)[4]["episode"]["t"] == 5.0


def test_deepcopy_of_a_stack_is_a_fork() -> None:
    env = RecordEpisodeStatistics(stack(max_steps=4))
    env.reset(seed=0)
    env.step(ADD)
    twin = copy.deepcopy(env)
    assert core_of(twin).state_hash() == core_of(env).state_hash()
    assert statistics(twin, 3) == (0.0, 4)
    assert core_of(env).episode.turns == 1 and env.episode_lengths == 1


def test_another_stack_is_refused_before_anything_changes() -> None:
    env, bare = stack(), Sum()
    env.reset(seed=0)
    bare.reset(seed=5)
    before = bare.state_hash()
    with pytest.raises(SnapshotUnsupported, match="this stack's are"):
        restore(bare, snapshot(env))
    assert bare.state_hash() == before


def test_other_environments_are_refused() -> None:
    with pytest.raises(SnapshotUnsupported, match="CartPoleEnv is no ToolEnv"):
        snapshot(gymnasium.make("CartPole-v1"))


def test_a_fork_keeps_its_spec() -> None:
    gymnasium.register("tests/Sum-v1", entry_point="tests.unit.envs.toys:Sum")
    try:
        env: Env = gymnasium.make("tests/Sum-v1", render_mode="ansi")
        env.reset(seed=0)
        twin = fork(env, seed=3)
        assert twin.spec == env.spec and twin.spec is not None
        assert isinstance(twin.unwrapped, ToolEnv)
        assert twin.unwrapped.spec is not None and twin.unwrapped.render_mode == "ansi"
        restore(gymnasium.make("tests/Sum-v1"), snapshot(env))  # a render mode is no setting
    finally:
        gymnasium.registry.pop("tests/Sum-v1")


def test_an_environment_travels_by_pickle() -> None:
    env = RecordEpisodeStatistics(stack(max_steps=4))
    env.reset(seed=0)
    env.step(ADD)
    twin = pickle.loads(pickle.dumps(env))
    assert core_of(twin).state_hash() == core_of(env).state_hash()
    assert twin.step(ADD) == env.step(ADD) and twin.action_space == env.action_space
    assert statistics(twin, 2) == (0.0, 4) == statistics(env, 2)
    assert core_of(twin).sample_action(core_of(twin).np_random)


def test_an_environment_without_an_episode_travels_too() -> None:
    env = pickle.loads(pickle.dumps(Sum(format="xml")))
    assert env.encode_call("add", number=1) == "<add>1</add>"
    assert env.reset(seed=3) == Sum().reset(seed=3)


class Worldly(Sum):
    """A world that is built when it is first asked for."""

    shared = ("world",)

    @functools.cached_property
    def world(self) -> Any:
        return iter(())  # no pickle could take it


def test_a_cached_world_stays_behind() -> None:
    env = Worldly()
    env.reset(seed=0)
    world = env.world
    twin = pickle.loads(pickle.dumps(env))
    assert twin.state_hash() == env.state_hash() and twin.world is not world


def test_an_episode_that_cannot_be_captured_is_not_pickled() -> None:
    env = Sum()
    env.reset(seed=0)
    env.total = 3  # type: ignore[attr-defined]
    with pytest.raises(SnapshotUnsupported, match=r"self\.total was set after the first reset"):
        pickle.dumps(env)
