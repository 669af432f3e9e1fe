"""Database: exact copies, and statements that cannot do harm."""

import copy
import gc
import pickle
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from treegrpo.envs.errors import SnapshotUnsupported
from treegrpo.envs.suite.sql.database import MAX_PAGES, Column, Database, Table
from treegrpo.envs.suite.sql.guard import SQLError

PARENT = Table("city", (Column("id"), Column("name", "TEXT")), ((1, "Oslo"), (2, "Lima")))
CHILD = Table(
    "person",
    (Column("id"), Column("name", "TEXT"), Column("city", references="city")),
    ((1, "Ada", 1), (2, "Ben", 2), (3, "Cleo", 1)),
)
LOOSE = Table("stock", (Column("item", "TEXT"), Column("value", "")), (("bolt", 7),))
COUNTING = "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) "


def make() -> Database:
    return Database.create((PARENT, CHILD, LOOSE))


def connection_of(database: Database) -> sqlite3.Connection:
    database.tables()
    connection = vars(database)["_connection"]
    assert isinstance(connection, sqlite3.Connection)
    return connection


def by_deepcopy(database: Database) -> Database:
    return copy.deepcopy(database)


def by_pickle(database: Database) -> Database:
    return pickle.loads(pickle.dumps(database))


COPIERS = (by_deepcopy, by_pickle)


@pytest.mark.parametrize("copier", COPIERS)
def test_a_copy_is_equal_and_independent(copier: Callable[[Database], Database]) -> None:
    database = make()
    database.execute("INSERT INTO stock VALUES ('nut', 3)")
    twin = copier(database)
    assert twin.digest() == database.digest() and twin.dump() == database.dump()
    database.execute("DELETE FROM stock")
    assert twin.dump()["stock"] == (("bolt", 7), ("nut", 3))
    twin.execute("UPDATE stock SET value = 0")
    assert database.dump()["stock"] == ()


@pytest.mark.parametrize("copier", COPIERS)
def test_a_copy_has_the_pragmas_set_again(copier: Callable[[Database], Database]) -> None:
    twin = copier(copier(make()))
    connection = connection_of(twin)
    for pragma, value in (
        ("foreign_keys", 1),
        ("journal_mode", "memory"),
        ("temp_store", 2),
        ("max_page_count", MAX_PAGES),
    ):
        assert connection.execute(f"PRAGMA {pragma}").fetchone() == (value,), pragma
    with pytest.raises(SQLError, match="FOREIGN KEY"):
        twin.execute("DELETE FROM city")


def test_a_copy_of_an_unchanged_database_shares_its_image() -> None:
    database = make()
    assert copy.deepcopy(database).image() is database.image()


def test_no_image_is_taken_inside_a_transaction() -> None:
    database = make()
    connection = connection_of(database)
    connection.execute("BEGIN")
    connection.execute("DELETE FROM stock")
    for take in (database.image, lambda: copy.deepcopy(database), lambda: pickle.dumps(database)):
        with pytest.raises(SnapshotUnsupported, match="open transaction"):
            take()
    connection.execute("ROLLBACK")
    assert copy.deepcopy(database).dump() == make().dump()


@pytest.mark.parametrize(
    "sql",
    [
        "BEGIN",
        "BEGIN IMMEDIATE",
        "COMMIT",
        "END",
        "ROLLBACK",
        "SAVEPOINT a",
        "RELEASE a",
        "ATTACH 'escaped.db' AS other",
        "DETACH main",
        "VACUUM",
        "VACUUM INTO 'escaped.db'",
        "PRAGMA foreign_keys = OFF",
        "PRAGMA writable_schema = ON",
        "PRAGMA journal_mode = DELETE",
        "CREATE TABLE t (a)",
        "CREATE TEMP TABLE t (a)",
        "CREATE TRIGGER t AFTER INSERT ON stock BEGIN DELETE FROM city; END",
        "CREATE VIEW v AS SELECT 1",
        "CREATE VIRTUAL TABLE f USING fts5(a)",
        "DROP TABLE stock",
        "ALTER TABLE stock ADD COLUMN b",
        "REINDEX",
        "ANALYZE",
        "EXPLAIN SELECT 1",
        "/* hidden */ -- twice\n COMMIT",
        "DELETE FROM sqlite_schema",
        "SELECT load_extension('x')",
        "SELECT RANDOM()",
        "SELECT randomblob(8)",
        "SELECT name FROM stock ORDER BY random()",
        "SELECT CURRENT_TIMESTAMP",
        "SELECT datetime('now')",
        "SELECT strftime('%s', 'now')",
        "SELECT changes()",
        "SELECT total_changes()",
        "SELECT last_insert_rowid()",
        "SELECT sqlite_version()",
        "SELECT * FROM pragma_database_list",
        "SELECT 1; DELETE FROM stock",
        "SELECT 1 -- more\n; SELECT 2",
        "",
        "   ",
        "-- nothing",
        "/* open",
        "SELECT ?",
        "SELECT :a",
        "SELECT 'a\x00b'",
        "SELECT '\ud800'",
        "SELECT " + "(" * 900 + "1" + ")" * 900,
        "SELECT 1" + " + 1" * 400,
        "SELECT '" + "a" * 5_000 + "'",
        "SELECT * FROM nowhere",
        "hello there",
    ],
)
def test_a_hostile_statement_is_refused_and_changes_nothing(
    sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    database = make()
    with pytest.raises(SQLError):
        database.execute(sql)
    assert database.digest() == make().digest()
    assert not connection_of(database).in_transaction
    assert database.execute("SELECT value FROM stock").rows == ((7,),)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "sql",
    [
        COUNTING + "SELECT count(*) FROM r",
        COUNTING + "INSERT INTO person (name, city) SELECT x, 1 FROM r WHERE x < 9000",
        COUNTING + "SELECT printf('%900s', x) FROM r ORDER BY 1",
        "SELECT count(*) FROM person a, person b, person c, person d, person e, person f, "
        "person g, person h, person i, person j, person k, person l",
    ],
)
def test_a_runaway_statement_is_stopped_and_undone(sql: str) -> None:
    database = make()
    with pytest.raises(SQLError, match="stopped after 250000 steps; nothing was changed"):
        database.execute(sql)
    assert database.digest() == make().digest()


