"""The data of a viewer page: trees as compact JSON, texts cleaned and cut to a size.

What is empty is left out. The JSON stands in the page as data that a script reads; nothing in
it can end the element that holds it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from treegrpo.leaderboards.site.viewer_model import ViewerNode, ViewerTree
from treegrpo.leaderboards.site.viewer_text import (
    MAX_CALLS,
    Call,
    clean_text,
    clean_word,
    clip,
    read_action,
)

MAX_DATA_BYTES = 4_000_000
"""Of a page; texts are cut first, then whole trees and at last single steps left out."""
MAX_NODES = 10_000
"""Steps of one page; a browser stays fluid with that many."""
_TEXT_LIMITS = (20_000, 4_000, 1_000, 240, 60)  # characters per text, tried in turn
_MAX_READ = 100_000  # characters that are read of a text at all
_MAX_FACT = 300


@dataclass(frozen=True)
class _Texts:
    """What a step's texts hold, cleaned and cut to the longest limit; `*_cut` count the rest."""

    thought: str
    calls: tuple[Call, ...]
    more_calls: int
    action_cut: int
    seen: str
    seen_cut: int


_Read = Sequence[tuple[ViewerTree, Sequence[tuple[ViewerNode, _Texts]]]]


def page_data(trees: Sequence[ViewerTree], source: str) -> str:
    """Return the JSON of the trees, below MAX_DATA_BYTES where one step alone is.

    Args:
        trees: at least one; those that do not fit are left out and counted in the data.
        source: where a reader finds what was cut.
    """
    read = [(tree, [(node, _texts(node)) for node in tree.nodes[:MAX_NODES]]) for tree in trees]
    text = ""
    for number, limit, max_nodes in _sizes(len(trees), len(read[0][1])):
        text = _spelled(read[:number], limit, source, len(trees), max_nodes)
        if len(text) <= MAX_DATA_BYTES:
            break
    return text


def _sizes(number: int, num_nodes: int) -> Iterator[tuple[int, int, int]]:
    """Yield (trees, characters per text, steps) from the fullest page to the smallest."""
    yield from ((number, limit, MAX_NODES) for limit in _TEXT_LIMITS)
    while number > 1:
        number = max(1, number * 3 // 4)
        yield number, _TEXT_LIMITS[-1], MAX_NODES
    while num_nodes > 1:
        num_nodes = max(1, num_nodes * 3 // 4)
        yield 1, _TEXT_LIMITS[-1], num_nodes


def script_json(value: Any) -> str:
    """Return JSON that is safe inside a script element of type application/json."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _texts(node: ViewerNode) -> _Texts:
    longest = _TEXT_LIMITS[0]
    action = read_action(clean_text(node.action[:_MAX_READ]))
    cut = max(0, len(node.action) - _MAX_READ)
    thought, more = clip(action.thought, longest)
    calls = action.calls[:MAX_CALLS]
    cut += more + sum(clip(call.arguments, longest)[1] for call in calls)
    seen, more_seen = clip(clean_text(node.observation[:_MAX_READ]), longest)
    return _Texts(
        thought=thought,
        calls=tuple(Call(call.name, clip(call.arguments, longest)[0]) for call in calls),
        more_calls=len(action.calls) - len(calls),
        action_cut=cut,
        seen=seen,
        seen_cut=max(0, len(node.observation) - _MAX_READ) + more_seen,
    )


def _spelled(read: _Read, limit: int, source: str, total: int, max_nodes: int) -> str:
    credits = [abs(n.credit) for _, nodes in read for n, _ in nodes if n.credit is not None]
    left = max_nodes
    rows: list[dict[str, Any]] = []
    for tree, nodes in read:
        kept = nodes[: max(left, 1)]  # parents come first: what is kept is a tree
        left -= len(kept)
        rows.append(_tree(tree, kept, limit))
    return script_json(
        {
            "scale": round(max(credits, default=0.0), 9),
            "source": source,
            "left_out": total - len(read),
            "trees": rows,
        }
    )


def _tree(
    tree: ViewerTree, nodes: Sequence[tuple[ViewerNode, _Texts]], limit: int
) -> dict[str, Any]:
    number = {node.id: i for i, (node, _) in enumerate(nodes)}
    facts = [
        [clean_word(name), clip(clean_text(value), _MAX_FACT)[0]] for name, value in tree.facts
    ]
    return {
        "title": clip(clean_text(tree.title), _MAX_FACT)[0],
        "facts": facts,
        "left_out": len(tree.nodes) - len(nodes),
        "nodes": [_node(node, texts, number, limit) for node, texts in nodes],
    }


def _node(node: ViewerNode, texts: _Texts, number: dict[str, int], limit: int) -> dict[str, Any]:
    """Return the fields of a step; what is empty, zero or false is left out of its texts."""
    thought, more_thought = clip(texts.thought, limit)
    seen, more_seen = clip(texts.seen, limit)
    clipped = [(call.name, *clip(call.arguments, limit)) for call in texts.calls]
    fields: dict[str, Any] = {
        "thought": thought,
        "calls": [[name, arguments] for name, arguments, _ in clipped],
        "more_calls": texts.more_calls,
        "action_cut": texts.action_cut + more_thought + sum(more for *_, more in clipped),
        "seen": seen,
        "seen_cut": texts.seen_cut + more_seen,
        "seen_part": not node.is_observation_whole,
        "parts": [[clean_word(k), clean_word(v)] for k, v in node.reward_parts.items()],
        "outcome": node.outcome,
        "reason": clean_word((node.end_reason or "").replace("_", " ")),
        "failure": clip(clean_text(node.failure or ""), _MAX_FACT)[0],
        "state": clean_word(node.state_hash),
    }
    numbers = {
        "reward": node.reward,
        "credit": node.credit,
        "value": node.value,
        "tokens": node.tokens,
        "tool_calls": node.tool_calls,
        "seconds": node.seconds,
        "weights": node.weight_version,
    }
    parent = -1 if node.parent is None else number[node.parent]
    place = {"id": clean_word(node.id), "parent": parent, "step": node.step}
    said = {name: value for name, value in fields.items() if value}
    known = {name: value for name, value in numbers.items() if value is not None}
    return place | said | {n: round(v, 9) if isinstance(v, float) else v for n, v in known.items()}
