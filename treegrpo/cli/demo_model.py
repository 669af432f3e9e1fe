"""The demo's model: built from nothing and warm-started on demonstrations with mistakes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from treegrpo.chat import ChatFormat
from treegrpo.envs import make
from treegrpo.envs.digest import stable_seed
from treegrpo.envs.suite.search_qa.env import SearchQAEnv
from treegrpo.envs.suite.search_qa.oracle import Demonstrator, Mistakes
from treegrpo.envs.suite.search_qa.worlds import RELATIONS, names
from treegrpo.tiny import build_model, build_tokenizer, save_model
from treegrpo.warmstart import WarmStartSettings, record_demonstrations, warm_start

if TYPE_CHECKING:
    from treegrpo.cli.demo import DemoSettings


def build_warm_model(
    folder: Path, settings: DemoSettings, seed: int, advance: Callable[[int, int], None]
) -> None:
    """Write a warm-started model as a Hugging Face folder.

    It has learned the form of tool calls, to read and to copy, and the demonstrator's
    favourite mistakes; it solves some questions by luck only.
    """
    env = make("treegrpo/SearchQA-v0")
    core = env.unwrapped
    assert isinstance(core, SearchQAEnv)
    rng = np.random.default_rng(stable_seed("demo mistakes", seed))
    player = Demonstrator(Mistakes(settings.mix_up, settings.stop_early), rng)
    demonstrations = record_demonstrations(
        env, lambda: player.begin(core), lambda: player.act(core), settings.demonstrations, seed
    )
    vocabulary = [name for kind in ("person", "city", "company") for name in names(kind)]
    texts = [m["content"] for demo in demonstrations for m in demo.messages]
    tokenizer = build_tokenizer([*vocabulary, *RELATIONS, *texts])
    model = build_model(len(tokenizer), layers=settings.layers, seed=seed)
    warm_start(
        model,
        ChatFormat(tokenizer),
        demonstrations,
        WarmStartSettings(seed=seed),
        on_batch=lambda done, total, loss: advance(done, total),
    )
    save_model(model, tokenizer, folder)
