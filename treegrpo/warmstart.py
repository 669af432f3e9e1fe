"""Warm start: supervised training on demonstrations, so that there is something to reinforce.

A demonstration is an episode that a scripted agent played in the environment, rendered by the
model's own chat format. The agent's tokens have weight 1, all others `context_weight`: half
weight on the questions and observations is what teaches a model from scratch to read, and to
copy from what it reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch

from treegrpo.chat import ChatFormat
from treegrpo.envs.core import Message
from treegrpo.envs.digest import stable_seed
from treegrpo.losses import Edges, LossOptions, get_loss


@dataclass(frozen=True)
class WarmStartSettings:
    """How the warm start trains; the defaults suit models of about a million parameters."""

    batch_size: int = 16
    lr: float = 2e-3
    warmup_steps: int = 20
    final_lr_share: float = 0.1
    context_weight: float = 0.5
    weight_decay: float = 0.01
    grad_clip: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Demonstration:
    """One episode: the messages in order, and how it ended."""

    messages: list[Message]
    success: bool
    tools: list[dict[str, Any]]


def record_demonstrations(
    env: gymnasium.Env[str, str],
    begin: Callable[[], None],
    act: Callable[[], str],
    count: int,
    seed: int,
    *,
    options: Mapping[str, Any] | None = None,
    on_episode: Callable[[int, int], None] | None = None,
) -> list[Demonstration]:
    """Return `count` episodes of the training split, played by a scripted agent.

    Args:
        env: an environment whose `unwrapped` is a ToolEnv.
        begin: called after each reset.
        act: returns the agent's next action.
        count: number of episodes.
        seed: decides which questions are posed.
        options: go to each reset.
        on_episode: called with (episodes done, episodes) after each.
    """
    core: Any = env.unwrapped
    tools = core.tool_schemas()
    recorded: list[Demonstration] = []
    for number in range(count):
        _, info = env.reset(
            seed=stable_seed("demonstration", seed, number), options=dict(options or {})
        )
        begin()
        messages, success = _played(env, act, info)
        recorded.append(Demonstration(messages, success, tools))
        if on_episode is not None:
            on_episode(number + 1, count)
    return recorded


def _played(
    env: gymnasium.Env[str, str], act: Callable[[], str], info: Mapping[str, Any]
) -> tuple[list[Message], bool]:
    """Return the messages up to the last action, and whether the episode counts as solved."""
    messages: list[Message] = list(info["messages"])
    while True:
        action = act()
        _, _, terminated, truncated, info = env.step(action)
        messages.append({"role": "assistant", "content": action})
        if terminated or truncated:
            return messages, bool(info["success"])
        messages += info["messages"]


def encode(
    demonstration: Demonstration, chat: ChatFormat, context_weight: float
) -> tuple[list[int], list[float]]:
    """Return (token ids, weight of predicting each) of one demonstration."""
    messages = demonstration.messages
    first = next(i for i, message in enumerate(messages) if message["role"] == "assistant")
    ids = chat.opening_ids(messages[:first], demonstration.tools)
    weights = [context_weight] * len(ids)
    pending: list[Message] = []
    for message in messages[first:]:
        if message["role"] != "assistant":
            pending.append(message)
            continue
        if pending:
            observed = chat.observation_ids(pending)
            ids, weights, pending = ids + observed, weights + [context_weight] * len(observed), []
        action = chat.action_ids(message["content"])
        ids, weights = ids + action, weights + [1.0] * len(action)
    return ids, weights


def warm_start(
    model: Any,
    chat: ChatFormat,
    demonstrations: Sequence[Demonstration],
    settings: WarmStartSettings,
    on_batch: Callable[[int, int, float], None] | None = None,
) -> float:
    """Return the last batches' mean loss, in nats per weighted token; trains in place.

    Args:
        model: a causal language model.
        chat: its chat format.
        demonstrations: each is seen once.
        settings: sizes and rates; `seed` decides the order.
        on_batch: called with (batches done, batches, loss) after each.
    """
    rows = [encode(demo, chat, settings.context_weight) for demo in demonstrations]
    batches = _batches([len(ids) for ids, _ in rows], settings)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings.lr, betas=(0.9, 0.99), weight_decay=settings.weight_decay
    )
    model.train()
    recent: list[float] = []
    for done, batch in enumerate(batches):
        loss = _batch_loss(model, [rows[i] for i in batch])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.grad_clip)
        for group in optimiser.param_groups:
            group["lr"] = _rate(done, len(batches), settings)
        optimiser.step()
        recent = [*recent[-19:], float(loss.detach())]
        if on_batch is not None:
            on_batch(done + 1, len(batches), sum(recent) / len(recent))
    model.eval()
    return sum(recent) / max(1, len(recent))


def _batches(lengths: Sequence[int], settings: WarmStartSettings) -> list[list[int]]:
    """Return shuffled batches of rows of like length, so that little is padding."""
    rng = np.random.default_rng(stable_seed("warm start", settings.seed))
    order = [int(i) for i in rng.permutation(len(lengths))]
    size, batches = settings.batch_size, list[list[int]]()
    for first in range(0, len(order), 16 * size):
        pool = sorted(order[first : first + 16 * size], key=lambda i: lengths[i])
        parts = [pool[i : i + size] for i in range(0, len(pool), size)]
        batches += [parts[int(i)] for i in rng.permutation(len(parts))]
    return batches


def _batch_loss(model: Any, rows: Sequence[tuple[list[int], list[float]]]) -> torch.Tensor:
    length = max(len(ids) for ids, _ in rows)
    ids_BT = torch.zeros(len(rows), length, dtype=torch.long)
    weight_BT = torch.zeros(len(rows), length)
    for index, (ids, weights) in enumerate(rows):
        ids_BT[index, : len(ids)] = torch.tensor(ids)
        weight_BT[index, : len(ids)] = torch.tensor(weights)
    ids_BT, weight_BT = ids_BT.to(model.device), weight_BT.to(model.device)
    logits_BTV = model(input_ids=ids_BT, use_cache=False).logits[:, :-1].float()
    logp_BT = torch.log_softmax(logits_BTV, dim=-1).gather(2, ids_BT[:, 1:, None]).squeeze(2)
    weight_E = weight_BT[:, 1:].flatten()
    edges = Edges.supervised(weight_E / weight_E.sum())
    return get_loss("sft")(logp_BT.flatten(), edges, LossOptions()).loss


def _rate(done: int, total: int, settings: WarmStartSettings) -> float:
    rise = min(1.0, (done + 1) / settings.warmup_steps)
    fall = 1.0 - (1.0 - settings.final_lr_share) * done / max(1, total)
    return settings.lr * rise * max(fall, math.ulp(1.0))
