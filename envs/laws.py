"""The laws of snapshots, S1 to S12, as checks that any environment can be put to.

    for report in check_env_laws("treegrpo/SearchQA-v0"):
        ...                                         # or a class, or a function that makes one

Each law is a function, its docstring the statement. Episodes of the oracle, of an agent that
refuses and of a random one are recorded, then snapshots are taken along them. The laws are
tried from the narrowest to the widest, so that a fault is named by the law it breaks and not
by its consequences.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from gymnasium.wrappers import OrderEnforcing, TimeLimit

from treegrpo.envs import fresh_process, registry
from treegrpo.envs.baselines import null_action
from treegrpo.envs.core import ToolEnv
from treegrpo.envs.digest import canonical_json, digest
from treegrpo.envs.errors import LawViolation, NoEpisode, SnapshotUnsupported
from treegrpo.envs.law_cases import (
    Case,
    Checks,
    Env,
    Factory,
    Moment,
    play,
    record_cases,
    surroundings,
)
from treegrpo.envs.snapshot import Snapshot, core_of, fork, restore, snapshot


@dataclass(frozen=True)
class LawReport:
    """One law that held: its name, its statement, how often it was checked, any reserve."""

    law: str
    statement: str
    checks: int
    note: str = ""


def check_env_laws(
    env: str | Factory,
    *,
    episodes: int = 3,
    seed: int = 0,
    actions: Sequence[str] | None = None,
) -> list[LawReport]:
    """Return one report per law, S1 to S12, if all of them hold.

    Args:
        env: an id, a class, or a function without arguments that makes the environment.
        episodes: how many episodes are recorded to take snapshots in.
        seed: of the first episode; the next ones count up.
        actions: what to do in every episode, instead of the scripted agents' actions.

    Raises:
        LawViolation: names the first broken law and shows what differed.
    """
    make: Factory = (lambda: registry.make(env)) if isinstance(env, str) else env
    cases = record_cases(make, episodes=episodes, seed=seed, actions=actions)
    reports: dict[str, LawReport] = {}
    for law in LAWS:
        name = law_name(law)
        check = Checks(name)
        try:
            law(cases, check)
        except SnapshotUnsupported as error:
            blamed = name if law is s9_wrappers else law_name(s6_totality)
            raise LawViolation(f"{blamed}: a snapshot was refused. {error}") from error
        reports[name] = LawReport(
            name, " ".join((law.__doc__ or "").split()), check.count, check.note
        )
    return sorted(reports.values(), key=lambda report: int(report.law.split()[0][1:]))


Law = Callable[[Sequence[Case], Checks], None]


def law_name(law: Law) -> str:
    """Return the name of a law: "S2 continuation" of s2_continuation."""
    number, _, words = getattr(law, "__name__", "").partition("_")
    return f"{number.upper()} {words.replace('_', ' ')}"


def s1_round_trip(cases: Sequence[Case], check: Checks) -> None:
    """restore(snapshot()) leaves the state hash as it was, and equal to the snapshot's."""
    for case, point, env, where in _snapshot_points(cases):
        before, shot = env.state_hash(), env.snapshot()
        check.same(before, shot.hash, f"{where}, hash of the snapshot")
        seen = env.restore(shot)
        check.same(before, env.state_hash(), f"{where}, state hash after restore")
        other = case.bare()
        check.same(seen, other.restore(shot), f"{where}, observation and info at restore")
        check.same(before, other.state_hash(), f"{where}, state hash in another object")
        check.same(point, env.episode.turns, f"{where}, turn after restore")


def s2_continuation(cases: Sequence[Case], check: Checks) -> None:
    """After restore, every action sequence gives the same observations, rewards, flags, info."""
    for case, point, env, where in _snapshot_points(cases):
        shot = env.snapshot()
        for actions in (case.rest(point), case.detour(env, point)):
            env.restore(shot)
            expected = play(env, actions)
            env.restore(shot)
            check.same_course(expected, play(env, actions), where)
            check.same_course(expected, play(env_at(case, shot), actions), f"{where}, new object")


def s3_purity(cases: Sequence[Case], check: Checks) -> None:
    """Taking a snapshot changes nothing, random state included; nor does scoring."""
    for _, _, env, where in _snapshot_points(cases):
        before = _everything(env)
        env.snapshot()
        _same_everything(check, before, env, f"{where}, after snapshot()")
        if env.episode.ended:
            copied = env.snapshot().episode
            env.score(copied.state, env.messages, env.task)
            _same_everything(check, before, env, f"{where}, after score()")


def s4_multi_shot(cases: Sequence[Case], check: Checks) -> None:
    """One snapshot restores any number of times, whatever was done in between."""
    for case, point, env, where in _snapshot_points(cases):
        shot = env.snapshot()
        env.restore(shot)
        first = env.state_hash()
        play(env, case.rest(point))
        env.restore(shot)
        check.same(first, env.state_hash(), f"{where}, second restore, after later steps")
        play(env, case.detour(env, point))
        env.close()
        check.same(first, env_at(case, shot).state_hash(), f"{where}, after the parent closed")


