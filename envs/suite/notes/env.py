"""Messages that pass by, a few short notes, and a question at the end.

    env = make("treegrpo/Notes-v0")
    env = make("treegrpo/Notes-v0", data="memory_student.jsonl")

Facts are told early, overruled later, and asked about last; each message is shown once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from treegrpo.envs.core import Message, ToolEnv
from treegrpo.envs.suite.notes import oracle, tasks
from treegrpo.envs.suite.notes.files import load_tasks
from treegrpo.envs.suite.notes.stories import PEOPLE, VALUES, pick
from treegrpo.envs.suite.notes.tasks import Script
from treegrpo.envs.tasks import NUM_TASKS, GeneratedTasks, Task
from treegrpo.envs.tools import tool


class NoteError(ValueError):
    """A call that does nothing; the text is meant for the agent."""


@dataclass(slots=True)
class NotesState:
    """How many messages were shown (the question is one more), the notes, the answer."""

    shown: int = 0
    notes: list[str] = field(default_factory=list[str])
    answer: str | None = None


class NotesEnv(ToolEnv):
    """Keep facts in a few short notes while messages pass by, then answer a question.

    Args:
        data: a local file of conversations and questions (BFCL memory); None for generated
            ones. The file serves whichever split is asked for.
        settings: of ToolEnv.

    Reward: 1 if the answer is exactly right, else 0.
    """

    splits: ClassVar[tuple[str, ...]] = tasks.SPLITS
    num_tasks: ClassVar[Mapping[str, int]] = NUM_TASKS
    difficulties: ClassVar[tuple[int, ...]] = tasks.DIFFICULTIES
    max_turns = 60
    max_tool_calls = 80
    system_prompt: ClassVar[str] = (
        "Messages come one at a time and are not shown again; the last one is a question. Keep "
        "what you need in your notes. Later messages overrule earlier ones; a rumour is no fact. "
        "Answer with the bare value, two values joined by and."
    )

    def __init__(self, *, data: str | None = None, **settings: Any) -> None:
        """Make the environment; a file is read here.

        Raises:
            DataFileError: a file that cannot be read.
        """
        self._file_tasks = None if data is None else load_tasks(Path(data))
        if self._file_tasks is not None:
            # Room to write a note after each message.
            longest = max(len(task.data["script"].messages) for task in self._file_tasks)
            self.max_turns = max(self.max_turns, 2 * longest + 10)
            self.max_tool_calls = max(self.max_tool_calls, 2 * longest + 10)
        super().__init__(**settings)

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the file's tasks, or the generated ones of the split."""
        if self._file_tasks is not None:
            return self._file_tasks
        return GeneratedTasks(
            partial(tasks.make_task, split=split),
            name="Notes",
            split=split,
            size=self.num_tasks[split],
            difficulties=self.difficulties,
        )

    def setup(self, task: Task, rng: np.random.Generator) -> NotesState:
        """Return empty notes, no message shown yet."""
        return NotesState(notes=[""] * task.data["script"].slots)

    def score(
        self, state: NotesState, transcript: Sequence[Message], task: Task
    ) -> Mapping[str, float]:
        """Return 1 for a right answer, apart from case, signs and articles, else 0."""
        if state.answer is None:
            return {"answer": 0.0}
        right = map(tasks.normalised, cast("tuple[str, ...]", task.answer))
        return {"answer": float(tasks.normalised(state.answer) in right)}

    # ------------------------------------------------------------------------------ the tools

    @tool(effects="write")
    def next(self) -> str:
        """Show the next message; the last one is the question."""
        state, messages = self._now, self._script.messages
        state.shown = min(state.shown + 1, len(messages) + 1)
        if state.shown <= len(messages):
            return messages[state.shown - 1]
        return f"Question: {self._script.asked}"

    @tool(effects="write")
    def write_note(self, slot: int, text: str) -> str:
        """Write a note in place of what the slot holds.

        Args:
            slot: number of the note, from 1.
            text: what it shall say; empty to clear it.
        """
        script = self._script
        if not 1 <= slot <= script.slots:
            raise NoteError(f"there is no slot {slot}; slots are 1 to {script.slots}")
        if len(text) > script.note_chars:
            raise NoteError(
                f"the text has {len(text)} characters; a note holds {script.note_chars}"
            )
        self._now.notes[slot - 1] = text
        return f"Note {slot} written."

    @tool
    def read_notes(self) -> str:
        """Show all notes."""
        return "\n".join(f"{slot}. {text}" for slot, text in enumerate(self._now.notes, 1))

    @tool(effects="write")
    def answer(self, text: str) -> str:
        """Answer the question; this ends the episode.

        Args:
            text: the bare value asked for.
        """
        if self._now.shown <= len(self._script.messages):
            raise NoteError("nothing has been asked yet; go on with next")
        self._now.answer = text
        self.finish()
        return "Answer received."

    @property
    def _script(self) -> Script:
        return cast("Script", self.task.data["script"])

    @property
    def _now(self) -> NotesState:
        return cast("NotesState", self.state)

    # ----------------------------------------------------------------------------- the agents

    def oracle(self) -> str:
        """Return the scripted expert's next action for the episode as it stands."""
        said = [m["content"] for m in self.episode.messages if m["role"] == "assistant"]
        name, arguments = oracle.next_call(
            self._script,
            self._now.shown,
            self._now.notes,
            self.task.answer[0],
            has_read=said[-1:] == [self.encode_call("read_notes")],
        )
        return self.encode_call(name, **arguments)

    def sample_action(self, rng: np.random.Generator) -> str:
        """Return a random action: junk at times, mostly a call, often with a likely value."""
        if self._episode is None or rng.random() < 0.2:
            return super().sample_action(rng)
        attribute = pick(rng, tuple(VALUES))
        value = pick(rng, VALUES[attribute])
        slot = int(rng.integers(1, self._script.slots + 1))
        calls: tuple[tuple[str, dict[str, Any]], ...] = (
            ("next", {}),
            ("next", {}),
            ("next", {}),
            ("write_note", {"slot": slot, "text": f"{pick(rng, PEOPLE)}: {attribute} {value}"}),
            ("read_notes", {}),
            ("answer", {"text": value}),
        )
        name, arguments = pick(rng, calls)
        return self.encode_call(name, **arguments)
