"""treegrpo.learner on real rollouts: the tokens, log-probs and weights that reach the loss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM

from tests.fakes_models import tiny_model
from tests.toy_game import ID, ScriptedEngine, random_words, scheduler
from treegrpo.cli.train import step_line
from treegrpo.config import load_config
from treegrpo.credit import get_credit
from treegrpo.divergence import MAX_FAILED_STEPS, Diverged, Watch
from treegrpo.edges import Edges
from treegrpo.engine.hf import HFEngine
from treegrpo.envs.errors import TreegrpoError
from treegrpo.envs.registry import make
from treegrpo.gradients import StepPair, accumulate
from treegrpo.learner import (
    Learner,
    PackingRefused,
    ScoredTree,
    UpdateSkipped,
    step_pairs,
    weigh,
)
from treegrpo.losses import LossOptions, LossResult, drop_loss, get_loss, loss, loss_names
from treegrpo.metrics import update_metrics
from treegrpo.pack import pack, split
from treegrpo.rollout import Question
from treegrpo.selfcheck import supported
from treegrpo.trainer import StepReport
from treegrpo.tree import Tree
from treegrpo.weighting import drop_weighting, weighting


def sampled(model: Any, temperature: float = 1.0) -> list[list[Tree]]:
    """Trees of a real model: its tokens and log-probs, hardly ever a success."""
    made, _ = scheduler(
        HFEngine(model, max_batch_rows=3), make(ID), rounds=2,
        max_context_tokens=400, temperature=temperature,
    )  # fmt: skip
    return made.grow([Question(seed, {"split": "train"}) for seed in range(3)]).questions


def scripted() -> list[list[Tree]]:
    """Trees of a script that succeeds and fails; log-probs are made up."""
    made, _ = scheduler(ScriptedEngine(random_words(["red", "green", "stop"])), make(ID), rounds=2)
    return made.grow([Question(seed, {"split": "train"}) for seed in range(3)]).questions


def scored(questions: list[list[Tree]], credit: str = "intra_inter") -> list[list[ScoredTree]]:
    estimator = get_credit(credit)
    return [list(zip(trees, estimator(trees), strict=True)) for trees in questions]


def learner(model: Any, tmp_path: Path, **changes: Any) -> Learner:
    fields = {"model": "tiny", "env": ID, "max_context_tokens": 400, "lr": 1e-3, **changes}
    return Learner(model, load_config(base=fields), lambda record: str(tmp_path / "bad.pt"))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("attention", ["segments", "dense", "flat"])
def test_trainer_and_sampler_agree_on_a_real_tree(
    tmp_path: Path, temperature: float, attention: str
) -> None:
    """Shared prompts, kept and forked KV, packing: all within 1e-5 of one another."""
    model = tiny_model(vocab_size=128)
    questions = scored(sampled(model, temperature))
    one = learner(
        model, tmp_path, attention=attention, temperature=temperature,
        loss_options={"kl_beta": 0.1},
    )  # fmt: skip
    plan = one.plan(weigh(questions, one.config))
    with torch.no_grad():
        batches = one.batches(plan)
        logps = [one.log_probs(model, plan.attention)(batch) for batch in batches]
    gaps = [
        float((logp_E - batch.edges.old_logp_E).abs().max())
        for logp_E, batch in zip(logps, batches, strict=True)
    ]
    assert max(gaps) < 1e-5
    assert float(torch.cat(logps).std()) > 0.5, "a wrong mask or position would show"


def test_observation_tokens_carry_no_loss() -> None:
    """Every target is a sampled token, and stands where it was sampled."""
    questions = scored(scripted())
    config = load_config(base={"model": "m", "env": ID})
    weighted = weigh(questions, config)
    batches = pack(split(weighted, 4096, need_all=True), max_tokens=4096)
    targets = sorted(int(t) for batch in batches for t in batch.target_E)
    sampled = sorted(t for one in weighted for node in one.tree.nodes for t in node.action_ids)
    assert targets == sampled, "each sampled token once, and no other"


def test_leaves_whose_environment_failed_are_left_out() -> None:
    questions = scripted()
    for tree in questions[0]:
        tree.nodes[tree.leaves()[0]].failure = "environment"
    config = load_config(base={"model": "m", "env": ID, "normaliser": "sequence_mean"})
    weighted = weigh(scored(questions), config)
    for one in weighted:
        assert set(one.weights) <= set(one.tree.scored_leaves())
    total = sum(
        weight * len(one.tree.nodes[step].action_ids)
        for one in weighted
        for leaf, row in one.weights.items()
        for step, weight in zip(one.tree.path(leaf)[1:], row, strict=True)
    )
    assert total == pytest.approx(1, abs=1e-12)
    assert len(questions[0][0].scored_leaves()) < len(questions[0][0].leaves())


@pytest.mark.parametrize("name", [name for name in loss_names() if name != "sft"])
def test_every_loss_learns_from_real_rollouts(tmp_path: Path, name: str) -> None:
    model = tiny_model(vocab_size=128)
    questions = scored(scripted())
    before = [p.detach().clone() for p in model.parameters()]
    one = learner(model, tmp_path, loss=name)
    [metrics] = one.learn(questions, 1e-3)
    assert math.isfinite(metrics["loss"]) and metrics["grad_norm"] > 0
    assert one.updates == 1 and one.flat_seconds > 0 and one.compute_seconds > 0
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("correction", ["tis", "icepop", "sequence_mask"])
def test_a_correction_takes_the_ratio_to_the_trainers_own_log_probs(
    tmp_path: Path, correction: str
) -> None:
    model = tiny_model(vocab_size=128)
    one = learner(model, tmp_path, loss_options={"correction": correction})
    [metrics] = one.learn(scored(scripted()), 1e-3)
    on_policy = 0 if correction == "sequence_mask" else 1  # no leaf is left
    assert metrics["ratio_mean"] == pytest.approx(on_policy, abs=1e-5)
    assert metrics["clip_share"] == 0
    assert metrics["max_abs_log_ratio"] > 0.1, "the gap to the made-up log-probs is told"
    if correction != "tis":
        assert metrics["kept_share"] < 1, "some of them are far outside the band"


def test_pairs_of_siblings_are_numbered_through_all_questions() -> None:
    questions = scored(scripted())
    trees = [tree for question in questions for tree, _ in question]
    pairs = step_pairs(questions)
    assert pairs and sum(weight for *_, weight in pairs) == pytest.approx(1)
    for (tree_a, better), (tree_b, worse), _ in pairs:
        a, b = trees[tree_a], trees[tree_b]
        assert a.question_id == b.question_id
        value = a.value(better), b.value(worse)
        assert value[0] is not None and value[1] is not None and value[0] > value[1]


def test_a_step_without_sampled_tokens_is_in_no_pair() -> None:
    tree = Tree("q")
    tree.add(None, observation_ids=[1])
    tree.add(0, action_ids=[2], action_logps=[-1.0], reward=1.0, terminated=True)
    tree.add(0, reward=0.0, terminated=True)
    tree.add(0, action_ids=[3], action_logps=[-1.0], reward=0.5, terminated=True)
    assert step_pairs([scored([[tree]])[0]]) == [((0, 1), (0, 3), 1.0)]


def test_a_model_with_state_of_its_own_is_trained_flat_and_says_so(tmp_path: Path) -> None:
    config = MambaConfig(vocab_size=128, hidden_size=16, num_hidden_layers=1, state_size=4)
    model = MambaForCausalLM(config).eval()
    with pytest.warns(PackingRefused, match="keep state that siblings would share"):
        one = learner(model, tmp_path)
    assert one.plan([]).attention == "flat"
    with pytest.raises(TreegrpoError, match="attention=dense asked for, but its"):
        learner(model, tmp_path, attention="dense")


def test_tokens_beyond_the_models_context_are_refused(tmp_path: Path) -> None:
    tree = Tree("long")
    tree.add(None, observation_ids=[1] * 510)
    tree.add(0, action_ids=[2] * 3, action_logps=[-1.0] * 3, terminated=True)
    one = learner(tiny_model(vocab_size=128), tmp_path, max_context_tokens=4096)
    with pytest.raises(TreegrpoError, match="path has 513 tokens and the model 512 positions"):
        one.learn([[(tree, {1: [1.0]})]], 1e-3)


def test_an_episode_that_no_batch_can_hold_is_refused() -> None:
    with pytest.raises(TreegrpoError, match="micro_batch_tokens: 100 cannot hold an episode"):
        load_config(base={"model": "m", "env": ID, "micro_batch_tokens": 100})


def test_where_no_sibling_is_better_nothing_is_preferred(tmp_path: Path) -> None:
    """No step of the optimiser either: it would decay the weights."""
    questions = scripted()
    for node in (node for trees in questions for tree in trees for node in tree.nodes):
        node.reward = 0.0
    model = tiny_model(vocab_size=128)
    before = [p.detach().clone() for p in model.parameters()]
    one = learner(model, tmp_path, loss="step_dpo", weight_decay=0.1)
    assert one.learn(scored(questions), 1e-3) == [{}] and one.updates == 0
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_loss_of_ones_own_that_is_no_policy_loss_learns_and_is_told(tmp_path: Path) -> None:
    """Its metrics are its own: none is needed to say what a step did."""

    @loss("likelihood", is_policy=False)
    def likelihood(logp_E: torch.Tensor, edges: Edges, options: LossOptions) -> LossResult:
        return LossResult(-(edges.weight_E * logp_E).sum(), {})

    model = tiny_model(vocab_size=128)
    before = [p.detach().clone() for p in model.parameters()]
    try:
        one = learner(model, tmp_path, loss=likelihood.name)
        updates = one.learn(scored(scripted()), 1e-3)
    finally:
        drop_loss(likelihood.name)
    assert updates[0]["loss"] > 0 and "clip_share" not in updates[0] and one.updates == 1
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    metrics = {"success_rate": 0.25, "reset_leaves": 4, "failures": {}, **update_metrics(updates)}
    seconds = {"compute": one.compute_seconds, "compute_flat_estimate": one.flat_seconds}
    line = step_line(StepReport(0, 1, metrics, seconds))
    assert "step 1/1  success 0.25" in line and "clipped 0.0%" in line


@pytest.mark.parametrize("minibatches", [1, 3])
def test_the_gap_to_the_sampler_is_told_before_the_policy_moves(
    tmp_path: Path, minibatches: int
) -> None:
    one = learner(tiny_model(vocab_size=128), tmp_path, epochs=2, minibatches=minibatches)
    first, *later = one.learn(scored(scripted()), 1e-3)
    assert first["max_abs_log_ratio"] > 0 and len(later) == 2 * minibatches - 1
    assert later[-1]["loss"] and not any("max_abs_log_ratio" in update for update in later)


def test_a_model_with_frozen_embeddings_is_trained_packed(tmp_path: Path) -> None:
    model = tiny_model(vocab_size=128)
    frozen = model.get_input_embeddings().weight
    assert isinstance(frozen, torch.Tensor)
    frozen.requires_grad_(False)
    found = supported(model, ["segments"], 400)
    assert found.backends == ["segments"] and not found.reasons
    before = frozen.clone()
    [metrics] = learner(model, tmp_path, attention="segments").learn(scored(scripted()), 1e-3)
    assert metrics["grad_norm"] > 0 and torch.equal(frozen, before)


def test_a_pair_with_a_step_in_no_batch_is_refused() -> None:
    config = load_config(base={"model": "m", "env": ID})
    parts = split(weigh(scored(scripted()), config), 4096, need_all=True)
    batches = pack(parts, max_tokens=4096)
    pair: StepPair = ((0, 1), (9, 7), 1.0)
    logps = {id(one): torch.zeros_like(one.edges.old_logp_E, requires_grad=True) for one in batches}
    with pytest.raises(TreegrpoError, match=r"of the pair \(0, 1\), \(9, 7\) a step is in no"):
        accumulate(batches, lambda b: logps[id(b)], get_loss("step_dpo"), LossOptions(), [pair])


@pytest.mark.parametrize(("rate", "words"), [(1e3, "e\\+0"), (1e30, "to inf")])
def test_an_update_that_ruins_the_weights_ends_the_run(
    tmp_path: Path, rate: float, words: str
) -> None:
    kept: list[dict[str, Any]] = []
    config = load_config(base={"model": "tiny", "env": ID, "max_context_tokens": 400})
    one = Learner(
        tiny_model(vocab_size=128), config, lambda record: kept.append(record) or "bad.pt"
    )
    with pytest.raises(Diverged, match=rf"rate of .*the norm of the weights .*{words}.*bad\.pt"):
        one.learn(scored(scripted()), rate)
    assert math.isfinite(kept[0]["loss"]) and kept[0]["batches"][0]["ids_BU"].numel() > 0


def test_weights_that_are_not_finite_are_refused_before_the_run(tmp_path: Path) -> None:
    model = tiny_model(vocab_size=128)
    with torch.no_grad():
        next(model.parameters())[0, 0] = float("nan")
    with pytest.raises(TreegrpoError, match="Training 'tiny' asked for, but the norm of its w"):
        learner(model, tmp_path)


@pytest.fixture
def broken_loss() -> Iterator[str]:
    @loss("broken")
    def broken(logp_E: torch.Tensor, edges: Edges, options: LossOptions) -> LossResult:
        return LossResult((edges.weight_E * logp_E).sum() * float("nan"), {})

    yield broken.name
    drop_loss(broken.name)


def test_a_run_in_which_no_update_can_be_made_ends(tmp_path: Path, broken_loss: str) -> None:
    one, questions = learner(tiny_model(vocab_size=128), tmp_path, loss=broken_loss), scripted()

    def go_on() -> None:
        for _ in range(MAX_FAILED_STEPS - 1):
            assert one.learn(scored(questions), 1e-3) == [{"skipped_updates": 1.0}]
        assert one.learn([], 1e-3) == [{}], "a step that teaches nothing does not count"
        with pytest.raises(Diverged, match=f"in the last {MAX_FAILED_STEPS} steps no update could"):
            one.learn(scored(questions), 1e-3)

    with pytest.warns(UpdateSkipped, match="log-probs are finite, so look at loss 'broken'"):
        go_on()


def test_one_update_that_is_made_ends_the_count() -> None:
    watch = Watch(tiny_model(vocab_size=128), "tiny")
    failed: list[dict[str, float]] = [{"skipped_updates": 1.0}, {}]
    for _ in range(3):
        for _ in range(MAX_FAILED_STEPS - 1):
            watch.step(failed)
        watch.step([*failed, {"loss": 0.5}])
    for _ in range(MAX_FAILED_STEPS - 1):
        watch.step(failed)
    with pytest.raises(Diverged):
        watch.step(failed)


def test_log_probs_that_are_not_finite_are_blamed_on_the_model(tmp_path: Path) -> None:
    model = tiny_model(vocab_size=128)
    one = learner(model, tmp_path)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.warns(UpdateSkipped, match="model's log-probs are not finite: look at its weights"):
        one.learn(scored(scripted()), 1e-3)


@pytest.mark.parametrize("advantage", [1e39, -1e13, float("nan"), float("inf")])
def test_advantages_that_overflow_are_refused_by_the_name_of_their_credit(
    tmp_path: Path, advantage: float
) -> None:
    questions = scored(scripted())
    tree, credit = questions[0][0]
    leaf = tree.leaves()[-1]
    questions[0][0] = (tree, {**credit, leaf: [advantage] * len(credit[leaf])})
    one = learner(tiny_model(vocab_size=128), tmp_path)
    with pytest.raises(
        TreegrpoError,
        match=rf"^Credit 'intra_inter' times importance 'uniform' .*leaf {leaf} of tree 0 ",
    ):
        one.learn(questions, 1e-3)


def test_a_weighting_that_raises_is_named(tmp_path: Path) -> None:
    @weighting("torn")
    def torn(question: Any) -> Any:
        return question[99]

    one = learner(tiny_model(vocab_size=128), tmp_path, weighting="torn")
    try:
        with pytest.raises(TreegrpoError, match=r"Weighting 'torn' raised IndexError at test_lear"):
            one.learn(scored(scripted()), 1e-3)
    finally:
        drop_weighting("torn")


def test_chains_have_preferences_between_their_first_steps(tmp_path: Path) -> None:
    """All trees of a question begin in one state, so step_dpo learns without any fork."""
    engine = ScriptedEngine(random_words(["red", "green", "stop"]))
    made, _ = scheduler(engine, make(ID), rounds=0, forks=0, trunks=4)
    grown = made.grow([Question(seed, {"split": "train"}) for seed in range(3)]).questions
    pairs = step_pairs(scored(grown))
    assert pairs and all(better == worse == 1 for (_, better), (_, worse), _ in pairs)
    one = learner(tiny_model(vocab_size=128), tmp_path, loss="step_dpo", forks=0, rounds=0)
    assert one.learn(scored(grown), 1e-3)[0]["grad_norm"] > 0
