"""The host's end of the launcher: a warm guest process that becomes a supervisor per tree."""

from __future__ import annotations

import contextlib
import os
import site
import socket
import subprocess
import sys
import threading
from pathlib import Path

from treegrpo.sandboxes.delivery import BOOT, ENVIRONMENT, IMPORTS, first_frame
from treegrpo.sandboxes.errors import SandboxUnavailable

# The guest starts from this alone: nothing of the host's environment, secrets included, is in it.
# `python` inside is the interpreter that runs inside.
_PATH = (sys.prefix + "/bin", sys.base_prefix + "/bin", "/usr/local/bin", "/usr/bin", "/bin")
_ENVIRONMENT = {"PATH": ":".join(dict.fromkeys(_PATH)), **ENVIRONMENT}
_START_S = 30.0


class Launcher:
    """One warm guest process; `launch` is as quick as a fork."""

    def __init__(self, zygote: str, *, namespaces: bool) -> None:
        """Start it by exec and wait until it is warm.

        Raises:
            SandboxUnavailable: it did not come up; the message ends with what it said.
        """
        self._lock = threading.Lock()
        self._control, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-S", "-c", BOOT],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=_ENVIRONMENT,
                cwd="/",
                close_fds=True,
                start_new_session=True,  # Ctrl-C is the host's to handle
            )
        config = {
            "role": "launch",
            "imports": IMPORTS[zygote],
            "namespaces": namespaces,
            "hidden": _own_folders(),
            # Without site's start-up files, each of which could load more into every fork.
            "prefix": sys.prefix,
            "paths": [p for p in site.getsitepackages() if os.path.isdir(p)],
        }
        self._control.settimeout(_START_S)
        try:
            self._control.sendall(first_frame(config))
            if self._control.recv(16) != b"up\n":
                raise SandboxUnavailable(f"The sandbox launcher ended: {self._last_words()}")
        except OSError as error:
            told = self._last_words()
            raise SandboxUnavailable(f"The sandbox launcher did not come up: {told}") from error

    @property
    def alive(self) -> bool:
        """Whether it can still launch."""
        return self._process.poll() is None

    def launch(self) -> tuple[socket.socket, int]:
        """Return the stream to a new supervisor, and its pid."""
        ours, theirs = socket.socketpair()
        with self._lock, theirs:
            socket.send_fds(self._control, [b"t"], [theirs.fileno()])
            answer = self._control.recv(32)
        if not answer:
            ours.close()
            raise SandboxUnavailable(f"The sandbox launcher has ended: {self._last_words()}")
        return ours, int(answer)

    def close(self) -> None:
        """End it; the trees that it started have ended before."""
        self._control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        self._process.kill()
        self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()

    def _last_words(self) -> str:
        self._process.kill()
        self._process.wait()
        said = self._process.stderr.read() if self._process.stderr is not None else b""
        lines = said.decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.returncode}, without a word"


def _own_folders() -> list[str]:
    """Return where this package lies: graders and task generators are not for the code's eyes."""
    package = Path(__file__).resolve().parents[2]
    return sorted({str(package), os.path.join(str(package.parent), "treegrpo")})
