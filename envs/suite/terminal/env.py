"""A shell over a file system in memory: find, edit, move, clean up, repair, restore.

    env = make("treegrpo/Terminal-v0")
    env = make("treegrpo/Terminal-v0", backend="sandbox", path="folder/of/harbor/tasks")

Nothing of the host can be reached: files, commands and history are values of this process, or
with backend="sandbox" the shell is a real one in a sandbox. What is removed or overwritten is
gone, as in any shell.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from treegrpo.envs.core import Message
from treegrpo.envs.errors import TreegrpoError, UnknownOption, suggest
from treegrpo.envs.sandbox_output import show
from treegrpo.envs.sandboxed import SandboxEnv, SandboxState
from treegrpo.envs.suite.terminal import oracle, real, shell, solution, tasks
from treegrpo.envs.suite.terminal.disk import Disk, File
from treegrpo.envs.suite.terminal.folder_tasks import Job, load_tasks, sampled_disk
from treegrpo.envs.suite.terminal.goals import Goal
from treegrpo.envs.suite.terminal.machine import Machine
from treegrpo.envs.suite.terminal.verifier import put, reward_of
from treegrpo.envs.tasks import GeneratedTasks, Task
from treegrpo.envs.tools import tool
from treegrpo.sandboxes import FileRefused, Level

BACKENDS = ("memory", "sandbox")


class TerminalEnv(SandboxEnv):
    """Reach goals in a project with shell commands, then submit.

    Args:
        backend: "memory", a shell of our own over files in memory; or "sandbox", /bin/sh.
        path: a task folder of Harbor or Terminal-Bench 2, or a folder of them, for
            backend="sandbox"; None for generated tasks. It serves whichever split is asked for.
        settings: of ToolEnv; with backend="sandbox" those of SandboxEnv, too. Below isolation
            level 2 there is no workspace of its own, so `min_level` is 2 or 3.

    Reward: 1 if all goals are reached, the answer is right and no other file was lost or
    changed; else 0. Without a submission it is 0. With `path`, what the task's own tests give.
    """

    splits: ClassVar[tuple[str, ...]] = tasks.SPLITS
    num_tasks: ClassVar[Mapping[str, int]] = {
        "train": 1_000_000,
        "validation": 1_000,
        "test": 1_000,
    }
    difficulties: ClassVar[tuple[int, ...]] = tasks.DIFFICULTIES
    max_turns = 30
    max_tool_calls = 40
    system_prompt: ClassVar[str] = (
        "Do what is asked with shell commands, then submit. Files that the task does not name "
        "must stay as they are; what is removed cannot be brought back. `help` lists the "
        "commands."
    )

    def __init__(
        self, *, backend: str = "memory", path: str | None = None, **settings: Any
    ) -> None:
        """Make the environment; task folders are read here. No sandbox is opened yet.

        Raises:
            UnknownOption: a value that is not taken, or one without effect.
            DataFileError: a task folder that cannot be read, or none that can be played.
        """
        if backend not in BACKENDS:
            raise UnknownOption(
                f"backend={backend!r} of Terminal asked for; it takes: {', '.join(BACKENDS)}."
                f"{suggest(str(backend), BACKENDS)}"
            )
        self.is_real = backend == "sandbox"
        given = settings if path is None else {**settings, "path": path}
        unused = sorted(set(given) & _OF_SANDBOX)
        if unused and not self.is_real:
            raise UnknownOption(
                f"{unused[0]}={given[unused[0]]!r} of Terminal asked for with "
                "backend='memory', which has no sandbox. Give backend='sandbox' too, or leave it "
                "out."
            )
        super().__init__(**settings)
        if self.sandbox_spec.min_level < Level.L2:
            raise UnknownOption(
                f"min_level={int(self.sandbox_spec.min_level)} of Terminal asked for; a real "
                "shell needs a workspace of its own, which levels 2 and 3 give. Give one of these."
            )
        self._folder_tasks = None if path is None else load_tasks(Path(path))

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the tasks of the folder, or the generated ones of the split."""
        if self._folder_tasks is not None:
            return self._folder_tasks
        make_task = tasks.make_real_task if self.is_real else tasks.make_task
        return GeneratedTasks(
            partial(make_task, split=split),
            name="Terminal",
            split=split,
            size=self.num_tasks[split],
            difficulties=self.difficulties,
        )

    def setup(self, task: Task, rng: np.random.Generator) -> Any:
        """Return a machine or a sandbox with the task's files; the shell stands in the project.

        Raises:
            TreegrpoError: this machine cannot give the sandbox, or it takes not all files.
            SandboxFailed: it failed otherwise.
        """
        if not self.is_real:
            return Machine(task.data["disk"], cwd=task.data["root"])
        sandbox = self.new_sandbox()
        try:
            if self._folder_tasks is None:
                real.furnish(sandbox, task.data["disk"])
            else:
                put(sandbox, task.data["job"].environment)
        except FileRefused as error:
            sandbox.close()
            raise TreegrpoError(
                f"Task '{task.id}' asked for; the sandbox does not take its files: {error} "
                "Leave the task out."
            ) from error
        return real.ShellState(sandbox, cwd=task.data["root"])

    def score(
        self, state: Machine | SandboxState, transcript: Sequence[Message], task: Task
    ) -> Mapping[str, float]:
        """Return 1 if the task is solved, else 0; for a task folder, what its tests give.

        Raises:
            VerifierFailed: tests of a task folder gave no reward.
            SandboxFailed: the sandbox failed.
        """
        if self._folder_tasks is not None:
            return {"tests": reward_of(cast("SandboxState", state).sandbox, task.data["job"])}
        if state.submission is None:
            return {"goal": 0.0}
        disk = state.disk if isinstance(state, Machine) else real.disk_in(state.sandbox, task)
        return {"goal": float(tasks.is_solved(task, disk, state.submission))}

    # ------------------------------------------------------------------------------ the tools

    @tool(effects="write")
    def shell(self, command: str) -> str:
        """Run a line of shell and show what it prints.

        Args:
            command: one or more commands, joined by pipes, ;, && or ||.
        """
        if self.is_real:
            return self._run_in_sandbox(command)
        output = shell.run(self._machine, command)
        text = output.out.removesuffix("\n")
        if output.code:
            return f"{text}\n[exit code {output.code}]".lstrip("\n")
        return text or "[no output]"

    @tool(effects="write")
    def submit(self, answer: str = "") -> str:
        """End the task.

        Args:
            answer: what the task asks to submit; nothing if it asks for none.
        """
        cast("Machine | SandboxState", self.state).submission = answer
        self.finish("submitted")
        return "Submitted."

    def _run_in_sandbox(self, command: str) -> str:
        if "\0" in command:
            return "A command holds no NUL characters."
        state = cast("real.ShellState", self.state)
        result, left_behind = self.try_step(real.words_of(command, state.cwd))
        shown, cwd = real.told_apart(result, state.cwd)
        if result.alive and not left_behind:
            state.cwd = cwd
        return show(shown, self.sandbox_spec.limits, left_behind)

    @property
    def _machine(self) -> Machine:
        return cast("Machine", self.state)

    @property
    def _disk(self) -> Disk:
        if not self.is_real:
            return self._machine.disk
        if self._folder_tasks is not None:
            return sampled_disk(self.task.data["job"])
        return real.disk_in(self.sandbox, self.task)

    # ----------------------------------------------------------------------------- the agents

    def oracle(self) -> str:
        """Return the scripted expert's next action for the episode as it stands.

        Raises:
            TreegrpoError: a task folder without a solution.
        """
        said = Counter(m["content"] for m in self.episode.messages if m["role"] == "assistant")
        if self._folder_tasks is not None:
            lines = solution.lines_of(cast("Job", self.task.data["job"]), self.task.id)
            calls = (self.encode_call("shell", command=line) for line in lines)
            return next((call for call in calls if call not in said), self.encode_call("submit"))
        goals = cast("tuple[Goal, ...]", self.task.data["goals"])
        commands = {c for goal in goals for c in (*goal.looks, *goal.does)}
        counts = {c: said[self.encode_call("shell", command=c)] for c in commands}
        command = oracle.next_command(goals, self._disk, counts)
        if command is not None:
            return self.encode_call("shell", command=command)
        answer = cast("str | None", self.task.answer)
        return self.encode_call("submit", **({} if answer is None else {"answer": answer}))

    def sample_action(self, rng: np.random.Generator) -> str:
        """Return a random action: junk at times, mostly a command on a file that is there."""
        if self._episode is None or rng.random() < 0.1:
            return super().sample_action(rng)
        if rng.random() < 0.1:
            return self.encode_call("submit", **self._random_answer(rng))
        templates = _REAL_TEMPLATES if self.is_real else _TEMPLATES
        return self.encode_call("shell", command=_random_command(templates, self._disk, rng))

    def _random_answer(self, rng: np.random.Generator) -> dict[str, Any]:
        paths = sorted(self._disk.files())
        if rng.random() < 0.4 and paths:
            return {"answer": paths[int(rng.integers(len(paths)))]}
        return {"answer": str(int(rng.integers(100)))} if rng.random() < 0.5 else {}


