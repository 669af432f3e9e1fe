"""The numbers of a run, as the tables hold them: computed once, when it is added."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from treegrpo.leaderboards.schema import AGENT_FAILURES, EpisodeRecord, Manifest
from treegrpo.leaderboards.stats import UNIT, clustered_interval
from treegrpo.leaderboards.summary import cost

_PLACES = Decimal("1e-12")


def manifest_columns(manifest: Manifest) -> dict[str, Any]:
    """Return the columns of a run that its manifest gives."""
    agent = manifest.agent
    return {
        "agent": agent.name,
        "agent_digest": agent.digest,
        "model": agent.model,
        "provider": agent.provider,
        "training": manifest.training,
        "env_digest": manifest.env_digest,
        "seed": manifest.seed,
        "first_index": manifest.first_index,
        "num_tasks": manifest.num_tasks,
        "trials": manifest.trials,
        "prices": manifest.prices,
        "evaluated": manifest.created,
    }


def score_columns(episodes: Sequence[EpisodeRecord]) -> dict[str, Any]:
    """Return the columns of a run that its episodes give; what nobody counted is None.

    A search pays for all its branches: turns and calls count those in forks, too.
    """
    by_task: defaultdict[int, list[float]] = defaultdict(list)
    rewards: defaultdict[str, list[float]] = defaultdict(list)
    for episode in episodes:
        by_task[episode.index].append(float(episode.success))
        rewards[str(episode.index)].append(float(episode.reward))
    success = clustered_interval({str(i): v for i, v in by_task.items()}, bounds=UNIT)
    failures = [episode.failure for episode in episodes if episode.failure is not None]
    own = sum(failure in AGENT_FAILURES for failure in failures)
    count = len(episodes)
    return {
        "solved": [int(sum(by_task[index])) for index in sorted(by_task)],
        "success": success.mean,
        "success_low": success.low,
        "success_high": success.high,
        "reward": clustered_interval(rewards).mean,
        "turns": sum(cost(episode, "turns") or 0 for episode in episodes) / count,
        "tool_calls": sum(cost(episode, "tool_calls") or 0 for episode in episodes) / count,
        "wall_seconds": sum(float(episode.wall_seconds) for episode in episodes) / count,
        "input_tokens": total(episode.tokens.input for episode in episodes),
        "cached_tokens": total(episode.tokens.cached for episode in episodes),
        "sampled_tokens": total(episode.tokens.output for episode in episodes),
        "reasoning_tokens": total(episode.tokens.reasoning for episode in episodes),
        "agent_failures": own,
        "infrastructure_failures": len(failures) - own,
        **_dollars(episodes),
    }


def episode_columns(digest: str, episodes: Sequence[EpisodeRecord]) -> list[dict[str, Any]]:
    """Return the rows of the episode table of one run."""
    same = (
        "index", "trial", "difficulty", "success", "reward", "failure", "turns", "tool_calls",
        "dollars",
    )  # fmt: skip
    return [
        {name: getattr(episode, name) for name in same}
        | {"run_digest": digest, "sampled_tokens": episode.tokens.output}
        for episode in episodes
    ]


def total(counts: Iterable[int | None]) -> int | None:
    """Return the sum, None as soon as one was not counted."""
    found = list(counts)
    known = [count for count in found if count is not None]
    return sum(known) if len(known) == len(found) else None


def amount(dollars: Decimal) -> str:
    """Return dollars as a decimal string without zeros at its end, to 12 places."""
    return f"{dollars.quantize(_PLACES):f}".rstrip("0").rstrip(".")


def _dollars(episodes: Sequence[EpisodeRecord]) -> dict[str, str | None]:
    known = [Decimal(e.dollars) for e in episodes if e.dollars is not None]
    if len(known) < len(episodes):
        return {"dollars": None, "dollars_per_success": None}
    whole, solved = sum(known, Decimal(0)), sum(episode.success for episode in episodes)
    return {
        "dollars": amount(whole),
        "dollars_per_success": amount(whole / solved) if solved else None,
    }
