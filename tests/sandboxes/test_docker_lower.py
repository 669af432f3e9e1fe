"""The docker backend at L1: where namespaces are refused inside, or libseccomp is missing here."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.containers import IMAGE
from treegrpo.sandboxes import Level, Limits, Sandbox, SandboxSpec
from treegrpo.sandboxes.docker import DockerBackend, engine, launch
from treegrpo.sandboxes.errors import SandboxUnavailable
from treegrpo.sandboxes.seccomp import docker_profile

LOWER = SandboxSpec(min_level=Level.L1)
pytestmark = pytest.mark.docker

Change = Callable[..., None]


@pytest.fixture(scope="module")
def root() -> Iterator[Sandbox]:
    with DockerBackend(image=IMAGE, level=1) as backend, backend.create(LOWER) as root:
        yield root


@pytest.fixture
def change(monkeypatch: pytest.MonkeyPatch) -> Change:
    """Start containers under our profile, from which some calls are taken."""

    def change(*names: str, errno: int) -> None:
        profile = docker_profile()
        for entry in profile["syscalls"]:
            entry["names"] = [name for name in entry["names"] if name not in names]
        taken = {"names": list(names), "action": "SCMP_ACT_ERRNO", "errnoRet": errno}
        profile["syscalls"] = [e for e in profile["syscalls"] if e["names"]] + [taken]
        monkeypatch.setattr(launch, "docker_profile", lambda: profile)

    return change


def fork(sandbox: Sandbox) -> Sandbox:
    (made,) = sandbox.fork()
    assert isinstance(made, Sandbox), made
    return made


def features(backend: DockerBackend) -> dict[str, tuple[bool, str, str]]:
    return {f.name: (f.present, f.reason, f.remedy) for f in backend.probe().features}


def containers() -> int:
    client = engine.connect()
    try:
        label = {"label": f"treegrpo.pid={os.getpid()}"}
        return len(client.containers.list(all=True, filters=label, sparse=True))
    finally:
        client.close()


# ------------------------------------------------------------------------------ what L1 gives


def test_states_are_directories_that_fork_with_memory_and_open_files(root: Sandbox) -> None:
    assert root.level == Level.L1
    one = fork(root)
    assert one.exec("x = [1]; open('a', 'w').write('abc'); f = open('a'); f.read(1)").ok
    left, right = fork(one), fork(one)
    assert left.exec("x.append(2)\nwith open('a', 'a') as more: more.write('d')").ok
    assert left.exec("x, f.read()").value == "([1, 2], 'bcd')"
    assert right.exec("x, f.read()").value == "([1], 'bc')"
    left.write("mine", b"left")
    assert [entry.name for entry in right.list()] == ["a"]
    assert right.exec("open('mine')").exception == "FileNotFoundError"
    assert left.read("mine") == b"left"


@pytest.mark.parametrize(
    "code",
    [
        "open('/etc/passwd')",
        "import os; os.listdir('/')",
        "open('/proc/self/environ')",
        "import os; open(f'/proc/{os.getppid()}/mem', 'rb')",
        "open('/usr/bin/env', 'ab')",
        "import socket; socket.socket()",
    ],
)
def test_landlock_and_the_plain_filter_hold(root: Sandbox, code: str) -> None:
    assert fork(root).exec(code).exception in ("PermissionError", "OSError")


def test_the_supervisor_cannot_be_signalled(root: Sandbox) -> None:
    killer = fork(root)
    assert killer.exec("import os; os.kill(os.getppid(), 9)").exception == "PermissionError"
    assert root.exec("1 + 1").value == "2"


def test_programs_of_the_image_run_and_so_do_those_of_the_workspace(root: Sandbox) -> None:
    one = fork(root)
    one.write("tool", b"#!/bin/sh\necho made here\n")
    assert one.exec("import os; os.chmod('tool', 0o755)").ok
    result = one.exec(["./tool"])
    assert result.stdout == b"made here\n", result


def test_a_crowd_in_one_tree_leaves_another_its_processes(root: Sandbox) -> None:
    spec = SandboxSpec(min_level=Level.L1, limits=Limits(processes=4))
    with DockerBackend(image=IMAGE, level=1) as backend, backend.create(spec) as other:
        crowd = [fork(root) for _ in range(16)]
        code = "import subprocess; subprocess.run(['true'])"
        result = fork(other).exec(code)
        assert result.ok, result
        for one in crowd:
            one.close()


def test_numpy_is_warm_and_nothing_is_left_after_the_end() -> None:
    before = containers()
    spec = SandboxSpec(min_level=Level.L1, zygote="numpy")
    with DockerBackend(image=IMAGE, level=1) as backend:
        warm = backend.create(spec)
        assert containers() == before + 1
        assert warm.exec("import sys; 'numpy.linalg' in sys.modules").value == "True"
        there = pickle.loads(pickle.dumps(warm))
        assert there.level == Level.L1 and there.exec("1 + 1").value == "2"
        there.close()
    assert containers() == before


def test_probe_says_which_level_was_asked_for_and_what_holds_there() -> None:
    with DockerBackend(image=IMAGE, level=1) as backend:
        assert backend.probe().level == Level.L1
        found = features(backend)
    asked = (False, "the option level=1 asks for no more", "Leave the option level out.")
    assert found["namespaces"] == asked
    assert found["landlock"][0] and found["landlock"][1].startswith("the container's kernel has it")
    assert found["forks"] == (True, "copied directories, tried", "")


def test_a_specification_that_asks_for_more_is_refused_before_anything_starts() -> None:
    before = containers()
    with (
        DockerBackend(image=IMAGE, level=1) as backend,
        pytest.raises(SandboxUnavailable) as caught,
    ):
        backend.create()
    assert str(caught.value) == (
        "A sandbox of level L2 was asked for; the docker backend gives L1 here: the option "
        "level=1 asks for no more. Leave the option level out. Or accept less with min_level=1."
    )
    assert containers() == before


# ------------------------------------------------------------------ namespaces refused inside


@pytest.mark.parametrize("errno", [1, 28])  # EPERM, and ENOSPC: max_user_namespaces is 0
def test_refused_namespaces_lower_only_who_accepts_it(change: Change, errno: int) -> None:
    change("unshare", errno=errno)
    before = containers()
    with DockerBackend(image=IMAGE) as backend:
        with pytest.raises(SandboxUnavailable) as caught:
            backend.create()
        said = str(caught.value)
        assert said.startswith("A sandbox of level L2 was asked for; the docker backend gives L1")
        assert "its supervisor did not come up" in said and "unshare" in said
        assert "user.max_user_namespaces=10000" in said
        assert said.endswith("Or accept less with min_level=1.")
        assert containers() == before
        first = backend.create(LOWER)
        assert first.level == Level.L1 and first.exec("1 + 1").value == "2"
        assert containers() == before + 1
        assert backend.create(LOWER).level == Level.L1
        with pytest.raises(SandboxUnavailable, match=r"gives L1 here.*unshare"):
            backend.create()
    assert containers() == before


def test_probe_says_why_namespaces_are_missing(change: Change) -> None:
    change("unshare", errno=1)
    with DockerBackend(image=IMAGE) as backend:
        assert backend.probe().level == Level.L1
        found = features(backend)
    assert not found["namespaces"][0] and "unshare" in found["namespaces"][1]
    assert "user.max_user_namespaces" in found["namespaces"][2]
    assert found["landlock"][0] and found["forks"][0]


def test_an_option_that_asks_for_the_level_is_never_lowered(change: Change) -> None:
    change("unshare", errno=1)
    with DockerBackend(image=IMAGE, level=2) as backend:
        assert backend.probe().level == Level.L0
        with pytest.raises(SandboxUnavailable, match=r"with level=1 and min_level=1\.$"):
            backend.create(LOWER)


def test_a_kernel_without_overlays_for_users_lowers_too(change: Change) -> None:
    change("fsopen", errno=38)
    with DockerBackend(image=IMAGE) as backend:
        with pytest.raises(SandboxUnavailable, match=r"its first worker did not come up.*6\.8"):
            backend.create()
        assert backend.create(LOWER).level == Level.L1


def test_without_landlock_there_is_no_l1(change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    change("landlock_create_ruleset", errno=38)
    profile = json.dumps(launch.docker_profile())
    monkeypatch.setattr(launch, "choose_profile", lambda *_: profile)
    before = containers()
    with DockerBackend(image=IMAGE, level=1) as backend:
        assert backend.probe().level == Level.L0
        assert features(backend)["landlock"][:2] == (False, "its kernel gives no Landlock")
        with pytest.raises(SandboxUnavailable, match=r"no Landlock\. Boot the engine's host with"):
            backend.create(LOWER)
    assert containers() == before


# ---------------------------------------------------------------------- libseccomp is missing

WITHOUT_LIBSECCOMP = """
import ctypes.util, json, sys
real = ctypes.util.find_library
ctypes.util.find_library = lambda name: None if name == "seccomp" else real(name)
from treegrpo.sandboxes import SandboxSpec, open_backend
from treegrpo.sandboxes.errors import SandboxUnavailable
from treegrpo.sandboxes.seccomp import compile_filter

