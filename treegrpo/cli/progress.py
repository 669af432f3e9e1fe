"""Live progress: a bar per stage while it runs, and one line that stays when it is done.

On a terminal the bar shows how far, the numbers people watch and the seconds left. Elsewhere
the same words come as plain lines, one every ten seconds.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Generator, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

if TYPE_CHECKING:
    from treegrpo.rollout import Status
    from treegrpo.trainer import StepReport

_PLAIN_EVERY_S = 10.0
_TICK_EVERY_S = 1.0
_TITLE_WIDTH = 13
_BLOCKS = "".join(chr(0x2581 + level) for level in range(8))  # one eighth to full
_ASCII_BLOCKS = "_.,-=+*#"


class Bar:
    """What a stage tells while it runs.

    `note` stands beside the bar while it moves, `result` on the line that stays.
    """

    def __init__(
        self, console: Console, title: str, on_tick: Callable[[], None] = lambda: None
    ) -> None:
        """Show on `console`; `on_tick` is called about once a second, for as long as it moves."""
        self.note, self.result = "", ""
        self.console = console
        self._title, self._on_tick = title, on_tick
        self._live = Progress(
            TextColumn(f"  {title:<{_TITLE_WIDTH}}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._live.add_task("", total=None, note="starting", left="")
        self._began = self._ticked = self._printed = time.monotonic()
        self._first, self._total = 0, -1

    def advance(self, done: int, total: int) -> None:
        """Show that `done` of `total` is done; another total begins another count."""
        now = time.monotonic()
        if total != self._total:
            self._began, self._first, self._total = now, done, total
        left = self._left(done, now)
        self._live.update(self._task, completed=done, total=total, note=self.note, left=left)
        if now - self._ticked >= _TICK_EVERY_S:
            self._ticked = now
            self._on_tick()
        words = [f"{self._title:<{_TITLE_WIDTH}} {done}/{total}", self.note, left]
        self._print_plainly("  ".join(word for word in words if word))

    def move(self, note: str) -> None:
        """Show a note now, though nothing has advanced."""
        self._live.update(self._task, note=note)
        self._print_plainly(f"{self._title:<{_TITLE_WIDTH}} {note}")

    def _print_plainly(self, words: str) -> None:
        """Where there is no terminal, print a line once every ten seconds."""
        now = time.monotonic()
        if not self.console.is_terminal and now - self._printed >= _PLAIN_EVERY_S:
            self._printed = now
            say(self.console, f"  {words}")

    def set_note(self, text: str) -> None:
        """Set what stands beside the bar from its next move on."""
        self.note = text

    def _left(self, done: int, now: float) -> str:
        moved = done - self._first
        if moved < 1 or done >= self._total:
            return ""
        return f"{(now - self._began) / moved * (self._total - done):.0f} s left"

    def __enter__(self) -> Bar:
        """Start the display."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the display."""
        self._live.stop()


class Stages:
    """The stages of one run, and the seconds that each took, over all calls of the run.

    The seconds are kept in a file and renewed every second, so a killed run loses none.
    """

    def __init__(self, console: Console, file: Path) -> None:
        """Go on counting from `file` where it exists."""
        self._console, self._file = console, file
        self.seconds: dict[str, float] = {}
        with contextlib.suppress(OSError, ValueError):
            self.seconds = {str(k): float(v) for k, v in json.loads(file.read_text()).items()}

    @contextlib.contextmanager
    def stage(self, title: str) -> Generator[Bar]:
        """Yield the stage's bar; print its seconds and its `result` when it is done."""
        from treegrpo.runfolder import write_text  # brings torch: late, so that help is quick

        before, began = self.seconds.get(title, 0.0), time.monotonic()

        def note_seconds() -> None:
            self.seconds[title] = before + time.monotonic() - began
            write_text(self._file, json.dumps(self.seconds, indent=1) + "\n")

        with Bar(self._console, title, note_seconds) as bar:
            try:
                yield bar
            except KeyboardInterrupt:
                note_seconds()
                raise
            note_seconds()
        self._print(title, bar.result)

    def skip(self, title: str) -> None:
        """Print that the stage was done by an earlier call."""
        self._print(title, "done before")

    @property
    def total_seconds(self) -> float:
        """Seconds of all stages, work that was killed and done again included."""
        return sum(self.seconds.values())

    def _print(self, title: str, result: str) -> None:
        seconds = self.seconds.get(title, 0.0)
        say(self._console, f"  {title:<{_TITLE_WIDTH}} {seconds:5.0f} s  {result}".rstrip())


class TrainingNotes:
    """The words beside a training bar: success, its history, failed rollouts."""

    def __init__(self, bar: Bar, earlier: Sequence[float] = ()) -> None:
        """Tell `bar`; `earlier` holds the success rates of steps done before this call."""
        self._bar, self._history = bar, list(earlier)
        self._failed = 0

    def status(self, status: Status) -> None:
        """Show how the trees of the running step grow, until the step is finished."""
        self._bar.move(status_line(status))

    def step(self, report: StepReport) -> None:
        """Show one finished step."""
        if report.metrics["reset_leaves"]:
            self._history.append(report.metrics["success_rate"])
        self._failed += sum(report.metrics["failures"].values())
        self._bar.note = self._note()
        self._bar.advance(report.step + 1, report.steps)
        self._bar.result = f"{report.step + 1} steps, {self._note(full=True)}"

    def _note(self, *, full: bool = False) -> str:
        failed = f" failed {self._failed}" if self._failed else ""
        if not self._history:
            return f"no outcome{failed}"
        is_ascii = self._bar.console.options.ascii_only
        last = fmean(self._history[-5:])
        curve = sparkline(self._history, 24 if full else 12, ascii_only=is_ascii)
        first = f"{self._history[0]:.2f} to " if full else ""
        return f"success {first}{last:.2f} {curve}{failed}"


def status_line(status: Status) -> str:
    """Return one moment: speed, live branches, share of them decoding, time lost waiting."""
    fill = status.decoding / status.live if status.live else 0.0
    return (
        f"{status.tokens_per_s:,.0f} tok/s live {status.live} fill {fill:.0%} "
        f"env wait {status.waiting_share:.0%}"
    )


def sparkline(values: Sequence[float], width: int, *, ascii_only: bool = False) -> str:
    """Return shares from 0 to 1 as at most `width` blocks, each the mean of its part."""
    blocks = _ASCII_BLOCKS if ascii_only else _BLOCKS
    number = min(width, len(values))
    edges = [round(i * len(values) / number) for i in range(number + 1)] if number else []
    means = [fmean(values[a:b]) for a, b in pairwise(edges)]
    return "".join(blocks[min(7, max(0, int(8 * mean)))] for mean in means)


def quiet() -> None:
    """Silence the model library's own bars, which would tear ours; for the command line only."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def say(console: Console, text: str) -> None:
    """Print a line as it is: no markup, no colours, not wrapped."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
