"""Charts as numbers, and the page of training runs."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treegrpo.leaderboards.site.viewer_chart import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Series,
    line_chart,
    short_number,
)
from treegrpo.leaderboards.site.viewer_training import (
    SECONDS,
    TrainingRun,
    render_training,
    training_charts,
)


def points_of(line: Any) -> list[tuple[float, float]]:
    return [tuple(map(float, point.split(","))) for point in line.points.split()]  # type: ignore


def series(*values: float, label: str = "a", start: int = 0) -> Series:
    return Series(label, tuple((float(i + start), value) for i, value in enumerate(values)))


def row(step: int, **changes: Any) -> dict[str, Any]:
    return {
        "step": step, "success_rate": 0.5, "reward_mean": 0.25, "reset_leaves": 8,
        "sampled_tokens": 1234, "sampled_tokens_total": 1234 * (step + 1),
        "tool_calls_total": 10 * (step + 1), "max_abs_log_ratio": 2e-6, "clip_share": 0.004,
        SECONDS: 2.0 * (step + 1), **changes,
    }  # fmt: skip


# ---- charts


def test_a_line_runs_from_corner_to_corner() -> None:
    chart = line_chart("success", "step", [series(0.0, 1.0)], "percent")
    assert chart is not None
    assert points_of(chart.lines[0]) == [(LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, TOP)]
    assert [tick.label for tick in chart.y_ticks] == ["0 %", "50 %", "100 %"]
    assert (chart.lines[-1].last, chart.note) == ("100 %", "")


def test_one_long_run_is_smoothed_over_five_steps() -> None:
    chart = line_chart("reward", "step", [series(*[0.0, 1.0] * 10)])
    assert chart is not None
    assert [line.kind for line in chart.lines] == ["run", "main"]
    assert chart.note == "thick: mean of 5 steps"
    # Mean of the last three values 1, 0, 1.
    assert chart.lines[1].last == short_number(2 / 3)


def test_several_runs_are_thin_and_their_median_is_thick() -> None:
    runs = [series(0.0, 0.0, label="a"), series(0.2, 0.4, label="b"), series(1.0, 1.0, label="c")]
    chart = line_chart("success", "step", runs, "percent")
    assert chart is not None
    assert [(line.kind, line.label) for line in chart.lines] == [
        ("run", "a"), ("run", "b"), ("run", "c"), ("main", "median"),
    ]  # fmt: skip
    assert (chart.lines[-1].last, chart.note) == ("40 %", "thin: 3 runs; thick: their median")
    assert points_of(chart.lines[-1])[0] == points_of(chart.lines[1])[0]


def test_runs_that_never_overlap_have_no_median() -> None:
    chart = line_chart("reward", "step", [series(0, 1), series(0, 1, start=5)])
    assert chart is not None
    assert ([line.kind for line in chart.lines], chart.note) == (["run", "run"], "2 runs")


def test_a_logarithmic_axis_passes_over_what_is_not_above_zero() -> None:
    chart = line_chart("gap", "step", [series(1e-6, 0.0, 1e-4)], "log")
    assert chart is not None
    assert [tick.label for tick in chart.y_ticks] == ["1e-06", "1e-05", "1e-04"]
    assert len(points_of(chart.lines[0])) == 2


@pytest.mark.parametrize("values", [(), (1.0,), (math.nan, math.inf), (1.0, math.nan)])
def test_without_two_values_there_is_no_chart(values: tuple[float, ...]) -> None:
    assert line_chart("reward", "step", [series(*values)]) is None


def test_a_long_line_is_thinned_and_keeps_its_ends() -> None:
    chart = line_chart("reward", "step", [series(*map(float, range(5000)))])
    assert chart is not None
    points = points_of(chart.lines[0])
    assert (len(points), points[0][0], points[-1][0]) == (400, LEFT, WIDTH - RIGHT)


def test_a_constant_lies_within_its_axis() -> None:
    chart = line_chart("clipped", "step", [series(0.01, 0.01)], "share")
    assert chart is not None
    assert [tick.label for tick in chart.y_ticks] == ["0 %", "0.5 %", "1 %", "1.5 %", "2 %"]


@given(
    st.lists(st.floats(-1e9, 1e9), min_size=2, max_size=30),
    st.sampled_from(["linear", "percent", "share", "log"]),
)
def test_every_chart_stays_inside_its_frame(values: list[float], scale: Any) -> None:
    chart = line_chart("any", "step", [series(*values)], scale)
    if chart is None:
        assert scale == "log"
        return
    for line in chart.lines:
        for x, y in points_of(line):
            assert LEFT - 0.1 <= x <= WIDTH - RIGHT + 0.1
            assert TOP - 0.1 <= y <= HEIGHT - BOTTOM + 0.1
    assert 2 <= len(chart.y_ticks) <= 8


@pytest.mark.parametrize(
    ("value", "short"),
    [(950, "950"), (1500, "1.5k"), (2e7, "20M"), (0.25, "0.25"), (-1500, "-1.5k"), (0, "0")],
)
def test_short_numbers(value: float, short: str) -> None:
    assert short_number(value) == short


# ---- the page


def test_success_is_drawn_against_tokens_calls_and_seconds() -> None:
    charts = training_charts([TrainingRun("a", (row(0), row(1)))])
    assert [(chart.title, chart.x_label) for chart in charts] == [
        ("success by sampled tokens", "sampled tokens"),
        ("success by tool calls", "tool calls"),
        ("success by seconds", "seconds"),
        ("mean reward", "step"),
        ("gap between sampler and trainer", "step"),
        ("share of clipped tokens", "step"),
    ]


def test_a_step_without_an_outcome_is_not_a_success_of_zero() -> None:
    rows = (row(0), row(1, reset_leaves=0, success_rate=0.0), row(2, success_rate=0.75))
    (first, *_) = training_charts([TrainingRun("a", rows)])
    assert len(points_of(first.lines[0])) == 2
    page = render_training([TrainingRun("a", rows)], "a")
    cells = re.findall(r"<tr><td>2</td><td>(.*?)</td>", page)
    assert cells == ["-"]


def test_the_table_leads_to_the_trees_of_the_steps_that_kept_some() -> None:
    rows = (row(0), row(9))
    page = render_training([TrainingRun("a", rows, pages={9: "steps/000010.html"})], "a run")
    assert re.findall(r'<a href="(.*?)">(.*?)</a>', page) == [
        ("steps/000010.html", "trees of step 10")
    ]
    for shown in ("50 %", "0.250", "1,234", "2.0e-06", "0.4 %"):
        assert f"<td>{shown}</td>" in page


def test_odd_rows_and_hostile_names_are_harmless() -> None:
    rows: tuple[dict[str, Any], ...] = ({"step": True, "success_rate": None}, {"reward_mean": "x"})
    name = "<script>alert(1)</script>\x1b[31m"
    page = render_training([TrainingRun(name, rows), TrainingRun("b", ())], name)
    assert "No step is done that could be drawn." in page
    assert "<script>" not in page
    assert "\x1b" not in page
    assert "script-src 'none'" in page.replace("&#39;", "'")
