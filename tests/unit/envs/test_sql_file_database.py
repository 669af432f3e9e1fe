"""FileDatabase: a stranger's SQLite file is read within bounds, and never touched."""

import contextlib
import copy
import gc
import pickle
import sqlite3
import threading
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fixtures.sql.folders import make_database
from treegrpo.envs.errors import DataFileError, SnapshotUnsupported
from treegrpo.envs.records import DataFile
from treegrpo.envs.suite.sql import file_database
from treegrpo.envs.suite.sql.database import Row
from treegrpo.envs.suite.sql.file_database import (
    MAX_FILE_BYTES,
    MAX_NOTE_CHARS,
    FileDatabase,
    load_database,
)
from treegrpo.envs.suite.sql.guard import SQLError

SCRIPT = """
CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, day TEXT);
INSERT INTO item VALUES (1, 'nut', '2020-02-28'), (2, 'bolt', '2021-12-31');
"""
COUNTING = "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) "


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_database(tmp_path / "shop.sqlite", SCRIPT)


def load(path: Path) -> FileDatabase:
    return load_database(DataFile(path, "a SQLite database", MAX_FILE_BYTES), {})


def refusal(path: Path) -> str:
    with pytest.raises(DataFileError) as caught:
        load(path)
    message = str(caught.value)
    assert message.startswith(f"Reading a SQLite database from '{path}': ")
    assert message.endswith(".") and "\n" not in message
    return message


def rows(database: FileDatabase, sql: str) -> tuple[Row, ...]:
    return database.execute(sql).rows


def test_a_file_is_read_and_left_as_it_is(path: Path) -> None:
    before = path.read_bytes()
    database = load(path)
    assert rows(database, "SELECT name FROM item ORDER BY id") == (("nut",), ("bolt",))
    path.unlink()
    assert rows(database, "SELECT count(*) FROM item") == ((2,),)
    path.write_bytes(before)
    database.close()
    assert [file.name for file in path.parent.iterdir()] == ["shop.sqlite"]


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM item",
        "INSERT INTO item VALUES (3, 'x', 'y')",
        "UPDATE item SET name = 'x'",
        "WITH a AS (SELECT 1) DELETE FROM item",
        "CREATE TABLE t (a)",
        "DROP TABLE item",
        "ATTACH '/etc/passwd' AS p",
        "VACUUM INTO 'copy.db'",
        "PRAGMA query_only = OFF",
        "PRAGMA trusted_schema = ON",
        "SELECT load_extension('x')",
        "SELECT readfile('/etc/passwd')",
        "SELECT * FROM pragma_database_list",
        "SELECT random()",
        "SELECT * FROM fts5vocab",
    ],
)
def test_only_reads_are_allowed_whatever_is_asked(path: Path, sql: str) -> None:
    database = load(path)
    for read_only in (True, False):
        with pytest.raises(SQLError):
            database.execute(sql, read_only=read_only)
    assert rows(database, "SELECT count(*) FROM item") == ((2,),)


# -------------------------------------------------------------------- files that are refused


@pytest.mark.parametrize(
    "content", [b"", b"SQLite format 3\x00", b"hello" * 100, b"\x1f\x8b" + b"\x00" * 200]
)
def test_what_is_no_database_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "it is no SQLite database. Fetch the file again." in refusal(path)


