"""SQL-v1's tasks: five levels, three splits apart by content, level 4 computed by hand."""

from collections import Counter
from contextlib import suppress
from itertools import permutations

import numpy as np
import pytest

from treegrpo.envs import make
from treegrpo.envs.errors import SnapshotUnsupported
from treegrpo.envs.suite.sql import SQLEnv, SQLLevelsEnv
from treegrpo.envs.suite.sql.database import Column, Database, Row, Table
from treegrpo.envs.suite.sql.guard import SQLError
from treegrpo.envs.suite.sql.harder import MAKERS, make_harder
from treegrpo.envs.suite.sql.jobs import STEPS
from treegrpo.envs.suite.sql.levels import LEVELS, SPLITS, split_of
from treegrpo.envs.suite.sql.plan import Draft, Goal, Step
from treegrpo.envs.suite.sql.questions import KINDS
from treegrpo.envs.suite.sql.tasks import build
from treegrpo.envs.suite.sql.tasks import split_of as split_of_v0
from treegrpo.envs.suite.sql.worlds import Names, World
from treegrpo.envs.tasks import Task

ENV = SQLLevelsEnv()
TASKS = {split: list(ENV.tasks(split)[:300]) for split in SPLITS}
TRAIN = TASKS["train"]

NAMES = Names("client", "product", "sale", "kind", "stock", "pieces", "client_id", "product_id")
PEOPLE = ((1, "Ada", "Oslo"), (2, "Ben", "Lima"), (3, "Cleo", "Oslo"), (4, "Dan", "Riga"))
THINGS = ((1, "kite", "toy", 30), (2, "saw", "tool", 20), (3, "rake", "tool", 5))
# Totals: Ada 6, Ben 9, Cleo 3, none of Dan's; their average is 6.
LINKS = ((1, 1, 1, 2), (2, 1, 2, 4), (3, 2, 1, 8), (4, 2, 1, 1), (5, 3, 2, 3))
KEY, NAME = Column("id"), Column("name", "TEXT")
TABLES = (
    Table("client", (KEY, NAME, Column("city", "TEXT")), PEOPLE),
    Table("product", (KEY, NAME, Column("kind", "TEXT"), Column("stock")), THINGS),
    Table(
        "sale",
        (
            KEY,
            Column("client_id", references="client"),
            Column("product_id", references="product"),
            Column("pieces"),
        ),
        LINKS,
    ),
    Table("log", (KEY, NAME, Column("change")), ((1, "saw", 7),)),
)
WORLD = World(NAMES, PEOPLE, THINGS, LINKS, TABLES)


def kind_of(task: Task) -> str:
    return task.id.rsplit("-", 1)[0]


def goal_of(task: Task) -> Goal:
    assert isinstance(task.answer, Goal)
    return task.answer


def drawn(kind: str, begins: str) -> Draft:
    """Return a draft of a kind in the small world, whose question begins with a text."""
    for seed in range(400):
        draft = MAKERS[kind](np.random.default_rng(seed), WORLD)
        if draft is not None and draft.question.startswith(begins):
            return draft
    raise AssertionError(f"no draft of {kind} begins with {begins!r}")


def rows_of(draft: Draft) -> tuple[Row, ...]:
    task = build(draft, 4)
    assert task is not None
    rows = goal_of(task).rows
    assert rows is not None
    return rows


def changed(draft: Draft) -> dict[str, tuple[Row, ...]]:
    """Return the tables that differ after the plan of a draft."""
    assert build(draft, 4) is not None
    database = Database.create(TABLES)
    before = database.dump()
    for step in draft.plan:
        if step.writes:
            database.execute(step.arguments["sql"])
    return {name: rows for name, rows in database.dump().items() if rows != before[name]}


def test_a_total_above_the_average() -> None:
    draft = MAKERS["above_average"](np.random.default_rng(0), WORLD)
    assert draft is None  # Ben alone is above 6: there would be no order to ask for
    links = (*LINKS, (6, 1, 3, 9))  # now Ada has 15, Ben 9, Cleo 3: the average is 9
    links = (*links, (7, 4, 3, 1))  # and with Dan's 1 it is 7
    world = World(NAMES, PEOPLE, THINGS, links, (*TABLES[:2], _sales(links), TABLES[3]))
    draft = MAKERS["above_average"](np.random.default_rng(0), world)
    assert draft is not None and draft.is_ordered
    assert rows_of(draft) == (("Ada",), ("Ben",))


def _sales(links: tuple[tuple[int, int, int, int], ...]) -> Table:
    return Table("sale", TABLES[2].columns, links)


def test_the_top_of_each_group() -> None:
    draft = drawn("top_of_each", "For every kind, give the kind and the name of its product with")
    assert rows_of(draft) == (("toy", "kite"), ("tool", "saw"))


