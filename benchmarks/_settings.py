"""The two settings of tree_vs_chain: what is trained on what, from which warm start.

"search": the demo's task, episodes of 2 to 4 steps. "sql-long": a chain of jobs on a database,
episodes of 10 to 12 steps, every change of which is final. In both the warm-started policy has
favourite mistakes that doom an episode.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium
import numpy as np

from treegrpo.chat import ChatFormat
from treegrpo.cli.demo import FULL, DemoSettings, train_config
from treegrpo.cli.demo_model import build_warm_model
from treegrpo.config import TrainConfig, load_config
from treegrpo.envs import make
from treegrpo.envs.digest import digest, stable_seed
from treegrpo.envs.suite.sql import SQLEnv, vocabulary
from treegrpo.envs.suite.sql.demonstrator import Demonstrator, Mistakes
from treegrpo.envs.suite.sql.jobs import ITEMS
from treegrpo.loading import save_model
from treegrpo.tiny import build_model, build_tokenizer
from treegrpo.warmstart import WarmStartSettings, record_demonstrations, warm_start

Algorithm = Literal["chain", "tree"]
ALGORITHMS: tuple[Algorithm, ...] = ("chain", "tree")
TREE = {"trunks": 4, "forks": 2, "rounds": 1, "credit": "intra_inter"}
NEVER_ENDS = 100_000
"""Training steps: the token budget ends a run long before."""


@dataclass(frozen=True)
class Setting:
    """One setting; the same for both algorithms except for the shape of the rollouts.

    `chains` per question sample about as many tokens as the (4, 2, 1) trees. Every `stride`-th
    test task, from the first, is held out for evaluation.
    """

    name: str
    layers: int
    demonstrations: int
    budget_tokens: int
    questions: int
    chains: int
    lr: float
    eval_tasks: int = 200
    eval_points: int = 4
    stride: int = 1
    warm_batch: int = 16
    warm_lr: float = 2e-3

    def digest(self) -> str:
        """Return 12 hex digits that name these very values and all that follows from them."""
        here = Path()
        configs = [
            run_config(self, algorithm, 0, here, here).model_dump(mode="json")
            for algorithm in ALGORITHMS
        ]
        mistakes = [asdict(Mistakes()), asdict(_demo(self))]
        return digest([asdict(self), configs, mistakes])[:12]


SEARCH = Setting(
    "search",
    layers=FULL.layers,
    demonstrations=FULL.demonstrations,
    budget_tokens=60_000,
    questions=FULL.questions,
    chains=9,
    lr=FULL.lr,
)
SQL_LONG = Setting(
    "sql-long",
    layers=2,
    demonstrations=7_000,
    budget_tokens=160_000,
    questions=8,
    chains=8,
    lr=6e-4,
    stride=3,  # difficulties take turns by index: only level 1
    warm_batch=8,
    warm_lr=3e-3,
)
SETTINGS = {setting.name: setting for setting in (SEARCH, SQL_LONG)}
_SQL_ID, _SQL_LEVEL = "treegrpo/SQL-v0", 1


def build_warm_start(setting: Setting, seed: int, folder: Path) -> None:
    """Write the warm-started model of a setting and seed, on which both algorithms go on."""
    builders: dict[str, Callable[[Setting, int, Path], None]] = {
        "search": _search_model,
        "sql-long": _sql_model,
    }
    builders[setting.name](setting, seed, folder)


def run_config(
    setting: Setting, algorithm: Algorithm, seed: int, model: Path, out: Path
) -> TrainConfig:
    """Return the training configuration of one run."""
    chains = {"trunks": setting.chains, "forks": 0, "rounds": 0, "credit": "group"}
    base: dict[str, Any] = {
        "model": str(model),
        "out": str(out),
        "seed": seed,
        "questions": setting.questions,
        "lr": setting.lr,
        "max_sampled_tokens": setting.budget_tokens,
        "steps": NEVER_ENDS,
        "checkpoint_every": NEVER_ENDS,
        "threads": 1,
        "device": "cpu",
        **(TREE if algorithm == "tree" else chains),
    }
    if setting.name == "search":
        demo = train_config(_demo(setting), "tree", seed, model, out)
        return load_config(base={**demo.model_dump(), **base})
    sql: dict[str, Any] = {
        "env": _SQL_ID,
        "env_kwargs": {"horizon": "long"},
        "difficulty": _SQL_LEVEL,
        "max_action_tokens": 24,
        "max_context_tokens": 512,
    }
    return load_config(base={**sql, **base})


def _demo(setting: Setting) -> DemoSettings:
    return DemoSettings(
        layers=setting.layers,
        demonstrations=setting.demonstrations,
        steps=FULL.steps,
        eval_tasks=setting.eval_tasks,
        lr=setting.lr,
        questions=setting.questions,
    )


def _search_model(setting: Setting, seed: int, folder: Path) -> None:
    build_warm_model(folder, _demo(setting), seed, lambda done, total: None)


def _sql_model(setting: Setting, seed: int, folder: Path) -> None:
    env = OneLevel(make(_SQL_ID, horizon="long"), _SQL_LEVEL)
    core = env.unwrapped
    assert isinstance(core, SQLEnv)
    rng = np.random.default_rng(stable_seed("sql mistakes", seed))
    player = Demonstrator(Mistakes(), rng)
    demonstrations = record_demonstrations(
        env, lambda: player.begin(core), lambda: player.act(core), setting.demonstrations, seed
    )
    texts = [m["content"] for demo in demonstrations for m in demo.messages]
    quoted = [f"'{item}'" for item in ITEMS]
    tokenizer = build_tokenizer([*sorted(vocabulary("long")), *quoted, *texts])
    model = build_model(len(tokenizer), layers=setting.layers, seed=seed)
    settings = WarmStartSettings(batch_size=setting.warm_batch, lr=setting.warm_lr, seed=seed)
    warm_start(model, ChatFormat(tokenizer), demonstrations, settings)
    save_model(model, tokenizer, folder)


class OneLevel(gymnasium.Wrapper[str, str, str, str]):
    """Poses tasks of one difficulty only, whatever a reset leaves open."""

    def __init__(self, env: gymnasium.Env[str, str], difficulty: int) -> None:
        """Wrap the environment."""
        super().__init__(env)
        self._difficulty = difficulty

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Reset to a task of the one difficulty."""
        return self.env.reset(
            seed=seed, options={"difficulty": self._difficulty, **(options or {})}
        )
