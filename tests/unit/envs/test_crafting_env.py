"""CraftingEnv: tools, losses that last, breaks, rewards, budgets, and its oracle."""

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from treegrpo.envs.baselines import null_action, oracle_action, random_action, run_episode
from treegrpo.envs.core import ToolEnv
from treegrpo.envs.errors import DataFileError
from treegrpo.envs.suite import crafting
from treegrpo.envs.suite.crafting.book import (
    Book,
    Recipe,
    Resource,
    Workshop,
    craft,
    open_workshop,
)
from treegrpo.envs.suite.crafting.env import CraftingEnv
from treegrpo.envs.suite.crafting.plan import num_steps
from treegrpo.envs.suite.crafting.tasks import LEVELS, build
from treegrpo.envs.tasks import Task

README = (Path(crafting.__file__).parent / "README.md").read_text(encoding="ascii")
BENCH = Book(
    (
        Recipe("bench", (("board", 3), ("nail", 1))),
        Recipe("board", (("log", 1),), 2),
        Recipe("toy", (("log", 1), ("nail", 1))),
    ),
    (Resource("log", 2, 3), Resource("nail", 2, 1)),
)


class BenchEnv(CraftingEnv):
    """Crafting with one task whose numbers are known."""

    def tasks(self, split: str) -> list[Task]:
        return [build(BENCH, ("bench", 1), 2)]


def start() -> BenchEnv:
    env = BenchEnv()
    env.reset(seed=0)
    return env


def call(env: CraftingEnv, tool: str, **arguments: str) -> str:
    return env.step(env.encode_call(tool, **arguments))[0]


def test_every_tool_replies_as_documented() -> None:
    env = start()
    assert call(env, "recipes", item="bench") == "bench: 3 board (craft), 1 nail (gather). Makes 1."
    assert call(env, "recipes", item=" log ") == "log: gather 2 at a time, 3 left."
    assert call(env, "inventory") == "You hold nothing."
    assert call(env, "gather", resource="log") == "Gathered 2 log, 1 left."
    assert call(env, "gather", resource="log") == "Gathered 1 log, 0 left."
    assert call(env, "craft", item="board") == "Made 2 board."
    assert call(env, "inventory") == "You hold 2 log, 2 board."
    assert call(env, "craft", item="board") == "Made 2 board."
    assert call(env, "gather", resource="nail") == "Gathered 1 nail, 0 left."
    text, reward, terminated, truncated, info = env.step(env.encode_call("craft", item="bench"))
    assert (text, reward, terminated, truncated) == ("Made 1 bench.", 1.0, True, False)
    assert info["end_reason"] == "made" and info["reward_components"] == {"goal": 1.0}


@pytest.mark.parametrize(
    ("tool", "arguments", "reply"),
    [
        ("recipes", {"item": "x" * 99}, f"nothing is called '{'x' * 40}'"),
        ("gather", {"resource": "gold"}, "nothing is called 'gold'"),
        ("gather", {"resource": "bench"}, "'bench' cannot be gathered; craft it"),
        ("craft", {"item": "log"}, "'log' cannot be crafted; gather it"),
        ("craft", {"item": "bench"}, "3 board, 1 nail missing, and no part is held"),
    ],
)
def test_a_call_that_cannot_be_done_changes_nothing(
    tool: str, arguments: dict[str, str], reply: str
) -> None:
    env = start()
    text, reward, _, _, info = env.step(env.encode_call(tool, **arguments))
    assert text == f"Tool '{tool}' failed: CraftError: {reply}"
    assert (reward, info["errors"]) == (0.0, ["tool_error"])
    assert env.state == open_workshop(BENCH)


def test_a_resource_runs_out() -> None:
    env = start()
    call(env, "gather", resource="nail")
    assert call(env, "gather", resource="nail").endswith("no nail is left to gather")


def test_wrong_types_and_hostile_strings_are_observations() -> None:
    env = start()
    for action in (
        '<tool_call>{"name": "craft", "arguments": {"item": 7}}</tool_call>',
        '<tool_call>{"name": "craft", "arguments": {}}</tool_call>',
        env.encode_call("craft", item="\x00\x1b[31m" * 500),
        env.encode_call("gather", resource="log; drop table"),
    ):
        text, _, terminated, _, info = env.step(action)
        assert len(info["errors"]) == 1 and not terminated and len(text) < 400
    assert env.state == open_workshop(BENCH)


def test_a_craft_with_a_part_missing_spoils_the_parts_held_for_good() -> None:
    env = start()
    call(env, "gather", resource="nail")
    assert call(env, "craft", item="bench") == "Failed: 3 board missing, 1 nail spoiled."
    assert env.state.held == {} and env.state.left == {"log": 3, "nail": 0}


def test_another_item_made_of_the_parts_puts_the_goal_out_of_reach() -> None:
    env = start()
    call(env, "gather", resource="nail")
    call(env, "gather", resource="log")
    assert call(env, "craft", item="toy") == "Made 1 toy."
    while not env.episode.ended:
        env.step(env.oracle())
    assert env.episode.episode_return == 0.0
    assert env.episode.end_reason == "tool_call_limit"
    assert env.episode.tool_calls == 2 * num_steps(BENCH, ("bench", 1))[1]


