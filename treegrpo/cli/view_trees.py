"""Rollout trees of a training run as the viewer's trees: one for each question of a step.

The trees of a question begin at the same prompt and their leaves are compared with one another,
so they are drawn as one tree. A tree that begins elsewhere (a start state) keeps a node of its
own for its beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean

from treegrpo.leaderboards.site.viewer_model import Outcome, ViewerNode, ViewerTree
from treegrpo.tree import Node, Tree

START = "start"
"""Id of the node that holds the prompt; other nodes are TREE.NODE, as in trees.jsonl."""


def by_question(trees: Iterable[Tree]) -> list[list[Tree]]:
    """Return the trees that belong together, in the order in which they stand."""
    grouped: dict[tuple[int, str], list[Tree]] = {}
    for tree in trees:
        if tree.nodes:
            grouped.setdefault((tree.step, tree.question_id), []).append(tree)
    return list(grouped.values())


def question_tree(trees: Sequence[Tree], success_reward: float = 1.0) -> ViewerTree:
    """Return the trees of one question as one; parents stand before their children.

    Args:
        trees: at least one, each with its root.
        success_reward: episode reward from which on a leaf is correct.
    """
    first = trees[0].nodes[0]
    scored = [tree.episode_reward(leaf) for tree in trees for leaf in tree.scored_leaves()]
    start = ViewerNode(
        id=START,
        parent=None,
        step=0,
        observation=first.observation_text or trees[0].question,
        value=fmean(scored) if scored else None,
        state_hash=first.state_hash,
    )
    nodes = [start]
    for tree in trees:
        nodes += _nodes(tree, first, success_reward)
    outcomes = [node.outcome for node in nodes if node.outcome is not None]
    correct = outcomes.count("correct")
    title = trees[0].question or trees[0].question_id
    return ViewerTree(
        title=f"{title} ({correct} of {len(outcomes)} correct)",
        nodes=tuple(nodes),
        facts=tuple(_facts(trees, scored, f"{correct} of {len(outcomes)}")),
    )


def _nodes(tree: Tree, first: Node, success_reward: float) -> Iterator[ViewerNode]:
    rewards, values = _rewards(tree)
    root = tree.nodes[0]
    is_shared = (root.observation_text, tree.start) == (first.observation_text, "reset")
    hangs_on = START if is_shared else f"{tree.tree_id}.0"
    if not is_shared:
        yield ViewerNode(
            id=hangs_on,
            parent=START,
            step=0,
            action=f"{tree.start}: {tree.start_turns} turns were taken before this tree begins",
            observation=root.observation_text,
            value=values[0],
            state_hash=root.state_hash,
        )
    for node in tree.nodes[1:]:
        outcome = None if node.children else _outcome(node, rewards[node.id], success_reward)
        yield ViewerNode(
            id=f"{tree.tree_id}.{node.id}",
            parent=f"{tree.tree_id}.{node.parent}" if node.parent else hangs_on,
            step=node.depth,
            action=node.action_text,
            observation=node.observation_text,
            reward=node.reward,
            credit=node.advantage,
            value=values[node.id],
            outcome=outcome,
            end_reason=node.end_reason,
            failure=node.failure,
            tokens=len(node.action_ids),
            tool_calls=node.tool_calls,
            weight_version=node.weight_version,
            state_hash=node.state_hash,
        )


def _rewards(tree: Tree) -> tuple[list[float], list[float | None]]:
    """Return, by node, the reward up to it and the mean episode reward of the leaves below."""
    rewards: list[float] = []
    for node in tree.nodes:
        above = 0.0 if node.parent is None else rewards[node.parent]
        rewards.append(above + node.reward)
    sums, counts = [0.0] * len(rewards), [0] * len(rewards)
    for node in reversed(tree.nodes):
        if not node.children and node.parent is not None and node.has_outcome:
            sums[node.id], counts[node.id] = rewards[node.id], 1
        if node.parent is not None:
            sums[node.parent] += sums[node.id]
            counts[node.parent] += counts[node.id]
    pairs = zip(sums, counts, strict=True)
    return rewards, [total / count if count else None for total, count in pairs]


def _outcome(leaf: Node, episode_reward: float, success_reward: float) -> Outcome:
    if leaf.failure is not None:
        return "failed"
    if episode_reward >= success_reward - 1e-9:
        return "correct"
    # A leaf that neither ended nor was cut ran into the run's own token budget.
    return "wrong" if leaf.terminated and not leaf.truncated else "truncated"


def _facts(
    trees: Sequence[Tree], scored: Sequence[float], correct: str
) -> Iterator[tuple[str, str]]:
    yield "training step", str(trees[0].step + 1)
    yield "difficulty", str(trees[0].difficulty)
    yield "trees", str(len(trees))
    yield "correct", correct
    if scored:
        yield "mean reward", f"{fmean(scored):.2f}"
        alike = len({round(reward, 9) for reward in scored}) == 1
        yield "rewards", "all alike: nothing to compare" if alike else "mixed"
    yield "sampled tokens", f"{sum(tree.sampled_tokens for tree in trees):,}"
