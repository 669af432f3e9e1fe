"""benchmarks.sandbox_fork on a report made by hand: its tables, its record, its picture."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import sandbox_fork
from treegrpo.sandboxes.bench import BenchReport, Measurement
from treegrpo.sandboxes.bench.report import latencies

ROOT = Path(__file__).resolve().parents[3]
CONDITIONS = {"load": "0.10 0.20 0.30", "huge_pages": "always [madvise] never"}


@pytest.fixture
def report() -> BenchReport:
    found = (
        latencies("node_fork", "fork(1)", [0.002, 0.003, 0.009]),
        latencies("memory_fork", "fork(1) of memory", [0.004, 0.005]),
        Measurement("live2000", "2,000 states", "MB", missing="only in a full run"),
        Measurement("sandlock_fork", "a clone", missing="not installed: pip install sandlock"),
    )
    return BenchReport("process", 3, found, CONDITIONS, CONDITIONS)


def test_the_tables_say_what_is_met_missed_and_absent(report: BenchReport) -> None:
    printed = io.StringIO()
    sandbox_fork.show(report, Console(width=120, file=printed))
    text = printed.getvalue()
    lines = {line.split()[1]: line for line in text.splitlines() if line.startswith("\u2502")}
    assert "3.00" in lines["node_fork_p50_ms"] and "yes" in lines["node_fork_p50_ms"]
    assert "4.00" in lines["memory_fork_p50_ms"] and "MISSED" in lines["memory_fork_p50_ms"]
    assert "not measured" in lines["live2000_mb"]
    assert lines["node_fork"].replace("\u2502", " ").split()[1:] == ["3", "3.00", "9.00"]
    assert "sandlock_fork was not measured: not installed: pip install sandlock" in text
    assert "always [madvise] never" in text and "load after: 0.10" in text


def test_the_record_keeps_every_run_and_says_what_is_missed(
    report: BenchReport, tmp_path: Path
) -> None:
    file = tmp_path / "x.json"
    sandbox_fork.write(report, file, quick=True)
    record = json.loads(file.read_text())
    assert record["question"] == sandbox_fork.QUESTION and record["seeds"] == [0]
    assert record["rows"][0]["values"] == pytest.approx([2.0, 3.0, 9.0])
    assert record["metrics"]["node_fork_p99_ms"] == pytest.approx(9.0)
    assert all(isinstance(value, float) for value in record["metrics"].values())
    assert record["missed"] == ["memory_fork_p50_ms"]
    assert set(record["not_measured"]) == {"live2000", "sandlock_fork"}
    assert record["conditions"]["before"] == CONDITIONS and record["level"] == 3
    assert not file.with_suffix(".png").exists()


def test_a_full_record_has_its_picture_even_where_rivals_are_missing(
    report: BenchReport, tmp_path: Path
) -> None:
    sandbox_fork.write(report, tmp_path / "x.json", quick=False)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_measured_runs_beside_no_torch() -> None:
    code = "import sys, benchmarks.sandbox_fork; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(SystemExit) as refused:
        sandbox_fork.main(["--backend", "vm"])
    assert refused.value.code == 2
