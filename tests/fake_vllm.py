"""A vLLM server without a server: answers the requests of the engine from a tiny model."""

import asyncio
import copy
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

Answer = dict[str, Any]


class FakeVLLM(httpx.AsyncBaseTransport):
    """Samples from a copy of a model; a test changes what it says.

    Attributes:
        asked: path and body of every request, in order.
        served: what it says of its model.
        change: applied to each answer to a request for tokens.
        gates: first token id -> an event without which such a row does not end.
        waiting: counts the rows that came to a gate.
        cancelled: first token ids of rows that were cut off.
        broken: errors raised by the next requests for tokens.
        answers: path -> (status, body) said in place of the usual.
    """

    def __init__(self, model: PreTrainedModel, folder: Path) -> None:
        self.model = copy.deepcopy(model).eval()
        cast(Any, model.config).save_pretrained(folder)
        self.label = "default"
        self.asked: list[tuple[str, Any]] = []
        self.served: dict[str, Any] = {
            "model": str(folder), "dtype": "torch.float32", "max_model_len": 64,
            "max_logprobs": 20, "logprobs_mode": "processed_logprobs",
        }  # fmt: skip
        self.vocab_size = int(cast(Any, model.config).vocab_size)
        self.prefix_caching = self.chunked_prefill = True
        self.device = "cuda"
        self.change: Callable[[Answer], Answer] = lambda answer: answer
        self.gates: dict[int, asyncio.Event] = {}
        self.waiting = threading.Semaphore(0)
        self.cancelled: list[int] = []
        self.broken: list[Exception] = []
        self.answers: dict[str, tuple[int, Any]] = {}
        self.files: list[str] = []

    def rows(self) -> list[Any]:
        """Return the requests for tokens."""
        return [body for path, body in self.asked if path == "/inference/v1/generate"]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content or b"null")
        path = request.url.path
        self.asked.append((path, body))
        if path in self.answers:
            status, said = self.answers[path]
            return httpx.Response(status, json=said)
        if path == "/inference/v1/generate":
            return await self._generate(body)
        if path == "/collective_rpc":
            return self._reload(body)
        if path == "/update_weight_version":
            self.label = body["new_version"]
        usual: dict[str, Any] = {
            "/version": {"version": "0.32.0"},
            "/server_info": {
                "vllm_config": {
                    "model_config": self.served,
                    "cache_config": {"enable_prefix_caching": self.prefix_caching},
                    "scheduler_config": {"enable_chunked_prefill": self.chunked_prefill},
                    "device_config": {"device": self.device},
                }
            },
            "/reset_prefix_cache": {"success": True},
            "/update_weight_version": {"success": True},
        }
        return httpx.Response(200, json=usual[path])

    def _reload(self, body: Any) -> httpx.Response:
        assert body["method"] == "reload_weights"
        folder = Path(body["kwargs"]["weights_path"])
        self.files = sorted(file.name for file in folder.iterdir())
        tensors: dict[str, torch.Tensor] = {}
        for file in folder.glob("*.safetensors"):
            tensors |= load_file(file)
        self.model.load_state_dict(tensors)
        return httpx.Response(200, json={"results": [None]})

    async def _generate(self, body: Any) -> httpx.Response:
        settings = body["sampling_params"]
        if max(settings["stop_token_ids"], default=0) >= self.vocab_size:
            text = f"out-of-vocab token ids. Vocabulary size: {self.vocab_size} (parameter=...)"
            return httpx.Response(400, json={"error": {"message": text}})
        if self.broken:
            raise self.broken.pop(0)
        if gate := self.gates.get(body["token_ids"][0]):
            self.waiting.release()
            try:
                await gate.wait()
            except asyncio.CancelledError:
                self.cancelled.append(body["token_ids"][0])
                raise
        return httpx.Response(200, json=self.change(self._sample(body["token_ids"], settings)))

    def _sample(self, prompt: list[int], settings: Any) -> Answer:
        rng = np.random.default_rng(settings["seed"])
        ids: list[int] = []
        content: list[Answer] = []
        while len(ids) < settings["max_tokens"] and not set(ids) & {*settings["stop_token_ids"]}:
            with torch.no_grad():
                logits = self.model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, -1]
            logps = torch.log_softmax(logits / (settings["temperature"] or 1.0), dim=-1)
            drawn = int(rng.choice(len(logps), p=logps.double().softmax(-1).numpy()))
            ids.append(drawn if settings["temperature"] else int(logps.argmax()))
            top = [ids[-1], *(one for one in logps.argsort(descending=True).tolist())]
            entries = [{"token_id": one, "logprob": float(logps[one])} for one in top]
            kept = [entries[0], *(one for one in entries[1:] if one["token_id"] != ids[-1])]
            content.append(entries[0] | {"top_logprobs": kept[: max(1, settings["logprobs"])]})
        return {
            "choices": [
                {
                    "token_ids": ids,
                    "finish_reason": "length",
                    "logprobs": {"content": content},
                    "weight_versions": [{"version": self.label, "start": 0, "end": len(ids)}],
                }
            ],
            "usage": {
                "prompt_tokens": len(prompt),
                "prompt_tokens_details": {"cached_tokens": 2},
            },
        }
