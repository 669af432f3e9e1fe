"""The scripted customer: a state machine that hears words and answers with sentences.

The customer has requests, told one after another; facts told only when asked; a patience that
each useless message wears out. It never looks at the database.

    "name", "code"          who they are, if not told yet
    a hidden topic's word   the sentence on it ("order", "color", "booking", "day", ...)
    a fact that was due     thanks; or an appeal, if it was a refusal
    "else"                  the next request
    the subject's id        "Yes", or a change of mind, when asked to confirm
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from treegrpo.envs.suite.service.plan import Brief, Request, words

GOODBYE = "No, that is all."
YES = "Yes, please."
THANKS = "Thank you."
APPEAL = "Can you not make an exception?"
CHANGE = "Wait, I changed my mind."
NOTHING_NEW = "I have nothing to say to that."
LEFT = "I have no more time for this. Goodbye."


@dataclass(slots=True)
class Customer:
    """Where a conversation stands, on the customer's side.

    `index` counts the requests that are behind; the other fields but the first three are about
    the request at hand and start anew with the next one.
    """

    patience: int
    introduced: bool
    index: int = 0
    told: list[int] = field(default_factory=list[int])
    given: list[str] = field(default_factory=list[str])
    has_revised: bool = False
    has_confirmed: bool = False
    has_appealed: bool = False

    def request(self, requests: Sequence[Request]) -> Request | None:
        """Return the request at hand as it is meant now; None when all are behind."""
        if self.index >= len(requests):
            return None
        asked = requests[self.index]
        return asked.final if self.has_revised else asked

    def hear(self, text: str, brief: Brief, requests: Sequence[Request], *, trusted: bool) -> str:
        """Return the customer's reply to a message; wears out patience if it was useless.

        Args:
            text: what the agent said.
            brief: who the customer is.
            requests: all that the customer wants, in order.
            trusted: whether the agent knows who this is; before that, nothing counts as told.
        """
        said = words(text)
        parts = self._answers(said, brief, requests)
        news = self._take_facts(said, requests) if trusted else []
        if not parts:
            parts = self._reactions(said, requests, news)
        if not parts:
            self.patience -= 1
            parts = [NOTHING_NEW if self.patience > 0 else LEFT]
        return " ".join(parts)

    def _answers(
        self, said: frozenset[str], brief: Brief, requests: Sequence[Request]
    ) -> list[str]:
        """Return the sentences that the message asks for."""
        parts: list[str] = []
        if not self.introduced and said & {"name", "code"}:
            self.introduced = True
            parts.append(introduction(brief))
        request = self.request(requests)
        for topic, sentence in request.hidden.items() if request is not None else ():
            if topic in said and topic not in self.given:
                self.given.append(topic)
                parts.append(sentence)
        return parts

    def _take_facts(self, said: frozenset[str], requests: Sequence[Request]) -> list[int]:
        """Return which requests' facts this message tells for the first time."""
        news = [
            index
            for index, request in enumerate(requests[: self.index + 1])
            if index not in self.told
            and request.final.fact is not None
            and request.final.fact.is_told_by(said)
        ]
        self.told += news
        return news

    def _reactions(
        self, said: frozenset[str], requests: Sequence[Request], news: list[int]
    ) -> list[str]:
        request = self.request(requests)
        if request is None:
            return [THANKS] if news else []
        if self.index in news and request.insists and not self.has_appealed:
            self.has_appealed = True
            return [APPEAL]
        if "else" in said:
            return [self._go_on(requests)]
        if news:
            return [THANKS]
        if request.subject.lower() in said and not self.has_confirmed:
            return [self._confirm(request)]
        return []

    def _go_on(self, requests: Sequence[Request]) -> str:
        self.index += 1
        self.given = []
        self.has_revised = self.has_confirmed = self.has_appealed = False
        request = self.request(requests)
        return GOODBYE if request is None else request.text

    def _confirm(self, request: Request) -> str:
        if request.revised is not None:
            self.has_revised, self.given = True, []
            return f"{CHANGE} {request.revised.text}"
        self.has_confirmed = True
        return YES


def introduction(brief: Brief) -> str:
    """Return the sentence in which the customer gives name and code."""
    return f"I am {brief.name}, my code is {brief.code}."
