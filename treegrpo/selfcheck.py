"""Whether a model can be trained packed: what its configuration says, and one measured proof.

Positions, mask and head are set from outside the model, so a model that keeps state between
tokens other than attention, or changes its logits after the head, would train wrongly without a
word. Therefore the first use on a model compares a small tree, packed, with the same paths one
by one through the model's own forward pass: log-probs and the gradient of the embeddings.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from treegrpo.attention import BackendRefused
from treegrpo.envs.errors import TreegrpoError
from treegrpo.logprobs import FLAT, WHOLE, edge_dtype, token_logps
from treegrpo.pack import PackedBatch, Weighted, pack, split
from treegrpo.tree import Tree

GAPS = {torch.float64: 1e-6, torch.float32: 1e-4, torch.bfloat16: 0.15, torch.float16: 0.05}
"""Largest difference of a log-prob, in nats, and of the gradient relative to its norm; in the
half-width formats the mean difference, since logits of 16 to 32 are 1/8 apart in bfloat16. In
float64 the library's own norms still compute in float32."""


@dataclass(frozen=True)
class Support:
    """Which ways of computing train a model right, and why the others do not."""

    backends: list[str]
    """Attention backends, in the order they were asked for."""
    flat: str
    """FLAT, or WHOLE where the head is not the model's last word."""
    reasons: dict[str, str]
    """Backend -> why it is out."""
    refused: str = ""
    """Why flat rows of different length would train it wrongly as well; empty where they do not."""

    def require_flat(self, model: str) -> None:
        """Pass if flat rows train the model right.

        Raises:
            TreegrpoError: they do not; says why.
        """
        if self.refused:
            raise TreegrpoError(
                f"Training '{model}' asked for, but {self.refused}. Lower max_context_tokens to "
                "that, or use another model."
            )

    def require(self, name: str, model: str) -> None:
        """Pass if the backend trains the model right.

        Raises:
            TreegrpoError: it does not; says why.
        """
        if name in self.reasons:
            raise TreegrpoError(
                f"Training '{model}' packed with attention={name} asked for, but "
                f"{self.reasons[name]}. Use attention=flat, or attention=auto."
            )


def supported(model: Any, backends: Sequence[str], max_context_tokens: int) -> Support:
    """Return which backends give this model's own log-probs and gradients on a small tree.

    Args:
        model: a causal language model, in eval mode; its gradients are left alone.
        backends: names to try.
        max_context_tokens: longest path that will be trained.
    """
    source = _small_tree(model.config.get_text_config().vocab_size)
    refused = _moving_positions(model, max_context_tokens)
    obstacle = refused or _obstacle(model, max_context_tokens)
    with torch.enable_grad():
        expected = _path_by_path(model, source)
        reasons = {
            name: obstacle or _difference(model, source, name, *expected) for name in backends
        }
        flat = WHOLE if _difference(model, source, FLAT, *expected) else FLAT
    reasons = {name: reason for name, reason in reasons.items() if reason}
    return Support([name for name in backends if name not in reasons], flat, reasons, refused)


def _obstacle(model: Any, max_context_tokens: int) -> str:
    """Return what in the configuration rules packing out, or nothing."""
    config = model.config.get_text_config(decoder=True)
    window = getattr(config, "sliding_window", None)
    kind = "sliding_attention" if window else "full_attention"
    kinds = set(getattr(config, "layer_types", None) or [kind])
    if "chunked_attention" in kinds:
        return "its chunked_attention layers see a part of the path that depends on positions"
    if other := sorted(kinds - {"full_attention", "sliding_attention"}):
        return f"its {', '.join(other)} layers keep state that siblings would share"
    if "sliding_attention" in kinds and (window or 0) < max_context_tokens:
        return (
            f"its attention looks back {window} tokens, and episodes may have "
            f"{max_context_tokens} (max_context_tokens)"
        )
    return ""


def _moving_positions(model: Any, max_context_tokens: int) -> str:
    """Return why rows computed together would change each other, or nothing.

    With these rotary positions the library picks the frequencies of all rows of a batch by the
    largest position in it, so a long path would change what a short one beside it means.
    """
    config = model.config.get_text_config(decoder=True)
    found = cast("dict[str, Any]", getattr(config, "rope_parameters", None) or {})
    by_kind_of_layer = all(isinstance(one, dict) for one in found.values())
    for rope in cast("list[dict[str, Any]]", [*found.values()] if by_kind_of_layer else [found]):
        kind = str(rope.get("rope_type", "default"))
        limit = rope.get("original_max_position_embeddings")
        if "dynamic" in kind:
            limit = config.max_position_embeddings
        elif kind != "longrope":
            continue
        if limit is not None and limit < max_context_tokens:
            return (
                f"episodes may have {max_context_tokens} tokens (max_context_tokens), and a path "
                f"of more than {limit} changes the positions ({kind}) of all others in its batch"
            )
    return ""


