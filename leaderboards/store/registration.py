"""Registrations: what will be run is said before its seeds are known.

A registration names agent, environment, options, split, sizes, track, training and limits. The
store adds a nonce and the newest epoch's public salt; the digest of all that is its id, and

    seed         = H("treegrpo registration seed", salt, id)
    first index  = H("treegrpo registration task", salt, id) mod (size - number of tasks + 1),
                   0 where the split is no endless one

so nobody can look for a lucky seed without leaving a registration per try, and each is counted.
The nonce is the store's: whoever keeps the store can still look for a lucky one.
"""

from __future__ import annotations

import re
import secrets
from datetime import datetime, timedelta
from typing import Any, Literal, cast

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError
from sqlalchemy.orm import Session

from treegrpo.envs.digest import digest, stable_seed
from treegrpo.envs.errors import TreegrpoError
from treegrpo.envs.snapshot import core_of
from treegrpo.envs.tasks import GeneratedTasks
from treegrpo.leaderboards.board import BoardKey
from treegrpo.leaderboards.environment import budgets_of, open_env, source_digest
from treegrpo.leaderboards.errors import StoreError, first_fault
from treegrpo.leaderboards.play import task_entry
from treegrpo.leaderboards.schema import (
    Budgets,
    Count,
    Digest,
    Manifest,
    Name,
    Positive,
    Track,
    Training,
)
from treegrpo.leaderboards.store.database import Database
from treegrpo.leaderboards.store.keys import FRESH, sealed_key, task_list_digest
from treegrpo.leaderboards.store.ledger import append, now
from treegrpo.leaderboards.store.tables import EpochTable, RegistrationTable

ENDLESS = 10_000
"""A generated split of so many tasks is endless: each registered run gets tasks of its own."""
WINDOW_DAYS = 7
"""Days from registration to submission."""
_SALT = re.compile(r"[0-9a-f]{32,64}")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class RegistrationRequest(_Strict):
    """What somebody is going to run."""

    agent: Name
    agent_digest: Name
    env_id: Name
    env_kwargs: dict[Name, JsonValue]
    split: Name
    num_tasks: Positive
    trials: Positive
    track: Track
    training: Training | None


class RegistrationManifest(RegistrationRequest):
    """A registration as it is hashed."""

    format: Literal["treegrpo-registration"] = "treegrpo-registration"
    format_version: Literal[1] = 1
    env_digest: Digest | None
    budgets: Budgets
    tasks: Name
    """BoardKey.tasks of the board on which its run will stand."""
    num_available: Count | None
    """Tasks of an endless split; null for a list that is the same for everybody."""
    window_days: Count
    epoch: str
    """The public salt."""
    nonce: str

    @property
    def id(self) -> str:
        """The registration's name."""
        return digest(self.model_dump(mode="json"))

    @property
    def seed(self) -> int:
        """The seed that its run must have."""
        return stable_seed("treegrpo registration seed", self.epoch, self.id)

    @property
    def first_index(self) -> int:
        """The index of the first task that its run must have."""
        if self.num_available is None:
            return 0
        drawn = stable_seed("treegrpo registration task", self.epoch, self.id)
        return drawn % (self.num_available - self.num_tasks + 1)

    @property
    def key(self) -> BoardKey:
        """The board on which its run will stand."""
        return sealed_key(
            env_id=self.env_id,
            env_kwargs=self.env_kwargs,
            split=self.split,
            track=self.track,
            tasks=self.tasks,
        )


class Registration(_Strict):
    """A registration in the ledger, and when; `expires` is the end of its window."""

    manifest: RegistrationManifest
    registered: str

    @property
    def expires(self) -> str:
        """The last second at which its run can be submitted."""
        begin = datetime.strptime(self.registered, "%Y-%m-%dT%H:%M:%S%z")
        end = begin + timedelta(days=self.manifest.window_days)
        return end.strftime("%Y-%m-%dT%H:%M:%SZ")


def request_like(manifest: Manifest, **changes: Any) -> RegistrationRequest:
    """Return the request to run again what a bundle's manifest says, with other sizes.

    Raises:
        StoreError: a size out of range.
    """
    fields = {
        "agent": manifest.agent.name,
        "agent_digest": manifest.agent.digest,
        "env_id": manifest.env_id,
        "env_kwargs": manifest.env_kwargs,
        "split": manifest.split,
        "num_tasks": manifest.num_tasks,
        "trials": manifest.trials,
        "track": manifest.track,
        "training": manifest.training,
    }
    try:
        return RegistrationRequest.model_validate(fields | changes)
    except ValidationError as error:
        raise StoreError(
            f"A registration asked for, but {first_fault(error)}. Change that value."
        ) from None


