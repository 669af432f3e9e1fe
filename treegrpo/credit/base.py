"""What every credit estimator returns, and the table of their names.

Credit is an advantage per (leaf, step): row `leaf` of a flat batch is the path to that leaf,
and each step of the path has its own number. This one form serves all estimators:

- one number per leaf (group, intra_inter): the number repeated along the path;
- one number per node (siblings, process rewards): every leaf below reads the node's number;
- numbers that differ along a path and between leaves: as they are.

A step shared by several leaves thus has one advantage per leaf. The loss needs their sum
weighted by leaf, split by sign (treegrpo.losses), so nothing is averaged here.

Leaves where something other than the policy failed (`Node.has_outcome` is false) have no
outcome: they are left out of every mean and deviation, and their advantage is 0. A failure of
the policy itself (`failure="policy"`) is an outcome like any other.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import TypeAlias

from treegrpo.envs.errors import TreegrpoError, UnknownOption, suggest
from treegrpo.tree import Tree

Credit: TypeAlias = dict[int, list[float]]
"""By leaf id: the advantage of each step of `tree.path(leaf)[1:]` (the root is no step)."""

Estimator: TypeAlias = Callable[[Sequence[Tree]], list[Credit]]
"""All trees of one question -> the credit of each, in the same order."""

EPS = 1e-6
"""Added to every standard deviation."""

_ESTIMATORS: dict[str, Estimator] = {}


def credit(name: str) -> Callable[[Estimator], Estimator]:
    """Return a decorator that registers an estimator, its input and result checked.

    Raises:
        TreegrpoError: the name is taken.
    """

    def register(estimator: Estimator) -> Estimator:
        if name in _ESTIMATORS:
            raise TreegrpoError(
                f"Credit '{name}' asked to be registered, but the name is taken. "
                "Choose another name, or drop_credit() it first."
            )

        @functools.wraps(estimator)
        def checked(question: Sequence[Tree]) -> list[Credit]:
            _check_question(question)
            credits = estimator(question)
            _check_credits(name, question, credits)
            return credits

        _ESTIMATORS[name] = checked
        return checked

    return register


def get_credit(name: str) -> Estimator:
    """Return the estimator registered as `name`.

    Raises:
        UnknownOption: no such estimator; suggests the closest name.
    """
    if name not in _ESTIMATORS:
        raise UnknownOption(
            f"Unknown credit '{name}'.{suggest(name, _ESTIMATORS)} "
            f"Known: {', '.join(credit_names())}."
        )
    return _ESTIMATORS[name]


def credit_names() -> list[str]:
    """Return the registered names, sorted."""
    return sorted(_ESTIMATORS)


def drop_credit(name: str) -> None:
    """Forget a registered estimator, so that its name is free again."""
    get_credit(name)
    del _ESTIMATORS[name]


def node_advantage(tree: Tree, credit: Credit) -> dict[int, float]:
    """Return each step's advantage, averaged over the scored leaves below, for display.

    The root is left out; a step with no scored leaf below has 0.
    """
    shares: dict[int, list[float]] = {node.id: [] for node in tree.nodes[1:]}
    for leaf in tree.scored_leaves():
        for step, advantage in zip(tree.path(leaf)[1:], credit[leaf], strict=True):
            shares[step].append(advantage)
    return {step: fmean(values) if values else 0.0 for step, values in shares.items()}


def outcomes(tree: Tree) -> dict[int, float]:
    """Return the episode reward of every scored leaf."""
    return {leaf: tree.episode_reward(leaf) for leaf in tree.scored_leaves()}


def standardise(rewards: Mapping[int, float]) -> dict[int, float]:
    """Return (reward - mean) / (unbiased std + EPS) by key; 0 for a constant or single group."""
    if len(rewards) < 2 or min(rewards.values()) == max(rewards.values()):
        return dict.fromkeys(rewards, 0.0)
    mean = fmean(rewards.values())
    squares = math.fsum((reward - mean) ** 2 for reward in rewards.values())
    std = math.sqrt(squares / (len(rewards) - 1))
    return {key: (reward - mean) / (std + EPS) for key, reward in rewards.items()}


def along_paths(tree: Tree, by_leaf: Mapping[int, float]) -> Credit:
    """Return credit that repeats each leaf's number along its path; 0 for leaves not given."""
    return {leaf: [by_leaf.get(leaf, 0.0)] * tree.nodes[leaf].depth for leaf in tree.leaves()}


def _check_question(question: Sequence[Tree]) -> None:
    ids = sorted({tree.question_id for tree in question})
    if len(ids) > 1:
        raise TreegrpoError(
            f"Credit asked for over the trees of {len(ids)} questions ({', '.join(ids[:3])}), "
            "but rewards compare within one question only. Call it once per question."
        )


def _check_credits(name: str, question: Sequence[Tree], credits: Sequence[Credit]) -> None:
    """A row that is too short or not finite would otherwise train the wrong tokens."""
    wanted = [{leaf: tree.nodes[leaf].depth for leaf in tree.leaves()} for tree in question]
    found = [{leaf: len(row) for leaf, row in one.items()} for one in credits]
    is_finite = all(math.isfinite(a) for one in credits for row in one.values() for a in row)
    if found != wanted or not is_finite:
        raise TreegrpoError(
            f"Credit '{name}' must give each leaf of each tree one finite number per step of "
            f"its path, {wanted} of them; found {found if found != wanted else credits}. "
            "Return one dict per tree: leaf id -> list as long as the leaf is deep."
        )