@pytest.mark.parametrize(
    ("city", "rows"),
    [("Oslo", (("rake",),)), ("Lima", (("saw",), ("rake",)))],
)
def test_what_nobody_of_a_city_has(city: str, rows: tuple[Row, ...]) -> None:
    draft = drawn(
        "never",
        f"List the names of all products that have no sale of any client who lives in {city}",
    )
    assert rows_of(draft) == rows


def test_different_things_and_not_links_are_counted() -> None:
    # More than one sale: Ada and Ben. More than one different product: Ada alone.
    draft = drawn(
        "varied", "List the names of all clients with sales of more than 1 different products."
    )
    assert rows_of(draft) == (("Ada",),)


def test_those_who_leave_give_back_what_they_had() -> None:
    draft = drawn("leave", "Every client who lives in Oslo leaves. First add the pieces of each")
    assert changed(draft) == {
        "client": ((2, "Ben", "Lima"), (4, "Dan", "Riga")),
        "product": ((1, "kite", "toy", 32), (2, "saw", "tool", 27), (3, "rake", "tool", 5)),
        "sale": ((3, 2, 1, 8), (4, 2, 1, 1)),
    }


@pytest.mark.parametrize(
    ("x", "y", "row", "name", "change"),
    [
        ("Ada", "Dan", (1, "Ada", "Riga"), "Ada", 2),  # Ada has 2 sales, Dan none
        ("Dan", "Ada", (1, "Ada", "Riga"), "Ada", 2),
        ("Cleo", "Ben", (2, "Ben", "Oslo"), "Ben", 1),
    ],
)
def test_a_condition_decides_what_is_set(x: str, y: str, row: Row, name: str, change: int) -> None:
    draft = drawn("settle", f"If the client named {x} has more sales than the client named {y}, ")
    people: list[Row] = [row if row[0] == person[0] else person for person in PEOPLE]
    assert changed(draft) == {
        "client": tuple(people),
        "log": ((1, "saw", 7), (2, name, change)),
    }


def test_a_raise_comes_before_what_follows_from_it() -> None:
    draft = drawn("raise", "Raise the stock of every product with kind tool by ")
    words = draft.question.split()
    amount, limit = (
        int(words[words.index("by") + 1][:-1]),
        int(words[words.index("above") + 1][:-1]),
    )
    doomed = {1} if limit < 30 else set[int]()
    doomed |= {2} if 20 + amount > limit else set[int]()
    assert 2 in doomed and limit >= 20  # else the order would not matter
    kept = tuple(link for link in LINKS if link[2] not in doomed)
    assert changed(draft) == {
        "product": (THINGS[0], (2, "saw", "tool", 20 + amount), (3, "rake", "tool", 5 + amount)),
        "sale": kept,
        "log": ((1, "saw", 7), (2, "tool", 5 - len(kept))),
    }


def test_every_kind_of_every_level_comes_up() -> None:
    expected = {(level, kind) for level, kinds in KINDS.items() for kind in kinds}
    expected |= {(4, kind) for kind in MAKERS} | {(5, "jobs")}
    assert {(task.difficulty, kind_of(task)) for task in TRAIN} == expected


def test_the_oracle_s_steps_are_those_of_the_level() -> None:
    steps = {level: Counter[int]() for level in LEVELS}
    for task in TRAIN:
        steps[task.difficulty][len(task.data["plan"])] += 1
    ranges = {level: (min(found), max(found)) for level, found in steps.items()}
    assert ranges == {1: (3, 3), 2: (3, 6), 3: (5, 7), 4: (6, 9), 5: (10, 20)}
    assert (STEPS[1][0], STEPS[3][1]) == (10, 20)


def test_level_four_s_changes_need_their_order() -> None:
    checked = Counter[str]()
    for task in TRAIN:
        writes = [step.arguments["sql"] for step in task.data["plan"] if step.writes]
        if kind_of(task) not in ("leave", "raise"):
            continue
        wrong = 0
        for order in permutations(writes):
            database = Database.create(task.data["tables"])
            for sql in order:
                with suppress(SQLError):  # a foreign key may stand in the way
                    database.execute(sql)
            wrong += database.digest() != goal_of(task).state
        assert wrong > 0, task.question
        checked[kind_of(task)] += 1
    assert min(checked["leave"], checked["raise"]) > 3


def test_a_question_asks_for_an_order_exactly_when_it_counts() -> None:
    for task in TRAIN:
        asks = "from the lowest" in task.question or "from the highest" in task.question
        assert goal_of(task).is_ordered == asks, task.question


def test_no_task_is_in_two_splits_or_twice_in_one() -> None:
    ids = [task.id for tasks in TASKS.values() for task in tasks]
    contents = [task.question + str(task.data["tables"]) for ts in TASKS.values() for task in ts]
    assert len(set(ids)) == len(set(contents)) == len(ids) == 900


