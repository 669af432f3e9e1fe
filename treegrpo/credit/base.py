"""What every credit estimator returns, and the table of their names.

Credit is an advantage per (leaf, step): row `leaf` of a flat batch is the path to that leaf,
and each step of the path has its own number. This one form serves all estimators:

- one number per leaf (group, intra_inter): the number repeated along the path;
- one number per node (siblings, process rewards): every leaf below reads the node's number;
- numbers that differ along a path and between leaves: as they are.

A step shared by several leaves thus has one advantage per leaf. The loss needs their sum
weighted by leaf, split by sign (treegrpo.losses), so nothing is averaged here.

Helpers below compute with exact fractions: estimators subtract means of the same few rewards,
and what is equal must cancel to exactly 0, or a rounding error would be trained on.

Leaves where something other than the policy failed (`Node.has_outcome` is false) have no
outcome: they are left out of every mean and deviation, and their advantage is 0. A failure of
the policy itself (`failure="policy"`) is an outcome like any other.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable, Mapping, Sequence, Sized
from dataclasses import dataclass
from fractions import Fraction
from statistics import fmean
from typing import Any, TypeAlias, TypeVar, cast

from treegrpo.envs.errors import TreegrpoError
from treegrpo.names import Names, blaming
from treegrpo.tree import Tree

Credit: TypeAlias = dict[int, list[float]]
"""By leaf id: the advantage of each step of `tree.path(leaf)[1:]` (the root is no step)."""

Estimator: TypeAlias = Callable[[Sequence[Tree]], list[Credit]]
"""All trees of one question -> the credit of each, in the same order."""

StepAt: TypeAlias = tuple[int, int]
"""A step of a question: index of the tree, id of the node."""

EPS = 1e-6
"""Added to every standard deviation."""

MAX_ADVANTAGE = 1e12
"""Largest advantage, of either sign: the squares of a float32 gradient overflow soon after."""

Key = TypeVar("Key", bound=Hashable)

_CREDITS: Names[Estimator] = Names("credit")


@dataclass(frozen=True, slots=True)
class Tally:
    """The rewards of a set of scored leaves.

    Exact: no order of the leaves shows in a mean, and equal means differ by exactly 0.
    """

    total: Fraction = Fraction(0)
    count: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.total + other.total, self.count + other.count)

    def __sub__(self, other: Tally) -> Tally:
        return Tally(self.total - other.total, self.count - other.count)

    @property
    def mean(self) -> Fraction:
        """The mean reward, which is the value of the node above these leaves; needs a leaf."""
        return self.total / self.count


def credit(name: str) -> Callable[[Estimator], Estimator]:
    """Return a decorator that registers an estimator, its input and result checked.

    Raises:
        TreegrpoError: the name is taken.
    """

    def register(estimator: Estimator) -> Estimator:
        @functools.wraps(estimator)
        def checked(question: Sequence[Tree]) -> list[Credit]:
            check_question(question)
            with blaming("credit", name, estimator):
                credits = estimator(question)
            _check_credits(name, question, credits)
            return credits

        return _CREDITS.add(name)(checked)

    return register


def get_credit(name: str) -> Estimator:
    """Return the estimator registered as `name`; `module:name` imports the module first.

    Raises:
        UnknownOption: no such estimator; suggests the closest name.
    """
    return _CREDITS.get(name)


def credit_names() -> list[str]:
    """Return the registered names, sorted."""
    return _CREDITS.names()


def drop_credit(name: str) -> None:
    """Forget a registered estimator, so that its name is free again."""
    _CREDITS.drop(name)


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


def tallies(question: Sequence[Tree]) -> list[list[Tally]]:
    """Return, by tree and node id, the rewards of the scored leaves below the node.

    All trees of a question start in the same state, so they share one root: every root has
    the leaves of all trees. Cost: nodes + leaves * depth.
    """
    trees: list[list[Tally]] = []
    for tree in question:
        below = [Tally()] * len(tree.nodes)
        for leaf, reward in outcomes(tree).items():
            below[leaf] = Tally(Fraction(reward), 1)
        for node in reversed(tree.nodes[1:]):
            below[node.parent or 0] += below[node.id]
        trees.append(below)
    whole = sum((root for below in trees for root in below[:1]), Tally())
    return [[whole, *below[1:]] for below in trees]


def siblings(question: Sequence[Tree], below: Sequence[Sequence[Tally]]) -> list[list[StepAt]]:
    """Return the groups of two or more steps that were taken in one state of the trees.

    These are the first steps of all trees together, and the children of every other node;
    steps with no scored leaf in `below` (the `tallies`) are left out.
    """
    first: list[StepAt] = []
    groups = [first]
    for i, tree in enumerate(question):
        for node in tree.nodes:
            scored = [(i, child) for child in node.children if below[i][child].count]
            if node.parent is None:
                first.extend(scored)
            else:
                groups.append(scored)
    return [group for group in groups if len(group) > 1]


def standardise(rewards: Mapping[Key, float]) -> dict[Key, float]:
    """Return (reward - mean) / (unbiased std + EPS) by key; 0 for a constant or single group."""
    if len(rewards) < 2 or min(rewards.values()) == max(rewards.values()):
        return dict.fromkeys(rewards, 0.0)
    mean = fmean(rewards.values())
    squares = math.fsum((reward - mean) ** 2 for reward in rewards.values())
    std = math.sqrt(squares / (len(rewards) - 1))
    return {key: (reward - mean) / (std + EPS) for key, reward in rewards.items()}


def along_paths(tree: Tree, by_leaf: Mapping[int, float | Fraction]) -> Credit:
    """Return credit that repeats each leaf's number along its path; 0 for leaves not given."""
    return {leaf: [float(by_leaf.get(leaf, 0))] * tree.nodes[leaf].depth for leaf in tree.leaves()}


