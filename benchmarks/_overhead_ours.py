"""What our environments cost: steps, snapshots, restores and forks on recorded episodes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median

from benchmarks._overhead_rows import OURS, Kind, Row, Spread
from treegrpo.envs import make
from treegrpo.envs.checks.cost import Costs
from treegrpo.envs.core import ToolEnv
from treegrpo.envs.law_cases import Case, record_cases

MIN_PASSES, MAX_LONGER = 9, 3
"""Passes that a median of steps should have, and how much longer that may take."""


@dataclass(frozen=True)
class Subject:
    """One environment and the episodes that are played in it; `game` as in Row."""

    env: str
    kind: Kind
    cases: Sequence[Case]
    game: str | None = None

    def measure(self, round: int, seconds: float) -> Row:
        """Return what one round gave; steps, snapshots and forks take `seconds` each."""
        steps, step_s, passes = _steps(self.cases, seconds)
        costs = Costs()
        for case in _in_turn(self.cases, seconds):
            costs.sample(case)
        fork_ms: list[float] = []
        forked_step_ms: list[float] = []
        for case in _in_turn(self.cases, seconds):
            _forks(case, fork_ms, forked_step_ms)
        return Row(
            who=OURS,
            env=self.env,
            kind=self.kind,
            round=round,
            steps=steps,
            step_s=step_s,
            passes=passes,
            snapshot=Spread.of(costs.snapshot_ms),
            restore=Spread.of(costs.restore_ms),
            fork=Spread.of(fork_ms),
            forked_step=Spread.of(forked_step_ms),
            nbytes=sorted(costs.sizes)[len(costs.sizes) // 2],
            game=self.game,
        )


def subject(env: str, episodes: int) -> Subject:
    """Return an environment of the registry with its episodes recorded.

    Args:
        env: its id.
        episodes: how many: the oracle's, a mixed one, a random one.

    Raises:
        TreegrpoError: it cannot be made.
        SandboxError, SandboxFailed: this host cannot run what it needs.
    """
    cases = record_cases(partial(make, env), episodes=episodes, seed=0, actions=None)
    at_start = cases[0].at(0)
    found = kind_of(at_start)
    at_start.close()
    return Subject(env, found, cases)


def kind_of(env: ToolEnv) -> Kind:
    """Return what the state of a running episode is kept in, by the handle that it holds."""
    if hasattr(env.state, "sandbox"):
        return "sandbox"
    return "SQLite" if hasattr(env.state, "database") else "pure Python"


def _steps(cases: Sequence[Case], seconds: float) -> tuple[int, float, int]:
    """Return the steps of all cases together, their median seconds in all, and the passes."""
    taken: dict[tuple[int, int], list[float]] = {}
    for case in _in_turn(cases, seconds, passes=MIN_PASSES):
        env = case.at(0)
        for number, action in enumerate(case.actions):
            if env.episode.ended:
                break  # by its budget of seconds, on a machine that is slower by now
            begun = time.perf_counter()
            env.step(action)
            step_s = time.perf_counter() - begun
            taken.setdefault((case.seed, number), []).append(step_s)
        env.close()
    # Each step's median: what else the machine did meanwhile falls on other steps each time.
    passes = max(len(times) for times in taken.values())
    return len(taken), sum(median(times) for times in taken.values()), passes


def _forks(case: Case, fork_ms: list[float], forked_step_ms: list[float]) -> None:
    """Add the time of a fork before each step, alone and with the twin's step."""
    env = case.at(0)
    for action in case.actions:
        if env.episode.ended:
            break
        begun = time.perf_counter()
        twin = env.fork()
        forked = time.perf_counter()
        twin.step(action)
        forked_step_ms.append(1_000 * (time.perf_counter() - begun))
        fork_ms.append(1_000 * (forked - begun))
        twin.close()
        env.step(action)
    env.close()


def _in_turn(cases: Sequence[Case], seconds: float, *, passes: int = 1) -> Iterator[Case]:
    """Yield the cases over and over until the time is up; each at least once.

    It takes longer for the number of passes asked for, but not MAX_LONGER times as long.
    """
    started = time.perf_counter()
    for number in itertools.count(1):
        yield from cases
        limit = seconds if number >= passes else MAX_LONGER * seconds
        if time.perf_counter() - started > limit:
            return
