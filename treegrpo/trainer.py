"""The trainer: questions -> trees -> credit -> edges -> loss -> new weights, step after step.

    Trainer(model="my/model", env="treegrpo/SearchQA-v0", out="runs/mine").run()

Sampling and training use the same weight tensors in one process. A run is decided by its
configuration: every draw is named by the seed and the step, so a killed run that resumes from
its checkpoint ends bit for bit like one that was never killed (on CPU).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from treegrpo.attention import get_attention
from treegrpo.chat import ChatFormat
from treegrpo.checkpoint import (
    CheckpointError,
    Position,
    has_checkpoint,
    load_checkpoint,
    require_same_run,
    save_checkpoint,
)
from treegrpo.config import TrainConfig, load_config
from treegrpo.credit import get_credit, node_advantage
from treegrpo.engine.choose import Asked, check_engine, make_engine
from treegrpo.envs.digest import stable_seed
from treegrpo.envs.errors import TreegrpoError
from treegrpo.envs.registry import make
from treegrpo.importance import get_importance
from treegrpo.learner import Learner, ScoredTree
from treegrpo.loading import load_model, pick_device, write_model
from treegrpo.logprobs import FLAT
from treegrpo.losses import check_options, get_loss
from treegrpo.memory import require_training_room
from treegrpo.metrics import rollout_metrics, update_metrics
from treegrpo.rollout import (
    EnvironmentPool,
    Grown,
    Question,
    RolloutSettings,
    Scheduler,
    Status,
)
from treegrpo.rollout.boundary import Opening, pose
from treegrpo.rollout.expansion import Expansion, get_expansion
from treegrpo.rollout.starts import get_start_state
from treegrpo.rollout.timeline import NO_TIMELINE, Timeline
from treegrpo.runfolder import RunFolder, recorded_settings, require_free
from treegrpo.weighting import get_weighting, token_weights


@dataclass(frozen=True)
class StepReport:
    """One step's metrics (decided by the seed) and seconds, for whoever watches.

    Seconds are those of generation, environment and training, and of the whole "step";
    "compute" is the part of training in forward and backward passes, "compute_flat_estimate"
    what that would have been on flat rows.
    """

    step: int
    steps: int
    metrics: dict[str, Any]
    seconds: dict[str, float]


class Trainer:
    """Trains one model on one environment with rollout trees.

    Args:
        config: complete settings; or give the fields of TrainConfig as keywords.
        resume: go on from the newest checkpoint in the run folder, or from the start where the
            run was killed before its first.
        fields: settings by name, such as model=..., env=..., lr=3e-4.

    Raises:
        TreegrpoError: any setting, model, environment or checkpoint that cannot be used; no
            file has been written then.
    """

    def __init__(
        self, config: TrainConfig | None = None, *, resume: bool = False, **fields: Any
    ) -> None:
        self.config = config if config is not None else load_config(base=fields)
        if resume:
            self.config = _with_recorded_steps(self.config)
        _check_names(self.config)
        self._options = self.config.rollout_options
        if self.config.threads is not None:
            torch.set_num_threads(self.config.threads)
        out = Path(self.config.out)
        self._checkpoints = out / "checkpoint"
        settings = self.config.model_dump(mode="json")
        self.position, tensors = Position(settings=settings), None
        if resume:
            self.position, tensors = _resume_point(out, self.config)
        else:
            require_free(out)
        require_training_room(
            self.config.model,
            getattr(torch, self.config.dtype),
            pick_device(self.config.device),
            keeps_reference=self.config.loss_options.kl_beta > 0,
        )
        self.model, self.tokenizer = load_model(
            self.config.model, dtype=self.config.dtype, device=self.config.device
        )
        self.chat = ChatFormat(self.tokenizer, stop_at_tool_call=self.config.stop_at_tool_call)
        expansion = get_expansion(self.config.expansion, self.config.expansion_options)
        self.engine = make_engine(
            self.config.engine,
            self.config.engine_options,
            Asked(
                self.model,
                version=self.position.updates,
                max_context_tokens=self.config.max_context_tokens,
                needs_entropy=expansion.needs_entropy,
            ),
        )
        try:
            self._prepare(out, expansion, tensors, resume=resume)
        except BaseException:
            self.engine.close()
            raise

    def _prepare(
        self, out: Path, expansion: Expansion, tensors: dict[str, Any] | None, *, resume: bool
    ) -> None:
        """Make what works with the model; last the folder: what is refused before leaves none."""
        # Gymnasium's checker is for development; after a failed reset it breaks every step.
        options: dict[str, Any] = {"disable_env_checker": True, **self.config.env_kwargs}
        self.pool = EnvironmentPool(make(self.config.env, **options))
        self._check_options()
        self._importance = get_importance(self.config.importance)
        self._importance.load(self.position.importance)
        self._start = get_start_state(self.config.start, self.config.start_options)
        if self.position.start is not None:
            self._start.load(self.position.start)
        self._learner = Learner(self.model, self.config, self._save_bad_batch)
        self._learner.updates = self.position.updates
        if tensors is not None:
            self._load(tensors)
            self.engine.set_weights(self.position.updates)  # one elsewhere has those before
        self._scheduler = Scheduler(
            self.engine,
            self.chat,
            self.pool,
            _rollout_settings(self.config),
            expansion=expansion,
            start=self._start,
        )
        resume_at = self.position.next_step if resume else None
        self._folder = RunFolder(out, self.config, resume_at=resume_at)

    def run(
        self,
        steps: int | None = None,
        *,
        on_step: Callable[[StepReport], None] | None = None,
        on_status: Callable[[Status], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Return the metrics of the steps that were done, and leave the model in `out/model`.

        Args:
            steps: the length of the run where the configuration does not set one; otherwise
                how many steps to do now. None goes to the end. A run in pieces equals a run
                at once.
            on_step: called after each step.
            on_status: called some times a second while trees grow.

        Raises:
            TreegrpoError: more steps than the run has left; no room to write; the model's
                output is not finite.
        """
        stop = self.config.steps if steps is None else self._stop_after(steps)
        rows: list[dict[str, Any]] = []
        saved_at = self.position.next_step
        while self.position.next_step < stop and not self._is_over():
            step = self.position.next_step
            started = time.perf_counter()
            is_traced = step < self._options.trace_steps
            timeline = Timeline() if is_traced else NO_TIMELINE
            with timeline.span("grow trees", track="trainer"):
                grown = self._scheduler.grow(
                    self._draw_questions(step),
                    max_sampled_tokens=self._tokens_left(),
                    max_tool_calls=self._options.max_tool_calls_per_step,
                    timeline=timeline,
                    watch=on_status,
                )
            trained = time.perf_counter()
            rate = self._learning_rate()
            with timeline.span("train", track="trainer"):
                updates = self._learner.learn(self._score(grown), rate)
            self.engine.set_weights(self._learner.updates)
            finished = time.perf_counter()
            self._move_on(grown)
            metrics = {
                **rollout_metrics(grown, self.pool.core.success_threshold),
                "sampled_tokens_total": self.position.sampled_tokens,
                "tool_calls_total": self.position.tool_calls,
                "learning_rate": rate,
                **update_metrics(updates),
            }
            seconds = {
                "generation": grown.timing.generation,
                "environment": grown.timing.environment,
                "waiting": grown.timing.waiting,
                "training": finished - trained,
                "compute": self._learner.compute_seconds,
                "compute_flat_estimate": self._learner.flat_seconds,
            }
            whole = finished - started
            self._folder.metrics(step, metrics)
            self._folder.timings(step, {**seconds, "total": whole})
            self._folder.failures(step, grown.faults)
            if is_traced:
                timeline.write(Path(self.config.out) / f"trace-{step:06d}.json")
            if self.position.next_step % self.config.checkpoint_every == 0 or self._is_over():
                self._save_trees(step, grown)
                self._checkpoint()
                saved_at = self.position.next_step
            rows.append({"step": step, **metrics})
            if on_step is not None:
                on_step(StepReport(step, self.config.steps, metrics, {**seconds, "step": whole}))
        if self.position.next_step > saved_at:
            self._checkpoint()
        self._folder.model(self.save_model)
        return rows

    def save_model(self, folder: Path) -> None:
        """Write the model and its tokenizer as a Hugging Face folder."""
        write_model(self.model, self.tokenizer, folder)

    def close(self) -> None:
        """Close environments and engine; the model and the run folder stay usable."""
        try:
            self.pool.close()
        finally:
            self.engine.close()

    def _stop_after(self, steps: int) -> int:
        """Return the step to stop before; a run of no configured length gets its length here."""
        if "steps" not in self.config.model_fields_set and self.position.next_step == 0:
            given = self.config.model_dump(exclude_unset=True) | {"steps": steps}
            self.config = load_config(base=given)
            settings = self.config.model_dump(mode="json")
            self.position = self.position.model_copy(update={"settings": settings})
            self._folder.record(self.config)
        left = self.config.steps - self.position.next_step
        if steps > left:
            raise TreegrpoError(
                f"run(steps={steps}) asked for, but {left} of {self.config.steps} steps are "
                "left. Ask for fewer, or start a run with more steps: Trainer(..., steps=N)."
            )
        return self.position.next_step + steps

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

    def _score(self, grown: Grown) -> list[list[ScoredTree]]:
        """Return all trees with their credit, which is also noted on each node for display."""
        credit = get_credit(self.config.credit)
        credits = self._importance.apply(grown.questions, [credit(q) for q in grown.questions])
        self._importance.observe(grown.questions)
        self._start.observe(grown.questions)
        scored = [
            list(zip(trees, of_trees, strict=True))
            for trees, of_trees in zip(grown.questions, credits, strict=True)
        ]
        for tree, one in (pair for question in scored for pair in question):
            for node, advantage in node_advantage(tree, one).items():
                tree.nodes[node].advantage = advantage
        return scored

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

    def _tokens_left(self) -> int | None:
        """Return what the next step may sample; None without a limit."""
        limit, of_step = self._run_tokens_left(), self._options.max_sampled_tokens_per_step
        return min((one for one in (limit, of_step) if one is not None), default=None)

    def _run_tokens_left(self) -> int | None:
        limit = self.config.max_sampled_tokens
        return None if limit is None else limit - self.position.sampled_tokens

    def _is_over(self) -> bool:
        """Return whether all steps are done, or not even one action fits the run's budget."""
        left = self._run_tokens_left()
        is_spent = left is not None and left < self.config.max_action_tokens
        return self.position.next_step >= self.config.steps or is_spent

    def _move_on(self, grown: Grown) -> None:
        self.position = self.position.model_copy(
            update={
                "next_step": self.position.next_step + 1,
                "sampled_tokens": self.position.sampled_tokens + grown.sampled_tokens,
                "tool_calls": self.position.tool_calls + grown.tool_calls,
                "updates": self._learner.updates,
                "importance": self._importance.state(),
                "start": self._start.state(),
            }
        )

    def _save_trees(self, step: int, grown: Grown) -> None:
        for question in grown.questions[: self.config.save_trees]:
            for tree in question:
                tree.step = step
            self._folder.trees(question)

    def _save_bad_batch(self, record: dict[str, Any]) -> str:
        return self._folder.bad_batch(self.position.next_step, record)

    def _checkpoint(self) -> None:
        self._folder.sync()
        optimiser = self._learner.optimiser.state_dict()
        tensors = {"model": self.model.state_dict(), "optimiser": optimiser}
        save_checkpoint(self._checkpoints, self.position, tensors)

    def _load(self, tensors: dict[str, Any]) -> None:
        """Take over the weights and the optimiser of a checkpoint."""
        try:
            self.model.load_state_dict(tensors["model"])
            self._learner.optimiser.load_state_dict(tensors["optimiser"])
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"The checkpoint in '{self._checkpoints}' was asked for, but it does not fit "
                f"the model '{self.config.model}' ({str(error).splitlines()[0]}). Put back the "
                "model that the run began with, or choose another out folder."
            ) from error

    def _check_options(self) -> None:
        """Refuse a wrong split, difficulty or length now, not in the first step."""
        options = [question.options for question in self._draw_questions(0)]
        posed = [pose(self.pool, 0, one) for one in {str(one): one for one in options}.values()]
        tools = self.pool.core.tool_schemas()
        lengths = [
            len(self.chat.opening_ids(o.messages, tools)) for o in posed if isinstance(o, Opening)
        ]
        model_limit = self.engine.max_length
        limit = min(self.config.max_context_tokens, model_limit)
        if lengths and min(lengths) + self.config.max_action_tokens > limit:
            raise TreegrpoError(
                f"Episodes of at most {limit} tokens were asked for (max_context_tokens="
                f"{self.config.max_context_tokens}, the model has {model_limit} positions), but a "
                f"prompt has {min(lengths)} and an action up to {self.config.max_action_tokens}. "
                "Raise max_context_tokens, lower max_action_tokens, or use another model."
            )


