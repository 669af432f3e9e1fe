"""The engine that samples from a vLLM server, which holds a copy of the trainer's weights.

A context is its token ids. The server finds what it has computed of them in its prefix cache,
in whole blocks and as long as it has room for them; a fork copies nothing.

How to start a server: docs/vllm.md. What is said to it: `treegrpo.engine.vllm_server`.
Shapes: N sampled tokens, V vocabulary.
"""

import queue
import tempfile
import uuid
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import httpx
import torch
from safetensors import torch as safetensors_torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from treegrpo.engine.base import (
    Capabilities,
    Context,
    ContextTooLong,
    Engine,
    EngineFailed,
    EngineRefused,
    EngineStats,
    NotFinite,
    ReleasedContext,
    Sampled,
    SamplingParams,
    StaleKV,
)
from treegrpo.engine.vllm_server import Continuation, Served, Server
from treegrpo.envs.errors import TreegrpoError

_SHAPE = (
    "model_type", "hidden_size", "intermediate_size", "num_hidden_layers",
    "num_attention_heads", "num_key_value_heads", "tie_word_embeddings",
)  # fmt: skip
_MAX_GAP, _MAX_GAP_ROUGH = 1e-3, 0.5
"""How far log-probs of equal weights may lie apart: in float32, and in shorter formats."""
_COLDEST = 0.01  # a positive temperature below it is raised to it by the server, without a word


class VLLMContext(Context):
    """A context of `VLLMEngine`: token ids, and the version of the weights that went on."""

    __slots__ = ("ids", "owner", "sampled_at")

    def __init__(
        self, owner: "VLLMEngine", ids: tuple[int, ...], sampled_at: int | None = None
    ) -> None:
        self.owner: VLLMEngine | None = owner
        self.ids, self.sampled_at = ids, sampled_at

    @property
    def length(self) -> int:
        """Tokens so far."""
        return len(self.ids)

    @property
    def version(self) -> int | None:
        """Weight version that it was sampled with; None while nothing was sampled."""
        return self.sampled_at


@dataclass(frozen=True)
class _Running:
    """A submitted context whose continuation is not there yet."""

    params: SamplingParams
    future: Future[Continuation]