def refusal(call):
    try:
        return repr(call())
    except SandboxUnavailable as error:
        return str(error)

told = {"filter": refusal(lambda: compile_filter(gate=False))}
with open_backend("docker", image=sys.argv[1]) as backend:
    found = backend.probe()
    told["level"] = found.level
    told["missing"] = {f.name: [f.reason, f.remedy] for f in found.missing()}
    told["default"] = refusal(backend.create)
    with backend.create(SandboxSpec(min_level=1)) as sandbox:
        sandbox.exec("x = 1")
        sandbox.write("a", b"abc")
        (fork,) = sandbox.fork()
        fork.exec("x += 1")
        told["values"] = [sandbox.exec("x").value, fork.exec("x, open('a').read()").value]
        told["passwd"] = fork.exec("open('/etc/passwd')").exception
        told["kill"] = fork.exec("import os; os.kill(os.getppid(), 9)").exception
        told["socket"] = fork.exec(
            "import socket; socket.socket().connect(('192.0.2.1', 80))").exception
        told["listen"] = fork.exec("import socket; socket.socket().fileno() > 0").value
        told["sandbox"] = sandbox.level
assert "pyseccomp" not in sys.modules
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LIBSECCOMP, IMAGE],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


INSTALL = "Install it with 'apt install libseccomp2' or 'dnf install libseccomp'."


