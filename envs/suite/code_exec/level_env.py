"""CodeExec and PythonMath, version 1: levels 1 to 5, and a split for validation.

env = make("treegrpo/CodeExec-v1")
env = make("treegrpo/PythonMath-v1")

Tools, rewards and task files are those of version 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from treegrpo.envs.suite.code_exec import levels, math_levels
from treegrpo.envs.suite.code_exec.env import CodeExecEnv
from treegrpo.envs.suite.code_exec.math_env import PythonMathEnv
from treegrpo.envs.suite.code_exec.splits import SPLITS
from treegrpo.envs.tasks import NUM_TASKS, Task


class CodeLevelsEnv(CodeExecEnv):
    """Programming tasks at five levels, up to programs of four functions.

    Args:
        settings: of CodeExecEnv.

    Reward: 1 if every hidden test passes, else 0 (or the partial credit).
    """

    splits: ClassVar[tuple[str, ...]] = SPLITS
    num_tasks: ClassVar[Mapping[str, int]] = NUM_TASKS
    difficulties: ClassVar[tuple[int, ...]] = tuple(levels.LEVELS)
    max_turns = 16
    max_tool_calls = 32

    def generated_tasks(self, split: str) -> Sequence[Task]:
        """Return what there is without a file."""
        return self.generated(levels.make_task, "CodeExec-v1", split)

    def oracle(self) -> str:
        """Return the scripted expert's next action: try each part, write, try, submit."""
        said = [m["content"] for m in self.episode.messages if m["role"] == "assistant"]
        for code in self.task.data.get("parts", ()):
            trial = self.encode_call("python", code=code)
            if trial not in said and self.episode.turns < self.max_turns - 4:
                return trial
        return super().oracle()


class MathLevelsEnv(PythonMathEnv):
    """Maths problems at five levels, up to chains that need every number found before.

    Args:
        settings: of PythonMathEnv.

    Reward: 1 if the answer is exactly the right number, else 0.
    """

    splits: ClassVar[tuple[str, ...]] = SPLITS
    num_tasks: ClassVar[Mapping[str, int]] = NUM_TASKS
    difficulties: ClassVar[tuple[int, ...]] = tuple(math_levels.LEVELS)
    max_turns = 12
    max_tool_calls = 24

    def generated_tasks(self, split: str) -> Sequence[Task]:
        """Return what there is without a file."""
        return self.generated(math_levels.make_task, "PythonMath-v1", split)
