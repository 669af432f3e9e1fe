"""SearchQA, version 1: pages to find, open and read, five levels, and retrieval from outside.

env = make("treegrpo/SearchQA-v1")                              # generated pages
env = make("treegrpo/SearchQA-v1", data="dev.json")             # a public question file
env = make("treegrpo/SearchQA-v1", data="nq.jsonl", retriever="web", provider="brave",
           cassette="web.sqlite")                               # the web, recorded
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import numpy as np

from treegrpo.envs.core import Message, Task, ToolEnv
from treegrpo.envs.errors import UnknownOption, suggest
from treegrpo.envs.retrieval import Hit, PageFailed, Retriever, open_retriever
from treegrpo.envs.suite.search_qa import page_oracle, reading
from treegrpo.envs.suite.search_qa.files import QuestionFile, SourceFormat, load_questions
from treegrpo.envs.suite.search_qa.page_tasks import file_tasks, make_task, world_of
from treegrpo.envs.suite.search_qa.page_worlds import LEVELS, SPLITS
from treegrpo.envs.suite.search_qa.scoring import exact_match, f1
from treegrpo.envs.suite.search_qa.shelf import Shelf
from treegrpo.envs.suite.search_qa.worlds import names
from treegrpo.envs.tasks import NUM_TASKS, GeneratedTasks
from treegrpo.envs.tools import tool

RewardName = Literal["em", "f1"]
REWARDS: Mapping[RewardName, Callable[[str, Sequence[str]], float]] = {"em": exact_match, "f1": f1}
RETRIEVERS = ("local", "http", "web")


class ReadingError(ValueError):
    """A call that does nothing; the text is meant for the agent."""


@dataclass(slots=True)
class SearchState:
    """What was found, as plain hits in the order of their numbers, opened, and answered.

    `opened` is the number of the open page; `read` lists the (number, part) shown.
    """

    found: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    opened: int | None = None
    read: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    answer: str | None = None


class SearchPagesEnv(ToolEnv):
    """Search for pages, open and read them, then answer; some questions have no answer.

    Args:
        reward: "em", 1 for an exact match after SQuAD normalisation, else 0; or "f1", the
            share of words in common.
        top_k: pages listed per search.
        page_chars: characters of a page shown at once; the rest is in further parts.
        data: path of a question file; None for generated worlds. The file serves whichever
            split is asked for.
        corpus: path of a shared corpus, for files without passages of their own.
        source_format: "auto", "hotpotqa", "2wiki", "musique" or "nq".
        retriever: "local", or "http" or "web" for documents from outside, which needs `data`
            and `cassette`.
        cassette, cassette_mode, url, provider, hosts, allow_loopback: see
            `treegrpo.envs.retrieval.open_retriever`.
        settings: of ToolEnv.
    """

    splits: ClassVar[tuple[str, ...]] = SPLITS
    num_tasks: ClassVar[Mapping[str, int]] = NUM_TASKS
    difficulties: ClassVar[tuple[int, ...]] = tuple(LEVELS)
    max_turns = 24
    max_tool_calls = 32
    system_prompt: ClassVar[str] = (
        "Answer the question from the pages: search for a page, open it, read. Then give the "
        "answer: a name or a short phrase, or unknown if the pages do not tell."
    )

    def __init__(
        self,
        *,
        reward: RewardName = "em",
        top_k: int = 4,
        page_chars: int = 400,
        data: str | None = None,
        corpus: str | None = None,
        source_format: SourceFormat = "auto",
        retriever: str = "local",
        cassette: str | None = None,
        cassette_mode: str = "auto",
        url: str | None = None,
        provider: str = "searxng",
        hosts: Sequence[str] = (),
        allow_loopback: bool = False,
        **settings: Any,
    ) -> None:
        """Make the environment; files are read here.

        Raises:
            UnknownOption: a value that is not taken, or an option without effect.
            DataFileError: a file that cannot be read.
        """
        _check_choice("reward", reward, tuple(REWARDS))
        _check_choice("retriever", retriever, RETRIEVERS)
        _check_count("top_k", top_k, 1, 20)
        _check_count("page_chars", page_chars, 100, 3_500)
        of_live = {"cassette": cassette, "url": url, "hosts": tuple(hosts), "provider": provider}
        of_live |= {"cassette_mode": cassette_mode, "allow_loopback": allow_loopback}
        _check_sources(data, corpus, source_format, retriever, of_live)
        super().__init__(**settings)
        self.reward: RewardName = reward
        self.top_k, self.page_chars = top_k, page_chars
        self._file: QuestionFile | None = None
        if data is not None:
            path = Path(corpus) if corpus is not None else None
            self._file = load_questions(
                Path(data),
                corpus=path,
                source_format=source_format,
                keeps_unanswerable=True,
                is_open=retriever != "local",
            )
        self._file_tasks = file_tasks(self._file) if self._file is not None else []
        self._live: Retriever | None = None
        if retriever != "local":
            self._live = open_retriever(
                retriever,
                cassette=cassette,
                cassette_mode=cassette_mode,
                url=url,
                provider=provider,
                hosts=tuple(hosts),
                allow_loopback=allow_loopback,
            )
        # Immutable and shared by every fork; built when a question is first asked.
        self._file_shelf = functools.lru_cache(maxsize=64)(self._build_file_shelf)

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the file's questions, or the generated ones of the split."""
        if self._file is not None:
            return self._file_tasks
        return GeneratedTasks(
            partial(make_task, split=split),
            name="SearchQA-v1",
            split=split,
            size=self.num_tasks[split],
            difficulties=self.difficulties,
        )

    def setup(self, task: Task, rng: np.random.Generator) -> SearchState:
        """Return the state: nothing found yet."""
        return SearchState()

    def score(
        self, state: SearchState, transcript: Sequence[Message], task: Task
    ) -> Mapping[str, float]:
        """Return the answer's match with the best of the gold answers; 0 without an answer."""
        given = state.answer
        return {"answer": float(given is not None and REWARDS[self.reward](given, task.answer))}

    # ------------------------------------------------------------------------------ the tools

    @tool(effects="write")
    def search(self, query: str) -> str:
        """Search for pages and list the best matches by number.

        Args:
            query: the words to look for.
        """
        found, lines = self._now.found, list[str]()
        for hit in self.retriever().search(query, self.top_k):
            plain = (hit.title, hit.address, hit.text)
            if plain not in found:
                found.append(plain)
            lines.append(f"{found.index(plain) + 1}. {reading.listing(hit)}")
        return "\n".join(lines) or reading.NOTHING_FOUND

    @tool(effects="write")
    def open(self, number: int, part: int = 1) -> str:
        """Open a page and show one part of it.

        Args:
            number: of the page, as a search listed it.
            part: which part of a long page, from 1.
        """
        found = self._now.found
        if not 1 <= number <= len(found):
            known = f"numbers are 1 to {len(found)}" if found else "search first"
            raise ReadingError(f"no page has number {number}; {known}")
        parts = reading.parts(self._text(number), self.page_chars)
        if not 1 <= part <= len(parts):
            raise ReadingError(f"page {number} has no part {part}; parts are 1 to {len(parts)}")
        self._now.opened = number
        if (number, part) not in self._now.read:
            self._now.read.append((number, part))
        place = f" (part {part} of {len(parts)})" if len(parts) > 1 else ""
        return f"{found[number - 1][0]}{place}: {parts[part - 1]}"

    @tool
    def find(self, text: str) -> str:
        """Find words in the open page and show the sentences that hold them.

        Args:
            text: the words to find, as they stand in the page.
        """
        if self._now.opened is None:
            raise ReadingError("no page is open; open one first")
        return reading.find(self._text(self._now.opened), text)

    @tool(effects="write")
    def answer(self, text: str) -> str:
        """Give the final answer; this ends the episode.

        Args:
            text: a name or a short phrase, or unknown.
        """
        self._now.answer = text
        self.finish()
        return "Answer received."

    @property
    def _now(self) -> SearchState:
        return cast("SearchState", self.state)

    def retriever(self) -> Retriever:
        """Return where the documents of the running episode's task are found."""
        if self._live is not None:
            return self._live
        if self._file is None:
            return world_of(self.task).shelf
        return self._file_shelf(self.task.data["position"])

    def _text(self, number: int) -> str:
        try:
            return self.retriever().open(Hit(*self._now.found[number - 1]))
        except PageFailed as failure:
            raise ReadingError(f"page {number} cannot be opened: {failure}") from failure

    def _build_file_shelf(self, position: int) -> Shelf:
        assert self._file is not None, "only tasks of a file have a position"
        return Shelf(self._file.questions[position].documents or self._file.corpus)

    # ----------------------------------------------------------------------------- the agents

    def oracle(self) -> str:
        """Return the scripted expert's next action for the episode as it stands."""
        name, arguments = page_oracle.next_call(self.task, self._now, self.episode.messages)
        return self.encode_call(name, **arguments)

    def sample_action(self, rng: np.random.Generator) -> str:
        """Return a random action: junk at times, mostly a call, often with a likely value."""
        if self._episode is None or rng.random() < 0.2:
            return super().sample_action(rng)
        everyone = [*names("person"), *names("city"), *names("company")]
        name = everyone[int(rng.integers(len(everyone)))]
        number = int(rng.integers(1, len(self._now.found) + 2))
        calls: tuple[tuple[str, dict[str, Any]], ...] = (
            ("search", {"query": name}),
            ("search", {"query": name}),
            ("open", {"number": number}),
            ("open", {"number": number, "part": int(rng.integers(1, 4))}),
            ("find", {"text": name}),
            ("answer", {"text": name}),
        )
        chosen, arguments = calls[int(rng.integers(len(calls)))]
        return self.encode_call(chosen, **arguments)


