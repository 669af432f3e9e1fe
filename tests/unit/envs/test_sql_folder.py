"""SQL-v1 on folders of Spider and BIRD: what is asked, what is right, what is refused."""

import gzip
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fixtures.sql.folders import make_bird, make_database, make_spider
from treegrpo.envs import check_env_laws, make
from treegrpo.envs.errors import DataFileError
from treegrpo.envs.snapshot import Snapshot, core_of
from treegrpo.envs.suite.sql import SQLLevelsEnv, file_database, folder
from treegrpo.envs.suite.sql.folder import TaskFolder
from treegrpo.envs.suite.sql.rows import Gold, is_ordered

MAKERS = {"spider": make_spider, "bird": make_bird}
DATABASE = {
    "spider": "database/orchard/orchard.sqlite",
    "bird": "dev_databases/harbour/harbour.sqlite",
}


@pytest.fixture
def spider(tmp_path: Path) -> Path:
    return make_spider(tmp_path / "spider")


@pytest.fixture
def bird(tmp_path: Path) -> Path:
    return make_bird(tmp_path / "bird")


def start(root: Path, index: int, split: str = "test") -> SQLLevelsEnv:
    env = SQLLevelsEnv(path=str(root))
    env.reset(seed=0, options={"split": split, "index": index})
    return env


def call(env: SQLLevelsEnv, tool: str, **arguments: str) -> tuple[str, float, list[str]]:
    text, reward, _, _, info = env.step(env.encode_call(tool, **arguments))
    return text, reward, info["errors"]


def submit(root: Path, index: int, sql: str, split: str = "test") -> float:
    return call(start(root, index, split), "submit", sql=sql)[1]


