"""Tasks from files in the form of BFCL's memory category, read from a local path.

JSON Lines of three kinds, in one file (the published ones put together with cat), in any order:

    conversation   {id: "memory_prereq_...", scenario, question: [[{role, content}]]}
    question       {id, scenario, question: [[{role, content}]]}
    answer         {id, ground_truth: [texts]}            the id is the question's

The messages of an episode are what the user says in the scenario's conversations, in the
file's order; then the question is asked. Nothing is ever downloaded.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from treegrpo.envs.records import DataFile, Entry
from treegrpo.envs.suite.notes.tasks import DIFFICULTIES, Script, build, normalised
from treegrpo.envs.tasks import Task

SLOTS, NOTE_CHARS = 7, 300
MAX_MESSAGE_CHARS = 3_000
"""A longer message is told in several."""
MESSAGES_PER_LEVEL = 20
MAX_LINE_BYTES = 16 * 1024**2
"""The most that a line of a file may take when unpacked."""
_PREREQUISITE = "memory_prereq"
_Text = Annotated[str, Field(min_length=1)]


class _Fields(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Said(_Fields):
    """One message of a conversation."""

    role: str
    content: str


class Conversation(_Fields):
    """A conversation, or a question: turns of messages, about a scenario."""

    id: _Text
    scenario: _Text
    question: list[list[Said]] = Field(min_length=1)

    def texts(self) -> list[str]:
        """Return what the user says, none of it blank."""
        said = [one.content.strip() for turn in self.question for one in turn if one.role == "user"]
        return [text for text in said if text]


class Answer(_Fields):
    """The right answers to a question."""

    id: _Text
    ground_truth: list[_Text] = Field(min_length=1)


M = TypeVar("M", bound=_Fields)


@dataclass
class _Found:
    """What the lines of a file held so far: messages by scenario, questions, answers by id."""

    messages: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    questions: dict[str, tuple[Conversation, Entry]] = field(
        default_factory=dict[str, tuple[Conversation, Entry]]
    )
    answers: dict[str, tuple[Answer, Entry]] = field(
        default_factory=dict[str, tuple[Answer, Entry]]
    )


def load_tasks(path: Path) -> list[Task]:
    """Return the questions of a file as tasks, in its order.

    Answers to questions that the file does not hold are left out.

    Raises:
        DataFileError: a file that cannot be read, or a question without its conversation or
            answer; names file, line and field.
    """
    file = DataFile(path, "conversations and questions", MAX_LINE_BYTES)
    found = _Found()
    for entry in file.entries():
        _sort(file, entry, found)
    if not found.questions:
        raise file.error("it has no question", "Add the file of questions and that of answers.")
    return [_task(file, found, *question) for question in found.questions.values()]


def _sort(file: DataFile, entry: Entry, found: _Found) -> None:
    """Put one entry where it belongs, or refuse it."""
    if "ground_truth" in entry.fields:
        answer = file.read(entry, Answer)
        _refuse_twice(file, answer.id, entry, found.answers)
        if not all(map(normalised, answer.ground_truth)):
            raise file.wrong_field(entry, "ground_truth", "has a text without letters or digits")
        found.answers[answer.id] = (answer, entry)
        return
    talk = file.read(entry, Conversation)
    texts = talk.texts()
    if not texts:
        raise file.wrong_field(entry, "question", "has no message of the user")
    if talk.id.startswith(_PREREQUISITE):
        pieces = [piece for text in texts for piece in _pieces(text)]
        found.messages.setdefault(talk.scenario, []).extend(pieces)
    else:
        _refuse_twice(file, talk.id, entry, found.questions)
        found.questions[talk.id] = (talk, entry)


def _refuse_twice(
    file: DataFile, name: str, entry: Entry, known: dict[str, tuple[M, Entry]]
) -> None:
    if name in known:
        found = f"is '{name}', as on line {known[name][1].line}"
        raise file.wrong_field(entry, "id", found, "Leave one of the two out.")


def _task(file: DataFile, found: _Found, talk: Conversation, entry: Entry) -> Task:
    if talk.scenario not in found.messages:
        scenarios = ", ".join(map(repr, found.messages)) or "none"
        wrong = f"is '{talk.scenario}'; conversations are of: {scenarios}"
        to_do = "Add the scenario's conversations to the file."
        raise file.wrong_field(entry, "scenario", wrong, to_do)
    if talk.id not in found.answers:
        wrong = f"is '{talk.id}', which no line with 'ground_truth' has"
        raise file.wrong_field(entry, "id", wrong, "Add the file of answers.")
    messages = tuple(found.messages[talk.scenario])
    script = Script(messages, " ".join(talk.texts()), SLOTS, NOTE_CHARS)
    level = min(1 + len(messages) // MESSAGES_PER_LEVEL, DIFFICULTIES[-1])
    answers = tuple(found.answers[talk.id][0].ground_truth)
    return build(script, answers, level, talk.id, "")


def _pieces(text: str) -> list[str]:
    """Return a message as it is, or a long one in parts."""
    if len(text) <= MAX_MESSAGE_CHARS:
        return [text]
    return textwrap.wrap(text, MAX_MESSAGE_CHARS, replace_whitespace=False)
