"""Function: handles, snapshots, histories, eviction, threads, and what is closed when."""

from __future__ import annotations

import asyncio
import copy
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from treegrpo.sandboxes.base import Level, Result, SandboxSpec
from treegrpo.sandboxes.conformance.case import (
    PATIENCE_S,
    Bench,
    Case,
    Checks,
    NotHere,
    Violation,
    case_of,
    first_fork,
)
from treegrpo.sandboxes.errors import (
    ReplayDiverged,
    SandboxBusy,
    SandboxClosed,
    SandboxDead,
    SandboxError,
    SandboxUnavailable,
)

if TYPE_CHECKING:
    from treegrpo.sandboxes import Sandbox

UNPICKLE = (
    "import pickle, sys\n"
    "box = pickle.load(sys.stdin.buffer)\n"
    "print(box.exec('x.append(9); x').value, box.read('kept').decode(), box.state_hash)\n"
    "box.tree.close()\n"
)


def a_step_leaves_its_parent(bench: Bench, check: Checks) -> None:
    """A step gives a new sandbox and the result; the old one stays as it was, hash included."""
    with bench.sandbox() as root:
        check.runs(root, "x = [1]; n = open('f', 'w').write('old')")
        before = root.state_hash
        child, result = root.step("x.append(2); n = open('f', 'w').write('new'); x")
        check.same(("ok", "[1, 2]"), (result.kind, result.value), "result of the step")
        check.same(before, root.state_hash, "hash of the parent")
        check.same((b"old", b"new"), (root.read("f"), child.read("f")), "files")
        check.value("[1]", root, "x")
        check.value("[1, 2]", child, "x")
        dead, result = child.step("import os; os._exit(3)")
        found = (result.kind, result.alive, dead.alive, child.alive)
        check.same(("exit", False, False, True), found, "a step that kills")
        check.raises(SandboxDead, lambda: dead.exec("1"))
        check.value("[1, 2]", child, "x")
        worded, result = child.step(["sh", "-c", "cat >g"], stdin=b"in")
        check.same((True, b"in"), (result.ok, worded.read("g")), "a command as a step")


def snapshots_are_the_state(bench: Bench, check: Checks) -> None:
    """Snapshot, copy and deepcopy are further handles on the state; writes to one fork it."""
    with bench.sandbox() as root:
        check.runs(root, "x = 1; n = open('f', 'w').write('1')")
        makers: list[Callable[[Sandbox], Sandbox]] = [
            lambda box: box.snapshot(),
            copy.copy,
            copy.deepcopy,
        ]
        kept = [make(root) for make in makers]
        check.same({root.state_hash}, {box.state_hash for box in kept}, "hashes of handles")
        check.same([b"1"] * 3, [box.read("f") for box in kept], "files of handles")
        check.runs(root, "x += 1; n = open('f', 'w').write('root')")
        for number, box in enumerate(kept):
            check.value("1", box, "x")
            box.write("f", b"kept%d" % number)
            check.runs(box, f"x = {number + 10}")
        check.value("2", root, "x")
        check.same(b"root", root.read("f"), "file of the root")
        for number, box in enumerate(kept):
            check.value(str(number + 10), box, "x")
            check.same(b"kept%d" % number, box.read("f"), "file of a snapshot")


def hashes_tell_histories(bench: Bench, check: Checks) -> None:
    """Equal histories have equal hashes, in any tree; another spec, action or file differs."""

    def play(box: Sandbox, *codes: str) -> str:
        for code in codes:
            box.exec(code)
        return box.state_hash

    with bench.sandbox() as one, bench.sandbox() as two, bench.sandbox(seed=1) as seeded:
        check.that(re.fullmatch(r"[0-9a-f]{64}", one.state_hash) is not None, one.state_hash)
        check.same(one.state_hash, two.state_hash, "hashes of two new trees")
        check.that(one.state_hash != seeded.state_hash, "another seed, the same hash")
        fork = first_fork(one)
        check.same(one.state_hash, fork.state_hash, "hash of a fork")
        first = play(one, "x = 1", "print(x)")
        check.same(first, play(two, "x = 1", "print(x)"), "the same actions")
        check.same(first, play(fork, "x = 1", "print(x)"), "the same actions in a fork")
        check.that(play(one, "x") != first, "another action, the same hash")
        two.write("a", b"1")
        check.that(two.state_hash != first, "a written file, the same hash")
        fork.write("a", b"1")
        check.same(two.state_hash, fork.state_hash, "the same written file")
        check.same(3, len(fork.actions), "actions recorded")


