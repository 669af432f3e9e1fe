"""The numbers of a run, as the tables hold them: computed once, when it is added."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from treegrpo.leaderboards.bundle import EPISODES
from treegrpo.leaderboards.errors import BundleError
from treegrpo.leaderboards.schema import AGENT_FAILURES, EpisodeRecord, Manifest
from treegrpo.leaderboards.stats import UNIT, clustered_interval
from treegrpo.leaderboards.summary import cost, reward_interval
from treegrpo.leaderboards.usage import amount_text, quotient, total

_MOST = 2**63 - 1
"""The greatest integer that both databases hold."""


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

    Raises:
        BundleError: a sum that the tables cannot hold; names its field.
    """
    by_task: defaultdict[int, list[float]] = defaultdict(list)
    for episode in episodes:
        by_task[episode.index].append(float(episode.success))
    success = clustered_interval({str(i): v for i, v in by_task.items()}, bounds=UNIT)
    failures = [episode.failure for episode in episodes if episode.failure is not None]
    own = sum(failure in AGENT_FAILURES for failure in failures)
    count = len(episodes)
    return {
        "solved": [int(sum(by_task[index])) for index in sorted(by_task)],
        "success": success.mean,
        "success_low": success.low,
        "success_high": success.high,
        "reward": reward_interval(episodes).mean,
        "turns": sum(cost(episode, "turns") or 0 for episode in episodes) / count,
        "tool_calls": sum(cost(episode, "tool_calls") or 0 for episode in episodes) / count,
        "wall_seconds": sum(float(episode.wall_seconds) for episode in episodes) / count,
        "input_tokens": _tokens(episodes, "input"),
        "cached_tokens": _tokens(episodes, "cached"),
        "sampled_tokens": _tokens(episodes, "output"),
        "reasoning_tokens": _tokens(episodes, "reasoning"),
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


def _tokens(episodes: Sequence[EpisodeRecord], kind: str) -> int | None:
    found: int | None = total(getattr(episode.tokens, kind) for episode in episodes)
    if found is not None and found > _MOST:
        raise BundleError(
            f"{EPISODES}, field tokens.{kind}: {found} are declared in all, more than a database "
            f"holds ({_MOST}). Nobody counted so many: evaluate again with an agent that counts "
            "right."
        )
    return found


def _dollars(episodes: Sequence[EpisodeRecord]) -> dict[str, str | None]:
    whole = total(None if e.dollars is None else Decimal(e.dollars) for e in episodes)
    if whole is None:
        return {"dollars": None, "dollars_per_success": None}
    solved = sum(episode.success for episode in episodes)
    return {
        "dollars": amount_text(whole),
        "dollars_per_success": amount_text(quotient(whole, solved)) if solved else None,
    }
