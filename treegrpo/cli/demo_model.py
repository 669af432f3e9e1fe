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
from treegrpo.loading import save_model
from treegrpo.tiny import build_model, build_tokenizer
from treegrpo.warmstart import (
    Demonstration,
    WarmStartSettings,
    record_demonstrations,
    warm_start,
)

if TYPE_CHECKING:
    from treegrpo.cli.demo import DemoSettings

Advance = Callable[[int, int], None]
"""Called with (done, total)."""


def build_warm_model(
    folder: Path,
    settings: DemoSettings,
    seed: int,
    advance: Advance,
    note: Callable[[str], None] = lambda text: None,
) -> int:
    """Return the number of parameters of a warm-started model, written as a model folder.

    It has learned the form of tool calls, to read and to copy, and the demonstrator's
    favourite mistakes; it solves some questions by luck only.
    """
    note("demonstrations")
    demonstrations = flawed_demonstrations(settings, seed, advance)
    vocabulary = [name for kind in ("person", "city", "company") for name in names(kind)]
    texts = [m["content"] for demo in demonstrations for m in demo.messages]
    tokenizer = build_tokenizer([*vocabulary, *RELATIONS, *texts])
    model = build_model(len(tokenizer), layers=settings.layers, seed=seed)

    def on_batch(done: int, total: int, loss: float) -> None:
        note(f"loss {loss:.2f}")
        advance(done, total)

    chat = ChatFormat(tokenizer)
    warm_start(model, chat, demonstrations, WarmStartSettings(seed=seed), on_batch=on_batch)
    save_model(model, tokenizer, folder)
    return sum(parameter.numel() for parameter in model.parameters())


def flawed_demonstrations(
    settings: DemoSettings, seed: int, advance: Advance | None = None
) -> list[Demonstration]:
    """Return episodes of a demonstrator that mixes relations up and stops early."""
    env = make("treegrpo/SearchQA-v0")
    core = env.unwrapped
    assert isinstance(core, SearchQAEnv)
    rng = np.random.default_rng(stable_seed("demo mistakes", seed))
    player = Demonstrator(Mistakes(settings.mix_up, settings.stop_early), rng)
    return record_demonstrations(
        env,
        lambda: player.begin(core),
        lambda: player.act(core),
        settings.demonstrations,
        seed,
        on_episode=advance,
    )
