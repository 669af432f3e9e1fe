"""A small site on this machine's loopback, for tests of what is asked over HTTP."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Seen:
    """One request as it came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Reply:
    """What a path answers; a function as body writes to the connection itself.

    With `is_raw` it writes the status line and the headers, too.
    """

    body: bytes | Callable[[Any], object] = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "text/html"})
    is_raw: bool = False


@dataclass
class Site:
    """The pages by path (without the query), in turn where there are several, and who asked."""

    url: str
    pages: dict[str, list[Reply]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)

    def put(self, path: str, *replies: Reply) -> str:
        """Serve the replies in turn, the last one for ever; return the address."""
        self.pages[path] = list(replies)
        return self.url + path


@contextlib.contextmanager
def loopback_site() -> Iterator[Site]:
    """Serve a site on a free port for as long as the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads, server.block_on_close = True, False
    site = Site(f"http://127.0.0.1:{server.server_address[1]}")
    server.site = site  # pyright: ignore[reportAttributeAccessIssue]
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def _serve(self) -> None:
        site: Site = self.server.site  # pyright: ignore[reportAttributeAccessIssue]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        site.seen.append(Seen(self.command, self.path, dict(self.headers.items()), body))
        replies = site.pages.get(self.path.partition("?")[0], [Reply(status=404)])
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        with contextlib.suppress(OSError):  # who asked may have gone: that is what is tested
            self._write(reply)

    def _write(self, reply: Reply) -> None:
        if reply.is_raw and callable(reply.body):
            reply.body(self.wfile)
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if callable(reply.body):
            self.end_headers()
            reply.body(self.wfile)
            return
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    do_GET = _serve
    do_POST = _serve

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
