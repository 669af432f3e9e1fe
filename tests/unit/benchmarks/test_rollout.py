"""benchmarks.rollout: its environment, its arms, its counts and its record, on tiny models."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from transformers import Qwen3Config

from benchmarks import _rollout_gpu as gpu
from benchmarks import _rollout_kv, rollout
from benchmarks import _rollout_vllm as vllm
from benchmarks._record import write_record
from benchmarks._rollout_engines import (
    Load,
    generate_once,
    generate_turns,
    prompts,
    rate_metrics,
    rates,
    sample_once,
    stopless,
    turns_once,
)
from benchmarks._rollout_env import Latency, LatencyEnv, make_latency, seconds_told
from benchmarks._rollout_figure import draw
from benchmarks._rollout_kv import (
    fork_metrics,
    fork_rows,
    prefill_metrics,
    prefill_row,
    token_counts,
)
from benchmarks._rollout_wall import ARMS, WallPlan, critical_seconds, wall_metrics, wall_rows
from treegrpo.chat import ChatFormat
from treegrpo.engine.hf import HFEngine
from treegrpo.engine.native import NativeEngine
from treegrpo.tiny import build_model, build_tokenizer
from treegrpo.tree import Tree

TOKENIZER = build_tokenizer([rollout.WORDS])
NO_TIME = Latency(mean_s=0.0, slow_share=0.0)
LOAD = Load(rows=8, prompt_tokens=16, new_tokens=3, turns=2, turn_sampled=2, turn_observed=3)
TINY = Qwen3Config(
    vocab_size=120,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=8,
    intermediate_size=24,
    tie_word_embeddings=True,
    eos_token_id=3,
)


def small_model() -> Any:
    return stopless(build_model(len(TOKENIZER), layers=1, width=32))


def tree(seconds: list[tuple[int, int]]) -> Tree:
    """Return a tree of steps, each given by its parent and its milliseconds."""
    made = Tree(question_id="by hand")
    made.add(None, observation_ids=[5, 6, 7])
    for parent, ms in seconds:
        made.add(
            parent,
            action_ids=[8, 9],
            action_logps=[-1.0, -1.0],
            observation_ids=[10],
            observation_text=f"Nobody knows. That took {ms} ms.",
        )
    return made


def play(env_seed: int, reset_seed: int, actions: list[str]) -> list[float]:
    env = make_latency(len(actions), env_seed, Latency(mean_s=0.002, slow_s=0.003))
    env.reset(seed=reset_seed)
    return [seconds_told(env.step(action)[0]) for action in actions]


def test_latencies_have_the_mean_and_the_tail_asked_for() -> None:
    latency, rng = Latency(), np.random.default_rng(0)
    drawn = np.array([latency.draw(rng) for _ in range(20_000)])
    assert np.mean(drawn == 1.0) == pytest.approx(0.05, abs=0.005)
    assert np.mean(drawn[drawn < 1.0]) == pytest.approx(0.05, rel=0.03)
    assert np.mean(drawn) == pytest.approx(latency.mean_of_all_s, rel=0.05)


def test_a_step_takes_as_long_as_seed_task_and_words_say() -> None:
    words = ["go", "look", "wait", "take", "go"]
    assert play(0, 7, words) == play(0, 7, words)
    assert play(0, 7, words) != play(1, 7, words)
    assert play(0, 7, words) != play(0, 8, words)
    other = play(0, 7, [*words[:2], "jump", *words[3:]])
    assert other[:2] == play(0, 7, words)[:2] and other[2:] != play(0, 7, words)[2:]


def test_episodes_have_the_same_number_of_turns_whatever_is_said() -> None:
    env = make_latency(3, 0, NO_TIME)
    assert isinstance(env.unwrapped, LatencyEnv)
    env.reset(seed=0)
    ends = [env.step(action)[2:4] for action in ("", "{broken", "<tool_call>{}</tool_call>")]
    assert [any(flags) for flags in ends] == [False, False, True]


def test_critical_seconds_by_hand() -> None:
    #  0 - 1 (100) - 2 (50)        trunk: 150
    #       \ 3 (20) - 4 (500)     fork at 1
    grown = tree([(0, 100), (1, 50), (1, 20), (3, 500)])
    assert critical_seconds([grown], forks_wait=False) == pytest.approx(0.620)
    assert critical_seconds([grown], forks_wait=True) == pytest.approx(0.670)
    chain = tree([(0, 100), (1, 50)])
    assert critical_seconds([chain, grown], forks_wait=True) == pytest.approx(0.670)
    assert critical_seconds([chain], forks_wait=True) == pytest.approx(0.150)


def test_arms_grow_the_same_leaves_and_barriers_change_no_tree() -> None:
    plan = WallPlan(questions=1, repeats=2, turns=2, action_tokens=2, latency=NO_TIME)
    rows = wall_rows(small_model(), ChatFormat(TOKENIZER), plan)
    assert len(rows) == 2 * len(ARMS)
    assert {row["leaves"] for row in rows} == {12}
    steps = {(row["arm"], row["repeat"]): row["steps"] for row in rows}
    assert steps["chains", 0] == 24 > steps["trees", 0]
    for repeat in (0, 1):
        assert steps["trees", repeat] == steps["trees_barriers", repeat]
    metrics = wall_metrics(rows)
    walls = {arm.name: metrics[f"wall_s_{arm.name}"] for arm in ARMS}
    assert metrics["tree_over_chain_wall"] == pytest.approx(walls["trees"] / walls["chains"])
    product = metrics["barrier_over_free_wall"] * metrics["tree_over_chain_wall"]
    assert metrics["barrier_tree_over_chain_wall"] == pytest.approx(product)
    threads = {row["arm"]: row["threads"] for row in rows}
    assert threads["chains"] == threads["trees"] == 12 and threads["chains_few_threads"] == 8


def test_a_questions_prompt_counts_once() -> None:
    first, second = tree([(0, 1), (1, 1)]), tree([(0, 1)])
    counts = token_counts([[first, second]])
    assert counts == {"unique_tokens": 3 + 3 * 3, "to_prefill": 3 + 1 + 1, "leaves": 2}
    assert token_counts([[first], [second]])["unique_tokens"] == 2 * 3 + 3 * 3


def test_nothing_is_prefilled_twice_but_a_token_a_fork() -> None:
    env = make_latency(3, 0, NO_TIME)
    row = prefill_row(
        small_model(), ChatFormat(TOKENIZER), env, questions=2, action_tokens=4, seed=0
    )
    assert row["leaves"] == 24 and row["max_turns"] == 3
    assert row["to_prefill"] <= row["prefill_tokens"] <= row["to_prefill"] + row["leaves"]
    assert row["computed_tokens"] < row["unique_tokens"] + row["leaves"]
    worse = {**row, "env": "b", "computed_tokens": 2 * row["unique_tokens"]}
    metrics = prefill_metrics([{**row, "env": "a"}, worse])
    assert metrics["prefill_over_unique"] == metrics["prefill_over_unique_b"] == 2.0
    assert metrics["prefill_over_unique_a"] < 1.0


def test_forks_are_timed_at_every_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _rollout_kv.DEPTHS == (1, 8, 32)
    monkeypatch.setattr(_rollout_kv, "DEPTHS", (1, 3))
    rows = fork_rows(small_model(), 20)
    assert [(row["turns"], row["tokens"]) for row in rows] == [(1, 24), (3, 72)]
    assert all(len(row["fork_us"]) == 20 and min(row["fork_us"]) > 0 for row in rows)
    metrics = fork_metrics(rows)
    for depth in (1, 3):
        assert metrics[f"kv_fork_us_depth{depth}"] < metrics[f"kv_fork_to_token_us_depth{depth}"]


def test_prompts_differ_in_length_and_content() -> None:
    found = prompts(100, Load())
    lengths = {len(ids) for ids in found}
    assert len(found) == 64 and len(lengths) > 10 and min(lengths) >= 112 and max(lengths) <= 144
    assert len({tuple(ids) for ids in found}) == 64
    assert min(map(min, found)) >= 4 and max(map(max, found)) < 100


def test_everybody_samples_all_tokens_and_engines_give_all_back() -> None:
    model = small_model()
    rows = rates(model, {}, LOAD, 1)
    tokens = {(row["setting"], row["engine"]): row["tokens"] for row in rows}
    names = ("native", "hf", "generate", "continuous_batching")
    assert {key: tokens[key] for key in tokens if key[0] == "prompts"} == {
        ("prompts", name): 24 for name in names
    }
    # One context, forked into four, then into eight; two tokens a turn.
    assert {key: tokens[key] for key in tokens if key[0] == "turns"} == {
        ("turns", name): 4 * 2 + 8 * 2 for name in names[:3]
    }
    asked = prompts(len(TOKENIZER), LOAD)
    for engine in (NativeEngine(model, max_context_tokens=LOAD.longest), HFEngine(model)):
        sample_once(engine, asked, LOAD)
        turns_once(engine, asked, LOAD)
        assert engine.live_contexts == 0


def test_rows_are_not_ended_by_the_models_own_stop_token() -> None:
    model = stopless(build_model(4, layers=1, width=32))  # one draw of four would be a stop
    asked = [[1, 2, 1]] * LOAD.rows
    assert generate_once(model, asked, LOAD.new_tokens) == LOAD.rows * LOAD.new_tokens
    short = replace(LOAD, turns=1)
    assert generate_turns(small_model(), asked, short) == 4 * LOAD.turn_sampled


def test_names_of_rates() -> None:
    row = {"setting": "prompts", "engine": "hf", "model": "demo", "tokens": 6, "seconds": [3, 1, 2]}
    turns = {**row, "setting": "turns"}
    assert rate_metrics([row, {**row, "model": "10m"}, turns, {**turns, "model": "10m"}]) == {
        "tokens_per_s_hf": 3,
        "tokens_per_s_hf_10m": 3,
        "turns_tokens_per_s_hf": 3,
        "turns_tokens_per_s_hf_10m": 3,
    }


def test_what_a_token_has_to_read() -> None:
    model = gpu.build(TINY)
    # Tied embeddings are read once: by the head. Keys and values: 2 layers, 1 head of 8 numbers.
    numbers = sum(p.numel() for p in model.parameters())
    assert gpu.token_bytes(model, [10, 30]) == 4 * (numbers + 40 * 2 * 2 * 8)


def test_the_gpu_part_on_a_tiny_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gpu.BANDWIDTH, "cpu", 1e9)
    plan = gpu.GpuPlan({"tiny": TINY}, [LOAD], 1, device="cpu", dtype=torch.float32)
    said: list[str] = []
    rows = gpu.measure_all(plan, lambda text: said.append(str(text)))
    names = ["native", "hf", "generate", "continuous_batching"]
    assert [row["engine"] for row in rows] == names and len(said) == 4
    metrics = gpu.gpu_metrics(rows)
    assert metrics["gpu_tiny_rows8_generate_over_generate"] == 1.0
    for row in rows:
        share = metrics[f"gpu_tiny_rows8_{row['engine']}_bound_share"]
        assert share == pytest.approx(row["bound_step_s"] / row["decode_step_s"])


def found_by_hand() -> rollout.Found:
    wall = [
        {"arm": arm.name, "repeat": repeat, "wall_s": wall_s, "critical_s": 0.5, "fill": 0.9}
        | {"waiting_share": 0.1}
        for arm, wall_s in zip(ARMS, (2.0, 2.2, 1.8, 6.6, 8.0, 6.0), strict=True)
        for repeat in range(3)
    ]
    prefill = {"env": "latency", "computed_tokens": 98, "unique_tokens": 100}
    prefill |= {"prefill_tokens": 51, "to_prefill": 50}
    rates_by_hand = [
        {"model": model, "setting": "prompts", "engine": engine, "tokens": 64, "seconds": [0.5]}
        for model in ("demo", "10m")
        for engine in ("native", "hf", "generate")
    ]
    fork = {"turns": 1, "fork_us": [2.0, 3.0, 1.0], "to_token_us": [900.0]}
    return rollout.Found(wall, [prefill], [fork], rates_by_hand, {"vllm": "no server here"})


def test_tables_record_and_picture(tmp_path: Path) -> None:
    found, printed = found_by_hand(), io.StringIO()
    rollout.show(found, Console(width=120, file=printed))
    assert "tree_over_chain_wall: 1.1\n" in printed.getvalue()
    assert "barrier_over_free_wall: 3\n" in printed.getvalue()
    assert "vllm was not measured: no server here" in printed.getvalue()
    file = tmp_path / "x.json"
    write_record(
        file, question="?", seeds=[0], rows=found.rows(), metrics=found.metrics(), notes={}
    )
    record = json.loads(file.read_text())
    assert record["metrics"]["kv_fork_us_depth1"] == 2.0
    assert record["metrics"]["prefill_over_unique"] == 0.98
    assert {row["part"] for row in record["rows"]} == {"wall", "prefill", "forks", "rates"}
    draw(found.wall, found.rates, file.with_suffix(".png"))
    assert file.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_quick_measures_the_same_with_less() -> None:
    full, quick = (rollout.plan_of(quick=one, repeats=7) for one in (False, True))
    assert full.repeats == full.wall.repeats == 7
    assert full.wall.questions == 14 and full.wall.latency == Latency()
    assert full.load.rows == 64 and full.has_servers
    assert quick.wall.arms == full.wall.arms and quick.repeats == 1


def test_a_server_that_is_not_installed_or_does_not_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(vllm, "PYTHON", vllm.ROOT / "nowhere" / "python")
    assert vllm.why_not() == "no nowhere/python: make test-vllm installs it"
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no such module: vllm\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(vllm, "PYTHON", broken)
    (tmp_path / "run").mkdir()
    model = build_model(40, layers=1, width=32)
    with (
        pytest.raises(RuntimeError, match=r"ended with 1\..*no such module: vllm"),
        vllm.vllm_engine(model, tmp_path / "run", 4, 64),
    ):
        pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure on")
def test_a_gpu_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        rollout.main(["--device", "cuda"])
    assert "no CUDA device is visible" in capsys.readouterr().err
