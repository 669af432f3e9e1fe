"""SQLEnv: tools, rewards, limits, and its oracle."""

import json
from collections import Counter

import numpy as np
import pytest

from treegrpo.envs.errors import SnapshotUnsupported, UnknownOption
from treegrpo.envs.suite.sql import oracle
from treegrpo.envs.suite.sql.database import Database, Result, Row
from treegrpo.envs.suite.sql.env import SQLEnv, show
from treegrpo.envs.suite.sql.plan import Step


def start(kind: str, env: SQLEnv | None = None) -> SQLEnv:
    """Return an environment at the first training task of one kind."""
    env = env or SQLEnv()
    index = next(i for i, task in enumerate(env.tasks("train")) if task.id.startswith(f"{kind}-"))
    env.reset(seed=0, options={"index": index})
    return env


def call(env: SQLEnv, tool: str, **arguments: str) -> tuple[str, float, list[str]]:
    text, reward, _, _, info = env.step(env.encode_call(tool, **arguments))
    return text, reward, info["errors"]


def play(env: SQLEnv) -> float:
    """Let the oracle finish the episode; return the episode's reward."""
    while not (env.episode.terminated or env.episode.truncated):
        env.step(env.oracle())
    return env.episode.episode_return


@pytest.mark.parametrize("horizon", ["short", "long"])
@pytest.mark.parametrize("difficulty", [1, 2, 3])
def test_the_oracle_solves_thirty_tasks(horizon: str, difficulty: int) -> None:
    env = SQLEnv(horizon=horizon)
    turns: Counter[int] = Counter()
    for n in range(30):
        _, info = env.reset(seed=0, options={"split": "test", "index": 3 * n + difficulty - 1})
        assert info["difficulty"] == difficulty
        assert play(env) == 1.0, env.render()
        assert env.episode.end_reason == "submitted"
        assert not any("failed" in message["content"] for message in env.messages)
        turns[env.episode.turns] += 1
    if horizon == "long":
        assert min(turns) >= 10 and max(turns) <= 20


@pytest.mark.parametrize("format", ["hermes", "xml"])
def test_the_oracle_speaks_every_format(format: str) -> None:
    env = SQLEnv(format=format)
    for index in range(12):
        env.reset(seed=0, options={"index": index})
        assert play(env) == 1.0


@pytest.mark.parametrize("horizon", ["short", "long"])
def test_the_oracle_recovers_from_random_damage(horizon: str) -> None:
    env = SQLEnv(horizon=horizon)
    env.max_turns, env.max_tool_calls = 80, 200
    rng = np.random.default_rng(5)
    off_plan = 0
    for index in range(24):
        env.reset(seed=0, options={"index": index})
        for _ in range(6):
            action = env.sample_action(rng)
            if "submit" not in action:
                env.step(action)
        off_plan += env.state.database.digest() not in env.task.data["states"]
        assert play(env) == 1.0, env.render()
    assert off_plan > 5


def test_the_oracle_mends_any_value() -> None:
    env = start("jobs", SQLEnv(horizon="long"))
    for value in ("CAST(X'FF' AS TEXT)", "char(0)", "9e999", "X'00'", "'it''s'", "1.0"):
        call(env, "query", sql=f"UPDATE job SET value = {value}")
        database: Database = env.state.database
        target = Database.create(env.task.data["tables"])
        for _ in range(40):
            if database.digest() == target.digest():
                break
            database.execute(oracle.mend(database, target))
        assert database.digest() == target.digest(), value


def test_literals_read_back_as_the_same_value() -> None:
    database = Database.create(start("lookup").task.data["tables"])
    for sql in ("CAST(X'FF00' AS TEXT)", "'a''b'", "9e999", "-9e999", "1.5", "X'0A'", "NULL", "-3"):
        rows = database.execute(f"SELECT {sql}").rows
        again = database.execute(f"SELECT {oracle.literal(rows[0][0])}").rows
        assert list(map(repr, again)) == list(map(repr, rows))


