"""Processes that a step left behind: found at their own state, at no other, at any time."""

from collections.abc import Iterator

import pytest

from treegrpo.sandboxes import (
    Level,
    Limits,
    Sandbox,
    SandboxSpec,
    SnapshotUnsupported,
    open_backend,
)

LEAVE_ONE = "import os, time\nif os.fork() == 0:\n    time.sleep(60)\n    os._exit(0)\n"


@pytest.fixture
def root() -> Iterator[Sandbox]:
    with open_backend("process") as backend:
        if backend.probe().level < Level.L2:
            pytest.skip("the host gives no user namespaces")
        yield backend.create()


def _fork(sandbox: Sandbox) -> Sandbox:
    (made,) = sandbox.fork()
    assert isinstance(made, Sandbox), made
    return made


def test_a_stray_is_still_found_after_others_were_looked_at_and_forked(root: Sandbox) -> None:
    left, right = _fork(root), _fork(root)
    assert left.exec(LEAVE_ONE).ok
    assert right.exec("x = 1").ok
    assert right.check() == []
    _fork(right).close()
    assert [reason.kind for reason in left.check()] == ["child_processes"]
    with pytest.raises(SnapshotUnsupported, match="child_processes"):
        left.fork()


def test_a_stray_ends_with_its_state_and_no_other_does(root: Sandbox) -> None:
    left, right = _fork(root), _fork(root)
    assert left.exec(LEAVE_ONE).ok
    before = root.tree.stats().processes
    left.close()
    assert right.exec("1 + 1").value == "2"
    assert root.tree.stats().processes == before - 2


LEAVE_TEN_DEAD = """
import os
made = []
for _ in range(10):
    made.append(os.fork())
    if not made[-1]:
        os._exit(0)
for pid in made:
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
"""
COUNT_PROCESSES = """
import os, time
made = []
try:
    while True:
        made.append(os.fork())
        if not made[-1]:
            time.sleep(60)
except OSError:
    pass
for pid in made:
    os.kill(pid, 9)
    os.waitpid(pid, 0)
len(made)
"""


def test_what_ended_takes_no_room_from_the_next_step(root: Sandbox) -> None:
    limit = Limits().processes
    assert _fork(root).exec(COUNT_PROCESSES).value == str(limit - 1)
    bombed = _fork(root)
    assert bombed.exec(f"for _ in range({limit - 1}):\n    " + LEAVE_ONE.replace("\n", "\n    ")).ok
    bombed.close()
    assert _fork(root).exec(COUNT_PROCESSES).value == str(limit - 1)


def test_children_that_nobody_waited_for_take_no_room_from_other_states(root: Sandbox) -> None:
    left, right = _fork(root), _fork(root)
    assert left.exec(LEAVE_TEN_DEAD).ok and left.check() == []
    assert right.exec(COUNT_PROCESSES).value == str(Limits().processes - 1)


def test_a_state_without_files_of_its_own_forks_and_is_isolated() -> None:
    with open_backend("process") as backend:
        if backend.probe().level < Level.L2:
            pytest.skip("the host gives no user namespaces")
        spec = SandboxSpec(limits=Limits(workspace_mb=0))
        bare = backend.create(spec)
        assert bare.exec("x = 1").ok
        fork = _fork(bare)
        assert fork.exec("x += 1; x").value == "2"
        assert bare.exec("x").value == "1"
        assert fork.exec("open('here', 'w')").exception == "OSError"
        assert fork.exec(LEAVE_ONE).ok
        assert bare.check() == []
        assert [reason.kind for reason in fork.check()] == ["child_processes"]
