"""Which tier a verified bundle has: 2 where it answers a registration to the letter, else 1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from treegrpo.envs.digest import digest
from treegrpo.leaderboards.schema import Manifest
from treegrpo.leaderboards.store.keys import FRESH, task_list_digest
from treegrpo.leaderboards.store.registration import Registration, find_registration
from treegrpo.leaderboards.store.tables import RunTable


def why_not_fresh(
    session: Session, manifest: Manifest, changed: Sequence[str], submitted: str
) -> str | None:
    """Return why a bundle that names a registration does not answer it; None if it does.

    Args:
        session: reads or writes.
        manifest: of the verified bundle, which names a registration.
        changed: what of the environment is not as recorded (VerifyReport.changed).
        submitted: when the bundle was submitted.
    """
    assert manifest.registration is not None, "only asked of bundles that name one"
    found = find_registration(session, manifest.registration)
    if found is None:
        return f"registration {manifest.registration[:12]} is not in the ledger"
    answered = session.scalars(
        sa.select(RunTable.digest).where(RunTable.registration == manifest.registration)
    ).first()
    if answered is not None:
        return f"the registration is answered by run {answered[:12]} already"
    return next(faults(found, manifest, changed, submitted), None)


def faults(
    found: Registration, manifest: Manifest, changed: Sequence[str], submitted: str
) -> Iterator[str]:
    """Yield what keeps a bundle from answering a registration, whoever else answered it."""
    if manifest.created < found.registered:
        yield f"it was run at {manifest.created}, before its registration at {found.registered}"
    if submitted > found.expires:
        yield f"it was submitted at {submitted}, after its window ended at {found.expires}"
    if changed:
        yield f"{', '.join(changed)} of the environment here differ from what was run"
    wanted = found.manifest
    for field, expected, got in _pairs(found, manifest):
        if digest(expected) != digest(got):
            yield f"{field} is {_short(got)}, {_short(expected)} was registered"
    if wanted.tasks != FRESH:
        tasks = task_list_digest([task.model_dump(mode="json") for task in manifest.tasks])
        if wanted.tasks != f"{FRESH}:{tasks}":
            yield "its tasks are not the ones that were registered"


def _pairs(found: Registration, manifest: Manifest) -> Iterator[tuple[str, Any, Any]]:
    """Yield (field, what was registered, what was run)."""
    wanted = found.manifest
    yield "agent", wanted.agent, manifest.agent.name
    yield "agent digest", wanted.agent_digest, manifest.agent.digest
    names = ("env_id", "env_kwargs", "env_digest", "split", "num_tasks", "trials", "track")
    for name in (*names, "training", "budgets", "seed", "first_index"):
        expected, got = getattr(wanted, name), getattr(manifest, name)
        if name == "budgets":
            expected, got = expected.model_dump(), got.model_dump()
        yield name, expected, got


def _short(value: Any) -> str:
    return ascii(value)[:80]