def s5_isolation(cases: Sequence[Case], check: Checks) -> None:
    """What happens in one fork is invisible in its parent and its siblings."""
    for case, point, parent, where in _snapshot_points(cases):
        forks = [parent.fork() for _ in range(5)]
        before = [surroundings(env) for env in (parent, forks[0])]
        rest, other = case.rest(point), case.detour(parent, point)
        play(forks[1], other)
        alone = play(forks[2], rest)
        for env, old, who in zip((parent, forks[0]), before, ("parent", "sibling"), strict=True):
            for name, value in surroundings(env).items():
                check.same(old.get(name), value, f"{where}, {name} of the {who} of a fork")
        if alone != play(forks[3], rest):
            continue  # not even repeatable without company: another law's case
        together: list[Moment] = []
        for number, action in enumerate(rest):
            play(forks[4], other[number : number + 1])
            together += play(forks[0], [action])
        check.same_course(alone, together, f"{where}, with a fork doing something else")


def s6_totality(cases: Sequence[Case], check: Checks) -> None:
    """A snapshot is allowed at every point from reset to end; before reset a clear error."""
    for case in cases:
        env = case.bare()
        for call in (env.snapshot, env.fork, env.state_hash):
            check.that(_raises(NoEpisode, call), f"{call.__name__}() before reset: no NoEpisode.")
        env.reset(seed=case.seed)
        for number, action in enumerate((*case.actions, None)):
            shot = _snapshot_or_none(env, check, f"seed {case.seed}, step {number}")
            check.same(env.episode.ended, shot.terminated or shot.truncated, "flags of a snapshot")
            if action is not None and not env.episode.ended:
                env.step(action)


def s7_transport(cases: Sequence[Case], check: Checks) -> None:
    """A portable snapshot works in a fresh process with another PYTHONHASHSEED."""
    made_by = fresh_process.recipe(cases[0].make) if cases else None
    if made_by is None:
        check.note = "not checked: another process cannot make this environment; register it"
        return
    courses: list[tuple[Snapshot, Sequence[str]]] = []
    expected: list[list[str]] = []
    for case, point, env, _ in _snapshot_points(cases):
        shot = env.snapshot()
        if not shot.portable:
            check.note = "some snapshots are not portable, and were not sent"
            continue
        courses.append((shot, case.rest(point)))
        expected.append([fresh_process.fingerprint(m) for m in play(env, case.rest(point))])
    try:
        got = fresh_process.play_elsewhere(made_by, courses)
    except RuntimeError as error:
        raise LawViolation(f"{check.law}: the fresh process failed: {error}") from error
    for (shot, _), here, there in zip(courses, expected, got, strict=True):
        for step, (one, other) in enumerate(zip(here, there, strict=False), start=1):
            where = f"task {shot.task_id}, snapshot at turn {shot.turn}, {step} steps later"
            check.that(one == other, f"{where}: a fresh process saw something else.")
        check.same(len(here), len(there), f"task {shot.task_id}, number of steps")


def s8_reseed(cases: Sequence[Case], check: Checks) -> None:
    """restore(s, seed=k) changes only randomness; without a seed randomness is that of s."""
    for case, _, env, where in _snapshot_points(cases):
        shot = env.snapshot()
        random_state = _random_state(env)
        for other in (env, case.bare()):
            other.restore(shot)
            check.same(random_state, _random_state(other), f"{where}, random state after restore")
            facts = canonical_json(other.episode.facts())
            other.restore(shot, seed=4_711)
            reseeded = _random_state(other)
            check.that(reseeded != random_state, f"{where}: restore(seed=4711) did not reseed.")
            now = canonical_json(other.episode.facts())
            check.same(facts, now, f"{where}, state after restore(seed=4711)")
            other.restore(shot, seed=4_711)
            check.same(reseeded, _random_state(other), f"{where}, the same seed again")


def s9_wrappers(cases: Sequence[Case], check: Checks) -> None:
    """S1 to S5 hold through the whole make() stack, TimeLimit's count included."""
    for case in cases:
        for point in case.points[:-1]:
            stack = _stack(case, point + 1)
            where = f"seed {case.seed}, step {point}, whole stack"
            stack.reset(seed=case.seed)
            play(stack, case.actions[:point])
            shot, core, rest = snapshot(stack), core_of(stack), case.rest(point)
            before = core.state_hash()
            twin = fork(stack)
            expected = play(twin, rest)
            check.same(before, core.state_hash(), f"{where}, state hash after a fork's steps")
            check.same_course(expected, play(stack, rest), f"{where}, parent after its fork")
            restore(stack, shot)
            check.same(before, core.state_hash(), f"{where}, state hash after restore")
            check.same_course(expected, play(stack, rest), f"{where}, after restore")
            other = _stack(case, point + 1)
            restore(other, shot)
            check.same_course(expected, play(other, rest), f"{where}, restored in a new stack")
            check.that(
                not expected or expected[0].terminated or expected[0].truncated,
                f"{where}: TimeLimit({point + 1}) let the episode go on in a fork.",
            )


