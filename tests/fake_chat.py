"""A chat endpoint on this machine that says and does what a test tells it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "sk-secret-0123456789"
COUNT = {
    "prompt_tokens": 100,
    "completion_tokens": 7,
    "prompt_tokens_details": {"cached_tokens": 40},
    "completion_tokens_details": {"reasoning_tokens": 3},
}


@dataclass(frozen=True)
class Reply:
    """What the endpoint does with one request; `hang` keeps it waiting until the test ends."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict[str, str])
    raw: bytes | None = None
    hang: bool = False


Answer = Callable[[dict[str, Any]], Reply]


def says(text: str | list[Any] | None = "", *, usage: Any = COUNT, **message: Any) -> Reply:
    """Return an answer with this text and these further fields of its message."""
    said = {"role": "assistant", "content": text, **message}
    return Reply({"choices": [{"message": said, "finish_reason": "stop"}], "usage": usage})


def calls(*called: tuple[str, Any], text: str | None = None) -> Reply:
    """Return an answer with tool calls: (name, arguments); text arguments stay as they are."""
    made = [
        {
            "id": "same",
            "type": "function",
            "function": {"name": name, "arguments": a if isinstance(a, str) else json.dumps(a)},
        }
        for name, a in called
    ]
    return says(text, tool_calls=made)


class FakeChat:
    """The endpoint; `script` is used up reply by reply, then `answer` is asked.

    `asked` holds the bodies of all requests, `keys` their Authorization headers, `most` the
    highest number of requests that were open at once.
    """

    def __init__(self) -> None:
        self.script: list[Reply] = []
        self.answer: Answer = lambda body: says("nothing to say")
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.most = self.open = 0
        self.ended = threading.Event()
        self._lock = threading.Lock()
        chat = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                chat.serve(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["content-length"])))
        with self._lock:
            self.open += 1
            self.most = max(self.most, self.open)
            self.asked.append(body)
            self.keys.append(request.headers.get("authorization"))
            scripted = self.script.pop(0) if self.script else None
        reply = scripted or self.answer(body)
        if reply.hang:
            self.ended.wait(60)
            request.close_connection = True
            return
        data = json.dumps(reply.body).encode() if reply.raw is None else reply.raw
        with self._lock:
            self.open -= 1
        request.send_response(reply.status)
        for name, value in {"content-length": str(len(data)), **reply.headers}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(data)

    def last_roles(self) -> Sequence[str]:
        """Return the roles of the messages of the last request."""
        return [message["role"] for message in self.asked[-1]["messages"]]


@contextmanager
def fake_chat() -> Generator[FakeChat]:
    """Yield an endpoint that listens until the end."""
    chat = FakeChat()
    thread = threading.Thread(target=chat.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield chat
    finally:
        chat.ended.set()
        chat.server.shutdown()
        thread.join()
        chat.server.server_close()