def edit(root: Path, name: str, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Rewrite a JSON file of a folder, a row on each line from line 2."""
    rows = json.loads((root / name).read_text())
    change(rows)
    lines = ",\n".join(json.dumps(row) for row in rows)
    (root / name).write_text(f"[\n{lines}\n]")


def refusal(root: Path) -> str:
    with pytest.raises(DataFileError) as caught:
        SQLLevelsEnv(path=str(root))
    message = str(caught.value)
    assert message.startswith("Reading ") and message.endswith(".") and "\n" not in message
    return message


# ------------------------------------------------------------------------------- what is asked


def test_spider_s_rows_are_tasks_of_their_split(spider: Path) -> None:
    env = SQLLevelsEnv(path=str(spider))
    train, dev = env.tasks("train"), env.tasks("test")
    assert env.tasks("validation") == dev
    assert [(task.id, task.difficulty) for task in (*train, *dev)] == [
        ("train_spider-1", 1),
        ("train_spider-2", 2),
        ("dev-1", 1),
        ("dev-2", 4),
        ("dev-3", 1),
    ]
    assert train[0].question == ("How many apple trees are there? Submit the SELECT that gives it.")
    assert train[0].answer == Gold(
        "orchard",
        'SELECT count(*) FROM tree WHERE kind  =  "apple"',
        False,
        "query",
        "train_spider.json",
        "entry 1 (line 2)",
    )


def test_bird_s_evidence_is_in_the_question(bird: Path) -> None:
    env = SQLLevelsEnv(path=str(bird))
    tasks = env.tasks("train")
    assert tasks == env.tasks("test")
    assert [(task.id, task.difficulty) for task in tasks] == [
        ("bird-0", 1),
        ("bird-1", 2),
        ("bird-7", 4),
    ]
    assert tasks[0].question == (
        "How many ships are longer than 80 metres? Evidence: longer than 80 metres refers to "
        "`Length (m)` > 80 Submit the SELECT that gives it."
    )
    assert "Evidence" not in tasks[1].question


def test_a_file_that_is_missing_is_stood_in_for(spider: Path) -> None:
    (spider / "train_spider.json").unlink()
    env = SQLLevelsEnv(path=str(spider))
    assert [task.id for task in env.tasks("train")] == ["dev-1", "dev-2", "dev-3"]
    (spider / "dev.json").unlink()
    assert "it has no train_spider.json and no dev.json. Unpack" in refusal(spider)


@pytest.mark.parametrize("kind", MAKERS)
def test_gzip_files_give_the_same_tasks(kind: str, tmp_path: Path) -> None:
    root = MAKERS[kind](tmp_path / kind)
    before = [(task.id, task.question) for task in SQLLevelsEnv(path=str(root)).tasks("test")]
    for path in root.glob("*.json"):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), mtime=0))
        path.unlink()
    after = SQLLevelsEnv(path=str(root)).tasks("test")
    assert [(task.id, task.question) for task in after] == before


def test_schema_shows_the_names_for_people_of_spider(spider: Path) -> None:
    env = start(spider, 0)
    assert call(env, "list_tables")[0] == "tree, harvest, Old Names"
    assert call(env, "schema", table="tree")[0] == (
        "tree (tree_id INTEGER PRIMARY KEY, kind TEXT, plantYr INTEGER)\nplantYr: year of planting"
    )
    assert call(env, "schema", table="Old Names")[0] == (
        '"Old Names" ("the kind" TEXT, order INTEGER)'
    )
    assert "REFERENCES tree(tree_id)" in call(env, "schema", table="harvest")[0]
    assert call(env, "schema", table="sqlite_sequence")[2] == ["tool_error"]


def test_schema_shows_the_description_of_bird(bird: Path) -> None:
    env = start(bird, 0)
    assert call(env, "schema", table="ship")[0] == (
        'ship (code TEXT PRIMARY KEY, "Length (m)" REAL, built TEXT)\n'
        "code: the code of the ship\n"
        '"Length (m)": length; the length over all; in metres, rounded to half a metre\n'
        "built: the day of the launch\ufffds party"
    )
    assert call(env, "schema", table="visit")[0].endswith("Cargo INTEGER)")
    assert "ship TEXT REFERENCES ship" in call(env, "schema", table="visit")[0]


# ------------------------------------------------------------------------------- what is right


@pytest.mark.parametrize(
    ("index", "sql", "reward"),
    [
        (0, "SELECT kind FROM tree ORDER BY plantYr DESC", 1.0),
        (0, "VALUES ('apple'), ('pear'), ('apple')", 1.0),
        (0, "SELECT kind FROM tree ORDER BY kind", 0.0),  # the gold query has an order
        (0, "SELECT kind, plantYr FROM tree ORDER BY plantYr DESC", 0.0),
        (1, "SELECT 20.5", 1.0),  # 20.5 alone is above 12.9375
        (2, "VALUES (12), (20.5), (12)", 1.0),
        (2, "SELECT DISTINCT kg FROM harvest WHERE tree_id != 2", 0.0),  # a multiset, not a set
        (2, "VALUES ('12.0'), (20.5), (12)", 0.0),
    ],
)
def test_execution_match(spider: Path, index: int, sql: str, reward: float) -> None:
    assert submit(spider, index, sql) == reward


def test_gold_answers_of_bird_by_hand(bird: Path) -> None:
    for index, answer in ((0, "2"), (1, "'2001'"), (2, "75")):
        assert submit(bird, index, f"SELECT {answer}") == 1.0
        assert submit(bird, index, f"SELECT {answer}, 1") == 0.0


@pytest.mark.parametrize(
    ("sql", "ordered"),
    [
        ("SELECT a FROM t ORDER BY a", True),
        ("SELECT a FROM t order\n by a LIMIT 1", True),
        ("SELECT a FROM t UNION SELECT b FROM t ORDER BY 1", True),
        ("SELECT a FROM (SELECT a FROM t ORDER BY a)", False),
        ("SELECT rank() OVER (PARTITION BY a ORDER BY (b)) FROM t", False),
        ("SELECT 'x) ORDER BY a' FROM t", False),
        ("SELECT a FROM t -- ORDER BY a", False),
        ("SELECT a FROM t /* ORDER BY a */ WHERE b IN (SELECT b FROM s)", False),
        ('SELECT [order by], `order by`, "order by" FROM t', False),
        ("SELECT ((((1)))) ORDER BY 1", True),
    ],
)
def test_an_order_counts_only_at_the_top(sql: str, ordered: bool) -> None:
    assert is_ordered(sql) is ordered


@pytest.mark.parametrize("kind", MAKERS)
def test_the_agents_on_a_folder(kind: str, tmp_path: Path) -> None:
    root = MAKERS[kind](tmp_path / kind)
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for index in range(len(SQLLevelsEnv(path=str(root)).tasks(split))):
            env = start(root, index, split)
            env.step(env.oracle())
            assert (env.episode.end_reason, env.episode.episode_return) == ("submitted", 1.0)
            env = start(root, index, split)
            while not env.episode.ended:
                env.step(env.sample_action(rng))
            assert env.episode.episode_return == 0.0


@pytest.mark.parametrize(
    "sql",
    ["DELETE FROM tree", "INSERT INTO tree VALUES (9, 'fig', 1)", "PRAGMA query_only = OFF", ""],
)
def test_a_data_set_s_database_cannot_be_changed(spider: Path, sql: str) -> None:
    before = (spider / DATABASE["spider"]).read_bytes()
    env = start(spider, 0)
    for tool in ("query", "submit"):
        text, reward, errors = call(env, tool, sql=sql)
        assert (reward, errors) == (0.0, ["tool_error"]) and "SQLError" in text
    assert call(env, "query", sql="SELECT count(*) FROM tree")[0].endswith("\n3")
    assert (spider / DATABASE["spider"]).read_bytes() == before
    assert [path.name for path in (spider / DATABASE["spider"]).parent.iterdir()] == [
        "orchard.sqlite"
    ]


# ---------------------------------------------------------------------------- forks and laws


@pytest.mark.parametrize("kind", MAKERS)
def test_every_law_holds_on_a_folder(kind: str, tmp_path: Path) -> None:
    root = MAKERS[kind](tmp_path / kind)
    reports = check_env_laws(lambda: make("treegrpo/SQL-v1", path=str(root)), episodes=2)
    assert [report.law for report in reports if report.checks == 0] == []


def test_a_snapshot_holds_no_database_and_travels(spider: Path) -> None:
    env = start(spider, 1)
    call(env, "query", sql="SELECT * FROM tree")
    shot = env.snapshot()
    assert shot.nbytes < 4_000 < (spider / DATABASE["spider"]).stat().st_size
    other = SQLLevelsEnv(path=str(spider))
    other.restore(Snapshot.from_bytes(shot.to_bytes()))
    assert other.state_hash() == env.state_hash()
    twin = pickle.loads(pickle.dumps(env))
    assert call(twin, "submit", sql="SELECT 20.5")[1] == 1.0
    assert not env.episode.ended


def test_forks_and_episodes_share_one_database(spider: Path) -> None:
    env = start(spider, 1)
    folder_ = vars(env)["_folder"]
    assert isinstance(folder_, TaskFolder)
    gold: Gold = env.task.answer
    assert vars(env.fork())["_folder"].database(gold) is folder_.database(gold)
    env.reset(seed=0, options={"index": 0})
    assert folder_.database(env.task.answer) is folder_.database(gold)


def test_through_the_stack_of_gymnasium(bird: Path) -> None:
    env = make("treegrpo/SQL-v1", path=str(bird))
    _, info = env.reset(seed=0, options={"difficulty": 4})
    assert info["task_id"] == "bird-7"
    _, reward, terminated, _, _ = env.step(core_of(env).oracle())
    assert (reward, terminated) == (1.0, True)


# ----------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("dev.json", b"", "': the file is empty. "),
        ("dev.json", b"[]", "': the list is empty. "),
        ("dev.json", b'[{"db_id": "orchard"', "not valid JSON (expecting ',' delimiter)"),
        ("dev.json", b"[3]", "expected an object, found the number 3"),
        ("dev.json", b"[" * 100_000, "not valid JSON"),
        ("dev.json", b"\xff\xfe", "line 1: not UTF-8 text (byte 0xff)"),
        ("dev.json", gzip.compress(b"[" + b" " * 9_999, mtime=0)[:-9], "cut short or damaged"),
        ("tables.json", b"", "': the file is empty. "),
        ("tables.json", b'[{"db_id": "orchard"}]', "field 'table_names_original' is missing"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_error(
    spider: Path, name: str, content: bytes, found: str
) -> None:
    (spider / name).write_bytes(content)
    message = refusal(spider)
    assert message.startswith(f"Reading SQL tasks from '{spider / name}'") and found in message


@pytest.mark.parametrize(
    ("kind", "field", "value", "found"),
    [
        ("spider", "query", None, "field 'query' is missing; found"),
        ("spider", "query", 7, "field 'query' is wrong: Input should be a valid string; found"),
        ("spider", "query", "", "field 'query' is wrong: String should have at least 1 character"),
        ("spider", "query", "a" * 10_001, "field 'query' is wrong: String should have at most"),
        ("spider", "question", ["?"], "field 'question' is wrong: Input should be a valid string"),
        ("spider", "db_id", "vineyard", "field 'db_id' is not in tables.json: 'vineyard'"),
        ("bird", "question_id", "1", "field 'question_id' is wrong: Input should be a valid int"),
        ("bird", "question_id", 0, "field 'question_id' is the same as that of entry 1 (line 2)"),
        ("bird", "evidence", None, "field 'evidence' is missing"),
        ("bird", "difficulty", "easy", "field 'difficulty' is wrong: Input should be 'simple', "),
    ],
)
def test_a_wrong_field_is_named_with_its_row(
    kind: str, field: str, value: object, found: str, tmp_path: Path
) -> None:
    root = MAKERS[kind](tmp_path / kind)

    def spoil(rows: list[dict[str, Any]]) -> None:
        rows[1][field] = value
        if value is None:
            del rows[1][field]

    edit(root, "dev.json", spoil)
    assert f"dev.json', entry 2 (line 3): {found}" in refusal(root)


@pytest.mark.parametrize(
    "db_id",
    ["../orchard", "..", ".", "/etc/passwd", "a/b", "a\\b", "a\x00b", "", "a\nb", "b" * 400],
)
@pytest.mark.parametrize("kind", MAKERS)
def test_a_db_id_cannot_lead_out_of_the_folder(kind: str, db_id: str, tmp_path: Path) -> None:
    root = MAKERS[kind](tmp_path / kind)
    (tmp_path / "orchard").mkdir()
    make_database(tmp_path / "orchard" / "orchard.sqlite", "CREATE TABLE secret (a)")
    edit(root, "dev.json", lambda rows: rows[1].update(db_id=db_id))
    message = refusal(root)
    assert "entry 2 (line 3)" in message
    assert "field 'db_id' is no plain name of a folder: " in message


def test_a_database_that_is_missing_is_named_with_its_row(bird: Path) -> None:
    (bird / DATABASE["bird"]).unlink()
    message = refusal(bird)
    assert f"Reading a SQLite database from '{bird / DATABASE['bird']}': there is no" in message
    assert message.endswith(f"It is asked for by entry 1 (line 2) of '{bird / 'dev.json'}'.")


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("part", ["database", "folder", "questions"])
def test_a_link_out_of_the_folder_is_refused(kind: str, part: str, tmp_path: Path) -> None:
    root = MAKERS[kind](tmp_path / kind)
    path = root / DATABASE[kind]
    path = {"database": path, "folder": path.parent, "questions": root / "dev.json"}[part]
    path.rename(tmp_path / "outside")
    path.symlink_to(tmp_path / "outside")
    assert "it is a link that leads out of the folder. Put the file itself" in refusal(root)


def test_a_link_within_the_folder_is_followed(spider: Path) -> None:
    path = spider / "dev.json"
    path.rename(spider / "questions.json")
    path.symlink_to("questions.json")
    assert len(SQLLevelsEnv(path=str(spider)).tasks("test")) == 3
    path.unlink()
    path.symlink_to("dev.json")
    assert "link in a circle" in refusal(spider)


def test_a_description_cannot_be_a_link_out(bird: Path, tmp_path: Path) -> None:
    path = bird / "dev_databases/harbour/database_description/ship.csv"
    path.rename(tmp_path / "ship.csv")
    path.symlink_to(tmp_path / "ship.csv")
    with pytest.raises(DataFileError, match=r"ship\.csv': it is a link that leads out"):
        start(bird, 0)


def test_a_description_with_an_endless_field_is_refused(bird: Path) -> None:
    path = bird / "dev_databases/harbour/database_description/ship.csv"
    path.write_bytes(b'original_column_name,column_name\ncode,"' + b"a" * 200_000)
    with pytest.raises(DataFileError, match=r"ship\.csv': not valid CSV \(field larger than"):
        start(bird, 0)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("dev.json", 1024**3),
        ("tables.json", 1024**3),
        (DATABASE["spider"], file_database.MAX_FILE_BYTES + 1),
    ],
)
def test_a_file_over_its_cap_is_refused_by_its_size(spider: Path, name: str, size: int) -> None:
    with (spider / name).open("r+b") as stream:
        stream.truncate(size)  # sparse: it takes no room
    assert "MiB" in refusal(spider)


def test_a_gzip_bomb_is_cut_off(spider: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "MAX_TEXT_BYTES", 1024**2)
    (spider / "dev.json").unlink()
    packed = gzip.compress(b"[" + b" " * 2 * 1024**2, mtime=0)
    (spider / "dev.json.gz").write_bytes(packed)
    assert "is longer than 1 MiB" in refusal(spider)


def test_a_pipe_in_place_of_a_file_is_not_waited_for(spider: Path) -> None:
    for name in ("dev.json", DATABASE["spider"]):
        (spider / name).unlink()
        os.mkfifo(spider / name)
    assert "this is not a regular file" in refusal(spider)


def test_a_folder_of_neither_kind_or_of_both_is_refused(spider: Path, tmp_path: Path) -> None:
    assert "there is no such folder. Name a folder of Spider or BIRD." in refusal(tmp_path / "no")
    (tmp_path / "empty").mkdir()
    assert "neither 'database' (Spider) nor 'dev_databases'" in refusal(tmp_path / "empty")
    (spider / "dev_databases").mkdir()
    assert "both 'database' (Spider) and 'dev_databases' (BIRD)" in refusal(spider)
    (spider / "dev_databases").rmdir()
    (spider / "tables.json").unlink()
    assert "it has no tables.json. Unpack" in refusal(spider)


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("SELECT colour FROM tree", "fails on 'orchard' (no such column: colour). Correct"),
        ("SELECT kind FROM", "fails on 'orchard' (incomplete input)"),
        ("DELETE FROM tree", "fails on 'orchard' (a SELECT is needed here)"),
        ("SELECT date('now')", "fails on 'orchard' (the current time is not available)"),
        ("SELECT 1; SELECT 2", "fails on 'orchard' (give one statement per call)"),
        (
            "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r LIMIT 30000) "
            "SELECT x FROM r",
            "gives more than 20000 rows. Leave",
        ),
    ],
)
def test_a_gold_query_that_fails_is_named_with_its_row(spider: Path, sql: str, found: str) -> None:
    edit(spider, "dev.json", lambda rows: rows[2].update(query=sql))
    env = SQLLevelsEnv(path=str(spider))
    with pytest.raises(DataFileError) as caught:
        env.reset(seed=0, options={"split": "test", "index": 2})
    message = str(caught.value)
    assert f"dev.json', entry 3 (line 4): field 'query': the gold query {found}" in message
    env.reset(seed=0, options={"split": "test", "index": 1})  # the others can be played


def test_a_table_number_out_of_range_is_refused(spider: Path) -> None:
    edit(spider, "tables.json", lambda rows: rows[0]["column_names_original"].append([9, "x"]))
    edit(spider, "tables.json", lambda rows: rows[0]["column_names"].append([9, "x"]))
    assert "field 'column_names_original' names no table: 9" in refusal(spider)


def test_hostile_calls_on_a_folder_are_observations(spider: Path) -> None:
    env = start(spider, 0)
    for table in ("x" * 5_000, "tree; DROP TABLE tree", 'tree"', "\x00", "\ud800", "../tree", ""):
        text, _, errors = call(env, "schema", table=table)
        assert errors == ["tool_error"] and len(text) < 400
    for arguments in ({"sql": 7}, {"sql": None}, {"sql": ["SELECT 1"]}, {}):
        _, _, _, _, info = env.step(env.encode_call("query", **arguments))
        assert info["errors"] == ["bad_arguments"]