def s10_reset_independence(cases: Sequence[Case], check: Checks) -> None:
    """reset(seed) after restore equals reset(seed) on a new object."""
    for case, _, env, where in _snapshot_points(cases):
        env.restore(env.snapshot())
        new = case.bare()
        again, expected = env.reset(seed=case.seed), new.reset(seed=case.seed)
        check.same(expected, again, f"{where}, observation and info of a later reset")
        check.same(new.state_hash(), env.state_hash(), f"{where}, state hash of a later reset")


def s11_budgets(cases: Sequence[Case], check: Checks) -> None:
    """Turns, calls and time used at a snapshot still count; a fork refills nothing."""
    for case, _, env, where in _snapshot_points(cases):
        used, shot = _used(env), env.snapshot()
        other = case.bare()
        other.restore(shot)
        for twin, how in ((other, "restore"), (env.fork(), "fork")):
            check.same(used, _used(twin), f"{where}, budgets used after {how}")
            while not twin.episode.ended:
                twin.step(null_action(twin))
                in_time = twin.episode.turns <= twin.max_turns
                check.that(in_time, f"{where}: turn {twin.episode.turns} after {how}.")


def s12_refusal(cases: Sequence[Case], check: Checks) -> None:
    """State that cannot be captured raises SnapshotUnsupported, never a silent partial copy."""
    for case in cases:
        with open(os.devnull, encoding="ascii") as file:
            handles = {"an open file": file, "a generator": iter(_numbers()), "a lock": _lock()}
            for kind, handle in handles.items():
                env = case.at(0)
                state = env.episode.state
                is_dict = isinstance(state, dict)
                env.episode.state = {**state, "handle": handle} if is_dict else [state, handle]
                for call in (env.snapshot, env.fork):
                    refused = _raises(SnapshotUnsupported, call)
                    check.that(refused, f"{kind} in self.state: {call.__name__}() took it.")
        env = case.at(0)
        cast("Any", env).law_s12_stray = 1
        refused = _raises(SnapshotUnsupported, env.snapshot)
        check.that(refused, "an attribute set after reset: snapshot() left it out.")


# From the narrowest to the widest: a broken budget would also break the round trip.
LAWS: tuple[Law, ...] = (
    s6_totality,
    s12_refusal,
    s3_purity,
    s5_isolation,
    s11_budgets,
    s8_reseed,
    s4_multi_shot,
    s1_round_trip,
    s10_reset_independence,
    s2_continuation,
    s9_wrappers,
    s7_transport,
)


def env_at(case: Case, shot: Snapshot) -> ToolEnv:
    """Return a new bare environment, restored."""
    env = case.bare()
    env.restore(shot)
    return env


def _snapshot_points(cases: Sequence[Case]) -> list[tuple[Case, int, ToolEnv, str]]:
    return [
        (case, point, case.at(point), f"seed {case.seed}, step {point}")
        for case in cases
        for point in case.points
    ]


def _snapshot_or_none(env: ToolEnv, check: Checks, where: str) -> Snapshot:
    try:
        return env.snapshot()
    except SnapshotUnsupported as error:
        raise LawViolation(f"{check.law}: {where}: {error}") from error


def _stack(case: Case, max_steps: int) -> Env:
    env = case.make()
    wrapped: Env = env if env is not env.unwrapped else OrderEnforcing(env)
    return TimeLimit(wrapped, max_episode_steps=max_steps)


def _random_state(env: ToolEnv) -> Any:
    return env.np_random.bit_generator.state


def _used(env: ToolEnv) -> dict[str, float]:
    episode = env.episode
    calls, room = episode.tool_calls, episode.max_tool_calls
    return {"turns": episode.turns, "calls": calls, "of": room, "seconds": episode.seconds}


def _everything(env: ToolEnv) -> dict[str, Any]:
    """Return digests of the environment and of the process's global generators."""
    found = surroundings(env)
    found["the generator of module random"] = digest(random.getstate())
    found["the generator of module numpy.random"] = digest(np.random.get_state(legacy=True))
    return found


def _same_everything(check: Checks, before: dict[str, Any], env: ToolEnv, where: str) -> None:
    for name, value in _everything(env).items():
        check.same(before.get(name), value, f"{where}, {name}")


def _raises(kind: type[Exception], call: Callable[[], object]) -> bool:
    try:
        call()
    except kind:
        return True
    return False


def _numbers() -> Any:
    yield 1


def _lock() -> Any:
    return threading.Lock()
