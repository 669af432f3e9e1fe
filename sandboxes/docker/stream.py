"""The byte stream to the process in a container, over the engine's attach connection.

The engine sends output in chunks, each behind 8 bytes: the channel (1 stdout, 2 stderr), three
zeros, the length. Input goes the other way as it is.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Any

_HEADER = struct.Struct(">BxxxI")
_STDERR = 2
_TAIL_BYTES = 16 * 1024


class AttachedStream:
    """A container's stdin and stdout as one stream; the end of its stderr is kept aside.

    Bytes of output never wait here between two calls, so `fileno` is readable whenever the
    engine has something to say. One thread may receive while another sends.
    """

    def __init__(self, attached: Any) -> None:
        """Take over what the SDK's `attach_socket` returned: a socket, or a file around one."""
        self._attached = attached
        self._socket: socket.socket = getattr(attached, "_sock", attached)
        # The client's timeout is for its requests; a tree may stay silent for hours.
        self._socket.settimeout(None)
        self._left = 0  # bytes of the current chunk that are still to come
        self._channel = 0
        self._stderr = bytearray()

    def sendall(self, data: bytes) -> None:
        """Write all of `data` to the process."""
        self._socket.sendall(data)

    def recv(self, size: int) -> bytes:
        """Return at least one byte of stdout and at most `size`; b"" when it has ended."""
        while True:
            if not self._left and not self._next_chunk():
                return b""
            data = self._socket.recv(min(size, self._left))
            if not data:
                return b""
            self._left -= len(data)
            if self._channel != _STDERR:
                return data
            self._stderr += data
            del self._stderr[:-_TAIL_BYTES]

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._socket.fileno()

    def shutdown(self, how: int) -> None:
        """End the process's input (1), our reading (0) or both (2); wakes who receives."""
        with contextlib.suppress(OSError):  # the engine was first
            self._socket.shutdown(how)

    def close(self) -> None:
        """End both ways and let go of the connection. May be called again."""
        self.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._attached.close()  # a socket stays open while a file around it is

    @property
    def stderr_tail(self) -> str:
        """The last lines the process wrote to stderr, as far as `recv` came across them."""
        return bytes(self._stderr).decode("utf-8", "replace").strip()

    def _next_chunk(self) -> bool:
        header = b""
        while len(header) < _HEADER.size:
            data = self._socket.recv(_HEADER.size - len(header))
            if not data:
                return False
            header += data
        self._channel, self._left = _HEADER.unpack(header)
        return True
