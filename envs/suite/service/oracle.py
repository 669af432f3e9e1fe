"""The scripted expert: finds the customer, looks, asks, acts, tells and goes on.

It knows the gold steps, and otherwise acts on what it was shown. From any point of an episode
it takes the next step that is still missing; what was done wrong before cannot be undone, so
it succeeds where nothing was, patience and turns permitting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from treegrpo.envs.suite.service.customer import Customer
from treegrpo.envs.suite.service.plan import Brief, Request, Step

WHO = "What is your name and your code?"
ELSE = "Is there anything else?"


@dataclass(frozen=True, slots=True)
class Script:
    """The expert's view of one episode."""

    brief: Brief
    requests: Sequence[Request]
    customer: Customer

    def next_step(
        self, writes: Sequence[Step], is_known: bool, was_done: Callable[[Step], bool]
    ) -> Step:
        """Return the next call.

        Args:
            writes: the calls that were carried out.
            is_known: whether this customer was found.
            was_done: whether the agent made this very call before.
        """
        if not is_known:
            return self._find_customer()
        request = self.customer.request(self.requests)
        if request is None:
            return Step("done")
        if request.ending:
            return Step("hand_over", {"reason": request.ending})
        return self._serve(request, writes, was_done)

    def _find_customer(self) -> Step:
        if not self.customer.introduced:
            return Step("say", {"text": WHO})
        return Step("find_customer", {"full_name": self.brief.name, "code": self.brief.code})

    def _serve(
        self, request: Request, writes: Sequence[Step], was_done: Callable[[Step], bool]
    ) -> Step:
        """Return the next call for the request at hand: ask, look, confirm, act, tell, go on."""
        missing = [topic for topic in request.hidden if topic not in self.customer.given]
        if missing:
            return Step("say", {"text": f"Which {missing[0]}?"})
        for step in request.reads:
            if not was_done(step):
                return step
        for step in request.writes:
            if step not in writes:
                return self._confirmed(request, step)
        return self._close(request)

    def _confirmed(self, request: Request, step: Step) -> Step:
        if not self.brief.confirms or self.customer.has_confirmed:
            return step
        act = step.tool.replace("_", " ")
        details = [str(value) for value in step.arguments.values() if value != request.subject]
        text = " ".join([f"I will {act}: {request.subject}", *details])
        return Step("say", {"text": f"{text}. Yes?"})

    def _close(self, request: Request) -> Step:
        """Return the report, if the customer is to be told something, or the way on."""
        index = self.customer.index
        is_last = self.brief.introduced or len(self.requests) == 1
        is_due = request.fact is not None and index not in self.customer.told
        if is_due:
            text = request.report if is_last else f"{request.report} {ELSE}"
            return Step("say", {"text": text})
        return Step("done") if is_last else Step("say", {"text": ELSE})
