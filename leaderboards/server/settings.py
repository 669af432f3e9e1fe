"""The settings of a leaderboard's server."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from treegrpo.leaderboards.guarded import Limits


class ServerSettings(BaseModel):
    """What a server is started with; nothing is read from anywhere else."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    store: str = "sqlite:///leaderboard.sqlite"
    """URL of the results database."""
    objects: Path | None = None
    """Folder of the content-addressed files; by default beside the SQLite file."""
    inbox: Path = Path("leaderboard-inbox")
    """Folder of submissions that wait for verification."""
    workers: int = Field(default=1, ge=0, le=64)
    """Processes that verify submissions; 0 leaves the queue to another server."""
    max_archive_bytes: int = Field(default=256 * 2**20, ge=1)
    """The largest submission."""
    max_waiting: int = Field(default=1_000, ge=1)
    """Submissions that may wait in all; more are told to come again later."""
    max_waiting_per_owner: int = Field(default=50, ge=1)
    """The same for one token."""
    reads_per_minute: float = Field(default=1_200, gt=0)
    """Requests that one address may make; a tenth of them at once."""
    writes_per_minute: float = Field(default=60, gt=0)
    """Submissions, registrations and removals that one token may make."""
    failures_per_minute: float = Field(default=20, gt=0)
    """Requests with a wrong token that one address may make."""
    step_seconds: float = Field(default=60, gt=0)
    """What one replayed step may take."""
    episode_seconds: float = Field(default=600, gt=0)
    """What one replayed episode may take."""
    submission_seconds: float = Field(default=3_600, gt=0)
    """What one submission may take in all; past it its verifier ends, which counts as dying."""
    environments: tuple[str, ...] = ()
    """Ids of environments that are accepted; empty: every one that is registered here."""

    @property
    def limits(self) -> Limits:
        """The limits of a replay."""
        return Limits(self.step_seconds, self.episode_seconds)