def pickles_replay_elsewhere(bench: Bench, check: Checks) -> None:
    """A pickled sandbox comes back in a fresh process, with state, files and hash."""
    with bench.sandbox() as box:
        check.runs(box, "x = [3]; print('seen')")
        box.write("kept", b"file")
        check.runs(box, "n = open('kept', 'a').write(' and more')")
        data = pickle.dumps(box)
        check.value("[3, 9]", box, "x.append(9); x")
        done = subprocess.run(
            [sys.executable, "-c", UNPICKLE],
            input=data,
            capture_output=True,
            timeout=2 * PATIENCE_S,
        )
        expected = f"[3, 9] file and more {box.state_hash}\n"
        check.same(expected, done.stdout.decode(), f"fresh process ({done.stderr.decode()[-500:]})")


def evicted_states_return(bench: Bench, check: Checks) -> None:
    """An evicted sandbox comes back by replay on its next use; forks and files too."""
    with bench.sandbox(seed=5) as box:
        check.runs(box, "import random; x = [random.random()]; print(x)")
        box.write("in", b"given")
        child, _ = box.step("x.append(random.random()); n = open('out', 'w').write('made'); x")
        before, value = child.state_hash, check.runs(first_fork(child), "x").value
        child.evict()
        check.same(True, child.alive, "alive of an evicted sandbox")
        check.same((b"made", b"given"), (child.read("out"), child.read("in")), "files")
        check.same(before, child.state_hash, "hash")
        child.evict()
        child.evict()
        check.value(value, first_fork(child), "x")
        child.evict()
        check.value(value, child, "x")
        check.that(child.tree.stats().live >= 2, f"stats: {child.tree.stats()}")


def unstable_code_is_found_out(bench: Bench, check: Checks) -> None:
    """A state whose replay prints something else raises ReplayDiverged, and is never used."""
    for code in ("import os; print(os.urandom(8).hex())", "import time; time.time_ns()"):
        with bench.sandbox() as root:
            box, _ = root.step("y = 1")
            check.runs(box, code)
            box.evict()
            check.raises(ReplayDiverged, lambda box=box: box.exec("y"))
            check.raises(ReplayDiverged, box.fork)
            check.value("2", root, "1 + 1")


def closing_is_final_and_repeatable(bench: Bench, check: Checks) -> None:
    """Closing works twice; later calls raise SandboxClosed; other handles of the state go on."""
    root = bench.backend.create(bench.spec())
    other, fork = root.snapshot(), first_fork(root)
    for _ in range(2):
        root.close()
    calls: list[Callable[[], object]] = [
        lambda: root.exec("1"),
        lambda: root.read("x"),
        lambda: root.write("x", b""),
        lambda: root.list(),
        root.fork,
        root.snapshot,
        root.evict,
    ]
    for call in calls:
        check.raises(SandboxClosed, call)
    check.value("1", other, "1")
    other.close()
    check.value("2", fork, "2")
    fork.close()
    check.raises(SandboxClosed, lambda: fork.exec("1"))
    with bench.backend.create(bench.spec()) as managed:
        tree = managed.tree
        check.value("3", managed, "3")
    check.raises(SandboxClosed, lambda: managed.exec("1"))
    for _ in range(2):
        tree.close()


def closing_a_tree_closes_all(bench: Bench, check: Checks) -> None:
    """Closing a tree, or its backend, closes every sandbox of it and no other."""
    with bench.reopen() as backend:
        one, two = backend.create(bench.spec()), backend.create(bench.spec())
        forks = [fork for fork in one.fork(2) if not isinstance(fork, SandboxError)]
        check.same(2, len(forks), "forks")
        one.tree.close()
        for box in (one, *forks):
            check.raises(SandboxClosed, lambda box=box: box.exec("1"))
        check.value("1", two, "1")
    check.raises(SandboxClosed, lambda: two.exec("1"))
    check.raises(SandboxError, lambda: backend.create(bench.spec()))


def sandboxes_run_side_by_side(bench: Bench, check: Checks) -> None:
    """Threads drive several sandboxes of one tree, and two trees, and none is mixed up."""

    def work(box: Sandbox, name: str) -> list[str | None]:
        box.write("me", name.encode())
        codes = [f"print(x); x + open('me').read() + '{number}'" for number in range(10)]
        return [box.exec(code).value for code in (f"x = {name!r}", *codes)]

    with bench.sandbox() as one, bench.sandbox() as two, ThreadPoolExecutor(6) as pool:
        boxes = {
            f"{tree}{n}": first_fork(root)
            for tree, root in (("a", one), ("b", two))
            for n in range(3)
        }
        running = {name: pool.submit(work, box, name) for name, box in boxes.items()}
        for name, future in running.items():
            expected = [None, *(repr(f"{name}{name}{n}") for n in range(10))]
            check.same(expected, future.result(PATIENCE_S), f"values of {name}")


