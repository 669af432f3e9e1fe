"""One score over several environments: 0 is the null agent, 1 the oracle.

Equations, with r_e the mean over the tasks of environment e and w_e its share of the weights:

    normalised    x_e = (r_e - null_e) / (oracle_e - null_e)
    score         x = sum w_e x_e
    interval      x - sqrt(sum w_e^2 (x_e - low_e)^2),  x + sqrt(sum w_e^2 (high_e - x_e)^2)
    IQM           the weighted mean of the x_e with a quarter of the weight cut off at each end

Sources: human-normalised scores (Mnih et al. 2015) with the oracle for the human; intervals of
independent estimates combined by their ends (Zou and Donner 2008); interquartile mean (Agarwal
et al. 2021, arXiv 2108.13264). Differences: null and oracle are taken as known; nothing is
clipped, so an agent below null counts as below 0; the IQM is over environments with weights,
and an environment across a quartile counts with the part inside, where the source cuts runs.

The ends are combined, not the standard errors, because each environment's interval knows its
own tasks, its bounds, and what no spread means.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.stats.intervals import Interval, clustered_interval
from treegrpo.leaderboards.stats.outcomes import Bounds, Outcomes


@dataclass(frozen=True)
class SuiteScore:
    """The score of one agent over a suite; `members` are the normalised ones."""

    score: Interval
    interquartile_mean: float
    members: dict[str, Interval]


def suite_score(
    outcomes: Mapping[str, Outcomes],
    *,
    weights: Mapping[str, float],
    nulls: Mapping[str, float],
    oracles: Mapping[str, float],
    bounds: Bounds | None = None,
    confidence: float = 0.95,
) -> SuiteScore:
    """Return the weighted mean of the normalised scores, with its interval.

    Args:
        outcomes: environment -> task -> values of the trials.
        weights: environment -> weight above 0; only ratios matter.
        nulls: environment -> the null agent's score (or a random agent's).
        oracles: environment -> the oracle's score, above the null agent's.
        bounds: as for `clustered_interval`, of the values before they are normalised.
        confidence: in (0, 1).

    Raises:
        TreegrpoError: an environment is missing somewhere or stands there without need; a
            weight that is not above 0; an oracle that is not above null.
        ValueError: as for `clustered_interval`.
    """
    _check_names(set(weights), outcomes=outcomes, nulls=nulls, oracles=oracles)
    shares = _shares(weights)
    members: dict[str, Interval] = {}
    for env in sorted(weights):
        raw = clustered_interval(outcomes[env], bounds=bounds, confidence=confidence)
        members[env] = normalised(raw, null=nulls[env], oracle=oracles[env], env=env)
    return SuiteScore(
        combined(members, shares),
        interquartile_mean({env: one.mean for env, one in members.items()}, shares),
        members,
    )


def normalised(score: Interval, *, null: float, oracle: float, env: str) -> Interval:
    """Return a score and its interval with null at 0 and oracle at 1, not clipped.

    Raises:
        TreegrpoError: the oracle is not above null, so that there is nothing to measure.
    """
    if not (math.isfinite(null) and math.isfinite(oracle) and oracle > null):
        raise TreegrpoError(
            f"A normalised score of '{env}' asked for, but its oracle scores {oracle} and its "
            f"null agent {null}; the oracle must be above. Leave '{env}' out of the suite, or "
            "mend its oracle."
        )

    def scaled(value: float | None) -> float | None:
        return None if value is None else (value - null) / (oracle - null)

    mean = (score.mean - null) / (oracle - null)
    return Interval(mean, scaled(score.low), scaled(score.high), score.num_tasks, score.method)


def combined(members: Mapping[str, Interval], shares: Mapping[str, float]) -> Interval:
    """Return the mean of independent scores by their shares, which sum to 1, and its interval.

    There is none as soon as one member has none.
    """
    mean = math.fsum(shares[env] * one.mean for env, one in members.items())
    num_tasks = sum(one.num_tasks for one in members.values())
    below = above = 0.0
    for env, one in members.items():
        if one.low is None or one.high is None:
            return Interval(mean, None, None, num_tasks, "none")
        below += (shares[env] * (one.mean - one.low)) ** 2
        above += (shares[env] * (one.high - one.mean)) ** 2
    return Interval(mean, mean - math.sqrt(below), mean + math.sqrt(above), num_tasks, "combined")


def interquartile_mean(scores: Mapping[str, float], shares: Mapping[str, float]) -> float:
    """Return the mean of the middle half of the weight; shares sum to 1."""
    total, start = 0.0, 0.0
    for env in sorted(scores, key=lambda env: (scores[env], env)):
        end = start + shares[env]
        total += scores[env] * max(0.0, min(end, 0.75) - max(start, 0.25))
        start = end
    return total / 0.5


def _shares(weights: Mapping[str, float]) -> dict[str, float]:
    for env, weight in weights.items():
        if not (math.isfinite(weight) and weight > 0):
            raise TreegrpoError(
                f"Weight {weight} of '{env}' asked for; a weight is a finite number above 0. "
                "Leave the environment out instead."
            )
    total = math.fsum(weights.values())
    return {env: weight / total for env, weight in weights.items()}


def _check_names(wanted: set[str], **given: Mapping[str, object]) -> None:
    if not wanted:
        raise TreegrpoError("A suite score asked for, but no environment has a weight.")
    for what, found in given.items():
        missing, foreign = sorted(wanted - set(found)), sorted(set(found) - wanted)
        if missing or foreign:
            raise TreegrpoError(
                f"A suite score asked for; {what} lack {missing[:3] or '-'} and have "
                f"{foreign[:3] or '-'} without a weight. Give the same environments everywhere."
            )