_OF_SANDBOX = {"sandbox", "image", "min_level", "unsafe", "timeout_s", "memory_mb", "path"}
_TEMPLATES = (
    *("cat {a}", "grep -n {w} {a}", "ls -l {d}", "find {d} -name '*{e}'", "head -n 3 {a}"),
    *("rm {a}", "mv {a} {d}", "cp {a} {b}", "touch {d}/{w}", "mkdir {d}/{w}", "cd {d}; pwd"),
    *("sed -i 's/{w}/{v}/' {a}", "echo {w} >> {a}", "wc -l {d}/*{e} | sort -n", "chmod -w {a}"),
    *("git log --oneline", "git status", "rm -f {d}/*{e}", "diff {a} {b} | head -n 5", "{w} | {v}"),
)


# A real shell's clock shows in `ls -l`, and two commands that fail at once race for stderr.
_REAL_TEMPLATES = tuple(t for t in _TEMPLATES if t not in ("ls -l {d}", "{w} | {v}"))


def _random_command(templates: Sequence[str], disk: Disk, rng: np.random.Generator) -> str:
    """Return a command of a template, its words those of files that are there."""

    def pick(items: Sequence[str]) -> str:
        return items[int(rng.integers(len(items)))]

    files = sorted(p for p, entry in disk.entries.items() if isinstance(entry, File)) or ["/tmp/x"]
    folders = sorted(p for p in disk.entries if disk.is_folder(p))
    first, second = pick(files), pick(files)
    words = [word for word in disk.files().get(first, "").split() if word.isalnum()] or ["error"]
    return pick(templates).format(
        a=shlex.quote(first),
        b=shlex.quote(second),
        d=shlex.quote(pick(folders)),
        e=shlex.quote("." + first.rpartition(".")[2].rpartition("/")[2]),
        w=shlex.quote(pick(words)),
        v=shlex.quote(pick(words)),
    )