def a_running_sandbox_is_busy(bench: Bench, check: Checks) -> None:
    """While code runs in a sandbox, fork and read of it raise SandboxBusy; other trees go on."""
    with bench.sandbox() as box, bench.sandbox() as other, ThreadPoolExecutor(1) as pool:
        for seconds in (0.8, 8, 80):  # on a busy host a short step may end before we ask
            code = f"import time; time.sleep({seconds}); 'done'"
            running = pool.submit(box.exec, code, timeout_s=200)
            refused = _refused_while(running, box)
            if all(refused.values()):
                check.value("2", other, "1 + 1")
                if not running.done():
                    break
        check.same({"fork": True, "read": True}, refused, "refused while running")
        check.that(not running.done(), "another tree had to wait")
        check.same("'done'", running.result(200).value, "value of the step")
        check.value("'after'", first_fork(box), "'after'")


def _refused_while(running: Future[Result], box: Sandbox) -> dict[str, bool]:
    """Return which calls were refused as busy before a step ended; ends once all were."""
    refused = {"fork": False, "read": False}
    while not running.done() and not all(refused.values()):
        for name, call in (("fork", box.fork), ("read", lambda: box.read("missing"))):
            try:
                call()
            except SandboxBusy:
                refused[name] = True
            except SandboxError:
                continue  # not begun, or ended
        time.sleep(0.005)
    return refused


def coroutines_do_the_same(bench: Bench, check: Checks) -> None:
    """The asynchronous sandbox does what the other does, several at once under one loop."""

    async def work() -> None:
        root = await bench.backend.create_async(bench.spec())
        await root.exec("x = [0]")
        await root.write("f", b"1")
        forks = [fork for fork in await root.fork(3) if not isinstance(fork, SandboxError)]
        check.same(3, len(forks), "forks")
        codes = [f"x.append({n}); x" for n in range(3)]
        results = await asyncio.gather(
            *(fork.exec(code) for fork, code in zip(forks, codes, strict=True))
        )
        check.same([f"[0, {n}]" for n in range(3)], [r.value for r in results], "values")
        child, result = await forks[0].step("open('f').read()")
        check.same("'1'", result.value, "value of a step")
        check.same(b"1", await child.read("f"), "file")
        check.same(["f"], [entry.name for entry in await child.list()], "names")
        slow, turns = asyncio.create_task(child.exec("import time; time.sleep(0.5)")), 0
        while not slow.done():
            await asyncio.sleep(0.001)
            turns += 1
        check.that(turns > 5, f"the loop had {turns} turns: it was blocked by a running step")
        check.same("ok", (await slow).kind, "kind of the slow step")
        await root.close()
        root.tree.close()

    asyncio.run(work())


def a_level_is_never_lowered(bench: Bench, check: Checks) -> None:
    """A level that the host does not give is refused with the remedy; L0 needs unsafe=True."""
    if bench.level == Level.L3:
        raise NotHere("this host gives the highest level")
    above = Level(bench.level + 1)
    try:
        box = bench.backend.create(SandboxSpec(min_level=above))
    except SandboxUnavailable as error:
        check.that(above.name in str(error), f"the message does not name {above.name}: {error}")
    else:
        box.tree.close()
        raise Violation(f"{above.name} was asked, the host gives {bench.level.name}: no refusal")


def a_sandbox_tells_its_level(bench: Bench, check: Checks) -> None:
    """A sandbox gives the level that probe promised; what is missing has reason and remedy."""
    with bench.sandbox() as box:
        check.same(bench.backend.probe().level, box.level, "level of a sandbox")
    for feature in bench.capabilities.missing():
        check.that(bool(feature.reason and feature.remedy), f"without reason or remedy: {feature}")
    check.that(bool(bench.capabilities.features), "probe names no feature")


CASES: tuple[Case, ...] = tuple(
    case_of(check, "function")
    for check in (
        a_step_leaves_its_parent,
        snapshots_are_the_state,
        hashes_tell_histories,
        pickles_replay_elsewhere,
        evicted_states_return,
        unstable_code_is_found_out,
        closing_is_final_and_repeatable,
        closing_a_tree_closes_all,
        sandboxes_run_side_by_side,
        a_running_sandbox_is_busy,
        coroutines_do_the_same,
        a_level_is_never_lowered,
        a_sandbox_tells_its_level,
    )
)