def _resume_point(out: Path, config: TrainConfig) -> tuple[Position, dict[str, Any] | None]:
    """Return position and tensors to go on from; no tensors where a run was killed early."""
    recorded = recorded_settings(out)
    if not has_checkpoint(out / "checkpoint") and recorded is not None:
        require_same_run(recorded, config, out)
        return Position(settings=config.model_dump(mode="json")), None
    position, tensors = load_checkpoint(out / "checkpoint")
    require_same_run(position.settings, config, out)
    return position, tensors


def _with_recorded_steps(config: TrainConfig) -> TrainConfig:
    """Return the configuration with the length that run(steps) gave the run in its folder."""
    recorded = recorded_settings(Path(config.out))
    if recorded is None or "steps" in config.model_fields_set:
        return config
    return load_config(base=config.model_dump(exclude_unset=True) | {"steps": recorded["steps"]})


def _check_names(config: TrainConfig) -> None:
    """Refuse an unknown name and an idle loss option before anything is loaded."""
    get_credit(config.credit)
    get_importance(config.importance)
    _check_expansion(config, get_expansion(config.expansion, config.expansion_options))
    get_start_state(config.start, config.start_options)
    check_engine(config.engine, config.engine_options)
    get_weighting(config.weighting)
    check_options(config.loss, config.loss_options)
    if config.normaliser is not None:
        token_weights([], [], config.normaliser, constant_tokens=1)
    if config.attention not in ("auto", FLAT):
        get_attention(config.attention)
    loss = get_loss(config.loss)
    ignored = {"credit", "importance", "weighting", "normaliser"} & config.model_fields_set
    if loss.over_pairs and ignored:
        raise TreegrpoError(
            f"{', '.join(sorted(ignored))} asked for with loss={config.loss}, which learns from "
            "pairs of sibling steps and uses none of it. Leave it out, or choose another loss."
        )
    if loss.name == "sft":
        raise TreegrpoError(
            "loss=sft asked for, which ignores rewards and would imitate failures as well. "
            "Use loss=grpo; treegrpo.warmstart trains on demonstrations."
        )


def _check_expansion(config: TrainConfig, expansion: Expansion) -> None:
    """Refuse settings that the expansion does not read, and one that can fork nothing."""
    if config.rounds > 1 and type(expansion).at_rest is Expansion.at_rest:
        raise TreegrpoError(
            f"rounds={config.rounds} asked for with expansion={config.expansion}, which forks "
            "trees while they grow and knows no rounds. Set rounds=1, or choose expansion=random."
        )
    if not config.forks and config.expansion != TrainConfig.model_fields["expansion"].default:
        raise TreegrpoError(
            f"expansion={config.expansion} asked for with forks=0, which grows plain chains. "
            "Set forks and rounds to 1 or more, or leave the expansion out."
        )


def _rollout_settings(config: TrainConfig) -> RolloutSettings:
    names = RolloutSettings.__dataclass_fields__
    return RolloutSettings(**{name: getattr(config, name) for name in names})
