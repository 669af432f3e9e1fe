"""Fork correctness, F1 to F7: what of a state a fork holds, and what it refuses to hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treegrpo.sandboxes.conformance.case import Bench, Case, Checks, case_of, first_fork
from treegrpo.sandboxes.conformance.leaks import commands_with, new_nonce
from treegrpo.sandboxes.conformance.programs import check_programs
from treegrpo.sandboxes.errors import SnapshotUnsupported

if TYPE_CHECKING:
    from treegrpo.sandboxes import Sandbox

SEEN = (
    "import json, os, sys\n"
    "mask = os.umask(0); zero = os.umask(mask)\n"
    "top = '.' if os.path.exists('f') else '..'\n"
    "(x, nested, Thing.at, json.mine, top, os.environ.get('MINE'), mask, sys.path[-1],"
    " sys.getrecursionlimit(), open(top + '/f').read(), sorted(os.listdir(top)), len(d))"
)
CHANGES = (
    "x = 99; nested['list'].append(1); Thing.at = 9; json.mine = 9; d.clear()",
    "os.environ['MINE'] = 'child'; old = os.umask(0o077); sys.path.append('/child')",
    "sys.setrecursionlimit(777); n = open('own', 'w').write('t')",
    "n = open('f', 'a').write('+'); os.symlink('f', 'link')",
    "os.rename('gone', 'came'); os.makedirs('new/er'); os.chdir('new')",
    "import builtins; builtins.len = lambda v: -1",
)


def f1_changes_stay_in_the_fork(bench: Bench, check: Checks) -> None:
    """Globals, files, cwd, environment, umask, sys.path, modules: a change is seen in no other."""
    with bench.sandbox() as root:
        check.runs(root, "import json, os, sys\nx = 1; nested = {'list': []}; d = {1: 2}")
        check.runs(root, "class Thing: at = 1\njson.mine = 1; n = open('f', 'w').write('old')")
        check.runs(root, "n = open('gone', 'w').write('g')")
        expected = check.runs(first_fork(root), SEEN).value
        sibling, child = first_fork(root), first_fork(root)
        for code in CHANGES:
            check.runs(child, code)
        grandchild, _ = child.step("x = 100")
        for box in (root, sibling, first_fork(root)):
            check.value(expected, box, SEEN)
            check.same(["f", "gone"], [entry.name for entry in box.list()], "files elsewhere")
        changed = check.runs(child, SEEN).value or ""
        for mark in ("99", "child", "'old+'", "777", "'..'", "came", "own"):
            check.that(mark in changed, f"the child lost its own change {mark}: {changed}")
        check.that("100" in (check.runs(grandchild, SEEN).value or ""), "the grandchild's x")


def f2_forks_equal_replays(bench: Bench, check: Checks) -> None:
    """Random programs in random fork trees agree with a replay in output, files, random state."""
    check_programs(bench, check, bench.times(500))


def f2_forks_equal_replays_with_numpy(bench: Bench, check: Checks) -> None:
    """The same with arrays and numpy's generators, from a zygote that has numpy loaded."""
    check_programs(bench, check, bench.times(50), numpy=True)


def refused(check: Checks, box: Sandbox, kinds: set[str], what: str) -> None:
    """Check that a state is refused with one of the kinds, by check, fork and a lazy fork."""
    found = {reason.kind for reason in box.check()}
    check.that(bool(found & kinds), f"{what}: check() gave {found}, not one of {kinds}")
    error = check.raises(SnapshotUnsupported, lambda: first_fork(box))
    assert isinstance(error, SnapshotUnsupported)
    told = {reason.kind for reason in error.reasons}
    check.that(bool(told & kinds), f"{what}: fork() told {told}, not one of {kinds}")
    check.that(all(reason.detail for reason in error.reasons), f"{what}: a reason without detail")


def f3_threads_are_refused(bench: Bench, check: Checks) -> None:
    """A state with a living thread is refused by name; with threads that ended it is forked."""
    with bench.sandbox() as box:
        check.runs(
            box,
            "import threading\nstop, lock = threading.Event(), threading.Lock()\n"
            "def hold():\n    with lock: stop.wait()\n"
            "t = threading.Thread(target=hold, daemon=True); t.start(); x = 1",
        )
        refused(check, box, {"threads"}, "a thread that holds a lock")
        check.value("1", box, "stop.set(); t.join(); x")
        check.same([], box.check(), "reasons after the thread ended")
        fork = first_fork(box)
        check.value("True", fork, "got = lock.acquire(timeout=20); lock.release(); got")
        check.runs(box, "held = lock.acquire()")
        check.value("False", first_fork(box), "lock.acquire(blocking=False)")