def test_a_database_in_wal_mode_is_refused(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("INSERT INTO item VALUES (3, 'cog', '')")
        connection.commit()
        assert path.with_name("shop.sqlite-wal").stat().st_size > 0
        assert "it is in WAL mode, so a part of it may be in another file" in refusal(path)
    assert "Run PRAGMA journal_mode = DELETE on it first." in refusal(path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    assert rows(load(path), "SELECT count(*) FROM item") == ((3,),)


def test_an_unfinished_transaction_is_refused(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN IMMEDIATE")
        many = f"{COUNTING} SELECT x + 9, hex(x), '' FROM r LIMIT 9999"
        connection.execute(f"INSERT INTO item {many}")
        assert "a transaction on it was never finished ('shop.sqlite-journal')" in refusal(path)
        connection.rollback()
    assert rows(load(path), "SELECT count(*) FROM item") == ((2,),)


def test_a_file_that_is_cut_short_is_refused(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    assert f"it is cut short: {len(whole) - 100} bytes of {len(whole)}" in refusal(path)


@pytest.mark.parametrize("head", ["CREATE VIRTUAL TABLE", "create/*table*/virtual --table\n table"])
@pytest.mark.parametrize("page", [0, 2])
def test_virtual_tables_are_refused(path: Path, head: str, page: int) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE VIRTUAL TABLE note USING fts5(body)")
        connection.execute("PRAGMA writable_schema = ON")
        change = "sql = replace(sql, 'CREATE VIRTUAL TABLE', ?), rootpage = ?"
        connection.execute(f"UPDATE sqlite_schema SET {change} WHERE name = 'note'", (head, page))
        connection.commit()
    assert "SQLite cannot read it (it has virtual tables)" in refusal(path)


def test_tables_that_only_sound_virtual_are_read(tmp_path: Path) -> None:
    script = "CREATE TABLE virtual (a INT, b INT GENERATED ALWAYS AS (a + 1) VIRTUAL)"
    database = load(make_database(tmp_path / "a.sqlite", script))
    assert rows(database, "SELECT count(b) FROM virtual") == ((0,),)


def test_a_broken_schema_is_refused_and_broken_rows_are_told(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + b"\xff" * 200 + whole[300:])
    assert "SQLite cannot read it (database disk image is malformed)" in refusal(path)
    size = int.from_bytes(whole[16:18], "big")
    path.write_bytes(whole[:size] + b"\xff" * size + whole[2 * size :])
    with pytest.raises(SQLError, match="malformed"):
        rows(load(path), "SELECT * FROM item")


def test_a_cell_that_leaves_its_page_is_told_by_whoever_reads_the_page(path: Path) -> None:
    data = bytearray(path.read_bytes())
    page = int.from_bytes(data[16:18], "big")  # the second page is the table's
    assert data[page] == 0x0D and int.from_bytes(data[page + 3 : page + 5], "big") == 2
    cell = page + int.from_bytes(data[page + 8 : page + 10], "big")
    end = cell + 2 + data[cell]  # a byte of length, a byte of row id, and so many of content
    assert end == 2 * page
    data[cell] += 40
    path.write_bytes(data)
    # Counting reads no content, so that only the check of sizes can tell.
    with pytest.raises(SQLError, match="malformed"):
        rows(load(path), "SELECT count(*) FROM item")


def test_a_files_own_schema_is_not_trusted_with_functions_of_ours(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE VIEW sly AS SELECT date(day) FROM item")
        connection.execute("CREATE VIEW plain AS SELECT upper(name) FROM item")
        connection.commit()
    database = load(path)
    with pytest.raises(SQLError, match=r"unsafe use of date\(\)"):
        rows(database, "SELECT * FROM sly")
    assert rows(database, "SELECT * FROM plain") == (("NUT",), ("BOLT",))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 8191), st.integers(0, 255)), min_size=1, max_size=40))
def test_no_byte_of_a_file_can_raise_anything_else(
    path: Path, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(path.read_bytes())
    for at, value in changes:
        data[at % len(data)] = value
    spoiled = path.with_name("spoiled.sqlite")
    spoiled.write_bytes(data)
    with contextlib.suppress(DataFileError):
        database = load(spoiled)
        for sql in ("SELECT * FROM item ORDER BY name", "SELECT * FROM sqlite_schema"):
            with contextlib.suppress(SQLError):
                database.execute(sql)
        database.close()


# ------------------------------------------------------------------------------------ limits


def test_a_runaway_statement_is_stopped(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_database, "MAX_FILE_STEPS", 100_000)
    database = load(path)
    with pytest.raises(SQLError, match="stopped after 100000 steps"):
        rows(database, f"{COUNTING} SELECT count(*) FROM r")
    assert rows(database, f"{COUNTING} SELECT count(*) FROM (SELECT x FROM r LIMIT 999)") == (
        (999,),
    )


def test_a_statement_that_fills_the_memory_is_stopped(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_database, "MAX_GROWTH_BYTES", 64 * 1024**2)
    database = load(path)
    # Else sorting would fill the disk instead.
    assert vars(database)["_connection"].execute("PRAGMA temp_store").fetchone() == (2,)
    with pytest.raises(SQLError, match="stopped: it takes too much memory"):
        rows(database, f"{COUNTING} SELECT printf('%60000s', x) FROM r ORDER BY 1")
    assert rows(database, "SELECT count(*) FROM item") == ((2,),)


def test_a_statement_of_few_but_slow_steps_is_stopped(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_database, "MAX_SECONDS", 0.05)
    database = load(path)
    slow = "length(replace(printf('%60000s', x), ' ', 'a'))"
    with pytest.raises(SQLError, match="stopped: it takes too long"):
        rows(database, f"{COUNTING} SELECT sum({slow}) FROM r")
    assert rows(database, "SELECT count(*) FROM item") == ((2,),)


def test_where_the_system_does_not_tell_its_memory_steps_alone_count(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_database, "_STATM", path.with_name("missing"))
    monkeypatch.setattr(file_database, "MAX_GROWTH_BYTES", 0)
    monkeypatch.setattr(file_database, "MAX_FILE_STEPS", 50_000)
    with pytest.raises(SQLError, match="stopped after 50000 steps"):
        rows(load(path), f"{COUNTING} SELECT count(*) FROM r")


def test_values_and_statements_have_a_longest(path: Path) -> None:
    database = load(path)
    with pytest.raises(SQLError, match="too big"):
        rows(database, "SELECT length(hex(printf('%60000s', 'a')))")
    with pytest.raises(SQLError, match="query string is too large"):
        rows(database, f"SELECT '{'a' * 10_000}'")


def test_rows_are_capped(path: Path) -> None:
    result = load(path).execute(f"{COUNTING} SELECT x FROM r LIMIT 20001")
    assert (len(result.rows), result.has_more) == (20_000, True)
    assert not load(path).execute(f"{COUNTING} SELECT x FROM r LIMIT 20000").has_more


# ------------------------------------------------------------------------------- dates, names


def test_dates_are_sqlite_s(path: Path) -> None:
    """Values from SQLite's documentation of what each function gives, computed by hand."""
    database = load(path)
    for sql, value in (
        ("strftime('%Y', day)", "2020"),
        ("date(day, '+2 days')", "2020-03-01"),  # a leap year
        ("datetime(day, 'start of year')", "2020-01-01 00:00:00"),
        ("time('2020-01-01 10:11:12')", "10:11:12"),
        ("julianday('2000-01-01 12:00:00')", 2_451_545.0),
        ("date(NULL)", None),
        ("date('tomorrow')", None),
    ):
        assert rows(database, f"SELECT {sql} FROM item WHERE id = 1") == ((value,),), sql


@pytest.mark.parametrize(
    "sql",
    [
        "date()",
        "date('now')",
        "date('NOW')",
        "date('n' || 'ow')",
        "date(CAST('now' AS BLOB))",
        "datetime('subsec')",
        "datetime('now' || char(0))",
        "datetime(CAST(x'6e6f7700' AS TEXT))",
        "strftime('%s', CAST(x'6e6f770041' AS TEXT))",
        "time('now', '+1 day')",
        "julianday()",
        "strftime('%Y')",
        "strftime('%s', 'now')",
        "datetime(day, 'localtime')",
        "datetime(day, 'utc')",
        "strftime('%s', min('now', 'z'))",
    ],
)
def test_no_date_function_asks_the_clock(path: Path, sql: str) -> None:
    with pytest.raises(SQLError, match="the current time is not available"):
        rows(load(path), f"SELECT {sql} FROM item")


@pytest.mark.parametrize("sql", ["CURRENT_TIMESTAMP", "CURRENT_DATE", "CURRENT_TIME"])
def test_no_keyword_asks_the_clock(path: Path, sql: str) -> None:
    with pytest.raises(SQLError, match="the function current_"):
        rows(load(path), f"SELECT {sql}")


def test_strange_names_are_shown_as_they_must_be_written(tmp_path: Path) -> None:
    script = """
    CREATE TABLE "a [b]" ("x y" INT, [select] TEXT, `p\tq"r` TEXT, PRIMARY KEY ("x y", [select]));
    CREATE VIEW v AS SELECT 1;
    CREATE TABLE child (a INT REFERENCES "a [b]", id INTEGER PRIMARY KEY AUTOINCREMENT);
    """
    database = load(make_database(tmp_path / "odd.sqlite", script))
    assert database.tables() == ["a [b]", "child"]
    assert database.describe("a [b]") == (
        '"a [b]" ("x y" INT PRIMARY KEY, select TEXT PRIMARY KEY, "p q""r" TEXT)'
    )
    assert database.describe("child") == (
        'child (a INT REFERENCES "a [b]", id INTEGER PRIMARY KEY)'
    )
    assert database.columns("a [b]") == ["x y", "select", 'p\tq"r']


def test_notes_are_one_line_each_and_cut(path: Path) -> None:
    notes = {"item": {"name": "a\nb\x00\x1b[31m  c", "day": "d" * 999, "gone": "no such column"}}
    database = load_database(DataFile(path, "a SQLite database", MAX_FILE_BYTES), notes)
    assert database.describe("item").splitlines() == [
        "item (id INTEGER PRIMARY KEY, name TEXT, day TEXT)",
        "name: a b[31m c",
        f"day: {'d' * MAX_NOTE_CHARS}...",
    ]


def test_text_that_is_no_utf8_is_read(tmp_path: Path) -> None:
    script = "CREATE TABLE t (a TEXT); INSERT INTO t VALUES (CAST(X'FF' AS TEXT))"
    path = make_database(tmp_path / "odd.sqlite", script)
    database = load(path)
    assert rows(database, "SELECT a FROM t") == (("\udcff",),)
    with pytest.raises(SQLError):
        rows(database, "SELECT date(a) FROM t")
    assert rows(database, "SELECT count(*) FROM t") == ((1,),)


# ----------------------------------------------------------------------------- shared by all


def test_it_is_never_copied(path: Path) -> None:
    database = load(path)
    for take in (database.image, lambda: copy.deepcopy(database), lambda: pickle.dumps(database)):
        with pytest.raises(SnapshotUnsupported, match="a database file is shared, not copied"):
            take()


def test_threads_may_share_it(path: Path) -> None:
    database, found, failures = load(path), list[tuple[Row, ...]](), list[Exception]()

    def work(limit: int) -> None:
        try:
            for _ in range(30):
                sql = f"{COUNTING} SELECT sum(x) FROM (SELECT x FROM r LIMIT {limit})"
                found.append(rows(database, sql))
                assert database.tables() == ["item"] and "day TEXT" in database.describe("item")
        except Exception as error:  # noqa: BLE001 - reported by the test
            failures.append(error)

    threads = [threading.Thread(target=work, args=(limit,)) for limit in (10, 100, 1_000, 5_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert {answer[0][0] for answer in found} == {55, 5_050, 500_500, 12_502_500}
    assert len(found) == 120


def test_a_dropped_one_leaves_no_open_connection(path: Path) -> None:
    database = load(path)
    connections = [vars(database)[name] for name in ("_connection", "_clock")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del database
        gc.collect()
    for connection in connections:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")
