"""treegrpo.learner on trees worked out by hand: that each setting does what it says."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.fakes_models import tiny_model
from tests.toy_game import ID
from treegrpo.bound import ModelSizes, bound
from treegrpo.config import TrainConfig, load_config
from treegrpo.credit import Credit
from treegrpo.envs.errors import TreegrpoError
from treegrpo.learner import Learner, ScoredTree, UpdateSkipped, step_pairs, weigh
from treegrpo.tree import Tree

ATTENTIONS = ["auto", "segments", "dense", "flat"]


def tree_of(*steps: tuple[int, int], prompt: int = 2) -> Tree:
    """A tree of steps (parent, sampled tokens)."""
    tree = Tree("q")
    tree.add(None, observation_ids=[1] * prompt)
    for parent, count in steps:
        tree.add(parent, action_ids=[3] * count, action_logps=[-2.0] * count)
    return tree


def forked() -> Tree:
    """A step of 2 tokens with children of 1 and 3: leaves 2 and 3."""
    return tree_of((0, 2), (1, 1), (1, 3))


def chain() -> Tree:
    """One step of 4 tokens: leaf 1."""
    return tree_of((0, 4))


def credit_of(tree: Tree, scale: float = 1.0) -> Credit:
    """Advantages that differ from leaf to leaf and do not cancel."""
    return {leaf: [scale * leaf] * tree.nodes[leaf].depth for leaf in tree.leaves()}


def question(*trees: Tree, scale: float = 1.0) -> list[ScoredTree]:
    return [(tree, credit_of(tree, scale)) for tree in trees]


def config_of(**changes: Any) -> TrainConfig:
    fields: dict[str, Any] = {
        "model": "tiny", "env": ID, "max_context_tokens": 100, "max_action_tokens": 10, **changes
    }  # fmt: skip
    return load_config(base=fields)


def learner(tmp_path: Path, **changes: Any) -> Learner:
    return Learner(tiny_model(), config_of(**changes), lambda _record: f"in '{tmp_path}'")


# Weights by hand: of leaves 2 and 3 of the forked tree, and leaf 1 of the chain.


WEIGHTS: dict[tuple[str, str], list[list[str]]] = {
    ("leaf", "token_mean"): [["1/12", "1/12"], ["1/12", "1/12"], ["1/12"]],
    ("path", "token_mean"): [["1/16", "1/16"], ["1/16", "1/16"], ["1/8"]],
    ("depth", "token_mean"): [["3/52", "1/13"], ["3/52", "1/13"], ["3/26"]],
    ("unique", "token_mean"): [["1/20", "1/10"], ["1/20", "1/10"], ["1/10"]],
    ("leaf", "sequence_mean"): [["1/9", "1/9"], ["1/15", "1/15"], ["1/12"]],
    ("path", "sequence_mean"): [["1/12", "1/12"], ["1/20", "1/20"], ["1/8"]],
    ("depth", "sequence_mean"): [["15/194", "10/97"], ["9/194", "6/97"], ["45/388"]],
    ("unique", "sequence_mean"): [["5/74", "5/37"], ["3/74", "3/37"], ["15/148"]],
    ("leaf", "constant"): [["1/300", "1/300"], ["1/300", "1/300"], ["1/300"]],
    ("path", "constant"): [["1/400", "1/400"], ["1/400", "1/400"], ["1/200"]],
    ("depth", "constant"): [["1/400", "1/300"], ["1/400", "1/300"], ["1/200"]],
    ("unique", "constant"): [["1/400", "1/200"], ["1/400", "1/200"], ["1/200"]],
}
"""`constant` counts an episode as max_context_tokens = 100 tokens."""


def approx(rows: list[list[str]]) -> list[object]:
    return [pytest.approx([float(Fraction(one)) for one in row], rel=1e-12) for row in rows]


@pytest.mark.parametrize(("weighting", "normaliser"), WEIGHTS)
def test_weights_are_those_of_the_setting(weighting: str, normaliser: str) -> None:
    config = config_of(weighting=weighting, normaliser=normaliser)
    tree, other = weigh([question(forked(), chain())], config)
    expected = WEIGHTS[weighting, normaliser]
    assert [tree.weights[2], tree.weights[3], other.weights[1]] == approx(expected)
    assert tree.credit == credit_of(tree.tree) and other.credit == credit_of(other.tree)


def test_a_weighting_sees_a_question_and_a_normaliser_the_whole_update() -> None:
    """`depth` counts steps at a depth of one question: the chain is no longer among them."""
    config = config_of(weighting="depth", normaliser="constant")
    tree, other = weigh([question(forked()), question(chain())], config)
    expected = [["1/400", "1/400"], ["1/400", "1/400"], ["1/200"]]
    assert [tree.weights[2], tree.weights[3], other.weights[1]] == approx(expected)


@pytest.mark.parametrize(
    ("loss", "normaliser"), [("gspo", "sequence_mean"), ("grpo", "token_mean"),
                             ("dr_grpo", "constant")],
)  # fmt: skip
def test_without_a_normaliser_the_losss_own_is_taken(loss: str, normaliser: str) -> None:
    config = config_of(weighting="path", loss=loss)
    assert config.normaliser is None
    tree, other = weigh([question(forked(), chain())], config)
    expected = WEIGHTS["path", normaliser]
    assert [tree.weights[2], tree.weights[3], other.weights[1]] == approx(expected)


def test_episodes_of_constant_length_are_max_context_tokens() -> None:
    config = config_of(weighting="leaf", normaliser="constant", max_context_tokens=50)
    [one] = weigh([question(chain())], config)
    assert one.weights == {1: [pytest.approx(1 / 50, rel=1e-12)]}


# Numbers that are printed.


def expected_bound(one: Learner, *trees: Tree) -> Any:
    return bound(trees, ModelSizes.of(one.model))


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_tokens_and_limit_told_are_those_of_the_bound(tmp_path: Path, attention: str) -> None:
    """U = 2 + 2 + 1 + 3 and 2 + 4; T = 5 + 7 and 6."""
    one = learner(tmp_path, attention=attention)
    [update] = one.learn([question(forked(), chain())], 1e-3)
    limit = expected_bound(one, forked(), chain())
    assert (update["trained_tokens"], update["trained_tokens_flat"]) == (14, 18)
    assert (limit.unique_tokens, limit.flat_tokens) == (14, 18)
    assert update["speedup_limit"] == limit.limit == limit.flat_flops / limit.tree_flops > 1
    assert update["trained_leaves"] == 3


def test_tokens_of_leaves_without_advantage_are_in_no_number(tmp_path: Path) -> None:
    tree, one = forked(), learner(tmp_path)
    [update] = one.learn([[(tree, {2: [1.0, 1.0], 3: [0.0, 0.0]})]], 1e-3)
    assert (update["trained_tokens"], update["trained_tokens_flat"]) == (5, 5)
    assert update["speedup_limit"] == 1.0 and update["trained_leaves"] == 1


def test_the_flat_estimate_is_the_work_of_flat_rows_over_their_speed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every update of the last step alone, and the speed is measured once."""
    one = learner(tmp_path, epochs=2)
    asked: list[int] = []
    monkeypatch.setattr(one, "_measure_flat", lambda trees: asked.append(len(trees)) or 1e6)
    assert one.flat_seconds == 0
    for _ in range(2):
        one.learn([question(forked(), chain())], 1e-3)
        flops = expected_bound(one, forked(), chain()).flat_flops
        assert one.flat_seconds == 2 * flops / 1e6
    assert asked == [2]


