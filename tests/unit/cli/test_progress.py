"""Progress: a line that stays per stage, plain lines without a terminal, seconds that survive."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from treegrpo.cli import progress
from treegrpo.cli.progress import Bar, Stages, TrainingNotes, sparkline, status_line
from treegrpo.rollout import Status
from treegrpo.trainer import StepReport


class Clock:
    """Time that moves only when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def _console(*, terminal: bool = False, width: int = 80) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, force_terminal=terminal, width=width, color_system=None), text


def test_a_stage_leaves_one_line_with_its_seconds(clock: Clock, tmp_path: Path) -> None:
    console, text = _console()
    with Stages(console, tmp_path / "stages.json").stage("warm start") as bar:
        clock.now += 31.4
        bar.result = "[all] done"
    assert text.getvalue() == "  warm start       31 s  [all] done\n"


def test_without_a_terminal_lines_come_every_ten_seconds(clock: Clock) -> None:
    console, text = _console()
    with Bar(console, "training") as bar:
        bar.set_note("success 0.5")
        for step in range(1, 31):
            bar.advance(step, 60)
            clock.now += 1.0
    assert text.getvalue().splitlines() == [
        "  training      11/60  success 0.5  49 s left",
        "  training      21/60  success 0.5  39 s left",
    ]


def test_a_terminal_shows_a_bar_that_fits_80_columns(clock: Clock) -> None:
    console, text = _console(terminal=True)
    with Bar(console, "score before") as bar:
        bar.set_note("success 0.88 " + 12 * "#")
        for done in (1, 3199):
            clock.now += 1000.0
            bar.advance(done, 3200)
    lines = [line for line in text.getvalue().replace("\r", "\n").splitlines() if "3200" in line]
    assert lines
    assert "3199/3200 success 0.88 ############" in lines[-1]


def test_seconds_left_follow_the_pace_since_the_count_began(clock: Clock) -> None:
    """A resumed run begins at step 40, and another count (a total) begins anew."""
    console, _ = _console()
    with Bar(console, "training") as bar:
        bar.advance(40, 60)
        clock.now += 8.0
        bar.advance(44, 60)
        assert bar._left(44, clock.now) == "32 s left"
        bar.advance(5, 10)
        assert bar._left(5, clock.now) == ""
        assert bar._left(10, clock.now) == ""


def test_the_seconds_of_a_killed_stage_are_kept(clock: Clock, tmp_path: Path) -> None:
    console, _ = _console()
    file = tmp_path / "stages.json"
    context = Stages(console, file).stage("training")
    bar = context.__enter__()  # never left, as after kill -9
    for step in range(5):
        clock.now += 2.0
        bar.advance(step, 60)
    assert json.loads(file.read_text()) == {"training": 10.0}
    again = Stages(console, file)
    with again.stage("training"):
        clock.now += 3.0
    with again.stage("replay"):
        clock.now += 1.0
    assert again.seconds == {"training": 13.0, "replay": 1.0}
    assert again.total_seconds == 14.0


def test_ctrl_c_keeps_the_seconds_too(clock: Clock, tmp_path: Path) -> None:
    console, text = _console()
    stages = Stages(console, tmp_path / "stages.json")

    def stop() -> None:
        with stages.stage("training"):
            clock.now += 0.5
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert Stages(console, tmp_path / "stages.json").seconds == {"training": 0.5}
    assert "training" not in text.getvalue()


def test_a_stage_done_before_says_so(clock: Clock, tmp_path: Path) -> None:
    console, text = _console()
    (tmp_path / "stages.json").write_text('{"warm start": 12.6}')
    Stages(console, tmp_path / "stages.json").skip("warm start")
    assert text.getvalue() == "  warm start       13 s  done before\n"


def test_training_notes_tell_success_its_history_and_failures(clock: Clock) -> None:
    console, _ = _console()
    with Bar(console, "training") as bar:
        notes = TrainingNotes(bar, earlier=[0.0, 0.25])
        for step, rate in ((2, 0.5), (3, 1.0)):
            metrics = {"success_rate": rate, "reset_leaves": 8, "failures": {"tool": 2}}
            notes.step(StepReport(step, 4, metrics, {}))
        assert bar.note == "success 0.44 \u2581\u2583\u2585\u2588 failed 4"
        assert bar.result.startswith("4 steps, success 0.00 to 0.44 ")


def test_training_notes_say_where_no_rollout_had_an_outcome(clock: Clock) -> None:
    console, _ = _console()
    with Bar(console, "training") as bar:
        metrics = {"success_rate": 0.0, "reset_leaves": 0, "failures": {"grader": 3}}
        TrainingNotes(bar).step(StepReport(0, 4, metrics, {}))
        assert bar.note == "no outcome failed 3"


def test_a_terminal_shows_how_trees_grow_between_the_steps(clock: Clock) -> None:
    status = Status(1412.3, live=63, decoding=50, answering=9, ended=4, waiting_share=0.031)
    assert status_line(status) == "1,412 tok/s live 63 fill 79% env wait 3%"
    console, text = _console(terminal=True)
    with Bar(console, "training") as bar:
        bar.advance(3, 50)
        TrainingNotes(bar).status(status)
        bar._live.refresh()
    assert "fill 79%" in text.getvalue()
    console, text = _console()
    with Bar(console, "training") as bar:
        for _ in range(25):
            clock.now += 1.0
            TrainingNotes(bar).status(status)
    assert text.getvalue().count("1,412 tok/s live 63") == 2, "every ten seconds without one"


def test_a_sparkline_shows_the_whole_history_in_its_width() -> None:
    assert sparkline([], 8) == ""
    assert sparkline([0.0, 0.99, 1.0, -1.0, 2.0], 8, ascii_only=True) == "_##_#"
    rising = sparkline([i / 99 for i in range(100)], 8)
    assert rising == "".join(chr(0x2581 + i) for i in range(8))
    assert len(sparkline([0.5] * 7, 3)) == 3
