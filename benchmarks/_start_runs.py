"""One run of start_states: warm start, training to the token budget, success from reset.

Whatever is finished lies in a cache folder as one file per run, named by the setting's digest,
so an interrupted benchmark goes on where it was.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import JsonValue
from transformers.utils import logging

from benchmarks._record import commit
from benchmarks._start_corridor import (
    ENV_ID,
    RIGHT,
    ROOMS,
    Corridor,
    demonstrations,
    every_text,
)
from treegrpo.chat import ChatFormat
from treegrpo.config import TrainConfig, load_config
from treegrpo.envs.digest import digest, stable_seed
from treegrpo.loading import save_model
from treegrpo.rollout import Question, RolloutSettings, Scheduler
from treegrpo.rollout.starts.oracle_prefix import Learned
from treegrpo.runfolder import write_text
from treegrpo.tiny import build_model, build_tokenizer
from treegrpo.trainer import StepReport, Trainer
from treegrpo.warmstart import WarmStartSettings, encode, record_demonstrations, warm_start

Row = dict[str, Any]
Arm = Literal["reset", "oracle_prefix"]
ARMS: tuple[Arm, ...] = ("reset", "oracle_prefix")
NEVER_ENDS = 100_000
"""Training steps: the token budget ends a run long before."""
_EVAL_BATCH = 250
"""Episodes that are played side by side in an evaluation."""


@dataclass(frozen=True)
class Setting:
    """What both arms share; they differ in `start` alone.

    Success is measured on `end_tasks` held-out tasks, an episode each, at the start and the end
    of a run, where a rate near 0 is to be told from 0, and on `eval_tasks` of them after each
    part of the budget.
    """

    right_words: float = 0.57
    demonstrations: int = 4_000
    layers: int = 1
    width: int = 64
    warm_batch: int = 8
    warm_lr: float = 4e-3
    budget_tokens: int = 40_000
    questions: int = 4
    lr: float = 1.5e-3
    lr_schedule: str = "constant"
    share: float = 0.5
    eval_tasks: int = 200
    end_tasks: int = 2_000
    eval_points: int = 8
    exact_tasks: int = 400

    def digest(self) -> str:
        """Return 12 hex digits that name these very values and all that follows from them."""
        here = Path()
        configs = [run_config(self, arm, 0, here, here).model_dump(mode="json") for arm in ARMS]
        return digest([asdict(self), configs, RIGHT])[:12]


FULL = Setting()


def run_config(setting: Setting, arm: Arm, seed: int, model: Path, out: Path) -> TrainConfig:
    """Return the training configuration of one run: the defaults, and what the task needs."""
    options = {"share": setting.share} if arm == "oracle_prefix" else {}
    base: dict[str, Any] = {
        "model": str(model),
        "env": ENV_ID,
        "env_kwargs": {"format": "xml"},
        "out": str(out),
        "seed": seed,
        "questions": setting.questions,
        "lr": setting.lr,
        "lr_schedule": setting.lr_schedule,
        "start": arm,
        "start_options": options,
        "max_sampled_tokens": setting.budget_tokens,
        "max_action_tokens": 6,
        "max_context_tokens": 256,
        "steps": NEVER_ENDS,
        "checkpoint_every": NEVER_ENDS,
        "save_trees": 0,
        "threads": 1,
        "device": "cpu",
    }
    return load_config(base=base)


def finished_runs(setting: Setting, seeds: list[int], cache: Path) -> Iterator[Row]:
    """Yield every run as soon as it is there, both arms of a seed from one warm start."""
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    code = commit()  # now: files may change while this process goes on with what it loaded
    folder = cache / setting.digest()
    for seed in seeds:
        for arm in ARMS:
            file = folder / f"{arm}-seed{seed}.json"
            if not file.exists():
                row = train_run(setting, arm, seed, _warm_start(setting, seed, folder))
                write_text(file, json.dumps({**row, "commit": code}) + "\n")
            yield json.loads(file.read_text(encoding="utf-8"))


def train_run(setting: Setting, arm: Arm, seed: int, warm: Path) -> Row:
    """Return one run: totals, and a point (tokens so far, success) per evaluation."""
    with tempfile.TemporaryDirectory() as out:
        trainer = Trainer(run_config(setting, arm, seed, warm, Path(out) / "run"))
        log = Log(trainer, setting, seed)
        log.evaluate(setting.end_tasks)
        trainer.run(on_step=log.step)
        log.evaluate(setting.end_tasks)
        trainer.close()
    first, last = log.points[0], log.points[-1]
    return {
        "arm": arm,
        "seed": seed,
        "engine": trainer.config.engine,
        "sampled_tokens": log.tokens,
        "success_start": first["success"],
        "success_end": last["success"],
        "solved_start": first["solved"],
        "solved_end": last["solved"],
        "episodes_start_end": setting.end_tasks,
        "right_word_start": first["right_word"],
        "points": log.points,
        "off_at_tokens": log.off_at_tokens,
        "steps": log.steps,
        "leaves_in_training": log.leaves,
        "solved_in_training": log.solved,
        "seconds": log.seconds,
        "seconds_warm_start": float((warm / "seconds.txt").read_text(encoding="utf-8")),
    }


@dataclass
class Log:
    """What a run has spent, and its success from reset along the way.

    Attributes:
        points: per evaluation the sampled tokens so far; `success`, the share of `episodes`
            held-out tasks that were `solved`; `chance`, the probability of the oracle's very
            tokens all the way, a mean over tasks without sampling and a little less than
            success, since a closing tag may be missing; `right_word`, that of a single call.
        off_at_tokens: when `oracle_prefix` had been switched off for the first time.
        solved: leaves of the training's trees that were solved, wherever they began.
    """

    trainer: Trainer
    setting: Setting
    seed: int
    points: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    off_at_tokens: int | None = None
    solved: int = 0
    leaves: int = 0
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self._right = RightWay(self.trainer.chat, self.setting.exact_tasks)

    def step(self, report: StepReport) -> None:
        """Add up one training step; evaluate when the next part of the budget is spent."""
        self.steps += 1
        self.tokens += report.metrics["sampled_tokens"]
        self.leaves += report.metrics["leaves"]
        self.solved += round(report.metrics["success_rate"] * report.metrics["leaves"])
        self.seconds += report.seconds["step"]
        if self.off_at_tokens is None and not _is_on(self.trainer.position.start):
            self.off_at_tokens = self.tokens
        due, parts = len(self.points), self.setting.eval_points
        if due < parts and self.tokens * parts >= due * self.setting.budget_tokens:
            self.evaluate(self.setting.eval_tasks)

    def evaluate(self, episodes: int) -> None:
        """Note the success on the first held-out tasks; the same draws every time."""
        solved = solved_from_reset(self.trainer, episodes, self.seed)
        chance, right_word = self._right.chances(self.trainer.model)
        self.points.append(
            {
                "sampled_tokens": self.tokens,
                "success": solved / episodes,
                "solved": solved,
                "episodes": episodes,
                "chance": chance,
                "right_word": right_word,
            }
        )


def solved_from_reset(trainer: Trainer, episodes: int, seed: int) -> int:
    """Return how many of the first held-out tasks the policy solves, one try each."""
    config = trainer.config
    settings = RolloutSettings(
        trunks=1,
        forks=0,
        rounds=0,
        noise=config.noise,
        temperature=config.temperature,
        max_action_tokens=config.max_action_tokens,
        max_context_tokens=config.max_context_tokens,
    )
    scheduler = Scheduler(trainer.engine, trainer.chat, trainer.pool, settings)
    solved = 0
    for first in range(0, episodes, _EVAL_BATCH):
        questions = [
            Question(stable_seed("held out", seed, number), {"split": "test", "index": number})
            for number in range(first, min(first + _EVAL_BATCH, episodes))
        ]
        grown = scheduler.grow(questions)
        rewards = [tree.episode_reward(tree.leaves()[0]) for [tree] in grown.questions]
        solved += sum(reward >= Corridor.success_threshold for reward in rewards)
    return solved


class RightWay:
    """Episodes of the oracle on tasks of no run, as a policy would read them.

    Shapes: E episodes, T tokens, V vocabulary.
    """

    def __init__(self, chat: ChatFormat, episodes: int) -> None:
        env = Corridor(format="xml")
        played = record_demonstrations(env, lambda: None, env.oracle, episodes, seed=1_000_003)
        # No episode is longer than another: nothing is padded.
        rows = [encode(one, chat, context_weight=0.0) for one in played]
        self._ids_ET = torch.tensor([ids for ids, _ in rows])
        self._is_said_ET = torch.tensor([weights for _, weights in rows])[:, 1:]

    @torch.no_grad()
    def chances(self, model: Any) -> tuple[float, float]:
        """Return the chances of the oracle's calls: all those of an episode, and one of them.

        The first is a mean over episodes of the product over their calls; the second the
        geometric mean over calls.
        """
        logits_ETV = model(input_ids=self._ids_ET, use_cache=False).logits[:, :-1].float()
        logp_ETV = torch.log_softmax(logits_ETV, dim=-1)
        logp_ET = logp_ETV.gather(2, self._ids_ET[:, 1:, None]).squeeze(2)
        logp_E = (logp_ET * self._is_said_ET).sum(dim=1)
        return float(logp_E.exp().mean()), float((logp_E.mean() / ROOMS).exp())


def _is_on(start: JsonValue) -> bool:
    """Return whether a start state, as checkpoints hold it, still shortens the way."""
    if start is None:
        return True
    return all(level.is_on for level in Learned.model_validate(start).levels.values())


def _warm_start(setting: Setting, seed: int, folder: Path) -> Path:
    """Return the folder of the warm-started model; built unless it is there."""
    target = folder / f"warm-seed{seed}"
    if not target.exists():
        part = folder / f".warm-seed{seed}.part"
        shutil.rmtree(part, ignore_errors=True)
        started = time.perf_counter()
        build_warm_start(setting, seed, part)
        seconds = time.perf_counter() - started
        (part / "seconds.txt").write_text(f"{seconds}\n", encoding="utf-8")
        os.replace(part, target)
    return target


def build_warm_start(setting: Setting, seed: int, folder: Path) -> None:
    """Write the model that has learned from a walker who is right too rarely."""
    env = Corridor(format="xml")
    played = demonstrations(env, setting.right_words, setting.demonstrations, seed)
    tokenizer = build_tokenizer(every_text())
    model = build_model(len(tokenizer), layers=setting.layers, width=setting.width, seed=seed)
    settings = WarmStartSettings(lr=setting.warm_lr, batch_size=setting.warm_batch, seed=seed)
    warm_start(model, ChatFormat(tokenizer), played, settings)
    save_model(model, tokenizer, folder)
