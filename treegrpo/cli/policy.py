"""A model folder as an agent of the leaderboard: all live episodes are decoded as one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from treegrpo.chat import ChatFormat
from treegrpo.engine.base import Context, SamplingParams
from treegrpo.engine.native import NativeEngine
from treegrpo.envs.digest import digest, digest_bytes, stable_seed
from treegrpo.leaderboards.agents import EpisodeView
from treegrpo.loading import load_model


class PolicyAgent:
    """Plays with a model; keeps each episode's context, so nothing is computed twice."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        name: str,
        weights_digest: str,
        temperature: float = 1.0,
        max_action_tokens: int = 64,
    ) -> None:
        """Borrow the model; `weights_digest` identifies it in the bundle."""
        self.name, self.digest = name, weights_digest
        self.settings: Mapping[str, JsonValue] = {
            "temperature": temperature,
            "max_action_tokens": max_action_tokens,
        }
        self._chat = ChatFormat(tokenizer)
        self._engine = NativeEngine(model)
        self._params = SamplingParams(
            max_tokens=max_action_tokens,
            temperature=temperature,
            stop_ids=frozenset(self._chat.stop_ids),
        )
        self._contexts: dict[str, Context] = {}
        self._turns: dict[str, int] = {}
        self._tokens: dict[str, int] = {}
        self._closing: dict[str, list[int]] = {}

    def act(self, episodes: Sequence[EpisodeView]) -> list[str]:
        """Return one sampled action per episode; what is kept changes only on success."""
        seeds = [stable_seed(view.seed, self._turns.get(view.key, 0)) for view in episodes]
        contexts: list[Context] = []
        try:
            for view in episodes:
                contexts.append(self._begun(view))
                self._engine.prefill(contexts[-1], self._observed(view))
            outputs = self._engine.sample(contexts, self._params, seeds)
        except BaseException:
            for context in contexts:
                self._engine.release(context)
            raise
        texts: list[str] = []
        for view, context, output in zip(episodes, contexts, outputs, strict=True):
            if view.key in self._contexts:
                self._engine.release(self._contexts[view.key])
            self._contexts[view.key] = context
            self._turns[view.key] = self._turns.get(view.key, 0) + 1
            self._tokens[view.key] = self._tokens.get(view.key, 0) + len(output.ids)
            self._closing[view.key] = self._chat.close_ids(output.ids)
            texts.append(self._chat.decode_action(output.ids))
        return texts

    def fork(self, key: str, twin: str) -> None:
        """Let `twin` begin with the context of `key`, computed once, and with nothing counted."""
        if key in self._contexts:
            self._contexts[twin] = self._engine.fork(self._contexts[key], 1)[0]
            self._turns[twin] = self._turns[key]
            self._closing[twin] = self._closing[key]

    def finish(self, key: str) -> int | None:
        """Forget the episode; return the tokens sampled in it."""
        if key in self._contexts:
            self._engine.release(self._contexts.pop(key))
        self._turns.pop(key, None)
        self._closing.pop(key, None)
        return self._tokens.pop(key, None)

    def _begun(self, view: EpisodeView) -> Context:
        """Return a context of what the episode was before: new, or a fork of the kept one."""
        if view.key in self._contexts:
            return self._engine.fork(self._contexts[view.key], 1)[0]
        return self._engine.start(
            self._chat.opening_ids(view.messages_delta, view.env.tool_schemas())
        )

    def _observed(self, view: EpisodeView) -> list[int]:
        """Return the ids that follow the last action; none in an episode that begins."""
        if view.key not in self._contexts:
            return []
        return [*self._closing[view.key], *self._chat.observation_ids(view.messages_delta)]


def load_policy(
    folder: Path, *, temperature: float = 1.0, max_action_tokens: int = 64
) -> PolicyAgent:
    """Return the agent of a Hugging Face folder.

    Its name is the folder's; for the folder `model` of a run, the run's.

    Raises:
        TreegrpoError: no model there, or one whose chat template or cache cannot be used.
    """
    model, tokenizer = load_model(str(folder))
    path = folder.resolve()
    name = path.parent.name if path.name == "model" else path.name
    return PolicyAgent(
        model,
        tokenizer,
        name=name,
        weights_digest=folder_digest(folder),
        temperature=temperature,
        max_action_tokens=max_action_tokens,
    )


def folder_digest(folder: Path) -> str:
    """Return a digest of the model's weights, configuration and tokenizer."""
    kinds = (".safetensors", ".json", ".jinja", ".model", ".bin")
    files = sorted(path for path in folder.iterdir() if path.suffix in kinds)
    return digest([[path.name, digest_bytes(path.read_bytes())] for path in files])
