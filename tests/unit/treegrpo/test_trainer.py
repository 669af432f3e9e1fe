"""treegrpo.trainer: what is refused, what is learned, and what a run leaves behind."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.toy_game import ID, save_tiny_model
from treegrpo.checkpoint import CheckpointError, load_checkpoint
from treegrpo.config import TrainConfig, load_config
from treegrpo.engine.base import EngineRefused
from treegrpo.envs.errors import TreegrpoError, UnknownEnv, UnknownOption, UnknownSplit
from treegrpo.learner import UpdateSkipped
from treegrpo.loading import ModelNotFound
from treegrpo.losses import Edges, LossOptions, LossResult, drop_loss, get_loss, loss
from treegrpo.runfolder import RunFolderError, read_rows
from treegrpo.trainer import StepReport, Trainer
from treegrpo.tree import read_trees


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def config_of(model: str, out: Path, /, **changes: Any) -> TrainConfig:
    fields: dict[str, Any] = {
        "model": model, "env": ID, "out": str(out), "steps": 4, "questions": 2, "trunks": 2,
        "forks": 1, "rounds": 1, "max_action_tokens": 3, "max_context_tokens": 200, "lr": 1e-2,
        "checkpoint_every": 10, "threads": 1,
    }  # fmt: skip
    return load_config(base={**fields, **changes})


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [p.detach().clone() for p in trainer.model.parameters()]


def same(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_what_a_run_leaves_behind(model: str, tmp_path: Path) -> None:
    seen: list[StepReport] = []
    trainer = Trainer(config_of(model, tmp_path / "run"))
    rows = trainer.run(on_step=seen.append)
    trainer.close()
    out = tmp_path / "run"
    assert [row["step"] for row in rows] == [0, 1, 2, 3] == [report.step for report in seen]
    assert read_rows(out / "metrics.jsonl") == rows
    timings = read_rows(out / "timings.jsonl")
    assert [row["step"] for row in timings] == [0, 1, 2, 3]
    assert all(row["total"] >= row["training"] > 0 for row in timings)
    assert [tree.step for tree in read_trees(out / "trees.jsonl")] == [3] * 4, "of the last step"
    assert [p.name for p in (out / "checkpoint").iterdir()] == ["step-000004"]
    saved = Trainer(config_of(str(out / "model"), tmp_path / "next"))
    assert same(weights(saved), weights(trainer))
    assert rows[-1]["sampled_tokens_total"] == sum(row["sampled_tokens"] for row in rows)
    assert rows[0]["leaves"] + sum(rows[0]["failures"].values()) == 2 * 2 * 2
    assert rows[0]["max_abs_log_ratio"] < 1e-5
    assert trainer.engine.live_contexts == trainer.pool.lent == 0


def test_the_learning_rate_told_is_the_one_used(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(config_of(model, tmp_path / "run", warmup_steps=2, steps=6))
    used: list[float] = []
    step = torch.optim.AdamW.step

    def spy(self: Any, *args: Any, **keywords: Any) -> Any:
        used.append(self.param_groups[0]["lr"])
        return step(self, *args, **keywords)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    rows = trainer.run()
    assert [row["learning_rate"] for row in rows] == pytest.approx(
        [0.005, 0.01, 0.01, 0.0075, 0.005, 0.0025]
    )
    assert used == [row["learning_rate"] for row in rows if "loss" in row] and len(used) >= 3


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"loss_options": {"kl_beta": 0.1}, "epochs": 2, "minibatches": 2},
        {
            "start": "archive",
            "start_options": {"share": 0.9},
            "noise": "shared",
            "expansion": "entropy",
            "expansion_options": {"base": 0.9},
            "env_kwargs": {"turns": 5},
            "questions": 6,
        },
        {"expansion": "uniform_depth", "max_sampled_tokens_per_question": 40},
        {"engine": "hf", "rollout_options": {"barriers": True, "threads": 2}},
    ],
    ids=["plain", "kl", "archive", "budget", "hf"],
)
def test_a_run_in_pieces_equals_a_run_at_once(
    model: str, tmp_path: Path, changes: dict[str, Any]
) -> None:
    whole = Trainer(config_of(model, tmp_path / "whole", steps=6, checkpoint_every=4, **changes))
    rows = whole.run()
    parts = config_of(model, tmp_path / "parts", steps=6, checkpoint_every=4, **changes)
    first = Trainer(parts)
    found = first.run(steps=1) + first.run(steps=2)
    second = Trainer(parts, resume=True)
    found += second.run(steps=0) + second.run(steps=3)
    assert found == rows and same(weights(second), weights(whole))
    for name in ("metrics.jsonl", "trees.jsonl"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    again = Trainer(parts, resume=True)
    assert again.run() == [] and same(weights(again), weights(whole)), "it is done"


def test_archived_starts_are_context_and_their_success_is_not_counted(
    model: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"start": "archive", "start_options": {"share": 0.9}}
    config = config_of(
        model, tmp_path / "run", noise="shared", questions=8, save_trees=8, checkpoint_every=1,
        env_kwargs={"turns": 5}, **options,
    )  # fmt: skip
    rows = Trainer(config).run()
    trees = list(read_trees(tmp_path / "run" / "trees.jsonl"))
    archived = [tree for tree in trees if tree.start == "archive"]
    assert archived and all(tree.start_turns > 0 for tree in archived)
    assert {tree.start for tree in trees} == {"archive", "reset"}
    for tree in archived:
        assert not tree.nodes[0].action_ids, "what came before is the prompt, and is not trained"
        assert len(tree.nodes[0].observation_ids) > min(
            len(one.nodes[0].observation_ids) for one in trees if one.start == "reset"
        )
    last = [tree for tree in trees if tree.step == 3]
    resets = [tree for tree in last if tree.start == "reset"]
    counted = sum(len(tree.scored_leaves()) for tree in resets)
    assert rows[-1]["reset_leaves"] == counted
    assert rows[-1]["leaves"] == sum(len(tree.scored_leaves()) for tree in last)


def test_the_time_line_of_the_first_steps_is_written(model: str, tmp_path: Path) -> None:
    config = config_of(model, tmp_path / "run", rollout_options={"trace_steps": 2})
    Trainer(config).run()
    files = sorted(path.name for path in (tmp_path / "run").glob("trace-*.json"))
    assert files == ["trace-000000.json", "trace-000001.json"]
    events = json.loads((tmp_path / "run" / files[0]).read_text())["traceEvents"]
    spans = {event["name"] for event in events if event["ph"] == "X"}
    assert spans - {"close"} == {"grow trees", "train", "decode", "reset", "fork", "step"}


def test_budgets_of_a_step_are_hard(model: str, tmp_path: Path) -> None:
    limits = {"max_sampled_tokens_per_step": 20, "max_tool_calls_per_step": 3}
    config = config_of(model, tmp_path / "run", rollout_options=limits)
    rows = Trainer(config).run()
    assert all(0 < row["sampled_tokens"] <= 20 and row["tool_calls"] <= 3 for row in rows)


def test_steps_given_to_run_are_the_length_of_a_run_that_has_none(
    model: str, tmp_path: Path
) -> None:
    given = config_of(model, tmp_path / "a", steps=2).model_dump(exclude_unset=True)
    del given["steps"]
    open_ended = Trainer(**given)
    rows = open_ended.run(steps=2)
    assert rows == Trainer(config_of(model, tmp_path / "b", steps=2)).run()
    assert json.loads((tmp_path / "a" / "config.json").read_text())["config"]["steps"] == 2
    assert Trainer(**given, resume=True).run() == [], "the same code resumes"
    with pytest.raises(TreegrpoError, match=r"run\(steps=1\) asked for, but 0 of 2 steps"):
        open_ended.run(steps=1)


def test_a_run_killed_before_its_first_checkpoint_resumes_from_the_start(
    model: str, tmp_path: Path
) -> None:
    config = config_of(model, tmp_path / "run")
    rows = Trainer(config_of(model, tmp_path / "whole")).run()

    def stop(report: StepReport) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Trainer(config).run(on_step=stop)
    assert not (tmp_path / "run" / "checkpoint").exists()
    with pytest.raises(RunFolderError, match="would be overwritten"):
        Trainer(config)
    assert Trainer(config, resume=True).run() == rows


def test_the_budget_of_a_run_is_never_exceeded(model: str, tmp_path: Path) -> None:
    trainer = Trainer(config_of(model, tmp_path / "run", steps=50, max_sampled_tokens=100))
    rows = trainer.run()
    assert 100 - 3 < rows[-1]["sampled_tokens_total"] <= 100 and len(rows) < 50
    assert rows[-1]["end_reasons"].get("budget", 0) + rows[-1]["unstarted"].get("budget", 0) > 0
    assert list(read_trees(tmp_path / "run" / "trees.jsonl")), "the last step saves its trees"
    assert trainer.run() == []


def test_a_step_whose_environments_all_fail_is_a_step(model: str, tmp_path: Path) -> None:
    config = config_of(model, tmp_path / "run", env_kwargs={"broken_resets": 100})
    trainer = Trainer(config)
    before = weights(trainer)
    rows = trainer.run()
    assert [row["failures"] for row in rows] == [{"environment": 2}] * 4
    assert [row["learning_rate"] for row in rows] == pytest.approx([0.01, 0.0075, 0.005, 0.0025])
    assert all(row["leaves"] == 0 == row["trained_leaves"] for row in rows)
    assert same(before, weights(trainer)), "nothing was learned from nothing"
    told = read_rows(tmp_path / "run" / "failures.jsonl")
    assert {row["message"] for row in told} == {
        "ValueError: no such colour: the environment's own ValueError"
    }


def test_some_failing_resets_do_not_stop_a_run(model: str, tmp_path: Path) -> None:
    config = config_of(
        model, tmp_path / "run", env_kwargs={"broken_resets": 50}, questions=6, minibatches=3
    )
    rows = Trainer(config).run()
    assert 0 < sum(row["failures"].get("environment", 0) for row in rows) < 24
    assert sum(row["trained_leaves"] for row in rows) > 0


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_an_update_that_is_not_finite_is_skipped_counted_and_kept(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    def nan(logp_E: torch.Tensor, edges: Edges, options: LossOptions) -> LossResult:
        result = get_loss("grpo")(logp_E, edges, options)
        return LossResult(result.loss * float("nan"), result.metrics)

    out, name = tmp_path / "run", "grpo"
    if what == "loss":
        name = "nan"
        loss(name)(nan)
    else:
        nan_norm = torch.tensor(float("nan"))
        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: nan_norm)
    try:
        trainer = Trainer(config_of(model, out, loss=name, checkpoint_every=2))
        before = weights(trainer)
        with pytest.warns(UpdateSkipped, match="weights are as before. The batch is in"):
            rows = trainer.run()
    finally:
        if what == "loss":
            drop_loss(name)
    skipped = int(sum(row["skipped_updates"] for row in rows))
    assert skipped >= 1
    assert all(math.isfinite(v) for row in rows for v in row.values() if isinstance(v, float))
    assert same(before, weights(trainer))
    files = sorted((out / "bad_batches").iterdir())
    assert len(files) == skipped
    record = torch.load(files[0], weights_only=True)
    assert record["weight_version"] == 0 and not math.isfinite(record["loss"] + record["grad_norm"])
    assert record["batches"][0]["ids_BU"].numel() > 0
    _, tensors = load_checkpoint(out / "checkpoint")
    kept = [tensors["model"][key] for key, _ in trainer.model.named_parameters()]
    assert same(kept, before), "the checkpoint holds the last good weights"


@pytest.mark.parametrize("attention", ["segments", "dense", "flat"])
def test_every_way_of_computing_learns_the_same(model: str, tmp_path: Path, attention: str) -> None:
    auto = Trainer(config_of(model, tmp_path / "auto", steps=1))
    rows = auto.run()
    other = Trainer(config_of(model, tmp_path / "other", steps=1, attention=attention))
    assert other.run()[0]["packed_updates"] == float(attention != "flat")
    assert rows[0]["trained_leaves"] > 0
    for one, two in zip(weights(auto), weights(other), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


def test_kl_to_the_reference_is_zero_at_first_and_then_grows(model: str, tmp_path: Path) -> None:
    trainer = Trainer(
        config_of(model, tmp_path / "run", loss_options={"kl_beta": 0.05}, lr_schedule="constant")
    )
    rows = trainer.run()
    assert rows[0]["kl_reference"] == pytest.approx(0, abs=1e-10)
    assert rows[-1]["kl_reference"] > 1e-6
    resumed = Trainer(trainer.config, resume=True)
    start = Trainer(config_of(model, tmp_path / "start"))
    reference = resumed._learner._reference
    assert reference is not None
    assert same([*reference.parameters()], weights(start)), "not of the checkpoint"


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"env": "tests/Gmae-v0"}, UnknownEnv, "Gmae"),
        ({"split": "dev"}, UnknownSplit, "dev"),
        ({"credit": "grup"}, UnknownOption, "group"),
        ({"loss": "grop"}, UnknownOption, "grpo"),
        ({"loss": "sft"}, TreegrpoError, "imitate failures"),
        ({"loss": "step_dpo", "weighting": "path"}, TreegrpoError, "^weighting asked for with"),
        ({"normaliser": "mean"}, UnknownOption, "token_mean"),
        ({"weighting": "leav"}, UnknownOption, "leaf"),
        ({"importance": "learnt"}, UnknownOption, "learned"),
        ({"attention": "dens"}, UnknownOption, "dense"),
        ({"loss": "reinforce", "loss_options": {"clip_low": 0.1}}, TreegrpoError, "no effect"),
        ({"env_kwargs": {"turn": 1}}, UnknownOption, "turns"),
        ({"difficulty": 9}, TreegrpoError, "9"),
        ({"model": "./nowhere"}, ModelNotFound, "nowhere"),
        ({"max_context_tokens": 8}, TreegrpoError, "a prompt has"),
        ({"engine": "nativ"}, UnknownOption, "'native'"),
        ({"engine": "hf", "engine_options": {"kv_tokens": 9}}, UnknownOption, "kv_tokens"),
        ({"engine_options": {"kv_tokens": 16}}, EngineRefused, "kv_tokens"),
        ({"engine": "vllm", "expansion": "entropy"}, TreegrpoError, "entropy_ids"),
        (
            {"engine": "vllm", "engine_options": {"url": "http://127.0.0.1:9"}},
            EngineRefused,
            "127.0.0.1:9",
        ),
        (
            {"max_sampled_tokens_per_question": 2},
            TreegrpoError,
            "max_sampled_tokens_per_question: 2 does not let one action",
        ),
        ({"max_sampled_tokens": 2}, TreegrpoError, "max_sampled_tokens: 2 does not let"),
        (
            {"rollout_options": {"max_sampled_tokens_per_step": 2}},
            TreegrpoError,
            "max_sampled_tokens_per_step: 2 does not let",
        ),
        ({"expansion": "entrpy"}, UnknownOption, "entropy"),
        ({"expansion": "full", "rounds": 2}, TreegrpoError, "knows no rounds"),
        ({"expansion": "spread", "forks": 0, "rounds": 0}, TreegrpoError, "plain chains"),
        ({"start": "orcale_prefix"}, UnknownOption, "oracle_prefix"),
        ({"start": "archive", "start_options": {"share": 2.0}}, UnknownOption, "share"),
        ({"stop_at_tool_call": True}, TreegrpoError, "stop_at_tool_call"),
    ],
)
def test_what_is_refused_leaves_no_folder(
    model: str, tmp_path: Path, changes: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        Trainer(config_of(model, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_resumes_that_are_refused(model: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        Trainer(config_of(model, tmp_path / "run"), resume=True)
    assert not (tmp_path / "run").exists()
    Trainer(config_of(model, tmp_path / "run")).run(steps=1)
    with pytest.raises(CheckpointError, match=r"lr was 0\.01, now 0\.02"):
        Trainer(config_of(model, tmp_path / "run", lr=2e-2), resume=True)
    Trainer(config_of(model, tmp_path / "run", checkpoint_every=2), resume=True).run(steps=1)
    save_tiny_model(Path(model).parent / "wide", width=64)
    record = tmp_path / "run" / "checkpoint" / "step-000002" / "state.json"
    wide = str(Path(model).parent / "wide")
    state = json.loads(record.read_text())
    state["settings"]["model"] = wide
    record.write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match="does not fit the model"):
        Trainer(config_of(wide, tmp_path / "run"), resume=True)


@pytest.mark.parametrize(
    "shape", [{"trunks": 3, "forks": 2, "credit": "intra_inter"},
              {"trunks": 9, "forks": 0, "rounds": 0, "credit": "group"}], ids=["tree", "chain"],
)  # fmt: skip
def test_a_bandit_is_learned(model: str, tmp_path: Path, shape: dict[str, Any]) -> None:
    rows = Trainer(
        config_of(
            model, tmp_path / "run", steps=30, questions=4, max_action_tokens=2, lr=1e-2,
            env_kwargs={"turns": 2}, **shape,
        )
    ).run()  # fmt: skip
    assert rows[0]["reward_mean"] < 0.3
    assert sum(row["reward_mean"] for row in rows[-3:]) / 3 > 0.9
