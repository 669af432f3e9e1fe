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

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from treegrpo.envs.suite.notes.records import LinesFile
from treegrpo.envs.suite.notes.tasks import DIFFICULTIES, Script, build, normalised
from treegrpo.envs.tasks import Task

SLOTS, NOTE_CHARS = 7, 300
MAX_MESSAGE_CHARS = 3_000
"""A longer message is told in several."""
MESSAGES_PER_LEVEL = 20
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
    questions: dict[str, tuple[Conversation, int]] = field(
        default_factory=dict[str, tuple[Conversation, int]]
    )
    answers: dict[str, tuple[Answer, int]] = field(default_factory=dict[str, tuple[Answer, int]])


def load_tasks(path: Path) -> list[Task]:
    """Return the questions of a file as tasks, in its order.

    Answers to questions that the file does not hold are left out.

    Raises:
        DataFileError: a file that cannot be read, or a question without its conversation or
            answer; names file, line and field.
    """
    file = LinesFile(path, "conversations and questions")
    found = _Found()
    for fields, line in file.objects():
        _sort(file, fields, line, found)
    if not found.questions:
        raise file.error("it has no question", "Add the file of questions and that of answers.")
    return [_task(file, found, *question) for question in found.questions.values()]


def _sort(file: LinesFile, fields: dict[str, object], line: int, found: _Found) -> None:
    """Put one line where it belongs, or refuse it."""
    if "ground_truth" in fields:
        answer = _read(file, fields, line, Answer)
        _refuse_twice(file, answer.id, line, found.answers)
        if not all(map(normalised, answer.ground_truth)):
            wrong = "field 'ground_truth': a text without letters or digits"
            raise file.error(wrong, "Correct the entry or leave it out.", line)
        found.answers[answer.id] = (answer, line)
        return
    entry = _read(file, fields, line, Conversation)
    texts = entry.texts()
    if not texts:
        to_do = "Correct the entry or leave it out."
        raise file.error("field 'question': no message of the user", to_do, line)
    if entry.id.startswith(_PREREQUISITE):
        pieces = [piece for text in texts for piece in _pieces(text)]
        found.messages.setdefault(entry.scenario, []).extend(pieces)
    else:
        _refuse_twice(file, entry.id, line, found.questions)
        found.questions[entry.id] = (entry, line)


def _refuse_twice(file: LinesFile, name: str, line: int, known: dict[str, tuple[M, int]]) -> None:
    if name in known:
        found = f"field 'id' is '{name}', as on line {known[name][1]}"
        raise file.error(found, "Leave one of the two out.", line)


def _read(file: LinesFile, fields: dict[str, object], line: int, schema: type[M]) -> M:
    try:
        return schema.model_validate(fields)
    except ValidationError as failure:
        fault = failure.errors(include_url=False)[0]
        name = ".".join(map(str, fault["loc"]))
        has = ", ".join(map(repr, fields)) or "no fields"
        wrong = f"is missing; found {has}" if fault["type"] == "missing" else fault["msg"]
        to_do = "Correct the entry or leave it out."
        raise file.error(f"field '{name}': {wrong}", to_do, line) from None


def _task(file: LinesFile, found: _Found, entry: Conversation, line: int) -> Task:
    if entry.scenario not in found.messages:
        scenarios = ", ".join(map(repr, found.messages)) or "none"
        wrong = f"field 'scenario' is '{entry.scenario}'; conversations are of: {scenarios}"
        raise file.error(wrong, "Add the scenario's conversations to the file.", line)
    if entry.id not in found.answers:
        wrong = f"field 'id' is '{entry.id}', which no line with 'ground_truth' has"
        raise file.error(wrong, "Add the file of answers.", line)
    messages = tuple(found.messages[entry.scenario])
    script = Script(messages, " ".join(entry.texts()), SLOTS, NOTE_CHARS)
    level = min(1 + len(messages) // MESSAGES_PER_LEVEL, DIFFICULTIES[-1])
    answers = tuple(found.answers[entry.id][0].ground_truth)
    return build(script, answers, level, entry.id, "")


def _pieces(text: str) -> list[str]:
    """Return a message as it is, or a long one in parts."""
    if len(text) <= MAX_MESSAGE_CHARS:
        return [text]
    return textwrap.wrap(text, MAX_MESSAGE_CHARS, replace_whitespace=False)
