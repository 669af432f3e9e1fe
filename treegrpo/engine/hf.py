"""The reference engine: any Hugging Face causal language model with plain attention KV.

It samples from the very tensors that are trained, on whatever device and in whatever number
format they are. It keeps the KV of every context, so a turn computes its new tokens only.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer

from treegrpo.engine.base import (
    Capabilities,
    Context,
    ContextTooLong,
    Engine,
    EngineRefused,
    EngineStats,
    ReleasedContext,
    Sampled,
    SamplingParams,
    StaleKV,
)
from treegrpo.engine.batch import Batch, Prefix
from treegrpo.engine.kv import BufferCache, KVShape
from treegrpo.envs.errors import TreegrpoError

# These two take an explicit mask of any form; kernels such as flash attention do not.
_MASKED_ATTENTION = ("sdpa", "eager")


class HFContext(Context):
    """A context of `HFEngine`: a prefix, shared with its forks until one of them goes on."""

    __slots__ = ("owner", "prefix")

    def __init__(self, owner: "HFEngine", prefix: Prefix) -> None:
        self.owner: HFEngine | None = owner
        self.prefix = prefix

    @property
    def length(self) -> int:
        """Tokens so far, those not computed yet included."""
        return self.prefix.length

    @property
    def version(self) -> int | None:
        """Weight version of its keys and values; None while nothing is computed."""
        return None if self.prefix.segment is None else self.prefix.segment.version


class HFEngine(Engine):
    """Samples from a Hugging Face model in place.

    Args:
        model: borrowed; put into eval mode while sampling, and back.
        version: weight version that the model holds now.
        max_batch_rows: larger batches are split, rows of like length together. Memory grows
            with it times the longest context.

    Raises:
        EngineRefused: the model keeps state that is not the KV of plain full attention (a
            recurrent state, a sliding window), or uses an attention kernel that takes no mask.
    """

    def __init__(
        self, model: PreTrainedModel, *, version: int = 0, max_batch_rows: int = 256
    ) -> None:
        if max_batch_rows < 1:
            raise TreegrpoError(f"Asked for max_batch_rows={max_batch_rows}; give at least 1.")
        self.stats = EngineStats()
        self.capabilities = Capabilities(keeps_kv=True, forks_kv=True, same_weights=True)
        self.version = version
        self.live_contexts = 0
        self._model = model
        self._max_batch_rows = max_batch_rows
        self._queue: list[tuple[HFContext, SamplingParams, int]] = []
        self._require_masked_attention()
        with sampling_mode(model):
            self._shape = kv_shape(model)
        config = cast(Any, model.config.get_text_config(decoder=True))
        self.max_length = int(config.max_position_embeddings)
        self._vocab = int(config.vocab_size)

    def start(self, ids: Sequence[int]) -> HFContext:
        """Return a new context that begins with `ids` (at least one); computes nothing yet."""
        if not ids:
            raise TreegrpoError("A context was asked for with no token; give at least one id.")
        self._require_ids(ids)
        self.live_contexts += 1
        return HFContext(self, Prefix(None, tuple(ids)))

    def prefill(self, context: Context, ids: Sequence[int]) -> None:
        """Append `ids` to the context; they are computed with the next batch it is part of."""
        own = self._own(context)
        self._require_ids(ids)
        own.prefix = Prefix(own.prefix.segment, own.prefix.pending + tuple(ids))

    def fork(self, context: Context, k: int) -> list[Context]:
        """Return `k` new contexts equal to this one, which stays usable; computes nothing."""
        own = self._own(context)
        self.live_contexts += k
        return [HFContext(self, own.prefix) for _ in range(k)]

    def release(self, context: Context) -> None:
        """Give up a context; forks of it live on. Using it afterwards is an error."""
        own = self._own(context)
        self._queue = [entry for entry in self._queue if entry[0] is not own]
        own.owner = None
        own.prefix = Prefix(None, ())
        self.live_contexts -= 1

    def set_weights(self, version: int) -> None:
        """Declare that the model now holds the weights of `version`; older KV becomes stale."""
        if version < self.version:
            raise TreegrpoError(
                f"Asked to go back to weight version {version}, found {self.version}: KV of "
                "different weights would look alike. Give every set of weights a new number."
            )
        self.version = version

    def submit(self, context: Context, params: SamplingParams, seed: int) -> None:
        """Let the next `step` take up one continuation of the context."""
        own = self._own(context)
        self._require_sampleable(own, params)
        self._queue.append((own, params, seed))

    @property
    def submitted(self) -> int:
        """Contexts submitted that have not ended yet."""
        return len(self._queue)

    def step(self) -> list[tuple[Context, Sampled]]:
        """Sample everything that is submitted to the end, and return it in that order."""
        self._require_masked_attention()  # a trainer may have changed it since
        queue, self._queue = self._queue, []
        ended: dict[int, tuple[Context, Sampled]] = {}
        for params in dict.fromkeys(params for _, params, _ in queue):
            alike = [number for number, entry in enumerate(queue) if entry[1] == params]
            self.stats.sample_calls += 1
            if len(alike) > self._max_batch_rows:  # little padding within each part
                alike.sort(key=lambda number: queue[number][0].length)
            for first in range(0, len(alike), self._max_batch_rows):
                part = alike[first : first + self._max_batch_rows]
                sampled = self._run([queue[number] for number in part], params)
                for number, one in zip(part, sampled, strict=True):
                    ended[number] = (queue[number][0], one)
        return [ended[number] for number in range(len(queue))]

    def _run(
        self, rows: Sequence[tuple[HFContext, SamplingParams, int]], params: SamplingParams
    ) -> list[Sampled]:
        """Return one batch, run to the end of its longest row; its contexts move on."""
        with sampling_mode(self._model):
            batch = Batch(
                forward=self._forward,
                shape=self._shape,
                prefixes=[context.prefix for context, _, _ in rows],
                params=params,
                uniform_BN=uniform([seed for _, _, seed in rows], params),
                version=self.version,
                stats=self.stats,
            )
            results = batch.run()
        for (context, _, _), result in zip(rows, results, strict=True):
            context.prefix = result.prefix
        return [result.sampled for result in results]

    def _forward(
        self, ids_BT: Tensor, mask_B1TC: Tensor, positions_BT: Tensor, cache: BufferCache
    ) -> Tensor:
        output = self._model(
            input_ids=ids_BT,
            attention_mask=mask_B1TC,
            position_ids=positions_BT,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return output.logits[:, -1]

    def _own(self, context: Context) -> HFContext:
        if not isinstance(context, HFContext) or context.owner is not self:
            raise ReleasedContext("a context that was released, or belongs to another engine")
        return context

    def _require_ids(self, ids: Sequence[int]) -> None:
        if ids and (min(ids) < 0 or max(ids) >= self._vocab):
            raise TreegrpoError(
                f"Token ids from {min(ids)} to {max(ids)} were given, the model has "
                f"{self._vocab}. Use the tokenizer the model was trained with."
            )

    def _require_sampleable(self, row: HFContext, params: SamplingParams) -> None:
        self._require_masked_attention()  # a trainer may have changed it since
        if any(context is row for context, _, _ in self._queue):
            raise ReleasedContext("a context that is submitted already; fork it to sample it twice")
        if row.version not in (None, self.version):
            raise StaleKV(f"KV of weight version {row.version}, sampled at {self.version}")
        if row.length + params.max_tokens > self.max_length:
            raise ContextTooLong(
                f"Asked for {params.max_tokens} more tokens behind {row.length}, the model "
                f"has {self.max_length} positions. End the episode earlier."
            )

    def _require_masked_attention(self) -> None:
        found = str(cast(Any, self._model.config)._attn_implementation)
        if found not in _MASKED_ATTENTION:
            raise EngineRefused(
                f"The engine hands the model one mask per row; its attention is {found!r}, which "
                "takes none. Load it with attn_implementation='sdpa'."
            )


def uniform(seeds: Sequence[int], params: SamplingParams) -> Tensor:
    """Return the draws of each row, float64 [B, N]; a row's depend on its seed alone."""
    draws = np.zeros((len(seeds), params.max_tokens))
    if params.temperature > 0:
        for row, seed in enumerate(seeds):
            np.random.Generator(np.random.Philox(key=seed)).random(out=draws[row])
    return torch.from_numpy(draws)


