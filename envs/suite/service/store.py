"""A small database of records whose copies cost what was changed, not what there is.

A `Store` is the task's tables, which never change and are shared by every copy, and the records
that this episode put in their place. Two stores that went different ways to the same records
are equal in every digest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from treegrpo.envs.digest import digest

Record = Mapping[str, Any]
Tables = Mapping[str, Mapping[str, Record]]


class Refused(ValueError):
    """What was asked of the database cannot be done; the text is meant for the agent."""


class Store:
    """Tables of records, each under its key; a change puts a new record in the old one's place."""

    __slots__ = ("_base", "_changes")

    def __init__(self, base: Tables) -> None:
        """Begin with the tables as they are; borrows them and never changes them."""
        self._base = base
        self._changes: dict[str, dict[str, Record]] = {}

    def get(self, table: str, key: str) -> Record:
        """Return one record.

        Raises:
            Refused: no such record.
        """
        changed = self._changes.get(table, {}).get(key)
        if changed is not None:
            return changed
        if key not in self._base[table]:
            raise Refused(f"there is no {table} '{key[:40]}'")
        return self._base[table][key]

    def rows(self, table: str) -> Iterator[tuple[str, Record]]:
        """Yield the keys and records of a table in its order."""
        return ((key, self.get(table, key)) for key in self._base[table])

    def change(self, table: str, key: str, **fields: Any) -> None:
        """Put a record in place of the old one, with these fields changed.

        Raises:
            Refused: no such record.
        """
        record = {**self.get(table, key), **fields}
        changes = self._changes.setdefault(table, {})
        changes[key] = record
        if record == self._base[table][key]:
            del changes[key]
        if not changes:
            del self._changes[table]

    def digest(self) -> str:
        """Return a digest of what differs from the task's tables; 64 hex digits."""
        return digest(self._changes)

    def state_facts(self) -> dict[str, dict[str, Record]]:
        """Return what the state hash covers; the tables belong to the task."""
        return self._changes

    def __deepcopy__(self, memo: dict[int, Any]) -> Store:
        twin = Store(self._base)
        # Records are replaced and never edited, so the copies may share them.
        twin._changes = {table: dict(rows) for table, rows in self._changes.items()}
        return twin
