"""What environments in a sandbox share: an episode lives in a sandbox, and forks with it.

The state holds a handle on one state of a sandbox. Copying the state copies the handle, which
costs next to nothing; the interpreter is forked when one of the copies is used next. A step is
tried on a fork first and taken over only if it went well, so that a crash, a timeout or a
thread left behind leaves the episode where it was.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
from pydantic import ValidationError

from treegrpo.envs.core import Task, ToolEnv
from treegrpo.envs.errors import SandboxFailed, TreegrpoError, UnknownOption, suggest
from treegrpo.envs.sandbox_output import show
from treegrpo.envs.tasks import GeneratedTasks
from treegrpo.sandboxes import (
    FileRefused,
    Level,
    Limits,
    Reason,
    Result,
    Sandbox,
    SandboxError,
    SandboxSpec,
    SandboxUnavailable,
    SnapshotUnsupported,
    shared_backend,
)

SANDBOXES = ("process", "docker")


@dataclass
class SandboxState:
    """An episode's sandbox, and what the agent submitted or answered."""

    sandbox: Sandbox
    submission: str | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> SandboxState:
        with ours():
            return SandboxState(copy.deepcopy(self.sandbox, memo), self.submission)

    def state_facts(self) -> dict[str, Any]:
        """Return what the state hash covers: all that was ever done in the sandbox."""
        return {"sandbox": self.sandbox.state_hash, "submission": self.submission}


