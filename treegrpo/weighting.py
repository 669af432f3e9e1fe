"""How much each trained token counts: by leaf and step, over the whole batch.

Two choices make the weight. A *weighting* says how the leaves below a fork divide what they
share; it gives each scored leaf a share of each step of its path. A *normaliser* turns the
shares of the global batch into a weight per token. The weight of a token shared by several
leaves is their sum, so micro-batches and ranks may divide the leaves as they like.

| weighting | sum over the leaves of a step's shares | unbiased |
|---|---|---|
| leaf | the leaves below | no: a state that forks more counts more |
| path | 1 / children, multiplied along the path | wherever the forks are, see `path` |
| depth | trees / steps at its depth | if the forks fall on the nodes of a depth alike |
| unique | 1 | no: forks add late steps, which then count more |

All are 1 in trees without forks. A leaf without an outcome (`Node.has_outcome`) has no share and
is not seen by the others. A new weighting is a function under `@weighting("name")`.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Sized
from typing import Any, TypeAlias, cast

from treegrpo.envs.errors import TreegrpoError, UnknownOption, suggest
from treegrpo.names import Names
from treegrpo.tree import Tree

Shares: TypeAlias = dict[int, list[float]]
"""By scored leaf: how much it counts at each step of `tree.path(leaf)[1:]`."""

Weighting: TypeAlias = Callable[[Sequence[Tree]], list[Shares]]
"""All trees of one question -> the shares of each, in the same order."""

NORMALISERS = ("token_mean", "sequence_mean", "constant")
"""token_mean: tokens count as their shares say, whatever sequence they stand in.
sequence_mean: a sequence's tokens divide its share (Tree-GRPO, equation 8).
constant: each token counts its share / (constant_tokens * number of episodes) (Dr. GRPO)."""

_WEIGHTINGS: Names[Weighting] = Names("weighting")


def weighting(name: str) -> Callable[[Weighting], Weighting]:
    """Return a decorator that registers a weighting, its result checked.

    Raises:
        TreegrpoError: the name is taken.
    """

    def register(function: Weighting) -> Weighting:
        @functools.wraps(function)
        def checked(question: Sequence[Tree]) -> list[Shares]:
            shares = function(question)
            _check_shares(name, question, shares)
            return shares

        return _WEIGHTINGS.add(name)(checked)

    return register


def get_weighting(name: str) -> Weighting:
    """Return the weighting registered as `name`.

    Raises:
        UnknownOption: no such weighting; suggests the closest name.
    """
    return _WEIGHTINGS.get(name)


def weighting_names() -> list[str]:
    """Return the registered names, sorted."""
    return _WEIGHTINGS.names()


def drop_weighting(name: str) -> None:
    """Forget a registered weighting, so that its name is free again."""
    _WEIGHTINGS.drop(name)


@weighting("leaf")
def leaf(question: Sequence[Tree]) -> list[Shares]:
    """Return 1 everywhere: the flat batch, in which each leaf is a row of its own.

    Biased for the policy gradient as soon as forks fall more often on some states than on
    others: where a state forks into four, its future counts four times.
    """
    return [_by_step(tree, lambda _step, _n: 1.0) for tree in question]


@weighting("path")
def path(question: Sequence[Tree]) -> list[Shares]:
    """Return each leaf's product of 1 / children over its path, the same for all its steps.

        share(leaf) = prod over the nodes v above it, the root included, of 1 / children(v)

    Children without a scored leaf below are not counted. The shares below a step thus sum to
    its own product, the chance of meeting it by walking down from the root.

    Source: importance splitting, as Tree-GRPO with adaptive forks needs it. Unbiased for the
    policy gradient also where the number of children depends on the state, on one condition:
    the decision to expand uses only what is known before the children are sampled. Choosing
    forks over a finished trajectory breaks it mildly.
    """
    return [_along_paths(tree) for tree in question]


@weighting("depth")
def depth(question: Sequence[Tree]) -> list[Shares]:
    """Return (trees / steps at the depth) / leaves below, by step: a depth counts once.

        share(leaf, step at depth d) = (M / N_d) / n(step)

    M: trees with a scored leaf; N_d: steps of the question at depth d; n: scored leaves below.
    An episode that ended above depth d stands for itself in N_d: its share there, in which
    nothing was sampled, is not spread over the episodes that went on.

    Source: leave-one-out with depth weights in a study of forks with exact gradients. Unbiased
    where forks fall on the nodes of a depth alike (uniform forks), whatever their number.
    """
    below = [_scored_below(tree) for tree in question]
    steps_at: Counter[int] = Counter()
    ended_at: Counter[int] = Counter()
    for tree, counts in zip(question, below, strict=True):
        steps_at.update(node.depth for node in tree.nodes[1:] if counts[node.id])
        ended_at.update(tree.nodes[end].depth for end in tree.scored_leaves())
    num_trees = sum(counts[0] > 0 for counts in below)
    scale, num_ended = [1.0], 0
    for d in range(1, max(steps_at, default=0) + 1):
        scale.append(num_trees / (steps_at[d] + num_ended))
        num_ended += ended_at[d]
    return [
        _by_step(tree, lambda step, n, tree=tree: scale[tree.nodes[step].depth] / n)
        for tree in question
    ]


@weighting("unique")
def unique(question: Sequence[Tree]) -> list[Shares]:
    """Return 1 / scored leaves below, by step: each step counts once, however many share it.

    A heuristic: forks add steps late in the episode, so late steps count more than in the
    policy gradient.
    """
    return [_by_step(tree, lambda _step, n: 1.0 / n) for tree in question]


def token_weights(
    shares: Sequence[Shares], trees: Sequence[Tree], normaliser: str, constant_tokens: int
) -> list[Shares]:
    """Return, by tree, leaf and step, the weight of each sampled token of the step.

    With s a share, n the sampled tokens of a step and |leaf| those of a leaf's whole path:

        token_mean     s / Z             Z = sum of s n over all leaves and steps
        sequence_mean  s / |leaf| / Z    Z = sum of s n / |leaf|
        constant       s / (constant_tokens Z)    Z = sum of the shares at each leaf's first step

    So weights times tokens sum to 1 under the first two. Under `constant` Z is the number of
    leaves, trees or trunks as the weighting has it; nothing sampled is in it, which keeps an
    unbiased weighting unbiased. A leaf without sampled tokens drops out of result and sums; if
    nothing counts, all weights are 0.

    Args:
        shares: of all trees of the update, of every question and rank.
        trees: the trees of the shares.
        normaliser: one of NORMALISERS.
        constant_tokens: tokens that an episode counts as, for `constant` only.

    Raises:
        UnknownOption: no such normaliser; suggests the closest name.
        TreegrpoError: under `constant`, constant_tokens below 1, or first steps without share.
    """
    _check_normaliser(normaliser, constant_tokens)
    tokens = [_sampled_tokens(tree, one) for tree, one in zip(trees, shares, strict=True)]
    weights: list[Shares] = []
    terms: list[float] = []
    for one, counts in zip(shares, tokens, strict=True):
        weights.append({})
        for end, row in counts.items():
            size = sum(row) if normaliser == "sequence_mean" else 1
            weights[-1][end] = [share / size for share in one[end]]
            if normaliser == "constant":
                terms.append(one[end][0] * constant_tokens)
            else:
                terms.extend(w * n for w, n in zip(weights[-1][end], row, strict=True))
    total = math.fsum(terms)
    if normaliser == "constant" and not total and any(map(any, _rows(weights))):
        raise TreegrpoError(
            "Normaliser 'constant' asked for, but it counts episodes by the shares of their first "
            "steps, and those are all 0. Use another normaliser with this weighting."
        )
    scale = 1.0 / (total or 1.0)
    return [{end: [w * scale for w in row] for end, row in one.items()} for one in weights]


def _scored_below(tree: Tree) -> list[int]:
    """Return, by node id, the number of scored leaves in its subtree."""
    counts = [0] * len(tree.nodes)
    for end in tree.scored_leaves():
        counts[end] = 1
    for node in reversed(tree.nodes[1:]):
        counts[node.parent or 0] += counts[node.id]
    return counts


def _by_step(tree: Tree, share: Callable[[int, int], float]) -> Shares:
    """Return shares that depend on the step and its number of scored leaves alone."""
    counts = _scored_below(tree)
    by_step = [share(step, n) if step and n else 0.0 for step, n in enumerate(counts)]
    return {end: [by_step[step] for step in tree.path(end)[1:]] for end in tree.scored_leaves()}


def _along_paths(tree: Tree) -> Shares:
    """Return each leaf's product of 1 / children over its path."""
    counts = _scored_below(tree)
    product = [1.0] * len(tree.nodes)
    for node in tree.nodes:
        num_children = sum(counts[child] > 0 for child in node.children)
        for child in node.children:
            product[child] = product[node.id] / max(num_children, 1)
    return {end: [product[end]] * tree.nodes[end].depth for end in tree.scored_leaves()}


