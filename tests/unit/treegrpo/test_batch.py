"""treegrpo.batch: the ids that were sampled are trained, once per leaf, and nothing else is."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from tests.fakes_models import tiny_model
from tests.toy_game import ID, ScriptedEngine, random_words, scheduler
from treegrpo.batch import FlatBatch, flat_batch, token_logps
from treegrpo.credit import Credit, get_credit
from treegrpo.engine.hf import HFEngine
from treegrpo.envs.errors import TreegrpoError
from treegrpo.envs.registry import make
from treegrpo.losses import LossOptions, get_loss
from treegrpo.rollout import Question
from treegrpo.tree import Tree

CPU = torch.device("cpu")
OPTIONS = LossOptions(clip_low=0.1, clip_high=0.3)
NORMALISERS = ["token_mean", "sequence_mean"]


class Causal(torch.nn.Module):
    """A causal model that is exact in float64; the library's norms compute in float32."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(128, 16)
        self.query, self.head = torch.nn.Linear(16, 16), torch.nn.Linear(16, 128)

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        x_BTD = self.embedding(input_ids)
        q, k, v = self.query(x_BTD)[:, None], x_BTD[:, None], x_BTD[:, None]
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return type("Output", (), {"logits": self.head(torch.tanh(x_BTD + mixed[:, 0]))})


def grown(words: Sequence[str] = ("red", "green", "stop"), **changes: Any) -> list[list[Tree]]:
    made, _ = scheduler(ScriptedEngine(random_words(words)), make(ID), **changes)
    return made.grow([Question(seed, {"split": "train"}) for seed in range(3)]).questions


def scored(questions: list[list[Tree]], credit: str = "group") -> list[tuple[Tree, Credit]]:
    return [
        pair for trees in questions for pair in zip(trees, get_credit(credit)(trees), strict=True)
    ]


def loss_and_gradients(
    batch: FlatBatch, model: torch.nn.Module, max_tokens: int, dtype: torch.dtype
) -> tuple[float, list[torch.Tensor]]:
    model.zero_grad()
    total = 0.0
    for micro in batch.micro_batches(max_tokens, CPU, need_all=True, dtype=dtype):
        result = get_loss("grpo")(token_logps(model, micro, 0.8), micro.edges, OPTIONS)
        result.loss.backward()
        total += float(result.loss.detach())
    return total, [p.grad.clone() for p in model.parameters() if p.grad is not None]


def assert_close(one: list[torch.Tensor], two: list[torch.Tensor], bound: float) -> None:
    scale = max(float(gradient.abs().max()) for gradient in one)
    gap = max(float((a - b).abs().max()) for a, b in zip(one, two, strict=True))
    assert scale > 1e-4 and gap <= bound * scale


def naive_chain_grpo(trees: list[Tree], model: torch.nn.Module) -> torch.Tensor:
    """Return plain GRPO of one question's chains, written out row by row, token by token."""
    rewards = np.array([sum(node.reward for node in tree.nodes) for tree in trees])
    advantages = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-6)
    total, count = torch.zeros((), dtype=torch.float64), 0
    for tree, advantage in zip(trees, advantages, strict=True):
        context: list[int] = []
        for node in tree.nodes:
            for token, old in zip(node.action_ids, node.action_logps, strict=True):
                logits = model(input_ids=torch.tensor([context])).logits[0, -1] / 0.8
                ratio = (torch.log_softmax(logits, -1)[token] - old).exp()
                clipped = ratio.clamp(1 - 0.1, 1 + 0.3)
                total = total - torch.minimum(ratio * advantage, clipped * advantage)
                count += 1
                context.append(token)
            context += node.observation_ids
    return total / count


def test_a_forest_of_chains_is_plain_grpo() -> None:
    made, _ = scheduler(
        ScriptedEngine(random_words(["red", "green"])), make(ID, turns=2),
        trunks=3, forks=0, rounds=0,
    )  # fmt: skip
    [trees] = made.grow([Question(5, {"split": "train"})]).questions
    model = Causal().double()
    loss = naive_chain_grpo(trees, model)
    loss.backward()
    expected = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    batch = flat_batch(scored([trees]), "token_mean")
    found, gradients = loss_and_gradients(batch, model, 10_000, torch.float64)
    assert found == pytest.approx(float(loss.detach()), abs=1e-10) and abs(found) > 1e-3
    assert_close(expected, gradients, 1e-10)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_micro_batches_change_nothing(dtype: torch.dtype, bound: float) -> None:
    batch = flat_batch(scored(grown()), "sequence_mean")
    model = Causal().to(dtype)
    whole = loss_and_gradients(batch, model, 10**6, dtype)
    for max_tokens in (1, 100, 230):
        parts = loss_and_gradients(batch, model, max_tokens, dtype)
        assert parts[0] == pytest.approx(whole[0], abs=bound)
        assert_close(whole[1], parts[1], bound)


def test_micro_batches_hold_every_row_once_and_stay_in_bounds() -> None:
    batch = flat_batch(scored(grown()), "token_mean")
    longest = max(len(row.ids) for row in batch.rows)
    micros = list(batch.micro_batches(2 * longest, CPU, need_all=True))
    assert sum(len(micro.ids_BT) for micro in micros) == len(batch.rows)
    assert all(micro.ids_BT.numel() <= 2 * longest for micro in micros) and len(micros) > 2
    trained = list(batch.micro_batches(10**6, CPU, need_all=False))
    assert sum(len(m.ids_BT) for m in trained) == sum(row.has_gradient for row in batch.rows)


