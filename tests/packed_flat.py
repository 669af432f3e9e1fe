"""The flat batch that packed training must equal, written from the papers' sums.

It knows nothing of packing: the path to every leaf is a row of its own through the model's
plain forward, and a loss is a sum over leaves and their tokens.

Shapes: R (leaf, token) pairs of the whole batch, T sampled tokens of one leaf's path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tests.packed_trees import CONSTANT_TOKENS, Case, path_logps, trained_leaves
from treegrpo.losses import LossOptions
from treegrpo.weighting import Shares, get_weighting

CLIPPED: dict[str, Any] = {"clip_low": 0.1, "clip_high": 0.2, "dual_clip": 1.6}
SETTINGS: dict[str, LossOptions] = {
    "reinforce": LossOptions(),
    "grpo": LossOptions(clip_low=0.15, clip_high=0.15),
    "dr_grpo": LossOptions(**CLIPPED),
    "dapo": LossOptions(**CLIPPED),
    "cispo": LossOptions(clip_low=0.2, clip_high=0.3),
    "gspo": LossOptions(**CLIPPED),
    "step_ratio": LossOptions(**CLIPPED),
    "sft": LossOptions(),
    "step_dpo": LossOptions(dpo_beta=0.4),
}
"""Bounds near 1, so that clips act on both sides; all given, so that no default is trusted."""


@dataclass(frozen=True)
class Row:
    """One leaf of the flat batch; a number for each sampled token on its path."""

    tree: int
    leaf: int
    step_T: list[int]
    old_T: Tensor
    adv_T: Tensor
    first: int
    """Where its tokens begin among the R."""

    def of(self, value_R: Tensor) -> Tensor:
        """Return this row's part of a vector."""
        return value_R[self.first : self.first + len(self.step_T)]


@dataclass
class Flat:
    """The flat batch of a case, and the gradients of its losses."""

    case: Case
    model: Any
    rows: list[Row] = field(default_factory=list[Row])
    logp_R: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Compute every path by itself."""
        logps: list[Tensor] = []
        dtype, count = self.model.dtype, 0
        for number, (tree, credit) in enumerate(
            zip(self.case.trees, self.case.credits, strict=True)
        ):
            for leaf in trained_leaves(tree):
                path = tree.path(leaf)[1:]
                steps = [step for step in path for _ in tree.nodes[step].action_ids]
                old = [logp for step in path for logp in tree.nodes[step].action_logps]
                adv = [credit[leaf][path.index(step)] for step in steps]
                old_T, adv_T = torch.tensor(old, dtype=dtype), torch.tensor(adv, dtype=dtype)
                self.rows.append(Row(number, leaf, steps, old_T, adv_T, count))
                logps.append(path_logps(self.model, tree, leaf))
                count += len(steps)
        self.logp_R = torch.cat(logps)

    def weights(self, weighting: str, normaliser: str) -> list[Tensor]:
        """Return each row's weight per token, from the definitions of the normalisers."""
        shares = get_weighting(weighting)(self.case.trees)
        by_row = [self._shares(row, shares) for row in self.rows]
        if normaliser == "token_mean":
            total = sum(float(share_T.sum()) for share_T in by_row)
            return [share_T / total for share_T in by_row]
        if normaliser == "sequence_mean":
            by_row = [share_T / len(share_T) for share_T in by_row]
            total = sum(float(share_T.sum()) for share_T in by_row)
            return [share_T / total for share_T in by_row]
        episodes = sum(shares[row.tree][row.leaf][0] for row in self.rows)
        return [share_T / (CONSTANT_TOKENS * episodes) for share_T in by_row]

    def _shares(self, row: Row, shares: Sequence[Shares]) -> Tensor:
        path = self.case.trees[row.tree].path(row.leaf)[1:]
        by_step = dict(zip(path, shares[row.tree][row.leaf], strict=True))
        return torch.tensor([by_step[step] for step in row.step_T], dtype=self.logp_R.dtype)

    def loss(
        self,
        name: str,
        options: LossOptions,
        weights: Sequence[Tensor],
        logp_R: Tensor,
        extra: Extra | None = None,
    ) -> tuple[Tensor, float]:
        """Return a loss, and the sum of its terms' sizes, which cancellation cannot shrink."""
        if name == "step_dpo":
            terms = list(self._preferences(options, logp_R))
        else:
            terms = [
                term_T
                for row, weight_T in zip(self.rows, weights, strict=True)
                for term_T in row_terms(name, options, row, weight_T, row.of(logp_R), extra)
            ]
        total = torch.stack([term_T.sum() for term_T in terms] or [0 * logp_R.sum()]).sum()
        return total, sum(float(term_T.detach().abs().sum()) for term_T in terms)

    def _preferences(self, options: LossOptions, logp_R: Tensor) -> Iterator[Tensor]:
        assert options.dpo_beta is not None
        for better, worse, weight in self.case.pairs:
            margin = options.dpo_beta * (self._drift(better, logp_R) - self._drift(worse, logp_R))
            yield -weight * torch.log(torch.sigmoid(margin))

    def _drift(self, step: tuple[int, int], logp_R: Tensor) -> Tensor:
        """Return the log-ratio of a step's tokens, summed, in the first row that has it."""
        tree = self.case.trees[step[0]]
        row = next(r for r in self.rows if r.tree == step[0] and step[1] in tree.path(r.leaf))
        own = [at for at, name in enumerate(row.step_T) if name == step[1]]
        return (row.of(logp_R) - row.old_T)[own].sum()