class VLLMEngine(Engine):
    """Samples from a vLLM server that gets a copy of a model's weights.

    It must be the only one that gives the server weights: when it is made, and with every
    `set_weights`. Then it compares a few of the server's log-probs with the model's. Close it,
    or use it in a `with` statement.

    Args:
        url: of the server, such as http://127.0.0.1:8000.
        model: the trainer's; borrowed.
        version: weight version that the model holds now.
        weights_folder: in which weights are written for the server, which must see it under the
            same path; by default the system's folder for temporary files.
        entropy_ids: how many ids `first_entropy` is computed from; 0 leaves it 0.0. Costs a
            request of one token per row. All other ids count as one, so it is a lower bound,
            and exact where this is the size of the vocabulary.
        timeout_s: most seconds until one row, or one transfer of weights, is answered.
        transport: how requests travel; the network where None.

    Raises:
        EngineRefused: no server there, of another version, started with other settings than
            needed, or with another model.
    """

    def __init__(
        self,
        url: str,
        model: PreTrainedModel,
        *,
        version: int = 0,
        weights_folder: Path | None = None,
        entropy_ids: int = 0,
        timeout_s: float = 600.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.stats = EngineStats()
        self.version, self.entropy_ids = version, entropy_ids
        self.live_contexts = 0
        self._model, self._folder = model, weights_folder
        self._config = cast(Any, model.config.get_text_config(decoder=True))
        self._vocab = int(self._config.vocab_size)
        self._joining = 0
        self._running: dict[VLLMContext, _Running] = {}
        self._ended: queue.SimpleQueue[tuple[VLLMContext, Future[Continuation]]]
        self._ended = queue.SimpleQueue()
        self._server = Server(url, timeout_s, transport)
        try:
            served = self._server.describe()
            self._require_model(served)
            self._send_weights()
        except EngineFailed as error:
            self.close()
            raise EngineRefused(str(error)) from error
        except BaseException:
            self.close()
            raise
        self.max_length = min(served.max_length, int(self._config.max_position_embeddings))
        self.capabilities = Capabilities(
            keeps_kv=served.keeps_kv, forks_kv=False, same_weights=False, joins_running=True
        )

    def close(self) -> None:
        """Drop what is in flight and let go of the server, which stays up."""
        self._withdraw_all()
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self, ids: Sequence[int]) -> VLLMContext:
        """Return a new context that begins with `ids` (at least one); computes nothing yet."""
        if not ids:
            raise TreegrpoError("A context was asked for with no token; give at least one id.")
        self._require_ids(ids)
        self.live_contexts += 1
        return VLLMContext(self, tuple(ids))

    def prefill(self, context: Context, ids: Sequence[int]) -> None:
        """Append `ids` to the context; the server computes them when it is sampled next."""
        own = self._own(context)
        self._require_ids(ids)
        own.ids += tuple(ids)

    def fork(self, context: Context, k: int) -> list[Context]:
        """Return `k` new contexts equal to this one, which stays usable; computes nothing."""
        own = self._own(context)
        self.live_contexts += k
        return [VLLMContext(self, own.ids, own.sampled_at) for _ in range(k)]

    def release(self, context: Context) -> None:
        """Give up a context; one that is submitted is cancelled at the server."""
        own = self._own(context)
        if running := self._running.pop(own, None):
            running.future.cancel()
        own.owner, own.ids = None, ()
        self.live_contexts -= 1

    def set_weights(self, version: int) -> None:
        """Send the server the weights that the model holds now, and declare their version.

        Raises:
            EngineFailed: the server did not take them; what it holds is then unknown.
        """
        if version < self.version:
            raise TreegrpoError(
                f"Asked to go back to weight version {version}, found {self.version}: KV of "
                "different weights would look alike. Give every set of weights a new number."
            )
        if self._running:
            raise TreegrpoError(
                f"Asked for new weights while {len(self._running)} rows are sampled with the old "
                "ones. Step until they have ended, or release them."
            )
        self.version = version
        self._send_weights()

    def submit(self, context: Context, params: SamplingParams, seed: int) -> None:
        """Ask the server for one continuation of the context; `step` hands it out."""
        own = self._own(context)
        self._require_sampleable(own, params)
        known = frozenset(one for one in params.stop_ids if one < self._vocab)
        future = self._server.sample(
            own.ids, replace(params, stop_ids=known), seed, entropy_ids=self.entropy_ids
        )
        self._running[own] = _Running(params, future)
        self._joining += 1
        future.add_done_callback(lambda done: self._ended.put((own, done)))

    @property
    def submitted(self) -> int:
        """Contexts submitted that have not ended yet."""
        return len(self._running)

    def step(self) -> list[tuple[Context, Sampled]]:
        """Wait until a row has ended, and return all that have."""
        self.stats.sample_calls += self._joining > 0
        self._joining = 0
        ended: list[tuple[Context, Sampled]] = []
        try:
            while self._running and not (ended and self._ended.empty()):
                context, future = self._ended.get()
                running = self._running.get(context)
                if running is not None and running.future is future:  # else it was withdrawn
                    ended.append((context, self._take(context, running)))
        except (EngineFailed, NotFinite):
            self._withdraw_all()
            raise
        return ended

    def _take(self, context: VLLMContext, running: _Running) -> Sampled:
        """Return what a row sampled, appended to its context."""
        found = running.future.result()
        del self._running[context]
        context.ids += tuple(found.ids)
        context.sampled_at = self.version
        self.stats.prefill_tokens += found.prefilled
        self.stats.decode_tokens += len(found.ids) - 1
        self.stats.sampled_tokens += len(found.ids)
        stopped = found.ids[-1] in running.params.stop_ids
        return Sampled(found.ids, found.logps, stopped, found.first_entropy)

    def _withdraw_all(self) -> None:
        for running in self._running.values():
            running.future.cancel()
        self._running.clear()

    def _send_weights(self) -> None:
        """Give the server the model's weights, and prove that it samples with them."""
        with tempfile.TemporaryDirectory(prefix="treegrpo-weights-", dir=self._folder) as name:
            write_weights(self._model, Path(name))
            self._server.load_weights(Path(name), f"{self.version}-{uuid.uuid4().hex}")
        prompt = [(7919 * number + 1) % self._vocab for number in range(8)]
        found = self._server.sample(prompt, SamplingParams(max_tokens=4), self.version).result()
        expected_N = model_logps(self._model, prompt, found.ids).cpu()
        gap = float((torch.tensor(found.logps) - expected_N).abs().max())
        limit = _MAX_GAP if self._model.dtype == torch.float32 else _MAX_GAP_ROUGH
        if not gap <= limit:
            self._server.fail(
                f"its log-probs differ from the model's by {gap:.2g} after it got the weights, "
                f"more than {limit:g}. Start it with the folder of this model, and on a CPU with "
                "untied embeddings, as docs/vllm.md says."
            )

    def _require_model(self, served: Served) -> None:
        """Refuse a server of another model: one that reads unfit weights may end."""
        dtype = str(self._model.dtype).removeprefix("torch.")
        if served.dtype != dtype:
            self._server.refuse(
                f"it computes in {served.dtype}, and the model in {dtype}. Start it with "
                f"--dtype {dtype}."
            )
        positions = int(self._config.max_position_embeddings)
        if served.max_length > positions:
            self._server.refuse(
                f"it serves contexts of {served.max_length} tokens, and the model has "
                f"{positions} positions. Start it with the folder of this model."
            )
        if served.vocab_size != self._vocab:
            self._server.refuse(
                f"it has a vocabulary of {served.vocab_size} ids, and the model one of "
                f"{self._vocab}. Start it with the folder of this model."
            )
        if not 0 <= self.entropy_ids <= served.max_logprobs:
            self._server.refuse(
                f"entropy_ids={self.entropy_ids} was given, and it sends up to "
                f"{served.max_logprobs} log-probs per token. Give fewer, or start it with a "
                "larger --max-logprobs."
            )
        self._require_shape(served.model)

    def _require_shape(self, name: str) -> None:
        try:
            other = cast(Any, AutoConfig).from_pretrained(name, local_files_only=True)
        except (OSError, ValueError):
            self._server.refuse(
                f"the model it serves, '{name}', cannot be found from here. Start it with a "
                "folder that this machine sees under the same path."
            )
        theirs = other.get_text_config(decoder=True)
        for field in _SHAPE:
            pair = getattr(theirs, field, None), getattr(self._config, field, None)
            if pair[0] != pair[1]:
                self._server.refuse(
                    f"it serves a model with {field}={pair[0]!r}, and the trainer's has "
                    f"{pair[1]!r}. Start it with the folder of this model."
                )

    def _own(self, context: Context) -> VLLMContext:
        if not isinstance(context, VLLMContext) or context.owner is not self:
            raise ReleasedContext("a context that was released, or belongs to another engine")
        return context

    def _require_ids(self, ids: Sequence[int]) -> None:
        if ids and (min(ids) < 0 or max(ids) >= self._vocab):
            raise TreegrpoError(
                f"Token ids from {min(ids)} to {max(ids)} were given, the model has "
                f"{self._vocab}. Use the tokenizer the model was trained with."
            )

    def _require_sampleable(self, context: VLLMContext, params: SamplingParams) -> None:
        if context in self._running:
            raise ReleasedContext("a context that is submitted already; fork it to sample it twice")
        if context.version not in (None, self.version):
            raise StaleKV(f"KV of weight version {context.version}, sampled at {self.version}")
        if context.length + params.max_tokens > self.max_length:
            raise ContextTooLong(
                f"Asked for {params.max_tokens} more tokens behind {context.length}, the server "
                f"takes {self.max_length} in all. End the episode earlier."
            )
        if 0.0 < params.temperature < _COLDEST:
            raise TreegrpoError(
                f"Sampling was asked for temperature={params.temperature}; a vLLM server takes 0 "
                f"(greedy) or {_COLDEST} and more."
            )


