"""The rows of env_overhead: one environment in one round, and the numbers made of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Kind = Literal["pure Python", "SQLite", "sandbox", "peer"]
TARGET_MS: Mapping[Kind, float] = {"pure Python": 1.0, "SQLite": 10.0}
"""The most that the median snapshot may take, by what the state is kept in."""

OURS = "treegrpo"


@dataclass(frozen=True)
class Spread:
    """Median and 95th percentile of `count` samples, in milliseconds."""

    p50: float
    p95: float
    count: int

    @staticmethod
    def of(values: Sequence[float]) -> Spread | None:
        """Return the spread of samples in milliseconds; None where there are none."""
        if not values:
            return None
        middle, high = (float(np.percentile(values, p)) for p in (50, 95))
        return Spread(middle, high, len(values))


@dataclass(frozen=True)
class Row:
    """What one environment gave in one round.

    who: OURS or a peer's name.
    game: the game played on both sides in the same action texts; None for the rest.
    steps, step_s: the steps of one pass over its episodes, and the sum of each step's median
        seconds over the passes.
    passes: how many passes there were.
    snapshot, restore, fork: of peers only snapshot, which is copy.deepcopy of the environment.
    forked_step: fork and the first step of the twin together.
    nbytes: median size of a portable snapshot; 0 where there is none.
    """

    who: str
    env: str
    kind: Kind
    round: int
    steps: int
    step_s: float
    passes: int
    snapshot: Spread | None
    restore: Spread | None = None
    fork: Spread | None = None
    forked_step: Spread | None = None
    nbytes: int | None = None
    game: str | None = None

    @property
    def steps_per_s(self) -> float:
        """Steps a second: resets, and the choice of actions, are left out."""
        return self.steps / self.step_s


@dataclass(frozen=True)
class Line:
    """One environment over all rounds: medians of what the rounds gave."""

    who: str
    env: str
    kind: Kind
    game: str | None
    steps_per_s: float
    snapshot_p50: float | None
    snapshot_p95: float | None
    restore_p50: float | None
    fork_p50: float | None
    forked_step_p50: float | None
    nbytes: int | None

    @property
    def target_ms(self) -> float | None:
        """The target of the median snapshot in milliseconds; None where there is none."""
        return TARGET_MS.get(self.kind)

    @property
    def is_reached(self) -> bool | None:
        """Whether the target is reached; None where there is none."""
        if self.target_ms is None or self.snapshot_p50 is None:
            return None
        return self.snapshot_p50 < self.target_ms


def lines(rows: Iterable[Row]) -> list[Line]:
    """Return one line for each environment and game, in the order of first appearance."""
    grouped: dict[tuple[str, str, str | None], list[Row]] = {}
    for row in rows:
        grouped.setdefault((row.who, row.env, row.game), []).append(row)
    return [_line(group) for group in grouped.values()]


def _line(rows: Sequence[Row]) -> Line:
    first = rows[0]
    return Line(
        who=first.who,
        env=first.env,
        kind=first.kind,
        game=first.game,
        steps_per_s=float(np.median([row.steps_per_s for row in rows])),
        snapshot_p50=_median([row.snapshot.p50 for row in rows if row.snapshot]),
        snapshot_p95=_median([row.snapshot.p95 for row in rows if row.snapshot]),
        restore_p50=_median([row.restore.p50 for row in rows if row.restore]),
        fork_p50=_median([row.fork.p50 for row in rows if row.fork]),
        forked_step_p50=_median([row.forked_step.p50 for row in rows if row.forked_step]),
        nbytes=first.nbytes,
    )


def ratios(rows: Sequence[Row]) -> dict[str, float]:
    """Return, for each game and peer, ours / the peer's within a round: the median over rounds.

    `step_ratio_GAME_PEER` is of steps a second (above 1: ours are faster), and
    `snapshot_ratio_GAME_PEER` of milliseconds a snapshot (below 1: ours are faster).
    """
    ours = {(row.game, row.round): row for row in rows if row.who == OURS}
    steps: dict[str, list[float]] = {}
    shots: dict[str, list[float]] = {}
    for row in rows:
        mine = ours.get((row.game, row.round))
        if row.who == OURS or row.game is None or mine is None:
            continue
        name = f"{row.game}_{row.who}"
        steps.setdefault(name, []).append(mine.steps_per_s / row.steps_per_s)
        if mine.snapshot and row.snapshot:
            shots.setdefault(name, []).append(mine.snapshot.p50 / row.snapshot.p50)
    found = {f"step_ratio_{name}": float(np.median(values)) for name, values in steps.items()}
    return found | {f"snapshot_ratio_{n}": float(np.median(v)) for n, v in shots.items()}


def metrics(rows: Sequence[Row]) -> dict[str, float]:
    """Return the flat map of the record.

    A peer's own `steps_per_s_PEER` is the median over its environments.
    """
    found: dict[str, float] = {}
    peers: dict[str, list[float]] = {}
    for line in lines(rows):
        if line.who != OURS:
            peers.setdefault(line.who, []).append(line.steps_per_s)
        found |= _of_line(line)
    found |= {f"steps_per_s_{who}": float(np.median(values)) for who, values in peers.items()}
    return found | ratios(rows)


def _of_line(line: Line) -> dict[str, float]:
    if line.who != OURS:
        name = f"{line.who}_{metric_name(line.env)}"
        named = {"steps_per_s": line.steps_per_s, "deepcopy_p50_ms": line.snapshot_p50}
    else:
        name = f"game_{line.game}" if line.game else metric_name(line.env)
        named = {
            "steps_per_s": line.steps_per_s,
            "snapshot_p50_ms": line.snapshot_p50,
            "snapshot_p95_ms": line.snapshot_p95,
            "restore_p50_ms": line.restore_p50,
            "fork_p50_ms": line.fork_p50,
            "forked_step_p50_ms": line.forked_step_p50,
            "snapshot_bytes": line.nbytes,
        }
    return {f"{key}_{name}": float(value) for key, value in named.items() if value is not None}


def metric_name(env: str) -> str:
    """Return an id as a part of a metric's name: "treegrpo/SearchQA-v0" is search_qa_v0."""
    words = env.rpartition("/")[2]
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", words)
    return re.sub(r"[^a-z0-9]+", "_", apart.lower()).strip("_")


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None