def register(database: Database, request: RegistrationRequest, *, who: str) -> Registration:
    """Return the registration, which is in the ledger from now on.

    Raises:
        StoreError: no epoch yet, or more tasks than the split has.
        TreegrpoError: an environment, option or split that does not exist.
    """
    facts = _facts(request)
    with database.writing() as session:
        epoch = session.scalars(
            sa.select(EpochTable.salt).order_by(EpochTable.created.desc(), EpochTable.salt).limit(1)
        ).first()
        if epoch is None:
            raise StoreError(
                "A registration asked for, but the store has no epoch, whose salt decides the "
                "seeds. Make one: treegrpo leaderboard epoch --salt random."
            )
        manifest = RegistrationManifest(
            **request.model_dump(),
            **facts,
            window_days=WINDOW_DAYS,
            epoch=epoch,
            nonce=secrets.token_hex(16),
        )
        found = Registration(manifest=manifest, registered=now())
        session.add(
            RegistrationTable(
                id=manifest.id,
                registered=found.registered,
                board=manifest.key.id,
                agent_digest=manifest.agent_digest,
                manifest=manifest.model_dump(mode="json"),
            )
        )
        detail = {"board": manifest.key.id, "agent_digest": manifest.agent_digest, "epoch": epoch}
        append(session, "register", manifest.id, who, detail)
    return found


def new_epoch(database: Database, salt: str, *, who: str) -> str:
    """Return the salt of the epoch that begins now; "random" draws one.

    Raises:
        StoreError: no salt, or one that was there before.
    """
    salt = secrets.token_hex(32) if salt == "random" else salt.lower()
    if not _SALT.fullmatch(salt):
        raise StoreError(
            f"An epoch with the salt '{salt:.80}' asked for; a salt has 32 to 64 hexadecimal "
            "digits. Give some that nobody could choose, such as a public random beacon's, or "
            "--salt random."
        )
    with database.writing() as session:
        if session.get(EpochTable, salt) is not None:
            raise StoreError(
                f"An epoch with the salt {salt[:12]} asked for, which the store has had. Its seeds "
                "are known: give another salt."
            )
        session.add(EpochTable(salt=salt, created=now()))
        append(session, "epoch", digest(salt), who, {"salt": salt})
    return salt


def find_registration(session: Session, registration_id: str) -> Registration | None:
    """Return a registration, None if the store has none of this id.

    Raises:
        StoreError: its row was altered.
    """
    row = session.get(RegistrationTable, registration_id)
    if row is None:
        return None
    return read_registration(row)


def read_registration(row: RegistrationTable) -> Registration:
    """Return the registration of a row, after checking that it has its digest.

    Raises:
        StoreError: it was altered.
    """
    try:
        manifest = RegistrationManifest.model_validate(row.manifest)
    except ValidationError as error:
        fault = first_fault(error)
    else:
        if manifest.id == row.id:
            return Registration(manifest=manifest, registered=row.registered)
        fault = "its content does not give its id"
    raise StoreError(
        f"Registration {row.id[:12]} asked for, but its row was altered: {fault}. Restore the "
        "database from a backup."
    )


def _facts(request: RegistrationRequest) -> dict[str, Any]:
    """Return what the environment here says: its source, limits and tasks."""
    kwargs = cast("dict[str, Any]", request.env_kwargs)
    env = open_env(request.env_id, kwargs)
    try:
        core = core_of(env)
        if request.split not in core.splits:
            raise TreegrpoError(
                f"Split '{request.split}' of {request.env_id} asked for; it has: "
                f"{', '.join(core.splits)}."
            )
        tasks = core.tasks(request.split)
        if request.num_tasks > len(tasks):
            raise StoreError(
                f"A registration of {request.num_tasks} tasks asked for; the split "
                f"'{request.split}' of {request.env_id} has {len(tasks)}. Register fewer."
            )
        facts = {"env_digest": source_digest(core), "budgets": budgets_of(core).model_dump()}
        if isinstance(tasks, GeneratedTasks) and len(tasks) >= ENDLESS:
            return facts | {"tasks": FRESH, "num_available": len(tasks)}
        listed = [task_entry(i, tasks[i]).model_dump(mode="json") for i in range(request.num_tasks)]
        return facts | {"tasks": f"{FRESH}:{task_list_digest(listed)}", "num_available": None}
    finally:
        env.close()
