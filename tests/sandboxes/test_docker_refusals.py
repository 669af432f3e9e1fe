"""Every way in which an engine is not there, or refuses, names its remedy in one message."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from treegrpo.sandboxes.docker import engine
from treegrpo.sandboxes.errors import SandboxUnavailable

WITHOUT = "The process backend works without Docker: open_backend('process')."


def refusal(monkeypatch: pytest.MonkeyPatch, address: str) -> str:
    monkeypatch.setenv("DOCKER_HOST", address)
    with pytest.raises(SandboxUnavailable) as caught:
        engine.connect(timeout_s=2)
    return str(caught.value)


def test_no_socket_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/docker.sock"
    assert refusal(monkeypatch, address) == (
        f"A Docker engine at {address} was asked for: none answers (No such file or directory). "
        "Start one: sudo systemctl start docker, or as root: dockerd &. Or point DOCKER_HOST at "
        f"one that runs. {WITHOUT}"
    )


def test_a_socket_without_an_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "docker.sock"))
    said = refusal(monkeypatch, f"unix://{tmp_path}/docker.sock")
    assert "none answers (Connection refused). Start one: sudo systemctl start docker" in said


def test_a_port_without_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    said = refusal(monkeypatch, f"tcp://127.0.0.1:{port}")
    assert "none answers (Connection refused). Start one" in said


@pytest.mark.parametrize("address", ["nonsense://x", "ftp://engine", "tcp://"])
def test_an_address_that_is_none(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    said = refusal(monkeypatch, address)
    assert said.startswith(f"A Docker engine at {address} was asked for: it cannot be reached (")
    remedy = "Correct DOCKER_HOST (unix:///path or tcp://host:port), or unset it."
    assert said.endswith(f"{remedy} {WITHOUT}")


DENIED = """
import os
from treegrpo.sandboxes.docker import engine
from treegrpo.sandboxes.errors import SandboxUnavailable
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    engine.connect()
except SandboxUnavailable as error:
    print(error)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become a user without access")
def test_no_permission_for_the_socket() -> None:
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as server:
        path = Path(folder, "docker.sock")
        server.bind(str(path))
        server.listen()
        path.chmod(0o600)
        Path(folder).chmod(0o755)  # the way is open; the socket is not
        done = subprocess.run(
            [sys.executable, "-c", DENIED],
            env=os.environ | {"DOCKER_HOST": f"unix://{path}"},
            text=True,
            capture_output=True,
            timeout=60,
        )
    assert done.stdout.strip() == (
        f"A Docker engine at unix://{path} was asked for: access to it is denied. Join the group "
        "that owns the socket (sudo usermod -aG docker $USER, then log in again), or point "
        f"DOCKER_HOST at a rootless engine's socket. {WITHOUT}"
    ), done.stderr