def _sampled_tokens(tree: Tree, shares: Shares) -> dict[int, list[int]]:
    """Return the sampled tokens of each step of each leaf that has any."""
    sizes = [len(node.action_ids) for node in tree.nodes]
    rows = {end: [sizes[step] for step in tree.path(end)[1:]] for end in shares}
    return {end: row for end, row in rows.items() if any(row)}


def _rows(shares: Sequence[Shares]) -> list[list[float]]:
    return [row for one in shares for row in one.values()]


def _check_normaliser(normaliser: str, constant_tokens: int) -> None:
    if normaliser not in NORMALISERS:
        raise UnknownOption(
            f"Unknown normaliser '{normaliser}'.{suggest(normaliser, NORMALISERS)} "
            f"Known: {', '.join(NORMALISERS)}."
        )
    if normaliser == "constant" and constant_tokens < 1:
        raise TreegrpoError(
            f"Normaliser 'constant' asked for with constant_tokens = {constant_tokens}, but an "
            "episode must count as 1 token or more. Give the longest episode's tokens."
        )


def _check_shares(name: str, question: Sequence[Tree], shares: object) -> None:
    """A row that is too short, or a share below 0, would otherwise train the wrong tokens."""
    if fault := _first_fault(question, shares):
        raise TreegrpoError(
            f"Weighting '{name}' must give each scored leaf of each tree one finite share >= 0 "
            f"per step of its path; found {fault}. Return one dict per tree: leaf id -> list as "
            "long as the leaf is deep."
        )


