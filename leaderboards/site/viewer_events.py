"""An episode's action log as a tree that the viewer shows: the start, then step after step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from treegrpo.envs.recorder import MAX_OBSERVATION_CHARS, Event, StepEvent
from treegrpo.leaderboards.schema import EpisodeRecord, Manifest
from treegrpo.leaderboards.site.viewer_model import Outcome, ViewerNode, ViewerTree


def episode_tree(events: Sequence[Event], manifest: Manifest, episode: EpisodeRecord) -> ViewerTree:
    """Return the episode as a tree of one branch; nodes are numbered like the log's events.

    What only the episode as a whole counts (tokens, dollars, seconds) stands in its facts.
    An episode whose reset failed has a start and nothing else.
    """
    return ViewerTree(
        title=f"Task {episode.index}, trial {episode.trial}",
        nodes=tuple(_nodes(events, episode)),
        facts=tuple((name, value) for name, value in _facts(manifest, episode) if value),
    )


def episode_outcome(episode: EpisodeRecord) -> Outcome:
    """Return how the episode ended."""
    if episode.failure is not None:
        return "failed"
    if episode.success:
        return "correct"
    return "wrong"


def _nodes(events: Sequence[Event], episode: EpisodeRecord) -> Iterator[ViewerNode]:
    if not events:
        yield _ended(ViewerNode("0", None, 0), None, episode)
    for number, event in enumerate(events):
        node = ViewerNode(
            id=str(number),
            parent=str(number - 1) if number else None,
            step=number,
            action=event.action if isinstance(event, StepEvent) else "",
            observation=event.observation,
            is_observation_whole=len(event.observation) < MAX_OBSERVATION_CHARS,
            reward=float(event.reward) if isinstance(event, StepEvent) else None,
            state_hash=event.state_hash,
        )
        is_last = number == len(events) - 1
        yield _ended(node, event, episode) if is_last else node


def _ended(node: ViewerNode, event: Event | None, episode: EpisodeRecord) -> ViewerNode:
    outcome = episode_outcome(episode)
    if outcome == "wrong" and isinstance(event, StepEvent) and event.truncated:
        outcome = "truncated"
    failure = None
    if episode.failure is not None:
        failure = f"{episode.failure}: {episode.failure_detail or 'no detail'}"
    return ViewerNode(
        id=node.id,
        parent=node.parent,
        step=node.step,
        action=node.action,
        observation=node.observation,
        is_observation_whole=node.is_observation_whole,
        reward=node.reward,
        reward_parts=episode.reward_components,
        outcome=outcome,
        end_reason=episode.end_reason,
        failure=failure,
        state_hash=node.state_hash,
    )


def _facts(manifest: Manifest, episode: EpisodeRecord) -> Iterator[tuple[str, str]]:
    yield "task", episode.task_id or ""
    yield "split", manifest.split
    yield "difficulty", _counted(episode.difficulty)
    yield "reward", episode.reward
    yield "turns", _counted(episode.turns)
    yield "tool calls", _counted(episode.tool_calls)
    yield "input tokens", _counted(episode.tokens.input)
    yield "sampled tokens", _counted(episode.tokens.output)
    yield "dollars", episode.dollars or ""
    if episode.search is not None:
        yield "branches searched", _counted(episode.search.branches)
        yield "turns in forks", _counted(episode.search.turns)
    yield "seconds", f"{float(episode.wall_seconds):.2f}"
    yield "seed", str(episode.seed)
    yield "log", (episode.chain or "")[:12]


def _counted(number: int | None) -> str:
    return "" if number is None else f"{number:,}"