def test_without_libseccomp_the_messages_name_the_remedy_and_the_lower_level(
    told: dict[str, Any],
) -> None:
    assert told["filter"] == (
        "A system call filter was asked for, but libseccomp is not installed (Unable to find "
        f"libseccomp). {INSTALL} Without it the backend 'docker' still works, at level L1: "
        "open_backend('docker').create(SandboxSpec(min_level=1))."
    )
    why = (
        "the filter of its workers is made on this side, where libseccomp is not installed",
        "libseccomp is not installed",
    )
    assert told["level"] == Level.L1
    assert told["missing"]["namespaces"] == [why[0], INSTALL]
    assert told["missing"]["filter"] == [why[1], INSTALL]
    assert told["default"] == (
        "A sandbox of level L2 was asked for; the docker backend gives L1 here: "
        f"{why[0]}. {INSTALL} Or accept less with min_level=1."
    )


def test_without_libseccomp_it_works_at_l1_under_landlock_and_without_a_network(
    told: dict[str, Any],
) -> None:
    assert told["sandbox"] == Level.L1
    assert told["values"] == ["1", "(2, 'abc')"]
    assert told["passwd"] == told["kill"] == "PermissionError"
    assert told["listen"] == "True"  # no filter of ours: the engine's allows sockets,
    assert told["socket"] in ("OSError", "PermissionError")  # which lead nowhere