def test_the_step_limit_is_the_same_on_every_copy() -> None:
    """The largest count that passes does not depend on what a connection ran before."""

    def passes(database: Database, count: int) -> bool:
        try:
            database.execute(f"{COUNTING} SELECT count(*) FROM (SELECT x FROM r LIMIT {count})")
        except SQLError:
            return False
        return True

    def largest(database: Database) -> int:
        low, high = 1, 250_000
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if passes(database, middle) else (low, middle)
        return low

    used = make()
    assert largest(used) == largest(used) == largest(copy.deepcopy(used))


def test_a_full_database_is_an_error_and_not_more_memory() -> None:
    database = make()
    rows = "SELECT x + {}, printf('%900s', x), 1 FROM r LIMIT 100"
    for start in (100, 200):
        database.execute(f"INSERT INTO person {COUNTING} {rows.format(start)}")
    with pytest.raises(SQLError, match="full"):
        database.execute(f"INSERT INTO person {COUNTING} {rows.format(300)}")
    assert database.execute("SELECT MAX(id) FROM person").rows == ((300,),)
    assert len(database.image()) <= MAX_PAGES * 1024
    assert database.execute("SELECT count(*) FROM city").rows == ((2,),)


def test_a_value_longer_than_the_limit_is_refused() -> None:
    with pytest.raises(SQLError, match="too big"):
        make().execute("SELECT hex(hex(printf('%900s', 'a')))")


def test_read_only_refuses_every_way_to_write() -> None:
    database = make()
    for sql in (
        "DELETE FROM stock",
        "REPLACE INTO stock VALUES ('a', 1)",
        "WITH x AS (SELECT 1) DELETE FROM stock",
        "INSERT INTO stock VALUES ('a', 1) RETURNING item",
    ):
        with pytest.raises(SQLError, match="a SELECT is needed"):
            database.execute(sql, read_only=True)
    assert database.digest() == make().digest()


def test_changed_rows_are_counted() -> None:
    database = make()
    assert database.execute("UPDATE person SET city = 2 WHERE city = 1").changed == 2
    assert database.execute("WITH x AS (SELECT 9) DELETE FROM person WHERE id = 9").changed == 0
    assert database.execute("SELECT 1").changed is None
    result = database.execute("DELETE FROM person RETURNING name", max_rows=1)
    assert (result.rows, result.has_more, result.changed) == ((("Ada",),), True, 3)
    assert database.dump()["person"] == ()


def test_a_read_stops_at_the_cap() -> None:
    result = make().execute("SELECT name FROM person ORDER BY id", max_rows=2)
    assert (result.rows, result.has_more) == ((("Ada",), ("Ben",)), True)


def test_row_ids_are_never_random() -> None:
    """SQLite draws ids at random once the largest is taken; the key's range prevents it."""
    database = make()
    with pytest.raises(SQLError, match="CHECK"):
        database.execute("INSERT INTO city VALUES (9223372036854775807, 'x')")
    with pytest.raises(SQLError, match="no such column: rowid"):
        database.execute("SELECT rowid FROM stock")
    database.execute("INSERT INTO city VALUES (9999, 'x')")
    with pytest.raises(SQLError, match="CHECK"):
        database.execute("INSERT INTO city (name) VALUES ('y')")


def test_the_digest_sees_exact_types_and_not_the_way_there() -> None:
    values = ("7", "7.0", "'7'", "X'37'", "NULL", "9e999", "CAST(X'FF' AS TEXT)", "'\\udcff'")
    digests: set[str] = set()
    for value in values[:4] + values[5:]:
        database = make()
        database.execute(f"UPDATE stock SET value = {value}")
        digests.add(database.digest())
    assert len(digests) == 7
    database = make()
    database.execute("INSERT INTO stock VALUES ('a', 1)")
    database.execute("DELETE FROM stock WHERE item = 'a'")
    assert database.digest() == make().digest()


def test_describe_names_keys_and_references() -> None:
    database = make()
    assert database.tables() == ["city", "person", "stock"]
    assert database.describe("person") == (
        "person (id INTEGER PRIMARY KEY, name TEXT, city INTEGER REFERENCES city(id))"
    )
    assert database.describe("stock") == "stock (item TEXT PRIMARY KEY, value)"
    with pytest.raises(SQLError, match=r"no such table: cities\. Tables: city, person, stock"):
        database.describe("cities")
    with pytest.raises(SQLError, match="no such table"):
        database.describe("person); DROP TABLE person; --")


def test_closing_keeps_what_was_written() -> None:
    database = make()
    database.execute("DELETE FROM stock")
    database.close()
    database.close()
    assert database.dump()["stock"] == ()


def test_a_dropped_database_closes_its_connection_without_a_collection() -> None:
    gc.disable()
    try:
        database = make()
        connection = connection_of(database)
        del database
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")
    finally:
        gc.enable()
