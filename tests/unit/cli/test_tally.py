"""What the progress of an evaluation says: only what was counted, and each episode once."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.unit.leaderboards.toy import TOY, ToyAgent, half_right
from treegrpo.cli.progress import Bar
from treegrpo.cli.tally import Tally
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.schema import EpisodeRecord


class Told(Bar):
    """A bar that remembers what it was told."""

    def __init__(self) -> None:
        super().__init__(Console(file=io.StringIO()), "episodes")
        self.counts: list[tuple[int, int]] = []

    def advance(self, done: int, total: int) -> None:
        self.counts.append((done, total))


def episodes(out: Path) -> list[EpisodeRecord]:
    evaluate(ToyAgent(half_right), TOY, split="test", num_tasks=2, trials=1, seed=0, out=out)
    return list(read_bundle(out).episodes)


def changed(episode: EpisodeRecord, **fields: Any) -> EpisodeRecord:
    return EpisodeRecord.model_validate(episode.model_dump() | fields)


def test_the_note_grows_with_what_is_counted(tmp_path: Path) -> None:
    bar = Told()
    tally = Tally(bar)
    assert tally.note == ""
    solved, failed = episodes(tmp_path / "b")
    tally.watch(solved)
    assert bar.note == tally.note == "success 1.00"
    tokens = {"input": 1_000, "cached": None, "output": 234, "reasoning": None}
    tally.watch(changed(failed, failure="provider", tokens=tokens, dollars="0.0125"))
    assert bar.note == "success 0.50  failed by provider 1  1,234 tokens  $0.0125"


def test_another_attempt_takes_the_place_of_the_one_that_failed(tmp_path: Path) -> None:
    tally = Tally(Told())
    solved, _ = episodes(tmp_path / "b")
    tally.watch(changed(solved, success=False, failure="provider"))
    tally.watch(changed(solved, reruns=1))
    assert tally.note == "success 1.00"


def test_a_suite_counts_all_of_its_members(tmp_path: Path) -> None:
    bar = Told()
    tally = Tally(bar, entries=2)
    solved, failed = episodes(tmp_path / "b")
    for entry in ("one", "two"):
        tally.begin(entry)
        for done, episode in enumerate((solved, failed), start=1):
            tally.watch(episode)
            tally.advance(done, 2)
    assert bar.counts == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert bar.note == "two success 0.50"
