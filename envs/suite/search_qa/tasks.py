"""Questions about a generated world, and questions from a file, as tasks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from treegrpo.envs.suite.search_qa.files import QuestionFile
from treegrpo.envs.suite.search_qa.worlds import build_world, random_chain
from treegrpo.envs.tasks import Task

NUM_WORLDS: Mapping[str, int] = {"train": 400, "test": 100}


def make_task(split: str, rng: np.random.Generator, hops: int) -> Task:
    """Return a question of `hops` hops about one of the split's worlds.

    The answer is never the subject or an intermediate name, so a partial chain is wrong.
    """
    number = int(rng.integers(NUM_WORLDS[split]))
    world = build_world(split, number)
    while True:
        subject, relations = random_chain(world.kinds, rng, hops)
        chain = world.follow(subject, relations)
        on_the_way = [subject, *(fact.object for fact in chain)]
        if len(set(on_the_way)) == len(on_the_way):
            break
    path = " of the ".join(reversed(relations))
    return Task(
        id=f"{split}-{number}-{subject}-{'-'.join(relations)}",
        question=f"What is the {path} of {subject}?",
        answer=(chain[-1].object,),
        difficulty=hops,
        data={"split": split, "world": number, "subject": subject, "relations": tuple(relations)},
    )


def file_tasks(file: QuestionFile) -> list[Task]:
    """Return the tasks of a question file, in its order."""
    return [
        Task(
            id=question.id,
            question=question.question,
            answer=question.answers,
            difficulty=question.hops,
            data={
                "position": position,
                "shared": not question.documents,
                "supporting": question.supporting,
            },
        )
        for position, question in enumerate(file.questions)
    ]
