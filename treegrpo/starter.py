"""A starter: a small model for one environment, built from nothing, that solves some tasks.

Any environment that has an oracle can be trained on at once, with nothing downloaded: the oracle
plays, makes mistakes on purpose, and a model with a tokenizer of its own learns to do the same.
What it does by luck is what training can make it do always.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from treegrpo.chat import ChatFormat
from treegrpo.envs import make
from treegrpo.envs.baselines import oracle_action, random_action
from treegrpo.envs.digest import stable_seed
from treegrpo.envs.errors import TreegrpoError
from treegrpo.envs.snapshot import core_of
from treegrpo.loading import save_model
from treegrpo.starter_settings import StarterSettings
from treegrpo.tiny import build_bpe_tokenizer, build_model
from treegrpo.warmstart import (
    Demonstration,
    WarmStartSettings,
    encode,
    record_demonstrations,
    warm_start,
)

MAX_CONTEXT_TOKENS = 4096
Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Starter:
    """What was built: sizes, the demonstrations' success, and what an episode needs."""

    num_parameters: int
    demonstrated: float
    max_action_tokens: int
    max_context_tokens: int
    loss: float


def build_starter(
    env_id: str,
    folder: Path,
    settings: StarterSettings,
    *,
    advance: Advance = lambda done, total: None,
    note: Callable[[str], None] = lambda text: None,
) -> Starter:
    """Return what was built; the model is written to `folder` as a Hugging Face folder.

    Args:
        env_id: an environment with an oracle.
        folder: replaced if it exists.
        settings: sizes, mistakes, seed.
        advance: called with (done, total) of the stage.
        note: called with the stage's name, and later with the loss.

    Raises:
        TreegrpoError: no oracle, or episodes too long for a model of this size.
    """
    note("demonstrations")
    demonstrations = flawed_demonstrations(env_id, settings, advance)
    texts = [m["content"] for demo in demonstrations for m in demo.messages]
    tokenizer = build_bpe_tokenizer(texts, settings.vocabulary)
    chat = ChatFormat(tokenizer)
    actions, contexts = _lengths(env_id, demonstrations, chat)
    sizes = {"layers": settings.layers, "max_context_tokens": MAX_CONTEXT_TOKENS}
    model = build_model(len(tokenizer), seed=settings.seed, **sizes)
    rates = WarmStartSettings(seed=settings.seed)
    loss = warm_start(model, chat, demonstrations, rates, on_batch=_telling(advance, note))
    save_model(model, tokenizer, folder)
    return Starter(
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        demonstrated=sum(demo.success for demo in demonstrations) / len(demonstrations),
        max_action_tokens=actions,
        max_context_tokens=min(MAX_CONTEXT_TOKENS, contexts + contexts // 4),
        loss=loss,
    )


def flawed_demonstrations(
    env_id: str,
    settings: StarterSettings,
    advance: Advance = lambda done, total: None,
) -> list[Demonstration]:
    """Return episodes of the training split, the oracle's but for its share of mistakes."""
    env = make(env_id)
    core = core_of(env)
    rng = np.random.default_rng(stable_seed("starter", env_id, settings.seed))

    def act() -> str:
        is_mistake = rng.random() < settings.mistakes
        return random_action(core, rng) if is_mistake else oracle_action(core)

    options = {} if settings.difficulty is None else {"difficulty": settings.difficulty}
    try:
        return record_demonstrations(
            env,
            lambda: None,
            act,
            settings.demonstrations,
            settings.seed,
            options=options,
            on_episode=advance,
        )
    except NotImplementedError as error:
        raise TreegrpoError(
            f"A starter for {env_id} asked for; it ships no oracle to learn from. Give it an "
            "oracle(), or train a pretrained model on it."
        ) from error
    finally:
        env.close()


def _telling(advance: Advance, note: Callable[[str], None]) -> Callable[[int, int, float], None]:
    def on_batch(done: int, total: int, loss: float) -> None:
        note(f"loss {loss:.2f}")
        advance(done, total)

    return on_batch


def _lengths(
    env_id: str, demonstrations: Iterable[Demonstration], chat: ChatFormat
) -> tuple[int, int]:
    """Return the most tokens of an action, its end included, and of an episode; if they fit."""
    actions = contexts = 0
    for demo in demonstrations:
        contexts = max(contexts, len(encode(demo, chat, 0.0)[0]))
        said: list[Any] = [m["content"] for m in demo.messages if m["role"] == "assistant"]
        actions = max(actions, *(len(chat.action_ids(text)) for text in said))
    if contexts > MAX_CONTEXT_TOKENS:
        raise TreegrpoError(
            f"A starter for {env_id} asked for; an episode of its oracle has {contexts:,} tokens, "
            f"and a model this small reads {MAX_CONTEXT_TOKENS:,}. Choose an easier level, or "
            "train a pretrained model on it."
        )
    return actions, contexts
