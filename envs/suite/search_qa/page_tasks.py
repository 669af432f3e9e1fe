"""Questions about generated worlds of pages, levels 1 to 5, and questions of a file, as tasks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from treegrpo.envs.digest import digest
from treegrpo.envs.suite.search_qa.files import QuestionFile
from treegrpo.envs.suite.search_qa.page_worlds import LEVELS, NUM_WORLDS, PageWorld, build_pages
from treegrpo.envs.suite.search_qa.wording import other_phrase, plain_phrase
from treegrpo.envs.suite.search_qa.worlds import random_chain
from treegrpo.envs.tasks import Task

UNKNOWN = "unknown"
"""The right answer to a question that the pages do not answer."""
_TENTHS: Mapping[str, range] = {
    "test": range(2),
    "validation": range(2, 4),
    "train": range(4, 10),
}


def make_task(rng: np.random.Generator, difficulty: int, *, split: str) -> Task:
    """Return a random task of one split.

    Question and answer decide the split, so no task can be in two; nor do the pages of two
    splits share a fact. No name is met twice on the way, so a partial chain is wrong.
    """
    level = LEVELS[difficulty]
    number = int(rng.integers(NUM_WORLDS[split]))
    world = build_pages(difficulty, split, number)
    is_open = rng.random() < level.unanswerable
    while True:
        subject, relations = random_chain(world.kinds, rng, level.hops)
        chain = world.follow(subject, relations)
        met = [subject, *(told.fact.object for told in chain)]
        if (len(chain) < level.hops) != is_open or len(set(met)) < len(met):
            continue
        question = ask(subject, relations, rewords=level.rewords_questions)
        answer = UNKNOWN if is_open else met[-1]
        if split_of(question, answer) == split:
            break
    return Task(
        id=f"{split}-{difficulty}-{number}-{subject}-{'-'.join(relations)}",
        question=question,
        answer=(answer,),
        difficulty=difficulty,
        data={"split": split, "world": number, "subject": subject, "relations": tuple(relations)},
    )


def split_of(question: str, answer: str) -> str:
    """Return the only split that a task with this question and answer can be in."""
    tenth = int(digest([question, answer])[:8], 16) % 10
    return next(split for split, tenths in _TENTHS.items() if tenth in tenths)


def ask(subject: str, relations: list[str], *, rewords: bool) -> str:
    """Return the question for the end of a chain: "What is the mayor of the home of Alik?"."""
    phrase = other_phrase if rewords else plain_phrase
    inner = subject
    for relation in relations:
        inner = phrase(relation, inner)
    return f"What is {inner}?" if not rewords else f"What is the name of {inner}?"


def world_of(task: Task) -> PageWorld:
    """Return the world that a generated task asks about."""
    return build_pages(task.difficulty, task.data["split"], task.data["world"])


def file_tasks(file: QuestionFile) -> list[Task]:
    """Return the tasks of a question file, in its order; the unanswerable end in UNKNOWN."""
    return [
        Task(
            id=question.id,
            question=question.question,
            answer=question.answers or (UNKNOWN,),
            difficulty=question.hops,
            data={"position": position, "supporting": question.supporting},
        )
        for position, question in enumerate(file.questions)
    ]