@pytest.mark.parametrize("horizon", ["short", "long"])
def test_doing_nothing_scores_nothing(horizon: str) -> None:
    env = SQLEnv(horizon=horizon)
    for index in range(12):
        env.reset(seed=0, options={"index": index})
        while not (env.episode.terminated or env.episode.truncated):
            _, reward, _, _, info = env.step("")
            assert reward == 0.0 and info["errors"] == ["parse"]
        assert env.episode.end_reason == "turn_limit"
        assert env.episode.turns == (24 if horizon == "long" else 12)


@pytest.mark.parametrize("horizon", ["short", "long"])
def test_submitting_at_once_scores_nothing(horizon: str) -> None:
    env = SQLEnv(horizon=horizon)
    for index in range(30):
        for sql in ("done", "", "SELECT 1", "SELECT * FROM sqlite_master"):
            env.reset(seed=0, options={"index": index})
            text, reward, _ = call(env, "submit", sql=sql)
            assert reward == 0.0, text


@pytest.mark.parametrize("horizon", ["short", "long"])
def test_random_actions_score_nothing(horizon: str) -> None:
    env = SQLEnv(horizon=horizon)
    rng = np.random.default_rng(1)
    ends: Counter[str] = Counter()
    for index in range(60):
        env.reset(seed=0, options={"index": index})
        while not (env.episode.terminated or env.episode.truncated):
            env.step(env.sample_action(rng))
        assert env.episode.episode_return == 0.0
        ends[str(env.episode.end_reason)] += 1
    assert ends["submitted"] > 5


def test_every_tool_replies_as_documented() -> None:
    env = start("jobs", SQLEnv(horizon="long"))
    assert call(env, "list_tables") == ("stock, job", 0.0, [])
    assert call(env, "schema", table="stock")[0] == "stock (item TEXT PRIMARY KEY, count INTEGER)"
    assert call(env, "query", sql="SELECT COUNT(*) FROM stock WHERE 0")[0] == "COUNT(*)\n0"
    assert call(env, "query", sql="SELECT item FROM stock WHERE 0")[0] == "item\n(no rows)"
    assert call(env, "query", sql="INSERT INTO stock VALUES ('cog', 1)")[0] == "1 row changed."
    assert call(env, "query", sql="DELETE FROM stock WHERE item = 'x'")[0] == "0 rows changed."
    text, _, errors = call(env, "query", sql="SELECT colour FROM stock")
    assert text == "Tool 'query' failed: SQLError: no such column: colour"
    assert errors == ["tool_error"]
    assert call(env, "schema", table="x")[2] == ["tool_error"]


def test_results_are_capped() -> None:
    rows: tuple[Row, ...] = tuple((i, None) for i in range(20))
    text = show(Result(("a", "b"), rows, True, None))
    assert text.splitlines()[1] == "0 | NULL"
    assert text.splitlines()[-1] == "(only the first 20 rows are shown)"
    odd: Row = ("x" * 100, b"\x00", "two\nlines", "\udcff", 1.5)
    shown = show(Result(("a",) * 5, (odd,), False, None)).splitlines()[1]
    assert shown == "x" * 60 + "... | X'00' | two\\nlines | \\udcff | 1.5"
    shown.encode("utf-8")


def test_a_query_over_many_rows_is_cut_in_the_observation() -> None:
    env = start("who")
    link = env.state.database.tables()[2]
    text, _, _ = call(env, "query", sql=f"SELECT * FROM {link}, {link} b")
    assert len(text.splitlines()) == 22


def test_a_submission_that_fails_is_told_and_does_not_end() -> None:
    env = start("lookup")
    for sql in ("done", "", "SELECT nothing", "DELETE FROM log", "SELECT 1; SELECT 2"):
        _, reward, errors = call(env, "submit", sql=sql)
        assert (reward, errors, env.episode.terminated) == (0.0, ["tool_error"], False)
    assert play(env) == 1.0
    env = start("merge")
    text, _, errors = call(env, "submit", sql="SELECT 1")
    assert "this task asks for changes; submit done" in text and errors == ["tool_error"]
    assert not env.episode.terminated


