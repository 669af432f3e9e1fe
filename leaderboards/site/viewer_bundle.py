"""The page of a bundle's episodes: one line each, with a way to the episode."""

from __future__ import annotations

from collections.abc import Sequence

from treegrpo.leaderboards.schema import EpisodeRecord, Manifest
from treegrpo.leaderboards.site.viewer import episode_file, render_page
from treegrpo.leaderboards.site.viewer_events import episode_outcome
from treegrpo.leaderboards.site.viewer_text import clean_text


def render_bundle(manifest: Manifest, episodes: Sequence[EpisodeRecord]) -> str:
    """Return the page; its links lead to `episodes/`, where write_episodes writes."""
    correct = sum(episode_outcome(episode) == "correct" for episode in episodes)
    facts = [
        ("split", manifest.split),
        ("success", f"{correct} of {len(episodes)} episodes"),
        ("tasks x trials", f"{manifest.num_tasks} x {manifest.trials}"),
        ("seed", str(manifest.seed)),
        ("made", manifest.created),
        ("bundle", manifest.digest[:12]),
    ]
    return render_page(
        "viewer_bundle.html.j2",
        title=clean_text(f"{manifest.agent.name} on {manifest.env_id}"),
        facts=[(name, clean_text(value)) for name, value in facts],
        rows=[_row(manifest, episode) for episode in episodes],
    )


def _row(manifest: Manifest, episode: EpisodeRecord) -> dict[str, object]:
    output = episode.tokens.output
    ending = episode.end_reason or f"failed: {episode.failure}"
    return {
        "page": f"episodes/{episode_file(manifest.digest, episode)}",
        "index": episode.index,
        "trial": episode.trial,
        "task": clean_text(episode.task_id or "-"),
        "outcome": episode_outcome(episode),
        "reward": f"{float(episode.reward):.4g}",
        "turns": episode.turns,
        "tool_calls": episode.tool_calls,
        "tokens": "-" if output is None else f"{output:,}",
        "ending": clean_text(ending).replace("_", " "),
    }
