"""The learner: scored trees -> weights -> packed batches -> loss -> new weights.

It owns the optimiser and the reference policy, and decides nothing by the clock: the same trees
and settings make the same update, however often it was interrupted.
"""

from __future__ import annotations

import copy
import itertools
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NoReturn, TypeAlias

import torch
from torch import Tensor

from treegrpo.attention import get_attention
from treegrpo.bound import Bound, ModelSizes, bound
from treegrpo.config import TrainConfig
from treegrpo.credit import MAX_ADVANTAGE, Credit
from treegrpo.credit.preferences import sibling_preferences
from treegrpo.divergence import Diverged, Watch
from treegrpo.envs.errors import TreegrpoError
from treegrpo.gradients import Gradients, StepPair, accumulate
from treegrpo.logprobs import FLAT, WHOLE, edge_dtype, token_logps
from treegrpo.losses import get_loss, summarise
from treegrpo.names import blaming
from treegrpo.pack import PackedBatch, Weighted, pack, span, split
from treegrpo.plan import Plan, plan
from treegrpo.selfcheck import Support, supported
from treegrpo.tree import Tree
from treegrpo.weighting import get_weighting, token_weights

ScoredTree: TypeAlias = tuple[Tree, Credit]
Question: TypeAlias = Sequence[ScoredTree]
"""All trees of one question with their credit."""

BACKENDS = {"cpu": ("segments", "dense"), "cuda": ("varlen", "flex", "segments")}
"""What `attention=auto` chooses from, by type of device; flat rows come on top."""


class PackingRefused(UserWarning):
    """A model is trained on flat rows, because packed ones would train it wrongly."""


class UpdateSkipped(UserWarning):
    """An update was left out, because its loss or gradient is not finite."""


