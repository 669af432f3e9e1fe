"""The container itself: how it is closed off, its byte stream, who removes it."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import docker.errors
import pytest

from tests.containers import IMAGE
from treegrpo.sandboxes.base import Limits, SandboxSpec
from treegrpo.sandboxes.docker import engine, owner
from treegrpo.sandboxes.docker.config import DockerConfig, container_options
from treegrpo.sandboxes.docker.container import Container
from treegrpo.sandboxes.errors import SandboxUnavailable
from treegrpo.sandboxes.seccomp import docker_profile

ECHO = "import os\nwhile data := os.read(0, 65536): os.write(1, data)"
MIB = 1024 * 1024
pytestmark = pytest.mark.docker

Start = Callable[..., Container]


def options(code: str, spec: SandboxSpec | None = None, **config: Any) -> dict[str, Any]:
    return container_options(
        DockerConfig(image=config.pop("image", IMAGE), **config),
        spec or SandboxSpec(),
        command=["-I", "-c", code],
        seccomp=json.dumps(docker_profile()),
        runtime=None,
        cpus=1.0,
    )


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    client = engine.connect()
    yield client
    client.close()


@pytest.fixture
def start(client: Any) -> Iterator[Start]:
    """Start containers that are gone after the test."""
    started: list[Container] = []

    def start(code: str, spec: SandboxSpec | None = None, **config: Any) -> Container:
        started.append(Container(client, options(code, spec, **config)))
        return started[-1]

    yield start
    for container in started:
        container.close()


def ours(client: Any) -> set[str]:
    """Return the ids of the containers that this process made; others test beside it."""
    found = client.containers.list(all=True, filters={"label": f"treegrpo.pid={os.getpid()}"})
    return {container.short_id for container in found}


def read_all(container: Container) -> bytes:
    found = b""
    try:
        while data := container.recv(65536):
            found += data
    except ConnectionResetError:
        return found
    raise AssertionError("the stream ended without a word, though nobody closed it")


def run(start: Start, code: str, spec: SandboxSpec | None = None) -> str:
    return read_all(start(code, spec)).decode().strip()


def test_the_engine_is_told_to_give_nothing(client: Any, start: Start) -> None:
    spec = SandboxSpec(limits=Limits(memory_mb=128), memory_budget_mb=256, max_states=100)
    made = start(ECHO, spec)
    attrs = client.containers.get(made.id).attrs
    host = attrs["HostConfig"]
    assert host["CapDrop"] == ["ALL"] and not host["CapAdd"] and not host["Privileged"]
    assert host["NetworkMode"] == "none" and host["IpcMode"] == "none"
    assert host["ReadonlyRootfs"] is True and host["Init"] is True
    assert not host["Binds"] and not attrs["Mounts"] and not host["Devices"]
    assert host["Memory"] == host["MemorySwap"] == (256 + 4 * 128) * MIB
    assert host["PidsLimit"] == 100 + 4 * 32 + 64 and host["NanoCpus"] == 10**9
    assert host["LogConfig"]["Type"] == "none"
    assert attrs["Config"]["User"] == "1000:1000"
    no_new_privileges, seccomp = host["SecurityOpt"]
    assert no_new_privileges == "no-new-privileges"
    assert json.loads(seccomp.removeprefix("seccomp="))["defaultAction"] == "SCMP_ACT_ERRNO"


def test_the_process_inside_has_no_privilege(start: Start) -> None:
    status = run(start, "print(open('/proc/self/status').read())")
    assert len(re.findall(r"^Cap(?:Inh|Prm|Eff|Bnd|Amb):\t0{16}$", status, flags=re.M)) == 5
    assert re.search(r"^NoNewPrivs:\t1$", status, flags=re.M)
    assert re.search(r"^Seccomp:\t2$", status, flags=re.M)
    assert re.search(r"^Uid:\t1000\t1000\t1000\t1000$", status, flags=re.M)


def test_the_process_inside_has_no_network(start: Start) -> None:
    code = "import os; print(sorted(os.listdir('/sys/class/net')))"
    assert run(start, code) == "['lo']"


@pytest.mark.parametrize("place", ["/usr/x", "/etc/x", "/x", "/var/x", "/home/x", "/dev/shm/x"])
def test_nothing_but_tmp_can_be_written(start: Start, place: str) -> None:
    code = (
        "import sys\n"
        "open('/tmp/x', 'w').write('x')\n"
        f"try: open({place!r}, 'w')\n"
        "except OSError as error: print('refused')\n"
    )
    assert run(start, code) == "refused"


def test_tmp_has_an_end_in_bytes_and_in_files(start: Start) -> None:
    code = "import os\ns = os.statvfs('/tmp'); print(s.f_frsize * s.f_blocks, s.f_files)\n"
    spec = SandboxSpec(limits=Limits(workspace_mb=4, files=100))
    assert run(start, code, spec) == f"{32 * MIB} {1024 + 8 * 100}"


def test_the_stream_carries_every_byte_both_ways(start: Start) -> None:
    stream = start(ECHO)
    sent = os.urandom(3 * MIB) + bytes(range(256))
    sender = threading.Thread(target=stream.sendall, args=(sent,))
    sender.start()
    found = b""
    while len(found) < len(sent):
        data = stream.recv(100_000)
        assert data, "the stream ended early"
        found += data
    sender.join()
    assert found == sent


def test_recv_gives_no_more_than_asked_and_loses_nothing(start: Start) -> None:
    stream = start(ECHO)
    stream.sendall(b"abcdefgh")
    assert stream.recv(3) == b"abc"
    assert stream.recv(3) == b"def"
    assert stream.recv(100) == b"gh"


def test_recv_waits_longer_than_a_request_to_the_engine_may(client: Any, start: Start) -> None:
    short = engine.connect(timeout_s=4)
    made = Container(short, options("import time; time.sleep(5); print('late')"))
    try:
        assert made.recv(100) == b"late\n"
    finally:
        made.close()
        short.close()


def test_stderr_is_kept_apart_and_only_its_end(start: Start) -> None:
    made = start(
        "import sys\n"
        "sys.stderr.write('x' * 100_000 + 'the end'); sys.stderr.flush()\n"
        "print('out', flush=True)\n"
        "sys.exit(3)\n"
    )
    assert read_all(made) == b"out\n"
    assert made._stream.stderr_tail.endswith("the end")
    assert len(made._stream.stderr_tail) == 16 * 1024
    assert re.match(r"it ended with exit code 3; its last words: x+the end$", made.why_ended())


def test_the_memory_limit_is_named_when_it_ended_the_container(start: Start) -> None:
    spec = SandboxSpec(limits=Limits(memory_mb=64), memory_budget_mb=64)
    made = start("x = bytearray(600 << 20)\nprint('still here')", spec)
    with pytest.raises(ConnectionResetError, match=r"memory was spent \(option memory_mb\)"):
        made.recv(100)


def test_the_process_sees_the_end_of_its_input_when_the_host_lets_go(
    client: Any, start: Start
) -> None:
    made = start(ECHO)
    made.sendall(b"x")
    assert made.recv(1) == b"x"
    made.shutdown(2)
    container = client.containers.get(made.id)
    assert container.wait(timeout=60)["StatusCode"] == 0


def test_close_removes_the_container_and_may_be_repeated(client: Any, start: Start) -> None:
    made = start(ECHO)
    assert made.id in ours(client)
    made.close()
    made.close()
    assert made.id not in ours(client)


def test_a_container_that_does_not_start_is_not_left_behind(client: Any) -> None:
    before = ours(client)
    with (
        pytest.raises(SandboxUnavailable, match="A container was asked for: the engine refused"),
        engine.refusals("A container was asked for", IMAGE),
    ):
        Container(client, options(ECHO) | {"user": "nobody-of-this-name"})
    assert ours(client) == before


ORPHAN = """
import json, sys
sys.path[:0] = {path!r}
from tests.sandboxes.test_docker_container import ECHO, Container, engine, options
made = Container(engine.connect(), options("import time; time.sleep(1000)"))
print(made.id, flush=True)
sys.stdin.read()
"""


def test_leftovers_of_a_killed_run_are_removed_and_no_others(client: Any, start: Start) -> None:
    mine = start(ECHO)
    code = ORPHAN.format(path=sys.path)
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        theirs = run.stdout.readline().strip()
        owner.remove_leftovers(client)
        assert client.containers.get(theirs).status == "running"  # its run lives
        run.kill()
        run.wait()
    owner.remove_leftovers(client)
    assert mine.id in ours(client)
    with pytest.raises(docker.errors.NotFound):
        client.containers.get(theirs)


def test_of_other_hosts_only_what_has_ended_is_removed() -> None:
    theirs = owner.labels() | {"treegrpo.host": "another boot/1", "treegrpo.pid": "1"}
    assert not owner.is_leftover(theirs, "running")
    assert owner.is_leftover(theirs, "exited")


def test_a_process_id_that_came_back_is_another_owner() -> None:
    mine = owner.labels()
    assert not owner.is_leftover(mine, "running")
    assert owner.is_leftover(mine | {"treegrpo.started": "1"}, "running")
