"""A vLLM server over HTTP: what it serves, sampling by token ids, new weights.

All that depends on the version of the server is in this file. Requests run in a thread of
their own; weights travel as a folder that the server reads. All KV carries the label of the
weights: the server's prefix cache matches only KV of the same label, and an answer computed
under another one is refused.
"""

import asyncio
import hashlib
import math
import re
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import httpx
from pydantic import BaseModel, Field, ValidationError

from treegrpo.engine.base import EngineFailed, EngineRefused, NotFinite, SamplingParams

SUPPORTED = ("0.32",)
"""Minor versions of the server that this file was tried with."""

_GENERATE = "/inference/v1/generate"
_NO_LOGP = -9999.0  # what the server sends for a log-prob that is not finite
_CONNECTIONS = 256  # requests on their way at a time; more wait here

T = TypeVar("T")
Answer = TypeVar("Answer", bound=BaseModel)


class _Done(BaseModel):
    pass


class _Version(BaseModel):
    version: str


class _Reset(BaseModel):
    success: bool


class _ModelConfig(BaseModel):
    model: str
    dtype: str
    max_model_len: int
    max_logprobs: int
    logprobs_mode: str


class _CacheConfig(BaseModel):
    enable_prefix_caching: bool


class _SchedulerConfig(BaseModel):
    enable_chunked_prefill: bool


class _DeviceConfig(BaseModel):
    device: str


class _Config(BaseModel):
    model: _ModelConfig = Field(alias="model_config")
    cache: _CacheConfig = Field(alias="cache_config")
    scheduler: _SchedulerConfig = Field(alias="scheduler_config")
    device: _DeviceConfig = Field(alias="device_config")


class _Info(BaseModel):
    vllm_config: _Config


class _LogProb(BaseModel):
    token_id: int
    logprob: float


class _SampledLogProb(_LogProb):
    top_logprobs: list[_LogProb]


class _LogProbs(BaseModel):
    content: list[_SampledLogProb]


class _Weights(BaseModel):
    version: str


class _Choice(BaseModel):
    token_ids: list[int] = Field(min_length=1)
    finish_reason: str
    logprobs: _LogProbs
    weight_versions: list[_Weights]


