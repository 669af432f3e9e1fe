"""The mean gradient of sampled trees is the policy gradient, where forks depend on the state.

A process of four states, one logit each, P(1 | state) = sigmoid(logit):

    S -0-> A    A -0-> end    C -0, 1-> end    The tree forks on arrival: S once, A twice,
    S -1-> B    A -1-> C      B -0, 1-> end    B four times, C three times.

The number of children is known before they are sampled, as `path` asks. Two credits, both
unbiased for a reason that holds in any such process:

- `reward_alone`: the reward of the leaf, no baseline. The shares below a step add up to its
  chance of being met, and their rewards average to its value (importance splitting).
- `leave_one_out`: the baseline of a step is made of leaves that do not share it. Given the
  state it is independent of the action, so that its product with the score is 0 on average.

`sibling` is not: it takes a step's value as the plain mean of the leaves below.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.nn.functional import logsigmoid

from treegrpo.credit import Credit, get_credit
from treegrpo.credit.base import along_paths, outcomes
from treegrpo.losses import LossOptions, get_loss
from treegrpo.pack import Weighted, pack, split
from treegrpo.tree import Tree
from treegrpo.weighting import get_weighting, token_weights

Vector: TypeAlias = NDArray[Any]
Shape: TypeAlias = tuple[Any, ...]
"""The steps sampled in one state, sorted: (action, shape of the state it led to) each."""

STATES = "SABC"
RIGHT = {"S": 0.4, "A": 0.7, "B": 0.25, "C": 0.55}
"""P(1 | state)."""
FORKS = {"S": 1, "A": 2, "B": 4, "C": 3}
NEXT = {("S", 0): "A", ("S", 1): "B", ("A", 1): "C"}
REWARDS: dict[tuple[int, ...], float] = {
    (0, 0): 0.3,
    (0, 1, 0): 0.0,
    (0, 1, 1): 1.0,
    (1, 0): 0.2,
    (1, 1): 2.0,
}
"""By episode."""


def reward_alone(question: Sequence[Tree]) -> list[Credit]:
    return [along_paths(tree, outcomes(tree)) for tree in question]


CREDITS: dict[str, Callable[[Sequence[Tree]], list[Credit]]] = {
    "reward_alone": reward_alone,
    "leave_one_out": get_credit("leave_one_out"),
    "sibling": get_credit("sibling"),
}
UNBIASED = ["reward_alone", "leave_one_out"]


def score(state: str, action: int) -> Vector:
    """The slopes of log P(action | state) by the logits."""
    found = np.zeros(len(STATES))
    found[STATES.index(state)] = action - RIGHT[state]
    return found


def exact_gradient() -> Vector:
    """The sum over all episodes of probability, reward and score."""
    total = np.zeros(len(STATES))
    for episode, reward in REWARDS.items():
        state, chance, scores = "S", 1.0, np.zeros(len(STATES))
        for action in episode:
            chance *= RIGHT[state] if action else 1 - RIGHT[state]
            scores += score(state, action)
            state = NEXT.get((state, action), "")
        total += chance * reward * scores
    return total


EXACT = exact_gradient()


@cache
def shapes(state: str) -> dict[Shape, float]:
    """Every shape that may grow in a state, and its probability."""
    steps: list[tuple[tuple[int, Shape], float]] = []
    for action, chance in ((0, 1 - RIGHT[state]), (1, RIGHT[state])):
        below = NEXT.get((state, action))
        after: dict[Shape, float] = shapes(below) if below else {(): 1.0}
        steps += [((action, shape), chance * p) for shape, p in after.items()]
    found: defaultdict[Shape, float] = defaultdict(float)
    for children in itertools.product(steps, repeat=FORKS[state]):
        found[tuple(sorted(step for step, _ in children))] += math.prod(p for _, p in children)
    return dict(found)


def sampled(state: str, rng: np.random.Generator) -> Shape:
    steps: list[tuple[int, Shape]] = []
    for _ in range(FORKS[state]):
        action = int(rng.random() < RIGHT[state])
        below = NEXT.get((state, action))
        steps.append((action, sampled(below, rng) if below else ()))
    return tuple(sorted(steps))


def built(shape: Shape) -> tuple[Tree, list[Vector]]:
    """The tree, and the score of each of its nodes."""
    tree, scores = Tree("q"), [np.zeros(len(STATES))]
    tree.add(None, observation_ids=[1])

    def grow(above: int, state: str, steps: Shape, episode: tuple[int, ...]) -> None:
        for action, after in steps:
            done = (*episode, action)
            reward = 0.0 if after else REWARDS[done]
            node = tree.add(above, action_ids=[action], action_logps=[-1.0], reward=reward)
            scores.append(score(state, action))
            grow(node.id, NEXT.get((state, action), ""), after, done)

    grow(0, "S", shape, ())
    return tree, scores


@cache
def gradient(credit: str, weighting: str, question: tuple[Shape, ...]) -> Vector:
    """The question's gradient, divided by its number of trees (the constant normaliser)."""
    trees, scores = zip(*map(built, question), strict=True)
    total = np.zeros(len(STATES))
    for tree, score_N, credits, shares in zip(
        trees, scores, CREDITS[credit](trees), get_weighting(weighting)(trees), strict=True
    ):
        for leaf, row in shares.items():
            for node, share, adv in zip(tree.path(leaf)[1:], row, credits[leaf], strict=True):
                total += share * adv * score_N[node]
    return total / len(question)


