"""The summary of tree_vs_chain on rows made by hand, its cache, its record, its picture."""

import dataclasses
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks import _runs, tree_vs_chain
from benchmarks._figure import draw
from benchmarks._record import write_record
from benchmarks._runs import both_runs
from benchmarks._settings import ALGORITHMS, SEARCH, SETTINGS, SQL_LONG, run_config
from benchmarks._summary import (
    area_under_curve,
    flat_metrics,
    over_seeds,
    select,
    success_at,
    tree_minus_chain,
)
from treegrpo.envs.errors import TreegrpoError


def row(algorithm: str, seed: int, end: float, *, setting: str = "search") -> dict[str, Any]:
    """Return a run that climbs from 0.2 in two equal parts of its budget, the first at once."""
    slower = 2 if algorithm == "tree" else 1
    points = [
        {"sampled_tokens": 0, "tool_calls": 0, "cpu_seconds": 0.0, "success": 0.2},
        {"sampled_tokens": 500, "tool_calls": 50, "cpu_seconds": 5.0 * slower, "success": end},
        {"sampled_tokens": 1000, "tool_calls": 100, "cpu_seconds": 10.0 * slower, "success": end},
    ]
    counts = {"sampled_tokens": 1000, "tool_calls": 100, "leaves": 60, "steps": 4}
    seconds = {
        f"seconds_{n}": 1.0 for n in ("generation", "environment", "training", "step", "cpu")
    }
    return {
        "setting": setting,
        "algorithm": algorithm,
        "seed": seed,
        "success_start": 0.2,
        "success_end": end,
        "points": points,
        "mixed_questions": 0.5,
        "sharing_ratio": 1.0 if algorithm == "chain" else 1.5,
        "seconds_warm_start": 3.0,
        **counts,
        **seconds,
    }


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    ends = {"chain": (0.5, 0.6, 0.4), "tree": (0.6, 0.8, 0.4)}
    return [
        row(algorithm, seed, end, setting=setting)
        for setting in ("search", "sql-long")
        for algorithm, values in ends.items()
        for seed, end in enumerate(values)
    ]


def test_curves_are_read_by_straight_lines() -> None:
    run = row("chain", 0, 0.6)
    assert success_at(run, "sampled_tokens", 250) == pytest.approx(0.4)
    assert success_at(run, "cpu_seconds", 5.0) == pytest.approx(0.6)
    assert success_at(run, "tool_calls", 1e9) == pytest.approx(0.6)


def test_the_area_is_the_mean_success_over_the_tokens() -> None:
    # A ramp from 0.2 to 0.6 over the first half, 0.6 over the second.
    assert area_under_curve(row("chain", 0, 0.6), 1000) == pytest.approx(0.5)
    assert area_under_curve(row("chain", 0, 0.6), 500) == pytest.approx(0.4)


def test_seeds_are_the_unit(rows: list[dict[str, Any]]) -> None:
    interval = over_seeds(select(rows, "search", "chain"), "success_end")
    assert (interval.mean, interval.num_tasks) == (pytest.approx(0.5), 3)
    # t(0.975, 2) = 4.3027, standard deviation 0.1, three seeds; Wilson's form with N = 75:
    # w = t^2 / N = 0.24684, (0.5 + w / 2) / (1 + w) + sqrt(w / 4 + w^2 / 4) / (1 + w).
    assert interval.high == pytest.approx(0.7225, abs=1e-4)


def test_differences_are_paired_by_seed(rows: list[dict[str, Any]]) -> None:
    paired = tree_minus_chain(rows, "search", "sampled_tokens")
    assert paired.difference.mean == pytest.approx((0.1 + 0.2 + 0.0) / 3)
    assert (paired.wins, paired.ties, paired.losses) == (2, 1, 0)


def test_equal_seconds_reads_both_where_the_cheaper_run_ended(rows: list[dict[str, Any]]) -> None:
    # After 10 s the trees, twice as slow, stand at half their budget: already at their end.
    paired = tree_minus_chain(rows, "search", "cpu_seconds")
    assert paired.difference.mean == pytest.approx(0.1)
    slow = [row("chain", 0, 0.6), row("tree", 0, 0.6)]
    slow[0]["points"] = [p | {"cpu_seconds": p["cpu_seconds"] / 2} for p in slow[0]["points"]]
    behind = tree_minus_chain(slow, "search", "cpu_seconds")
    assert behind.difference.mean == pytest.approx(0.4 - 0.6)


