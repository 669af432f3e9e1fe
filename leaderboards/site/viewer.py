"""The viewer: one self-contained page that shows trees of steps, and pages of episodes.

A page needs no network: it is one file that can be opened, mailed or served. Its data stands
in it as JSON, its script writes text only as text. A content policy in the page forbids every
load and allows only the page's own style and script, by digest; a server that sends a policy
of its own takes `content_policy(page)`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from treegrpo.envs.recorder import Event
from treegrpo.leaderboards.board import RunDetail
from treegrpo.leaderboards.schema import EpisodeRecord, Manifest
from treegrpo.leaderboards.site.data import run_name
from treegrpo.leaderboards.site.viewer_chart import Chart
from treegrpo.leaderboards.site.viewer_data import page_data
from treegrpo.leaderboards.site.viewer_events import episode_tree
from treegrpo.leaderboards.site.viewer_model import Link, ViewerTree
from treegrpo.leaderboards.site.viewer_text import clean_text

_SCRIPTS = (
    "viewer_layout.js",
    "viewer_draw.js",
    "viewer_hands.js",
    "viewer_detail.js",
    "viewer.js",
)
_STATIC = Path(__file__).parent / "static"

EventsOf = Callable[[EpisodeRecord], Sequence[Event]]
"""Returns an episode's action log, as `Bundle.events` does."""


@dataclass(frozen=True)
class ViewerPage:
    """What a page says around its trees."""

    title: str
    trees: tuple[ViewerTree, ...]
    """At least one."""
    source: str
    """Where a reader finds what had to be cut, such as "trees.jsonl"."""
    headline: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    charts: tuple[Chart, ...] = ()
    links: tuple[Link, ...] = ()
    """Ways to other pages; the first leads upwards."""


def render_viewer(page: ViewerPage) -> str:
    """Return the page of one or more trees."""
    facts = [(clean_text(name), clean_text(value)) for name, value in page.facts]
    return render_page(
        "viewer.html.j2",
        scripts=_SCRIPTS,
        title=clean_text(page.title),
        headline=clean_text(page.headline),
        facts=facts,
        charts=page.charts,
        links=page.links,
        has_credit=any(n.credit is not None for tree in page.trees for n in tree.nodes),
        data=Markup(page_data(page.trees, page.source)),
    )


def render_episode(
    events: Sequence[Event],
    *,
    manifest: Manifest,
    episode: EpisodeRecord,
    links: Sequence[Link] = (),
) -> str:
    """Return the page of one episode of a bundle; `events` is its action log."""
    tree = episode_tree(events, manifest, episode)
    return render_viewer(
        ViewerPage(
            title=f"{manifest.agent.name} on {manifest.env_id}",
            trees=(tree,),
            source="the bundle's action log",
            links=tuple(links),
        )
    )


def episode_file(digest: str, episode: EpisodeRecord) -> str:
    """Return the name of an episode's page: RUN-INDEX-TRIAL.html, RUN as `run_name` has it."""
    return f"{run_name(digest)}-{episode.index}-{episode.trial}.html"


def write_episodes(
    detail: RunDetail, events_of: EventsOf, out: Path, *, links: Sequence[Link] = ()
) -> list[Path]:
    """Return the pages of a run's episodes, written to `out`/episodes; none for a mere claim.

    Args:
        detail: the run.
        events_of: returns an episode's action log.
        out: the site's folder.
        links: ways to other pages, relative to `out`/episodes.

    Raises:
        BundleError: a log that is not as the run records it.
        OSError: no space, no permission.
    """
    if detail.manifest is None:
        return []
    return write_episode_pages(detail.manifest, detail.episodes, events_of, out, links=links)


def write_episode_pages(
    manifest: Manifest,
    episodes: Sequence[EpisodeRecord],
    events_of: EventsOf,
    out: Path,
    *,
    links: Sequence[Link] = (),
) -> list[Path]:
    """Return the pages of the episodes of a bundle, written to `out`/episodes."""
    folder = out / "episodes"
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for episode in episodes:
        path = folder / episode_file(manifest.digest, episode)
        text = render_episode(events_of(episode), manifest=manifest, episode=episode, links=links)
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return paths


def render_page(template: str, *, scripts: Sequence[str] = (), **values: Any) -> str:
    """Return a page from one of the viewer's templates, with its style, scripts and policy."""
    script = "".join((_STATIC / name).read_text(encoding="utf-8") for name in scripts)
    style = (_STATIC / "viewer.css").read_text(encoding="utf-8")
    # Both blocks are the project's own files and hold no data: beside the data, which is
    # escaped as JSON, they are the only text that the template does not escape.
    blocks = {"style": Markup(style), "script": Markup(script)}
    policy = _policy(style, script)
    return _templates().get_template(template).render(**values, **blocks, policy=policy)


def content_policy(page: str) -> str:
    """Return the Content-Security-Policy that a page of the viewer states itself."""
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert found is not None  # every template has one
    return found[1].replace("&#39;", "'")


def _policy(style: str, script: str) -> str:
    run = f"script-src {_source_digest(script)}" if script else "script-src 'none'"
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; "
        f"style-src {_source_digest(style)}; {run}"
    )


def _source_digest(text: str) -> str:
    """Return the text's digest as a content policy names it."""
    found = base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest())
    return f"'sha256-{found.decode('ascii')}'"


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("treegrpo.leaderboards.site"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
