"""What an evaluation's progress shows: success so far, failures by cause, tokens, dollars."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from statistics import fmean

from treegrpo.cli.progress import Bar
from treegrpo.leaderboards.schema import EpisodeRecord


class Tally:
    """Counts the episodes that have ended, and writes the note beside the bar."""

    def __init__(self, bar: Bar, entries: int = 1) -> None:
        """Tell `bar`, which counts the episodes of so many members of a suite."""
        self._bar, self._entries = bar, entries
        self._entry = ""
        # By episode, so that another attempt replaces the one that failed.
        self._ended: dict[tuple[str, int, int], EpisodeRecord] = {}

    def begin(self, entry: str) -> None:
        """Note which member of a suite comes now."""
        self._entry = entry
        self._bar.move(f"{entry} {self.note}".strip())

    def watch(self, episode: EpisodeRecord) -> None:
        """Count an episode."""
        self._ended[self._entry, episode.index, episode.trial] = episode
        self._bar.set_note(f"{self._entry} {self.note}".strip())

    def advance(self, done: int, total: int) -> None:
        """Show how much is done of all members; they are equally long."""
        self._bar.advance(len(self._ended), total * self._entries)

    @property
    def note(self) -> str:
        """What has come out so far; only what somebody counted."""
        ended = list(self._ended.values())
        if not ended:
            return ""
        words = [f"success {fmean(episode.success for episode in ended):.2f}"]
        failed = Counter(episode.failure for episode in ended if episode.failure is not None)
        words += [f"failed by {who} {number}" for who, number in sorted(failed.items())]
        counted = [(e.tokens.input or 0) + (e.tokens.output or 0) for e in ended]
        if any(counted):
            words.append(f"{sum(counted):,} tokens")
        dollars = [Decimal(e.dollars) for e in ended if e.dollars is not None]
        if dollars:
            words.append(f"${sum(dollars):.4f}")
        return "  ".join(words)
