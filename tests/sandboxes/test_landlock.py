"""Landlock in a real process: what is given stays usable, everything else is refused."""

from __future__ import annotations

import ast
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from treegrpo.sandboxes.guest import landlock

FILE = Path(landlock.__file__)
needs_landlock = pytest.mark.skipif(landlock.abi() == 0, reason="this kernel has no Landlock")
PRELUDE = """
import importlib.util, json, os, signal, socket, sys
spec = importlib.util.spec_from_file_location("landlock", sys.argv[1])
landlock = importlib.util.module_from_spec(spec); spec.loader.exec_module(landlock)
def attempt(step):
    try:
        step()
    except OSError as error:
        return type(error).__name__
    return "done"
def show(**steps):
    print(json.dumps({name: attempt(step) for name, step in steps.items()}))
def start(program):
    status = os.waitpid(os.spawnv(os.P_NOWAIT, program, [program]), 0)[1]
    if status:
        raise OSError(0, f"status {status}")
def write(path):
    with open(path, "w") as file: file.write("x")
"""
START = 'applied = landlock.restrict(["mine", "/dev/null"], ["theirs", "/usr"])\n'


def run(code: str, cwd: Path) -> dict[str, Any]:
    """Return the JSON that `code` prints, beside the folders `mine`, `theirs` and `other`."""
    for name in ("mine", "theirs", "other"):
        (cwd / name / "inner").mkdir(parents=True)
        (cwd / name / "file").write_text(name)
    done = subprocess.run(
        [sys.executable, "-I", "-c", PRELUDE + START + code, str(FILE)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_landlock
def test_what_is_given_can_be_written(tmp_path: Path) -> None:
    assert set(
        run(
            """
show(
    write=lambda: write("mine/inner/new"), truncate=lambda: os.truncate("mine/file", 1),
    mkdir=lambda: os.mkdir("mine/made"), symlink=lambda: os.symlink("x", "mine/link"),
    fifo=lambda: os.mkfifo("mine/fifo"), move=lambda: os.rename("mine/file", "mine/inner/file"),
    link=lambda: os.link("mine/inner/file", "mine/again"), list=lambda: os.listdir("mine"),
    remove=lambda: os.remove("mine/again"), rmdir=lambda: os.rmdir("mine/made"),
    device=lambda: write("/dev/null"), read=lambda: open("theirs/file").close(),
    listing=lambda: os.listdir("theirs/inner"),
    start=lambda: start("/usr/bin/true"),
)
""",
            tmp_path,
        ).values()
    ) == {"done"}
    assert (tmp_path / "mine/inner/file").read_text() == "m"


@needs_landlock
def test_everything_else_is_refused(tmp_path: Path) -> None:
    found = run(
        """
show(
    read=lambda: open("other/file"), list=lambda: os.listdir("other"),
    write=lambda: write("other/file"), make=lambda: write("other/new"),
    change=lambda: write("theirs/file"), add=lambda: write("theirs/new"),
    mkdir=lambda: os.mkdir("theirs/made"), remove=lambda: os.remove("theirs/file"),
    out=lambda: os.listdir("mine/../other"), root=lambda: os.listdir("/"),
    passwd=lambda: open("/etc/passwd"), device=lambda: os.mknod("mine/device", 0o020600, 0x103),
)
""",
        tmp_path,
    )
    assert found == dict.fromkeys(found, "PermissionError")
    assert (tmp_path / "theirs/file").read_text() == "theirs"


@needs_landlock
def test_a_move_out_and_a_truncation_are_refused_by_the_abi_that_knows_them(
    tmp_path: Path,
) -> None:
    found = run(
        """
show(
    move=lambda: os.rename("mine/file", "other/moved"),
    truncate=lambda: os.truncate("theirs/file", 0),
)
""",
        tmp_path,
    )
    assert found["move"] in ("PermissionError", "OSError")  # EXDEV: copy it, which is refused
    if landlock.abi() >= 3:
        assert found["truncate"] == "PermissionError"
        assert (tmp_path / "theirs/file").read_text() == "theirs"


@pytest.mark.skipif(landlock.abi() < 4, reason="TCP is refused from Landlock ABI 4")
def test_tcp_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = run(
            f"""
with socket.socket() as to, socket.socket() as at:
    show(connect=lambda: to.connect(("127.0.0.1", {port})), bind=lambda: at.bind(("", 0)))
""",
            tmp_path,
        )
    assert found == {"connect": "PermissionError", "bind": "PermissionError"}


@pytest.mark.skipif(landlock.abi() < 6, reason="sockets and signals are scoped from ABI 6")
def test_abstract_sockets_and_signals_stay_inside(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0treegrpo-test-{tmp_path}"[:100])
        server.listen()
        found = run(
            f"""
ours = os.fork()
if ours == 0:
    signal.pause()
with socket.socket(socket.AF_UNIX) as to:
    show(
        connect=lambda: to.connect({server.getsockname()!r}),
        parent=lambda: os.kill(os.getppid(), 0),
        child=lambda: os.kill(ours, signal.SIGKILL),
    )
os.waitpid(ours, 0)
""",
            tmp_path,
        )
    assert found == {"connect": "PermissionError", "parent": "PermissionError", "child": "done"}


@needs_landlock
def test_it_returns_the_abi_it_applied(tmp_path: Path) -> None:
    found = run("print(json.dumps({'applied': applied}))", tmp_path)
    assert found == {"applied": min(landlock.abi(), landlock.NEWEST_ABI)}


@needs_landlock
def test_a_missing_path_is_said(tmp_path: Path) -> None:
    code = """
try:
    landlock.restrict(["nowhere"], [])
except FileNotFoundError as error:
    print(json.dumps({"missing": error.filename, "list": sorted(os.listdir("mine"))}))
"""
    found = run(code, tmp_path)
    assert found == {"missing": "nowhere", "list": ["file", "inner"]}


def test_the_module_stands_alone_and_an_old_python_reads_it() -> None:
    tree = ast.parse(FILE.read_text(encoding="utf-8"), feature_version=(3, 9))
    names = {
        (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names
