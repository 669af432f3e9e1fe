"""The scripted expert of SearchQA's pages: it follows the chain, and says when it breaks off.

It works from any state, by what the pages have shown so far: a fact counts as known once its
sentence stood in a reply; a question as open once every part of the page that should tell was
read. For questions of a file it searches the supporting titles, opens what it finds, and gives
the gold answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from treegrpo.envs.episode import Message
from treegrpo.envs.suite.search_qa.page_tasks import world_of
from treegrpo.envs.tasks import Task

if TYPE_CHECKING:
    from treegrpo.envs.suite.search_qa.page_env import SearchState

Call = tuple[str, dict[str, Any]]
_MAX_TITLES = 5


def next_call(task: Task, state: SearchState, messages: Sequence[Message]) -> Call:
    """Return the expert's next tool call."""
    if "world" not in task.data:
        return _file_call(task, state, messages)
    shown = [m["content"] for m in messages if m["role"] == "tool"]
    subject = str(task.data["subject"])
    chain = world_of(task).follow(subject, task.data["relations"])
    for told in chain:
        if not any(told.sentence in text for text in shown):
            return _look_up(state, shown, told.fact.subject, told.key)
    if len(chain) < len(task.data["relations"]):
        subject = chain[-1].fact.object if chain else subject
        unread = _unread(state, shown, subject)
        if unread is not None:
            return unread
    return "answer", {"text": task.answer[0]}


def _look_up(state: SearchState, shown: Sequence[str], subject: str, key: str) -> Call:
    """Return the call that comes next on the way to a sentence of a page."""
    number = _number(state, subject)
    if number is None:
        return "search", {"query": subject}
    if state.opened != number:
        return "open", {"number": number}
    return "find", {"text": key}


def _unread(state: SearchState, shown: Sequence[str], subject: str) -> Call | None:
    """Return the call that reads on in a page; None once all of it was read."""
    number = _number(state, subject)
    if number is None:
        return "search", {"query": subject}
    read = {part for page, part in state.read if page == number}
    if not read:
        return "open", {"number": number}
    total = next((_total(text, subject) for text in shown if _total(text, subject)), 1)
    missing = [part for part in range(1, total + 1) if part not in read]
    return ("open", {"number": number, "part": missing[0]}) if missing else None


def _total(text: str, title: str) -> int:
    """Return the number of parts that a reply says its page has; 0 for other replies."""
    head, _, rest = text.partition(" (part ")
    count = rest.partition(" of ")[2].partition(")")[0]
    return int(count) if head == title and count.isdecimal() else 0


def _number(state: SearchState, title: str) -> int | None:
    titles = [hit[0] for hit in state.found]
    return titles.index(title) + 1 if title in titles else None


def _file_call(task: Task, state: SearchState, messages: Sequence[Message]) -> Call:
    """Search and open each supporting title in turn, or the question itself; then answer."""
    data: Mapping[str, Any] = task.data
    queries: tuple[str, ...] = data["supporting"][:_MAX_TITLES] or (task.question,)
    searched = sum(m["role"] == "tool" and m.get("name") == "search" for m in messages)
    for place, query in enumerate(queries):
        number = _number(state, query)
        if number is not None and not any(page == number for page, _ in state.read):
            return "open", {"number": number}
        if number is None and place >= searched:
            return "search", {"query": query}
    if state.found and not state.read:
        return "open", {"number": 1}
    return "answer", {"text": task.answer[0]}
