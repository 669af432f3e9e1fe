"""The rows of benchmarks.suite: how an agent did on one level of one environment, and sums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from benchmarks._overhead_rows import metric_name
from treegrpo.envs import ToolEnv
from treegrpo.envs.baselines import (
    EpisodeResult,
    Policy,
    null_action,
    oracle_action,
    random_action,
    run_episode,
)
from treegrpo.envs.suites import Suite

AgentName = Literal["oracle", "random", "null"]
AGENTS: tuple[AgentName, ...] = get_args(AgentName)
RANDOM_SEED = 0


@dataclass(frozen=True)
class LevelRow:
    """One agent on the tasks of one level of the test split, one episode each.

    env: the entry's name: an id, with options where there are some.
    mean_return, mean_steps: over all episodes, unsolved ones included.
    """

    env: str
    level: int
    agent: AgentName
    tasks: int
    solved: int
    mean_return: float
    mean_steps: float

    @property
    def success(self) -> float:
        """The share of tasks solved."""
        return self.solved / self.tasks


def level_rows(name: str, env: ToolEnv, tasks: int) -> Iterator[LevelRow]:
    """Yield a row per agent and level for the first `tasks` tasks of the test split.

    Levels take turns by index. Episode i is seeded with i, the same for every agent.
    """
    for agent in AGENTS:
        policy = _policy(agent)
        results = [
            run_episode(env, policy, seed=index, options={"split": "test", "index": index})
            for index in range(tasks)
        ]
        for level in env.difficulties:
            yield _row(name, level, agent, [r for r in results if r.difficulty == level])


def _policy(agent: AgentName) -> Policy:
    rng = np.random.default_rng(RANDOM_SEED)
    policies: dict[AgentName, Policy] = {
        "oracle": oracle_action,
        "random": lambda env: random_action(env, rng),
        "null": null_action,
    }
    return policies[agent]


def _row(name: str, level: int, agent: AgentName, results: Sequence[EpisodeResult]) -> LevelRow:
    return LevelRow(
        env=name,
        level=level,
        agent=agent,
        tasks=len(results),
        solved=sum(result.success for result in results),
        mean_return=float(np.mean([result.episode_return for result in results])),
        mean_steps=float(np.mean([len(result.actions) for result in results])),
    )


def success_rates(rows: Iterable[LevelRow], agent: AgentName) -> dict[str, float]:
    """Return an agent's share of tasks solved by environment, in the order of the rows."""
    solved, tasks = Counter[str](), Counter[str]()
    for row in rows:
        if row.agent == agent:
            solved[row.env] += row.solved
            tasks[row.env] += row.tasks
    return {env: solved[env] / tasks[env] for env in tasks}


def success_metrics(rows: Sequence[LevelRow], suites: Sequence[Suite]) -> dict[str, float]:
    """Return `AGENT_success_ENV`, the same with `_level_K`, and `AGENT_score_SUITE`.

    A suite gets a score where each of its entries was measured.
    """
    found: dict[str, float] = {}
    for agent in AGENTS:
        rates = success_rates(rows, agent)
        found |= {f"{agent}_success_{metric_name(env)}": rate for env, rate in rates.items()}
        found |= {
            f"{agent}_score_{metric_name(s.name)}": score for s, score in _scores(rates, suites)
        }
    return found | {
        f"{row.agent}_success_{metric_name(row.env)}_level_{row.level}": row.success for row in rows
    }


def _scores(rates: Mapping[str, float], suites: Sequence[Suite]) -> Iterator[tuple[Suite, float]]:
    for suite in suites:
        if set(suite.shares) <= set(rates):
            yield suite, suite.score({name: rates[name] for name in suite.shares})


def by_level(rows: Iterable[LevelRow], agent: AgentName) -> dict[str, dict[int, float]]:
    """Return an agent's success by environment and level."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        if row.agent == agent:
            found.setdefault(row.env, {})[row.level] = row.success
    return found


def percent(success: float) -> str:
    """Return a success rate as the documents have it: "99.5", "100", "0"."""
    return f"{100 * success:.1f}".removesuffix(".0")


def page_rows(rows: Sequence[LevelRow], metrics: Mapping[str, float]) -> dict[str, list[str]]:
    """Return the cells of the table in docs/suite.md by environment.

    Args:
        rows: the success of oracle and random agent.
        metrics: those of the record: steps a second, p50 of the snapshot, bytes.
    """
    oracle, lucky = by_level(rows, "oracle"), by_level(rows, "random")
    found: dict[str, list[str]] = {}
    for env in oracle:
        name = metric_name(env)
        found[env.removeprefix("treegrpo/")] = [
            " ".join(map(percent, oracle[env].values())),
            " ".join(map(percent, lucky[env].values())),
            f"{metrics[f'steps_per_s_{name}']:,.0f}",
            f"{metrics[f'snapshot_p50_ms_{name}']:.2f}",
            f"{metrics[f'snapshot_bytes_{name}']:,.0f}",
        ]
    return found
