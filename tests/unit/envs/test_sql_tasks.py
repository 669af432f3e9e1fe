"""Tasks of SQL: one right answer each, splits apart, a closed list of words."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from treegrpo.envs.suite.sql import jobs
from treegrpo.envs.suite.sql.database import Column, Database, Table
from treegrpo.envs.suite.sql.env import SQLEnv
from treegrpo.envs.suite.sql.plan import Draft, Goal, Step, look, submit, write
from treegrpo.envs.suite.sql.questions import KINDS
from treegrpo.envs.suite.sql.tasks import HORIZONS, build, is_right, split_of, vocabulary, words
from treegrpo.envs.tasks import Task

SHORT = list(SQLEnv().tasks("train")[:240])
LONG = list(SQLEnv(horizon="long").tasks("train")[:90])
STOCK = Table("stock", (Column("item", "TEXT"), Column("count")), (("bolt", 7), ("nut", 3)))


def goal_of(task: Task) -> Goal:
    assert isinstance(task.answer, Goal)
    return task.answer


def gold_sql(task: Task) -> str:
    plan: tuple[Step, ...] = task.data["plan"]
    return plan[-1].arguments["sql"]


def test_every_kind_of_every_difficulty_comes_up() -> None:
    found = {(task.difficulty, task.id.rsplit("-", 1)[0]) for task in SHORT}
    assert found == {(level, kind) for level, kinds in KINDS.items() for kind in kinds}


def test_worlds_have_two_to_four_tables_of_at_most_forty_rows() -> None:
    sizes = {len(task.data["tables"]) for task in SHORT}
    assert sizes == {2, 3, 4}
    rows = [
        len(table.rows) for task in SHORT for table in task.data["tables"] if table.name != "log"
    ]
    assert min(rows) >= 8 and max(rows) <= 40


def test_gold_answers_are_never_empty() -> None:
    for task in SHORT:
        rows = goal_of(task).rows
        if rows is not None:
            assert rows and all(cell is not None for row in rows for cell in row), task.question


def test_no_gold_answer_hangs_on_a_tie() -> None:
    """Breaking ties one way or the other gives the same rows."""
    seen: Counter[str] = Counter()
    for task in SHORT:
        sql = gold_sql(task)
        if "ORDER BY" not in sql:
            continue
        seen[task.id.rsplit("-", 1)[0]] += 1
        head, limit = sql.split(" LIMIT ") if " LIMIT " in sql else (sql, "100")
        database = Database.create(task.data["tables"])
        for tie_break in ("1", "1 DESC"):
            rows = database.execute(f"{head}, {tie_break} LIMIT {limit}").rows
            assert rows == goal_of(task).rows, task.question
    assert set(seen) == {"highest", "sorted", "busiest_city", "ranking"}


def test_a_question_asks_for_an_order_exactly_when_it_counts() -> None:
    for task in SHORT:
        asks = "from the lowest" in task.question or "from the highest" in task.question
        assert goal_of(task).is_ordered == asks, task.question


def test_the_order_of_irreversible_writes_matters() -> None:
    checked = 0
    for task in SHORT:
        if task.id.startswith(("purge-", "shift-")):
            database = Database.create(task.data["tables"])
            for step in reversed([step for step in task.data["plan"] if step.writes]):
                database.execute(step.arguments["sql"])
            assert database.digest() != goal_of(task).state, task.question
            checked += 1
    assert checked > 10


def test_splits_are_apart_by_content() -> None:
    for horizon, maker in HORIZONS.items():
        sides: Counter[str] = Counter()
        rng = np.random.default_rng(3)
        for _ in range(200):
            draft = maker(rng, 2)
            if draft is not None:
                sides[split_of(draft)] += 1
        assert min(sides["train"], sides["test"]) > 20, horizon
        train, test = (SQLEnv(horizon=horizon).tasks(split)[:40] for split in ("train", "test"))
        assert not {task.id for task in train} & {task.id for task in test}
        assert not {task.question + str(task.data["tables"]) for task in train} & {
            task.question + str(task.data["tables"]) for task in test
        }


def test_task_ids_are_unique() -> None:
    for tasks in (SHORT, LONG):
        assert len({task.id for task in tasks}) == len(tasks)


def test_a_task_depends_on_its_index_alone() -> None:
    again = SQLEnv().tasks("train")
    for index in (200, 7, 31):
        assert again[index] == SHORT[index]


def test_long_tasks_take_ten_to_twenty_steps() -> None:
    for task in LONG:
        low, high = jobs.STEPS[task.difficulty]
        assert low <= len(task.data["plan"]) <= high
    lengths = {len(task.data["plan"]) for task in LONG}
    assert lengths == set(range(10, 21))


def test_long_tasks_use_every_kind_of_job_and_spare_jobs() -> None:
    kinds = {row[1] for task in LONG for row in task.data["tables"][1].rows}
    assert kinds == set(jobs.KINDS)
    for task in LONG:
        read = [s for s in task.data["plan"] if s.arguments.get("sql", "").startswith("SELECT * ")]
        assert len(task.data["tables"][1].rows) > len(read)


def test_every_job_changes_the_stock_and_counts_stay_small() -> None:
    for task in LONG:
        database = Database.create(task.data["tables"])
        stocks = [database.dump()["stock"]]
        for step in task.data["plan"]:
            if step.writes:
                database.execute(step.arguments["sql"])
                stocks.append(database.dump()["stock"])
        assert all(one != two for one, two in pairwise(stocks))
        counts = [int(str(count)) for stock in stocks for _, count in stock]
        assert min(counts) >= 0 and max(counts) <= jobs.TOP_COUNT


def test_a_draft_without_an_answer_is_no_task() -> None:
    for sql in (
        "SELECT count FROM stock WHERE item = 'cog'",
        "SELECT MAX(count) FROM stock LIMIT 0",
    ):
        assert build(Draft("x", "?", (STOCK,), (submit(sql),)), 1) is None
    assert (
        build(Draft("x", "?", (STOCK,), (submit("SELECT SUM(count) FROM stock WHERE 0"),)), 1)
        is None
    )


def test_a_draft_whose_writes_idle_is_no_task() -> None:
    idle = write("UPDATE stock SET count = 7 WHERE item = 'bolt'")
    assert build(Draft("x", "?", (STOCK,), (*look("stock"), idle, submit())), 3) is None


@pytest.mark.parametrize(
    ("sql", "is_ordered", "is_right_"),
    [
        ("SELECT item FROM stock ORDER BY count", True, True),
        ("SELECT item FROM stock ORDER BY count DESC", True, False),
        ("SELECT item FROM stock ORDER BY count DESC", False, True),
        ("VALUES ('bolt'), ('nut')", False, True),
        ("SELECT item FROM stock WHERE item = 'bolt'", False, False),
        ("SELECT item FROM stock UNION ALL SELECT 'nut'", False, False),
        ("SELECT item, count FROM stock", False, False),
        ("SELECT 'BOLT' UNION SELECT 'nut'", False, False),
        ("SELECT a FROM nowhere", False, False),
        ("done", False, False),
        ("", False, False),
    ],
)
def test_execution_match(sql: str, is_ordered: bool, is_right_: bool) -> None:
    database = Database.create((STOCK,))
    goal = Goal(database.digest(), (("nut",), ("bolt",)), is_ordered)
    before = database.digest()
    assert is_right(goal, database, sql) is is_right_
    assert database.digest() == before


def test_execution_match_compares_numbers_by_value_and_not_with_text() -> None:
    database = Database.create((STOCK,))
    goal = Goal(database.digest(), ((10,),), False)
    for sql, right in (("SELECT 10.0", True), ("SELECT SUM(count) FROM stock", True)):
        assert is_right(goal, database, sql) is right
    assert not is_right(goal, database, "SELECT '10'")
    assert not is_right(goal, database, "SELECT 10.5")


def test_a_right_answer_from_a_changed_database_is_wrong() -> None:
    database = Database.create((STOCK,))
    goal = Goal(database.digest(), ((3,),), False)
    assert is_right(goal, database, "SELECT count FROM stock WHERE item = 'nut'")
    database.execute("UPDATE stock SET count = 8 WHERE item = 'bolt'")
    assert not is_right(goal, database, "SELECT count FROM stock WHERE item = 'nut'")


@pytest.mark.parametrize("horizon", ["short", "long"])
def test_the_vocabulary_holds_every_word_of_an_oracle_episode(horizon: str) -> None:
    known = vocabulary("long" if horizon == "long" else "short")
    assert known <= vocabulary()
    env = SQLEnv(horizon=horizon)
    for index in range(60):
        text, _ = env.reset(seed=0, options={"split": "test", "index": index})
        texts, done = [env.task.question], False
        while not done:
            action = env.oracle()
            texts += [str(value) for value in step_arguments(env, action)]
            text, _, terminated, truncated, _ = env.step(action)
            texts.append(text)
            done = terminated or truncated
        unknown = {word for text in texts for word in words(text)} - known
        assert not unknown, unknown


def step_arguments(env: SQLEnv, action: str) -> list[str]:
    plan: tuple[Step, ...] = env.task.data["plan"]
    step = next(s for s in plan if env.encode_call(s.tool, **s.arguments) == action)
    return [step.tool, *step.arguments, *step.arguments.values()]


def test_the_long_vocabulary_is_small() -> None:
    assert len(vocabulary("long")) < 250
    assert {"bolt", "99", "UPDATE", "'", "next", "Submitted"} <= vocabulary("long")
