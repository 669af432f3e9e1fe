"""Efficiency and bias of tree estimators on a task small enough to enumerate every tree.

Three steps, two actions, reward 1 if all three are right; one free logit per step, so that
d log pi / d logit is 1 - p for a right action and -p for a wrong one. A question has two trunks
and one fork each, at a depth uniform over 0, 1, 2 (0: the root, a second trunk). The numbers are
those of a study of forks with exact gradients; the readings that give them are:

- efficiency = alpha^2 |g|^2 / trace of the covariance / expected sampled steps, with g the exact
  gradient and alpha its multiple in the mean: no estimator gains by a mere factor;
- each edge is sampled once: 10 steps a question, where four chains take 12;
- the chains' credit is R - mean(R), without a deviation. `leave_one_out` is 4/3 of it there;
- relative bias = the part of the mean across g / the length of the mean.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray

from treegrpo.credit import get_credit
from treegrpo.tree import Tree
from treegrpo.weighting import get_weighting

T = 3
P0S = (0.02, 0.1, 0.4)
Numbers: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class Grown:
    """One possible tree: a trunk, and a branch that leaves it after `fork` steps."""

    fork: int | None
    trunk: tuple[int, ...]
    branch: tuple[int, ...] = ()

    @property
    def rewards(self) -> tuple[float, ...]:
        trunk = float(all(self.trunk))
        if self.fork is None:
            return (trunk,)
        return trunk, float(all(self.trunk[: self.fork] + self.branch))

    @property
    def steps(self) -> list[tuple[int, int]]:
        """(depth, action) of each node, in the order of `built`."""
        trunk = list(enumerate(self.trunk))
        return trunk + list(enumerate(self.branch, self.fork or 0))


def bits(count: int) -> list[tuple[int, ...]]:
    return list(itertools.product((0, 1), repeat=count))


CHAINS = [Grown(None, trunk) for trunk in bits(T)]
TREES = [Grown(d, trunk, b) for d in range(T) for trunk in bits(T) for b in bits(T - d)]


def built(fork: int | None, rewards: tuple[float, ...]) -> Tree:
    """Neither credit nor weights look at the actions: the shape and the rewards are enough."""
    tree = Tree("q")
    tree.add(None, observation_ids=[1])
    for above in range(T):
        tree.add(above, action_ids=[2], action_logps=[-1.0])
    tree.nodes[T].reward = rewards[0]
    above = fork
    for _ in range(T - fork if fork is not None else 0):
        above = tree.add(above, action_ids=[3], action_logps=[-1.0]).id
    if fork is not None:
        tree.nodes[-1].reward = rewards[1]
    return tree


@cache
def node_factors(
    credit: str, weighting: str, question: tuple[tuple[int | None, tuple[float, ...]], ...]
) -> list[list[float]]:
    """By tree and step: the sum over the leaves of share times advantage."""
    trees = [built(*one) for one in question]
    factors: list[list[float]] = []
    for tree, credits, shares in zip(
        trees, get_credit(credit)(trees), get_weighting(weighting)(trees), strict=True
    ):
        by_node = [0.0] * len(tree.nodes)
        for leaf, row in shares.items():
            for node, share, adv in zip(tree.path(leaf)[1:], row, credits[leaf], strict=True):
                by_node[node] += share * adv
        factors.append(by_node[1:])
    return factors


@cache
def all_questions(are_trees: bool) -> list[tuple[Grown, ...]]:
    return list(itertools.product(*([TREES] * 2 if are_trees else [CHAINS] * 4)))


@cache
def num_steps(are_trees: bool) -> Numbers:
    """Sampled steps by question, depth and action."""
    counts = np.zeros((len(all_questions(are_trees)), T, 2))
    for i, question in enumerate(all_questions(are_trees)):
        for grown in question:
            for depth, action in grown.steps:
                counts[i, depth, action] += 1
    return counts


@cache
def factors(credit: str, weighting: str, are_trees: bool) -> Numbers:
    """Sum of `node_factors` by question, depth and action: what multiplies the scores."""
    sums = np.zeros((len(all_questions(are_trees)), T, 2))
    for i, question in enumerate(all_questions(are_trees)):
        key = tuple((grown.fork, grown.rewards) for grown in question)
        for grown, row in zip(question, node_factors(credit, weighting, key), strict=True):
            for (depth, action), factor in zip(grown.steps, row, strict=True):
                sums[i, depth, action] += factor
    return sums


def probabilities(p0: float, are_trees: bool) -> Numbers:
    p = p0 ** (1 / T)
    wrong, right = np.moveaxis(num_steps(are_trees), 2, 0)
    shapes = T**2 if are_trees else 1
    return np.prod(p**right * (1 - p) ** wrong, axis=1) / shapes


def measured(credit: str, weighting: str, p0: float, are_trees: bool) -> tuple[float, float]:
    """Efficiency per sampled step, and relative bias."""
    p = p0 ** (1 / T)
    chance = probabilities(p0, are_trees)
    wrong, right = np.moveaxis(factors(credit, weighting, are_trees), 2, 0)
    gradients = right * (1 - p) - wrong * p
    exact = np.full(T, p0 * (1 - p))  # of p^3, by each of the three logits
    mean = chance @ gradients
    spread = float(chance @ ((gradients - mean) ** 2).sum(axis=1))
    alpha = float(mean @ exact / (exact @ exact))
    cost = float(chance @ num_steps(are_trees).sum(axis=(1, 2)))
    bias = float(np.linalg.norm(mean - alpha * exact) / np.linalg.norm(mean))
    return alpha**2 * float(exact @ exact) / spread / cost, bias


def ratio(credit: str, weighting: str, p0: float) -> float:
    tree, _ = measured(credit, weighting, p0, are_trees=True)
    chains, _ = measured("leave_one_out", "leaf", p0, are_trees=False)
    return tree / chains


@pytest.mark.parametrize("p0", P0S)
def test_the_enumeration_is_complete(p0: float) -> None:
    for are_trees, cost in ((True, 10), (False, 12)):
        chance = probabilities(p0, are_trees)
        assert chance.sum() == pytest.approx(1, abs=1e-12)
        steps = num_steps(are_trees).sum(axis=(1, 2))
        assert chance @ steps == pytest.approx(cost, abs=1e-12)


@pytest.mark.parametrize(
    ("credit", "weighting", "ratios"),
    [
        ("leave_one_out", "depth", (1.028, 0.907, 0.769)),
        ("sibling", "depth", (0.972, 0.811, 0.661)),
        ("intra_inter", "leaf", (1.014, 0.936, 0.841)),
    ],
)
def test_the_efficiency_ratios(
    credit: str, weighting: str, ratios: tuple[float, float, float]
) -> None:
    assert tuple(round(ratio(credit, weighting, p0), 3) for p0 in P0S) == ratios


@pytest.mark.parametrize("p0", P0S)
@pytest.mark.parametrize("credit", ["leave_one_out", "sibling"])
def test_depth_weights_are_unbiased(credit: str, p0: float) -> None:
    assert measured(credit, "depth", p0, are_trees=True)[1] < 1e-12
    # The law can fail: each step counted once puts too much weight on late ones.
    assert measured(credit, "unique", p0, are_trees=True)[1] > 0.1


@pytest.mark.parametrize("p0", P0S)
def test_chains_are_unbiased(p0: float) -> None:
    assert measured("leave_one_out", "leaf", p0, are_trees=False)[1] < 1e-12


@pytest.mark.parametrize(
    ("credit", "biases"),  # .10 and .18 in the study
    [("group", (0.102, 0.102, 0.105)), ("intra_inter", (0.180, 0.181, 0.185))],
)
def test_the_bias_of_group_baselines(credit: str, biases: tuple[float, float, float]) -> None:
    found = [measured(credit, "leaf", p0, are_trees=True)[1] for p0 in P0S]
    assert tuple(round(bias, 3) for bias in found) == biases