@dataclass(frozen=True)
class Extra:
    """What a correction and a KL need, by leaf: log-probs of two more policies."""

    old: Mapping[tuple[int, int], Tensor]
    """The policy that ratios are taken to; the tree's own log-probs are the sampler's."""
    reference: Mapping[tuple[int, int], Tensor]


def row_terms(
    name: str,
    options: LossOptions,
    row: Row,
    weight_T: Tensor,
    logp_T: Tensor,
    extra: Extra | None,
) -> Iterator[Tensor]:
    """Yield what one leaf adds to a loss, one number per token."""
    if name == "sft":
        yield -weight_T * logp_T
        return
    key = (row.tree, row.leaf)
    old_T = extra.old[key] if extra else row.old_T
    factor_T = torch.ones_like(logp_T)
    if extra:
        factor_T = _correction(options, (old_T - row.old_T))
    yield -weight_T * factor_T * _objective(name, options, row, logp_T, old_T)
    if extra and options.kl_beta:
        kept = 0.0 if options.correction == "sequence_mask" and not factor_T.any() else 1.0
        gap_T = extra.reference[key] - logp_T
        kl_T = torch.exp(gap_T) - gap_T - 1
        if options.kl_estimator == "k1":
            kl_T = torch.exp(logp_T - old_T) * -gap_T.detach()
        yield kept * options.kl_beta * weight_T * kl_T


def _correction(options: LossOptions, gap_T: Tensor) -> Tensor:
    rho_T = torch.exp(gap_T)
    low, high = options.correction_low or 0.0, options.correction_high or 1.0
    if options.correction == "tis":
        return torch.minimum(rho_T, torch.full_like(rho_T, high))
    if options.correction == "icepop":
        return torch.stack([rho if low <= rho <= high else 0 * rho for rho in rho_T])
    if options.correction == "sequence_mask":
        is_inside = low <= float(torch.exp(gap_T.mean())) <= high
        return torch.full_like(rho_T, float(is_inside))
    return torch.ones_like(rho_T)


def _objective(name: str, options: LossOptions, row: Row, logp_T: Tensor, old_T: Tensor) -> Tensor:
    """Return what a paper's sum has for each token of a leaf."""
    adv_T = row.adv_T
    if name == "reinforce":
        return adv_T * logp_T
    ratio_T = torch.exp(logp_T - old_T)
    if name == "gspo":
        ratio_T = torch.exp((logp_T - old_T).mean()).expand(len(old_T))
    if name == "step_ratio":
        mean = {
            step: (logp_T - old_T)[[at for at, own in enumerate(row.step_T) if own == step]].mean()
            for step in row.step_T
        }
        ratio_T = torch.exp(torch.stack([mean[step] for step in row.step_T]))
    assert options.clip_low is not None and options.clip_high is not None
    clipped_T = ratio_T.clamp(1 - options.clip_low, 1 + options.clip_high)
    if name == "cispo":
        return clipped_T.detach() * adv_T * logp_T
    gain_T = torch.minimum(ratio_T * adv_T, clipped_T * adv_T)
    if options.dual_clip is None:
        return gain_T
    bounded_T = torch.maximum(gain_T, options.dual_clip * adv_T)
    return torch.where(adv_T < 0, bounded_T, gain_T)
