"""Fork correctness, F8 to F13: identity, busy and dead states, many forks, crashes, libraries."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from treegrpo.sandboxes.conformance.case import (
    PATIENCE_S,
    Bench,
    Case,
    Checks,
    case_of,
    first_fork,
)
from treegrpo.sandboxes.conformance.containers import containers_of, kill_containers
from treegrpo.sandboxes.conformance.leaks import commands_with, descendants, kills, new_nonce
from treegrpo.sandboxes.errors import (
    CapacityExceeded,
    SandboxBusy,
    SandboxClosed,
    SandboxDead,
    SandboxError,
    SandboxLost,
)

if TYPE_CHECKING:
    from treegrpo.sandboxes import Sandbox

# What a client does whose death must take everything along.
CLIENT = (
    "import json, sys\n"
    "from treegrpo.sandboxes import SandboxSpec, open_backend\n"
    "name, options, spec, nonce = sys.argv[1:]\n"
    "backend = open_backend(name, **json.loads(options))\n"
    "root = backend.create(SandboxSpec.model_validate_json(spec))\n"
    "forks = root.fork(3)\n"
    "print(len(forks), flush=True)\n"
    "forks[0].exec(['sleep', nonce], timeout_s=600)\n"
)
SOLVE = "v = float(np.linalg.inv(m)[0, 0] + np.linalg.solve(m, m)[1, 1] + (m @ m.T).sum())"


def f8_identity_survives(bench: Bench, check: Checks) -> None:
    """Process ids, locks of logging, lock files and multiprocessing work in a fork."""
    with bench.sandbox() as root:
        check.runs(root, "import logging, multiprocessing, os, sys, threading")
        check.runs(root, "logging.basicConfig(stream=sys.stdout, force=True); pid = os.getpid()")
        check.runs(root, "n = open('pid', 'w').write(str(pid)); lock = threading.RLock()")
        child = first_fork(root)
        check.runs(child, "os.kill(os.getpid(), 0)")
        check.value(repr(str(check.runs(root, "pid").value)), child, "open('pid').read()")
        logged = check.runs(child, "logging.warning('kept %s', 1)")
        check.same(b"WARNING:root:kept 1\n", logged.stdout, "a log line in a fork")
        check.value("True", child, "threading.current_thread() is threading.main_thread()")
        check.value("'MainProcess'", child, "multiprocessing.current_process().name")
        check.value("0", child, "import subprocess; subprocess.run(['true']).returncode")
        code = "pid = os.fork()\nif pid == 0: os._exit(4)\nstatus = os.waitpid(pid, 0)[1]"
        check.value("4", child, f"{code}\nos.waitstatus_to_exitcode(status)")


def f9_a_running_state_is_not_forked(bench: Bench, check: Checks) -> None:
    """A fork while its state runs is refused as busy; a snapshot taken before goes on at once."""
    with bench.sandbox() as box, ThreadPoolExecutor(1) as pool:
        check.runs(box, "import time; x = 1")
        kept = box.snapshot()
        refusals = 0
        for seconds in (0.5, 5, 50):  # on a busy host a short step may end before we are asked
            running = pool.submit(box.exec, f"x = 2; time.sleep({seconds}); x", timeout_s=200)
            while not running.done() and not refusals:
                try:
                    for fork in box.fork():
                        refusals += isinstance(fork, SandboxBusy)
                except SandboxBusy:
                    refusals += 1
                time.sleep(0.005)
            if refusals:
                break
        check.same(1, refusals, "forks refused as busy")
        check.value("1", kept, "x")
        check.same("2", running.result(PATIENCE_S).value, "the running step")


def f10_dead_closed_and_evicted(bench: Bench, check: Checks) -> None:
    """Dead and closed states refuse by their error; evicted ones fork, also amid evictions."""
    with bench.sandbox() as root:
        child, _ = root.step("x = [1]")
        grandchild, _ = child.step("x.append(2)")
        dead, _ = grandchild.step("import os; os.abort()")
        check.raises(SandboxDead, lambda: first_fork(dead))
        check.same(["dead"], [reason.kind for reason in dead.check()], "check() of a dead state")
        dead.close()
        check.raises(SandboxClosed, dead.fork)
        for box in (grandchild, child):
            box.evict()
        check.value("[1, 2]", first_fork(grandchild), "x")

        other, evictions = child.snapshot(), 0
        with ThreadPoolExecutor(1) as pool:
            forks = pool.submit(_forked_values, other, check, lambda: evictions > 12)
            while not forks.done():
                with contextlib.suppress(SandboxBusy):
                    child.evict()
                    evictions += 1
            values = forks.result(PATIENCE_S)
        check.that(evictions > 12, f"{evictions} evictions beside {len(values)} forks")
        check.same({"[1]"}, set(values), "forks during evictions")


def _forked_values(box: Sandbox, check: Checks, is_enough: Callable[[], bool]) -> list[str | None]:
    """Return what a dozen forks or more hold, made one after the other until it is enough.

    A busy state is asked again.
    """
    values: list[str | None] = []
    end = time.monotonic() + PATIENCE_S
    while len(values) < 12 or not (is_enough() or time.monotonic() > end):
        with contextlib.suppress(SandboxBusy):
            fork = first_fork(box)
            values.append(check.runs(fork, "x").value)
            fork.close()
    return values


def f11_many_forks_of_one_state(bench: Bench, check: Checks) -> None:
    """Hundreds of forks of one state are live at once, each with its own memory and files."""
    count = bench.times(200)
    with bench.sandbox() as root:
        check.runs(root, "x = [0]; n = open('f', 'w').write('0')")
        forks = [fork for fork in root.fork(count) if not isinstance(fork, SandboxError)]
        check.same(count, len(forks), "forks")
        for number, fork in enumerate(forks):
            check.runs(fork, f"x.append({number}); n = open('f', 'a').write('{number}')")
        for number in range(0, count, 9):
            check.value(f"([0, {number}], '0{number}')", forks[number], "x, open('f').read()")
        stats = root.tree.stats()
        check.that(stats.live + stats.evicted >= count + 1, f"stats: {stats}")


def f11_a_chain_of_forty(bench: Bench, check: Checks) -> None:
    """Forty states behind one another, all kept, each hold their own memory and files."""
    with bench.sandbox() as root:
        check.runs(root, "x = [0]; n = open('f', 'w').write('.')")
        chain: list[Sandbox] = [root]
        for number in range(1, 41):
            child, result = chain[-1].step(f"x.append({number}); n = open('f', 'a').write('.')")
            check.same("ok", result.kind, f"step {number}: {result}")
            chain.append(child)
        for number in (40, 31, 20, 1, 0):
            code = "len(x), x[-1], len(open('f').read())"
            check.value(f"({number + 1}, {number}, {number + 1})", chain[number], code)
        check.value("41", first_fork(chain[40]), "len(x)")


def f11_budgets_are_kept(bench: Bench, check: Checks) -> None:
    """Beyond max_states a fork is CapacityExceeded naming the limit, and the others are served."""
    with bench.sandbox(max_states=6) as root:
        forks = root.fork(10)
        check.same(10, len(forks), "entries of a fork beyond the limit")
        served = [fork for fork in forks if not isinstance(fork, SandboxError)]
        refused = [fork for fork in forks if isinstance(fork, SandboxError)]
        check.that(0 < len(served) <= 6, f"{len(served)} served of a limit of 6")
        check.that(all(isinstance(e, CapacityExceeded) for e in refused), f"errors: {refused}")
        check.that(bool(refused) and "6" in str(refused[0]), f"the limit's name: {refused[:1]}")
        for fork in served:
            check.value("2", fork, "1 + 1")
        for round_ in (1, 2):  # evicted ones come back, and others make room for them
            for box in (root, *served):
                check.same([], box.list(), "files")
                live = box.tree.stats().live
                check.that(live <= 6, f"round {round_}: {live} live states of a limit of 6")
        for fork in served:
            fork.close()
        check.value("3", first_fork(root), "1 + 2")


def f12_a_crash_takes_all_along(bench: Bench, check: Checks) -> None:
    """A supervisor killed amid a step gives SandboxLost at once, and leaves no process."""
    nonce, before = new_nonce(), descendants()
    with bench.reopen() as backend, ThreadPoolExecutor(1) as pool:
        others = containers_of(bench, os.getpid())
        root = backend.create(bench.spec(timeout_s=600))
        fork = first_fork(root)
        running = pool.submit(root.exec, ["sleep", nonce])
        check.empties(lambda: not commands_with(nonce), "the step did not begin")
        if made := containers_of(bench, os.getpid()) - others:
            kill_containers(made)
        else:
            _kill(_children() - before)
        check.raises(SandboxLost, lambda: running.result(PATIENCE_S))
        check.raises(SandboxLost, lambda: fork.exec("1"))
        with kills(nonce):
            check.empties(lambda: commands_with(nonce), "processes of a lost tree")
        root.close()
        other = backend.create(bench.spec())
        check.value("2", other, "1 + 1")
    check.empties(lambda: _alive(descendants() - before), "processes of the backend")
    check.empties(lambda: containers_of(bench, os.getpid()) - others, "containers")


def f12_a_dead_client_leaves_nothing(bench: Bench, check: Checks) -> None:
    """A client killed amid a step takes its tree along; what it kept goes with the next client."""
    nonce, spec = new_nonce(), bench.spec()
    options = json.dumps(bench.backend.options)
    words = [bench.backend.name, options, spec.model_dump_json(), nonce]
    client = subprocess.Popen([sys.executable, "-c", CLIENT, *words], stdout=subprocess.PIPE)
    with client:
        check.same(b"3\n", client.stdout.readline() if client.stdout else b"", "forks")
        check.empties(lambda: not commands_with(nonce), "the step did not begin")
        below, made = descendants(client.pid), containers_of(bench, client.pid)
        check.that(len(below) > 1 or bool(made), f"processes of the client: {below}")
        client.kill()
    with kills(nonce):
        check.empties(lambda: commands_with(nonce) or _alive(below), "processes left")
    with bench.reopen() as backend:
        check.value("2", backend.create(spec), "1 + 1")
    check.empties(lambda: containers_of(bench, client.pid), "containers of a dead client")


def f13_linear_algebra_survives_forks(bench: Bench, check: Checks) -> None:
    """Two hundred rounds of numpy linear algebra in fork and parent alike: no deadlock."""
    rounds = bench.times(200)
    with bench.sandbox(zygote="numpy", timeout_s=PATIENCE_S) as root:
        check.runs(root, "import numpy as np; m = np.random.default_rng(0).normal(size=(96, 96))")
        expected = check.runs(root, f"{SOLVE}; round(v, 6)").value
        for number in range(rounds):
            child = first_fork(root)
            if number % 2:  # the others do nothing in the fork, which has deadlocked the parent
                check.value(expected, child, f"{SOLVE}; round(v, 6)")
            check.value(expected, root, f"{SOLVE}; round(v, 6)")
            child.close()


def _kill(pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _children() -> set[int]:
    own = descendants()
    return {pid for pid in own if _parent(pid) == os.getpid()}


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return -1


def _alive(pids: set[int]) -> set[int]:
    """Return the processes that are there and no zombies."""
    found: set[int] = set()
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
            if file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X"):
                found.add(pid)
    return found


CASES: tuple[Case, ...] = (
    case_of(f8_identity_survives, "fork", row="F8"),
    case_of(f9_a_running_state_is_not_forked, "fork", row="F9"),
    case_of(f10_dead_closed_and_evicted, "fork", row="F10"),
    case_of(f11_many_forks_of_one_state, "fork", row="F11"),
    case_of(f11_a_chain_of_forty, "fork", row="F11"),
    case_of(f11_budgets_are_kept, "fork", row="F11"),
    case_of(f12_a_crash_takes_all_along, "fork", row="F12"),
    case_of(f12_a_dead_client_leaves_nothing, "fork", row="F12"),
    case_of(f13_linear_algebra_survives_forks, "fork", row="F13", zygote="numpy"),
)
