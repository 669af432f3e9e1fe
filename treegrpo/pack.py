"""Packed batches: the trees of an update as rows in which every token stands once.

A row holds subtrees in depth-first order. A token's position is its depth in tokens, and it
attends to its ancestors and itself: token k is an ancestor of token q exactly if
k <= q < leave[k], so one number per token is the whole mask. The last token before a fork
predicts the first token of every child: an edge names its predictor and its target, and never
the next position.

A row is spanned by leaves, and a batch is linear in them (treegrpo.edges): a tree that does not
fit is cut into groups of neighbouring leaves, the path to the cut stands in both parts, and
losses and gradients add up to the same. Flat training is the other end of the same scale: every
leaf a row of its own (`share=False`).

Shapes: B rows, U positions of the padded row, E edges, P (leaf, step) pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from treegrpo.attention.layout import Segment, TreeLayout
from treegrpo.credit import Credit
from treegrpo.edges import Branches, Edges
from treegrpo.envs.errors import TreegrpoError
from treegrpo.tree import Tree, node_hash
from treegrpo.weighting import Shares

PAIR_COST = 1.0 / 3072
"""Cost of a (token, ancestor) pair in attention, in tokens: rows are balanced by U + PAIR_COST *
sum(depth + 1). A layer of width d takes 72 d^2 operations a token and 12 d a pair, so this is
right for a width of 512 and fair for others."""


@dataclass(frozen=True)
class Weighted:
    """A tree, and for each scored leaf the advantage and the weight of each step of its path."""

    tree: Tree
    credit: Credit
    weights: Shares

    def leaves(self, *, need_all: bool) -> list[int]:
        """Return the leaves that train something; `need_all` also those without advantage."""
        return [
            leaf
            for leaf, weights in self.weights.items()
            if any(weights) and (need_all or any(self.credit[leaf]))
        ]


@dataclass(frozen=True)
class Part:
    """What one row holds of one tree: the subtree spanned by some of its leaves."""

    source: Weighted
    number: int
    """Index of the tree in the update."""
    leaves: list[int]
    nodes: list[int]
    """Ids in depth-first order, the root first."""
    kept: dict[int, int]
    """Tokens of each node: all, or none of an observation that nothing follows."""
    tokens: int
    pairs: int
    """(token, ancestor or self) pairs: the sum of depth + 1 over the tokens."""

    rectangles: int
    """(query, key) pairs of its segments: their own columns times their path's."""

    @property
    def cost(self) -> float:
        """What computing the part takes, in tokens of the model's body."""
        return self.tokens + self.pairs * PAIR_COST


@dataclass(frozen=True)
class PackedBatch:
    """Rows that are computed together."""

    ids_BU: Tensor
    layout: TreeLayout
    predictor_E: Tensor
    """Position that predicts the target, counted through all rows: row * U + column."""
    target_E: Tensor
    """Token id to predict."""
    edges: Edges
    steps: list[tuple[int, int]]
    """(index of the tree in the update, node id) of each of the N steps."""
    num_tokens: int
    """Tokens without padding."""


def split(
    trees: Sequence[Weighted], max_tokens: int, *, share: bool = True, need_all: bool = False
) -> list[Part]:
    """Return the parts that rows are made of; together they train every leaf once.

    Args:
        trees: all trees of one update.
        max_tokens: most tokens of a part.
        share: False gives every leaf its own path, as a flat batch has it.
        need_all: also leaves without any advantage (a KL term trains them).

    Raises:
        TreegrpoError: a path longer than `max_tokens`.
    """
    parts: list[Part] = []
    for number, one in enumerate(trees):
        leaves = one.leaves(need_all=need_all)
        if share:
            parts += cut(one, number, leaves, max_tokens)
        else:
            parts += [span(one, number, [leaf]) for leaf in leaves]
    for part in parts:
        _require_fit(part, max_tokens)
    return parts