@pytest.mark.parametrize(
    ("tree", "rows", "predictions"), [(forked(), 2, 8), (tree_of(*[(0, 5)] * 20), 14, 70)]
)
def test_the_speed_of_flat_rows_is_their_work_over_their_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: Tree, rows: int, predictions: int
) -> None:
    """Of as many rows of 7 tokens as 100 hold; the faster of two runs, 2 and 0.5 s, counts."""
    one = learner(tmp_path, micro_batch_tokens=100)
    clock = iter([0.0, 2.0, 10.0, 10.5])
    monkeypatch.setattr("treegrpo.learner.time.perf_counter", lambda: next(clock))
    speed = one._measure_flat(weigh([question(tree)], one.config))
    pairs = rows * 7 * 8 // 2
    assert speed == ModelSizes.of(one.model).flops(rows * 7, predictions, pairs) / 0.5


# Gradients and the gap.


def grad_norm(one: Learner) -> float:
    return float(torch.stack([p.grad.norm() for p in one.model.parameters()]).norm())


@pytest.mark.parametrize("grad_clip", [1e-3, 1e6])
def test_a_gradient_longer_than_grad_clip_is_cut_to_it(tmp_path: Path, grad_clip: float) -> None:
    one = learner(tmp_path, grad_clip=grad_clip)
    [update] = one.learn([question(forked())], 1e-3)
    assert 1e-2 < update["grad_norm"] < 1e5, "the norm before the cut is told"
    assert grad_norm(one) == pytest.approx(min(grad_clip, update["grad_norm"]), rel=1e-4)


