"""What the viewer shows, as frozen data: trees of steps, whoever grew them.

An episode of a bundle is a tree without forks; a question of a training run is a tree with
forks and credit. Texts are as the model and the tools wrote them: whoever draws a page cleans,
cuts and escapes them.

Null is not zero: it says that nobody counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["correct", "wrong", "truncated", "failed"]
"""How an episode ended: scored as success, scored otherwise, cut from outside, or broken."""


@dataclass(frozen=True)
class ViewerNode:
    """One step, or the start (`parent` None); a child stands after its parent."""

    id: str
    parent: str | None
    step: int
    """Steps from the start, which is 0."""
    action: str = ""
    """The raw assistant text, tool calls included."""
    observation: str = ""
    """What the environment answered; at the start, what it asked."""
    is_observation_whole: bool = True
    """False where the log keeps the beginning of a longer text."""
    reward: float | None = None
    """Reward of this step alone."""
    reward_parts: Mapping[str, str] = field(default_factory=dict[str, str])
    """Component -> decimal text, where the episode ended."""
    credit: float | None = None
    """Advantage of this step, averaged over the leaves below."""
    value: float | None = None
    """Mean episode reward of the leaves below."""
    outcome: Outcome | None = None
    """Of an episode's last step; None elsewhere."""
    end_reason: str | None = None
    failure: str | None = None
    """Who failed, and where it is known what was said."""
    tokens: int | None = None
    """Tokens sampled for this step."""
    tool_calls: int | None = None
    seconds: float | None = None
    weight_version: int | None = None
    state_hash: str = ""


@dataclass(frozen=True)
class ViewerTree:
    """All steps from one start; `facts` are (name, value) pairs for its caption."""

    title: str
    nodes: tuple[ViewerNode, ...]
    facts: tuple[tuple[str, str], ...] = ()

    def outcomes(self) -> Iterator[Outcome]:
        """Yield the outcome of every leaf, in order."""
        return (node.outcome for node in self.nodes if node.outcome is not None)


@dataclass(frozen=True)
class Link:
    """A place that a page leads to; `href` is relative to the page."""

    text: str
    href: str