def pack(
    parts: Sequence[Part],
    *,
    max_tokens: int,
    row_tokens: int | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> list[PackedBatch]:
    """Return batches that hold each part once.

    Args:
        parts: any parts of an update; ranks and tests may divide them.
        max_tokens: most tokens of a batch, padding included.
        row_tokens: most tokens of a row; a longer part still has a row of its own. None fills
            rows up to `max_tokens`, so that a batch is one row.
        dtype: that of the edges' numbers.
        device: where the tensors go; None leaves them on the CPU.

    Raises:
        TreegrpoError: ids that are not those sampled.
    """
    rows = fill(parts, max_tokens if row_tokens is None else min(row_tokens, max_tokens))
    return [
        _stack([_lay_out(row) for row in group], dtype, device) for group in group(rows, max_tokens)
    ]


def span(source: Weighted, number: int, leaves: Sequence[int]) -> Part:
    """Return the subtree of the paths to `leaves`, depth first.

    An observation that nothing follows is left out: it ended its episode, and may be longer
    than any context.
    """
    tree = source.tree
    wanted = {node for leaf in leaves for node in tree.path(leaf)}
    kept = _kept(tree, wanted)
    nodes: list[int] = []
    tokens = pairs = rectangles = owned = 0
    ends = set(leaves)
    end = dict[int, int]()
    stack = [0] if wanted else []
    while stack:
        node = tree.nodes[stack.pop()]
        nodes.append(node.id)
        start = 0 if node.parent is None else end[node.parent]
        end[node.id] = start + kept[node.id]
        tokens += kept[node.id]
        pairs += kept[node.id] * (start + end[node.id] + 1) // 2
        if node.id in ends:
            rectangles += (tokens - owned) * end[node.id]
            owned = tokens
        stack += [child for child in reversed(node.children) if child in wanted]
    return Part(source, number, list(leaves), nodes, kept, tokens, pairs, rectangles)


def _kept(tree: Tree, wanted: set[int]) -> dict[int, int]:
    """Return how many tokens of each node are computed: an observation only if a token follows.

    A step for which the context had no room is an empty node under that observation.
    """
    followed = set[int]()
    kept: dict[int, int] = {}
    for name in sorted(wanted, reverse=True):  # children have larger ids
        node = tree.nodes[name]
        is_whole = (
            node.parent is None
            or name in followed
            or not any(child in wanted for child in node.children)
        )
        kept[name] = node.num_tokens if is_whole else len(node.action_ids)
        if node.parent is not None and (name in followed or node.num_tokens):
            followed.add(node.parent)
    return kept


def cut(source: Weighted, number: int, leaves: Sequence[int], max_tokens: int) -> list[Part]:
    """Return parts of at most `max_tokens` tokens that share out the leaves, in tree order.

    The path to a cut stands in the parts on both sides. A single path may be longer.
    """
    wanted = set(leaves)
    whole = span(source, number, leaves)
    ordered = [node for node in whole.nodes if node in wanted]
    tree, parts, first = source.tree, list[Part](), 0
    inside: set[int] = set()
    tokens = 0
    for at, leaf in enumerate(ordered):
        path = tree.path(leaf)
        new = sum(whole.kept[node] for node in path if node not in inside)
        if inside and tokens + new > max_tokens:
            parts.append(span(source, number, ordered[first:at]))
            first, inside = at, set[int]()
            tokens, new = 0, sum(whole.kept[node] for node in path)
        inside.update(path)
        tokens += new
    return [*parts, span(source, number, ordered[first:])] if ordered else []


def fill(parts: Sequence[Part], row_tokens: int) -> list[list[Part]]:
    """Return rows of at most `row_tokens` tokens, as few as first-fit finds, of even cost.

    A part longer than that has a row of its own. The order of equal parts is kept, so the
    result depends on nothing but the input.
    """
    ordered = sorted(parts, key=lambda part: -part.tokens)
    rows: list[list[Part]] = []
    room: list[int] = []
    for part in ordered:
        fits = next((i for i, free in enumerate(room) if part.tokens <= free), None)
        if fits is None:
            rows.append([])
            room.append(row_tokens)
            fits = len(rows) - 1
        rows[fits].append(part)
        room[fits] -= part.tokens
    return _even(ordered, len(rows), row_tokens) or rows


def share_out(parts: Sequence[Part], num_ranks: int) -> list[list[Part]]:
    """Return the parts of each rank, the largest first to whoever has least to do."""
    shares: list[list[Part]] = [[] for _ in range(num_ranks)]
    cost = [0.0] * num_ranks
    for part in sorted(parts, key=lambda part: -part.cost):
        rank = cost.index(min(cost))
        shares[rank].append(part)
        cost[rank] += part.cost
    return shares


def _even(parts: Sequence[Part], num_rows: int, row_tokens: int) -> list[list[Part]] | None:
    """Return the parts in `num_rows` rows of similar cost; None if one would overflow."""
    rows = share_out(parts, num_rows) if num_rows else []
    fits = all(len(row) == 1 or sum(part.tokens for part in row) <= row_tokens for row in rows)
    return rows if fits else None


def group(rows: Sequence[list[Part]], max_tokens: int) -> Iterator[list[list[Part]]]:
    """Yield rows, the longest first, in groups of at most `max_tokens` padded tokens."""
    ordered = sorted(rows, key=lambda row: -sum(part.tokens for part in row))
    while ordered:
        count = max(1, max_tokens // sum(part.tokens for part in ordered[0]))
        yield ordered[:count]
        ordered = ordered[count:]


@dataclass
class _Row:
    """One row while it is laid out."""

    ids: list[int] = field(default_factory=list[int])
    position: list[int] = field(default_factory=list[int])
    leave: list[int] = field(default_factory=list[int])
    predictor: list[int] = field(default_factory=list[int])
    target: list[int] = field(default_factory=list[int])
    old_logp: list[float] = field(default_factory=list[float])
    step: list[int] = field(default_factory=list[int])
    pair_leaf: list[int] = field(default_factory=list[int])
    pair_step: list[int] = field(default_factory=list[int])
    pair_weight: list[float] = field(default_factory=list[float])
    pair_adv: list[float] = field(default_factory=list[float])
    num_leaves: int = 0
    steps: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    segments: list[Segment] = field(default_factory=list[Segment])


def _lay_out(parts: Iterable[Part]) -> _Row:
    row = _Row()
    for part in parts:
        spans = _lay_out_tokens(row, part)
        _lay_out_branches(row, part)
        _lay_out_segments(row, part, spans)
    return row


def _lay_out_tokens(row: _Row, part: Part) -> dict[int, tuple[int, int]]:
    """Append the tokens and edges of a part; return each node's columns, first and past last."""
    tree = part.source.tree
    spans: dict[int, tuple[int, int]] = {}
    last: dict[int | None, int] = {None: -1}  # column of the last token up to and with a node
    depth: dict[int | None, int] = {None: 0}
    first_step = len(row.steps)
    for number, name in enumerate(part.nodes):
        node, start = tree.nodes[name], len(row.ids)
        ids = (node.action_ids + node.observation_ids)[: part.kept[name]]
        row.ids += ids
        row.position += range(depth[node.parent], depth[node.parent] + len(ids))
        if node.action_ids:
            row.predictor += [last[node.parent], *range(start, start + len(node.action_ids) - 1)]
            row.target += node.action_ids
            row.old_logp += node.action_logps
            row.step += [first_step + number - 1] * len(node.action_ids)
        spans[name] = (start, len(row.ids))
        last[name] = len(row.ids) - 1 if ids else last[node.parent]
        depth[name] = depth[node.parent] + len(ids)
        _require_sampled_ids(tree, name, row.ids[start:])
    end = {name: spans[name][1] for name in part.nodes}
    for name in reversed(part.nodes):
        above = tree.nodes[name].parent
        if above is not None:
            end[above] = max(end[above], end[name])
    for name in part.nodes:
        row.leave += [end[name]] * (spans[name][1] - spans[name][0])
    return spans


def _lay_out_branches(row: _Row, part: Part) -> None:
    """Append the (leaf, step) pairs of a part; every node but the root is a step."""
    step_of = {name: len(row.steps) + i for i, name in enumerate(part.nodes[1:])}
    row.steps += [(part.number, name) for name in part.nodes[1:]]
    for leaf in part.leaves:
        path = part.source.tree.path(leaf)[1:]
        row.pair_leaf += [row.num_leaves] * len(path)
        row.pair_step += [step_of[name] for name in path]
        row.pair_weight += part.source.weights[leaf]
        row.pair_adv += part.source.credit[leaf]
        row.num_leaves += 1


def _lay_out_segments(row: _Row, part: Part, spans: dict[int, tuple[int, int]]) -> None:
    """Append for each leaf the columns that it owns: those no leaf before it has."""
    tree, leaves = part.source.tree, set(part.leaves)
    start = spans[part.nodes[0]][0]
    for leaf in (name for name in part.nodes if name in leaves):
        stop = spans[leaf][1]
        above = [spans[name] for name in tree.path(leaf) if spans[name][0] < start]
        if stop > start:
            row.segments.append(Segment(start, stop, tuple(s for s in above if s[0] < s[1])))
        start = stop


def _stack(rows: Sequence[_Row], dtype: torch.dtype, device: torch.device | None) -> PackedBatch:
    """Pad the rows to one length and number their leaves and steps through."""
    width = max(len(row.ids) for row in rows)
    leaves = _offsets([row.num_leaves for row in rows])
    steps = _offsets([len(row.steps) for row in rows])

    def joined(lists: Iterable[Sequence[int]], offsets: Iterable[int]) -> Tensor:
        values = [n + by for one, by in zip(lists, offsets, strict=True) for n in one]
        return torch.tensor(values, dtype=torch.long).to(device)

    def floats(lists: Iterable[Sequence[float]]) -> Tensor:
        return torch.tensor([n for one in lists for n in one], dtype=dtype).to(device)

    branches = Branches(
        joined((row.pair_leaf for row in rows), leaves),
        joined((row.pair_step for row in rows), steps),
        floats(row.pair_weight for row in rows),
        floats(row.pair_adv for row in rows),
        leaves[-1] + rows[-1].num_leaves,
        steps[-1] + len(rows[-1].steps),
    )
    step_E = joined((row.step for row in rows), steps)
    columns = [width * index for index in range(len(rows))]
    own = list(range(1, width + 1))  # a padding token is its own only descendant
    layout = TreeLayout(
        _padded([row.position for row in rows], [0] * width).to(device),
        _padded([row.leave for row in rows], own).to(device),
        tuple(tuple(row.segments) for row in rows),
    )
    return PackedBatch(
        _padded([row.ids for row in rows], [0] * width).to(device),
        layout,
        joined((row.predictor for row in rows), columns),
        joined((row.target for row in rows), [0] * len(rows)),
        Edges(floats(row.old_logp for row in rows), step_E, branches),
        [step for row in rows for step in row.steps],
        sum(len(row.ids) for row in rows),
    )


def _offsets(counts: Sequence[int]) -> list[int]:
    return [sum(counts[:index]) for index in range(len(counts))]


def _padded(rows: Sequence[Sequence[int]], padding: Sequence[int]) -> Tensor:
    return torch.tensor([[*row, *padding[len(row) :]] for row in rows], dtype=torch.long)


def _require_fit(part: Part, max_tokens: int) -> None:
    if part.tokens > max_tokens:
        tree = part.source.tree
        raise TreegrpoError(
            f"Batches of at most {max_tokens} tokens asked for (micro_batch_tokens), but the path "
            f"to leaf {part.leaves[0]} of tree {tree.tree_id} of question '{tree.question_id}' has "
            f"{part.tokens}, and a path cannot be cut. Raise micro_batch_tokens, or lower "
            "max_context_tokens."
        )


def _require_sampled_ids(tree: Tree, name: int, ids: Sequence[int]) -> None:
    """Token in, token out: what stands in the row must be what was sampled."""
    node = tree.nodes[name]
    above = "" if node.parent is None else tree.nodes[node.parent].content_hash
    split = len(node.action_ids)
    left_out = node.observation_ids[max(0, len(ids) - split) :]
    if node_hash(above, ids[:split], [*ids[split:], *left_out]) != node.content_hash:
        raise TreegrpoError(
            f"Node {name} of tree {tree.tree_id} of question '{tree.question_id}' is to be trained "
            "on ids other than those that were sampled. Never re-tokenise or edit a node."
        )