def model_logps(model: PreTrainedModel, prompt: Sequence[int], ids: Sequence[int]) -> Tensor:
    """Return the model's log-probs of `ids` behind the prompt, float32 [N]."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.inference_mode():
            row = torch.tensor([[*prompt, *ids]], device=model.device)
            logits_NV = model(input_ids=row, use_cache=False).logits[0, len(prompt) - 1 : -1]
            logps_NV = torch.log_softmax(logits_NV.float(), dim=-1)
            return logps_NV.gather(-1, row[0, len(prompt) :, None])[:, 0]
    finally:
        for module in training:
            module.training = True


def write_weights(model: PreTrainedModel, folder: Path) -> None:
    """Write the files a server reads weights from, for any user to read; shows no progress.

    A tied head is written too, in a file of its own: a server on a CPU keeps it apart.
    """
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model.save_pretrained(folder, max_shard_size="100TB")  # one file, so that no index rules
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
    whole = cast(Any, model)
    head = whole.get_output_embeddings()
    if head.weight is whole.get_input_embeddings().weight:
        name = next(name for name, module in whole.named_modules() if module is head)
        cast(Any, safetensors_torch).save_file(
            {f"{name}.weight": head.weight.detach().cpu()}, folder / "head.safetensors"
        )
    folder.chmod(0o755)
    for file in folder.iterdir():
        file.chmod(0o644)