class Learner:
    """Updates a model from rollout trees.

    Args:
        model: a causal language model on its device; put into eval mode: with dropout the
            policy that is trained would not be the one that sampled.
        config: settings of the run.
        save_bad_batch: called with the tensors of a batch whose loss or gradient is not
            finite; returns where they are, in words that go on "The batch is".

    Raises:
        TreegrpoError: an attention backend that does not train this model right, or weights
            that are not finite.
    """

    def __init__(
        self, model: Any, config: TrainConfig, save_bad_batch: Callable[[dict[str, Any]], str]
    ) -> None:
        self.model, self.config = model.eval(), config
        self.optimiser: torch.optim.Optimizer = torch.optim.AdamW(
            model.parameters(), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay
        )
        self.updates = 0
        """Updates made so far: the version of the weights."""
        self._save_bad_batch = save_bad_batch
        self._loss = get_loss(config.loss)
        needs_reference = config.loss_options.kl_beta > 0
        self._reference = copy.deepcopy(model).requires_grad_(False) if needs_reference else None
        self._need_all = needs_reference or not self._loss.is_policy
        self._watch = Watch(model, config.model)
        self._sizes = ModelSizes.of(model)
        self._support, self._ways = _ways(model, config)
        self.compute_seconds = 0.0
        """Seconds of forward and backward passes in the last step."""
        self._flat_flops = self._flat_flops_per_s = 0.0

    def learn(self, questions: Sequence[Question], rate: float) -> list[dict[str, float]]:
        """Return the metrics of each update of a step; changes the weights in place.

        Raises:
            Diverged: an update ruined the weights, or for several steps none could be made.
            TreegrpoError: advantages too large to train on, or a path that is too long.
        """
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self._flat_flops = self.compute_seconds = 0.0
        parts = self.config.minibatches
        bounds = [len(questions) * i // parts for i in range(parts + 1)]
        minibatches = [
            _Minibatch(self, questions[first:last]) for first, last in itertools.pairwise(bounds)
        ]
        updates = [self._update(one) for _ in range(self.config.epochs) for one in minibatches]
        self._watch.step(updates)
        _drop_later_gaps(updates)
        return updates

    @property
    def flat_seconds(self) -> float:
        """What compute_seconds would have been on flat rows, about."""
        return self._flat_flops / self._flat_flops_per_s if self._flat_flops_per_s else 0.0

    def log_probs(self, model: Any, attention: str) -> Callable[[PackedBatch], Tensor]:
        """Return the function batch -> logp_E of a model."""
        temperature = self.config.temperature
        return lambda batch: token_logps(model, batch, temperature, attention)

    def plan(self, trees: Sequence[Weighted]) -> Plan:
        """Return how these trees are computed.

        Raises:
            TreegrpoError: a path longer than the model's context or than a batch may be.
        """
        for one in trees:
            self._require_context(one)
        return plan(
            trees,
            self._sizes,
            ways=self._ways,
            max_tokens=self.config.micro_batch_tokens,
            need_all=self._need_all,
        )

    def batches(self, chosen: Plan) -> list[PackedBatch]:
        """Return the batches of a plan, with all log-probs that stay fixed during the step."""
        batches = pack(
            chosen.parts,
            max_tokens=self.config.micro_batch_tokens,
            row_tokens=chosen.row_tokens,
            dtype=edge_dtype(self.model.dtype),
            device=self.model.device,
        )
        with torch.no_grad():
            if self._reference is not None:
                of_reference = self.log_probs(self._reference, chosen.attention)
                batches = [_with(batch, ref_logp_E=of_reference(batch)) for batch in batches]
            if self.config.loss_options.correction != "none":
                own = self.log_probs(self.model, chosen.attention)
                batches = [
                    _with(batch, old_logp_E=own(batch), sampler_logp_E=batch.edges.old_logp_E)
                    for batch in batches
                ]
        return batches

    def bound(self, trees: Sequence[Weighted]) -> Bound:
        """Return what training these trees takes at least."""
        leaves = [one.leaves(need_all=self._need_all) for one in trees]
        return bound([one.tree for one in trees], self._sizes, leaves)

    def _update(self, minibatch: _Minibatch) -> dict[str, float]:
        """Make one optimiser update, and return its metrics; none where nothing is learned."""
        if not minibatch.teaches:
            return {}
        if not self._flat_flops_per_s:
            self._flat_flops_per_s = self._measure_flat(minibatch.trees)
        self.optimiser.zero_grad(set_to_none=True)
        log_probs = self.log_probs(self.model, minibatch.plan.attention)
        options = self.config.loss_options
        limit = minibatch.bound
        self._flat_flops += limit.flat_flops
        started = time.perf_counter()
        found = accumulate(minibatch.batches, log_probs, self._loss, options, minibatch.step_pairs)
        self.compute_seconds += time.perf_counter() - started
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        if not (math.isfinite(found.loss) and bool(torch.isfinite(norm))):
            self._skip(minibatch.batches, found, float(norm))
            return {"skipped_updates": 1.0}
        self.optimiser.step()
        self.updates += 1
        if fault := self._watch.fault(self.model):
            self._stop(minibatch.batches, found, float(norm), fault)
        return {
            "loss": found.loss,
            "grad_norm": float(norm),
            "trained_leaves": float(minibatch.num_leaves),
            "packed_updates": float(minibatch.plan.attention not in (FLAT, WHOLE)),
            "trained_tokens": float(limit.unique_tokens),
            "trained_tokens_flat": float(limit.flat_tokens),
            "speedup_limit": limit.limit,
            **summarise(found.metrics),
        }

    def _require_context(self, one: Weighted) -> None:
        config = self.model.config.get_text_config(decoder=True)
        limit = getattr(config, "max_position_embeddings", None)
        for leaf in one.leaves(need_all=self._need_all):
            length = span(one, 0, [leaf]).tokens
            if limit is not None and length > limit:
                raise TreegrpoError(
                    f"Leaf {leaf} of tree {one.tree.tree_id} of question "
                    f"'{one.tree.question_id}' is to be trained, but its path has {length} tokens "
                    f"and the model {limit} positions. Lower max_context_tokens, or use another "
                    "model."
                )

    def _skip(self, batches: Sequence[PackedBatch], found: Gradients, norm: float) -> None:
        """Keep the weights as they are, and what made the update impossible."""
        self.optimiser.zero_grad(set_to_none=True)
        where = self._keep(batches, found, norm)
        warnings.warn(
            f"An update was to be made, but its loss is {found.loss:g} and its gradient norm "
            f"{norm:g}: it was left out, and the weights are as before. The batch is {where}. "
            f"{_blame(found, self.config)}",
            UpdateSkipped,
            stacklevel=2,
        )

    def _stop(
        self, batches: Sequence[PackedBatch], found: Gradients, norm: float, fault: str
    ) -> NoReturn:
        """Keep what ruined the weights, and end the run."""
        where, rate = self._keep(batches, found, norm), self.optimiser.param_groups[0]["lr"]
        raise Diverged(
            f"Update {self.updates} was made with a learning rate of {rate:g}, but it ruined the "
            f"model: {fault}. The run stops here; its last checkpoint, if it has one, is as it "
            f"was. The batch is {where}. Start a run with a lower lr."
        )

    def _keep(self, batches: Sequence[PackedBatch], found: Gradients, norm: float) -> str:
        """Write a batch that must not be trained on; return in words where."""
        return self._save_bad_batch(
            {
                "loss": found.loss,
                "grad_norm": norm,
                "weight_version": self.updates,
                "batches": [_tensors(batch) for batch in batches],
            }
        )

    def _measure_flat(self, trees: Sequence[Weighted]) -> float:
        """Return the operations per second of flat rows, from one batch of them."""
        max_tokens = self.config.micro_batch_tokens
        parts = split(trees, max_tokens, share=False, need_all=self._need_all)
        longest = max(part.tokens for part in parts)
        batch = pack(
            parts[: max(1, max_tokens // longest)],
            max_tokens=max_tokens,
            row_tokens=1,
            dtype=edge_dtype(self.model.dtype),
            device=self.model.device,
        )[0]
        log_probs = self.log_probs(self.model, self._support.flat)
        seconds = float("inf")
        for _ in range(2):  # the first one warms up
            started = time.perf_counter()
            log_probs(batch).sum().backward()
            if self.model.device.type == "cuda":
                torch.cuda.synchronize(self.model.device)
            seconds = min(seconds, time.perf_counter() - started)
        num_rows, width = batch.ids_BU.shape
        pairs = num_rows * width * (width + 1) // 2
        return self._sizes.flops(num_rows * width, len(batch.target_E), pairs) / seconds


class _Minibatch:
    """The trees of one update, and all that is computed from them once a step."""

    def __init__(self, learner: Learner, questions: Sequence[Question]) -> None:
        self.trees = weigh(questions, learner.config)
        self.plan = learner.plan(self.trees)
        self.batches = learner.batches(self.plan)
        self.bound = learner.bound(self.trees)
        self.num_leaves = sum(batch.edges.branches.num_leaves for batch in self.batches)
        over_pairs = get_loss(learner.config.loss).over_pairs
        self.step_pairs = step_pairs(questions) if over_pairs else []
        self.teaches = bool(self.step_pairs if over_pairs else self.batches)


def weigh(questions: Sequence[Question], config: TrainConfig) -> list[Weighted]:
    """Return all trees of an update with the weight of each token.

    Raises:
        TreegrpoError: an advantage that would overflow, or a weighting that cannot be used.
    """
    pairs = [pair for question in questions for pair in question]
    for tree, credit in pairs:
        _require_trainable(tree, credit, config)
    weighting = get_weighting(config.weighting)
    with blaming("weighting", config.weighting, weighting):
        shares = [one for q in questions for one in weighting([tree for tree, _ in q])]
    normaliser = config.normaliser or get_loss(config.loss).defaults.normaliser
    trees = [tree for tree, _ in pairs]
    weights = token_weights(shares, trees, normaliser, config.max_context_tokens)
    return [
        Weighted(tree, credit, weight)
        for (tree, credit), weight in zip(pairs, weights, strict=True)
    ]


def _require_trainable(tree: Tree, credit: Credit, config: TrainConfig) -> None:
    """Refuse what would make the loss overflow, by the name of what it came from."""
    for leaf, row in credit.items():
        for advantage in row:
            if not abs(advantage) <= MAX_ADVANTAGE:
                raise TreegrpoError(
                    f"Credit '{config.credit}' times importance '{config.importance}' is to be "
                    f"trained on, but gives leaf {leaf} of tree {tree.tree_id} of question "
                    f"'{tree.question_id}' an advantage of {advantage:g}; the largest is "
                    f"{MAX_ADVANTAGE:g}. Correct whichever is your own."
                )


def _blame(found: Gradients, config: TrainConfig) -> str:
    """Return what to look at after an update that could not be made."""
    gaps = summarise(found.metrics)
    if not math.isfinite(gaps.get("max_abs_log_ratio", 0.0)):
        return "The model's log-probs are not finite: look at its weights and dtype, or lower lr."
    if not math.isfinite(found.loss):
        return f"The log-probs are finite, so look at loss '{config.loss}' and its options."
    return f"The loss is finite, so look at the gradient of loss '{config.loss}', or lower lr."


def step_pairs(questions: Sequence[Question]) -> list[StepPair]:
    """Return all preferences between siblings, of equal weight, by index of tree and node.

    Left out are the pairs of a step without sampled tokens, which has no log-prob to prefer,
    and those of two equal actions, whose difference in value is luck.
    """
    pairs: list[tuple[tuple[int, int], tuple[int, int]]] = []
    first = 0
    for question in questions:
        trees = [tree for tree, _ in question]
        for one in sibling_preferences(trees):
            (tree_a, better), (tree_b, worse) = one.better, one.worse
            one_ids = trees[tree_a].nodes[better].action_ids
            other_ids = trees[tree_b].nodes[worse].action_ids
            if one_ids and other_ids and one_ids != other_ids:
                pairs.append(((first + tree_a, better), (first + tree_b, worse)))
        first += len(question)
    return [(better, worse, 1.0 / len(pairs)) for better, worse in pairs]


def _ways(model: Any, config: TrainConfig) -> tuple[Support, list[str]]:
    """Return what the model supports and what the setting allows of it.

    Raises:
        TreegrpoError: a backend asked for by name that would train the model wrongly, or a
            model that no way trains right.
    """
    names: Sequence[str] = () if config.attention == FLAT else (config.attention,)
    if config.attention == "auto":
        names = BACKENDS.get(model.device.type, ("segments", "dense"))
    for name in names:
        get_attention(name)
    support = supported(model, names, config.max_context_tokens)
    support.require_flat(config.model)
    if config.attention == FLAT:
        return support, [support.flat]
    if config.attention != "auto":
        support.require(config.attention, config.model)
        return support, [config.attention]
    if not support.backends:
        why = next(iter(support.reasons.values()))
        warnings.warn(
            f"Training '{config.model}' packed was tried, but {why}. It is trained on flat rows "
            "instead: as exact, but each shared prefix once per leaf. attention=flat says so.",
            PackingRefused,
            stacklevel=3,
        )
    return support, [*support.backends, support.flat]


def _drop_later_gaps(updates: Sequence[dict[str, float]]) -> None:
    """Keep the gap to the sampler up to the first update that moved the policy."""
    has_moved = False
    for update in updates:
        if has_moved:
            for name in ("max_abs_log_ratio", "kl_sampler"):
                update.pop(name, None)
        has_moved = has_moved or "loss" in update  # not where it taught nothing or was left out


def _with(batch: PackedBatch, **fields: Tensor) -> PackedBatch:
    return replace(batch, edges=batch.edges.replace(**fields))


def _tensors(batch: PackedBatch) -> dict[str, Tensor]:
    """Return a batch as plain tensors."""
    edges, branches = batch.edges, batch.edges.branches
    tensors = {
        "ids_BU": batch.ids_BU,
        "position_BU": batch.layout.position_BU,
        "leave_BU": batch.layout.leave_BU,
        "predictor_E": batch.predictor_E,
        "target_E": batch.target_E,
        "old_logp_E": edges.old_logp_E,
        "step_E": edges.step_E,
        "leaf_P": branches.leaf_P,
        "step_P": branches.step_P,
        "weight_P": branches.weight_P,
        "adv_P": branches.adv_P,
    }
    for name in ("ref_logp_E", "sampler_logp_E", "factor_E"):
        if (tensor_E := getattr(edges, name)) is not None:
            tensors[name] = tensor_E
    return {name: tensor.cpu() for name, tensor in tensors.items()}
