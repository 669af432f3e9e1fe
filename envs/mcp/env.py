"""An environment whose tools are those of an MCP server, started as a process.

    env = McpEnv(
        server=["python", "till.py"],
        rename={"reset": "clear"},
        rows=[{"question": "Bring the total to 7.",
               "check": {"name": "total", "gives": "7"},
               "solution": [{"name": "add", "arguments": {"amount": 7}}]}],
    )

A snapshot is the list of the calls that may have changed the server; tools that it marks with
readOnlyHint are not in it. A fork works on another server on which these calls are replayed,
each compared with what it gave the first time; where they differ the snapshot is refused.
"""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Self, cast

import numpy as np

from treegrpo.envs.adapters.replay import History, Machines
from treegrpo.envs.core import Message, ToolEnv
from treegrpo.envs.errors import SandboxFailed
from treegrpo.envs.mcp.connection import Connection, NoReply, ServerCommand, spell_call
from treegrpo.envs.mcp.rows import RowCall, read_rows, tasks_of
from treegrpo.envs.mcp.tools import ServerTool, ServerToolbox, take_over
from treegrpo.envs.snapshot import Snapshot
from treegrpo.envs.tasks import Task
from treegrpo.envs.tools import collect_tools, tool


class ToolFailed(Exception):
    """The server reports that its tool failed; the text is meant for the agent."""


