"""Checks that play: the random agent meets no exception, the oracle solves, the grader is pure."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from treegrpo.envs.baselines import EpisodeResult, null_action, oracle_action, run_episode
from treegrpo.envs.checks.result import Counterexample, Result, attempt
from treegrpo.envs.checks.shrink import shortest
from treegrpo.envs.core import ToolEnv
from treegrpo.envs.digest import digest
from treegrpo.envs.errors import SandboxFailed, UnknownOption, raised_at
from treegrpo.envs.law_cases import MAX_STEPS, Case, Factory
from treegrpo.envs.snapshot import core_of
from treegrpo.sandboxes.errors import SandboxError

REACH = "random agent"
ORACLE = "oracle"
FLOOR = "null agent"
GRADER = "grader purity"
TASKS_PER_LEVEL = 5
_RETRIES = 2


def reachability(make: Factory, *, episodes: int, seconds: float, seed: int) -> Result:
    """Return whether random episodes run to their end without an exception that escapes.

    Raises:
        SandboxFailed, SandboxError: the host's fault, not the environment's.
    """
    started, done, solved = time.perf_counter(), 0, 0
    env = core_of(make())
    while done < episodes and time.perf_counter() - started < seconds:
        actions: list[str] = []
        error = _play(env, seed + done, actions, np.random.default_rng([seed, done]))
        if error is not None:
            return _escaped(make, seed + done, actions, error, seconds)
        solved += bool(env.episode.info["success"])
        done += 1
    env.close()
    found = attempt(done, episodes, seconds, "episodes")
    return Result(REACH, "holds", f"{found}, no exception; {solved} solved")


def _escaped(
    make: Factory, seed: int, actions: Sequence[str], error: Exception, seconds: float
) -> Result:
    kind = _signature(error)

    def fails(tried: tuple[str, ...]) -> bool:
        other = _play(core_of(make()), seed, list(tried))
        return other is not None and _signature(other) == kind

    kept, minimal = shortest(actions, fails, seconds=seconds)
    found = f"{kind[0]} at {kind[1]} escaped: {error}"
    return Result(REACH, "fails", found, Counterexample(seed, kept, minimal=minimal))


def _play(
    env: ToolEnv, seed: int, actions: list[str], rng: np.random.Generator | None = None
) -> Exception | None:
    """Return what an episode raises; with `rng` random actions are taken and noted."""
    try:
        env.reset(seed=seed)
        if rng is None:
            for action in actions:
                if not env.episode.ended:
                    env.step(action)
        while rng is not None and not env.episode.ended:
            actions.append(env.sample_action(rng)[: env.max_action_chars])
            env.step(actions[-1])
    except (SandboxFailed, SandboxError):
        raise
    except Exception as error:  # noqa: BLE001 - an author's code may raise anything
        return error
    return None


def _signature(error: Exception) -> tuple[str, str]:
    """Return what makes two exceptions one fault: the kind and the place."""
    return type(error).__name__, raised_at(error.__cause__ or error)


def oracle_solves(make: Factory, *, seconds: float, seed: int) -> list[Result]:
    """Return whether the oracle solves tasks of every split and level, and the null agent none.

    A task that the oracle fails is tried again with other seeds: chance may be against it.
    """
    env, started = core_of(make()), time.perf_counter()
    steps: dict[int, list[int]] = {}
    unlucky = refused = tried = 0
    levels = _levels(env)
    for number, options in enumerate(levels):
        if number and time.perf_counter() - started > seconds:
            break
        tried += 1
        try:
            result = run_episode(env, oracle_action, seed=seed + number, options=options)
        except NotImplementedError:
            reason = "it ships none; nobody knows whether its tasks can be solved. Write oracle()"
            return [Result(ORACLE, "not checked", reason)]
        except UnknownOption:
            continue  # the split has no task of that level
        if not result.success:
            if not _solved_again(env, options, result):
                return [_unsolved(seed + number, options, result)]
            unlucky += 1
        steps.setdefault(result.difficulty, []).append(len(result.actions))
        refused += run_episode(env, null_action, seed=seed + number, options=options).success
    env.close()
    count = sum(map(len, steps.values()))
    taken = ", ".join(f"level {k} {_span(v)}" for k, v in sorted(steps.items()))
    skipped = len(levels) - count if tried == len(levels) else 0  # a split lacks the level
    luck = f", {unlucky} of them at a second try" if unlucky else ""
    said = attempt(count, len(levels) - skipped, seconds, "tasks")
    done = Result(ORACLE, "holds", f"{said}, all solved{luck}; steps: {taken}")
    floor = Result(FLOOR, "fails" if refused else "holds", f"{refused} of {count} tasks solved")
    return [done, floor]


def _levels(env: ToolEnv) -> list[dict[str, Any]]:
    """Return the reset options of the tasks to solve, so that any first part is balanced."""
    return [
        {"split": split, "difficulty": difficulty}
        for _ in range(TASKS_PER_LEVEL)
        for split in env.splits
        for difficulty in env.difficulties
    ]


def _solved_again(env: ToolEnv, options: dict[str, Any], failed: EpisodeResult) -> bool:
    again = {"split": options["split"], "index": env.episode.index}
    return any(
        run_episode(env, oracle_action, seed=seed, options=again).success
        for seed in range(1, 1 + _RETRIES)
    )


def _unsolved(seed: int, options: dict[str, Any], result: EpisodeResult) -> Result:
    found = (
        f"task {result.task_id} of level {result.difficulty} ended '{result.end_reason}' with a "
        f"return of {result.episode_return:g}, and was not solved with other seeds either"
    )
    return Result(ORACLE, "fails", found, Counterexample(seed, result.actions, options))


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low}-{high}"


def grader_purity(cases: Sequence[Case], *, seconds: float) -> Result:
    """Return whether score() gives the same again, and changes nothing that it is not given."""
    ended = 0
    for case in cases:
        fault = _impurity(case)
        if fault:
            kept, minimal = shortest(
                case.actions,
                lambda tried, case=case: bool(_impurity(Case(case.make, case.seed, tried))),
                seconds=seconds,
            )
            return Result(GRADER, "fails", fault, Counterexample(case.seed, kept, minimal=minimal))
        ended += fault is not None
    if not ended:
        return Result(GRADER, "not checked", f"no episode ended within {MAX_STEPS} steps")
    return Result(GRADER, "holds", f"{ended} final states, each scored three times")


def _impurity(case: Case) -> str | None:
    """Return what is wrong with scoring the end of an episode, "" if nothing; None before it."""
    env = case.at(len(case.actions))
    if not env.episode.ended:
        return None
    given = _components(env.episode.info["reward_components"])
    state, before = copy.deepcopy(env.state), _surroundings(env)
    state_before = digest(state)
    transcript = tuple(env.messages)
    first = _components(env.score(state, transcript, env.task))
    if digest(state) != state_before:
        return "score() changed the state that it was given. Let it only read"
    again = _components(env.score(state, transcript, env.task))
    fresh = _components(env.score(copy.deepcopy(env.state), transcript, env.task))
    if not given == first == again == fresh:
        return (
            f"the step gave {given}, and score() on that state {first}, {again} and {fresh}: it "
            "depends on something else. Let it depend on state, transcript and task alone"
        )
    changed = [name for name, value in _surroundings(env).items() if value != before[name]]
    if changed:
        return f"score() changed {' and '.join(changed)}. Let it only read"
    return ""


def _components(result: Any) -> dict[str, float]:
    if not isinstance(result, Mapping):
        return {"score": float(result)}
    return {name: float(value) for name, value in cast("Mapping[str, Any]", result).items()}


def _surroundings(env: ToolEnv) -> dict[str, str]:
    return {
        "the episode": env.state_hash(),
        "the generator of module random": digest(random.getstate()),
        "the generator of module numpy.random": digest(np.random.get_state(legacy=True)),
    }
