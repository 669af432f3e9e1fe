"""The file against the trace event format, and what many threads record together."""

import json
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from treegrpo.rollout.timeline import NO_TIMELINE, Timeline
from treegrpo.runfolder import RunFolderError

# What each phase must carry, beside "ph", "name", "pid" and "tid".
REQUIRED = {
    "X": {"ts", "dur", "args"},
    "i": {"ts", "s", "args"},
    "C": {"ts", "args"},
    "M": {"args"},
}


def written(timeline: Timeline, folder: Path) -> dict[str, Any]:
    """Return the file of a time line, strictly parsed: no NaN, no name twice in an object."""
    path = folder / "trace.json"
    timeline.write(path)
    assert sorted(file.name for file in folder.iterdir()) == ["trace.json"]

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len({key for key, _ in pairs}) == len(pairs)
        return dict(pairs)

    text = path.read_text(encoding="utf-8")
    return json.loads(text, parse_constant=refuse, object_pairs_hook=once)


def events(timeline: Timeline, folder: Path, phase: str) -> list[dict[str, Any]]:
    return [e for e in written(timeline, folder)["traceEvents"] if e["ph"] == phase]


def rows(content: dict[str, Any]) -> dict[int, str]:
    """Return the name of each row."""
    named = [e for e in content["traceEvents"] if e["name"] == "thread_name"]
    return {event["tid"]: event["args"]["name"] for event in named}


