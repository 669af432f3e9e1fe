"""The times of our own forks, steps and starts.

Every run is timed alone: what it made has been given back, and the supervisor is idle again,
before the next one begins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from treegrpo.sandboxes.base import Limits, SandboxSpec
from treegrpo.sandboxes.bench.report import Counts, Measurement, latencies, quantile
from treegrpo.sandboxes.errors import SandboxError

if TYPE_CHECKING:
    from treegrpo.sandboxes import Backend, Sandbox

FILES = 200
DEPTH = 16
CALLERS = 4
W1 = SandboxSpec(zygote="numpy")
MEMORY_ONLY = SandboxSpec(limits=Limits(workspace_mb=0))
SET_UP = (
    "import os, numpy as np\n"
    f"for i in range({FILES}):\n"
    "    with open(f'file{i}', 'wb') as file: file.write(os.urandom(4096))\n"
    "x = np.arange(10_000.0)\n"
    "steps = 0"
)
STEP = "y = x * 2; steps += 1"  # writes 80 KB
Run = Callable[[], Callable[[], object]]


def node(backend: Backend, spec: SandboxSpec = W1) -> Sandbox:
    """Return the root of a new tree in which the workload is set up."""
    root = backend.create(spec)
    expect(root, SET_UP, None)
    return root


def expect(sandbox: Sandbox, code: str, value: str | None) -> None:
    """Run code; a bench of sandboxes that do not work measures nothing."""
    result = sandbox.exec(code)
    if not result.ok or result.value != value:
        raise SandboxError(f"The bench ran {code[:60]!r}, wanted {value!r} and found {result}.")


def first(forks: list[Sandbox | SandboxError]) -> Sandbox:
    """Return the only fork; its error is raised."""
    if isinstance(forks[0], SandboxError):
        raise forks[0]
    return forks[0]


def timed(
    counts: Counts, *runs: Run, repeats: int | None = None, warm: int | None = None
) -> list[list[float]]:
    """Return the seconds of each kind of run, the kinds taking turns.

    A run returns what puts the sandboxes back, which is not timed.
    """
    found: list[list[float]] = [[] for _ in runs]
    wanted = counts.runs if repeats is None else repeats
    for number in range(-(counts.warm if warm is None else warm), wanted):
        for kind, run in enumerate(runs):
            began = time.perf_counter()
            undo = run()
            took = time.perf_counter() - began
            undo()
            if number >= 0:
                found[kind].append(took)
    return found


def node_forks(backend: Backend, counts: Counts) -> tuple[Measurement, ...]:
    """Measure a full fork: memory, files and isolation."""
    with node(backend) as root:
        alone, pinged = timed(counts, _fork_of(root), _fork_of(root, "int(x[7])", "7"))
    state = f"numpy loaded, {FILES} files of 4 KiB"
    return (
        latencies("node_fork", f"fork(1) of a state ({state}) until the child is ready", alone),
        latencies(
            "node_fork_ping",
            f"fork(1) of a state ({state}) until the child has answered what is in its memory",
            pinged,
        ),
    )


def memory_forks(backend: Backend, counts: Counts) -> tuple[Measurement, ...]:
    """Measure a fork of a bare interpreter without files."""
    with backend.create(MEMORY_ONLY) as root:
        expect(root, "x = 7", None)
        (seconds,) = timed(counts, _fork_of(root))
    return (latencies("memory_fork", "fork(1) of a bare interpreter without a workspace", seconds),)


def steps(backend: Backend, counts: Counts) -> tuple[Measurement, ...]:
    """Measure a step that does next to nothing, and a snapshot of a state that has just run."""
    with node(backend) as root:

        def step() -> Callable[[], object]:
            expect(root, "1 + 1", "2")
            return lambda: None

        (round_trips,) = timed(counts, step, repeats=2 * counts.runs)
        snapshots: list[float] = []
        for _ in range(counts.runs):
            expect(root, STEP, None)
            began = time.perf_counter()
            second = root.snapshot()
            snapshots.append(time.perf_counter() - began)
            second.close()
    return (
        latencies("roundtrip", "exec('1 + 1') in a warm state", round_trips),
        latencies("snapshot", "snapshot() of a state that has just run a step", snapshots),
    )


def sustained(backend: Backend, counts: Counts) -> tuple[Measurement, ...]:
    """Measure fork, step and close without a pause, by one caller and by several at once."""
    with node(backend) as root:
        callers = [first([one]) for one in root.fork(CALLERS)]

        def cycles(parent: Sandbox) -> list[float]:
            seconds: list[float] = []
            for _ in range(counts.runs):
                began = time.perf_counter()
                with first(parent.fork(1)) as child:
                    expect(child, STEP, None)
                seconds.append(time.perf_counter() - began)
            return seconds

        for _ in range(counts.warm):
            first(root.fork(1)).close()
        alone = cycles(root)
        began = time.perf_counter()
        with ThreadPoolExecutor(CALLERS) as pool:
            together = [one for each in pool.map(cycles, callers) for one in each]
        took = time.perf_counter() - began
        for caller in callers:
            caller.close()
    what = "fork(1), a step and close(), again and again, by "
    single = {"forks_one_caller_per_s": len(alone) / sum(alone)}
    many = {"forks_per_s": len(together) / took}
    return (
        Measurement("sustained_one", what + "one caller", "ms", _ms(alone), single),
        Measurement("sustained", f"{what}{CALLERS} callers at once", "ms", _ms(together), many),
    )


def depth(backend: Backend, counts: Counts) -> tuple[Measurement, ...]:
    """Measure forks at the end of a chain of live states, and that end run again from the root."""
    with node(backend) as top, backend.create(W1) as fresh:
        chain = [top]
        for _ in range(DEPTH):
            chain.append(first(chain[-1].fork(1)))
            expect(chain[-1], STEP, None)
        end = chain[-1]
        expect(end, "steps", str(DEPTH))
        shallow, deep = timed(counts, _fork_of(top), _fork_of(end))
        for state in chain[1:]:
            state.close()

        def replay() -> Callable[[], object]:
            again = first(fresh.fork(1))
            expect(again, SET_UP, None)
            for _ in range(DEPTH):
                expect(again, STEP, None)
            return again.close

        (replays,) = timed(counts, replay)
    ratio = quantile(deep, 0.5) / quantile(shallow, 0.5)
    at = f"fork(1) of the state at depth {DEPTH} of a chain of live states"
    deeper = latencies("depth16_fork", at, deep)
    return (
        latencies("depth0_fork", "fork(1) of the first state of that chain, taking turns", shallow),
        Measurement(
            deeper.name, at, "ms", deeper.values, {**deeper.metrics, "depth16_ratio": ratio}
        ),
        latencies(
            "replay_root",
            f"the state at depth {DEPTH} made again: fork of a fresh interpreter with numpy, the "
            f"{FILES} files written, {DEPTH} steps (each next to nothing, so this is a floor)",
            replays,
        ),
    )


def fanouts(backend: Backend, counts: Counts) -> tuple[Measurement, ...]:
    """Measure 100 children of one state at once."""
    with node(backend) as root:

        def fork() -> Callable[[], object]:
            children = root.fork(100)

            def undo() -> None:
                for child in children:
                    first([child]).close()
                root.check()

            return undo

        (seconds,) = timed(counts, fork, repeats=counts.fanouts, warm=1)
    values = _ms(seconds)
    metrics = {"fanout100_ms": quantile(values, 0.5), "fanout100_max_ms": max(values)}
    return (Measurement("fanout100", "fork(100), all ready", "ms", values, metrics),)


def tree_starts(backend: Backend, counts: Counts) -> tuple[Measurement, ...]:
    """Measure new trees while the launcher is warm."""

    def start() -> Callable[[], object]:
        return backend.create(W1).close

    (seconds,) = timed(counts, start)
    return (latencies("tree_start", "create() with numpy loaded, the launcher warm", seconds),)


def _fork_of(parent: Sandbox, code: str = "", value: str = "") -> Run:
    def fork() -> Callable[[], object]:
        child = first(parent.fork(1))
        if code:
            expect(child, code, value)

        def undo() -> None:
            child.close()
            parent.check()  # answered after the child's end

        return undo

    return fork


def _ms(seconds: Sequence[float]) -> tuple[float, ...]:
    return tuple(1e3 * one for one in seconds)
