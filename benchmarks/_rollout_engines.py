"""Sampled tokens a second, side by side: our engines and others, on the same prompts.

Everybody draws at temperature 1 from the whole vocabulary, without a stop token, and returns
the log-probability of each sampled token. Prompts are computed within the time; what is
made once (model, engine, server) is not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from statistics import median
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from transformers import ContinuousBatchingConfig, GenerationConfig

from benchmarks._training_measure import interleaved
from treegrpo.engine.base import Context, Engine, SamplingParams
from treegrpo.engine.hf import HFEngine
from treegrpo.engine.native import NativeEngine

Row: TypeAlias = dict[str, Any]
Ids: TypeAlias = list[int]
Work: TypeAlias = Callable[[], int]
"""Samples once and returns how many tokens were sampled."""
Continue: TypeAlias = Callable[[list[Ids]], int]
"""Does so behind the prompts it is given."""
PAGE = 16


@dataclass(frozen=True)
class Load:
    """What is sampled at a time."""

    rows: int = 64
    prompt_tokens: int = 128
    """Of a prompt, up to an eighth more or less."""
    new_tokens: int = 64
    turns: int = 4
    turn_sampled: int = 16
    turn_observed: int = 16

    @property
    def longest(self) -> int:
        """Most tokens of a row of either setting."""
        turns = self.turns * (self.turn_sampled + self.turn_observed)
        return self.prompt_tokens * 9 // 8 + max(self.new_tokens, turns)


def prompts(vocab: int, load: Load, seed: int = 0) -> list[Ids]:
    """Return different prompts of unequal lengths; ids are random and no special ones."""
    rng = np.random.default_rng(seed)
    spread = load.prompt_tokens // 8
    lengths = rng.integers(load.prompt_tokens - spread, load.prompt_tokens + spread + 1, load.rows)
    return [rng.integers(4, vocab, int(length)).tolist() for length in lengths]


def stopless(model: Any) -> Any:
    """Return the model, whose own defaults no longer end a row at a token."""
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    return model


def rates(model: Any, others: Mapping[str, Engine], load: Load, repeats: int) -> list[Row]:
    """Return a row for each engine and setting; in each repeat everybody samples once.

    Args:
        model: borrowed, from `stopless`; sampled by everybody but `others`.
        others: further engines, by name.
        load: what is sampled.
        repeats: times that count, after one that does not.
    """
    vocab = int(model.config.vocab_size)
    engines: dict[str, Engine] = {
        "native": NativeEngine(model, max_context_tokens=load.longest),
        "hf": HFEngine(model),
        **others,
    }
    alone: dict[str, Continue] = {
        **{name: partial(sample_once, one, load=load) for name, one in engines.items()},
        "generate": partial(generate_once, model, new_tokens=load.new_tokens),
        "continuous_batching": partial(batch_once, model, load=load),
    }
    turns: dict[str, Continue] = {
        **{name: partial(turns_once, one, load=load) for name, one in engines.items()},
        "generate": partial(generate_turns, model, load=load),
    }
    rows: list[Row] = []
    for setting, ways in (("prompts", alone), ("turns", turns)):
        works = {name: on_new_prompts(way, vocab, load) for name, way in ways.items()}
        rows += [{"setting": setting, **row} for row in timed_rows(works, repeats)]
    return rows


def on_new_prompts(way: Continue, vocab: int, load: Load) -> Work:
    """Return work that has other prompts each time, the n-th time the same for every way.

    A server that keeps what it has computed would find old prompts again.
    """
    seeds = count()
    return lambda: way(prompts(vocab, load, next(seeds)))


def timed_rows(works: Mapping[str, Work], repeats: int, device: str = "cpu") -> list[Row]:
    """Return seconds of every repeat for each way to sample, after a run that does not count."""
    tokens = {name: work() for name, work in works.items()}
    timed = {name: partial(_seconds, work, device) for name, work in works.items()}
    seconds = interleaved(timed, repeats)
    return [
        {"engine": name, "tokens": tokens[name], "seconds": found}
        for name, found in seconds.items()
    ]


def rate_metrics(rows: Sequence[Row]) -> dict[str, float]:
    """Return tokens a second: the demo's model by engine, others with their name behind."""
    metrics: dict[str, float] = {}
    for row in rows:
        name = f"tokens_per_s_{row['engine']}"
        name = name if row["setting"] == "prompts" else f"{row['setting']}_{name}"
        name = name if row["model"] == "demo" else f"{name}_{row['model']}"
        metrics[name] = row["tokens"] / median(row["seconds"])
    return metrics


def sample_once(engine: Engine, asked: Sequence[Ids], load: Load) -> int:
    """Let one of our engines continue every prompt."""
    contexts = [engine.start(ids) for ids in asked]
    sampled = engine.sample(contexts, SamplingParams(load.new_tokens), range(len(contexts)))
    _release(engine, contexts)
    return sum(len(one.ids) for one in sampled)