def along_steps(tree: Tree, by_step: Mapping[int, float | Fraction]) -> Credit:
    """Return credit where every scored leaf reads the number of each step of its path.

    Steps not given and leaves without outcome have 0.
    """
    numbers = {step: float(number) for step, number in by_step.items()}
    rows = {leaf: [0.0] * tree.nodes[leaf].depth for leaf in tree.leaves()}
    for leaf in tree.scored_leaves():
        rows[leaf] = [numbers.get(step, 0.0) for step in tree.path(leaf)[1:]]
    return rows


def check_question(question: Sequence[Tree]) -> None:
    """Pass if the trees are of one question and every reward is a finite number.

    Raises:
        TreegrpoError: names the questions, or the node with the reward.
    """
    ids = sorted({tree.question_id for tree in question})
    if len(ids) > 1:
        raise TreegrpoError(
            f"Credit asked for over the trees of {len(ids)} questions ({', '.join(ids[:3])}), "
            "but rewards compare within one question only. Call it once per question."
        )
    for tree in question:
        for node in tree.nodes:
            if not math.isfinite(node.reward):
                raise TreegrpoError(
                    f"Credit asked for, but node {node.id} of tree {tree.tree_id} of question "
                    f"'{tree.question_id}' has reward {node.reward}. Mend the environment's "
                    "score: a reward is a finite number."
                )


def _check_credits(name: str, question: Sequence[Tree], credits: object) -> None:
    """A row that is too short or not finite would otherwise train the wrong tokens."""
    if fault := _first_fault(question, credits):
        raise TreegrpoError(
            f"Credit '{name}' must give each leaf of each tree one number per step of its path, "
            f"from -{MAX_ADVANTAGE:g} to {MAX_ADVANTAGE:g}; found {fault}. Return one dict per "
            "tree: leaf id -> list as long as the leaf is deep."
        )


def _first_fault(question: Sequence[Tree], credits: object) -> str:
    """Return what is wrong first, or nothing; `credits` may be anything."""
    if not isinstance(credits, (list, tuple)):
        return f"a {type(credits).__name__}, not a list of dicts"
    of_trees = cast("Sequence[object]", credits)
    if len(of_trees) != len(question):
        return f"{len(of_trees)} dicts for {len(question)} trees"
    for number, (tree, rows) in enumerate(zip(question, of_trees, strict=True)):
        if not isinstance(rows, Mapping):
            return f"a {type(rows).__name__} for tree {number}, not a dict"
        by_leaf = cast("Mapping[object, object]", rows)
        leaves = tree.leaves()
        for leaf in leaves:
            if fault := _row_fault(by_leaf.get(leaf), tree.nodes[leaf].depth):
                return f"{fault} for leaf {leaf} of tree {number}"
        if others := set(by_leaf) - set(leaves):
            return f"a row for {min(others, key=str)!r} of tree {number}, which is no leaf of it"
    return ""


def _row_fault(row: Any, depth: int) -> str:
    """Return what is wrong with the row of a leaf, or nothing."""
    if row is None:
        return "no row"
    if not isinstance(row, Sized) or isinstance(row, (str, bytes)):
        return f"a {type(row).__name__}, not a list,"
    if len(row) != depth:
        return f"a row of length {len(row)}, not {depth},"
    for step, advantage in enumerate(cast("Sequence[Any]", row), start=1):
        try:
            is_right = math.isfinite(advantage) and abs(advantage) <= MAX_ADVANTAGE
        except TypeError:  # a text, say
            is_right = False
        if not is_right:
            return f"{advantage!r} at step {step}"
    return ""
