"""Verification: every recorded action is played again, and everything must come out as recorded.

    record     sizes, spellings, hashes, completeness and seeds: as bundle.py reads it
    sources    the environment, its scorer and its limits are those of the manifest
    replay     fresh environments, the recorded actions; observation, reward, flags and state
               hash are compared after every step
    result     the replayed episode's reward, components, success, turns and tool calls are
               compared with its line in episodes.jsonl; failed episodes must score 0

What replay cannot prove: who chose the actions. Failures are declared too: an environment
that failed then need not fail now, and a failed episode scores 0 whoever says so (so where
rewards can be negative, a claimed failure can hide one). The environment's options come from
the bundle: one that names a file has that file read.
"""

from __future__ import annotations

import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.bundle import Bundle, read_bundle
from treegrpo.leaderboards.environment import probe
from treegrpo.leaderboards.errors import BundleError
from treegrpo.leaderboards.guarded import Limits, replay_guarded
from treegrpo.leaderboards.play import Setting
from treegrpo.leaderboards.replay import EpisodeOutcome, replay_episode
from treegrpo.leaderboards.schema import EpisodeRecord, Manifest
from treegrpo.leaderboards.signature import Signer, check_signature

Word = Literal["replayed", "recomputed", "declared"]

WORDS: Mapping[str, Word] = {
    "success": "replayed",
    "reward": "replayed",
    "turns": "replayed",
    "tool_calls": "replayed",
    "interval": "recomputed",
    "failures": "declared",
    "sampled_tokens": "declared",
    "dollars": "declared",
    "wall_seconds": "declared",
}
"""How far each headline number of a verified bundle can be trusted."""

_COSTS = ("turns", "tool_calls")

_FORGED_SHARE = 0.05
"""The share of forged episodes for which a sample's chance to find one is printed."""


@dataclass(frozen=True)
class Sample:
    """Which episodes were replayed: `size` of `total`, drawn with `seed` after the fact."""

    size: int
    total: int
    seed: int

    def detection(self, forged: float) -> float:
        """Return the least chance that a sample of this size finds a forger of this share."""
        return 1 - (1 - forged) ** self.size

    def __str__(self) -> str:
        """Return what the sample guarantees."""
        chance = self.detection(_FORGED_SHARE)
        return (
            f"{self.size} of {self.total} episodes were drawn with seed {self.seed}. Had a share f "
            f"been forged, one of them would be found with a chance of at least "
            f"1-(1-f)^{self.size}: {100 * chance:.1f} % for f = {100 * _FORGED_SHARE:.0f} %."
        )


@dataclass(frozen=True)
class VerifyReport:
    """What verification found, episode by episode.

    `changed` names what is not as the manifest says: env_digest, scorer_digest, budgets. By
    itself that is enough to refuse a bundle; `accept_changed` says that replay alone decides.
    `sample` is None after a full replay.
    """

    digest: str
    outcomes: tuple[EpisodeOutcome, ...]
    changed: tuple[str, ...] = ()
    accept_changed: bool = False
    sample: Sample | None = None
    signer: Signer | None = None
    searched: bool = False
    """Whether an episode counts work in forks: its costs are replayed in part only."""

    @property
    def verified(self) -> bool:
        """Whether all that was replayed came out as recorded, in the recorded environment."""
        return self.replays and (self.accept_changed or not self.changed)

    @property
    def replays(self) -> bool:
        """Whether every episode came out as recorded."""
        return all(outcome.outcome == "match" for outcome in self.outcomes)

    @property
    def first_difference(self) -> str | None:
        """The first difference with both values; None when there is none."""
        for outcome in self.outcomes:
            if outcome.outcome != "match":
                return str(outcome)
        if self.changed and not self.accept_changed:
            return (
                f"environment-mismatch: {', '.join(self.changed)} of the environment here differ "
                "from run.json, though every episode replays; to let replay alone decide, say "
                "--accept-changed"
            )
        return None

    @property
    def words(self) -> dict[str, Word]:
        """For each headline number: replayed, recomputed or declared.

        A replay that differs anywhere proves nothing, and a sample does not reach every
        number, so then all is declared.
        """
        proved = self.verified and self.sample is None
        unseen = _COSTS if self.searched else ()
        return {
            name: word if proved and name not in unseen else "declared"
            for name, word in WORDS.items()
        }

    def lines(self) -> list[str]:
        """Return the report as text, one finding a line."""
        counts = Counter(outcome.outcome for outcome in self.outcomes)
        lines = [f"{count} of {len(self.outcomes)} episodes: {o}" for o, count in counts.items()]
        if self.changed:
            lines.append(f"The environment has changed since: {', '.join(self.changed)}.")
        if self.sample is not None:
            lines.append(str(self.sample))
        if self.first_difference is not None:
            lines.append(f"First difference: {self.first_difference}")
        lines.append(f"Signed by {self.signer}." if self.signer else "Not signed.")
        return lines + [f"{name.replace('_', ' ')}: {word}" for name, word in self.words.items()]


