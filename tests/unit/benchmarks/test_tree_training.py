"""benchmarks.tree_training: its trees, its paths, its numbers, its rivals, on tiny models."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import Qwen3Config

from benchmarks import _training_gpu as gpu
from benchmarks import _trl, tree_training
from benchmarks._training_figure import draw, draw_limits, group_bound
from benchmarks._training_measure import Bench, interleaved, measure, summarise
from benchmarks._training_model import SCRATCH_10M, build
from benchmarks._training_paths import auto_path, flat_paths, packed_path, set_old_logps
from benchmarks._training_trees import SHAPES, Cell, cells, grow
from treegrpo.attention import TreeLayout
from treegrpo.bound import ModelSizes, bound
from treegrpo.pack import pack, split
from treegrpo.tree import Tree

VOCAB = 50
TINY = Qwen3Config(
    vocab_size=VOCAB,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=8,
    intermediate_size=24,
    tie_word_embeddings=True,
)
SIZES = ModelSizes(10_041_152, 8, 320, 320, 2048)
SMALL = Cell("trunk", 2, 96)


def tiny_bench(repeats: int = 1, max_tokens: int = 256) -> Bench:
    packed = [packed_path("dense"), packed_path("segments"), auto_path(["dense", "segments"])]
    return Bench(build(TINY), flat_paths("segments"), packed, repeats, max_tokens)


def row(cell: Cell, path: str, seconds: list[float], limit: float = 4.0) -> dict[str, object]:
    about = {"shape": cell.shape, "sharing": cell.sharing, "unique_tokens": cell.unique_tokens}
    return {**about, "limit": limit, "path": path, "seconds": seconds}


def rows_by_hand() -> list[dict[str, object]]:
    small, large = Cell("group", 4, 512), Cell("trunk", 4, 1024)
    times = {"padded": [9.0, 8.0, 1.0], "varlen": [6.0, 6.5, 90.0], "auto": [2.0, 2.0, 2.0]}
    rows = [row(small, name, seconds) for name, seconds in times.items()]
    rows += [row(large, name, seconds) for name, seconds in (times | {"auto": [3.25] * 3}).items()]
    rows.append(row(small, "trl", [5.0, 5.0, 5.0]))
    for dtype, errors in (("float32", (1e-6, 3e-6)), ("float64", (2e-15, 1e-15))):
        rows += [{**row(small, "auto", []), "check": dtype, "grad_rel": e} for e in errors]
    return [{k: v for k, v in one.items() if k != "seconds" or v} for one in rows]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sharing", [1.1, 2, 4, 8])
def test_trees_have_the_tokens_and_the_sharing_asked_for(shape: str, sharing: float) -> None:
    one = grow(Cell(shape, sharing, 2048), VOCAB)
    work = bound([one.tree], SIZES)
    assert work.unique_tokens == 2048
    assert work.sharing_ratio == pytest.approx(sharing, rel=0.01)
    advantages = [credit[0] for credit in one.credit.values()]
    assert sum(advantages) == pytest.approx(0, abs=1e-12) and max(advantages) > 0.1
    counted = sum(
        weight * len(one.tree.nodes[step].action_ids)
        for leaf, weights in one.weights.items()
        for step, weight in zip(one.tree.path(leaf)[1:], weights, strict=True)
    )
    assert counted == pytest.approx(1)


def test_trees_are_the_same_every_time_and_their_leaves_differ_in_length() -> None:
    tree = grow(Cell("group", 4, 512), VOCAB).tree
    assert tree.to_json() == grow(Cell("group", 4, 512), VOCAB).tree.to_json()
    assert len({tree.nodes[leaf].num_tokens for leaf in tree.leaves()}) > 3


def test_too_few_tokens_for_a_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="balanced, sharing 8, 40 tokens: too few tokens for 31"):
        grow(Cell("balanced", 8, 40), VOCAB)


def test_every_sharing_and_every_size_meets_several_shapes() -> None:
    found = cells([2, 4, 8], [512, 1024, 2048, 4096])
    assert len(set(found)) == 12
    for sharing in (2, 4, 8):
        assert {one.shape for one in found if one.sharing == sharing} == set(SHAPES)
    for size in (512, 4096):
        assert {one.shape for one in found if one.unique_tokens == size} == set(SHAPES)


def test_the_model_has_ten_million_parameters() -> None:
    assert ModelSizes.of_config(SCRATCH_10M) == SIZES


def test_every_path_has_the_plain_gradient_and_a_time_for_each_repeat() -> None:
    rows = measure(tiny_bench(repeats=2), SMALL)
    names = ["padded", "varlen", "packed_dense", "packed_segments", "auto"]
    timed = [one for one in rows if "seconds" in one]
    assert [one["path"] for one in timed] == names
    assert all(len(one["seconds"]) == 2 and min(one["seconds"]) > 0 for one in timed)
    for dtype, bar in (("float32", 1e-5), ("float64", 1e-12)):
        found = [one for one in rows if one.get("check") == dtype]
        assert [one["path"] for one in found] == names
        assert max(one["grad_rel"] for one in found) < bar
        assert max(one["loss_rel"] for one in found) < bar


def test_some_tokens_are_clipped_and_none_stands_at_a_bound() -> None:
    one = grow(SMALL, VOCAB)
    model = build(TINY)
    set_old_logps(model, [one])
    parts = split([one], 256)
    [batch] = pack(parts, max_tokens=256)
    from treegrpo.logprobs import token_logps

    log_ratio_E = token_logps(model, batch, 1.0, "dense").detach() - batch.edges.old_logp_E
    distance_E = torch.minimum((log_ratio_E.exp() - 1.2).abs(), (log_ratio_E.exp() - 0.8).abs())
    assert float(distance_E.min()) > 0.05
    assert 0 < int((log_ratio_E.abs() > 0.4).sum()) < len(log_ratio_E) / 4


def test_a_wrong_gradient_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = tiny_bench()
    only = replace(bench, flat=[], packed=[packed_path("dense")])
    true = TreeLayout.mask_B1UU.func
    causal = lambda layout: true(layout).fill_(True).tril()  # noqa: E731 - siblings see each other
    monkeypatch.setattr(TreeLayout, "mask_B1UU", property(causal))
    checks = [one for one in measure(only, SMALL) if "check" in one]
    assert min(one["grad_rel"] for one in checks) > 1e-3


def test_repeats_take_turns_in_being_first() -> None:
    order: list[str] = []

    def timed(name: str) -> float:
        order.append(name)
        return 1.0

    found = interleaved({"a": lambda: timed("a"), "b": lambda: timed("b")}, 3)
    assert "".join(order) == "abbaab" and found == {"a": [1.0] * 3, "b": [1.0] * 3}


def test_efficiency_is_the_speed_up_over_the_faster_flat_path_by_its_limit() -> None:
    small, large = summarise(rows_by_hand())
    assert (small.best_flat, small.speedup, small.efficiency) == (6.5, 3.25, 3.25 / 4)
    assert (large.best_flat, large.speedup, large.efficiency) == (6.5, 2.0, 0.5)


def test_metrics_are_the_worst_over_sizes_and_name_each_size() -> None:
    assert tree_training.flat_metrics(rows_by_hand()) == pytest.approx(
        {
            "efficiency_sharing4_unique512": 3.25 / 4,
            "speedup_sharing4_unique512": 3.25,
            "efficiency_sharing4_unique1024": 0.5,
            "speedup_sharing4_unique1024": 2.0,
            "efficiency_sharing4": 0.5,
            "speedup_sharing4": 2.0,
            "speedup_over_trl_sharing4": 2.5,
            "auto_speedup_worst": 2.0,
            "worst_grad_rel_float32": 3e-6,
            "worst_grad_rel_float64": 2e-15,
        }
    )


def test_the_table_has_a_line_for_each_tree_and_a_dash_for_what_was_not_run() -> None:
    printed = io.StringIO()
    tree_training.show(summarise(rows_by_hand()), Console(width=140, file=printed))
    lines = [line.replace("\u2502", " ").split() for line in printed.getvalue().splitlines()]
    assert ["group", "x4,", "512", "8.000", "6.500"] in [line[:5] for line in lines]
    assert ["2.000", "5.000", "3.25", "4.00", "0.81"] in [line[5:] for line in lines]
    assert ["3.250", "-", "2.00", "4.00", "0.50"] in [line[5:] for line in lines]


def test_pictures_are_drawn(tmp_path: Path) -> None:
    draw(summarise(rows_by_hand()), tmp_path / "a.png")
    draw_limits(tmp_path / "b.png")
    for name in ("a.png", "b.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("share", [0.0, 0.4, 0.9])
def test_the_curve_of_the_limit_is_that_of_real_trees(share: float) -> None:
    tree = Tree("q")
    prompt = round(share * 60)
    tree.add(None, observation_ids=[1] * max(1, prompt))
    for _ in range(4):
        tokens = 60 - max(1, prompt)
        tree.add(0, action_ids=[1] * tokens, action_logps=[-1.0] * tokens)
    real, drawn = bound([tree], SIZES), group_bound(SIZES, 4, 60, share)
    if prompt:
        assert real == drawn
    else:  # a tree has a prompt of one token at least
        assert (drawn.limit, drawn.sharing_ratio) == (1.0, 1.0)


def test_trl_rows_hold_each_leaf_once_and_mask_what_the_environment_said() -> None:
    one = grow(Cell("trunk", 2, 200), VOCAB)
    rows = _trl.trl_rows([one])
    assert len(rows) == len(one.tree.leaves())
    for sent, leaf in zip(rows, one.tree.leaves(), strict=True):
        nodes = [one.tree.nodes[name] for name in one.tree.path(leaf)]
        ids = [token for node in nodes for token in node.action_ids + node.observation_ids]
        assert sent["prompt"] + sent["completion"] == ids
        assert sum(sent["trained"]) == sum(len(node.action_ids) for node in nodes)
        old = zip(sent["old_logps"], sent["trained"], strict=True)
        assert all((logp != 0) == bool(trained) for logp, trained in old)
        assert sent["advantage"] == one.credit[leaf][0]


def test_an_interpreter_without_trl_is_named_with_what_it_said(tmp_path: Path) -> None:
    fails = tmp_path / "python"
    fails.write_text("#!/bin/sh\necho no module named trl >&2\nexit 3\n")
    fails.chmod(0o755)
    (tmp_path / "model").mkdir()
    with (
        pytest.raises(RuntimeError, match=r"(?s)code 3\..*no module named trl"),
        _trl.trl_trainer(fails, build(TINY), tmp_path / "model"),
    ):
        pass


def test_requests_and_answers_go_through_the_process(tmp_path: Path) -> None:
    echo = tmp_path / "python"
    echo.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        "print(json.dumps({'versions': {'trl': '9'}}), flush=True)\n"
        "for line in sys.stdin:\n"
        "    rows = len(json.loads(line)['rows'])\n"
        "    print(json.dumps({'seconds': [rows], 'loss': 1, 'grad_norm': 2}), flush=True)\n"
    )
    echo.chmod(0o755)
    (tmp_path / "model").mkdir()
    with _trl.trl_trainer(echo, build(TINY), tmp_path / "model") as trl:
        assert trl.versions == {"trl": "9"}
        assert trl.train([{}, {}], 10) == {"seconds": 2, "loss": 1, "grad_norm": 2}
    assert trl.process.returncode is not None


def small_plan() -> gpu.GpuPlan:
    return gpu.GpuPlan(
        configs={"tiny": TINY},
        sizes=(128,),
        repeats=2,
        error_tokens=96,
        backends=("dense", "segments"),
        varlen="segments",
        device="cpu",
        compile=False,
    )


def test_the_gpu_part_runs_to_its_metrics_on_any_device() -> None:
    said: list[str] = []
    rows = gpu.measure_all(small_plan(), said.append)
    metrics = gpu.gpu_metrics(rows)
    assert len(said) == len(rows) == 8
    assert metrics["gpu_tiny_unique128_packed_dense_speedup"] > 0
    assert 0 < metrics["gpu_tiny_unique128_packed_segments_block_efficiency"] <= 1
    assert 0.3 < metrics["gpu_tiny_packed_dense_bf16_error_ratio"] < 3


def test_layers_computed_again_keep_the_attention_of_the_forward_pass() -> None:
    model = build(TINY)
    one = grow(SMALL, VOCAB)
    set_old_logps(model, [one])
    norms: list[float] = []
    for recompute in (False, True):
        timer = gpu._timer(model, one, packed_path("dense"), "cpu", recompute=recompute)
        timer()
        norms.append(float(model.get_input_embeddings().weight.grad.norm()))
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)
    assert not model.training and not any(m.gradient_checkpointing for m in model.model.layers)


def test_a_path_that_does_not_fit_into_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(model: object, trees: object, path: object, max_tokens: int) -> float:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(gpu, "train", full)
    rows = list(gpu._size_rows(build(TINY), small_plan(), 96))
    assert len(rows) == 4
    assert {one["missing"] for one in rows} == {
        "out of memory, also when layers are computed again"
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_run_without_a_gpu_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        tree_training.main(["--device", "cuda"])
    assert refused.value.code == 2
    assert "no CUDA device is visible to torch" in capsys.readouterr().err


def test_the_record_has_every_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tree_training, "build_10m", lambda: build(TINY))
    file = tmp_path / "x.json"
    tree_training.main(["--quick", "--json", str(file)])
    record = json.loads(file.read_text())
    wanted = {f"{kind}_sharing{n}" for kind in ("efficiency", "speedup") for n in (2, 4, 8)}
    wanted |= {"worst_grad_rel_float32", "worst_grad_rel_float64", "auto_speedup_worst"}
    assert wanted <= set(record["metrics"])
    assert set(record["not_measured"]) == {"gpu", "trl"}
    assert {"padded", "varlen", "packed_dense", "packed_segments", "auto"} == {
        one["path"] for one in record["rows"]
    }
    assert "trl was not measured: no interpreter with trl given" in capsys.readouterr().out
    assert not file.with_suffix(".png").exists()
