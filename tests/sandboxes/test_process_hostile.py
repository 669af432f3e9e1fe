"""Workers that hold up, crowd or mislead their supervisor: only their own state suffers."""

import ast
import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.sandboxes.hostile import (
    FIND_WORKER,
    answers,
    backend_at,
    fork_of,
    fork_with_pid,
    later,
    runs,
    within,
)
from treegrpo.sandboxes import (
    Backend,
    FileRefused,
    Level,
    Sandbox,
    SandboxDead,
    SandboxError,
    SandboxSpec,
)
from treegrpo.sandboxes.conformance.case import PATIENCE_S, Checks
from treegrpo.sandboxes.conformance.leaks import descendants

TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with backend_at(Level.L2) as backend:
        yield backend


@pytest.fixture
def seed(backend: Backend) -> Iterator[Sandbox]:
    root = backend.create()
    yield root
    root.tree.close()


@pytest.fixture(params=[Level.L1, None], ids=["L1", "highest"])
def box(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with backend_at(Level.L1, level=request.param) as backend:
        yield backend.create(SandboxSpec(min_level=Level.L1))


def _served(*others: Sandbox) -> None:
    for one in others:
        assert within(lambda one=one: one.exec("1 + 1")).value == "2"


def test_a_fork_with_another_parent_fails_alone(seed: Sandbox) -> None:
    sibling, bad = fork_of(seed), fork_of(seed)
    runs(bad, FIND_WORKER + "code['_fork_sibling'] = os.fork")
    (made,) = within(bad.fork)
    assert isinstance(made, SandboxError), made
    _served(sibling, seed, fork_of(seed))
    answers(lambda: bad.exec("os._exit(0)"))
    _served(sibling)


def test_a_worker_that_takes_no_request_holds_up_no_one(seed: Sandbox) -> None:
    sibling, bad = fork_of(seed), fork_of(seed)
    hook = """
deep = '/workspace/' + '/'.join(['d' * 200] * 2)
os.makedirs(deep); os.chdir(deep)
held = [open('f' * 100 + str(i), 'w') for i in range(190)]
code['_receive'] = lambda channel: time.sleep(1e6)
"""
    runs(bad, FIND_WORKER + hook)
    started = time.monotonic()
    fork = later(lambda: bad.fork(8))
    while not fork.done() and time.monotonic() < started + PATIENCE_S:
        _served(sibling)
        time.sleep(0.2)
    with suppress(SandboxError):
        made = fork.result(0.1)
        assert all(isinstance(one, SandboxError) for one in made), made
    _served(sibling, fork_of(seed))


def test_a_folder_too_long_to_list_harms_no_one(seed: Sandbox) -> None:
    sibling, bad = fork_of(seed), fork_of(seed)
    for part in (0, 1):
        make = (
            "import os\nfor i in range(9000):\n"
            f"    os.close(os.open(b'\\xff' * 240 + b'{part}-%d' % i, os.O_CREAT))"
        )
        runs(bad, make)
        bad = fork_of(bad)
    listed = answers(bad.list)
    if isinstance(listed, SandboxError):
        assert isinstance(listed, FileRefused), listed
    else:
        assert len({entry.name for entry in listed}) == 18_000
    _served(sibling, bad)


def test_a_fork_busy_with_its_descriptors_leaves_its_state_usable(seed: Sandbox) -> None:
    sibling, bad = fork_of(seed), fork_of(seed)
    hook = """
real = code['_send']
def evil(channel, data):
    real(channel, data)
    if os.getpid() != me:
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            for f in [os.open('/workspace', 0) for _ in range(20)]: os.close(f)
code['_send'] = evil
"""
    runs(bad, FIND_WORKER + hook)
    for _ in range(15):
        made = answers(lambda: bad.fork(2))
        assert not isinstance(made, SandboxError) or isinstance(made, SandboxDead), made
        for one in made if isinstance(made, list) else []:
            if isinstance(one, Sandbox):
                one.close()
    answers(bad.check)
    _served(sibling)


def test_zombies_of_two_states_do_not_count_against_a_third(seed: Sandbox) -> None:
    one, two, third = fork_of(seed), fork_of(seed), fork_of(seed)
    many = "import os, time\nfor _ in range(20):\n    if os.fork() == 0: os._exit(0)\ntime.sleep(2)"
    steps = [later(lambda: third.exec("import time; time.sleep(2.5)"))]
    for box in (one, two):
        before = len(descendants())
        steps.append(later(lambda box=box: box.exec(many)))
        # Else the kernel may refuse the first what the second has taken.
        Checks().empties(lambda before=before: len(descendants()) < before + 20, "not forked")
    for step in steps:
        assert step.result(PATIENCE_S).ok, step.result()


# ------------------------------------------------------------------------------------ parking


def _ticks(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
        words = file.read().rpartition(")")[2].split()
    return int(words[11]) + int(words[12])


def test_a_parked_worker_does_not_run(seed: Sandbox) -> None:
    bad, pid = fork_with_pid(seed)
    hook = """
real = code['_receive']
def spin(channel):
    while not select.select([channel], [], [], 0)[0]: pass
    return real(channel)
code['_receive'] = spin
"""
    runs(bad, FIND_WORKER + hook)
    spent = _ticks(pid)
    time.sleep(0.6)
    assert _ticks(pid) - spent <= 0.1 * TICKS
    made = fork_of(bad)
    spent = sum(map(_ticks, descendants()))
    time.sleep(0.6)
    assert sum(map(_ticks, descendants())) - spent <= 0.2 * TICKS
    _served(made, bad)


@pytest.mark.parametrize(
    "use", ["exec", "fork", "read", "check", "write", "snapshot"], ids=lambda use: use
)
def test_a_parked_worker_killed_from_outside_is_told_or_comes_back(seed: Sandbox, use: str) -> None:
    sibling = fork_of(seed)
    box, pid = fork_with_pid(seed)
    box.write("f", b"kept")
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.1)
    calls = {
        "exec": lambda: box.exec("open('f').read()").value == "'kept'",
        "fork": lambda: fork_of(box).read("f") == b"kept",
        "read": lambda: box.read("f") == b"kept",
        "check": lambda: [reason.kind for reason in box.check()] in ([], ["dead"]),
        "write": lambda: box.write("g", b"") is None,
        "snapshot": lambda: box.snapshot().read("f") == b"kept",
    }
    got = answers(calls[use])
    assert got is True or isinstance(got, SandboxDead), got
    again = answers(lambda: box.exec("1 + 1"))
    if isinstance(again, SandboxError):
        assert isinstance(again, SandboxDead), again
    else:
        assert again.value == "2" or not again.alive, again
    _served(sibling, fork_of(seed))


# ------------------------------------------------------------------------------- system calls


def test_memory_without_a_path_is_refused(box: Sandbox) -> None:
    assert box.exec("import os; os.memfd_create('m')").exception in ("PermissionError", "OSError")
    direct = (
        "import ctypes, platform\n"
        "number = 319 if platform.machine() == 'x86_64' else 279\n"
        "ctypes.CDLL(None).syscall(number, b'm', 0)"
    )
    assert runs(box, direct) == "-1"


def test_a_process_in_the_same_memory_is_refused_and_threads_are_not(box: Sandbox) -> None:
    clone = (
        "import ctypes, os, platform\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "number = 56 if platform.machine() == 'x86_64' else 220\n"
        "got = libc.syscall(number, 0x100 | 17, 0, 0, 0, 0)\n"
        "if got == 0: os._exit(0)\n(got, ctypes.get_errno())"
    )
    got, error = ast.literal_eval(runs(box, clone) or "")
    assert got == -1
    assert error in (1, 38)  # EPERM, ENOSYS
    threads = (
        "import threading\nseen = []\nt = threading.Thread(target=lambda: seen.append(1))\n"
        "t.start(); t.join(); seen"
    )
    assert runs(box, threads) == "[1]"
    assert runs(box, "import subprocess; subprocess.run(['true']).returncode") == "0"
    assert runs(box, "pid = os.posix_spawnp('true', ['true'], {}); os.waitpid(pid, 0)[1]") == "0"
    assert runs(box, "os.system('exit 3') >> 8") == "3"


def test_a_child_in_a_session_of_its_own_is_named(box: Sandbox) -> None:
    leave = "import subprocess; p = subprocess.Popen(['sleep', '30'], start_new_session=True)"
    runs(box, leave)
    assert "child_processes" in {reason.kind for reason in box.check()}
