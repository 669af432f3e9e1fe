"""A tree of live states behind one supervisor: who holds which, what is evicted, what returns.

Every operation is a script: a generator that yields requests and gets their answers. The same
script is driven by a blocking caller and by asyncio, so there is one logic for both.
"""

from __future__ import annotations

import hashlib
import signal
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

from treegrpo.sandboxes.base import Level, Result, SandboxSpec
from treegrpo.sandboxes.connection import Answer, Connection, failure
from treegrpo.sandboxes.errors import (
    CapacityExceeded,
    ReplayDiverged,
    SandboxClosed,
    SandboxDead,
    SandboxError,
    SnapshotUnsupported,
)
from treegrpo.sandboxes.history import Action, History, outcome_digest

T = TypeVar("T")
_MEASURE_EVERY = 32  # forks and steps between two looks at what the states hold


@dataclass(frozen=True)
class Request:
    """One frame to the supervisor, and where to send it."""

    connection: Connection
    op: str
    header: dict[str, Any]
    blob: bytes = b""


Script = Generator[Request, Answer, T]


@dataclass(eq=False)
class State:
    """A state that handles point to; once shared or forked it never changes again.

    `number` is the supervisor's name of its process, None while it is evicted.
    """

    history: History
    number: int | None
    handles: int = 0
    forked: bool = False
    dead: bool = False
    checked: bool = False  # found forkable since something last ran
    branches: int = 0  # forks so far, for their seeds
    held_bytes: int = 1 << 20  # about what it costs, as of its last step
    pins: int = 0  # operations that need its process to stay


@dataclass(frozen=True)
class TreeStats:
    """A tree as it stands."""

    handles: int
    live: int  # states with a process, the pristine first one aside
    evicted: int  # states that come back by replay
    memory_bytes: int  # private to the live processes
    processes: int