def turns_once(engine: Engine, asked: Sequence[Ids], load: Load) -> int:
    """Grow forks over turns: an eighth of the rows at first, all of them from the second half."""
    rng = np.random.default_rng(1)
    contexts = [engine.start(ids) for ids in asked[: max(1, load.rows // 8)]]
    params, total = SamplingParams(load.turn_sampled), 0
    for turn in range(load.turns):
        if copies := _copies(turn, load):
            parents = contexts
            contexts = [child for one in parents for child in engine.fork(one, copies)]
            _release(engine, parents)
        sampled = engine.sample(contexts, params, [turn * 1000 + n for n in range(len(contexts))])
        total += sum(len(one.ids) for one in sampled)
        for context in contexts:
            engine.prefill(context, _observed(rng, asked, load))
    _release(engine, contexts)
    return total


def generate_once(model: Any, asked: Sequence[Ids], new_tokens: int) -> int:
    """Let the library's `generate` continue every prompt, padded, and keep log-probs."""
    return sum(len(ids) for ids in _generate(model, asked, new_tokens))


def generate_turns(model: Any, asked: Sequence[Ids], load: Load) -> int:
    """Do the work of `turns_once` with `generate`, which computes the whole text each turn."""
    rng = np.random.default_rng(1)
    texts = [list(ids) for ids in asked[: max(1, load.rows // 8)]]
    total = 0
    for turn in range(load.turns):
        if copies := _copies(turn, load):
            texts = [list(ids) for ids in texts for _ in range(copies)]
        sampled = _generate(model, texts, load.turn_sampled)
        total += sum(len(ids) for ids in sampled)
        texts = [
            text + ids + _observed(rng, asked, load)
            for text, ids in zip(texts, sampled, strict=True)
        ]
    return total


def batch_once(model: Any, asked: Sequence[Ids], load: Load) -> int:
    """Let the library's continuous batching continue every prompt, with log-probs.

    Its manager is started and ended within the call. Pages are small, as forks would need.

    Raises:
        RuntimeError: it gave up; what it said stands in its log.
    """
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.CRITICAL)
    pages = sum(-(-(len(ids) + load.new_tokens) // PAGE) for ids in asked)
    config = ContinuousBatchingConfig(
        page_size=PAGE,
        num_blocks=pages + len(asked),
        max_batch_tokens=sum(map(len, asked)),
        return_logprobs=True,
    )
    found = model.generate_batch(
        [list(ids) for ids in asked],
        generation_config=_generation(load.new_tokens),
        continuous_batching_config=config,
    )
    lengths = [len(one.generated_tokens) for one in found.values()]
    logps = [len(one.logprobs) for one in found.values()]
    if lengths != [load.new_tokens] * len(asked) or logps != lengths:
        raise RuntimeError(
            f"Continuous batching was asked for {len(asked)} rows of {load.new_tokens} tokens "
            f"with log-probs; found rows of {lengths} and log-probs of {logps}. Look at the log "
            "of ContinuousBatchingLogger."
        )
    return sum(lengths)


def _generate(model: Any, texts: Sequence[Ids], new_tokens: int) -> list[Ids]:
    """Return what was sampled behind each text, left-padded to one batch."""
    width, device = max(map(len, texts)), model.device
    ids_BT = torch.tensor([[0] * (width - len(ids)) + ids for ids in texts], device=device)
    mask_BT = torch.tensor(
        [[0] * (width - len(ids)) + [1] * len(ids) for ids in texts], device=device
    )
    with torch.inference_mode():
        output = model.generate(
            ids_BT, attention_mask=mask_BT, generation_config=_generation(new_tokens, keep=True)
        )
        new_BN = output.sequences[:, width:]
        logits_BNV = torch.stack(output.logits, dim=1)
        logits_BNV.log_softmax(-1).gather(-1, new_BN[:, :, None]).tolist()
    return cast("list[Ids]", new_BN.tolist())


def _generation(new_tokens: int, *, keep: bool = False) -> GenerationConfig:
    """Return settings that draw from the whole distribution; see `stopless`."""
    return GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=new_tokens,
        pad_token_id=0,
        output_logits=keep,
        return_dict_in_generate=keep,
    )


def _copies(turn: int, load: Load) -> int:
    """Return into how many each context is forked before a turn; 0 for not at all."""
    if turn == 0:
        return 4
    return 2 if turn == load.turns // 2 else 0


def _observed(rng: np.random.Generator, asked: Sequence[Ids], load: Load) -> Ids:
    """Return an observation: ids from a prompt, which every model has."""
    return rng.choice(asked[0], load.turn_observed).tolist()


def _release(engine: Engine, contexts: Sequence[Context]) -> None:
    for context in contexts:
        engine.release(context)


def _seconds(work: Work, device: str) -> float:
    began = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began