def f3_policies_for_background_work(bench: Bench, check: Checks) -> None:
    """By policy a child process is ended before the fork, or the state is made by replay."""
    nonce = new_nonce()
    start = f"import subprocess; x = 5; p = subprocess.Popen(['sleep', '{nonce}'])"
    with bench.sandbox(on_unforkable="kill_background") as box:
        check.runs(box, start)
        check.value("5", first_fork(box), "x")
    check.empties(lambda: commands_with(nonce), "children live on")
    with bench.sandbox(on_unforkable="replay") as box:
        check.runs(box, "import threading; x = [6]; e = threading.Event()")
        check.runs(box, "threading.Thread(target=e.wait, daemon=True).start()")
        child, result = box.step("x.append(7); x")
        check.same("[6, 7]", result.value, "a step from a replayed state")
        check.value("[6]", box, "x")
        child.close()


def f4_open_files_fork(bench: Bench, check: Checks) -> None:
    """Open files fork with offset, mode and unwritten buffer; no byte is doubled or shared."""
    with bench.sandbox() as root:
        root.write("in", b"one\ntwo\nthree\n")
        check.runs(root, "r = open('in'); w = open('out', 'w'); a = open('log', 'ab')")
        check.runs(root, "import os; u = open('raw', 'r+b' if os.path.exists('raw') else 'w+b', 0)")
        check.runs(root, "n = u.write(b'raw'); n = a.write(b'first ')")
        check.runs(root, "line = r.readline(); n = w.write('buffered ')")
        one, two = first_fork(root), first_fork(root)
        for name, box in (("one", one), ("two", two), ("root", root)):
            check.value("('one\\n', 'two\\n')", box, "(line, r.readline())")
            check.runs(
                box, f"n = w.write('{name}'); n = a.write(b'{name}'); n = u.write(b'{name}')"
            )
            check.runs(box, "w.close(); a.close(); u.close()")
        for name, box in (("one", one), ("two", two), ("root", root)):
            check.same(f"buffered {name}".encode(), box.read("out"), f"out of {name}")
            check.same(f"first {name}".encode(), box.read("log"), f"log of {name}")
            check.same(f"raw{name}".encode(), box.read("raw"), f"raw of {name}")


def f4_odd_files_are_refused(bench: Bench, check: Checks) -> None:
    """Deleted or unnamed open files and shared mappings are refused by name; private ones fork."""
    cases = (
        ("import os; h = open('g', 'w+'); os.remove('g')", {"deleted_open_file"}),
        ("import tempfile; h = tempfile.TemporaryFile()", {"deleted_open_file"}),
        ("import mmap; h = mmap.mmap(-1, 4096)", {"shared_mapping"}),
        (
            "import mmap\nwith open('m', 'w+b') as f:\n"
            "    n = f.write(bytes(4096)); f.flush(); h = mmap.mmap(f.fileno(), 4096)",
            {"shared_mapping"},
        ),
    )
    for code, kinds in cases:
        with bench.sandbox() as box:
            check.runs(box, code)
            refused(check, box, kinds, code)
            check.runs(box, "h.close()")
            check.value("1", first_fork(box), "1")
    with bench.sandbox() as box:
        check.runs(box, "import mmap; p = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE); p[0] = 65")
        child = first_fork(box)
        check.runs(child, "p[0] = 66")
        check.value("(65, 0)", box, "p[0], p[1]")


def f5_channels_are_refused(bench: Bench, check: Checks) -> None:
    """Pipes, sockets, children, event loops and epoll descriptors are refused by name."""
    cases = (
        ("import os; ends = os.pipe()", {"pipe"}, "[os.close(e) for e in ends]"),
        ("import socket; a, b = socket.socketpair()", {"socket"}, "a.close(); b.close()"),
        (
            "import subprocess; p = subprocess.Popen(['cat'], stdin=-1, stdout=-1)",
            {"child_processes", "pipe"},
            "n = p.communicate()",
        ),
        ("import select; e = select.epoll()", {"anon_inode"}, "e.close()"),
        (
            "import asyncio; loop = asyncio.new_event_loop()",
            {"anon_inode", "socket"},
            "loop.close()",
        ),
    )
    with bench.sandbox() as box:
        for code, kinds, end in cases:
            check.runs(box, code)
            refused(check, box, kinds, code)
            check.runs(box, end)
            check.same([], box.check(), f"reasons after {end}")


