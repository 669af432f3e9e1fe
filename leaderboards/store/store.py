"""The results database as one object: what goes in, what is read, what is checked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

from treegrpo.envs.recorder import Event
from treegrpo.leaderboards.board import (
    Board,
    BoardKey,
    EnvironmentDetail,
    LedgerEntry,
    RunDetail,
    VerificationEntry,
)
from treegrpo.leaderboards.claimed import ClaimedResult
from treegrpo.leaderboards.store import (
    boards,
    checks,
    claims,
    ledger,
    merge,
    migrations,
    registration,
    restore,
    submissions,
)
from treegrpo.leaderboards.store.database import Database, checked_url
from treegrpo.leaderboards.store.ledger import Checkpoint
from treegrpo.leaderboards.store.registration import Registration, RegistrationRequest
from treegrpo.leaderboards.verify import Options

LOCAL = "local"
"""Who does something on the machine of the store itself."""


class Store(Database):
    """An open store; each method says more in the module that it calls."""

    def add(self, path: Path, *, who: str = LOCAL, options: Options | None = None) -> str:
        """Replay a bundle and return its digest; it is in the store from now on."""
        return submissions.add(self, path, who=who, options=options)

    def claim(self, result: ClaimedResult, *, who: str = LOCAL) -> str:
        """Return the digest of a result that was only claimed; it is in the store from now on."""
        return claims.claim(self, result, who=who)

    def rescore(
        self, digest: str, *, who: str = LOCAL, options: Options | None = None
    ) -> VerificationEntry:
        """Replay a run again with the present version and return what was found."""
        return submissions.rescore(self, digest, who=who, options=options)

    def remove(self, digest: str, *, reason: str, who: str = LOCAL) -> str:
        """Take a run off its board and return its digest; it stays in the ledger."""
        return submissions.remove(self, digest, who=who, reason=reason)

    def get(self, digest: str, out: Path) -> Path:
        """Write the bundle of a run as the folder that it was."""
        with self.reading() as session:
            run = boards.find_run(session, digest)
            kept = restore.kept_bundle(session, self.objects, run.digest)
        return restore.write_back(kept, out)

    def register(self, request: RegistrationRequest, *, who: str = LOCAL) -> Registration:
        """Return the registration of a run to come; it is in the ledger from now on."""
        return registration.register(self, request, who=who)

    def new_epoch(self, salt: str = "random", *, who: str = LOCAL) -> str:
        """Begin an epoch and return its salt, from which the seeds of new registrations come."""
        return registration.new_epoch(self, salt, who=who)

    def boards(self) -> list[BoardKey]:
        """Return every board."""
        return boards.boards(self)

    def board(self, board_id: str) -> Board:
        """Return the rows of one board."""
        return boards.board(self, board_id)

    def run_detail(self, digest: str) -> RunDetail:
        """Return everything that is known of a run, removed ones included."""
        return boards.run_detail(self, digest)

    def environment_detail(
        self, env_id: str, env_kwargs: Mapping[str, Any], split: str
    ) -> EnvironmentDetail:
        """Return what all boards of an environment say of it."""
        return boards.environment_detail(self, env_id, env_kwargs, split)

    def episode_events(self, digest: str, index: int, trial: int) -> list[Event]:
        """Return the action log of one episode."""
        return boards.episode_events(self, digest, index, trial)

    def episode_logs(self, digest: str) -> Callable[[int, int], list[Event]]:
        """Return what gives the action log of each episode (index, trial) of one run."""
        return boards.episode_logs(self, digest)

    def ledger(self) -> list[LedgerEntry]:
        """Return every entry of the ledger, then those of merged stores."""
        with self.reading() as session:
            return ledger.entries(session)

    def check_ledger(self, since: Checkpoint | None = None) -> list[Checkpoint]:
        """Return how far each ledger has come, after recomputing all; the own one first."""
        return checks.check_ledger(self, since)

    def merge(self, other: Store, *, who: str = LOCAL) -> int:
        """Take over what another store has and return how many runs were new."""
        return merge.merge(self, other, who=who)


@contextlib.contextmanager
def open_store(url: str, *, create: bool = False, objects: Path | None = None) -> Generator[Store]:
    """Yield the store at a URL.

    Args:
        url: of SQLAlchemy: sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME.
        create: make the database where there is none, and bring older tables up to date.
        objects: folder of the files; by default "objects" beside the SQLite file.

    Raises:
        StoreError: it cannot be opened, or is of another version.
    """
    store = Store(checked_url(url, create=create), objects)
    try:
        if create:
            store.prepare()
            migrations.migrate(store)
        else:
            migrations.check_version(store)
        yield store
    finally:
        store.close()
