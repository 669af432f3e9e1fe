"""A learning curve as the numbers of one small inline drawing; no drawing library is needed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 340.0, 132.0  # units of the drawing's view box
_LEFT, _RIGHT, _TOP, _BOTTOM = 38.0, 8.0, 8.0, 20.0
_MEASURES = (("success_rate", "success in training"), ("reward_mean", "mean reward in training"))
_SMOOTHED_FROM = 20  # with fewer steps a running mean hides more than it shows
_WINDOW = 5


@dataclass(frozen=True)
class Tick:
    """A grid line: its height in the drawing and the number printed beside it."""

    y: float
    label: str


@dataclass(frozen=True)
class Curve:
    """Everything that the template draws; `raw` and `smooth` are polyline point lists."""

    label: str
    raw: str
    smooth: str
    window: int
    ticks: tuple[Tick, ...]
    first_step: int
    last_step: int
    first: str
    last: str
    left: float = _LEFT
    right: float = WIDTH - _RIGHT
    bottom: float = HEIGHT - _BOTTOM
    width: float = WIDTH
    height: float = HEIGHT


def learning_curve(rows: Sequence[Mapping[str, object]]) -> Curve | None:
    """Return the drawing of success (or, without it, reward) against step.

    Rows without a finite step and value are passed over; None if fewer than two are left.
    """
    for key, label in _MEASURES:
        points = sorted(_points(rows, key))
        if len(points) >= 2:
            return _draw(points, label, unit_range=key == "success_rate")
    return None


def _points(rows: Sequence[Mapping[str, object]], key: str) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    for row in rows:
        step, value = row.get("step"), row.get(key)
        if not isinstance(step, int | float) or not isinstance(value, int | float):
            continue
        if math.isfinite(step) and math.isfinite(value):
            points.append((float(step), float(value)))
    return points


def _draw(points: list[tuple[float, float]], label: str, *, unit_range: bool) -> Curve:
    steps = [step for step, _ in points]
    values = [value for _, value in points]
    low = min(0.0, *values)
    high = max(1.0, *values) if unit_range else max(*values, low + 1e-9)

    def x(step: float) -> float:
        span = max(steps[-1] - steps[0], 1e-9)
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * (step - steps[0]) / span

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * (value - low) / (high - low)

    def polyline(series: Sequence[float]) -> str:
        return " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in zip(steps, series, strict=True))

    def number(value: float) -> str:
        return f"{100 * value:.0f} %" if unit_range else f"{value:.2f}"

    window = _WINDOW if len(points) >= _SMOOTHED_FROM else 1
    ticks = tuple(Tick(y(t), number(t)) for t in (low, (low + high) / 2, high))
    return Curve(
        label=label,
        raw=polyline(values),
        smooth=polyline(_running_mean(values, window)),
        window=window,
        ticks=ticks,
        first_step=int(steps[0]),
        last_step=int(steps[-1]),
        first=number(values[0]),
        last=number(values[-1]),
    )


def _running_mean(values: Sequence[float], window: int) -> list[float]:
    """Return the centred mean over `window` values, shorter at both ends."""
    half = window // 2
    means: list[float] = []
    for i in range(len(values)):
        near = values[max(0, i - half) : i + half + 1]
        means.append(sum(near) / len(near))
    return means
