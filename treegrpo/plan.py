"""Which way an update is computed: as trees or as flat rows, with which attention.

Every way gives the same gradient, so the cheapest is taken, by counting operations: tokens
through the body, pairs through attention, and a fixed price for each kernel call that a way
needs. Nothing is timed, so that a run that resumes decides the same again.

`flat` is right-padded rows with the model's own causal attention: what wins where the trees
share next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from treegrpo.bound import ModelSizes
from treegrpo.envs.errors import TreegrpoError
from treegrpo.logprobs import FLAT, WHOLE
from treegrpo.pack import Part, Weighted, fill, group, split

CALL_FLOPS = 1e7
"""Operations that a CPU could have done in the time that one more attention call takes, forward
and backward, in one layer (some hundred microseconds)."""


@dataclass(frozen=True)
class Plan:
    """How to compute an update; `pack` takes `parts` and `row_tokens`."""

    attention: str
    """Name of the backend, or FLAT or WHOLE."""
    parts: list[Part]
    row_tokens: int | None
    flops: float
    """Estimate by which the plan was chosen."""


def plan(
    trees: Sequence[Weighted],
    sizes: ModelSizes,
    *,
    ways: Sequence[str],
    max_tokens: int,
    need_all: bool = False,
) -> Plan:
    """Return the cheapest plan of those allowed; the first of equals.

    Args:
        trees: all trees of one update.
        sizes: of the model.
        ways: what to choose from: attention backends, FLAT, WHOLE.
        max_tokens: most tokens of a batch, padding included.
        need_all: also leaves without any advantage.

    Raises:
        TreegrpoError: nothing to choose from, or a path longer than `max_tokens`.
    """
    plans: list[Plan] = []
    for name in ways:
        is_flat = name in (FLAT, WHOLE)
        parts = split(trees, max_tokens, share=not is_flat, need_all=need_all)
        if is_flat:
            plans.append(_flat(parts, sizes, name, max_tokens))
        else:
            plans.append(_tree(parts, sizes, name))
    if not plans:
        raise TreegrpoError(
            "A plan for an update asked for with nothing to choose from. Allow at least one way."
        )
    return min(plans, key=lambda one: one.flops)


def _tree(parts: list[Part], sizes: ModelSizes, name: str) -> Plan:
    """Trees: with `dense` many short rows, with the others one row a batch."""
    if name == "dense":
        return _dense(parts, sizes, name)
    tokens = sum(part.tokens for part in parts)
    num_calls, pairs = 1, sum(part.pairs for part in parts)
    if name == "segments":
        num_calls = sum(len(part.leaves) for part in parts)
        pairs = sum(part.rectangles for part in parts)
    flops = sizes.flops(tokens, 0, pairs) + CALL_FLOPS * sizes.layers * num_calls
    return Plan(name, parts, None, flops)


def _dense(parts: list[Part], sizes: ModelSizes, name: str) -> Plan:
    """Rows as long as the longest part; every pair of a row is computed."""
    longest = max((part.tokens for part in parts), default=1)
    num_rows = len(fill(parts, longest))
    flops = sizes.flops(num_rows * longest, 0, num_rows * longest**2)
    return Plan(name, parts, longest, flops + CALL_FLOPS * sizes.layers)


def _flat(parts: list[Part], sizes: ModelSizes, name: str, max_tokens: int) -> Plan:
    """One path a row, padded; the causal kernel skips half of the pairs."""
    flops = 0.0
    for rows in group([[part] for part in parts], max_tokens):
        longest = rows[0][0].tokens
        pairs = len(rows) * longest * (longest + 1) // 2
        flops += sizes.flops(len(rows) * longest, 0, pairs) + CALL_FLOPS * sizes.layers
    return Plan(name, parts, 1, flops)