def _small_tree(vocab_size: int) -> Weighted:
    """Return a tree of four levels with forks, an empty observation and an empty action."""
    rng = random.Random(0)

    def ids(count: int) -> list[int]:
        return [rng.randrange(vocab_size) for _ in range(count)]

    tree = Tree("selfcheck")
    tree.add(None, observation_ids=ids(7))
    shapes = [
        (0, 3, 2),
        (1, 2, 0),
        (2, 4, 0),
        (1, 5, 3),
        (4, 2, 0),
        (4, 1, 0),
        (0, 0, 4),
        (7, 3, 0),
    ]
    for parent, sampled, observed in shapes:
        logps = [0.0] * sampled
        tree.add(parent, action_ids=ids(sampled), action_logps=logps, observation_ids=ids(observed))
    every = {leaf: [1.0] * tree.nodes[leaf].depth for leaf in tree.leaves()}
    return Weighted(tree, every, every)


def _path_by_path(model: Any, source: Weighted) -> tuple[dict[tuple[int, int], Tensor], Tensor]:
    """Return by (step, token) its log-prob, and the gradient, from the model's own forward."""
    tree, found = source.tree, dict[tuple[int, int], Tensor]()
    for leaf in tree.leaves():
        nodes = [tree.nodes[name] for name in tree.path(leaf)]
        path = [token for node in nodes for token in node.action_ids + node.observation_ids]
        ids_1T = torch.tensor([path], device=model.device)
        logits_TV = model(input_ids=ids_1T, use_cache=False).logits[0]
        logps_TV = torch.log_softmax(logits_TV.to(edge_dtype(logits_TV.dtype)), dim=-1)
        start = 0
        for node in nodes:
            for offset, token in enumerate(node.action_ids):
                found[node.id, offset] = logps_TV[start + offset - 1, token]
            start += node.num_tokens
    return {key: logp.detach() for key, logp in found.items()}, _gradient(model, found)


def _difference(
    model: Any, source: Weighted, name: str, logps: dict[tuple[int, int], Tensor], gradient: Tensor
) -> str:
    """Return what is wrong with a backend, or nothing."""
    limit = GAPS.get(model.dtype, GAPS[torch.float32])
    try:
        is_flat = name == FLAT
        parts = split([source], max_tokens=1024, share=not is_flat, need_all=True)
        rows = 1 if is_flat else None
        batch = pack(parts, max_tokens=1024, row_tokens=rows, device=model.device)[0]
        found = _by_token(batch, token_logps(model, batch, 1.0, name))
        packed_gradient = _gradient(model, found)
    except BackendRefused as error:
        return error.reason
    except Exception as error:  # noqa: BLE001 - a model of any kind, given what it may not expect
        return f"it cannot be run packed ({type(error).__name__}: {error})"
    gaps_R = torch.stack([(found[key].detach() - logp).abs() for key, logp in logps.items()])
    is_half = model.dtype in (torch.bfloat16, torch.float16)
    gap = float(gaps_R.mean() if is_half else gaps_R.max())
    if not gap <= limit:
        return f"its packed log-probs differ by {gap:.2g} nats from its own (limit {limit:g})"
    error = packed_gradient - gradient
    gap = float(((error * error).sum() / (gradient * gradient).sum()).sqrt())
    if not gap <= limit:
        return f"its packed gradient differs by {gap:.2g} of its norm (limit {limit:g})"
    return ""


def _by_token(batch: PackedBatch, logp_E: Tensor) -> dict[tuple[int, int], Tensor]:
    """Return the log-probs by (step, token)."""
    found: dict[tuple[int, int], Tensor] = {}
    seen: dict[int, int] = {}
    for index, step in enumerate(cast("list[int]", batch.edges.step_E.tolist())):
        offset = seen.get(step, 0)
        seen[step] = offset + 1
        found[batch.steps[step][1], offset] = logp_E[index]
    return found


def _gradient(model: Any, logps: dict[tuple[int, int], Tensor]) -> Tensor:
    """Return the gradient of a sum in which every log-prob has its own factor.

    That of the embeddings, which all layers reach; where they are frozen, of all that is trained.
    """
    terms = [(1 + key[0] + 0.1 * key[1]) * logps[key] for key in sorted(logps)]
    weight = cast(Tensor, model.get_input_embeddings().weight)
    trained = [one for one in model.parameters() if one.requires_grad]
    weights = [weight] if weight.requires_grad else trained
    found = torch.autograd.grad(torch.stack(terms).sum(), weights, materialize_grads=True)
    gradient = torch.cat([one.flatten() for one in found])
    return gradient.to(edge_dtype(gradient.dtype))