@pytest.mark.parametrize("level", LEVELS)
def test_the_content_decides_the_split_whatever_the_seed(level: int) -> None:
    rng, sides = np.random.default_rng(3), Counter[str]()
    while sides.total() < 200:
        draft = LEVELS[level](rng)
        if draft is not None:
            sides[split_of(draft)] += 1
    assert min(sides["test"], sides["validation"]) > 25 and sides["train"] > 70


def test_no_test_task_is_a_training_task_of_version_zero() -> None:
    """Both versions share kinds, so the same draft must fall on the same side."""
    for horizon in ("short", "long"):
        test = {task.id for task in SQLEnv(horizon=horizon).tasks("test")[:90]}
        assert not test & {task.id for task in (*TRAIN, *TASKS["validation"])}
    rng, seen = np.random.default_rng(0), Counter[tuple[str, str]]()
    for _ in range(150):
        draft = make_harder(rng)
        if draft is not None:
            seen[split_of(draft), split_of_v0(draft)] += 1
    assert set(seen) == {("test", "test"), ("validation", "train"), ("train", "train")}


def test_a_task_depends_on_split_and_index_alone() -> None:
    for split in SPLITS:
        again = SQLLevelsEnv().tasks(split)
        for index in (99, 3, 57):
            assert again[index] == TASKS[split][index]


@pytest.mark.parametrize("level", LEVELS)
def test_the_oracle_solves_forty_tasks(level: int) -> None:
    env = SQLLevelsEnv()
    for n in range(40):
        _, info = env.reset(seed=0, options={"split": "test", "index": 5 * n + level - 1})
        assert info["difficulty"] == level
        while not env.episode.ended:
            env.step(env.oracle())
        assert env.episode.episode_return == 1.0, env.render()
        assert env.episode.turns == len(env.task.data["plan"])


@pytest.mark.parametrize("level", LEVELS)
def test_random_calls_solve_none_of_a_hundred_tasks(level: int) -> None:
    env, rng, ends = SQLLevelsEnv(), np.random.default_rng(level), Counter[str]()
    for n in range(100):
        env.reset(seed=0, options={"split": "test", "index": 5 * n + level - 1})
        while not env.episode.ended:
            env.step(env.sample_action(rng))
        assert env.episode.episode_return == 0.0
        ends[str(env.episode.end_reason)] += 1
    assert ends["submitted"] > 20


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("sql", ["", "done", "SELECT NULL", "SELECT * FROM sqlite_schema"])
def test_submitting_at_once_scores_nothing(level: int, sql: str) -> None:
    env = SQLLevelsEnv()
    for n in range(10):
        env.reset(seed=0, options={"index": 5 * n + level - 1})
        env.step(env.encode_call("submit", sql=sql) if n else "")
        assert env.episode.episode_return == 0.0


def test_no_number_answers_more_than_one_in_eight_questions() -> None:
    """A constant is accepted where it is right, so none may be right often."""
    counts = {level: Counter[float]() for level in LEVELS}
    for task in TRAIN:
        rows = goal_of(task).rows
        if rows is not None and len(rows) == len(rows[0]) == 1 and isinstance(rows[0][0], int):
            counts[task.difficulty][rows[0][0]] += 1
    assert not counts[3] and not counts[4] and not counts[5]
    for level in (1, 2):
        assert max(counts[level].values()) <= 60 // 8, counts[level]


def test_the_oracle_recovers_from_random_damage() -> None:
    env, rng, off_plan = SQLLevelsEnv(), np.random.default_rng(5), 0
    env.max_turns = env.max_tool_calls = 200
    for index in range(40):
        env.reset(seed=0, options={"index": index})
        env.episode.max_tool_calls = 200
        for _ in range(5):
            action = env.sample_action(rng)
            if "submit" not in action:
                env.step(action)
        off_plan += env.state.database.digest() not in env.task.data["states"]
        while not env.episode.ended:
            env.step(env.oracle())
        assert env.episode.episode_return == 1.0, env.render()
    assert off_plan > 5


def test_tool_calls_are_capped_at_twice_the_plan_and_at_least_twelve() -> None:
    env = SQLLevelsEnv()
    for index in range(25):
        env.reset(seed=0, options={"index": index})
        plan: tuple[Step, ...] = env.task.data["plan"]
        assert env.episode.max_tool_calls == max(12, 2 * len(plan))


def test_an_open_transaction_refuses_a_snapshot_and_says_what_to_do() -> None:
    env = make("treegrpo/SQL-v1")
    env.reset(seed=0, options={"index": 3})
    core = env.unwrapped
    assert isinstance(core, SQLLevelsEnv)
    core.state.database.tables()  # opens the connection
    connection = vars(core.state.database)["_connection"]
    connection.execute("BEGIN")
    for take in (core.snapshot, core.fork):
        with pytest.raises(
            SnapshotUnsupported, match=r"has an open transaction; COMMIT or ROLLBACK it first"
        ):
            take()
    connection.execute("ROLLBACK")
    assert core.snapshot().task_id == core.task.id
