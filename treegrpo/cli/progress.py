"""Live progress: one bar per stage, and for training the numbers people watch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from treegrpo.trainer import StepReport

_BARS = " .:-=+*#"  # ASCII, so that every terminal shows it


class TrainingProgress:
    """A bar over the steps with the success rate and its history; lines where no terminal is."""

    def __init__(self, console: Console) -> None:
        """Show on `console`."""
        self._console = console
        self._progress = _bars(console)
        self._task = self._progress.add_task("training", total=None)
        self._history: list[float] = []

    def __enter__(self) -> Self:
        """Start the display."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the display."""
        self._progress.stop()

    def step(self, report: StepReport) -> None:
        """Show one finished step."""
        metrics, seconds = report.metrics, report.seconds
        self._history.append(metrics["success_rate"])
        curve = "".join(_BARS[min(7, int(8 * value))] for value in self._history[-24:])
        line = (
            f"training  success {metrics['success_rate']:.2f} [{curve}] "
            f"shared x{metrics['sharing_ratio']:.2f} {seconds['step']:.1f} s/step"
        )
        failed = sum(metrics["failures"].values())
        line += f"  failed {failed}" if failed else ""
        done = report.step + 1
        self._progress.update(
            self._task, completed=done, total=report.steps, description=line.replace("[", r"\[")
        )
        if not self._console.is_terminal and (done % 10 == 0 or done == report.steps):
            self._console.print(f"step {done}/{report.steps}  {line}", markup=False)


@contextlib.contextmanager
def stage(console: Console, title: str) -> Iterator[Callable[[int, int], None]]:
    """Yield `advance(done, total)` of a stage's bar; print how long the stage took."""
    with _bars(console) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
        elapsed = progress.tasks[0].elapsed or 0.0
    console.print(f"{title}: {elapsed:.1f} s", markup=False, highlight=False)


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
