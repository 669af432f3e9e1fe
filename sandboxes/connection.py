"""Requests to one supervisor and its answers, from any number of threads.

A thread reads the stream and hands each answer to who waits for it, so a caller can block
(`call`) or await (`future`), and steps of several sandboxes run at the same time.
"""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import Future
from typing import Any, Protocol

from treegrpo.sandboxes import errors
from treegrpo.sandboxes.errors import (
    FileRefused,
    Reason,
    SandboxClosed,
    SandboxError,
    SandboxLost,
    SnapshotUnsupported,
)
from treegrpo.sandboxes.guest import wire

_CHUNK = 1 << 18
_RAISED: dict[str, type[SandboxError]] = {
    name: value
    for name, value in vars(errors).items()
    if isinstance(value, type) and issubclass(value, SandboxError)
}

Answer = tuple[dict[str, Any], bytes]


class Stream(Protocol):
    """What a connection needs of a transport: a socket has it."""

    def sendall(self, data: bytes, /) -> None:
        """Send all of it."""
        ...

    def recv(self, size: int, /) -> bytes:
        """Return some bytes, or none at the end."""
        ...

    def shutdown(self, how: int, /) -> None:
        """End the stream, so that a blocked recv returns."""
        ...

    def close(self) -> None:
        """Give the descriptor back."""
        ...


class Connection:
    """One tree's stream."""

    def __init__(self, stream: Stream, *, name: str) -> None:
        """Take over the stream; `name` says in errors which tree was lost."""
        self._stream, self._name = stream, name
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Answer]] = {}
        self._next = 0
        self._lost = ""
        self._closing = False
        self._owner = os.getpid()
        self._reader = threading.Thread(target=self._read, name=name, daemon=True)
        self._reader.start()

    def call(self, op: str, blob: bytes = b"", **header: Any) -> Answer:
        """Return the answer's header and blob.

        Raises:
            SandboxError: what the supervisor answered with, as the type it names.
            SandboxLost: the stream ended first.
        """
        return self.future(op, blob, **header).result()

    def future(self, op: str, blob: bytes = b"", **header: Any) -> Future[Answer]:
        """Return the coming answer; see `call`."""
        future: Future[Answer] = Future()
        if os.getpid() != self._owner:
            raise SandboxError(
                f"This sandbox belongs to process {self._owner}; process {os.getpid()} was forked "
                "from it. Create a new one here, or send it over pickled."
            )
        with self._lock:
            if self._lost:
                future.set_exception(self._end())
                return future
            self._next += 1
            number = self._next
            try:
                data = wire.pack({"id": number, "op": op, **header}, blob)
            except wire.FrameTooLarge as error:
                future.set_exception(FileRefused(f"{op}: the request does not fit: {error}"))
                return future
            self._waiting[number] = future
            try:
                self._stream.sendall(data)
            except OSError as error:
                self._waiting.pop(number, None)
                self._lost = self._lost or f"{self._name} cannot be reached: {error}"
                future.set_exception(self._end())
        return future

    def close(self) -> None:
        """End the stream; whoever still waits gets SandboxClosed. May be called twice."""
        if os.getpid() != self._owner:
            return  # a forked process has no say over its parent's trees
        self._closing = True
        with contextlib.suppress(OSError):
            self._stream.shutdown(2)
        if threading.current_thread() is not self._reader:
            self._reader.join(timeout=5)
        self._stream.close()

    def _read(self) -> None:
        decoder = wire.Decoder()
        reason = "the supervisor has ended"
        try:
            while data := self._stream.recv(_CHUNK):
                for header, blob in decoder.feed(data):
                    self._deliver(header, blob)
        except Exception as error:  # noqa: BLE001 - whatever ends this thread ends the tree
            reason = f"the stream broke: {error!r}"
        with self._lock:
            self._lost = f"{self._name} is gone: {reason}. Its sandboxes cannot be used any more."
            left, self._waiting = list(self._waiting.values()), {}
        for future in left:
            if future.set_running_or_notify_cancel():
                future.set_exception(self._end())

    def _end(self) -> SandboxError:
        if self._closing:
            return SandboxClosed("The tree of this sandbox has been closed; create a new one.")
        return SandboxLost(self._lost)

    def _deliver(self, header: dict[str, Any], blob: bytes) -> None:
        with self._lock:
            future = self._waiting.pop(header["id"], None)
        if future is None or not future.set_running_or_notify_cancel():
            return  # nobody waits for it any more
        if "error" in header:
            future.set_exception(failure(header))
        else:
            future.set_result((header, blob))


def failure(header: dict[str, Any]) -> SandboxError:
    """Return the error that an answer names."""
    if header["error"] == "SnapshotUnsupported":
        return SnapshotUnsupported([Reason(kind, detail) for kind, detail in header["reasons"]])
    return _RAISED.get(header["error"], SandboxError)(header["message"])