class SandboxEnv(ToolEnv):
    """An environment whose episodes live in a sandbox.

    Args:
        sandbox: the backend, "process" or "docker".
        image: of the containers, for "docker" only; None for the backend's own choice.
        min_level: the isolation (0 to 3) below which the environment refuses to run.
        unsafe: must be set for level 0, which isolates nothing.
        timeout_s: seconds that one step of code, or one hidden test, may take.
        memory_mb: memory that it may take.
    """

    max_turns = 12
    max_tool_calls = 24

    def __init__(
        self,
        *,
        sandbox: str = "process",
        image: str | None = None,
        min_level: int = int(Level.L2),
        unsafe: bool = False,
        timeout_s: float = 10.0,
        memory_mb: int = 512,
        **settings: Any,
    ) -> None:
        """Make the environment; other settings are ToolEnv's. No sandbox is opened yet."""
        name = type(self).__name__.removesuffix("Env")
        if sandbox not in SANDBOXES:
            raise UnknownOption(
                f"sandbox={sandbox!r} of {name} asked for; it takes: {', '.join(SANDBOXES)}."
                f"{suggest(str(sandbox), SANDBOXES)}"
            )
        if image is not None and sandbox != "docker":
            raise UnknownOption(
                f"image={image!r} of {name} asked for with sandbox='{sandbox}', which runs no "
                "image. Give sandbox='docker' too, or leave image out."
            )
        self.sandbox_spec = _spec(name, min_level, unsafe, timeout_s, memory_mb)
        self.backend = sandbox
        self.backend_options = {} if image is None else {"image": image}
        super().__init__(**settings)

    def generated(self, make_task: Callable[..., Task], name: str, split: str) -> GeneratedTasks:
        """Return the split's tasks, each made by `make_task(rng, difficulty, split=split)`."""
        return GeneratedTasks(
            partial(make_task, split=split),
            name=name,
            split=split,
            size=self.num_tasks[split],
            difficulties=self.difficulties,
        )

    def setup(self, task: Task, rng: np.random.Generator) -> SandboxState:
        """Return a state with a fresh sandbox."""
        return SandboxState(self.new_sandbox())

    def new_sandbox(self) -> Sandbox:
        """Return a fresh sandbox, the root of a tree of its own.

        Raises:
            TreegrpoError: this machine cannot give it; the message names the remedy.
            SandboxFailed: it failed otherwise.
        """
        try:
            backend = shared_backend(self.backend, **self.backend_options)
            return backend.create(self.sandbox_spec)
        except SandboxUnavailable as error:
            raise TreegrpoError(str(error)) from error
        except SandboxError as error:
            raise SandboxFailed(f"No sandbox could be made: {error}") from error

    def close(self) -> None:
        """Drop the episode and its sandbox; may be called twice."""
        if self._episode is not None:
            state = self._episode.state
            if isinstance(state, SandboxState):
                state.sandbox.close()
        super().close()

    # ------------------------------------------------------------------------- for the tools

    @property
    def sandbox(self) -> Sandbox:
        """The sandbox of the running episode as it stands. Read it; run code with run()."""
        return cast("SandboxState", self.state).sandbox

    def run(self, code: str | Sequence[str], *, stdin: str = "") -> str:
        """Return what the agent is shown of a step; the episode moves on if it can be kept.

        Args:
            code: Python for the live interpreter, or the words of a command.
            stdin: what the command reads.

        Raises:
            SandboxFailed: the sandbox failed, not the code in it.
        """
        result, left_behind = self.try_step(code, stdin=stdin)
        return show(result, self.sandbox_spec.limits, left_behind)

    def try_step(
        self, code: str | Sequence[str], *, stdin: str = ""
    ) -> tuple[Result, list[Reason]]:
        """Return what a step did, and what it left behind that keeps its state from being kept.

        The episode moves on if the result is alive and nothing was left behind.

        Raises:
            SandboxFailed: the sandbox failed, not the code in it.
        """
        with ours():
            after, result = self.sandbox.step(code, stdin=stdin.encode("utf-8", "replace"))
            left_behind = after.check() if result.alive else []
            if result.alive and not left_behind:
                self._take_over(after)
            else:
                after.close()
        return result, left_behind

    def write_text(self, path: str, text: str) -> None:
        """Write a file of the workspace.

        Raises:
            FileRefused: told to the agent.
            SandboxFailed: the sandbox failed.
        """
        with ours():
            after = self.sandbox.snapshot()
            try:
                after.write(path, text.encode("utf-8", "replace"))
            except BaseException:
                after.close()
                raise
            self._take_over(after)

    def read_text(self, path: str) -> str:
        """Return a file of the workspace as text; wrong bytes become U+FFFD.

        Raises:
            FileRefused: told to the agent.
            SandboxFailed: the sandbox failed.
        """
        with ours():
            return self.sandbox.read(path).decode("utf-8", "replace")

    def _take_over(self, after: Sandbox) -> None:
        state = cast("SandboxState", self.state)
        before, state.sandbox = state.sandbox, after
        before.close()


@contextlib.contextmanager
def ours() -> Generator[None, None, None]:
    """Turn failures of the sandbox into SandboxFailed; what the agent did wrong passes.

    Raises:
        SandboxFailed: a sandbox failed.
    """
    try:
        yield
    except (FileRefused, SnapshotUnsupported):
        raise
    except SandboxError as error:
        raise SandboxFailed(f"{type(error).__name__}: {error}") from error


def _spec(name: str, min_level: int, unsafe: bool, timeout_s: float, memory_mb: int) -> SandboxSpec:
    levels = [int(level) for level in Level]
    if min_level not in levels:
        raise UnknownOption(
            f"min_level={min_level!r} of {name} asked for; levels are "
            f"{', '.join(map(str, levels))}. docs/sandboxes.md says what each protects against."
        )
    try:
        # More output than is shown: hidden tests of programs compare all of it.
        limits = Limits(timeout_s=timeout_s, memory_mb=memory_mb, output_kib=1024)
        return SandboxSpec(limits=limits, min_level=Level(min_level), unsafe=unsafe)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        option = ".".join(map(str, fault["loc"])) or "sandbox options"
        raise UnknownOption(
            f"{option}={fault['input']!r} of {name} asked for, but: {fault['msg']}. "
            "Correct the value."
        ) from error
