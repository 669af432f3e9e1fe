"""One running MCP server, spoken to from code that is not asynchronous.

    connection = Connection(ServerCommand("python", ("server.py",)))
    connection.tools                                             # as the server lists them
    connection.do(spell_call("add", {"a": 1, "b": 2}))           # '{"error": false, "text": "3"}'
    connection.close()

The client of the package `mcp` lives in one event loop in a thread of its own, which all
connections share; each server is a process that talks over its standard streams.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import json
import os
import tempfile
import threading
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO, TypeVar, cast

from treegrpo.envs.errors import SandboxFailed
from treegrpo.envs.mcp.extra import require_mcp

if TYPE_CHECKING:
    from mcp.types import CallToolResult, Tool

START_S = 60.0
"""How long a server may take to start and to list its tools."""
CLOSE_S = 0.5
MAX_TEXT_CHARS = 100_000
MAX_PAGES = 100
_SLACK_S = 5.0
_T = TypeVar("_T")


@dataclass(frozen=True)
class ServerCommand:
    """How a server is started; equal commands share their servers.

    `env` is added to the few variables that a server inherits (PATH, HOME, ...); `timeout_s`
    is how long one call may take.
    """

    command: str
    args: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    cwd: str | None = None
    timeout_s: float = 30.0

    def __str__(self) -> str:
        """Return the command line."""
        return " ".join((self.command, *self.args))


class NoReply(Exception):
    """The server gave no reply to a call; the text is meant for the agent."""


class Connection:
    """A server process from its start to its close, and its tools.

    Raises:
        SandboxFailed: it cannot be started, or does not speak MCP; with its last words.
    """

    def __init__(self, command: ServerCommand) -> None:
        """Start the server and ask for its tools."""
        require_mcp()
        self.command = command
        self._loop = _event_loop(os.getpid())
        self._client: Any = None
        self._stop: asyncio.Event | None = None
        self._ready: concurrent.futures.Future[list[Tool]] = concurrent.futures.Future()
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as words:
            self._session = asyncio.run_coroutine_threadsafe(self._serve(words), self._loop)
            try:
                self.tools = self._ready.result(START_S)
            except Exception as error:
                self.close()
                words.seek(0)
                last = words.read()[-500:].strip()
                reason = f"{type(error).__name__}: {error}".rstrip(": .")
                raise SandboxFailed(
                    f"MCP server '{command}' asked for, but it did not start: {reason}. "
                    f"{'It said: ' + last if last else 'It said nothing.'} Run the command by "
                    "hand and check that it speaks MCP over its standard streams."
                ) from error

    def do(self, call: str) -> str:
        """Return the reply to a call as JSON: its text, and whether the tool reports an error.

        Args:
            call: as `spell_call` writes it.

        Raises:
            NoReply: the time was up, or the server stopped; close the connection.
        """
        from mcp import MCPError
        from mcp.types import CONNECTION_CLOSED, REQUEST_TIMEOUT

        wanted, limit = json.loads(call), self.command.timeout_s
        asked = self._client.call_tool(
            wanted["name"], wanted["arguments"], read_timeout_seconds=limit
        )
        try:
            return _spell_result(self._run(asked, limit + _SLACK_S))
        except MCPError as error:
            if error.code == CONNECTION_CLOSED:
                raise NoReply("the server stopped during this call; it had no effect") from error
            if error.code == REQUEST_TIMEOUT:
                raise NoReply(f"no reply within {limit:g} s; it had no effect") from error
            return _spell(str(error), failed=True)
        except TimeoutError as error:
            raise NoReply(f"no reply within {limit:g} s; it had no effect") from error

    def close(self) -> None:
        """Stop the server, which may leave by itself first. May be called twice.

        Waits for a moment; a server that hangs is killed later, in the background.
        """
        if self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        else:
            self._session.cancel()
        concurrent.futures.wait([self._session], timeout=CLOSE_S)

    def _run(self, asked: Coroutine[Any, Any, _T], limit_s: float) -> _T:
        future = asyncio.run_coroutine_threadsafe(asked, self._loop)
        try:
            return future.result(limit_s)
        except TimeoutError:
            future.cancel()
            raise

    async def _serve(self, words: TextIO) -> None:
        """Hold the session open until close(): one task must enter and leave it."""
        from mcp import Client, StdioServerParameters, stdio_client

        stop = asyncio.Event()
        parameters = StdioServerParameters(
            command=self.command.command,
            args=list(self.command.args),
            env=dict(self.command.env) or None,
            cwd=self.command.cwd,
            encoding_error_handler="replace",
        )
        try:
            transport = stdio_client(parameters, errlog=words)
            async with Client(transport, cache=None) as client:
                self._client, self._stop = client, stop
                self._ready.set_result(await _list_tools(client))
                await stop.wait()
        except BaseException as error:
            if not self._ready.done():
                self._ready.set_exception(_innermost(error))
            elif isinstance(error, asyncio.CancelledError):
                raise


def spell_call(name: str, arguments: Mapping[str, Any]) -> str:
    """Return a call as text; the same call has the same text."""
    return json.dumps({"name": name, "arguments": dict(arguments)}, sort_keys=True)


async def _list_tools(client: Any) -> list[Tool]:
    tools: list[Tool] = []
    cursor: str | None = None
    for _ in range(MAX_PAGES):
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        cursor = page.next_cursor
        if not cursor:
            break
    return tools


def _spell_result(result: CallToolResult) -> str:
    """Return the texts of a result; what is no text is named, not shown."""
    parts = [block.text if block.type == "text" else f"[{block.type}]" for block in result.content]
    if not parts and result.structured_content is not None:
        parts = [json.dumps(result.structured_content, sort_keys=True, ensure_ascii=False)]
    return _spell("\n".join(parts)[:MAX_TEXT_CHARS], failed=result.is_error)


def _spell(text: str, *, failed: bool) -> str:
    return json.dumps({"error": failed, "text": text}, sort_keys=True)


def _innermost(error: BaseException) -> BaseException:
    """Return the cause inside nested exception groups."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error


@functools.cache
def _event_loop(pid: int) -> asyncio.AbstractEventLoop:
    """Return the running loop of this process; a forked process gets one of its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="mcp connections", daemon=True).start()
    return loop
