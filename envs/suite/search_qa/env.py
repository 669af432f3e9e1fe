"""SearchQA: multi-hop questions answered by searching documents.

Tasks come from small generated worlds (1-3 hops, nothing downloaded), or from a public
question file at a local path (HotpotQA, 2WikiMultihopQA, MuSiQue, NQ in FlashRAG form).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from treegrpo.envs.core import Message, Task, ToolEnv
from treegrpo.envs.errors import UnknownOption
from treegrpo.envs.suite.search_qa import oracle
from treegrpo.envs.suite.search_qa.files import QuestionFile, SourceFormat, load_questions
from treegrpo.envs.suite.search_qa.index import DocumentIndex
from treegrpo.envs.suite.search_qa.scoring import exact_match
from treegrpo.envs.suite.search_qa.tasks import file_tasks, make_task
from treegrpo.envs.suite.search_qa.worlds import build_world
from treegrpo.envs.tasks import GeneratedTasks
from treegrpo.envs.tools import tool

NOTHING_FOUND = "Nothing found."


class SearchQAEnv(ToolEnv):
    """Search documents, then answer; the reward is 1 for an exact match, else 0."""

    difficulties: ClassVar[tuple[int, ...]] = (1, 2, 3)
    num_tasks: ClassVar[Mapping[str, int]] = {"train": 1_000_000, "test": 1_000}
    max_turns = 6
    system_prompt = (
        "Answer the question. Search for the facts you need, one at a time, "
        "then give the answer: a name or a short phrase."
    )

    def __init__(
        self,
        *,
        render_mode: str | None = None,
        format: str = "hermes",
        top_k: int = 2,
        data: str | None = None,
        corpus: str | None = None,
        source_format: SourceFormat = "auto",
    ) -> None:
        """Make the environment.

        Args:
            render_mode: "ansi" or None.
            format: how actions spell tool calls, "hermes" or "xml".
            top_k: documents shown per search.
            data: path of a question file; None for generated worlds. The file serves
                whichever split is asked for: name the right file for training and testing.
            corpus: path of a shared corpus, for files without passages of their own.
            source_format: "auto", "hotpotqa", "2wiki", "musique" or "nq".

        Raises:
            UnknownOption: a value that is none of these, or an option that needs `data`.
            DataFileError: a file that cannot be read.
        """
        _check_options(top_k, data, {"corpus": corpus, "source_format": source_format})
        super().__init__(render_mode=render_mode, format=format)
        self.top_k = top_k
        self._file: QuestionFile | None = None
        if data is not None:
            path = Path(corpus) if corpus is not None else None
            self._file = load_questions(Path(data), corpus=path, source_format=source_format)
        self._file_tasks = file_tasks(self._file) if self._file is not None else []
        # Immutable and shared by every fork; built when a question is first asked.
        self._file_index = functools.lru_cache(maxsize=64)(self._build_file_index)

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the file's questions, or the generated ones of this split's worlds."""
        if self._file is not None:
            return self._file_tasks
        return GeneratedTasks(
            functools.partial(make_task, split),
            name="SearchQA",
            split=split,
            size=self.num_tasks[split],
            difficulties=self.difficulties,
        )

    def setup(self, task: Task, rng: np.random.Generator) -> dict[str, Any]:
        """Return the state: which documents were seen, and the answer once given."""
        return {"seen": [], "answer": None}

    @tool
    def search(self, query: str) -> str:
        """Search the documents and return the best matches.

        Args:
            query: the words to look for.
        """
        found = self.documents().search(query, self.top_k)
        seen: list[int] = self.state["seen"]
        seen += [position for position in found if position not in seen]
        texts = [self.documents().documents[position].text for position in found]
        return " ".join(texts) or NOTHING_FOUND

    @tool
    def answer(self, text: str) -> str:
        """Give the final answer; this ends the episode.

        Args:
            text: the answer, a name or a short phrase.
        """
        self.state["answer"] = text
        self.finish()
        return "Answer received."

    def score(self, state: Any, transcript: Sequence[Message], task: Task) -> dict[str, float]:
        """Return 1 if the answer matches a gold answer after normalisation."""
        given = state["answer"]
        return {"answer": float(given is not None and exact_match(given, task.answer))}

    def oracle(self) -> str:
        """Return the expert's next action: the next missing fact, or the answer."""
        return oracle.next_action(self)

    def documents(self) -> DocumentIndex:
        """Return the index over the documents of the running episode's task."""
        data = self.task.data
        if "world" in data:
            return build_world(data["split"], data["world"]).index
        return self._file_index(None if data["shared"] else data["position"])

    def _build_file_index(self, position: int | None) -> DocumentIndex:
        assert self._file is not None, "only tasks of a file have no world"
        if position is None:
            return DocumentIndex(self._file.corpus)
        return DocumentIndex(self._file.questions[position].documents)


def _check_options(top_k: object, data: object, of_data: Mapping[str, object]) -> None:
    """Refuse values that would show only later, or never."""
    if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1:
        raise UnknownOption(
            f"top_k={top_k!r} of SearchQA asked for; it counts the documents shown per search. "
            "Give a whole number of at least 1, such as top_k=2."
        )
    for name, value in of_data.items():
        if data is None and value not in (None, "auto"):
            raise UnknownOption(
                f"{name}={value!r} of SearchQA asked for, but no data was given that it could "
                f"belong to. Give data=<path of a question file> too, or leave {name} out."
            )