@contextmanager
def sampling_mode(model: PreTrainedModel) -> Generator[None]:
    """Eval mode without gradients; every module gets its own mode back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True


def kv_shape(model: PreTrainedModel) -> KVShape:
    """Return the shape of the model's KV, from one token run through it; refuse other state."""
    name = type(model).__name__
    try:
        cache = DynamicCache(config=model.config)
        kinds = sorted({type(layer).__name__ for layer in cache.layers} - {DynamicLayer.__name__})
        if not kinds:
            ids = torch.zeros((1, 1), dtype=torch.long, device=model.device)
            model(input_ids=ids, past_key_values=cache, use_cache=True)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        found = f"a model that takes no KV cache ({error})"
        raise EngineRefused(_REFUSAL.format(name=name, found=found)) from error
    if kinds:
        raise EngineRefused(_REFUSAL.format(name=name, found=f"layers kept in {', '.join(kinds)}"))
    pairs = [(cast(Any, layer).keys, cast(Any, layer).values) for layer in cache.layers]
    keys = cast(Tensor | None, pairs[0][0] if pairs else None)
    if keys is None or {t.shape for pair in pairs for t in pair if t is not None} != {keys.shape}:
        raise EngineRefused(_REFUSAL.format(name=name, found="layers that keep no or unlike KV"))
    return KVShape(len(pairs), keys.shape[1], keys.shape[3], keys.dtype, keys.device)


_REFUSAL = (
    "The engine was asked to sample from {name} and to fork its KV; it found {found}. "
    "Use a model all of whose layers are full attention, such as Qwen2, Qwen3 or Llama."
)