class _Cached(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int
    prompt_tokens_details: _Cached | None = None


class _Generated(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage

    @property
    def prefilled(self) -> int:
        """Prompt tokens computed; all of them where the server does not say what it had."""
        details = self.usage.prompt_tokens_details
        return self.usage.prompt_tokens - ((details and details.cached_tokens) or 0)


@dataclass(frozen=True)
class Served:
    """What a server serves."""

    model: str
    """A folder, or the id of a model."""
    vocab_size: int
    max_length: int
    """Most tokens of a context, sampled ones included."""
    dtype: str
    """Number format of the weights, such as "float32"."""
    max_logprobs: int
    """Most ids whose log-probs can be had per token."""
    keeps_kv: bool
    """It finds again what it has computed of a context."""


@dataclass(frozen=True)
class Continuation:
    """What the server sampled behind a context."""

    ids: list[int]
    logps: list[float]
    first_entropy: float
    """In nats, of what the first id was drawn from; 0.0 where it was not asked for."""
    prefilled: int
    """Prompt tokens that were computed."""


class _Gone(EngineFailed):
    """The connection broke."""


class _Denied(EngineFailed):
    """The server answered with an error, or in a form that is not known."""

    def __init__(self, message: str, status: int, text: str) -> None:
        super().__init__(message)
        self.status, self.text = status, text


class Server:
    """One vLLM server, asked over HTTP; close it.

    Args:
        url: such as http://127.0.0.1:8000.
        timeout_s: most seconds until one request is answered.
        transport: how requests travel; the network where None.

    Raises:
        EngineRefused: that is no URL.
    """

    def __init__(
        self, url: str, timeout_s: float, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._url = url
        self._label = "none"
        # Connecting again repeats nothing. Idle connections are closed before the server does
        # it, so that no request meets a closed door.
        limits = httpx.Limits(max_connections=_CONNECTIONS, keepalive_expiry=2.0)
        try:
            self._client = httpx.AsyncClient(
                base_url=url,
                transport=transport or httpx.AsyncHTTPTransport(retries=2, limits=limits),
                timeout=httpx.Timeout(timeout_s, connect=5.0, pool=None),
            )
        except httpx.InvalidURL as error:
            self.refuse(f"that is no URL ({error}). Give one such as http://127.0.0.1:8000.")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Drop what is in flight and end the thread; the server stays up."""
        if not self._loop.is_closed():
            self._send(self._end()).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def describe(self) -> Served:
        """Return what the server serves.

        Raises:
            EngineRefused: nothing there, another version, or started without what is needed.
        """
        self._require_version()
        try:
            info = self._wait("GET", "/server_info?config_format=json", _Info)
        except _Denied:
            self.refuse(
                "it takes no new weights while it runs. Start it with VLLM_SERVER_DEV_MODE=1 in "
                "its environment, on an address that only this machine reaches."
            )
        config = info.vllm_config
        self._require_settings(config)
        vocab_size = self._vocab_size()
        most = config.model.max_logprobs
        return Served(
            model=config.model.model,
            vocab_size=vocab_size,
            max_length=config.model.max_model_len,
            dtype=config.model.dtype.removeprefix("torch."),
            max_logprobs=vocab_size if most == -1 else most,
            keeps_kv=config.cache.enable_prefix_caching,
        )

    def load_weights(self, folder: Path, label: str) -> None:
        """Let the server read the weights in a folder and forget all KV of older ones.

        Raises:
            EngineFailed: it did not; what it holds is then unknown.
        """
        self._label = label
        reload = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
        try:
            self._wait("POST", "/collective_rpc", _Done, reload)
        except _Denied as error:
            self.fail(
                f"it could not read the weights in '{folder}': {error.text}. It must see that "
                "folder under the same path (see weights_folder). It may have ended: start it "
                "again, and resume the run."
            )
        reset = "/reset_prefix_cache?reset_running_requests=true"
        if not self._wait("POST", reset, _Reset).success:
            self.fail("it did not forget the KV of older weights. Start it again.")
        self._wait("POST", "/update_weight_version", _Done, {"new_version": label})

    def sample(
        self, ids: Sequence[int], params: SamplingParams, seed: int, *, entropy_ids: int = 0
    ) -> Future[Continuation]:
        """Ask for one continuation of `ids`; return what will hold it.

        Cancelling the future cancels the row at the server. Its errors are EngineFailed and
        NotFinite.

        Args:
            ids: at least one, all in the vocabulary: the server ends at one that is not.
            params: with stop ids of the vocabulary.
            seed: non-negative, below 2**128.
            entropy_ids: how many ids `first_entropy` is computed from, in a request of its own.
        """
        return self._send(self._sample(self._request(ids, params, seed), entropy_ids))

    def fail(self, found: str) -> NoReturn:
        """Raise EngineFailed: what was found, and what to do."""
        raise EngineFailed(f"The vLLM server at {self._url} was asked to sample, but {found}")

    def refuse(self, found: str) -> NoReturn:
        """Raise EngineRefused: what was found, and what to do."""
        raise EngineRefused(f"Sampling by a vLLM server at {self._url} was asked for, but {found}")

    def _require_version(self) -> None:
        try:
            found = self._wait("GET", "/version", _Version).version
        except _Denied:
            self.refuse("what answers there is no vLLM server. Correct the URL.")
        except EngineFailed as error:
            self.refuse(
                f"nothing answers there ({error.__cause__!r}). Start it as docs/vllm.md says, or "
                "correct the URL."
            )
        if not re.match(rf"({'|'.join(map(re.escape, SUPPORTED))})(\.|$)", found):
            self.refuse(
                f"its version is {found}, and supported is {', '.join(SUPPORTED)}. Install that "
                "in the server's own venv, as docs/vllm.md says."
            )

    def _require_settings(self, config: _Config) -> None:
        if config.model.logprobs_mode != "processed_logprobs":
            self.refuse(
                f"its log-probs are {config.model.logprobs_mode}, not those of the distribution "
                "it draws from. Start it with --logprobs-mode processed_logprobs."
            )
        if config.device.device == "cpu" and config.scheduler.enable_chunked_prefill:
            self.refuse(
                "on a CPU it ends when it splits the prompt of a row that has a seed. Start it "
                "with --no-enable-chunked-prefill."
            )

    def _vocab_size(self) -> int:
        """Return the size that the server names when it declines an id far outside."""
        request = self._request([0], SamplingParams(max_tokens=1), 0)
        request["sampling_params"]["stop_token_ids"] = [2**31 - 1]
        try:
            self._wait("POST", _GENERATE, _Done, request)
            text = "nothing"
        except _Denied as error:
            if error.status in (403, 404):
                self.refuse("it takes no token ids. Start it with --tokens-only.")
            text = error.text
        if not (match := re.search(r"Vocabulary size: (\d+)", text)):
            self.refuse(f"it does not name its vocabulary, but says: {text}. See docs/vllm.md.")
        return int(match[1])

    def _request(self, ids: Sequence[int], params: SamplingParams, seed: int) -> dict[str, Any]:
        """Return a request for tokens; only the stop ids end it, not the model's end of text."""
        digest = hashlib.blake2b(seed.to_bytes(16, "big"), digest_size=8).digest()
        return {
            "token_ids": list(ids),
            "cache_salt": self._label,
            "sampling_params": {
                "max_tokens": params.max_tokens,
                "temperature": params.temperature,
                "seed": int.from_bytes(digest, "big") >> 1,  # the server's are signed
                "stop_token_ids": sorted(params.stop_ids),
                "ignore_eos": True,
                "logprobs": 0,
            },
        }

    async def _sample(self, request: dict[str, Any], entropy_ids: int) -> Continuation:
        prefilled, first_entropy = 0, 0.0
        if entropy_ids:
            first = request["sampling_params"] | {"max_tokens": 1, "logprobs": entropy_ids}
            probe = await self._generate(request | {"sampling_params": first})
            first_entropy = entropy(
                [entry.logprob for entry in probe.choices[0].logprobs.content[0].top_logprobs]
            )
            prefilled = probe.prefilled
        generated = await self._generate(request)
        choice = generated.choices[0]
        logps = [entry.logprob for entry in choice.logprobs.content]
        return Continuation(choice.token_ids, logps, first_entropy, prefilled + generated.prefilled)

    async def _generate(self, request: dict[str, Any]) -> _Generated:
        """Return a checked answer; what was cut off is asked once more, for it changes nothing."""
        try:
            generated = await self._ask("POST", _GENERATE, _Generated, request)
        except _Gone:
            generated = await self._ask("POST", _GENERATE, _Generated, request)
        choice = generated.choices[0]
        entries = choice.logprobs.content
        labels = {weights.version for weights in choice.weight_versions}
        if choice.finish_reason not in ("stop", "length"):
            self.fail(f"it ended a row with {choice.finish_reason!r}. Do not pause it meanwhile.")
        if labels != {request["cache_salt"]}:
            self.fail(
                f"it sampled with the weights {sorted(labels)}, not with those it got last, "
                f"{request['cache_salt']!r}. Give every run a server of its own."
            )
        if choice.token_ids != [entry.token_id for entry in entries]:
            self.fail(
                f"it sent log-probs of {len(entries)} ids for {len(choice.token_ids)} sampled "
                f"ones, or of others. Install version {', '.join(SUPPORTED)}."
            )
        if not all(_NO_LOGP < entry.logprob <= 0.0 for entry in entries):
            raise NotFinite(
                f"The model served at {self._url} gave log-probabilities that are not finite: its "
                "weights are broken. Go back to an older checkpoint, or lower the learning rate."
            )
        return generated

    def _send(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _wait(self, method: str, path: str, kind: type[Answer], body: object = None) -> Answer:
        return self._send(self._ask(method, path, kind, body)).result()

    async def _ask(self, method: str, path: str, kind: type[Answer], body: object = None) -> Answer:
        todo = "Read its log, start it again, and resume the run: finished updates are not lost."
        what = f"The vLLM server at {self._url} was asked for {path.partition('?')[0]}, but"
        try:
            response = await self._client.request(method, path, json=body)
        except httpx.TimeoutException as error:
            raise EngineFailed(
                f"{what} did not answer in time. Raise timeout_s, or: {todo}"
            ) from error
        except httpx.TransportError as error:
            raise _Gone(f"{what} the connection broke ({error!r}). {todo}") from error
        status, text = response.status_code, response.text[:500]
        if response.is_error:
            raise _Denied(f"{what} answered {status}: {text}. {todo}", status, text)
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            message = f"{what} answered in another form than version {', '.join(SUPPORTED)} does"
            raise _Denied(f"{message}: {text}. Install that version.", status, text) from error

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._client.aclose()


def entropy(logps: Sequence[float]) -> float:
    """Return the entropy in nats of ids with these log-probs and of all others taken as one."""
    terms = [logp for logp in logps if logp > _NO_LOGP]
    rest = 1.0 - math.fsum(math.exp(logp) for logp in terms)
    terms += [math.log(rest)] if rest > 0.0 else []
    return -math.fsum(math.exp(logp) * logp for logp in terms)
