"""A worker whose own code was replaced from inside: what it can do, and what it cannot."""

from collections.abc import Iterator

import pytest

from treegrpo.sandboxes import Level, Sandbox, SandboxError, open_backend

FIND_WORKER = """
import gc, os
w = [o for o in gc.get_objects() if type(o).__name__ == "Worker"][0]
code = type(w)._enter.__globals__
"""


@pytest.fixture
def root() -> Iterator[Sandbox]:
    with open_backend("process") as backend:
        if backend.probe().level < Level.L2:
            pytest.skip("the host gives no user namespaces: siblings share their files by design")
        sandbox = backend.create()
        sandbox.write("kept", b"mine")
        yield sandbox


def _only_errors(made: list[Sandbox | SandboxError]) -> str:
    assert all(isinstance(one, SandboxError) for one in made), made
    return " ".join(str(one) for one in made)


def test_an_open_folder_is_reopened_in_the_forks_own_files(root: Sandbox) -> None:
    assert root.exec("import os; d = os.open('/workspace', os.O_DIRECTORY)").ok
    (fork,) = root.fork()
    assert isinstance(fork, Sandbox)
    assert fork.exec("os.close(os.open('new', os.O_CREAT | os.O_WRONLY, dir_fd=d))").ok
    assert [entry.name for entry in fork.list()] == ["kept", "new"]
    assert [entry.name for entry in root.list()] == ["kept"]


def test_a_fork_that_keeps_a_way_into_its_parents_files_is_ended(root: Sandbox) -> None:
    assert root.exec(FIND_WORKER + "d = os.open('/workspace', os.O_DIRECTORY)").ok
    assert root.exec("code['_reopen'] = lambda entry: None").ok
    assert "it holds" in _only_errors(root.fork())
    assert root.read("kept") == b"mine"


def test_a_fork_that_does_not_change_its_root_is_ended(root: Sandbox) -> None:
    assert root.exec(FIND_WORKER + "code['_chroot'] = lambda path: None").ok
    assert "root" in _only_errors(root.fork())


def test_a_fork_that_asks_for_another_root_is_refused_it(root: Sandbox) -> None:
    assert root.exec(FIND_WORKER + "real = code['_chroot']").ok
    assert root.exec("code['_chroot'] = lambda path: real('/')").ok
    _only_errors(root.fork())


def test_a_fork_that_runs_a_helper_gets_no_root(root: Sandbox) -> None:
    hook = "def two(fd):\n    if os.fork() == 0: os._exit(0)\n    real(fd)\n"
    assert root.exec(FIND_WORKER + "real = code['_fchdir']\n" + hook + "code['_fchdir'] = two").ok
    made = root.fork()
    for one in made:  # a child that has ended is no accomplice; one that lives would be
        if isinstance(one, Sandbox):
            assert one.exec("os.path.exists('kept')").value == "True"
            one.close()


def test_the_capability_that_workers_keep_is_of_no_use_to_the_code(root: Sandbox) -> None:
    for path in (".", "/", "/workspace"):
        result = root.exec(f"import os; os.chroot({path!r})")
        assert result.exception == "PermissionError", path


def test_the_tree_serves_others_after_a_tainted_fork(root: Sandbox) -> None:
    sibling = root.fork()[0]
    assert isinstance(sibling, Sandbox)
    assert root.exec(FIND_WORKER + "code['_fork_sibling'] = lambda: os._exit(3)").ok
    _only_errors(root.fork())
    assert sibling.exec("1 + 1").value == "2"