def test_fragile_crafts_break_by_chance_and_only_so_often() -> None:
    book = Book((Recipe("cup", (("clay", 1),), is_fragile=True),), (Resource("clay", 1, 1),), 2)
    broken: Counter[int] = Counter()
    for seed in range(200):
        shop, rng = open_workshop(book), np.random.default_rng(seed)
        shop.held["clay"] = 20
        replies = [craft(book, shop, "cup", rng) for _ in range(20)]
        broken[replies.count("It broke: 1 clay lost.")] += 1
        assert shop.held == {"cup": replies.count("Made 1 cup.")}
        assert shop.breaks_left == 2 - replies.count("It broke: 1 clay lost.")
    assert set(broken) <= {0, 1, 2} and broken[2] > 150
    firsts = [craft(book, open_held(book), "cup", np.random.default_rng(s)) for s in range(400)]
    assert 0.2 < firsts.count("It broke: 1 clay lost.") / 400 < 0.4


def open_held(book: Book) -> Workshop:
    shop = open_workshop(book)
    shop.held["clay"] = 1
    return shop


def test_of_several_recipes_the_first_complete_one_is_used() -> None:
    book = Book(
        (Recipe("dye", (("rose", 2),)), Recipe("dye", (("beet", 1),), 3)),
        (Resource("rose", 1, 2), Resource("beet", 1, 1)),
    )
    shop = open_workshop(book)
    shop.held |= {"beet": 1, "rose": 1}
    assert craft(book, shop, "dye", np.random.default_rng(0)) == "Made 3 dye."
    assert shop.held == {"rose": 1, "dye": 3}
    assert craft(book, shop, "dye", np.random.default_rng(0)) == (
        "Failed: 1 rose missing, 1 rose spoiled."
    )


@pytest.mark.parametrize("difficulty", LEVELS)
def test_the_oracle_solves_every_task_whatever_breaks(difficulty: int) -> None:
    env = CraftingEnv()
    low, high = LEVELS[difficulty].steps
    for n in range(25):
        options = {"split": "test", "index": 5 * n + difficulty - 1}
        result = run_episode(env, oracle_action, seed=n, options=options)
        assert (result.difficulty, result.success) == (difficulty, True)
        assert low <= len(result.actions) <= high
        assert not any("failed" in message["content"] for message in env.messages)


def test_siblings_may_see_other_breaks() -> None:
    env = CraftingEnv()
    env.reset(seed=0, options={"index": 4})
    ends = {run_fork(env.fork(seed=seed)) for seed in range(12)}
    assert len(ends) > 1 and {reward for _, reward in ends} == {1.0}


def run_fork(env: CraftingEnv) -> tuple[int, float]:
    while not env.episode.ended:
        env.step(env.oracle())
    return env.episode.turns, env.episode.episode_return


@pytest.mark.parametrize("format", ["hermes", "xml"])
def test_the_oracle_goes_on_after_detours_that_cost_nothing(format: str) -> None:
    env = CraftingEnv(format=format)
    for index in range(5):
        env.reset(seed=0, options={"index": index})
        env.step("junk")
        env.step(env.encode_call("inventory"))
        name = env.task.data["book"].resources[0].name
        env.step(env.encode_call("gather", resource=name))
        assert run_fork(env)[1] == 1.0


def test_null_and_random_agents_make_next_to_nothing() -> None:
    env, rng = CraftingEnv(), np.random.default_rng(2)

    def policy(core: ToolEnv) -> str:
        return random_action(core, rng)

    nulls = [run_episode(env, null_action, seed=n, options={"index": n}) for n in range(5)]
    randoms = [run_episode(env, policy, seed=n, options={"index": n}) for n in range(50)]
    assert {(r.success, r.end_reason) for r in nulls} == {(False, "turn_limit")}
    assert sum(r.success for r in randoms) <= 3


def test_a_file_s_tasks_are_played_from_end_to_end() -> None:
    fixtures = Path(__file__).parents[2] / "fixtures" / "crafting"
    for name, count in (("items.json", 2), ("recipes.txt", 2)):
        env = CraftingEnv(data=str(fixtures / name))
        assert len(env.tasks("train")) == count
        for index in range(count):
            assert run_episode(env, oracle_action, options={"index": index}).success
    with pytest.raises(DataFileError, match="no such file"):
        CraftingEnv(data=str(fixtures / "item.json"))


def test_the_readme_shows_a_true_episode_and_every_tool() -> None:
    found = re.search(
        r"Test task (\d+), played by the oracle:\n\n```text\n(.*?)\n```", README, re.S
    )
    assert found is not None
    env = CraftingEnv(render_mode="ansi")
    env.reset(seed=0, options={"split": "test", "index": int(found[1])})
    reward = run_fork(env)[1]
    assert found[2] == f"{env.render()}\n[reward] {reward}"
    tools = re.findall(r"^\| `(\w+)\(", README, re.MULTILINE)
    assert tools == [schema["function"]["name"] for schema in env.tool_schemas()]
    for level, facts in LEVELS.items():
        steps = "4" if level == 1 else f"{facts.steps[0]} to {facts.steps[1]}"
        assert re.search(rf"^\| {level} \| {facts.items} \|.*\| {steps} \|$", README, re.MULTILINE)
