"""What runs in the native engine: rows that sample, and the jobs that compute their context."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from treegrpo.engine.base import Sampled, SamplingParams
from treegrpo.engine.paged import Stem


@dataclass(eq=False, slots=True)
class Row:
    """One continuation of one context, from its submission to its end."""

    stem: Stem
    """Takes up what is sampled; no other context points at it."""
    last: Stem
    """Its last token's output is what the first id is drawn from; `stem`, or one before it."""
    params: SamplingParams
    uniforms: list[float]
    """One draw in [0, 1) per token."""
    length: int
    """Tokens before the first sampled one."""
    ids: list[int] = field(default_factory=list[int])
    logps: list[float] = field(default_factory=list[float])
    first_entropy: float = 0.0
    place: int = -1
    """Where its KV is while it runs; the backend's own."""

    @property
    def columns(self) -> int:
        """Most tokens of it that ever have KV: the last one sampled is not computed."""
        return self.length + self.params.max_tokens - 1

    @property
    def position(self) -> int:
        """Where the token drawn last stands in the sequence."""
        return self.length + len(self.ids) - 1

    @property
    def has_ended(self) -> bool:
        """Whether it drew a stop token or all it may."""
        return self.has_stopped or len(self.ids) == self.params.max_tokens

    @property
    def has_stopped(self) -> bool:
        """Whether it drew a stop token."""
        return bool(self.ids) and self.ids[-1] in self.params.stop_ids

    def sampled(self) -> Sampled:
        """Return what it drew."""
        return Sampled(self.ids, self.logps, self.has_stopped, self.first_entropy)


@dataclass(frozen=True, slots=True)
class Job:
    """Consecutive tokens of a stem to be computed, all before them being there."""

    row: Row
    """One of the rows that need them."""
    stem: Stem
    start: int
    """Place of the first in the sequence."""
    ids: list[int]
    is_new: bool
    """False when their KV is there and only the last one's output is wanted."""

    @property
    def end(self) -> int:
        """Place behind the last."""
        return self.start + len(self.ids)


class Backend(Protocol):
    """How the native engine runs the model on the pool's KV."""

    def join(self, row: Row) -> None:
        """Make room for a row; its blocks are taken, its KV may not be there yet."""
        ...

    def leave(self, row: Row, *, keep: bool) -> None:
        """Let the row go; with `keep`, the KV of what it decoded is in the pool afterwards."""
        ...

    def ready(self, row: Row) -> None:
        """Take note that all KV before the row's first sampled token is in the pool."""
        ...

    def forward(self, jobs: Sequence[Job], rows: Sequence[Row]) -> tuple[Tensor, int]:
        """Compute the jobs' tokens and the last drawn token of each row.

        Returns:
            The logits [G, V] behind each job and then behind each row, perhaps followed by
            rows of padding; and how many tokens were computed for nothing.
        """
        ...

    def clear(self) -> None:
        """Forget all rows and whatever numbers they left."""
        ...
