"""The results database: verified runs, claims, registrations, and a ledger of what happened.

with open_store("sqlite:///leaderboard.sqlite", create=True) as store:
digest = store.add(Path("runs/my_bundle"))        # replays it first
for key in store.boards():
print(key, store.board(key.id).rows)

store.py           Store: all that can be done with one
database.py        opening, sessions, errors          tables.py, migrations.py
submissions.py     add, rescore, remove               claims.py      tier 0
registration.py    epochs, registrations              tiers.py       why a run is not tier 2
boards.py          what pages read                    ranking.py     ranks, kept with the runs
objects.py         files by digest                    restore.py     bundles out of them
ledger.py          the hash chain                     checks.py, merge.py
"""

from __future__ import annotations

from treegrpo.leaderboards.store.database import DEFAULT_STORE
from treegrpo.leaderboards.store.ledger import Checkpoint, parse_checkpoint
from treegrpo.leaderboards.store.registration import (
    Registration,
    RegistrationRequest,
    request_like,
)
from treegrpo.leaderboards.store.store import Store, open_store

__all__ = [
    "DEFAULT_STORE",
    "Checkpoint",
    "Registration",
    "RegistrationRequest",
    "Store",
    "open_store",
    "parse_checkpoint",
    "request_like",
]