def _check_choice(option: str, value: object, known: Sequence[str]) -> None:
    if value not in known:
        raise UnknownOption(
            f"{option}={value!r} of SearchQA asked for; it is one of {', '.join(known)}."
            f"{suggest(str(value), known)}"
        )


def _check_count(option: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise UnknownOption(
            f"{option}={value!r} of SearchQA asked for. Give a whole number from {low} to {high}."
        )


def _check_sources(
    data: object,
    corpus: object,
    source_format: object,
    retriever: str,
    of_live: Mapping[str, object],
) -> None:
    """Refuse options that would have no effect, and a live retriever without questions."""
    for name, value in {"corpus": corpus, "source_format": source_format}.items():
        if data is None and value not in (None, "auto"):
            raise UnknownOption(
                f"{name}={value!r} of SearchQA asked for, but no data was given that it could "
                f"belong to. Give data=<path of a question file> too, or leave {name} out."
            )
    for name, value in of_live.items():
        if retriever == "local" and value not in (None, (), False, "auto", "searxng"):
            raise UnknownOption(
                f"{name}={value!r} of SearchQA asked for; it is of no use to retriever='local'. "
                f"Choose retriever='http' or 'web', or leave {name} out."
            )
    if retriever != "local" and data is None:
        raise UnknownOption(
            f"retriever='{retriever}' of SearchQA asked for without data; the generated questions "
            "are about generated pages. Give data=<path of a question file> too."
        )
    if retriever != "local" and corpus is not None:
        raise UnknownOption(
            f"corpus={corpus!r} of SearchQA asked for with retriever='{retriever}', which brings "
            "documents of its own. Leave corpus out, or choose retriever='local'."
        )
