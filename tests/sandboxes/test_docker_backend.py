"""The docker backend as a whole: what it refuses, what a lost container says, durable trees."""

import os
import pickle
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.containers import IMAGE
from treegrpo.sandboxes import open_backend
from treegrpo.sandboxes.base import Level, Limits, SandboxSpec
from treegrpo.sandboxes.docker import DockerBackend, engine
from treegrpo.sandboxes.errors import FileRefused, SandboxError, SandboxLost, SandboxUnavailable

WITHOUT = "The process backend works without Docker: open_backend('process')."
pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    client = engine.connect()
    yield client
    client.close()


@pytest.fixture(scope="module")
def backend() -> Iterator[DockerBackend]:
    with DockerBackend(image=IMAGE) as backend:
        yield backend


@pytest.fixture
def name(client: Any) -> Iterator[str]:
    """A repository of our own, whose images are gone after the test."""
    name = f"treegrpo-test-{uuid.uuid4().hex[:12]}"
    yield name
    for image in client.images.list(name):
        for tag in image.tags:
            client.images.remove(tag, force=True)


def ours(client: Any) -> set[str]:
    found = client.containers.list(all=True, filters={"label": f"treegrpo.pid={os.getpid()}"})
    return {container.id for container in found}


def refusal(spec: SandboxSpec | None = None, **options: Any) -> str:
    with (
        DockerBackend(**{"image": IMAGE, **options}) as backend,
        pytest.raises(SandboxUnavailable) as caught,
    ):
        backend.create(spec)
    return str(caught.value)


# ------------------------------------------------------------------------------------- refusals


def test_a_missing_image_names_the_command_that_gets_it(client: Any) -> None:
    before = ours(client)
    assert refusal(image="python:0.1-none") == (
        "A container of python:0.1-none was asked for: the engine does not have the image "
        "'python:0.1-none'. Get it: docker pull python:0.1-none. Without a registry: make "
        f"docker-image, and the option image='treegrpo-sandbox:test'. {WITHOUT}"
    )
    assert "Build it: make docker-image (as root;" in refusal(image="treegrpo-sandbox:none")
    assert ours(client) == before


@pytest.mark.parametrize(
    ("options", "found", "remedy"),
    [
        ({"image": "A b"}, "invalid reference format", "Give image as name:tag"),
        ({"python": "python9"}, "exec python9 failed", "Name the interpreter in"),
        ({"python": "cat"}, "invalid option", "must name a CPython 3.9 or newer"),
        ({"runtime": "none-such"}, "none-such", "Install that runtime, or leave the option"),
        ({"cpus": 10_000}, "CPUs", "Ask for what the engine's host has: the options cpus"),
    ],
)
def test_a_bad_option_is_answered_with_its_remedy(
    client: Any, options: dict[str, Any], found: str, remedy: str
) -> None:
    before = ours(client)
    said = refusal(**options)
    assert found in said and remedy in said and said.endswith(WITHOUT)
    assert said.count("\n") == 0
    assert ours(client) == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"imgae": "x"}, "imgae='x': Extra inputs are not permitted"),
        ({"cpus": -1}, "cpus=-1: Input should be greater than 0"),
        ({"memory_mb": 1}, "memory_mb=1: Input should be greater than or equal to 128"),
        ({"image": ""}, "image='': String should have at least 1 character"),
    ],
)
def test_an_option_that_cannot_be_is_refused_at_once(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SandboxError) as caught:
        open_backend("docker", **options)
    assert str(caught.value).startswith(f"The docker backend was given {said}")
    assert "Its options are image, python, runtime, cpus" in str(caught.value)


def test_an_interpreter_without_numpy_is_answered_with_its_remedy(client: Any) -> None:
    said = _without_numpy(client)
    assert "No module named 'numpy'" in said
    assert "Use an image with numpy in it, or zygote='bare'." in said


def _without_numpy(client: Any) -> str:
    name = f"treegrpo-test-{uuid.uuid4().hex[:12]}"
    remove = "rm -r /usr/lib/python3*/dist-packages/numpy"
    helper = client.containers.create(IMAGE, ["sh", "-c", remove], network_mode="none")
    try:
        helper.start()
        helper.wait()
        helper.commit(name, "latest")
        with DockerBackend(image=f"{name}:latest") as backend:
            assert not {f.name: f.present for f in backend.probe().features}["numpy"]
        return refusal(SandboxSpec(zygote="numpy"), image=f"{name}:latest")
    finally:
        helper.remove(force=True)
        client.images.remove(f"{name}:latest", force=True)


