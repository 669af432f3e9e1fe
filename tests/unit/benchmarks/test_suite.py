"""benchmarks.suite: its numbers on rows made by hand, its table and record, and docs/suite.md."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import suite as benchmark
from benchmarks._suite_figure import draw
from benchmarks._suite_rows import (
    LevelRow,
    by_level,
    level_rows,
    page_rows,
    percent,
    success_metrics,
    success_rates,
)
from benchmarks.suite import Effort, entries, measure, show, write
from tests.unit.envs import toys
from treegrpo.envs import list_envs
from treegrpo.envs.suites import Suite, SuiteEntry, find_suite

ROOT = Path(__file__).resolve().parents[3]
RESULT = ROOT / "benchmarks" / "results" / "suite.json"
NOTES = SuiteEntry("treegrpo/Notes-v0")
LONG = SuiteEntry("treegrpo/SQL-v0", {"horizon": "long"}, weight=3.0)
MINE = Suite("mine/two-v0", (NOTES, LONG))
SHORT = Effort(tasks=5, rounds=1, seconds=0.0)


def row(entry: SuiteEntry, level: int, agent: Any, tasks: int, solved: int) -> LevelRow:
    return LevelRow(entry.name, level, agent, tasks, solved, solved / tasks, 4.0)


ROWS = [
    row(NOTES, 1, "oracle", 40, 40),
    row(NOTES, 2, "oracle", 40, 39),
    row(NOTES, 1, "random", 40, 2),
    row(NOTES, 2, "random", 40, 0),
    row(NOTES, 1, "null", 40, 0),
    row(NOTES, 2, "null", 40, 0),
    row(LONG, 1, "oracle", 10, 10),
    row(LONG, 1, "random", 10, 1),
    row(LONG, 1, "null", 10, 0),
]


def test_rates_pool_the_levels_by_tasks() -> None:
    assert success_rates(ROWS, "random") == {NOTES.name: 2 / 80, LONG.name: 1 / 10}
    assert by_level(ROWS, "oracle") == {NOTES.name: {1: 1.0, 2: 0.975}, LONG.name: {1: 1.0}}


def test_metrics_name_agent_environment_level_and_suite() -> None:
    found = success_metrics(ROWS, [MINE])
    assert found["oracle_success_notes_v0"] == pytest.approx(79 / 80)
    assert found["oracle_success_notes_v0_level_2"] == 0.975
    assert found["random_success_sql_v0_horizon_long_level_1"] == 0.1
    # Shares 1/4 and 3/4.
    assert found["random_score_two_v0"] == pytest.approx(0.25 * 2 / 80 + 0.75 * 0.1)
    assert found["null_score_two_v0"] == 0.0
    assert len(found) == 3 * (2 + 1) + 9


def test_a_suite_that_was_not_measured_whole_has_no_score() -> None:
    assert [n for n in success_metrics(ROWS[:6], [MINE]) if "score" in n] == []


@pytest.mark.parametrize(
    ("success", "text"), [(1.0, "100"), (0.0, "0"), (0.995, "99.5"), (0.025, "2.5"), (0.5, "50")]
)
def test_percent(success: float, text: str) -> None:
    assert percent(success) == text


def test_rows_are_what_the_agents_did_level_by_level() -> None:
    found = list(level_rows("mine/Sum", toys.Sum(), 6))
    levels = toys.Sum.difficulties
    assert [(r.agent, r.level) for r in found] == [
        (agent, level) for agent in ("oracle", "random", "null") for level in levels
    ]
    assert sum(r.tasks for r in found) == 3 * 6
    assert all(r.success == 1.0 for r in found if r.agent == "oracle")
    assert all(r.solved == 0 and r.mean_return == 0.0 for r in found if r.agent == "null")


def test_the_shipped_environments_and_every_entry_are_measured() -> None:
    found = entries([find_suite("treegrpo/core-v1"), MINE])
    shipped = {id for id in list_envs() if id.startswith("treegrpo/")}
    assert set(found) == shipped | {"treegrpo/Service-v0 domain=airline", LONG.name}
    assert list(found) == sorted(found, key=str.lower)


def test_a_short_run_prints_and_writes_everything(tmp_path: Path) -> None:
    lost = SuiteEntry("treegrpo/NoSuch-v0")
    printed = io.StringIO()
    console = Console(width=130, file=printed)
    report = measure({e.name: e for e in (NOTES, lost)}, SHORT, console)
    show(report, console)
    text = printed.getvalue()
    assert "Notes-v0" in text and "100 100 100 100 100" in text and "0 0 0 0 0" in text
    assert "treegrpo/NoSuch-v0 was not measured: Unknown environment" in text

    write(report, [Suite("mine/one-v0", (NOTES,))], tmp_path / "suite.json", SHORT)
    record = json.loads((tmp_path / "suite.json").read_text(encoding="utf-8"))
    assert record["metrics"]["oracle_score_one_v0"] == 1.0
    assert record["metrics"]["steps_per_s_notes_v0"] > 0
    assert record["suites"] == {"mine/one-v0": Suite("mine/one-v0", (NOTES,)).digest}
    assert list(record["not_measured"]) == ["treegrpo/NoSuch-v0"]
    assert record["unsolved_by_the_oracle"] == {}
    measures = [one["measure"] for one in record["rows"]]
    assert measures == ["success"] * 15 + ["cost"]
    assert not (tmp_path / "suite.png").exists()  # the picture is of full runs


def test_the_picture_is_drawn_also_where_levels_are_missing(tmp_path: Path) -> None:
    draw(ROWS, tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


def test_quick_is_quick() -> None:
    assert benchmark.QUICK.tasks <= 5 and benchmark.FULL.tasks == 200
    assert benchmark._parse(["--quick"]).quick and not benchmark._parse([]).quick


# ----------------------------------------------------------------------------- the full result


def _table() -> dict[str, list[str]]:
    """Return the cells of the big table of docs/suite.md by environment."""
    page = (ROOT / "docs" / "suite.md").read_text(encoding="utf-8")
    body = (
        page.partition("<!-- From benchmarks/results/suite.json. -->")[2]
        .strip()
        .partition("\n\n")[0]
    )
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in body.splitlines()]
    return {cells[0]: cells[1:] for cells in rows[2:]}


def test_the_page_has_the_numbers_of_the_result_and_no_others() -> None:
    record = json.loads(RESULT.read_text(encoding="utf-8"))
    success = [
        LevelRow(**{k: v for k, v in one.items() if k != "measure"})
        for one in record["rows"]
        if one["measure"] == "success"
    ]
    assert _table() == page_rows(success, record["metrics"])
    page = (ROOT / "docs" / "suite.md").read_text(encoding="utf-8")
    said = re.findall(r"^\| (oracle|random agent|null agent) \| ([\d.]+) \|$", page, flags=re.M)
    metrics = record["metrics"]
    assert said == [
        (agent, f"{metrics[f'{agent.split()[0]}_score_core_v1']:.4f}")
        for agent in ("oracle", "random agent", "null agent")
    ]


def test_the_result_is_whole_and_holds_what_is_claimed() -> None:
    record = json.loads(RESULT.read_text(encoding="utf-8"))
    assert re.fullmatch(r"[0-9a-f]{40}", record["commit"])
    assert record["not_measured"] == {}
    core = find_suite("treegrpo/core-v1")
    assert record["suites"] == {core.name: core.digest}
    assert set(record["unsolved_by_the_oracle"]) <= {"treegrpo/FrozenLake-v0"}
    for agent, most in (("random", 0.05), ("null", 0.0)):
        rates = [
            v for k, v in record["metrics"].items() if re.fullmatch(f"{agent}_success_.*v\\d", k)
        ]
        assert len(rates) >= len(core.entries) and max(rates) <= most
