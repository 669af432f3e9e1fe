"""The tasks of Notes: a story cut into messages, a question at its end, and its notes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from treegrpo.envs.digest import digest
from treegrpo.envs.suite.notes.stories import COINS, Facts, Shape, Story, pick, tell
from treegrpo.envs.tasks import Task

LEVELS: Mapping[int, Shape] = {
    1: Shape(1, 1, others=2, updates=0, rumours=0, chatter=0, per_message=1),
    2: Shape(1, 2, others=2, updates=1, rumours=0, chatter=0, per_message=1),
    3: Shape(2, 2, others=4, updates=3, rumours=0, chatter=1, per_message=2),
    4: Shape(3, 2, others=8, updates=6, rumours=2, chatter=2, per_message=2),
    5: Shape(4, 3, others=12, updates=10, rumours=4, chatter=4, per_message=3),
}
DIFFICULTIES = tuple(LEVELS)
SPLITS = ("train", "validation", "test")
_TENTHS: Mapping[str, range] = {
    "test": range(2),
    "validation": range(2, 4),
    "train": range(4, 10),
}
CHARS_PER_FACT = 20
"""How long a note may be for each attribute of the person it is about."""


@dataclass(frozen=True)
class Script:
    """What happens in an episode.

    `messages` come one by one, then `asked` is. There are `slots` notes of at most
    `note_chars` characters. `notes` are the oracle's after each message, one text a slot,
    those before the first one first; empty for tasks from a file.
    """

    messages: tuple[str, ...]
    asked: str
    slots: int
    note_chars: int
    notes: tuple[tuple[str, ...], ...] = ()


def make_task(rng: np.random.Generator, difficulty: int, *, split: str) -> Task:
    """Return a random task of one split.

    Its content (messages and question) decides the split, so no task can be in two.
    """
    shape = LEVELS[difficulty]
    while True:
        story = tell(rng, shape)
        messages = _joined(story, shape.per_message)
        asked, answer = ask(rng, story, difficulty)
        content = digest([messages, asked])
        if split_of(content) == split:
            break
    script = Script(
        messages,
        asked,
        slots=shape.people,
        note_chars=CHARS_PER_FACT * shape.attributes,
        notes=_notes(story, shape.per_message),
    )
    about = _joined_names(story.people)
    return build(script, (answer,), difficulty, f"notes-{content[:16]}", about)


def build(script: Script, answers: tuple[str, ...], difficulty: int, name: str, about: str) -> Task:
    """Return the task of a script; `about` says what will be asked about, if that is told."""
    notes = "1 note" if script.slots == 1 else f"{script.slots} notes"
    told = f"You will be asked about {about}. " if about else ""
    return Task(
        id=name,
        question=f"{told}You have {notes} of at most {script.note_chars} characters.",
        answer=answers,
        difficulty=difficulty,
        data={"script": script},
    )


def split_of(content: str) -> str:
    """Return the only split that a task with this digest of its content can be in."""
    tenth = int(content[:8], 16) % 10
    return next(split for split, tenths in _TENTHS.items() if tenth in tenths)


def ask(rng: np.random.Generator, story: Story, difficulty: int) -> tuple[str, str]:
    """Return a question about the end of a story, and its answer.

    Mostly about a fact that was changed; from level 4 on often about two people at once.
    """
    facts = story.truth[-1]
    known = [(person, attribute) for person in facts for attribute in facts[person]]
    changed = sorted(story.changed)
    person, attribute = pick(rng, changed if changed and rng.random() < 0.8 else known)
    if difficulty >= 4 and rng.random() < 0.6:
        other = pick(rng, [name for name in story.people if name != person])
        return _ask_two(facts, (person, attribute), (other, pick(rng, story.attributes)))
    value = facts[person][attribute]
    if attribute == COINS:
        return f"How many coins does {person} have?", value
    return f"What is the {attribute} of {person}?", value


def _ask_two(facts: Facts, one: tuple[str, str], two: tuple[str, str]) -> tuple[str, str]:
    (person, attribute), (other, second) = one, two
    if attribute == COINS:
        total = int(facts[person][COINS]) + int(facts[other][COINS])
        return f"How many coins do {person} and {other} have together?", str(total)
    answer = f"{facts[person][attribute]} and {facts[other][second]}"
    return f"What are the {attribute} of {person} and the {second} of {other}?", answer


def normalised(text: str) -> str:
    """Return a text as it is compared: small letters, no signs, no articles, single spaces."""
    words = re.sub(r"[^\w\s]", " ", text.casefold()).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def _joined(story: Story, per_message: int) -> tuple[str, ...]:
    sentences = story.sentences
    return tuple(
        " ".join(sentences[start : start + per_message])
        for start in range(0, len(sentences), per_message)
    )


def _notes(story: Story, per_message: int) -> tuple[tuple[str, ...], ...]:
    """Return the notes before the first message and after each: a person a slot."""
    ends = range(per_message, len(story.sentences) + per_message, per_message)
    truths = [story.truth[min(end, len(story.truth)) - 1] for end in ends]
    empty: Facts = {person: {} for person in story.people}
    return tuple(tuple(map(_note, facts, facts.values())) for facts in (empty, *truths))


def _note(person: str, known: Mapping[str, str]) -> str:
    facts = ", ".join(f"{attribute} {value}" for attribute, value in sorted(known.items()))
    return f"{person}: {facts}" if facts else ""


def _joined_names(names: tuple[str, ...]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
