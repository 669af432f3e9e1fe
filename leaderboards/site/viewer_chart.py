"""Line charts as the numbers of a small inline drawing; no drawing library is needed.

One line per run, thin; over several runs their median, thick; over one long run its running
mean, thick. The template viewer_chart.html.j2 draws what stands here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

Scale = Literal["linear", "percent", "share", "log"]
Point = tuple[float, float]

WIDTH, HEIGHT = 360.0, 190.0  # units of the drawing's view box
LEFT, RIGHT, TOP, BOTTOM = 46.0, 14.0, 10.0, 34.0
_SMOOTHED_FROM = 20  # with fewer points a running mean hides more than it shows
_WINDOW = 5
_MEDIAN_POINTS = 60
_MAX_POINTS = 400  # drawn per line; more are thinned out


@dataclass(frozen=True)
class Series:
    """One run's values: finite (x, y) in order of x."""

    label: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Tick:
    """A grid line: where it lies in the drawing and what is printed beside it."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """A polyline's points, its class, what it is called, and its last value in words."""

    points: str
    kind: Literal["run", "main"]
    label: str
    last: str
    end: Point


@dataclass(frozen=True)
class Chart:
    """Everything that the template draws."""

    title: str
    x_label: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    note: str
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


def line_chart(
    title: str, x_label: str, series: Sequence[Series], scale: Scale = "linear"
) -> Chart | None:
    """Return the drawing; None if no series has two points that can be drawn.

    Args:
        title: what is measured.
        x_label: the other axis, with its unit.
        series: one per run.
        scale: of the measure; "percent" is from 0 to 1 at least, "share" as far as the values
            go, "log" passes over what is not above 0.
    """
    kept = [Series(one.label, _drawable(one.points, scale)) for one in series]
    kept = [one for one in kept if len(one.points) >= 2]
    if not kept:
        return None
    values = [y for one in kept for _, y in one.points]
    places = [x for one in kept for x, _ in one.points]
    low, high, marks = _range(min(values), max(values), scale)
    x_low, x_high = min(places), max(places)

    def at(point: Point) -> Point:
        x = LEFT + (WIDTH - LEFT - RIGHT) * (point[0] - x_low) / max(x_high - x_low, 1e-12)
        return x, HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (point[1] - low) / (high - low)

    main, note = _main(kept)
    lines = [_line(one, "run", at, scale) for one in kept]
    lines += [_line(main, "main", at, scale)] if main else []
    return Chart(
        title=title,
        x_label=x_label,
        lines=tuple(lines),
        x_ticks=tuple(Tick(at((x, low))[0], short_number(x)) for x in _steps(x_low, x_high, 4)),
        y_ticks=tuple(Tick(at((x_low, y))[1], _value(y, scale)) for y in marks),
        note=note,
    )


def _line(
    one: Series, kind: Literal["run", "main"], at: Callable[[Point], Point], scale: Scale
) -> Line:
    drawn = [at(point) for point in _thinned(one.points)]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
    return Line(points, kind, one.label, _value(one.points[-1][1], scale), drawn[-1])


def short_number(value: float) -> str:
    """Return a number in few characters: 950, 1.5k, 20M, 0.25."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= limit:
            return f"{value / limit:.3g}{letter}"
    return f"{value:.3g}"


def _drawable(points: Sequence[Point], scale: Scale) -> tuple[Point, ...]:
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if scale == "log":
        finite = [(x, math.log10(y)) for x, y in finite if y > 0]
    return tuple(sorted(finite))


def _range(low: float, high: float, scale: Scale) -> tuple[float, float, list[float]]:
    """Return the ends of the axis and where its grid lines are."""
    if scale == "log":
        low, high = math.floor(low), max(math.ceil(high), math.floor(low) + 1)
        step = max(1, math.ceil((high - low) / 4))
        return low, high, [float(y) for y in range(round(low), round(high) + 1, step)]
    if scale == "percent":
        low, high = min(0.0, low), max(1.0, high)
    if high - low < 1e-12 * max(abs(low), abs(high), 1e-12):  # one value: in the middle
        low, high = (low - abs(low), high + abs(high)) if low else (0.0, 1.0)
    if 0 <= low < 0.6 * high:
        low = 0.0
    marks = _steps(low, high, 4)
    width = marks[1] - marks[0] if len(marks) > 1 else high - low
    if marks[0] > low + 1e-9 * width:
        marks.insert(0, marks[0] - width)
    if marks[-1] < high - 1e-9 * width:
        marks.append(marks[-1] + width)
    return marks[0], marks[-1], marks


def _steps(low: float, high: float, number: int) -> list[float]:
    """Return round numbers from `low` to `high`, about `number` of them."""
    span = max(high - low, 1e-12)
    unit = 10.0 ** math.floor(math.log10(span / number))
    step = next(unit * m for m in (1, 2, 5, 10) if span / (unit * m) <= number + 0.5)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _value(value: float, scale: Scale) -> str:
    if scale == "percent":
        return f"{100 * value:.0f} %"
    if scale == "share":
        return f"{100 * value:.3g} %"
    return f"{10**value:.0e}" if scale == "log" else short_number(value)


def _main(series: Sequence[Series]) -> tuple[Series | None, str]:
    """Return the thick line over one or several runs, and what it is."""
    if len(series) > 1:
        over = _median(series)
        note = f"thin: {len(series)} runs; thick: their median" if over else ""
        return over, note or f"{len(series)} runs"
    points = series[0].points
    if len(points) < _SMOOTHED_FROM:
        return series[0], ""
    half = _WINDOW // 2
    smooth: list[Point] = []
    for i, (x, _) in enumerate(points):
        near = [y for _, y in points[max(0, i - half) : i + half + 1]]
        smooth.append((x, sum(near) / len(near)))
    return Series(series[0].label, tuple(smooth)), f"thick: mean of {_WINDOW} steps"


def _median(series: Sequence[Series]) -> Series | None:
    """Return the median over the runs where all of them have values; None where nowhere."""
    low = max(one.points[0][0] for one in series)
    high = min(one.points[-1][0] for one in series)
    if high <= low:
        return None
    places = [low + (high - low) * i / (_MEDIAN_POINTS - 1) for i in range(_MEDIAN_POINTS)]
    points = [(x, median(_interpolated(one.points, x) for one in series)) for x in places]
    return Series("median", tuple(points))


def _interpolated(points: Sequence[Point], x: float) -> float:
    """Return the value at `x` on the line through `points`; the ends hold beyond them."""
    before = points[0]
    for point in points:
        if point[0] >= x:
            span = point[0] - before[0]
            share = (x - before[0]) / span if span > 0 else 1.0
            return before[1] + share * (point[1] - before[1])
        before = point
    return before[1]


def _thinned(points: Sequence[Point]) -> list[Point]:
    if len(points) <= _MAX_POINTS:
        return list(points)
    last = len(points) - 1
    return [points[round(i * last / (_MAX_POINTS - 1))] for i in range(_MAX_POINTS)]
