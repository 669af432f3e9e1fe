"""An agent behind any endpoint that speaks OpenAI's chat completions.

    ChatAgent("some-model", Endpoint("http://127.0.0.1:8000/v1", None, Reach()))

Whose fault is what: an endpoint that fails is the provider's; a refusal, an empty answer, a call
that cannot be read and an answer cut by its length are the agent's own, and become actions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from treegrpo.envs.digest import digest
from treegrpo.leaderboards.agents.base import Acted, EpisodeView
from treegrpo.leaderboards.agents.conversation import TOOLS_DIGEST, Calls, Conversation
from treegrpo.leaderboards.agents.endpoint import Asked, ContextFull, Endpoint, Payload
from treegrpo.leaderboards.agents.prices import ModelPrices
from treegrpo.leaderboards.errors import AgentUnusable
from treegrpo.leaderboards.usage import NOTHING, Usage

_OWN_FIELDS = ("model", "messages", "tools", "stream", "n")


class ChatSettings(BaseModel):
    """What is asked of the model; all of it stands in the bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    calls: Calls = "native"
    """How tools are called: native, or text."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """None leaves it to the endpoint."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of one answer; None leaves it to the endpoint."""
    extra: dict[str, JsonValue] = Field(default_factory=dict[str, JsonValue])
    """Further fields of each request, such as {"reasoning_effort": "low"}."""

    @field_validator("extra")
    @classmethod
    def _keep_own(cls, extra: dict[str, JsonValue]) -> dict[str, JsonValue]:
        """Refuse fields that the agent itself fills in."""
        for name in extra:
            if name in _OWN_FIELDS:
                raise ValueError(f"'{name}' is filled in by the agent")
        return extra


@dataclass
class _Flight:
    """A question that is on its way, and the conversation that it ends."""

    talk: Conversation
    asked: Future[Asked]


class ChatAgent:
    """Asks an endpoint for every live episode at once; close it."""

    def __init__(
        self,
        model: str,
        endpoint: Endpoint,
        settings: ChatSettings | None = None,
        *,
        prices: ModelPrices | None = None,
    ) -> None:
        """Own the endpoint; without `prices` dollars stay uncounted."""
        self._asks, self._endpoint = settings or ChatSettings(), endpoint
        self.name = self.model = model
        self.provider = urlsplit(endpoint.url).netloc
        told = self._asks.model_dump(exclude_none=True, exclude_defaults=True, exclude={"calls"})
        self.settings: Mapping[str, JsonValue] = {"calls": self._asks.calls, **told}
        self.prompt_digest = TOOLS_DIGEST if self._asks.calls == "text" else None
        self.digest = digest([model, self.provider, dict(self.settings), self.prompt_digest])
        self._prices = prices
        self._conversations: dict[str, Conversation] = {}
        self._usages: dict[str, Usage] = {}
        self._flights: dict[str, _Flight] = {}

    def act(self, episodes: Sequence[EpisodeView]) -> list[Acted]:
        """Return per episode an action, or why there is none.

        Raises:
            AgentUnusable: a wrong key, no such model, nothing at the URL.
        """
        found: dict[str, Acted] = {}
        while len(found) < len(episodes):
            found |= self.act_ready([view for view in episodes if view.key not in found])
        return [found[view.key] for view in episodes]

    def act_ready(self, episodes: Sequence[EpisodeView]) -> dict[str, Acted]:
        """Return the actions that have come in, by key, at least one; ask where nobody did.

        Raises:
            AgentUnusable: as act().
        """
        found: dict[str, Acted] = {}
        try:
            for view in episodes:
                if view.key not in self._flights:
                    self._begin(view)
            while not found:
                wait([self._flights[v.key].asked for v in episodes], return_when=FIRST_COMPLETED)
                for view in episodes:
                    if self._flights[view.key].asked.done():
                        found |= self._landed(view)
        except BaseException:
            # Nobody will come for the others: the evaluation stops, or is stopped.
            for key in list(self._flights):
                self._flights.pop(key).asked.cancel()
            raise
        return found

    def fork(self, key: str, twin: str) -> None:
        """Let `twin` begin with the conversation of `key`, and with nothing counted."""
        if key in self._conversations:
            self._conversations[twin] = self._conversations[key].copy()

    def finish(self, key: str) -> Usage:
        """Forget the episode; return what the endpoint counted, failed requests included."""
        self._conversations.pop(key, None)
        return self._usages.pop(key, self._nothing)

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()

    @property
    def _nothing(self) -> Usage:
        return replace(NOTHING, dollars=None if self._prices is None else Decimal(0))

    def _begin(self, view: EpisodeView) -> None:
        kept = self._conversations.get(view.key)
        talk = Conversation(self._asks.calls) if kept is None else kept.copy()
        talk.observe(view.env, view.messages_delta)
        self._flights[view.key] = _Flight(talk, self._endpoint.ask(self._payload(view, talk)))

    def _landed(self, view: EpisodeView) -> dict[str, Acted]:
        """Return what came of an answer; nothing if it is asked again, in a shorter form."""
        flight = self._flights[view.key]
        asked = flight.asked.result()
        self._count(view.key, asked)
        if isinstance(asked.answer, AgentUnusable):
            raise asked.answer
        if isinstance(asked.answer, ContextFull) and flight.talk.shorten():
            flight.asked = self._endpoint.ask(self._payload(view, flight.talk))
            return {}
        del self._flights[view.key]
        if isinstance(asked.answer, Exception):
            return {view.key: asked.answer}
        action = flight.talk.answer(view.env, asked.answer.said)
        self._conversations[view.key] = flight.talk
        return {view.key: self._endpoint.safe(action)}

    def _payload(self, view: EpisodeView, talk: Conversation) -> Payload:
        asks = self._asks
        payload: dict[str, Any] = {**asks.extra, "model": self.model, "messages": talk.sent}
        tools = view.env.tool_schemas() if asks.calls == "native" else []
        given = {"temperature": asks.temperature, "max_tokens": asks.max_tokens, "tools": tools}
        return payload | {name: v for name, v in given.items() if v not in (None, [])}

    def _count(self, key: str, asked: Asked) -> None:
        before = self._usages.get(key, self._nothing)
        if isinstance(asked.answer, Exception):
            self._usages[key] = before + replace(self._nothing, requests=asked.requests)
            return
        usage = asked.answer.counted(asked.requests)
        if self._prices is not None:
            usage = replace(usage, dollars=self._prices.cost(usage))
        self._usages[key] = before + usage