@dataclass(frozen=True)
class Options:
    """How to verify; the default replays everything, in this process, without a limit.

    `trust_module` imports the module that the environment's id names ("module:id"), which runs
    code: only for bundles of people one trusts. `accept_changed` lets replay alone decide where
    the environment has changed. `sample` replays so many episodes only, drawn with
    `sample_seed` (by default one that no forger can know). `limits` replays in another process
    that is ended when it takes too long. `allowed_signers` is a file of known keys.
    """

    trust_module: bool = False
    accept_changed: bool = False
    sample: int | None = None
    sample_seed: int | None = None
    limits: Limits | None = None
    allowed_signers: Path | None = None

    def __post_init__(self) -> None:
        """Refuse a sample of nothing, and a seed without a sample."""
        if self.sample is not None and self.sample < 1:
            raise TreegrpoError(f"A sample of {self.sample} episodes asked for; give at least 1.")
        if self.sample is None and self.sample_seed is not None:
            raise TreegrpoError("A sample's seed was given without a sample; give its size, too.")


def verify(
    path: str | Path,
    options: Options | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Return what a replay of the bundle at `path` found.

    Args:
        path: folder of the bundle.
        options: how to verify.
        progress: called with (episodes replayed, episodes in all).

    Raises:
        BundleError: the bundle is damaged, incomplete or altered; names file, line and field.
        UnknownEnv: its environment is not installed here.
    """
    return verify_bundle(read_bundle(Path(path)), options, progress=progress)


def verify_bundle(
    bundle: Bundle,
    options: Options | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> VerifyReport:
    """Return what a replay of a bundle found; see `verify`."""
    options = options or Options()
    manifest = bundle.manifest
    if ":" in manifest.env_id and not options.trust_module:
        raise BundleError(
            f"Verifying '{bundle.path}' asked for, but its environment '{manifest.env_id}' would "
            "import a module, which runs code. If you trust that module, say --trust-module."
        )
    signer = check_signature(bundle.path, bundle.digest, options.allowed_signers)
    changed = _changed(manifest)
    chosen, sample = _drawn(bundle.episodes, options)
    outcomes: list[EpisodeOutcome] = []
    for outcome in _outcomes(bundle, chosen, options.limits, changed=bool(changed)):
        outcomes.append(outcome)
        if progress is not None:
            progress(len(outcomes), len(chosen))
    return VerifyReport(
        bundle.digest,
        tuple(outcomes),
        changed,
        options.accept_changed,
        sample,
        signer,
        searched=any(episode.search is not None for episode in bundle.episodes),
    )


def _changed(manifest: Manifest) -> tuple[str, ...]:
    """Return which facts of the environment here are not those of the manifest."""
    facts = probe(manifest.env_id, manifest.env_kwargs, manifest.split, [])
    names = ("env_digest", "scorer_digest", "budgets")
    return tuple(name for name in names if getattr(facts, name) != getattr(manifest, name))


def _drawn(
    episodes: Sequence[EpisodeRecord], options: Options
) -> tuple[Sequence[EpisodeRecord], Sample | None]:
    if options.sample is None or options.sample >= len(episodes):
        return episodes, None
    seed = secrets.randbits(63) if options.sample_seed is None else options.sample_seed
    lines = sorted(random.Random(seed).sample(range(len(episodes)), options.sample))
    return [episodes[line] for line in lines], Sample(len(lines), len(episodes), seed)


def _outcomes(
    bundle: Bundle, episodes: Sequence[EpisodeRecord], limits: Limits | None, *, changed: bool
) -> Iterator[EpisodeOutcome]:
    if limits is not None:
        yield from replay_guarded(bundle, episodes, limits, changed=changed)
        return
    manifest = bundle.manifest
    setting = Setting(
        manifest.env_id, manifest.env_kwargs, manifest.split, manifest.seed, manifest.env_digest
    )
    tasks = {task.index: task for task in manifest.tasks}
    for episode in episodes:
        events = bundle.events(episode)
        yield replay_episode(setting, tasks[episode.index], episode, events, changed=changed)
