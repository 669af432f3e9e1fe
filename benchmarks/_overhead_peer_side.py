"""Drives one peer of env_overhead in the peer's own venv; imports nothing of ours.

    .venv-peers/textarena/bin/python -m benchmarks._overhead_peer_side textarena

Standard input and output hold one JSON object a line. The first line in gives the games that
are played on both sides; the answer names the environments. Each further line is a request,
{"measure": NAME, "seconds": S} or {"judge": NAME}, with one line of answer.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import tempfile
import time
from importlib.metadata import version
from statistics import median
from typing import Any

from benchmarks._overhead_peer_envs import PEERS, Entry, Moment

MIN_PASSES, MAX_LONGER = 9, 3
"""Passes that a median of steps should have, and how much longer that may take: as for ours."""


def measure(entry: Entry, seconds: float) -> dict[str, Any]:
    """Return the steps of one episode, their median seconds in all, and times of copies.

    The episode is played over and over for about `seconds`, and so are the copies made; longer
    for MIN_PASSES episodes, but not MAX_LONGER times as long.
    """
    passes: list[list[float]] = []
    started = time.perf_counter()
    while not passes or time.perf_counter() - started < seconds * (
        1 if len(passes) >= MIN_PASSES else MAX_LONGER
    ):
        passes.append(_episode(entry))
    # Each step's median: what else the machine did meanwhile falls on other steps each time.
    each = [median(times) for times in zip(*passes, strict=True)]
    found = {"steps": len(each), "step_s": sum(each), "passes": len(passes)}
    return {**found, "copy_ms": _copies(entry, seconds)}


def _episode(entry: Entry) -> list[float]:
    """Return the seconds of each step of an episode."""
    env = entry.make()
    taken: list[float] = []
    for action in entry.actions:
        begun = time.perf_counter()
        moment = entry.step(env, action)
        taken.append(time.perf_counter() - begun)
        if moment[2]:
            break
    return taken


def _copies(entry: Entry, seconds: float) -> list[float]:
    """Return milliseconds of one copy at every step; none where copying raises."""
    found: list[float] = []
    started = time.perf_counter()
    while not found or time.perf_counter() - started < seconds:
        env = entry.make()
        for action in entry.actions:
            begun = time.perf_counter()
            try:
                entry.copy(env)
            except Exception:  # noqa: BLE001 - judge() tells what was raised
                return []
            found.append(1_000 * (time.perf_counter() - begun))
            if entry.step(env, action)[2]:
                break
    return found


def judge(entry: Entry) -> dict[str, Any]:
    """Return whether a copy goes on as the original would have, and what the script gave."""
    expected = _play(entry, entry.make())
    points = sorted({0, len(expected) // 2, max(0, len(expected) - 1)})
    verdict = "right"
    for point in points:
        fault = _fault(entry, point, expected[point:])
        if fault is not None:
            verdict = fault
            break
    return {"verdict": verdict, "own": _own(entry.make()), "moments": expected}


def _play(entry: Entry, env: Any, start: int = 0) -> list[Moment]:
    found: list[Moment] = []
    for action in entry.actions[start:]:
        found.append(entry.step(env, action))
        if found[-1][2]:
            break
    return found


def _fault(entry: Entry, point: int, expected: list[Moment]) -> str | None:
    """Return what is wrong with a copy after `point` steps; it and the original take turns."""
    env = entry.make()
    for action in entry.actions[:point]:
        entry.step(env, action)
    try:
        twin = entry.copy(env)
    except Exception as error:  # noqa: BLE001 - a peer's object may raise anything
        return f"none: {type(error).__name__}: {str(error)[:120]}"
    for number, moment in enumerate(expected):
        action = entry.actions[point + number]
        for who, one in (("the copy", twin), ("the original", env)):
            if entry.step(one, action) != moment:
                return f"wrong: {who} of step {point} goes on otherwise {number + 1} steps later"
    return None


def _own(env: Any) -> str:
    """Return the snapshot that the peer itself offers for this environment, or "none"."""
    for name in ("snapshot", "clone_state"):
        if callable(getattr(env, name, None)):
            return name
    for name, arguments in (("get_state", {}), ("spawn", {"same_state": True})):
        if callable(getattr(env, name, None)):
            try:
                getattr(env, name)(**arguments)
            except Exception:  # noqa: BLE001 - offered by a base class, not written here
                continue
            return name
    return "none"


def answer(entries: dict[str, Entry], request: dict[str, Any]) -> dict[str, Any]:
    """Return what was asked for, or what the peer raised under "failed"."""
    try:
        if "measure" in request:
            return measure(entries[request["measure"]], request["seconds"])
        return judge(entries[request["judge"]])
    except Exception as error:  # noqa: BLE001 - one environment must not end the others
        return {"failed": f"{type(error).__name__}: {str(error)[:300]}"}


def main() -> None:
    """Answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a peer prints must not stand among the answers
    logging.disable(logging.CRITICAL)
    package, builders = PEERS[sys.argv[1]]
    folder = tempfile.mkdtemp(prefix="overhead-")
    try:
        given = {**json.loads(sys.stdin.readline()), "folder": folder}
        entries: dict[str, Entry] = {}
        missing: dict[str, str] = {}
        for name, build in builders.items():
            try:
                entry = build(given)
                entry.make()
                entries[name] = entry
            except Exception as error:  # noqa: BLE001 - one environment must not hide the others
                missing[name] = f"{type(error).__name__}: {str(error)[:300]}"
        first = {"version": version(package), "entries": list(entries), "missing": missing}
        print(json.dumps(first), file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(answer(entries, json.loads(line))), file=answers, flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
