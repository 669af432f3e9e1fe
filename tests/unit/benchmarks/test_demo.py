"""benchmarks.demo: the numbers are those of the demos' own summaries."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import demo


def test_the_record_holds_every_seed_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **options: Any) -> None:
        words = dict(zip(command[4::2], command[5::2], strict=False))
        seed = int(words["--seed"])
        summary = {
            "seed": seed, "success_before": 0.3, "success_after": 0.8 + seed / 10,
            "success_after_low": 0.7, "success_after_high": 0.99, "sampled_tokens": 1000,
            "sharing_ratio": 1.5, "seconds_total": 100.0 + seed, "max_abs_log_ratio": 1e-6,
        }  # fmt: skip
        Path(words["--out"]).mkdir(parents=True)
        (Path(words["--out"]) / "summary.json").write_text(json.dumps(summary))

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(demo, "write_record", lambda path, **fields: path.write_text(
        json.dumps({"rows": fields["rows"], "metrics": fields["metrics"]})))  # fmt: skip
    out = tmp_path / "demo.json"
    monkeypatch.setattr("sys.argv", ["demo", "--seeds", "2", "--json", str(out)])
    demo.main()
    record = json.loads(out.read_text())
    assert [row["seed"] for row in record["rows"]] == [0, 1]
    assert record["metrics"]["success_after_min"] == 0.8
    assert record["metrics"]["success_after_mean"] == pytest.approx(0.85)
    assert record["metrics"]["seconds_total_median"] == pytest.approx(100.5)
