"""Evaluate an agent on every member of a suite: a bundle each, and one score over them.

    OUT/treegrpo-SearchQA-v1/            one bundle per entry, named by it
    OUT/treegrpo-Service-v0-domain-airline/

After a kill the same call goes on: finished bundles are kept if they are of this very
evaluation, and an unfinished one goes on where it stopped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Unpack

from treegrpo.envs.errors import TreegrpoError
from treegrpo.envs.suites import Suite, SuiteEntry
from treegrpo.leaderboards.agents.base import Agent
from treegrpo.leaderboards.bundle import Bundle, read_bundle
from treegrpo.leaderboards.errors import BundleError
from treegrpo.leaderboards.evaluate import Extent, Progress, Watch, asked, check_counts, evaluate
from treegrpo.leaderboards.head import Terms
from treegrpo.leaderboards.schema import SuiteRef
from treegrpo.leaderboards.staging import differing
from treegrpo.leaderboards.stats import UNIT
from treegrpo.leaderboards.stats.suite_score import SuiteScore, suite_score
from treegrpo.leaderboards.summary import EvaluationSummary, success_by_task, summarise

Begin = Callable[[str], None]
"""Called with an entry's name before its episodes are played."""


@dataclass(frozen=True)
class SuiteSummary:
    """The score of an agent over a suite (null 0, oracle 1), and each entry's own summary."""

    suite: str
    score: SuiteScore
    entries: dict[str, EvaluationSummary]


def evaluate_suite(
    agent: Agent,
    suite: Suite,
    *,
    out: str | Path,
    terms: Terms | None = None,
    begin: Begin | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
    **extent: Unpack[Extent],
) -> SuiteSummary:
    """Return the score of `agent` over `suite`, and leave one bundle per entry below `out`.

    Each entry is played with its own options on its own split; all are checked before the first
    one is. The success rates that count as 0 and as 1 are those that the suite states. The
    arguments are those of `evaluate`; `begin` is called before each entry.

    Raises:
        TreegrpoError: as for `evaluate`; or `out` holds a bundle of another evaluation.
    """
    ours = replace(terms or Terms(), suite=SuiteRef(name=suite.name, digest=suite.digest))
    found = _kept(agent, suite, Path(out), ours, extent)
    _make(Path(out))
    for entry in suite.entries:
        if begin is not None:
            begin(entry.name)
        if entry.name in found:
            _tell(found[entry.name], progress, watch)
            continue
        place = place_of(Path(out), entry)
        evaluate(
            agent, entry.env, split=entry.split, env_kwargs=entry.options, out=place, terms=ours,
            progress=progress, watch=watch, **extent,
        )  # fmt: skip
        found[entry.name] = read_bundle(place)
    return summarise_suite(suite, found)


def summarise_suite(suite: Suite, bundles: Mapping[str, Bundle]) -> SuiteSummary:
    """Return the score over the bundles of all entries, by entry name.

    Raises:
        TreegrpoError: an entry without a bundle, or a bundle without an entry.
    """
    score = suite_score(
        {name: success_by_task(bundle) for name, bundle in bundles.items()},
        weights={entry.name: entry.weight for entry in suite.entries},
        nulls={entry.name: entry.null_success for entry in suite.entries},
        oracles={entry.name: entry.oracle_success for entry in suite.entries},
        bounds=UNIT,
    )
    return SuiteSummary(suite.name, score, {n: summarise(b) for n, b in bundles.items()})


def place_of(out: Path, entry: SuiteEntry) -> Path:
    """Return the folder of an entry's bundle."""
    return out / re.sub(r"[^A-Za-z0-9.]+", "-", entry.name)


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BundleError(
            f"Bundles below '{out}' asked for, but it cannot be written: {error.strerror}. "
            "Give another path."
        ) from error


def _kept(agent: Agent, suite: Suite, out: Path, terms: Terms, extent: Extent) -> dict[str, Bundle]:
    """Return the bundles of this very evaluation that an earlier call has left.

    Raises:
        TreegrpoError: an entry that cannot be evaluated so, or a bundle of another evaluation.
    """
    check_counts(num_tasks=extent["num_tasks"], trials=extent["trials"])
    first = extent.get("first_index", 0)
    indices = range(first, first + extent["num_tasks"])
    found: dict[str, Bundle] = {}
    for entry in suite.entries:
        _, head = asked(
            agent, entry.env, entry.options, entry.split, indices, extent["trials"],
            extent["seed"], terms,
        )  # fmt: skip
        place = place_of(out, entry)
        if not place.exists():
            continue
        found[entry.name] = read_bundle(place)
        manifest = found[entry.name].manifest
        there = manifest.model_dump(mode="json", exclude={"tasks", "root", "digest"})
        fields = differing(there, head)
        if fields:
            raise TreegrpoError(
                f"An evaluation of a suite asked for, but '{place}' holds a bundle of another "
                f"one: its {', '.join(fields)} differ. Give another --out, or move it away."
            )
    return found


def _tell(bundle: Bundle, progress: Progress | None, watch: Watch | None) -> None:
    for episode in bundle.episodes if watch is not None else ():
        assert watch is not None
        watch(episode)
    if progress is not None:
        progress(len(bundle.episodes), len(bundle.episodes))