def f5_a_database_forks_or_is_refused(bench: Bench, check: Checks) -> None:
    """An open sqlite connection is refused by name, or forks so that no row is seen elsewhere."""
    with bench.sandbox() as box:
        check.runs(box, "import sqlite3; db = sqlite3.connect('s.db')")
        check.runs(box, "c = db.execute('create table t (v)'); db.commit()")
        if box.check():
            refused(check, box, {"shared_mapping", "device", "pipe"}, "an open database")
            return
        child = first_fork(box)
        check.runs(child, "c = db.execute('insert into t values (1)'); db.commit()")
        count = "db.execute('select count(*) from t').fetchone()"
        check.value("(1,)", child, count)
        check.value("(0,)", box, count)


def f6_random_state_is_kept(bench: Bench, check: Checks) -> None:
    """Under preserve, forks draw what the unforked state would; the seed decides it all."""
    draw = "[random.random() for _ in range(3)], mine.random(), hash('text')"
    with bench.sandbox(seed=3) as root, bench.sandbox(seed=3) as other:
        with bench.sandbox(seed=4) as seeded:
            for box in (root, other, seeded):
                check.runs(box, "import random; mine = random.Random(1); r = random.random()")
            forks = [first_fork(root), first_fork(root)]
            unforked = check.runs(other, draw).value
            for box in (first_fork(forks[0]), *forks, root):
                check.value(unforked, box, draw)
            check.that(check.runs(seeded, draw).value != unforked, "another seed drew the same")
        entropy = "import os, uuid; (os.urandom(8), uuid.uuid4())"
        seen = {check.runs(box, entropy).value for box in (*forks, root)}
        check.same(3, len(seen), "different draws of the system's entropy")


def f6_branches_draw_differently(bench: Bench, check: Checks) -> None:
    """Under branch, every fork draws its own numbers, and the same ones in the same tree again."""

    def draws() -> list[str | None]:
        with bench.sandbox(seed=3, rng="branch") as root:
            check.runs(root, "import random; x = random.random()")
            forks = [first_fork(root) for _ in range(3)]
            return [check.runs(box, "random.random()").value for box in forks]

    first = draws()
    check.same(3, len(set(first)), f"different numbers among {first}")
    check.same(first, draws(), "the same tree again")


def f6_numpy_state_is_kept(bench: Bench, check: Checks) -> None:
    """Under preserve, numpy's global and its generator objects go on in forks as unforked."""
    draw = "np.random.rand(2).tolist(), g.normal(size=2).tolist()"
    with bench.sandbox(zygote="numpy") as root:
        check.runs(root, "import numpy as np; np.random.seed(1); g = np.random.default_rng(2)")
        forks = [first_fork(root), first_fork(root)]
        values = {check.runs(box, draw).value for box in (*forks, root)}
        check.same(1, len(values), f"one drawing among {values}")


def f7_timers_never_come_along(bench: Bench, check: Checks) -> None:
    """A pending alarm is refused by name, or gone in the fork; clocks never run backwards."""
    with bench.sandbox() as box:
        check.runs(box, "import signal, time; t = time.monotonic(), time.time()")
        check.runs(box, "old = signal.setitimer(signal.ITIMER_REAL, 500)")
        if box.check():
            refused(check, box, {"pending_timer"}, "a pending alarm")
            check.runs(box, "old = signal.setitimer(signal.ITIMER_REAL, 0)")
        child = first_fork(box)
        check.value("(0.0, 0.0)", child, "signal.getitimer(signal.ITIMER_REAL)")
        check.value("(True, True)", child, "time.monotonic() > t[0], time.time() >= t[1]")


CASES: tuple[Case, ...] = (
    case_of(f1_changes_stay_in_the_fork, "fork", row="F1"),
    case_of(f2_forks_equal_replays, "fork", row="F2"),
    case_of(f2_forks_equal_replays_with_numpy, "fork", row="F2", zygote="numpy"),
    case_of(f3_threads_are_refused, "fork", row="F3"),
    case_of(f3_policies_for_background_work, "fork", row="F3"),
    case_of(f4_open_files_fork, "fork", row="F4"),
    case_of(f4_odd_files_are_refused, "fork", row="F4"),
    case_of(f5_channels_are_refused, "fork", row="F5"),
    case_of(f5_a_database_forks_or_is_refused, "fork", row="F5"),
    case_of(f6_random_state_is_kept, "fork", row="F6"),
    case_of(f6_branches_draw_differently, "fork", row="F6"),
    case_of(f6_numpy_state_is_kept, "fork", row="F6", zygote="numpy"),
    case_of(f7_timers_never_come_along, "fork", row="F7"),
)