def test_metrics_are_flat_and_complete(rows: list[dict[str, Any]]) -> None:
    metrics = flat_metrics(rows)
    assert all(isinstance(value, float) for value in metrics.values())
    assert metrics["sql_long_tree_success_end"] == pytest.approx(0.6)
    assert metrics["search_difference_at_sampled_tokens"] == pytest.approx(0.1)
    assert metrics["search_chain_sharing_ratio"] == 1.0
    assert metrics["search_tree_success_end_low"] < 0.6 < metrics["search_tree_success_end_high"]


def test_the_tables_name_both_settings_and_the_spread(rows: list[dict[str, Any]]) -> None:
    printed = io.StringIO()
    tree_vs_chain.show(rows, Console(width=120, file=printed))
    text = printed.getvalue()
    assert "search: means over 3 seeds" in text and "sql-long: means over 3 seeds" in text
    assert re.search(r"success at equal sampled tokens: \+0\.100 \[-0\.148, \+0\.348\]", text)
    assert "tree ahead in 2 of 3 seeds" in text


def test_the_picture_is_written(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    draw(rows, tmp_path / "deep" / "picture.png")
    assert (tmp_path / "deep" / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_one_seed_has_a_picture_and_no_interval(tmp_path: Path) -> None:
    single = [row("chain", 0, 0.4), row("tree", 0, 0.5)]
    draw(single, tmp_path / "one.png")
    assert (tmp_path / "one.png").exists()
    assert "search_tree_success_end_low" not in flat_metrics(single)


def test_the_record_holds_what_a_reader_needs(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    file = tmp_path / "results" / "x.json"
    write_record(file, question="Q?", seeds=[0], rows=rows, metrics={"a_s": 1.0}, notes={"k": 1})
    record = json.loads(file.read_text())
    wanted = {"question", "command", "commit", "versions", "host", "seeds", "rows", "metrics"}
    assert wanted <= set(record)
    assert record["metrics"] == {"a_s": 1.0} and record["rows"] == rows
    assert record["host"]["cores"] >= 1 and "torch" in record["versions"]


def test_finished_runs_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a finished run was run again")

    folder = tmp_path / f"search-{SEARCH.digest()}"
    folder.mkdir()
    for algorithm in ALGORITHMS:
        (folder / f"{algorithm}-seed7.json").write_text(json.dumps({"algorithm": algorithm}))
    monkeypatch.setattr(_runs, "build_warm_start", fail)
    assert both_runs(SEARCH, 7, tmp_path, "abc") == [{"algorithm": "chain"}, {"algorithm": "tree"}]
    changed = dataclasses.replace(SEARCH, lr=1e-3)
    with pytest.raises(AssertionError, match="run again"):
        both_runs(changed, 7, tmp_path, "abc")


def test_each_run_notes_the_commit_it_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(setting: object, seed: int, folder: Path) -> None:
        folder.mkdir(parents=True)

    monkeypatch.setattr(_runs, "build_warm_start", build)
    monkeypatch.setattr(_runs, "train_run", lambda _, algorithm, *rest: {"algorithm": algorithm})
    rows = both_runs(SEARCH, 7, tmp_path, "abc")
    assert rows == [{"algorithm": a, "commit": "abc"} for a in ALGORITHMS]
    assert both_runs(SEARCH, 7, tmp_path, "later") == rows


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_both_algorithms_differ_in_their_rollouts_alone(setting: Any, tmp_path: Path) -> None:
    chain, tree = (
        run_config(setting, algorithm, 3, tmp_path, tmp_path / "out").model_dump()
        for algorithm in ALGORITHMS
    )
    differing = {name for name in chain if chain[name] != tree[name]}
    assert differing == {"trunks", "forks", "rounds", "credit"}
    assert chain["max_sampled_tokens"] == setting.budget_tokens
    assert (tree["trunks"], tree["forks"], tree["rounds"]) == (4, 2, 1)


def test_long_episodes_are_of_one_level() -> None:
    config = run_config(SQL_LONG, "tree", 0, Path("m"), Path("o"))
    assert (config.env_kwargs, config.difficulty) == ({"horizon": "long"}, 1)


def test_quick_is_small() -> None:
    for setting in SETTINGS.values():
        small = tree_vs_chain.quick(setting)
        assert small.budget_tokens <= setting.budget_tokens / 10
        assert small.digest() != setting.digest()


@pytest.mark.parametrize("words", [["--seeds", "0"], ["--settings", "chess"], ["--workers", "-1"]])
def test_wrong_options_are_refused(words: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        tree_vs_chain.main(words)
    assert refused.value.code == 2


def test_an_unknown_model_is_told_apart_from_a_bug(tmp_path: Path) -> None:
    with pytest.raises(TreegrpoError, match="asked for"):
        _runs.train_run(SQL_LONG, "tree", 0, tmp_path / "nowhere")