class McpEnv(ToolEnv):
    """Tasks on the tools of an MCP server; needs the extra `mcp`.

    Args:
        server: the command that starts it and its arguments.
        rows: the tasks, or the path of a JSON Lines file of them (see `rows.py`). A subclass
            may have tasks() or make_task(), and score(), of its own instead.
        only: the server's tools that are offered; None for all.
        rename: server's name of a tool -> agent's name; a name of a control call must go.
        variables: added to the server's environment variables.
        cwd: the server's working directory.
        timeout_s: how long one call may take. A call that is late or stops the server has no
            effect: the next call is made on another server that does not know of it.

    Reward: 1 if every condition of the row holds at the end (the answer, compared without
    regard to case and space; what a tool gives), else 0.
    """

    splits: ClassVar[tuple[str, ...]] = ("train", "validation", "test")
    system_prompt: ClassVar[str] = "Use the tools. Give your answer last: it ends the task."
    max_turns = 16
    max_tool_calls = 32

    def __init__(
        self,
        *,
        server: Sequence[str],
        rows: Sequence[Mapping[str, Any]] | str = (),
        only: Sequence[str] | None = None,
        rename: Mapping[str, str] | None = None,
        variables: Mapping[str, str] | None = None,
        cwd: str | None = None,
        timeout_s: float = 30.0,
        **settings: Any,
    ) -> None:
        """Start a server and take over its tools; other settings are ToolEnv's."""
        variables_given = tuple(sorted((variables or {}).items()))
        command = ServerCommand(
            str(server[0]), tuple(map(str, server[1:])), variables_given, cwd, timeout_s
        )
        self._rows = read_rows(rows)
        self._servers = _Servers.of(command)
        self._only = None if only is None else tuple(only)
        self._rename = dict(rename or {})
        super().__init__(**settings)
        self._offer_tools()

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the rows whose content puts them into the split."""
        return tasks_of(self._rows, split)

    def setup(self, task: Task, rng: np.random.Generator) -> dict[str, Any]:
        """Return the history of a server on which the task's own calls were made."""
        history: History = ()
        for call in cast("Sequence[RowCall]", task.data.get("setup", ())):
            text, history = self._servers.machines.do(
                history, spell_call(call.name, call.arguments), writes=True
            )
            if json.loads(text)["error"]:
                raise SandboxFailed(
                    f"Call {call.name} that sets up task {task.id} was made, but the MCP server "
                    f"says: {json.loads(text)['text'][:200]}. Correct the row."
                )
        return {"history": history, "answer": None}

    def score(
        self, state: Any, transcript: Sequence[Message], task: Task
    ) -> float | Mapping[str, float]:
        """Return 1 if the row's conditions hold, else 0."""
        right = state["answer"] is not None
        if task.answer is not None:
            right = right and _plain(str(task.answer)) == _plain(str(state["answer"]))
        check = cast("RowCall | None", task.data.get("check"))
        if right and check is not None:
            text, _ = self._servers.machines.do(
                state["history"], spell_call(check.name, check.arguments), writes=False
            )
            right = json.loads(text)["text"].strip() == str(check.gives).strip()
        return {"match": float(right)}

    @tool(effects="write")
    def answer(self, text: str = "done") -> str:
        """End the task: give the answer, or done if none was asked for.

        Args:
            text: the answer.
        """
        self.state["answer"] = text
        self.finish()
        return "Noted."

    def call_server(self, tool: ServerTool, arguments: Mapping[str, Any]) -> str:
        """Return what the server's tool gives at this point of the episode.

        Raises:
            ToolFailed, NoReply: for the agent to see.
            SandboxFailed: a server cannot be started, or not be brought to this point.
        """
        reply, self.state["history"] = self._servers.machines.do(
            self.state["history"],
            spell_call(tool.listed, arguments),
            writes=tool.effects == "write",
        )
        result = json.loads(reply)
        if result["error"]:
            raise ToolFailed(result["text"])
        return str(result["text"])

    def oracle(self) -> str:
        """Return the next call of the row's solution, then its answer."""
        solution = cast("Sequence[RowCall] | None", self.task.data.get("solution"))
        if solution is None:
            raise NotImplementedError(f"The row of task {self.task.id} holds no solution.")
        done = sum(m["role"] == "tool" for m in self.episode.messages)
        if done < len(solution):
            return self.encode_call(solution[done].name, **solution[done].arguments)
        said = self.task.answer
        return self.encode_call("answer", text="done" if said is None else str(said))

    # --------------------------------------------------------------------- forks and servers

    def snapshot(self) -> Snapshot:
        """Return the episode as it stands, after its calls were replayed on another server.

        Raises:
            SnapshotUnsupported: the server answers otherwise than the first time.
        """
        self._servers.machines.prove(self.state["history"])
        return super().snapshot()

    def fork(self, *, seed: int | None = None) -> Self:
        """Return a new environment at the same point; neither sees what the other does."""
        twin = super().fork(seed=seed)
        self._servers.machines.join(twin)
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what pickle needs; the tools are taken over again."""
        build, arguments = super().__reduce__()
        return _with_tools, (build, arguments)

    def _offer_tools(self) -> None:
        """Put the server's tools beside the environment's own, and keep the servers alive."""
        tools = take_over(
            self._servers.listed,
            only=self._only,
            rename=self._rename,
            taken=collect_tools(type(self)),
        )
        self._toolbox = ServerToolbox(type(self), self._toolbox.format.name, tools)
        self._servers.machines.join(self)

    def close(self) -> None:
        """Drop the episode; the last environment of a command stops its servers."""
        super().close()
        self._servers.machines.leave(self)


class _Servers:
    """The servers of one command, and the tools that the first of them listed."""

    _known: ClassVar[weakref.WeakValueDictionary[ServerCommand, _Servers]] = (
        weakref.WeakValueDictionary()
    )
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, command: ServerCommand) -> None:
        self.command, first = command, Connection(command)
        self.listed = first.tools
        self.machines = Machines(lambda: Connection(command))
        self.machines.put_new(first)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what pickle needs: another process has servers of its own."""
        return _Servers.of, (self.command,)

    @classmethod
    def of(cls, command: ServerCommand) -> _Servers:
        """Return what every environment of an equal command shares."""
        with cls._lock:
            found = cls._known.get(command)
            if found is None:
                found = cls._known[command] = cls(command)
            return found


def _with_tools(build: Callable[..., McpEnv], arguments: tuple[Any, ...]) -> McpEnv:
    env = build(*arguments)
    env._offer_tools()  # pyright: ignore[reportPrivateUsage]
    return env


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


__all__ = ["McpEnv", "NoReply", "ToolFailed"]
