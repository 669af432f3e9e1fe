"""What is planted on the host for attacks to find: secrets, and ears that hear a connection."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from treegrpo.sandboxes.base import Result

MARK = "CANARY-"  # attacks spell it in two parts, so that their own code is no find
SISTER = "SISTER-"  # the same for what lies in a sibling's workspace
VARIABLE = "TREEGRPO_CONFORMANCE_SECRET"


@dataclass(frozen=True)
class Bait:
    """Secrets in the environment, in files and in this process, and listening sockets."""

    secret: str
    sister: str
    places: dict[str, str]  # what an attack's code writes -> where the bait is
    ears: tuple[socket.socket, ...]

    def found_in(self, result: Result) -> bool:
        """Return whether any output of a result holds the secret."""
        texts = (result.text, result.value or "", result.traceback or "", result.exception or "")
        return any(self.secret in text for text in texts)

    def visitors(self) -> tuple[str, ...]:
        """Return who has reached the listening sockets since the last call."""
        found: list[str] = []
        for ear in self.ears:
            try:
                if ear.type == socket.SOCK_STREAM:
                    connection, address = ear.accept()
                    connection.close()
                else:
                    address = ear.recvfrom(99)[1]
            except BlockingIOError:
                continue
            found.append(f"{ear.family.name} {address!r}")
        return tuple(found)


@contextmanager
def planted() -> Generator[Bait]:
    """Yield bait: an environment variable, files at home and in /tmp, sockets of four kinds."""
    secret = f"{MARK}{uuid.uuid4().hex}"
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp", prefix="bait-"))
        files = [Path(folder, "secret.txt"), Path.home() / f".bait-{uuid.uuid4().hex}"]
        for file in files:
            file.write_text(secret, encoding="ascii")
            stack.callback(file.unlink, missing_ok=True)
        os.environ[VARIABLE] = secret
        stack.callback(os.environ.pop, VARIABLE, None)
        path, name = f"{folder}/ear", f"treegrpo-{uuid.uuid4().hex}"
        ears = _ears(stack, path, name)
        for place in (folder, path):
            os.chmod(place, 0o777)
        # Of the same user, and no relation of any sandbox.
        victim = stack.enter_context(subprocess.Popen(["sleep", "3600"]))
        stack.callback(victim.kill)
        places = {
            "@TMP_SECRET@": str(files[0]),
            "@HOME_SECRET@": str(files[1]),
            "@TCP@": str(ears[0].getsockname()[1]),
            "@UDP@": str(ears[1].getsockname()[1]),
            "@UNIX@": path,
            "@ABSTRACT@": name,
            "@VARIABLE@": VARIABLE,
            "@PID@": str(os.getpid()),
            "@VICTIM@": str(victim.pid),
        }
        yield Bait(secret, f"{SISTER}{uuid.uuid4().hex}", places, ears)


def _ears(stack: ExitStack, path: str, name: str) -> tuple[socket.socket, ...]:
    """Return listening sockets: TCP, UDP, a path and an abstract name."""
    udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    udp.bind(("127.0.0.1", 0))
    unix = stack.enter_context(socket.socket(socket.AF_UNIX))
    unix.bind(path)
    abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
    abstract.bind(f"\0{name}")
    for ear in (unix, abstract):
        ear.listen()
    ears = (stack.enter_context(socket.create_server(("127.0.0.1", 0))), udp, unix, abstract)
    for ear in ears:
        ear.setblocking(False)
    return ears
