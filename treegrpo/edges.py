"""What is known of every trained token before the forward pass: the edge list.

An edge is one prediction that is trained: a context token and the target sampled after it. A
batch is linear in its branches: leaf b counts in step n with a weight w_bn per token (all
normalisers folded in) and an advantage A_bn. A token shared by several leaves is one edge that
carries their sums:

    weight = sum_b w_bn    adv_pos = sum_b w_bn max(A_bn, 0)    adv_neg = sum_b w_bn min(A_bn, 0)

So any set of leaves makes a batch, and batches add: cuts, micro-batches and ranks divide the
leaves among them and sum up to the same loss.

Shapes: E edges, P (leaf, step) pairs, Q preferences; L leaves, N steps of the batch.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from treegrpo.envs.errors import TreegrpoError


@dataclass(frozen=True)
class Branches:
    """How much each leaf counts in each step of its path, and in which direction."""

    leaf_P: Tensor
    """Leaf of the pair, 0 to num_leaves - 1."""
    step_P: Tensor
    """Step of the pair, 0 to num_steps - 1."""
    weight_P: Tensor
    """Weight of each token of the step in this leaf."""
    adv_P: Tensor
    """Advantage of the step in this leaf."""
    num_leaves: int
    num_steps: int

    def sum_by_step(self, value_P: Tensor) -> Tensor:
        """Return the sum over each step's pairs, (N,)."""
        return value_P.new_zeros(self.num_steps).index_add(0, self.step_P, value_P)

    def sum_by_leaf(self, value_P: Tensor) -> Tensor:
        """Return the sum over each leaf's pairs, (L,)."""
        return value_P.new_zeros(self.num_leaves).index_add(0, self.leaf_P, value_P)


@dataclass(frozen=True)
class Preferences:
    """Pairs of sibling steps, the first of which led to more reward."""

    better_Q: Tensor
    worse_Q: Tensor
    weight_Q: Tensor
    """Weights sum to 1 over the global batch."""


@dataclass(frozen=True)
class Edges:
    """The trained edges of a batch; floats of one dtype, all tensors on one device."""

    old_logp_E: Tensor
    """Log-prob of the target under the policy that the ratio is taken to."""
    step_E: Tensor
    """Step that the target belongs to."""
    branches: Branches
    ref_logp_E: Tensor | None = None
    """Log-prob of the target under the reference policy."""
    sampler_logp_E: Tensor | None = None
    """Log-prob as sampled, where that differs from old_logp_E."""
    preferences: Preferences | None = None
    factor_E: Tensor | None = None
    """Factor on each token's advantage mass, whatever the branch: a correction. None: 1."""

    def __post_init__(self) -> None:
        """Refuse shapes that would broadcast into a wrong loss."""
        optional = (self.ref_logp_E, self.sampler_logp_E, self.factor_E)
        b = self.branches
        _require_one_length("edge", self.old_logp_E, self.step_E, *filter(_is_given, optional))
        _require_one_length("(leaf, step) pair", b.leaf_P, b.step_P, b.weight_P, b.adv_P)

    @cached_property
    def adv_pos_E(self) -> Tensor:
        """Sum over branches of weight * max(advantage, 0), times the token's factor."""
        b = self.branches
        return self._factored(b.sum_by_step(b.weight_P * b.adv_P.clamp(min=0))[self.step_E])

    @cached_property
    def adv_neg_E(self) -> Tensor:
        """Sum over branches of weight * min(advantage, 0), times the token's factor."""
        b = self.branches
        return self._factored(b.sum_by_step(b.weight_P * b.adv_P.clamp(max=0))[self.step_E])

    @cached_property
    def weight_E(self) -> Tensor:
        """Sum over branches of weight; at most 1 in sum over the global batch."""
        return self.branches.sum_by_step(self.branches.weight_P)[self.step_E]

    @cached_property
    def tokens_N(self) -> Tensor:
        """Trained tokens of each step, as floats."""
        counts_N = torch.bincount(self.step_E, minlength=self.branches.num_steps)
        return counts_N.to(self.old_logp_E.dtype)

    @cached_property
    def mass_N(self) -> Tensor:
        """Trained tokens of each step, each counted by its factor."""
        return self.tokens_N if self.factor_E is None else self.sum_by_step(self.factor_E)

    def sum_by_step(self, value_E: Tensor) -> Tensor:
        """Return the sum over each step's edges, (N,)."""
        zero_N = value_E.new_zeros(self.branches.num_steps)
        return zero_N.index_add(0, self.step_E, value_E)

    def replace(self, **fields: Tensor | Branches | Preferences | None) -> Self:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **fields)  # pyright: ignore[reportArgumentType]

    def _factored(self, value_E: Tensor) -> Tensor:
        return value_E if self.factor_E is None else value_E * self.factor_E

    @classmethod
    def flat(
        cls, old_logp_E: Tensor, adv_E: Tensor, weight_E: Tensor, ref_logp_E: Tensor | None = None
    ) -> Self:
        """Return edges where each is a step and a leaf of its own: no token is shared."""
        own_E = torch.arange(len(old_logp_E), device=old_logp_E.device)
        branches = Branches(own_E, own_E, weight_E, adv_E, len(own_E), len(own_E))
        return cls(old_logp_E, own_E, branches, ref_logp_E)

    @classmethod
    def supervised(cls, weight_E: Tensor) -> Self:
        """Return edges with a weight alone, for `sft`."""
        zero_E = torch.zeros_like(weight_E)
        return cls.flat(zero_E, zero_E, weight_E)


def concatenate(parts: list[Edges]) -> Edges:
    """Return the edges of several batches as one; leaves and steps are numbered on."""
    leaf_P: list[Tensor] = []
    step_P: list[Tensor] = []
    step_E: list[Tensor] = []
    leaves = steps = 0
    for part in parts:
        leaf_P.append(part.branches.leaf_P + leaves)
        step_P.append(part.branches.step_P + steps)
        step_E.append(part.step_E + steps)
        leaves, steps = leaves + part.branches.num_leaves, steps + part.branches.num_steps
    weight_P = torch.cat([part.branches.weight_P for part in parts])
    adv_P = torch.cat([part.branches.adv_P for part in parts])
    branches = Branches(torch.cat(leaf_P), torch.cat(step_P), weight_P, adv_P, leaves, steps)
    return Edges(
        torch.cat([part.old_logp_E for part in parts]),
        torch.cat(step_E),
        branches,
        _joined([part.ref_logp_E for part in parts]),
        _joined([part.sampler_logp_E for part in parts]),
        factor_E=_joined([part.factor_E for part in parts]),
    )


def _joined(tensors: list[Tensor | None]) -> Tensor | None:
    given = [tensor for tensor in tensors if tensor is not None]
    return torch.cat(given) if given else None


def _is_given(tensor: Tensor | None) -> bool:
    return tensor is not None


def _require_one_length(what: str, *tensors: Tensor | None) -> None:
    shapes = {tuple(tensor.shape) for tensor in tensors if tensor is not None}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise TreegrpoError(
            f"Edges need vectors of one length, found shapes {sorted(shapes)}. "
            f"Give each field one number per {what}."
        )