@pytest.mark.parametrize("normaliser", NORMALISERS)
def test_the_weights_of_all_edges_sum_to_one(normaliser: str) -> None:
    batch = flat_batch(scored(grown(rounds=2)), normaliser)
    micros = batch.micro_batches(300, CPU, need_all=True, dtype=torch.float64)
    assert sum(float(micro.edges.weight_E.sum()) for micro in micros) == pytest.approx(1, abs=1e-12)


def test_rows_are_the_paths_and_edges_the_sampled_tokens() -> None:
    pairs = scored(grown(rounds=2), "intra_inter")
    batch = flat_batch(pairs, "token_mean")
    paths = [(tree, credit, leaf) for tree, credit in pairs for leaf in tree.leaves()]
    assert len(batch.rows) == len(paths) == 3 * 2 * 5
    for row, (tree, credit, leaf) in zip(batch.rows, paths, strict=True):
        ids, marks, advantages = list[int](), list[bool](), list[float]()
        for depth, step in enumerate(tree.path(leaf)):
            node = tree.nodes[step]
            ids += [*node.action_ids, *node.observation_ids]
            marks += [True] * len(node.action_ids) + [False] * len(node.observation_ids)
            advantages += [credit[leaf][depth - 1]] * len(node.action_ids)
        assert row.ids == ids and row.advantages == advantages
        assert row.sampled_at == [at for at, mark in enumerate(marks) if mark]


def test_observation_tokens_carry_no_loss() -> None:
    """The gradient of the loss by the logits is 0 except where a sampled token is predicted."""
    batch = flat_batch(scored(grown()), "token_mean")
    [micro] = batch.micro_batches(10**6, CPU, need_all=True)
    logits = torch.randn(*micro.ids_BT.shape, 128, requires_grad=True)

    class Fixed(torch.nn.Module):
        def forward(self, **_: Any) -> Any:
            return type("Output", (), {"logits": logits})

    result = get_loss("grpo")(token_logps(Fixed(), micro, 1.0), micro.edges, OPTIONS)
    result.loss.backward()
    assert logits.grad is not None
    touched = {(int(b), int(t)) for b, t in logits.grad.abs().sum(-1).nonzero()}
    rows = sorted(batch.rows, key=lambda row: -len(row.ids))
    sampled = {(b, at - 1) for b, row in enumerate(rows) for at in row.sampled_at}
    carrying = {(b, t) for b, t in sampled if rows[b].has_gradient}
    assert touched and touched <= carrying
    assert micro.edges.weight_E.numel() == sum(len(row.sampled_at) for row in rows)


def test_leaves_whose_environment_failed_are_left_out() -> None:
    questions = grown(["green", "red", "crash"], trunks=4)
    trees = [tree for trees in questions for tree in trees]
    failed = sum(node.failure is not None for tree in trees for node in tree.nodes)
    total = sum(len(tree.leaves()) for tree in trees)
    batch = flat_batch(scored(questions), "token_mean")
    assert 0 < failed < total and len(batch.rows) == total - failed
    assert sum(row.weight * len(row.sampled_at) for row in batch.rows) == pytest.approx(1)
    nothing = flat_batch(scored(grown(["crash"])), "token_mean")
    assert not nothing.rows and not list(nothing.micro_batches(100, CPU, need_all=True))


@pytest.mark.parametrize("part", ["action_ids", "observation_ids"])
def test_ids_other_than_the_sampled_ones_are_refused(part: str) -> None:
    pairs = scored(grown())
    tree = pairs[0][0]
    node = next(node for node in tree.nodes if node.children and node.depth == 1)
    getattr(node, part)[0] += 1
    with pytest.raises(TreegrpoError, match="other than those that were sampled"):
        flat_batch(pairs, "token_mean")


def test_a_token_moved_from_observation_to_action_is_refused() -> None:
    pairs = scored(grown())
    node = next(node for node in pairs[0][0].nodes if node.children and node.depth == 1)
    node.action_ids.append(node.observation_ids.pop(0))
    node.action_logps.append(-1.0)
    with pytest.raises(TreegrpoError, match="other than those that were sampled"):
        flat_batch(pairs, "token_mean")


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_trainer_and_sampler_agree_on_a_real_tree(temperature: float) -> None:
    """Shared prompts, kept and forked KV, padding: all within 1e-5 of one plain forward."""
    model = tiny_model(vocab_size=128)
    made, _ = scheduler(
        HFEngine(model, max_batch_rows=3), make(ID), rounds=2,
        max_context_tokens=400, temperature=temperature,
    )  # fmt: skip
    questions = made.grow([Question(seed, {"split": "train"}) for seed in range(2)]).questions
    batch = flat_batch(scored(questions), "token_mean")
    assert len(batch.rows) == 2 * 2 * 5
    gaps: list[float] = []
    for micro in batch.micro_batches(500, CPU, need_all=True):
        with torch.no_grad():
            logps = token_logps(model, micro, temperature)
        gaps.append(float((logps - micro.edges.old_logp_E).abs().max()))
    assert max(gaps) < 1e-5
    spread = [logp for row in batch.rows for logp in row.old_logps]
    assert math.isclose(min(spread), max(spread)) is False, "the model is not uniform"