def test_no_engine_is_an_answer_of_probe_and_a_refusal_of_create(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with DockerBackend(image=IMAGE) as backend:
        found = backend.probe()
    assert found.level == Level.L0 and [f.name for f in found.missing()] == ["engine"]
    assert found.missing()[0].reason == "none answers (No such file or directory)"
    assert "sudo systemctl start docker" in found.missing()[0].remedy
    assert f"A Docker engine at unix://{tmp_path}/none.sock was asked for" in refusal()


def test_probe_tells_what_holds_and_which_kernel_it_is(backend: DockerBackend, client: Any) -> None:
    before = ours(client)
    found = backend.probe()
    features = {feature.name: feature for feature in found.features}
    assert found.level == Level.L3
    assert features["namespaces"].present and features["forks"].present
    assert features["runsc"].present == ("runsc" in client.info()["Runtimes"])
    if not features["runsc"].present:
        assert "containers share the host's kernel" in features["runsc"].reason
        assert "install gVisor" in features["runsc"].remedy
    assert ours(client) == before


# ------------------------------------------------------------------------------- a running tree


def test_a_tree_lives_and_forks_in_one_container(backend: DockerBackend, client: Any) -> None:
    before = ours(client)
    with backend.create() as root:
        assert len(ours(client) - before) == 1
        root.exec("x = [1]")
        left, right = root.fork(2)
        assert not isinstance(left, SandboxError) and not isinstance(right, SandboxError)
        left.exec("x.append('left')")
        left.write("mine", b"left")
        assert right.exec("x").value == "[1]" and right.list() == []
        assert left.exec("x, open('mine').read()").value == "([1, 'left'], 'left')"
        assert len(ours(client) - before) == 1
        left.close()
        right.close()
    assert ours(client) == before


def test_a_killed_container_is_a_lost_sandbox_and_the_next_tree_works(
    backend: DockerBackend, client: Any
) -> None:
    before = ours(client)
    lost = backend.create()
    (container,) = ours(client) - before
    client.containers.get(container).kill()
    with pytest.raises(SandboxLost, match=r"it ended with exit code 137.*cannot be used any more"):
        lost.exec("1")
    lost.close()
    assert ours(client) == before
    with backend.create() as another:
        assert another.exec("1 + 1").value == "2"


def test_a_tree_that_spends_its_containers_memory_is_lost_alone(client: Any) -> None:
    spec = SandboxSpec(limits=Limits(memory_mb=1024, workspace_mb=1024))
    with DockerBackend(image=IMAGE, memory_mb=128) as backend, backend.create() as other:
        with backend.create(spec) as greedy:
            result = greedy.exec("x = bytearray(512 << 20)")
            assert result.kind in ("memory", "signal") and not result.alive
        assert other.exec("1 + 1").value == "2"


def test_trees_leave_no_descriptor_behind(backend: DockerBackend) -> None:
    backend.create().close()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with backend.create() as sandbox:
            sandbox.exec("1")
    assert len(os.listdir("/proc/self/fd")) <= before


KILLED = """
import os, sys
from treegrpo.sandboxes.docker import DockerBackend
sandbox = DockerBackend(image=sys.argv[1]).create()
sandbox.exec("import os, time; os.fork() or time.sleep(1000)", timeout_s=0.5)
print(os.getpid(), flush=True)
sys.stdin.read()
"""


def test_the_container_of_a_killed_run_ends_and_the_next_start_removes_it(client: Any) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, IMAGE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as run:
        assert run.stdout is not None
        label = f"treegrpo.pid={run.stdout.readline().strip()}"
        (container,) = client.containers.list(filters={"label": label})
        run.kill()
    assert container.wait(timeout=60)["StatusCode"] == 0  # its supervisor saw the end
    with DockerBackend(image=IMAGE) as backend, backend.create():
        assert client.containers.list(all=True, filters={"label": label}) == []


def test_closing_the_backend_ends_every_tree(client: Any) -> None:
    before = ours(client)
    with DockerBackend(image=IMAGE) as backend:
        trees = [backend.create() for _ in range(3)]
        assert len(ours(client) - before) == 3
    assert ours(client) == before
    assert [tree.alive for tree in trees] == [False] * 3


def test_a_pickled_sandbox_comes_back_in_a_container_of_the_same_image(
    backend: DockerBackend,
) -> None:
    with backend.create() as sandbox:
        sandbox.exec("x = 41")
        there = pickle.loads(pickle.dumps(sandbox))
        assert there.exec("x + 1").value == "42"
        there.close()


# ------------------------------------------------------------------------------------- durable


def test_a_committed_workspace_starts_the_trees_of_its_image(
    backend: DockerBackend, client: Any, name: str
) -> None:
    with backend.create() as sandbox:
        sandbox.exec("import os; os.makedirs('d/e'); open('d/f', 'wb').write(bytes(range(256)))")
        image_id = backend.commit(sandbox, name, "one")
    assert client.images.get(f"{name}:one").id == image_id
    with DockerBackend(image=f"{name}:one") as later, later.create() as root:
        assert root.read("d/f") == bytes(range(256))
        assert [(e.name, e.kind) for e in root.list("d")] == [("e", "directory"), ("f", "file")]
        assert root.exec("import os; os.listdir('d/e')").value == "[]"


def test_files_of_an_image_are_part_of_the_states_history(
    backend: DockerBackend, name: str
) -> None:
    with backend.create() as sandbox:
        empty = sandbox.state_hash
        sandbox.write("a", b"1")
        backend.commit(sandbox, name, "one")
    with (
        DockerBackend(image=f"{name}:one") as later,
        later.create() as first,
        later.create() as second,
    ):
        assert first.state_hash == second.state_hash != empty
        first.exec("x = open('a').read()")
        first.evict()
        assert first.exec("x").value == "'1'"


def test_a_link_keeps_a_workspace_from_being_committed(
    backend: DockerBackend, client: Any, name: str
) -> None:
    with backend.create() as sandbox:
        sandbox.exec("import os; os.symlink('/etc/passwd', 'link')")
        with pytest.raises(FileRefused, match=r"'link' in the workspace is no file or directory"):
            backend.commit(sandbox, name, "one")
    assert client.images.list(name) == []
