"""One tree's container: started, spoken to, and removed."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import docker.errors

from treegrpo.sandboxes.docker import owner
from treegrpo.sandboxes.docker.stream import AttachedStream

_END_S = 3.0
_BOTH_WAYS = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}


class Container:
    """A running container, as the byte stream to the process in it.

    A stream that ends before `shutdown` or `close` raises what the engine knows about its end.
    """

    def __init__(self, client: Any, options: Mapping[str, Any]) -> None:
        """Create, attach, start: in this order nothing of the output can be missed.

        Raises:
            docker.errors.DockerException: the engine refused; nothing is left behind.
        """
        self._ending = False
        self._container = client.containers.create(**options)
        try:
            self._stream = AttachedStream(self._container.attach_socket(params=_BOTH_WAYS))
            try:
                self._container.start()
            except BaseException:
                self._stream.close()
                raise
        except BaseException:
            owner.remove(self._container)
            raise

    @property
    def id(self) -> str:
        """The engine's short name of it."""
        return str(self._container.short_id)

    def sendall(self, data: bytes, /) -> None:
        """Write all of `data` to the process."""
        self._stream.sendall(data)

    def recv(self, size: int, /) -> bytes:
        """Return at least one byte of what the process wrote, at most `size`; b"" at its end.

        Raises:
            ConnectionResetError: it ended, and not because we ended it; the message says how.
        """
        data = self._stream.recv(size)
        if not data and not self._ending:
            raise ConnectionResetError(f"container {self.id}: {self.why_ended()}")
        return data

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._stream.fileno()

    def shutdown(self, how: int, /) -> None:
        """End the stream, so that a blocked `recv` returns and the process sees its end."""
        self._ending = True
        self._stream.shutdown(how)

    def close(self) -> None:
        """Kill and remove the container, and let go of its stream. May be called again."""
        self._ending = True
        self._stream.close()
        # Without an engine there is no container; one that it keeps goes at the next start.
        with contextlib.suppress(docker.errors.DockerException, OSError):
            owner.remove(self._container)

    def why_ended(self) -> str:
        """Return what the engine and the process's stderr say about its end."""
        try:
            # The stream's end comes a moment before the engine has written down the process's.
            with contextlib.suppress(OSError):
                self._container.wait(timeout=_END_S)
            self._container.reload()
            state: dict[str, Any] = self._container.attrs["State"]
        except (docker.errors.DockerException, OSError) as error:
            return f"the engine does not know it any more ({error})"
        if state.get("OOMKilled"):
            found = "the container's memory was spent (option memory_mb)"
        elif state.get("Running"):
            found = "it still runs, but its stream has ended"
        else:
            found = f"it ended with exit code {state.get('ExitCode')}"
        said = " ".join(self._stream.stderr_tail.split())
        return f"{found}; its last words: {said[-1000:]}" if said else found