@pytest.mark.parametrize(("grad_clip", "most"), [(1.0, 1.0), (1e-10, 0.02)])
def test_the_update_is_made_with_the_cut_gradient(
    tmp_path: Path, grad_clip: float, most: float
) -> None:
    """Adam moves a weight by lr g / (|g| + 1e-8) at first: next to nothing where g is 1e-10."""
    one, rate = learner(tmp_path, grad_clip=grad_clip), 1e-3
    before = [p.detach().clone() for p in one.model.parameters()]
    one.learn([question(forked())], rate)
    moved = max(
        float((p.detach() - b).abs().max())
        for p, b in zip(one.model.parameters(), before, strict=True)
    )
    assert most * rate / 100 < moved <= most * rate * 1.01


def test_the_gap_to_the_sampler_outlives_a_minibatch_that_teaches_nothing(tmp_path: Path) -> None:
    idle, taught = question(chain(), scale=0.0), question(forked())
    one = learner(tmp_path, minibatches=3, epochs=2)
    nothing, first, *later = one.learn([idle, taught, taught], 1e-3)
    assert nothing == {} and first["max_abs_log_ratio"] > 0
    assert later[0]["loss"] and later[1] == {} and later[3]["loss"]
    assert not any("max_abs_log_ratio" in update for update in later)


def test_the_gap_outlives_an_update_that_was_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, taught = learner(tmp_path, minibatches=2), question(forked())
    clip, norms = torch.nn.utils.clip_grad_norm_, iter([float("nan"), None])

    def first_is_nan(*args: Any) -> torch.Tensor:
        norm = clip(*args)
        return norm if (other := next(norms)) is None else torch.tensor(other)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", first_is_nan)
    with pytest.warns(UpdateSkipped, match="The batch is in"):
        skipped, made = one.learn([taught, taught], 1e-3)
    assert skipped == {"skipped_updates": 1.0} and made["max_abs_log_ratio"] > 0


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_no_way_trains_positions_that_turn_with_the_batch(attention: str) -> None:
    rope: dict[str, Any] = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    settings = LlamaConfig(
        vocab_size=61,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=64,
        rope_parameters=rope,
    )
    model = LlamaForCausalLM(settings)
    with pytest.raises(
        TreegrpoError, match=r"^Training 'tiny' asked for, but episodes may have 10"
    ):
        Learner(model, config_of(attention=attention), lambda _record: "")
    config = config_of(attention=attention, max_context_tokens=64)
    [update] = Learner(model, config, lambda _record: "").learn([question(forked())], 1e-3)
    assert update["grad_norm"] > 0


# Pairs of siblings, and the longest path.


def ended(*rewards_by_action: tuple[int, float]) -> Tree:
    """A prompt and one final step for each (token, reward)."""
    tree = Tree("q")
    tree.add(None, observation_ids=[1])
    for token, reward in rewards_by_action:
        tree.add(0, action_ids=[token], action_logps=[-1.0], reward=reward, terminated=True)
    return tree


def test_trees_are_numbered_through_all_questions_in_pairs() -> None:
    """Trees 1 and 2 of the update are those of the second question."""
    first, second, third = ended((5, 1.0)), ended((5, 0.0)), ended((6, 1.0))
    assert step_pairs([question(first), question(second, third)]) == [((2, 1), (1, 1), 1.0)]


@pytest.mark.parametrize(("better", "worse"), [(9, 4), (4, 9)])
def test_only_siblings_that_acted_differently_are_compared(better: int, worse: int) -> None:
    tree = ended((better, 1.0), (worse, 0.0), (better, 0.0))
    assert step_pairs([question(tree)]) == [((0, 1), (0, 2), 1.0)]


@pytest.mark.parametrize("tokens", [64, 65])
def test_a_path_may_be_as_long_as_the_models_context(tmp_path: Path, tokens: int) -> None:
    one = learner(tmp_path)
    one.model.config.max_position_embeddings = 64
    trees = weigh([question(tree_of((0, tokens - 2)))], one.config)
    if tokens == 64:
        assert one.plan(trees).parts[0].tokens == 64
    else:
        with pytest.raises(TreegrpoError, match="path has 65 tokens and the model 64 positions"):
            one.plan(trees)