def require_nested(spans: list[dict[str, Any]]) -> None:
    """Of two spans of a row, one ends before the other begins, or contains it."""
    open_ends: list[float] = []
    for span in spans:
        while open_ends and open_ends[-1] <= span["ts"]:
            open_ends.pop()
        end = round(span["ts"] + span["dur"], 3)
        assert not open_ends or end <= open_ends[-1], span
        open_ends.append(end)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A clock that moves on by 1,500 ns each time it is read, from 1 s."""
    ticks = count(1_000_000_000, 1_500)
    monkeypatch.setattr(time, "perf_counter_ns", lambda: next(ticks))
    return ticks


@pytest.mark.usefixtures("clock")
def test_the_file_of_a_short_step(tmp_path: Path) -> None:
    timeline = Timeline()
    with timeline.span("step", track="trainer"), timeline.span("decode", track="engine", rows=12):
        timeline.counter("live nodes", 37)
        timeline.instant("fork", track="engine", depth=2)
    content = written(timeline, tmp_path)
    pid = content["traceEvents"][0]["pid"]
    assert content["displayTimeUnit"] == "ms"
    assert content["otherData"] == {"events_left_out": 0}
    assert [{k: v for k, v in e.items() if k != "pid"} for e in content["traceEvents"]] == [
        {"ph": "M", "name": "process_name", "tid": 0, "args": {"name": "treegrpo"}},
        {"ph": "M", "name": "thread_name", "tid": 1, "args": {"name": "trainer"}},
        {"ph": "M", "name": "thread_sort_index", "tid": 1, "args": {"sort_index": 1}},
        {"ph": "M", "name": "thread_name", "tid": 2, "args": {"name": "engine"}},
        {"ph": "M", "name": "thread_sort_index", "tid": 2, "args": {"sort_index": 2}},
        {"ph": "X", "name": "step", "tid": 1, "ts": 1.5, "dur": 7.5, "args": {}},
        {"ph": "X", "name": "decode", "tid": 2, "ts": 3.0, "dur": 4.5, "args": {"rows": 12}},
        {"ph": "C", "name": "live nodes", "tid": 0, "ts": 4.5, "args": {"value": 37}},
        {"ph": "i", "name": "fork", "tid": 2, "ts": 6.0, "args": {"depth": 2}, "s": "t"},
    ]
    assert {event["pid"] for event in content["traceEvents"]} == {pid}


def test_every_event_has_what_its_phase_requires(tmp_path: Path) -> None:
    timeline = Timeline()
    with timeline.span("outer"), timeline.span("inner", share=0.5, of="rows", done=True, left=None):
        timeline.counter("tokens/s", 12.5)
        timeline.instant("here")
    all_events = written(timeline, tmp_path)["traceEvents"]
    assert Counter(e["ph"] for e in all_events) == {"M": 3, "X": 2, "C": 1, "i": 1}
    for event in all_events:
        assert REQUIRED[event["ph"]] | {"ph", "name", "pid", "tid"} == set(event)
        assert isinstance(event["pid"], int) and isinstance(event["tid"], int)
        assert event.get("ts", 0) >= 0 and event.get("dur", 0) >= 0
    inner = next(e for e in all_events if e["name"] == "inner")
    assert inner["args"] == {"share": 0.5, "of": "rows", "done": True, "left": None}


def test_a_span_that_begins_with_another_stands_behind_what_contains_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter([0, 5_000, 5_000, 6_000, 9_000])
    monkeypatch.setattr(time, "perf_counter_ns", lambda: next(ticks))
    timeline = Timeline()
    with timeline.span("outer"), timeline.span("inner"):
        pass
    spans = [(e["name"], e["ts"], e["dur"]) for e in events(timeline, tmp_path, "X")]
    assert spans == [("outer", 5.0, 4.0), ("inner", 5.0, 1.0)]


def test_spans_from_many_threads_are_all_there_and_nest(tmp_path: Path) -> None:
    timeline, threads, each = Timeline(), 8, 40
    together = threading.Barrier(threads)

    def work(number: int) -> None:
        together.wait()
        for turn in range(each):
            with timeline.span("answer", track="environment", who=number, turn=turn):
                with timeline.span("tool", track="environment", who=number, turn=turn):
                    timeline.counter("waiting", turn)
                timeline.instant("answered", track="environment", who=number)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(threads)))
    content = written(timeline, tmp_path)
    spans = [e for e in content["traceEvents"] if e["ph"] == "X"]
    told = Counter((e["name"], e["args"]["who"], e["args"]["turn"]) for e in spans)
    assert told == Counter(
        (name, who, turn)
        for name in ("answer", "tool")
        for who in range(threads)
        for turn in range(each)
    )
    assert Counter(e["ph"] for e in content["traceEvents"] if e["ph"] in "iC") == {
        "i": threads * each,
        "C": threads * each,
    }
    names = rows(content)
    assert len(names) <= threads
    assert sorted(names.values()) == sorted(
        ["environment", *(f"environment {n}" for n in range(2, len(names) + 1))]
    )
    for row in names:
        own = [e for e in spans if e["tid"] == row]
        assert [e["ts"] for e in own] == sorted(e["ts"] for e in own)
        require_nested(own)
        assert own


def test_overlapping_spans_of_two_threads_get_rows_of_their_own(tmp_path: Path) -> None:
    timeline = Timeline()
    inside, over = threading.Event(), threading.Event()

    def slow() -> None:
        with timeline.span("slow", track="environment"):
            inside.set()
            assert over.wait(10)

    thread = threading.Thread(target=slow)
    thread.start()
    assert inside.wait(10)
    with timeline.span("quick", track="environment"):
        timeline.instant("tick", track="environment")
    over.set()
    thread.join()
    with timeline.span("later", track="environment"):
        pass
    content = written(timeline, tmp_path)
    at = {e["name"]: rows(content)[e["tid"]] for e in content["traceEvents"] if e["ph"] in "Xi"}
    assert at == {
        "slow": "environment",
        "quick": "environment 2",
        "tick": "environment 2",
        "later": "environment",
    }


def test_names_of_any_kind_survive(tmp_path: Path) -> None:
    timeline = Timeline()
    name = 'a "quoted" \\ name\n</script>\x00 \u2028 \U0001f600'
    with timeline.span(name, track=name, said=name):
        timeline.counter(name, 1)
    content = written(timeline, tmp_path)
    [span] = [e for e in content["traceEvents"] if e["ph"] == "X"]
    assert span["name"] == span["args"]["said"] == rows(content)[span["tid"]] == name


def test_numbers_that_are_not_finite_leave_a_readable_file(tmp_path: Path) -> None:
    timeline = Timeline()
    timeline.counter("fill", math.nan)
    timeline.counter("fill", math.inf)
    timeline.counter("fill", 0.5)
    timeline.instant("loss", value=math.inf)
    assert [e["args"] for e in events(timeline, tmp_path, "C")] == [{"value": 0.5}]
    assert [e["args"] for e in events(timeline, tmp_path, "i")] == [{"value": "inf"}]


def test_a_span_that_raises_is_recorded_with_the_error(tmp_path: Path) -> None:
    timeline = Timeline()
    with pytest.raises(KeyError), timeline.span("work", rows=1):
        raise KeyError("x")
    with timeline.span("after"):
        pass
    work, after = events(timeline, tmp_path, "X")
    assert work["args"] == {"rows": 1, "raised": "KeyError"}
    assert after["tid"] == work["tid"]


def test_what_has_not_ended_is_left_to_the_next_file(tmp_path: Path) -> None:
    timeline = Timeline()
    with timeline.span("outer"):
        with timeline.span("inner"):
            pass
        assert [e["name"] for e in events(timeline, tmp_path, "X")] == ["inner"]
    assert [e["name"] for e in events(timeline, tmp_path, "X")] == ["outer", "inner"]


def test_a_full_time_line_counts_what_it_leaves_out(tmp_path: Path) -> None:
    timeline = Timeline(max_events=2)
    for number in range(5):
        timeline.counter("n", number)
    content = written(timeline, tmp_path)
    assert content["otherData"] == {"events_left_out": 3}
    assert [e["args"]["value"] for e in content["traceEvents"] if e["ph"] == "C"] == [0, 1]


def test_a_file_that_cannot_be_written_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    timeline = Timeline()
    timeline.counter("n", 1)
    with pytest.raises(RunFolderError, match="missing"):
        timeline.write(tmp_path / "missing" / "trace.json")
    assert len(events(timeline, tmp_path, "C")) == 1


def test_no_timeline_records_and_writes_nothing(tmp_path: Path) -> None:
    with NO_TIMELINE.span("outer", track="a", rows=1), NO_TIMELINE.span("inner"):
        NO_TIMELINE.instant("here")
        NO_TIMELINE.counter("n", 1)
    NO_TIMELINE.write(tmp_path / "trace.json")
    assert list(tmp_path.iterdir()) == []
    assert NO_TIMELINE._events == [] and NO_TIMELINE._tracks == {}
    with pytest.raises(KeyError), NO_TIMELINE.span("work"):
        raise KeyError("x")
