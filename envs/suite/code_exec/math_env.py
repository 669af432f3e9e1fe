"""Maths problems with a Python that remembers: exact answers, one number each.

env = make("treegrpo/PythonMath-v0")
env = make("treegrpo/PythonMath-v0", path="gsm8k/test.jsonl")
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from treegrpo.envs.core import Message
from treegrpo.envs.sandboxed import SandboxEnv, SandboxState
from treegrpo.envs.suite.code_exec import math_tasks
from treegrpo.envs.suite.code_exec.ops import pick
from treegrpo.envs.tasks import Task
from treegrpo.envs.tools import tool


class PythonMathEnv(SandboxEnv):
    """Maths problems that need a calculation; the tool is a stateful Python.

    Args:
        path: a local file in the format of GSM8K; None for generated problems. The file
            serves whichever split is asked for.
        settings: of SandboxEnv and ToolEnv.

    Reward: 1 if the answer is exactly the right number, else 0.
    """

    difficulties: ClassVar[tuple[int, ...]] = math_tasks.DIFFICULTIES
    max_turns = 8
    max_tool_calls = 16
    system_prompt: ClassVar[str] = (
        "Solve the problem. Calculate with the Python tool; variables last from one call to the "
        "next. Then give the answer once: a whole number, or a fraction such as 7/3."
    )

    def __init__(self, *, path: str | None = None, **settings: Any) -> None:
        """Make the environment; a problem file is read here, a sandbox is opened at reset.

        Raises:
            UnknownOption: a value that is not taken.
            DataFileError: a file that cannot be read.
        """
        self._file_tasks = None if path is None else math_tasks.load_gsm8k(Path(path))
        super().__init__(**settings)

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the file's problems, or the generated ones of the split."""
        if self._file_tasks is not None:
            return self._file_tasks
        return self.generated_tasks(split)

    def generated_tasks(self, split: str) -> Sequence[Task]:
        """Return what there is without a file."""
        return self.generated(math_tasks.make_task, "PythonMath", split)

    def score(
        self, state: SandboxState, transcript: Sequence[Message], task: Task
    ) -> Mapping[str, float]:
        """Return 1 for the right number, however it is spelled, else 0."""
        given = None if state.submission is None else math_tasks.read_number(state.submission)
        gold = math_tasks.read_number(str(task.answer))
        return {"answer": float(given is not None and given == gold)}

    @tool(effects="write")
    def python(self, code: str) -> str:
        """Run Python code in the live interpreter and return what it prints and its last value.

        Args:
            code: the code; variables, functions and imports last.
        """
        return self.run(code)

    @tool(effects="write")
    def answer(self, value: str | int | float) -> str:
        """Give the final answer; this ends the task.

        Args:
            value: a whole number, or a fraction such as 7/3.
        """
        cast("SandboxState", self.state).submission = str(value)
        self.finish("answered")
        return "Answer received."

    def oracle(self) -> str:
        """Return the scripted expert's next action: the cells one by one, then the answer.

        After anything else it runs all cells again from the first, turns permitting.
        """
        cells: tuple[str, ...] = self.task.data["cells"]
        said = [m["content"] for m in self.episode.messages if m["role"] == "assistant"]
        calls = [self.encode_call("python", code=cell) for cell in cells]
        done = next(n for n in range(len(calls), -1, -1) if said[len(said) - n :] == calls[:n])
        if done < len(calls) and self.max_turns - self.episode.turns > len(calls) - done:
            return calls[done]
        return self.encode_call("answer", value=str(self.task.answer))

    def sample_action(self, rng: np.random.Generator) -> str:
        """Return a random action: junk at times, mostly a sensible call, at times an answer."""
        if self._episode is None or rng.random() < 0.2:
            return super().sample_action(rng)
        number = int(rng.integers(10_000))
        calls: tuple[tuple[str, dict[str, str]], ...] = (
            ("python", {"code": f"n = {number}\nn % 7"}),
            ("python", {"code": f"print(n + {number})"}),
            ("python", {"code": f"import math\nmath.sqrt({number}"}),
            ("answer", {"value": str(number)}),
        )
        name, arguments = pick(rng, calls)
        return self.encode_call(name, **arguments)
