"""Trees as a page shows them: questions, rows of cards, credit as a tint; no markup here.

A tree is laid out as a stream of pieces, so that neither this code nor the template recurses:
a hostile tree of a thousand levels is drawn like any other.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from treegrpo.tree import Node, Tree
from treegrpo.view.text import Call, clean_text, clip, read_action

TINTS = 10
"""Shades on each side of zero; the page's style knows classes p1..p10, n1..n10, z and u."""

_MAX_STRIP = 32  # more leaves than this are counted in the list, not drawn one by one
_COMPACT_FROM = 13  # leaves in one tree from which on its cards start small
_DEEP_FROM = 7  # steps from which on a tree runs downwards instead of to the right
_MAX_CALLS, _MAX_WORD = 8, 64  # calls drawn per action; characters of a name or reason

Outcome = Literal["correct", "wrong", "truncated", "failed"]
PieceKind = Literal["run", "card", "fork", "branch", "end_branch", "end_fork", "end_run"]


@dataclass(frozen=True)
class Look:
    """What all cards of a page have in common.

    `scale` is the |credit| of full tint, `success_reward` the episode reward from which a leaf
    is correct, `max_chars` the longest text that a card holds.
    """

    scale: float
    success_reward: float
    max_chars: int


@dataclass(frozen=True)
class Card:
    """One node, ready to be printed; `tint` is the class of its credit."""

    id: int
    step: int
    thought: str
    calls: tuple[Call, ...]
    observation: str
    left_out: int
    tokens: int
    credit: str
    credit_exact: str
    tint: str
    outcome: Outcome | None
    reward: str
    reason: str
    failure: str
    value: str
    leaves: int
    branches: int
    weight_version: int
    state: str


@dataclass(frozen=True)
class Piece:
    """One element of the layout stream; only a card carries anything."""

    kind: PieceKind
    card: Card | None = None


@dataclass(frozen=True)
class TreeView:
    """One tree: its layout stream and what its caption says."""

    number: int
    pieces: tuple[Piece, ...]
    outcomes: tuple[Outcome, ...]
    mean_reward: float | None
    tokens: int
    is_compact: bool
    is_deep: bool


@dataclass(frozen=True)
class QuestionView:
    """One question with all its trees."""

    text: str
    step: int
    difficulty: int
    prompt: str
    prompt_left_out: int
    trees: tuple[TreeView, ...]
    outcomes: tuple[Outcome, ...]
    mean_reward: float | None
    is_mixed: bool
    has_strip: bool


def credit_scale(trees: Iterable[Tree]) -> float:
    """Return the largest |credit| of the trees, 0 without any; the credit of full tint."""
    found = (abs(n.advantage) for t in trees for n in t.nodes if n.advantage is not None)
    return max(found, default=0.0)


def tint(credit: float | None, scale: float) -> str:
    """Return the class of a credit: p1..p10 above zero, n1..n10 below, z at zero, u for none."""
    if credit is None:
        return "u"
    if credit == 0 or scale == 0:
        return "z"
    level = math.ceil(TINTS * abs(credit) / scale - 1e-9)
    return f"{'p' if credit > 0 else 'n'}{min(max(level, 1), TINTS)}"


def signed(value: float) -> str:
    """Return the number with two decimals, a sign and a true minus."""
    return f"{value:+.2f}".replace("-", "\u2212") if round(value, 2) else "0.00"


def build_question(trees: Sequence[Tree], look: Look) -> QuestionView:
    """Return the view of one question; its outcome is mixed if its leaves' rewards differ."""
    first = trees[0]
    views = tuple(_build_tree(tree, look) for tree in trees)
    rewards = [
        round(tree.episode_reward(leaf), 9) for tree in trees for leaf in tree.scored_leaves()
    ]
    outcomes: tuple[Outcome, ...] = tuple(outcome for view in views for outcome in view.outcomes)
    prompt, left_out = clip(clean_text(first.nodes[0].observation_text), look.max_chars)
    return QuestionView(
        text=clip(clean_text(first.question or first.question_id), look.max_chars)[0],
        step=first.step,
        difficulty=first.difficulty,
        prompt=prompt,
        prompt_left_out=left_out,
        trees=views,
        outcomes=outcomes,
        mean_reward=fmean(rewards) if rewards else None,
        is_mixed=len(set(rewards)) > 1,
        has_strip=len(outcomes) <= _MAX_STRIP,
    )


