"""The trainer: questions -> trees -> credit -> edges -> loss -> new weights, step after step.

    Trainer(model="my/model", env="treegrpo/SearchQA-v0", out="runs/mine").run()

Sampling and training use the same weight tensors in one process. A run is decided by its
configuration: every draw is named by the seed and the step, so a killed run that resumes from
its checkpoint ends bit for bit like one that was never killed (on CPU).
"""

from __future__ import annotations

import copy
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from treegrpo.batch import FlatBatch, MicroBatch, flat_batch, token_logps
from treegrpo.chat import ChatFormat
from treegrpo.checkpoint import Position, has_checkpoint, load_checkpoint, save_checkpoint
from treegrpo.config import TrainConfig, digest, load_config
from treegrpo.credit import Credit, get_credit, node_advantage
from treegrpo.engine.hf import HFEngine
from treegrpo.envs.digest import stable_seed
from treegrpo.envs.errors import TreegrpoError
from treegrpo.envs.registry import make
from treegrpo.loading import load_model
from treegrpo.losses import LossOptions, get_loss, summarise
from treegrpo.rollout import EnvironmentPool, Grown, Question, RolloutSettings, Scheduler
from treegrpo.runfolder import RunFolder
from treegrpo.tree import Tree, sharing_ratio
from treegrpo.weighting import edge_weights

Scored = tuple[Tree, Credit]


@dataclass(frozen=True)
class StepReport:
    """One step's metrics (decided by the seed) and seconds, for whoever watches."""

    step: int
    steps: int
    metrics: dict[str, Any]
    seconds: dict[str, float]


