"""What users do with sandboxes besides the plain: threads, forked processes, Ctrl-C, slips."""

import os
import pickle
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from treegrpo.sandboxes import (
    Backend,
    Level,
    Sandbox,
    SandboxClosed,
    SandboxError,
    SandboxSpec,
    open_backend,
)


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with open_backend("process") as opened:
        if opened.probe().level < Level.L2:
            pytest.skip("the host gives no user namespaces")
        yield opened


@pytest.fixture
def sandbox(backend: Backend) -> Iterator[Sandbox]:
    with backend.create() as made:
        yield made


def test_many_handles_of_one_state_may_be_used_at_once(sandbox: Sandbox) -> None:
    assert sandbox.exec("x = 1").ok
    for _ in range(5):
        handles = [sandbox.snapshot() for _ in range(6)]
        with ThreadPoolExecutor(6) as pool:
            running = [pool.submit(handle.exec, "x += 1; x") for handle in handles]
            assert [one.result(60).value for one in running] == ["2"] * 6
        for handle in handles:
            handle.close()


def _script(tmp_path: Path, body: str) -> list[str]:
    start = """
    import os, signal, sys, time
    from treegrpo.sandboxes import *
    backend = open_backend("process")
    sandbox = backend.create()
    sandbox.exec("x = 1")
    """
    file = tmp_path / "script.py"
    file.write_text(textwrap.dedent(start) + textwrap.dedent(body))
    return [sys.executable, str(file)]


def _run(tmp_path: Path, body: str) -> str:
    done = subprocess.run(
        _script(tmp_path, body), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_forked_process_neither_ends_nor_uses_its_parents_trees(
    backend: Backend, tmp_path: Path
) -> None:
    body = """
    if os.fork() == 0:
        try:
            sandbox.exec("x")
        except SandboxError as error:
            print(error, flush=True)
        backend.close()
        sys.exit(0)
    os.wait()
    print(sandbox.exec("x").value)
    """
    told = _run(tmp_path, body)
    assert "belongs to process" in told
    assert told.splitlines()[-1] == "1"


def test_ctrl_c_stops_the_caller_and_no_tree(backend: Backend, tmp_path: Path) -> None:
    body = """
    other = sandbox.fork()[0]
    try:
        print("ready", flush=True)  # from here on the interrupt may come
        sandbox.exec("import time; time.sleep(100)", timeout_s=200)
    except KeyboardInterrupt:
        print(other.exec("x").value)
    """
    process = subprocess.Popen(
        _script(tmp_path, body),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout.read() == "1\n"
    assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("use", "told"),
    [
        (lambda s: s.exec(None), "exec"),
        (lambda s: s.exec(b"1"), "exec"),
        (lambda s: s.exec([]), "exec"),
        (lambda s: s.exec("1", stdin="text"), "stdin"),
        (lambda s: s.exec("1", timeout_s="5"), "timeout_s"),
        (lambda s: s.exec("1", timeout_s=0), "timeout_s"),
        (lambda s: s.exec("1", timeout_s=float("nan")), "timeout_s"),
        (lambda s: s.write("a", "text"), "bytes"),
        (lambda s: s.fork(0), "forks"),
        (lambda s: s.fork("2"), "forks"),
    ],
)
def test_slips_are_told_before_anything_is_sent(sandbox: Sandbox, use: Any, told: str) -> None:
    before = sandbox.state_hash
    with pytest.raises(SandboxError, match=told):
        use(sandbox)
    assert sandbox.state_hash == before
    assert sandbox.exec("1").ok


def test_a_wrong_specification_names_the_right_one(backend: Backend) -> None:
    wrong: Any = {"zygote": "numpy"}
    with pytest.raises(SandboxError, match="SandboxSpec"):
        backend.create(wrong)


def test_paths_may_be_path_objects(sandbox: Sandbox) -> None:
    sandbox.write(Path("folder") / "file", b"1")
    assert sandbox.read(Path("folder/file")) == b"1"
    assert [entry.name for entry in sandbox.list(Path("folder"))] == ["file"]


def test_the_interpreter_is_as_users_know_it(sandbox: Sandbox) -> None:
    assert sandbox.exec("exit(3)").exit_code == 3
    result = sandbox.exec("import sys; sys.exit('bye')")
    assert (result.kind, result.exit_code, result.stderr) == ("exit", 1, b"bye\n")
    inside = sandbox.exec("sys.version").value
    for program in ("python", "python3"):
        told = sandbox.exec([program, "-c", "import sys; print(repr(sys.version))"])
        assert told.stdout.decode().strip() == inside
    assert sandbox.exec("x = '\ud800'").kind == "exception"


def test_closing_amid_a_step_says_closed(backend: Backend) -> None:
    sandbox = backend.create()
    handle = sandbox.snapshot()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(handle.exec, "import time; print('on', flush=True); time.sleep(9)")
        while not handle._lock.locked():  # pyright: ignore[reportPrivateUsage]
            pass
        sandbox.tree.close()
        with pytest.raises(SandboxClosed):
            running.result(60)


def test_a_pickle_is_a_state_of_its_own(backend: Backend) -> None:
    with backend.create(SandboxSpec(seed=4)) as sandbox:
        assert sandbox.exec("import random; x = [random.random()]").ok
        twin = pickle.loads(pickle.dumps(sandbox))
        assert twin.exec("x").value == sandbox.exec("x").value
        assert twin.exec("x.append(1)").ok
        assert sandbox.exec("len(x)").value == "1"
        twin.close()
