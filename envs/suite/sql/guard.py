"""What an agent's statement may do: an allowlist, and bounds on time and memory.

SQLite asks the authorizer about every action of a statement while it prepares it; what the
authorizer is never asked about (EXPLAIN, COMMIT, REINDEX) is refused by the first word.
Time is counted in steps of SQLite's virtual machine, the same on every machine.
"""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass

MAX_VM_STEPS = 250_000
"""Virtual-machine steps one statement may take; how long they last depends on the machine."""
STEPS_PER_TICK = 1_000

# Upper bounds inside SQLite. LENGTH (of a value or a row, in bytes) keeps the memory of a
# statement small: steps alone would not.
LIMITS = (
    (sqlite3.SQLITE_LIMIT_LENGTH, 1_000),
    (sqlite3.SQLITE_LIMIT_SQL_LENGTH, 2_000),
    (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 30),
    (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 100),
    (sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, 50),
    (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
)
_READS = frozenset({"SELECT", "WITH", "VALUES", "PRAGMA"})
_WRITES = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE"})
_READ_PRAGMAS = frozenset({"table_info", "table_xinfo", "foreign_key_list", "index_list"})
# An allowlist: deterministic functions that every SQLite since 3.38 has.
_FUNCTION_NAMES = (
    "abs avg char coalesce count cume_dist dense_rank first_value format glob group_concat hex "
    "ifnull iif instr lag last_value lead length like lower ltrim max min nth_value ntile "
    "nullif percent_rank printf quote rank replace round row_number rtrim sign substr substring "
    "sum total trim typeof unicode upper"
)
_ONLY = "only SELECT, INSERT, UPDATE and DELETE statements are allowed"
_SELECT = "a SELECT is needed here"
_SYSTEM = "table-valued functions and changes of system tables are not available"
_COMMENTS = re.compile(r"(?:\s+|--[^\n]*(?:\n|$)|/\*.*?\*/)*", re.DOTALL)
FUNCTIONS = frozenset(_FUNCTION_NAMES.split())


class SQLError(Exception):
    """A statement that failed or is not allowed; the text is meant for the agent."""


@dataclass
class Guard:
    """What one connection lets through right now.

    An object of its own, not the database: the connection holds it, and a cycle through the
    database would keep both alive until a garbage collection.
    """

    max_steps: int = MAX_VM_STEPS
    steps_per_tick: int = STEPS_PER_TICK
    functions: frozenset[str] = FUNCTIONS
    active: bool = False
    may_write: bool = False
    wrote: bool = False
    ticks: int = 0
    denied: str = ""

    def begin(self, *, may_write: bool) -> None:
        """Watch one statement, from its preparation on."""
        self.active, self.may_write = True, may_write
        self.wrote, self.ticks, self.denied = False, 0, ""

    def authorize(
        self, action: int, first: str | None, second: str | None, _db: str | None, _by: str | None
    ) -> int:
        """Return SQLITE_OK or SQLITE_DENY for one action of a statement being prepared."""
        if not self.active or action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE):
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_READ:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION:
            allowed = str(second).lower() in self.functions
            self.denied = self.denied if allowed else f"the function {second} is not available"
        elif action in (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE):
            # SQLite asks for this, too, when it sets up a table-valued function (json_each).
            is_system = str(first).lower().startswith("sqlite_")
            allowed = self.may_write and not is_system
            self.denied = self.denied if allowed else (_SYSTEM if is_system else _SELECT)
            self.wrote = self.wrote or allowed
        else:
            allowed = action == sqlite3.SQLITE_PRAGMA and str(first).lower() in _READ_PRAGMAS
            self.denied = self.denied if allowed else _ONLY
        return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY

    def tick(self) -> int:
        """Return non-zero, which interrupts the statement, once it has run for too long."""
        self.ticks += 1
        return int(self.active and self._ran_long())

    def explain(self, error: Exception) -> str:
        """Return for the agent why its statement failed."""
        if self.denied:
            return self.denied
        if self._ran_long():
            return f"stopped after {self.max_steps} steps; nothing was changed"
        if "one statement" in str(error):
            return "give one statement per call"
        return str(error)

    def _ran_long(self) -> bool:
        return self.ticks * self.steps_per_tick > self.max_steps


def check_statement(sql: str, *, read_only: bool) -> None:
    """Refuse by the first word what the authorizer never sees, such as EXPLAIN or COMMIT."""
    if not sql.isascii():
        try:
            sql.encode("utf-8")
        except UnicodeEncodeError:
            raise SQLError("the statement is not valid text") from None
    start = _COMMENTS.match(sql)
    word = re.match(r"\w*", sql[start.end() if start else 0 :])
    first = word.group().upper() if word else ""
    if first not in _READS | _WRITES:
        raise SQLError(_ONLY if first else "the statement is empty")
    if read_only and first in _WRITES:
        raise SQLError(_SELECT)
