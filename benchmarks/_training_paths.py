"""The ways to train a tree that tree_training compares, each from trees to gradients.

padded: every leaf a row of its own, right-padded, the model's own causal attention.
varlen: the leaves one after another in long rows, nothing shared, nothing padded.
packed_NAME: each token of the tree once, with the attention backend NAME.
auto: whichever way the trainer would choose by itself.

All use the same loss, the same chunked head and the same most tokens of a micro-batch. What a
path does to the trees before the forward pass is part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from treegrpo.bound import ModelSizes
from treegrpo.envs.digest import stable_seed
from treegrpo.gradients import accumulate
from treegrpo.logprobs import FLAT, edge_dtype, token_logps
from treegrpo.losses import LossOptions, get_loss
from treegrpo.pack import PackedBatch, Weighted, pack, split
from treegrpo.plan import Plan, plan
from treegrpo.tree import Node

CLIP = 0.2
LOG_RATIOS = (-0.5, -0.1, 0.0, 0.1, 0.5)
"""Of the model to the policy that sampled; those of 0.5 are clipped."""
LOG_RATIO_SHARES = (0.05, 0.2, 0.5, 0.2, 0.05)
PADDED, VARLEN, AUTO = "padded", "varlen", "auto"
BASELINES = (PADDED, VARLEN)

Planner: TypeAlias = Callable[[Sequence[Weighted], ModelSizes, int], Plan]
"""(trees, sizes of the model, most tokens of a micro-batch) -> plan."""


@dataclass(frozen=True)
class Path:
    """A way to train: its name, and how it plans an update."""

    name: str
    plan: Planner

    def prepare(self, model: Any, trees: Sequence[Weighted], max_tokens: int) -> Prepared:
        """Return the batches of one update, and the attention they need."""
        chosen = self.plan(trees, ModelSizes.of(model), max_tokens)
        batches = pack(
            chosen.parts,
            max_tokens=max_tokens,
            row_tokens=chosen.row_tokens,
            dtype=edge_dtype(model.dtype),
            device=model.device,
        )
        return Prepared(batches, chosen.attention)


@dataclass(frozen=True)
class Prepared:
    """The batches of one update."""

    batches: list[PackedBatch]
    attention: str
    """Name of a backend, or of the model's own."""


def flat_paths(varlen: str) -> list[Path]:
    """Return the baselines; `varlen` names the backend that keeps the leaves of a row apart."""
    return [
        Path(PADDED, partial(_fixed, attention=FLAT, share=False, row_tokens=1)),
        Path(VARLEN, partial(_fixed, attention=varlen, share=False, row_tokens=None)),
    ]


def packed_path(backend: str) -> Path:
    """Return the path in which each token stands once."""
    return Path(
        f"packed_{backend}", partial(_fixed, attention=backend, share=True, row_tokens=None)
    )


def auto_path(backends: Sequence[str]) -> Path:
    """Return the path that chooses as the trainer does, flat rows among the choices."""
    ways = [*backends, FLAT]

    def choose(trees: Sequence[Weighted], sizes: ModelSizes, max_tokens: int) -> Plan:
        return plan(trees, sizes, ways=ways, max_tokens=max_tokens)

    return Path(AUTO, choose)


def _fixed(
    trees: Sequence[Weighted],
    sizes: ModelSizes,
    max_tokens: int,
    *,
    attention: str,
    share: bool,
    row_tokens: int | None,
) -> Plan:
    del sizes
    return Plan(attention, split(trees, max_tokens, share=share), row_tokens, 0.0)


def train(model: Any, trees: Sequence[Weighted], path: Path, max_tokens: int) -> float:
    """Return the loss, and leave the gradients on the model in place of those it had."""
    model.zero_grad(set_to_none=True)
    ready = path.prepare(model, trees, max_tokens)

    def log_probs(batch: PackedBatch) -> Tensor:
        return token_logps(model, batch, 1.0, ready.attention)

    return accumulate(ready.batches, log_probs, get_loss("grpo"), LossOptions()).loss


def train_plainly(model: Any, trees: Sequence[Weighted]) -> float:
    """Return the loss, and leave the gradients on the model, from one full row at a time.

    Shares no code with what is measured: whole logits, the loss written out, leaf by leaf.
    """
    model.zero_grad(set_to_none=True)
    total = 0.0
    for one in trees:
        for leaf, advantages in one.credit.items():
            steps = zip(_row_logps(model, one, leaf), advantages, one.weights[leaf], strict=True)
            terms: list[Tensor] = []
            for (node, logp_E), advantage, weight in steps:
                old_E = torch.tensor(node.action_logps, dtype=logp_E.dtype, device=logp_E.device)
                ratio_E = (logp_E - old_E).exp()
                clipped_E = ratio_E.clamp(1 - CLIP, 1 + CLIP)
                gain_E = torch.minimum(ratio_E * advantage, clipped_E * advantage)
                terms.append(-weight * gain_E.sum())
            loss = torch.stack(terms).sum()
            loss.backward()
            total += float(loss.detach())
    return total


@torch.no_grad()
def set_old_logps(model: Any, trees: Sequence[Weighted], seed: int = 0) -> None:
    """Give the trees log-probs as of a policy close to the model, none of them at a clip bound.

    At a bound the last digit of a log-prob would decide whether a token has a gradient.
    """
    rng = np.random.default_rng(stable_seed("old log-probs", seed))
    for one in trees:
        for leaf in one.credit:
            for node, logp_E in _row_logps(model, one, leaf):
                noise = rng.choice(LOG_RATIOS, size=len(logp_E), p=LOG_RATIO_SHARES)
                logps = logp_E.to("cpu", torch.float64).numpy() - noise
                node.action_logps = [float(logp) for logp in np.minimum(logps, 0.0)]


def _row_logps(model: Any, one: Weighted, leaf: int) -> list[tuple[Node, Tensor]]:
    """Return the steps above a leaf, each with the log-probs of its sampled tokens."""
    root, *steps = (one.tree.nodes[node] for node in one.tree.path(leaf))
    ids, starts = [*root.observation_ids], list[int]()
    for node in steps:
        starts.append(len(ids))
        ids += node.action_ids + node.observation_ids
    ids_1T = torch.tensor([ids], device=model.device)
    logp_TV: Tensor = model(input_ids=ids_1T, use_cache=False).logits[0].log_softmax(-1)
    found: list[tuple[Node, Tensor]] = []
    for node, start in zip(steps, starts, strict=True):
        stop = start + len(node.action_ids)
        target_E1 = ids_1T[0, start:stop, None]
        found.append((node, logp_TV[start - 1 : stop - 1].gather(1, target_E1)[:, 0]))
    return found


def gradients(model: Any) -> dict[str, Tensor]:
    """Return a copy of every gradient, in float64 on the CPU."""
    return {
        name: weight.grad.detach().to("cpu", torch.float64)
        for name, weight in model.named_parameters()
    }


def worst_relative(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """Return the largest |found - wanted| / |wanted| over the parameters, Euclidean norms."""
    return max(_norm(found[name] - tensor) / _norm(tensor) for name, tensor in wanted.items())


def _norm(tensor: Tensor) -> float:
    return float(tensor.square().sum().sqrt())