@dataclass(eq=False)
class Tree:
    """One supervisor, its states, and the budget they share."""

    connection: Connection
    spec: SandboxSpec
    level: Level
    on_close: Callable[[], None]
    oom_kills: Callable[[], int] = lambda: 0  # of the kernel so far, where the host can count them
    seed: State = field(init=False)

    def __post_init__(self) -> None:
        """Start with the seed, in which nothing ever runs."""
        self.lock = threading.RLock()
        self.closed = False
        self._states: dict[State, None] = {}  # in order of last use
        self._grown = 0
        self._memory = 0
        self._promised = 0  # room given to forks that are under way

    def plant(self, number: int) -> State:
        """Take over the first state."""
        self.seed = State(History.start(self.spec), number, forked=True, checked=True)
        return self.seed

    # ------------------------------------------------------------------------------- handles

    def hold(self, state: State) -> State:
        """Count one more handle on a state."""
        with self.lock:
            self._alive()
            state.handles += 1
            self._states[state] = None
            return state

    def pin(self, state: State, by: int) -> None:
        """Keep a state from being evicted while an operation works on it."""
        with self.lock:
            state.pins += by

    def let_go(self, state: State) -> None:
        """Count one handle less; the last one on a state ends it, the last of all the tree."""
        with self.lock:
            if self.closed:
                return
            state.handles -= 1
            if state.handles:
                return
            self._states.pop(state, None)
            self._end_process(state)
            if not self._states:
                self.close()

    def close(self) -> None:
        """End every state and the supervisor; may be called twice."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
            self._states.clear()
        self.on_close()

    def stats(self) -> TreeStats:
        """Return what the tree holds now."""
        header, _ = self.connection.call("stats")
        with self.lock:
            live = [s for s in self._states if s.number is not None and s is not self.seed]
            return TreeStats(
                handles=sum(s.handles for s in self._states),
                live=len(live),
                evicted=sum(s.number is None and not s.dead for s in self._states),
                memory_bytes=header["private_bytes"],
                processes=header["processes"],
            )

    # ------------------------------------------------------------------------------- scripts

    def check(self, state: State) -> Script[None]:
        """Find out whether a state could be forked.

        Raises:
            SnapshotUnsupported: it could not, and no policy helps.
        """
        self._alive()
        if state.dead:
            raise SandboxDead(DEAD)
        if state.checked or state.number is None:
            return
        answer, _ = yield self.request("check", state=state.number)
        if answer["reasons"] and self.spec.on_unforkable != "replay":
            raise failure({"error": "SnapshotUnsupported", "reasons": answer["reasons"]})
        state.checked = not answer["reasons"]

    def own(self, state: State) -> Script[State]:
        """Return a state that only one handle sees and that may change: itself, or a fork."""
        if state.dead:
            raise SandboxDead(DEAD)
        with self.lock:
            if state.handles == 1 and not state.forked and state.number is not None:
                self._states[state] = self._states.pop(state, None)
                return state
        return (yield from self.fork_one(state))

    def fork_one(self, state: State) -> Script[State]:
        """Return a fork, without a handle yet."""
        made = yield from self.fork(state, 1)
        if isinstance(made[0], SandboxError):
            raise made[0]
        return made[0]

    def fork(self, state: State, n: int) -> Script[list[State | SandboxError]]:
        """Return n forks, each a state or the error that kept it from being one."""
        if state.dead:
            raise SandboxDead(DEAD)
        refused = yield from self._make_room(n)
        n -= len(refused)
        if not n:
            return [*refused]
        try:
            made = yield from self._forks_of(state, n)
        finally:
            with self.lock:
                self._promised -= n
        return made + refused

    def _forks_of(self, state: State, n: int) -> Script[list[State | SandboxError]]:
        seeds = [self._branch_seed(state) for _ in range(n)]
        history = state.history
        try:
            number = yield from self._living(state)
            answer, _ = yield self.request("fork", state=number, seeds=[s.hex() for s in seeds])
            state.forked = state.checked = True
            outcomes: list[Any] = answer["states"]
        except (SnapshotUnsupported, SandboxDead) as error:
            if isinstance(error, SnapshotUnsupported) and self.spec.on_unforkable != "replay":
                raise
            outcomes = list[Any]()
            for seed in seeds:
                number = yield from self.replay(history, avoid=state)
                if seed:
                    yield self.request("seed", state=number, seed=seed.hex())
                outcomes.append(number)
        made: list[State | SandboxError] = []
        for outcome, seed in zip(outcomes, seeds, strict=True):
            if isinstance(outcome, dict):
                made.append(failure(cast("dict[str, Any]", outcome)))
            else:
                child = State(self._branched(history, seed), outcome, checked=True)
                with self.lock:
                    self._states[child] = None  # counted at once; its handle comes next
                made.append(child)
        return made

    def replay(self, history: History, *, avoid: State | None = None) -> Script[int]:
        """Return the number of a new process with this history, every outcome compared.

        Raises:
            ReplayDiverged: an action's outcome differs from the recorded one.
        """
        missing: list[History] = []
        number = -1
        for past in history.back():
            ancestor = self._live_at(past, avoid)
            if ancestor is not None:
                try:
                    answer, _ = yield self.request("fork", state=ancestor.number, seeds=[""])
                    ancestor.forked = True
                    if isinstance(answer["states"][0], int):
                        number = answer["states"][0]
                        break
                except (SnapshotUnsupported, SandboxDead):
                    if past.parent is None:
                        raise
            missing.append(past)
        for past in reversed(missing):
            number = yield from self._redo(number, past)
        return number

    def perform(self, number: int, action: Action) -> Script[tuple[Result | None, bytes]]:
        """Do one action in a process; return its result, if it has one, and outcome digest."""
        if action.kind in ("code", "argv"):
            self._grown += 1
            header = {
                "state": number,
                "form": action.kind,
                "code_bytes": len(action.payload),
                "timeout_s": action.timeout_s,
            }
            kills = self.oom_kills()
            answer = yield Request(self.connection, "exec", header, action.payload + action.stdin)
            result = parse_result(*answer)
            self._note_cost(number, answer[0])
            if result.signal == signal.SIGKILL and self.oom_kills() > kills:
                result = replace(result, kind="memory", signal=None)
            return result, outcome_digest(result)
        header = {"state": number, "path": action.path}
        yield Request(self.connection, action.kind, header, action.payload)
        return None, b""

    def _note_cost(self, number: int, header: dict[str, Any]) -> None:
        with self.lock:
            for state in self._states:
                if state.number == number:
                    state.held_bytes = max(1 << 20, header.get("held_bytes", 0))

    def evict(self, state: State) -> Script[None]:
        """Drop a state's process unless another handle works on it; replay brings it back."""
        if state.number is None or state.dead or state is self.seed or state.pins > 1:
            return
        yield from self.check(state)
        self._end_process(state)

    def living(self, state: State) -> Script[int]:
        """Return the number of a state's process, brought back if it was evicted."""
        if state.dead:
            raise SandboxDead(DEAD)
        return (yield from self._living(state))

    def request(self, op: str, **header: Any) -> Request:
        """Return a request to this tree's supervisor."""
        self._alive()
        return Request(self.connection, op, header)

    # ----------------------------------------------------------------------------- the inside

    def _living(self, state: State) -> Script[int]:
        if state.number is None:
            refused = yield from self._make_room(1)
            if refused:
                raise refused[0]
            try:
                state.number = yield from self.replay(state.history)
            finally:
                self._promised -= 1
            state.forked = False
        with self.lock:
            if state in self._states:
                self._states[state] = self._states.pop(state)
        return state.number

    def _redo(self, number: int, past: History) -> Script[int]:
        action = past.action
        if action is None:
            raise ReplayDiverged("The tree's first state is gone; nothing can be replayed.")
        if action.kind == "branch":
            yield self.request("seed", state=number, seed=action.payload.hex())
            return number
        result, outcome = yield from self.perform(number, action)
        if outcome != past.outcome:
            yield self.request("release", state=number)
            told = f" It now gave {result.text[:200]!r}." if result is not None else ""
            raise ReplayDiverged(
                f"Replaying {action.payload[:80]!r} gave another outcome than the first time, so "
                f"the state cannot be brought back: the code is not deterministic.{told} Keep "
                "such states alive (a larger memory_budget_mb), or fix what they draw on."
            )
        return number

    def _live_at(self, history: History, avoid: State | None) -> State | None:
        if history is self.seed.history:
            return self.seed
        with self.lock:
            for state in self._states:
                if state.history is history and state.number is not None and state is not avoid:
                    return state
        return None

    def _branch_seed(self, state: State) -> bytes:
        """Return the seed of a state's next fork; none where random states are preserved."""
        if self.spec.rng == "preserve":
            return b""
        state.branches += 1
        return hashlib.sha256(state.history.hash + b"%d" % state.branches).digest()[:16]

    def _branched(self, history: History, seed: bytes) -> History:
        return history.then(Action("branch", seed)) if seed else history

    def _make_room(self, n: int) -> Script[list[SandboxError]]:
        """Evict until n more states fit; return an error for each that still does not."""
        self._grown += n
        if self._grown >= _MEASURE_EVERY:
            self._grown = 0
            header, _ = yield self.request("stats")
            self._memory = header["private_bytes"]
        while True:
            with self.lock:
                live = [s for s in self._states if s.number is not None and s is not self.seed]
                held = max(self._memory, sum(state.held_bytes for state in live))
                each = max(1, held // max(1, len(live)))
                memory_left = (self.spec.memory_budget_mb << 20) - held
                room = self.spec.max_states - len(live) - self._promised
                room = min(room, memory_left // each)
                if room >= n:
                    self._promised += n
                    return []
            if not (yield from self._evict_one(live)):
                break
            self._memory = max(0, self._memory - each)
        error = CapacityExceeded(
            f"{n} more states were asked for; {len(live)} live ones hold {held >> 20} MB "
            f"and none can be evicted. Close some, or raise max_states ({self.spec.max_states}) "
            f"or memory_budget_mb ({self.spec.memory_budget_mb})."
        )
        with self.lock:
            fitting = max(0, min(n, room))
            self._promised += fitting
        return [error] * (n - fitting)

    def _evict_one(self, live: list[State]) -> Script[bool]:
        """Evict the least recently used state, leaves before those that were forked."""
        for state in sorted(live, key=lambda s: s.forked):
            if state is self.seed or state.pins:
                continue
            try:
                yield from self.evict(state)
            except SandboxError:
                continue  # busy, or not forkable and so not to be replayed either
            return True
        return False

    def _end_process(self, state: State) -> None:
        if state.number is None or state is self.seed:
            return
        number, state.number = state.number, None
        if not state.dead:
            self.connection.future("release", state=number)

    def _alive(self) -> None:
        if self.closed:
            raise SandboxClosed("The tree of this sandbox has been closed; create a new one.")


DEAD = (
    "The interpreter in this sandbox has ended (see the result of its last step). Take a "
    "snapshot or fork before risky code, and go on from there."
)


def parse_result(header: dict[str, Any], blob: bytes) -> Result:
    """Return the result that an answer to exec carries."""
    middle = header["stdout_bytes"]
    return Result(
        kind=header["kind"],
        stdout=blob[:middle],
        stderr=blob[middle:],
        stdout_truncated=header["stdout_truncated"],
        stderr_truncated=header["stderr_truncated"],
        value=header.get("value"),
        exception=header.get("exception"),
        traceback=header.get("traceback"),
        exit_code=header.get("exit_code"),
        signal=header.get("signal"),
        wall_s=header["wall_s"],
        cpu_s=header.get("cpu_s", 0.0),
        alive=header["alive"],
    )


def drive(script: Script[T]) -> T:
    """Run a script to its end, blocking for each answer."""
    try:
        request = next(script)
        while True:
            try:
                answer = request.connection.call(request.op, request.blob, **request.header)
            except SandboxError as error:
                request = script.throw(error)
            else:
                request = script.send(answer)
    except StopIteration as end:
        return end.value