def _first_fault(question: Sequence[Tree], shares: object) -> str:
    """Return what is wrong first, or nothing; `shares` may be anything."""
    if not isinstance(shares, (list, tuple)):
        return f"a {type(shares).__name__}, not a list of dicts"
    of_trees = cast("Sequence[object]", shares)
    if len(of_trees) != len(question):
        return f"{len(of_trees)} dicts for {len(question)} trees"
    for number, (tree, rows) in enumerate(zip(question, of_trees, strict=True)):
        if not isinstance(rows, Mapping):
            return f"a {type(rows).__name__} for tree {number}, not a dict"
        by_leaf = cast("Mapping[object, object]", rows)
        scored = tree.scored_leaves()
        for end in scored:
            if fault := _row_fault(by_leaf.get(end), tree.nodes[end].depth):
                return f"{fault} for leaf {end} of tree {number}"
        if others := set(by_leaf) - set(scored):
            return f"a row for {min(others, key=str)!r} of tree {number}, no scored leaf of it"
    return ""


def _row_fault(row: Any, steps: int) -> str:
    """Return what is wrong with the row of a leaf, or nothing."""
    if row is None:
        return "no row"
    if not isinstance(row, Sized) or isinstance(row, (str, bytes)):
        return f"a {type(row).__name__}, not a list,"
    if len(row) != steps:
        return f"a row of length {len(row)}, not {steps},"
    for step, share in enumerate(cast("Sequence[Any]", row), start=1):
        try:
            is_right = math.isfinite(share) and share >= 0
        except TypeError:  # a text, say
            is_right = False
        if not is_right:
            return f"{share!r} at step {step}"
    return ""