class Trainer:
    """Trains one model on one environment with rollout trees."""

    def __init__(
        self, config: TrainConfig | None = None, *, resume: bool = False, **fields: Any
    ) -> None:
        """Load the model, the environment and, to resume, the checkpoint.

        Args:
            config: complete settings; or give the fields of TrainConfig as keywords.
            resume: go on from the newest checkpoint in the run folder.
            fields: settings by name, such as model=..., env=..., lr=3e-4.

        Raises:
            TreegrpoError: any setting, model, environment or checkpoint that cannot be used.
        """
        self.config = config if config is not None else load_config(base=fields)
        _check_names(self.config)
        if self.config.threads is not None:
            torch.set_num_threads(self.config.threads)
        out = Path(self.config.out)
        self._checkpoints = out / "checkpoint"
        state = load_checkpoint(self._checkpoints, digest(self.config)) if resume else None
        self.model, self.tokenizer = load_model(
            self.config.model, dtype=self.config.dtype, device=self.config.device
        )
        self.chat = ChatFormat(self.tokenizer)
        self.pool = EnvironmentPool(make(self.config.env, **self.config.env_kwargs))
        self._check_split()
        self._reference = (
            copy.deepcopy(self.model).requires_grad_(False) if self.config.kl_beta else None
        )
        self._optimiser = torch.optim.AdamW(
            self.model.parameters(),
            lr=self.config.lr,
            betas=self.config.betas,
            weight_decay=self.config.weight_decay,
        )
        self.position = Position(
            next_step=0, updates=0, sampled_tokens=0, tool_calls=0,
            config_digest=digest(self.config),
        )  # fmt: skip
        if state is not None:
            self.position, tensors = state
            self.model.load_state_dict(tensors["model"])
            self._optimiser.load_state_dict(tensors["optimiser"])
        if not resume and has_checkpoint(self._checkpoints):
            raise TreegrpoError(
                f"A new run in '{out}' was asked for, but it holds a checkpoint of another. "
                "Resume it, remove it, or choose another folder with out=DIR."
            )
        resume_at = self.position.next_step if resume else None
        self._folder = RunFolder(out, self.config, resume_at=resume_at)
        self.engine = HFEngine(self.model, version=self.position.updates)
        self._scheduler = Scheduler(
            self.engine, self.chat, self.pool, _rollout_settings(self.config)
        )

    def run(
        self, steps: int | None = None, *, on_step: Callable[[StepReport], None] | None = None
    ) -> list[dict[str, Any]]:
        """Return the metrics of the steps that were done, and leave the model in `out/model`.

        Args:
            steps: do at most this many now; None goes to the end of the configured steps.
            on_step: called after each step.
        """
        last = self.config.steps
        stop = last if steps is None else min(last, self.position.next_step + steps)
        rows: list[dict[str, Any]] = []
        while self.position.next_step < stop and not self._is_spent():
            step = self.position.next_step
            started = time.perf_counter()
            grown = self._scheduler.grow(self._draw_questions(step))
            trained = time.perf_counter()
            scored = [_score(trees, self.config.credit) for trees in grown.questions if trees]
            update = self._update(scored)
            finished = time.perf_counter()
            self._move_on(grown)
            metrics = self._metrics(grown, update)
            seconds = {
                "generation": grown.seconds_generation,
                "environment": grown.seconds_environment,
                "training": finished - trained,
                "step": finished - started,
            }
            self._folder.metrics(step, metrics)
            self._folder.timings(step, seconds)
            if self.position.next_step % self.config.checkpoint_every == 0:
                self._checkpoint(step, grown)
            rows.append({"step": step, **metrics})
            if on_step is not None:
                on_step(StepReport(step, last, metrics, seconds))
        if rows and self.position.next_step % self.config.checkpoint_every:
            self._checkpoint(self.position.next_step - 1, None)
        self.save_model(Path(self.config.out) / "model")
        return rows

    def save_model(self, folder: Path) -> None:
        """Write the model and its tokenizer as a Hugging Face folder."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(str(folder))

    def _draw_questions(self, step: int) -> list[Question]:
        """Return the questions of a step; the same for any history of the run."""
        questions: list[Question] = []
        levels = self.config.difficulty
        for number in range(self.config.questions):
            seed = stable_seed("question", self.config.seed, step, number)
            options: dict[str, Any] = {"split": self.config.split}
            if levels is not None:
                cycle = (levels,) if isinstance(levels, int) else levels
                options["difficulty"] = cycle[number % len(cycle)]
            questions.append(Question(seed, options))
        return questions

    def _update(self, scored: Sequence[Sequence[Scored]]) -> dict[str, float]:
        """Train on the trees, and return the mean metrics of the updates."""
        reports: list[dict[str, float]] = []
        share = math.ceil(len(scored) / self.config.minibatches)
        for _ in range(self.config.epochs):
            for first in range(0, len(scored), share):
                part = [pair for question in scored[first : first + share] for pair in question]
                reports.append(self._update_once(flat_batch(part, self.config.normaliser)))
        names = reports[0] if reports else {}
        return {name: fmean(report[name] for report in reports) for name in names}

    def _update_once(self, batch: FlatBatch) -> dict[str, float]:
        """Make one optimiser update from all micro-batches of a batch."""
        loss_of, options = get_loss(self.config.loss), _loss_options(self.config)
        self.model.train()
        self._optimiser.zero_grad(set_to_none=True)
        parts: list[dict[str, torch.Tensor]] = []
        total = 0.0
        for micro in batch.micro_batches(
            self.config.micro_batch_tokens, self.model.device, need_all=bool(self.config.kl_beta)
        ):
            micro = self._with_reference(micro)
            result = loss_of(
                token_logps(self.model, micro, self.config.temperature), micro.edges, options
            )
            result.loss.backward()
            parts.append(result.metrics)
            total += float(result.loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        for group in self._optimiser.param_groups:
            group["lr"] = self._learning_rate()
        if parts and bool(torch.isfinite(norm)):
            self._optimiser.step()
        self.model.eval()
        self.position = self.position.model_copy(update={"updates": self.position.updates + 1})
        self.engine.set_weights(self.position.updates)
        skipped = not bool(torch.isfinite(norm))
        grad_norm = 0.0 if skipped else float(norm)
        return {
            "loss": total if math.isfinite(total) else 0.0,
            "grad_norm": grad_norm,
            "skipped_updates": float(skipped),
            "trained_rows": float(sum(row.has_gradient for row in batch.rows)),
            **(summarise(parts) if parts else {}),
        }

    def _with_reference(self, micro: MicroBatch) -> MicroBatch:
        if self._reference is None:
            return micro
        with torch.no_grad():
            ref_logp_E = token_logps(self._reference, micro, self.config.temperature)
        edges = copy.copy(micro.edges)
        object.__setattr__(edges, "ref_logp_E", ref_logp_E)
        return MicroBatch(micro.ids_BT, micro.row_E, micro.target_E, edges)

    def _learning_rate(self) -> float:
        """Return the rate of this step: warm-up, then constant or linear to zero."""
        step, config = self.position.next_step, self.config
        if step < config.warmup_steps:
            return config.lr * (step + 1) / config.warmup_steps
        if config.lr_schedule == "constant":
            return config.lr
        done = (step - config.warmup_steps) / (config.steps - config.warmup_steps)
        if config.max_sampled_tokens is not None:
            done = max(done, self.position.sampled_tokens / config.max_sampled_tokens)
        return config.lr * max(0.0, 1.0 - done)

    def _is_spent(self) -> bool:
        limit = self.config.max_sampled_tokens
        return limit is not None and self.position.sampled_tokens >= limit

    def _move_on(self, grown: Grown) -> None:
        self.position = self.position.model_copy(
            update={
                "next_step": self.position.next_step + 1,
                "sampled_tokens": self.position.sampled_tokens + grown.sampled_tokens,
                "tool_calls": self.position.tool_calls + grown.tool_calls,
            }
        )

    def _metrics(self, grown: Grown, update: dict[str, float]) -> dict[str, Any]:
        """Return what the step did; nothing here depends on the clock."""
        trees = [tree for question in grown.questions for tree in question]
        bar = self.pool.core.success_threshold
        rewards = [
            [tree.episode_reward(leaf) for tree in question for leaf in tree.scored_leaves()]
            for question in grown.questions
        ]
        flat = [reward for question in rewards for reward in question]
        ends = Counter(
            str(tree.nodes[leaf].end_reason) for tree in trees for leaf in tree.leaves()
        )
        return {
            "success_rate": fmean(float(r >= bar) for r in flat) if flat else 0.0,
            "reward_mean": fmean(flat) if flat else 0.0,
            "mixed_questions": sum(len(set(question)) > 1 for question in rewards),
            "leaves": len(flat),
            "sampled_tokens": grown.sampled_tokens,
            "tool_calls": grown.tool_calls,
            "sampled_tokens_total": self.position.sampled_tokens,
            "tool_calls_total": self.position.tool_calls,
            "unique_tokens": sum(tree.unique_tokens for tree in trees),
            "flat_tokens": sum(tree.flat_tokens for tree in trees),
            "sharing_ratio": sharing_ratio(trees),
            "fork_depth_mean": fmean(grown.fork_depths) if grown.fork_depths else 0.0,
            "learning_rate": self._optimiser.param_groups[0]["lr"],
            "end_reasons": dict(sorted(ends.items())),
            "failures": dict(sorted(grown.failures.items())),
            **update,
        }

    def _checkpoint(self, step: int, grown: Grown | None) -> None:
        tensors = {
            "model": self.model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
        }
        if grown is not None:
            for question in grown.questions[: self.config.save_trees]:
                for tree in question:
                    tree.step = step
                self._folder.trees(question)
        save_checkpoint(self._checkpoints, self.position, tensors)

    def _check_split(self) -> None:
        """Refuse a wrong split or difficulty now, not in the first step."""
        for question in self._draw_questions(0)[: self.config.questions]:
            self.pool.template.reset(seed=0, options=question.options)


def _score(trees: Sequence[Tree], credit: str) -> list[Scored]:
    """Return the trees of one question with their credit, also noted on each node."""
    credits = get_credit(credit)(trees)
    for tree, one in zip(trees, credits, strict=True):
        for node, advantage in node_advantage(tree, one).items():
            tree.nodes[node].advantage = advantage
    return list(zip(trees, credits, strict=True))


def _check_names(config: TrainConfig) -> None:
    """Refuse an unknown credit, loss or normaliser before anything is loaded."""
    get_credit(config.credit)
    get_loss(config.loss)
    edge_weights([], config.normaliser)


def _loss_options(config: TrainConfig) -> LossOptions:
    names = LossOptions.model_fields
    return LossOptions(**{name: getattr(config, name) for name in names})


def _rollout_settings(config: TrainConfig) -> RolloutSettings:
    names = RolloutSettings.__dataclass_fields__
    return RolloutSettings(**{name: getattr(config, name) for name in names})