def log_prob(tree: Tree, step: int, logit_S: torch.Tensor) -> torch.Tensor:
    """The policy's log-prob of a step's only token."""
    *above, action = (tree.nodes[node].action_ids[0] for node in tree.path(step)[1:])
    state = "S"
    for earlier in above:
        state = NEXT[state, earlier]
    return logsigmoid((1 if action else -1) * logit_S[STATES.index(state)])


def trained_gradient(credit: str, weighting: str, question: tuple[Shape, ...]) -> Vector:
    """The question's gradient by the code that trains, cut into parts and rows."""
    trees = [built(shape)[0] for shape in question]
    weights = token_weights(get_weighting(weighting)(trees), trees, "constant", 1)
    credits = CREDITS[credit](trees)
    sources = [Weighted(*one) for one in zip(trees, credits, weights, strict=True)]
    logit_S = torch.tensor([math.log(p / (1 - p)) for p in RIGHT.values()], dtype=torch.float64)
    logit_S.requires_grad_()
    total = logit_S.sum() * 0
    batches = pack(split(sources, 7), max_tokens=14, row_tokens=7, dtype=torch.float64)
    for batch in batches:
        steps = [batch.steps[step] for step in batch.edges.step_E.tolist()]
        logp_E = torch.stack([log_prob(trees[tree], step, logit_S) for tree, step in steps])
        total = total + get_loss("reinforce")(logp_E, batch.edges, LossOptions()).loss
    (slope_S,) = torch.autograd.grad(total, logit_S)
    return -slope_S.numpy()


def mean_gradient(credit: str, weighting: str) -> Vector:
    """Exactly, over all questions of two trees."""
    total = np.zeros(len(STATES))
    for question in itertools.product(shapes("S").items(), repeat=2):
        key = tuple(sorted(shape for shape, _ in question))
        total += math.prod(p for _, p in question) * gradient(credit, weighting, key)
    return total


def across(mean: Vector) -> float:
    """The part of a mean that is no multiple of the exact gradient, relative to the mean."""
    along = (mean @ EXACT) / (EXACT @ EXACT) * EXACT
    return float(np.linalg.norm(mean - along) / np.linalg.norm(mean))


def test_the_exact_gradient_is_that_of_the_expected_reward() -> None:
    """Against the value by dynamic programming, differentiated by hand."""
    s, a, b, c = (RIGHT[state] for state in STATES)
    value_c = c * 1.0
    value_a, value_b = (1 - a) * 0.3 + a * value_c, (1 - b) * 0.2 + b * 2.0
    slopes = [
        s * (1 - s) * (value_b - value_a),
        (1 - s) * a * (1 - a) * (value_c - 0.3),
        s * b * (1 - b) * (2.0 - 0.2),
        (1 - s) * a * c * (1 - c),
    ]
    assert list(EXACT) == pytest.approx(slopes, abs=1e-15)
    assert math.fsum(shapes("S").values()) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("credit", UNBIASED)
def test_path_is_unbiased_exactly(credit: str) -> None:
    assert mean_gradient(credit, "path") == pytest.approx(EXACT, abs=1e-12)


@pytest.mark.parametrize("credit", UNBIASED)
@pytest.mark.parametrize("weighting", ["path", "leaf"])
def test_the_code_that_trains_has_the_gradient_of_every_question(
    weighting: str, credit: str
) -> None:
    """Up to what `constant` divides by: trees for `path`, leaves for `leaf`."""
    questions = list(itertools.combinations_with_replacement(sorted(shapes("S")), 2))
    assert len(questions) == 210
    for question in questions:
        leaves = sum(len(built(shape)[0].leaves()) for shape in question)
        counted = len(question) if weighting == "path" else leaves
        by_hand = gradient(credit, weighting, question) * len(question) / counted
        found = trained_gradient(credit, weighting, question)
        assert found == pytest.approx(by_hand, abs=1e-12)


def test_a_value_that_counts_leaves_alike_is_biased() -> None:
    assert across(mean_gradient("sibling", "path")) > 0.03


@pytest.mark.parametrize("credit", UNBIASED)
@pytest.mark.parametrize("weighting", ["leaf", "unique", "depth"])
def test_the_others_are_biased_whatever_the_scale(weighting: str, credit: str) -> None:
    assert across(mean_gradient(credit, weighting)) > 0.05


@pytest.mark.parametrize("credit", UNBIASED)
def test_sampled_trees_agree_with_path_and_refute_leaf(credit: str) -> None:
    rng = np.random.default_rng(20)
    questions = [tuple(sorted(sampled("S", rng) for _ in range(2))) for _ in range(6_000)]
    found = {
        name: np.array([gradient(credit, name, question) for question in questions])
        for name in ("path", "leaf")
    }
    error = found["path"].std(axis=0, ddof=1) / math.sqrt(len(questions))
    assert (np.abs(found["path"].mean(axis=0) - EXACT) < 3 * error).all()
    # No factor mends `leaf`: it points off the exact gradient, to where enumeration says.
    skewed = mean_gradient(credit, "leaf")
    off = skewed - (skewed @ EXACT) / (EXACT @ EXACT) * EXACT
    for name, is_biased in (("leaf", True), ("path", False)):
        aside = found[name] @ off
        errors = aside.mean() / (aside.std(ddof=1) / math.sqrt(len(questions)))
        assert errors > 5 if is_biased else abs(errors) < 3
