"""What a bench found: raw values, metrics with units in their names, and the targets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True)
class Counts:
    """How often each thing is measured; `warm` further runs before each series do not count."""

    runs: int  # of what takes milliseconds
    warm: int
    fanouts: int
    crowds: int  # trees of 1,000 states that are closed
    crowd: int  # their states
    stepped: bool  # whether each of these has run a step
    parked: int  # states whose memory is measured
    live: int  # states that live at once; 0: not measured
    copies: int  # copytree and a fresh interpreter; Sandlock's single clones
    containers: int  # docker commit and run
    clones: int  # batches of 100 clones of Sandlock


FULL = Counts(
    runs=500, warm=30, fanouts=20, crowds=3, crowd=1_000, stepped=True, parked=500, live=2_000,
    copies=100, containers=10, clones=6,
)  # fmt: skip
QUICK = Counts(
    runs=60, warm=5, fanouts=3, crowds=1, crowd=1_000, stepped=False, parked=200, live=0,
    copies=10, containers=1, clones=1,
)  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """One thing measured: every run's value in order, and the metrics made of them.

    `missing` says why there are none, or why one of them is not there.
    """

    name: str
    what: str  # exactly what one run is
    unit: str = "ms"
    values: tuple[float, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    missing: str = ""


@dataclass(frozen=True)
class Target:
    """What a metric must reach on 2 vCPUs."""

    metric: str
    limit: float
    at_least: bool = False  # the limit is a lower one

    def met(self, value: float) -> bool:
        """Return whether a value reaches it."""
        return value >= self.limit if self.at_least else value <= self.limit


TARGETS = (
    Target("node_fork_p50_ms", 5.0),
    Target("node_fork_p99_ms", 15.0),
    Target("memory_fork_p50_ms", 1.0),
    Target("roundtrip_p50_ms", 1.0),
    Target("snapshot_p50_ms", 1.0),
    Target("tree_start_p50_ms", 10.0),
    Target("parked_mb", 1.2),
    Target("live2000_mb", 2_500.0),
    Target("depth16_ratio", 2.5),
    Target("fanout100_ms", 400.0),
    Target("close1000_s", 1.5),
    Target("close1000_left", 0.0),
    Target("forks_per_s", 300.0, at_least=True),
)


@dataclass(frozen=True)
class TargetRow:
    """A target with this host's number; `value` and `met` are None where none was measured."""

    metric: str
    target: float
    at_least: bool
    value: float | None
    met: bool | None


@dataclass(frozen=True)
class BenchReport:
    """Everything one bench found."""

    backend: str
    level: int  # of isolation
    measurements: tuple[Measurement, ...]
    before: Mapping[str, str]  # the host's conditions
    after: Mapping[str, str]

    @cached_property
    def metrics(self) -> dict[str, float]:
        """All metrics by name; what could not be measured is not there."""
        return {name: value for m in self.measurements for name, value in m.metrics.items()}

    @property
    def missing(self) -> dict[str, str]:
        """Why measurements are missing, by their names."""
        return {m.name: m.missing for m in self.measurements if m.missing}

    def rows(self, targets: Iterable[Target] = TARGETS) -> tuple[TargetRow, ...]:
        """Return each target with what was found."""
        rows: list[TargetRow] = []
        for target in targets:
            value = self.metrics.get(target.metric)
            met = None if value is None else target.met(value)
            rows.append(TargetRow(target.metric, target.limit, target.at_least, value, met))
        return tuple(rows)


def latencies(name: str, what: str, seconds: Sequence[float]) -> Measurement:
    """Return the measurement of one kind of run, with its p50 and p99 in milliseconds."""
    values = tuple(1e3 * one for one in seconds)
    metrics = {f"{name}_p50_ms": quantile(values, 0.5), f"{name}_p99_ms": quantile(values, 0.99)}
    return Measurement(name, what, "ms", values, metrics)


def quantile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that `share` of all values do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