def _build_tree(tree: Tree, look: Look) -> TreeView:
    leaf_counts = tree.leaf_counts()
    pieces = tuple(
        Piece(kind, None if node is None else _card(tree, node, leaf_counts[node.id], look))
        for kind, node in _stream(tree)
    )
    outcomes: tuple[Outcome, ...] = tuple(
        p.card.outcome for p in pieces if p.card is not None and p.card.outcome
    )
    return TreeView(
        number=tree.tree_id,
        pieces=pieces,
        outcomes=outcomes,
        mean_reward=tree.value(0),
        tokens=tree.sampled_tokens,
        is_compact=len(outcomes) >= _COMPACT_FROM,
        is_deep=max(node.depth for node in tree.nodes) >= _DEEP_FROM,
    )


def _stream(tree: Tree) -> Iterator[tuple[PieceKind, Node | None]]:
    """Yield the layout: runs of cards without a fork, and at a fork one run per branch."""
    todo: list[tuple[PieceKind, Node | None]] = [("run", tree.nodes[0])]
    while todo:
        kind, node = todo.pop()
        yield kind, None
        if node is None:
            continue
        yield "card", node
        while len(node.children) == 1:
            node = tree.nodes[node.children[0]]
            yield "card", node
        todo.append(("end_run", None))
        if node.children:
            todo.append(("end_fork", None))
            for child in reversed(node.children):
                todo.append(("end_branch", None))
                todo.append(("run", tree.nodes[child]))
                todo.append(("branch", None))
            todo.append(("fork", None))


def _card(tree: Tree, node: Node, leaves: int, look: Look) -> Card:
    action = read_action(clean_text(node.action_text))
    calls = action.calls[:_MAX_CALLS]
    # The root's observation is the prompt, which is shown once per question.
    observation = "" if node.parent is None else clean_text(node.observation_text)
    texts = [action.thought, observation, *(call.arguments for call in calls)]
    is_leaf = node.parent is not None and not node.children
    value = tree.value(node.id)
    return Card(
        id=node.id,
        step=node.depth,
        thought=clip(action.thought, look.max_chars)[0],
        calls=tuple(
            Call(call.name[:_MAX_WORD], clip(call.arguments, look.max_chars)[0]) for call in calls
        ),
        observation=clip(observation, look.max_chars)[0],
        left_out=sum(clip(text, look.max_chars)[1] for text in texts),
        tokens=len(node.action_ids),
        credit="" if node.advantage is None else signed(node.advantage),
        credit_exact="none" if node.advantage is None else f"{node.advantage:+.6f}",
        tint=tint(node.advantage, look.scale),
        outcome=_outcome(node, tree.episode_reward(node.id), look) if is_leaf else None,
        reward=f"{tree.episode_reward(node.id):.4g}" if is_leaf else "",
        reason=clean_text(node.end_reason or "")[:_MAX_WORD].replace("_", " "),
        failure=node.failure or "",
        value="" if value is None else f"{value:.2f}",
        leaves=leaves,
        branches=len(node.children),
        weight_version=node.weight_version,
        state=clean_text(node.state_hash)[:8],
    )


def _outcome(leaf: Node, episode_reward: float, look: Look) -> Outcome:
    if leaf.failure is not None:
        return "failed"
    if episode_reward >= look.success_reward - 1e-9:
        return "correct"
    # A leaf that neither ended nor was cut ran into the run's own token budget.
    return "wrong" if leaf.terminated and not leaf.truncated else "truncated"
