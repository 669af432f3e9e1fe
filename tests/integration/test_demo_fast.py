"""The demo from end to end, in miniature: its files, its stops and restarts, its baseline."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from treegrpo.cli import demo as demo_module
from treegrpo.cli.demo import Algo, Demo, DemoSettings
from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.store import open_store
from treegrpo.leaderboards.verify import verify
from treegrpo.losses import get_loss

MINI = DemoSettings(layers=1, demonstrations=960, steps=3, eval_tasks=9, lr=1e-3, questions=10)
FILES = (
    "demo.json", "stages.json", "config.json", "metrics.jsonl", "timings.jsonl", "trees.jsonl",
    "trees.html", "summary.json", "leaderboard.sqlite", "warmstart", "model", "checkpoint",
    "bundle_before", "bundle_after",
)  # fmt: skip


def _demo(
    out: Path, settings: DemoSettings = MINI, algo: Algo = "tree", seed: int = 0
) -> tuple[Demo, io.StringIO]:
    text = io.StringIO()
    console = Console(file=text, width=80)
    return Demo(out, settings, algo, seed, threads=1, console=console), text


def _run(out: Path, **options: Any) -> tuple[dict[str, Any], str]:
    demo, text = _demo(out, **options)
    return demo.run(), text.getvalue()


def _timeless(summary: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in summary.items() if not name.startswith("seconds")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """A demo that nobody stopped: its folder, its summary and what it printed."""
    out = tmp_path_factory.mktemp("demo") / "whole"
    return (out, *_run(out))


def test_every_file_is_there_and_nothing_half_written(
    whole: tuple[Path, dict[str, Any], str],
) -> None:
    out = whole[0]
    assert set(FILES) <= {path.name for path in out.iterdir()}
    left = [p for p in out.rglob("*") if ".part" in p.name or p.name.startswith(".")]
    assert left == []


def test_the_summary_holds_what_a_reader_looks_for(
    whole: tuple[Path, dict[str, Any], str],
) -> None:
    out, summary, _ = whole
    assert summary == json.loads((out / "summary.json").read_text())
    assert 0 <= summary["success_after_low"] <= summary["success_after"]
    assert summary["success_after"] <= summary["success_after_high"] <= 1
    assert 0 <= summary["success_before"] <= 1
    assert summary["sampled_tokens"] > summary["tool_calls"] > 0
    assert summary["sharing_ratio"] > 1
    assert (summary["seed"], summary["algo"]) == (0, "tree")
    assert summary["max_abs_log_ratio"] < 1e-5
    stages = summary["seconds_by_stage"]
    assert list(stages) == ["warm start", "score before", "training", "score after", "replay"]
    assert summary["seconds_total"] == pytest.approx(sum(stages.values()))
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert summary["sampled_tokens"] == sum(row["sampled_tokens"] for row in rows)


def test_the_model_loads_like_any_other(whole: tuple[Path, dict[str, Any], str]) -> None:
    out = whole[0]
    before = AutoModelForCausalLM.from_pretrained(out / "warmstart")
    after = AutoModelForCausalLM.from_pretrained(out / "model")
    tokenizer = AutoTokenizer.from_pretrained(out / "model")
    assert len(tokenizer) == after.config.vocab_size
    assert "<|im_start|>assistant" in tokenizer.apply_chat_template(
        [{"role": "user", "content": "Who?"}], add_generation_prompt=True, tokenize=False
    )
    pairs = zip(before.parameters(), after.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)


def test_both_bundles_verify_and_are_ranked(whole: tuple[Path, dict[str, Any], str]) -> None:
    out = whole[0]
    for name in ("bundle_before", "bundle_after"):
        assert verify(out / name).verified
    with open_store(f"sqlite:///{out / 'leaderboard.sqlite'}") as store:
        [key] = store.boards()
        rows = store.board(key.id).rows
    assert {row.agent for row in rows} == {"warm start", "tree-grpo"}
    digests = {read_bundle(out / name).digest for name in ("bundle_before", "bundle_after")}
    assert {row.digest for row in rows} == digests
    tasks = [read_bundle(out / n).manifest.tasks for n in ("bundle_before", "bundle_after")]
    assert tasks[0] == tasks[1]


def test_the_page_needs_no_network(whole: tuple[Path, dict[str, Any], str]) -> None:
    page = (whole[0] / "trees.html").read_text()
    assert "Demo" in page
    assert re.findall(r"https?://(?!www\.w3\.org/)[^\s\"']*", page) == []
    assert re.findall(r"(?:src|href)\s*=\s*[\"'](?!#)", page) == []
    assert re.findall(r"@import|url\(\s*[\"']?(?!data:|#)", page) == []


def test_what_is_printed_fits_80_columns(whole: tuple[Path, dict[str, Any], str]) -> None:
    out, summary, text = whole
    lines = [line for line in text.splitlines() if str(out) not in line]
    assert max(map(len, lines)) <= 80
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert f"{100 * summary['success_after']:.0f} % after" in text
    for title in ("warm start", "score before", "training", "score after", "replay"):
        assert re.search(rf"^  {title} +\d+ s  \S", text, re.MULTILINE), title


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def _kill_in(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let the demo die in the middle of a stage."""

    def advance(self: Any, done: int, total: int) -> None:
        if self._title == name and done >= 1:
            raise Killed

    monkeypatch.setattr("treegrpo.cli.progress.Bar.advance", advance)