def test_an_ordered_question_wants_its_order() -> None:
    env = start("sorted")
    plan: tuple[Step, ...] = env.task.data["plan"]
    gold = plan[-1].arguments["sql"]
    before = env.snapshot()
    assert call(env, "submit", sql=gold)[1] == 1.0
    env.restore(before)
    assert call(env, "submit", sql=gold + " DESC")[1] == 0.0
    start("who", env)
    gold = env.task.data["plan"][-1].arguments["sql"]
    assert call(env, "submit", sql=gold + " ORDER BY 1 DESC")[1] == 1.0


def test_a_needless_change_spoils_a_right_answer() -> None:
    env = start("lookup")
    table = env.state.database.tables()[0]
    call(env, "query", sql=f"UPDATE {table} SET name = 'Zoe' WHERE id = 1")
    assert call(env, "submit", sql=env.task.data["plan"][-1].arguments["sql"])[1] == 0.0


def test_a_wrong_write_dooms_a_long_episode() -> None:
    env = start("jobs", SQLEnv(horizon="long"))
    call(env, "query", sql="DELETE FROM stock")
    for step in env.task.data["plan"]:
        call(env, step.tool, **step.arguments)
    assert (env.episode.end_reason, env.episode.episode_return) == ("submitted", 0.0)


@pytest.mark.parametrize(
    "sql", ["BEGIN", "ATTACH 'x' AS y", "PRAGMA foreign_keys = 0", "SELECT 1;;2"]
)
def test_hostile_statements_are_observations(sql: str) -> None:
    env = start("merge")
    before = env.state.database.digest()
    text, reward, errors = call(env, "query", sql=sql)
    assert text.startswith("Tool 'query' failed: SQLError: ")
    assert (reward, errors) == (0.0, ["tool_error"])
    assert env.state.database.digest() == before
    assert play(env) == 1.0


def test_a_runaway_query_is_an_observation() -> None:
    env = start("merge")
    text, _, errors = call(
        env,
        "query",
        sql="WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT MAX(x) FROM r",
    )
    assert "stopped after 250000 steps" in text and errors == ["tool_error"]
    assert play(env) == 1.0


def test_lone_surrogates_in_an_action_are_an_observation() -> None:
    env = start("merge")
    body = json.dumps({"name": "query", "arguments": {"sql": "SELECT '\ud800'"}})
    text, _, _, _, info = env.step(f"<tool_call>{body}</tool_call>")
    assert "not valid text" in text and info["errors"] == ["tool_error"]
    text.encode("utf-8")


def test_the_agent_cannot_read_the_gold_answer() -> None:
    """Nothing of the plan or the goal stands in the database or the opening."""
    env = start("jobs", SQLEnv(horizon="long"))
    tables = env.task.data["tables"]
    dumped = env.state.database.dump()
    assert {name: len(rows) for name, rows in dumped.items()} == {
        t.name: len(t.rows) for t in tables
    }
    opening = "\n".join(message["content"] for message in env.messages)
    assert env.task.answer.state not in opening and "UPDATE" not in opening


def test_unknown_horizons_are_refused_with_a_suggestion() -> None:
    with pytest.raises(UnknownOption, match=r"short, long\. Did you mean 'long'"):
        SQLEnv(horizon="longer")


def test_a_snapshot_stays_within_its_horizon() -> None:
    long, short = start("jobs", SQLEnv(horizon="long")), start("merge")
    with pytest.raises(SnapshotUnsupported, match="other options or budgets"):
        short.restore(long.snapshot())
    with pytest.raises(SnapshotUnsupported, match="other options or budgets"):
        long.restore(short.snapshot())
    assert (long.max_turns, short.max_turns) == (24, 12)


def test_scoring_changes_nothing() -> None:
    env = start("total")
    while len(env.messages) < 4:
        env.step(env.oracle())
    env.state.submission = "SELECT 1"
    before = env.state_hash()
    first = env.score(env.state, (), env.task)
    assert first == env.score(env.state, (), env.task) == {"match": 0.0}
    assert env.state_hash() == before
