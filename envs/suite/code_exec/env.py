"""Write and run code in a live sandbox, then submit a program that hidden tests judge.

env = make("treegrpo/CodeExec-v0")
env = make("treegrpo/CodeExec-v0", path="HumanEval.jsonl", dataset="humaneval")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from treegrpo.envs.core import Message
from treegrpo.envs.errors import SandboxFailed, UnknownOption
from treegrpo.envs.sandbox_output import MAX_CHARS
from treegrpo.envs.sandboxed import SandboxEnv, SandboxState
from treegrpo.envs.suite.code_exec import oracle, tasks
from treegrpo.envs.suite.code_exec.checks import Exam
from treegrpo.envs.suite.code_exec.files import Dataset, load_tasks
from treegrpo.envs.suite.code_exec.grading import PYTHON, grade
from treegrpo.envs.suite.code_exec.ops import pick
from treegrpo.envs.tasks import Task
from treegrpo.envs.tools import tool
from treegrpo.sandboxes import SandboxError

MAX_SOURCE_CHARS = 64_000


class ToolRefused(Exception):
    """A call that cannot be served; the text is meant for the agent."""


class CodeExecEnv(SandboxEnv):
    """Programming tasks with a live interpreter and files.

    Args:
        path: a local file of tasks; None for generated ones. The file serves whichever split
            is asked for.
        dataset: what the file holds: "humaneval", "mbpp", "mbpp_sanitized" or "apps".
        partial_credit: the part of the reward, from 0 to 1, that is given in proportion to
            the hidden tests that pass; the rest is given only if all of them do.
        settings: of SandboxEnv and ToolEnv.

    Reward: 1 if every hidden test passes, else 0 (or the partial credit).
    """

    difficulties: ClassVar[tuple[int, ...]] = tasks.DIFFICULTIES
    system_prompt: ClassVar[str] = (
        "Solve the programming task. Try code out with the tools; variables and files last from "
        "one call to the next. Submit once, at the end: hidden tests judge the submitted source."
    )

    def __init__(
        self,
        *,
        path: str | None = None,
        dataset: Dataset | None = None,
        partial_credit: float = 0.0,
        **settings: Any,
    ) -> None:
        """Make the environment; a task file is read here, a sandbox is opened at reset.

        Raises:
            UnknownOption: a value that is not taken, or `path` and `dataset` not together.
            DataFileError: a file that cannot be read.
        """
        if not 0.0 <= partial_credit <= 1.0:
            raise UnknownOption(
                f"partial_credit={partial_credit!r} of CodeExec asked for; it is a part of the "
                "reward. Give a number from 0 to 1."
            )
        if (path is None) != (dataset is None):
            raise UnknownOption(
                f"path={path!r} and dataset={dataset!r} of CodeExec asked for; a file needs to be "
                "told by its format, and a format by its file. Give both, or neither."
            )
        self.partial_credit = float(partial_credit)
        self._file_tasks: Sequence[Task] | None = None
        if path is not None and dataset is not None:
            self._file_tasks = load_tasks(Path(path), dataset)
        super().__init__(**settings)

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the file's tasks, or the generated ones of the split."""
        if self._file_tasks is not None:
            return self._file_tasks
        return self.generated_tasks(split)

    def generated_tasks(self, split: str) -> Sequence[Task]:
        """Return what there is without a file."""
        return self.generated(tasks.make_task, "CodeExec", split)

    def score(
        self, state: SandboxState, transcript: Sequence[Message], task: Task
    ) -> Mapping[str, float]:
        """Return 1 for a submission that passes every hidden test, else 0 or partial credit."""
        part = self.partial_credit
        components = {"all_tests": 0.0} if part == 0.0 else {"all_tests": 0.0, "share": 0.0}
        if state.submission is None:
            return components
        exam = cast("Exam", task.answer)
        try:
            done = grade(self.new_sandbox, exam, state.submission, stop_early=part == 0.0)
        except SandboxError as error:
            raise SandboxFailed(f"{type(error).__name__} in grading: {error}") from error
        components["all_tests"] = (1.0 - part) * done.is_perfect
        if part:
            components["share"] = part * done.fraction
        return components

    # ------------------------------------------------------------------------------ the tools

    @tool(effects="write")
    def python(self, code: str) -> str:
        """Run Python code in the live interpreter and return what it prints and its last value.

        Args:
            code: the code; variables, functions and imports last.
        """
        return self.run(code)

    @tool(effects="write")
    def write_file(self, path: str, text: str) -> str:
        """Write a text file.

        Args:
            path: relative to the workspace.
            text: the whole content.
        """
        self.write_text(path, text)
        return f"Wrote {path}."

    @tool
    def read_file(self, path: str) -> str:
        """Show a text file.

        Args:
            path: relative to the workspace.
        """
        text = self.read_text(path)
        if len(text) <= MAX_CHARS:
            return text or "(empty file)"
        return f"{text[:MAX_CHARS]}\n[... cut after {MAX_CHARS} of {len(text)} characters]"

    @tool(effects="write")
    def run_file(self, path: str, stdin: str = "") -> str:
        """Run a Python file in a process of its own and return what it prints.

        Args:
            path: relative to the workspace.
            stdin: what the program reads from standard input.
        """
        if path.startswith("-"):
            raise ToolRefused("a path does not begin with a hyphen")
        return self.run([PYTHON, path], stdin=stdin)

    @tool(effects="write")
    def submit(self, source: str = "", path: str = "") -> str:
        """Hand in the solution and end the task: give either the source or a file's path.

        Args:
            source: the whole program.
            path: of a file that holds it.
        """
        if bool(source.strip()) == bool(path):
            raise ToolRefused("give either source or path")
        program = self.read_text(path) if path else source
        if len(program) > MAX_SOURCE_CHARS:
            raise ToolRefused(f"the program has more than {MAX_SOURCE_CHARS} characters")
        cast("SandboxState", self.state).submission = program
        self.finish("submitted")
        return "Submitted."

    # ----------------------------------------------------------------------------- the agents

    def oracle(self) -> str:
        """Return the scripted expert's next action: write, try, submit."""
        name, arguments = oracle.next_call(self)
        return self.encode_call(name, **arguments)

    def sample_action(self, rng: np.random.Generator) -> str:
        """Return a random action: junk at times, mostly a sensible call, at times a submission."""
        if self._episode is None or rng.random() < 0.2:
            return super().sample_action(rng)
        number, name = int(rng.integers(100)), f"file{int(rng.integers(3))}.py"
        source = f"def solve(x):\n    return {number}\n"
        calls: tuple[tuple[str, dict[str, str]], ...] = (
            ("python", {"code": f"a = {number}\na * 2"}),
            ("python", {"code": f"a += {number}\nprint(a)"}),
            ("write_file", {"path": name, "text": source}),
            ("read_file", {"path": name}),
            ("run_file", {"path": name}),
            ("submit", {"source": source}),
        )
        tool_name, arguments = pick(rng, calls)
        return self.encode_call(tool_name, **arguments)