# What a demo leaves after each stage; made of the same seed, the files are the same.
_LEFT: dict[str, tuple[str, ...]] = {
    "warm start": ("warmstart",),
    "score before": ("bundle_before",),
    "training": (
        "checkpoint", "config.json", "metrics.jsonl", "timings.jsonl", "trees.jsonl", "model",
    ),
    "score after": ("bundle_after",),
}  # fmt: skip
_STAGES = list(_LEFT)


def _begun(whole: Path, out: Path, done: list[str]) -> Path:
    """Return the folder of a demo that has done these stages, without doing them again."""
    out.mkdir(parents=True)
    for name in ("demo.json", *(name for stage in done for name in _LEFT[stage])):
        source = whole / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, out / name)
    return out


@pytest.mark.parametrize("stage", _STAGES)
def test_a_demo_killed_in_any_stage_goes_on_to_the_same_end(
    stage: str,
    whole: tuple[Path, dict[str, Any], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = _STAGES[: _STAGES.index(stage)]
    out = _begun(whole[0], tmp_path / "demo", done)
    with monkeypatch.context() as patch:
        _kill_in(patch, stage)
        with pytest.raises(Killed):
            _demo(out)[0].run()
    assert not (out / "summary.json").exists()
    summary, text = _run(out)
    assert _timeless(summary) == _timeless(whole[1])
    assert (out / "metrics.jsonl").read_bytes() == (whole[0] / "metrics.jsonl").read_bytes()
    assert [s for s in _STAGES if re.search(rf"{s} .*done before", text)] == done


def test_kill_9_and_then_the_same_command(
    whole: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    """A real kill, in another process, between two checkpoints of the training."""
    out = _begun(whole[0], tmp_path / "demo", ["warm start", "score before"])
    code = (
        "from pathlib import Path; from treegrpo.cli.demo import Demo, DemoSettings; "
        f"Demo(Path({str(out)!r}), DemoSettings(**{asdict(MINI)!r}), 'tree', 0, 1).run()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONHASHSEED": "7"},
    )
    deadline = time.monotonic() + 120
    while not (out / "checkpoint").is_dir() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    printed = process.communicate()[0].decode()
    assert process.returncode == -signal.SIGKILL, printed
    summary, _ = _run(out)
    assert _timeless(summary) == _timeless(whole[1])
    assert (out / "metrics.jsonl").read_bytes() == (whole[0] / "metrics.jsonl").read_bytes()


def test_the_same_run_from_another_folder(
    whole: tuple[Path, dict[str, Any], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run begun under a relative path goes on under an absolute one."""
    _begun(whole[0], tmp_path / "runs" / "demo", ["warm start", "score before"])
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        _kill_in(patch, "training")
        with pytest.raises(Killed):
            _demo(Path("runs/demo"))[0].run()
    summary, _ = _run(tmp_path / "runs" / "demo")
    assert _timeless(summary) == _timeless(whole[1])


def test_the_chain_baseline_takes_the_same_path(
    whole: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    with pytest.raises(TreegrpoError, match="other settings"):  # not the tree demo's folder
        _demo(_begun(whole[0], tmp_path / "tree", []), algo="group")
    demo, output = _demo(tmp_path / "demo", algo="group")
    shutil.copytree(whole[0] / "warmstart", tmp_path / "demo" / "warmstart")
    summary, text = demo.run(), output.getvalue()
    assert summary["algo"] == "group"
    assert summary["sharing_ratio"] == 1.0
    config = json.loads((tmp_path / "demo" / "config.json").read_text())["config"]
    assert (config["trunks"], config["forks"], config["credit"]) == (9, 0, "group")
    assert "group-grpo" in text


def test_a_finished_demo_is_kept_under_the_next_free_number(
    whole: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    out = tmp_path / "demo"
    shutil.copytree(whole[0], out)
    (tmp_path / "demo.1").mkdir()
    _, text = _demo(out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["demo", "demo.1", "demo.2"]
    assert f"The finished demo in {out} is now {tmp_path / 'demo.2'}." in text.getvalue()
    assert (tmp_path / "demo.2" / "summary.json").exists()
    assert [path.name for path in out.iterdir()] == ["demo.json"]


def _something_else(out: Path) -> None:
    out.mkdir()
    (out / "thesis.tex").write_text("x")


def _a_file(out: Path) -> None:
    out.write_text("x")


def _another_seed(out: Path) -> None:
    _demo(out, seed=1)


def _damaged(out: Path) -> None:
    out.mkdir()
    (out / "demo.json").write_text("{")


@pytest.mark.parametrize(
    ("fill", "found"),
    [
        (_something_else, "something else is there"),
        (_a_file, "something else is there"),
        (_another_seed, "other settings"),
        (_damaged, "is damaged"),
    ],
)
def test_a_folder_of_something_else_is_left_alone(
    fill: Callable[[Path], None], found: str, tmp_path: Path
) -> None:
    out = tmp_path / "demo"
    fill(out)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(TreegrpoError, match=rf"was asked for, but .*{found}.* --out DIR"):
        _demo(out)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_the_sizes_of_the_real_demos_are_those_of_their_promise() -> None:
    full, fast = demo_module.FULL, demo_module.FAST
    assert (full.layers, fast.layers) == (4, 2)
    assert 40 <= full.steps <= 60
    config = demo_module.train_config(full, "tree", 0, Path("model"), Path("out"))
    assert (config.trunks, config.forks, config.rounds) == (4, 2, 1)
    assert 3e-4 <= config.lr <= 5e-4
    options = get_loss(config.loss).resolve(config.loss_options)
    assert options.kl_beta == 0
    assert options.clip_low == options.clip_high == 0.2
