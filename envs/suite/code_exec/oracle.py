"""The scripted expert of CodeExec: writes the reference, tries it, submits the file.

It looks at the file before it submits, so it succeeds from every state, budget permitting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from treegrpo.envs.suite.code_exec.grading import PROGRAM
from treegrpo.sandboxes import FileRefused

if TYPE_CHECKING:
    from treegrpo.envs.suite.code_exec.env import CodeExecEnv

Call = tuple[str, dict[str, str]]


def next_call(env: CodeExecEnv) -> Call:
    """Return the expert's next call for the episode as it stands.

    Raises:
        NotImplementedError: the task's file gives no solution.
    """
    data = env.task.data
    solution: str | None = data["solution"]
    if solution is None:
        raise NotImplementedError(f"Task {env.task.id} comes without a solution.")
    last_turns = env.episode.turns >= env.max_turns - 2
    if not _holds(env, solution):
        if last_turns:
            return "submit", {"source": solution}
        return "write_file", {"path": PROGRAM, "text": solution}
    trial = _trial(env)
    said = [m["content"] for m in env.episode.messages if m["role"] == "assistant"]
    if last_turns or any(trial[0] in text for text in said):
        return "submit", {"path": PROGRAM}
    return trial[1]


def _trial(env: CodeExecEnv) -> tuple[str, Call]:
    """Return the call that tries the solution, and a mark by which it is known again."""
    example: str | None = env.task.data["example"]
    if env.task.data["is_program"]:
        return "run_file", ("run_file", {"path": PROGRAM, "stdin": example or ""})
    code = f"exec(open('{PROGRAM}').read())"
    return "exec(open(", ("python", {"code": f"{code}\n{example}" if example else code})


def _holds(env: CodeExecEnv, solution: str) -> bool:
    try:
        return env.read_text(PROGRAM) == solution
    except FileRefused:
        return False
