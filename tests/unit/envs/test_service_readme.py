"""What Service's README says is what the environment does."""

import re
from pathlib import Path

from treegrpo.envs.suite import service
from treegrpo.envs.suite.service.airline_desk import AirlineDesk
from treegrpo.envs.suite.service.desk import MAX_SAID_CHARS
from treegrpo.envs.suite.service.domain_files import READING
from treegrpo.envs.suite.service.shop_desk import ShopDesk

README = (Path(service.__file__).parent / "README.md").read_text(encoding="ascii")


def test_the_transcript_is_a_true_episode() -> None:
    found = re.search(r"Test task (\d+) of the shop.*?```text\n(.*?)\n```", README, re.S)
    assert found is not None
    env = ShopDesk(render_mode="ansi")
    env.reset(seed=0, options={"split": "test", "index": int(found[1])})
    while not env.episode.ended:
        env.step(env.oracle())
    assert found[2] == f"{env.render()}\n[reward] {env.episode.episode_return}"


def test_every_tool_is_listed() -> None:
    listed = set(re.findall(r"`(\w+)\(", README.split("## The customer")[0]))
    schemas = [*ShopDesk().tool_schemas(), *AirlineDesk().tool_schemas()]
    assert listed == {schema["function"]["name"] for schema in schemas}


def test_the_numbers_are_the_code_s() -> None:
    assert f"at most {ShopDesk.max_turns} turns and {ShopDesk.max_tool_calls} tool calls" in README
    assert f"at most {MAX_SAID_CHARS} characters" in README
    assert all(f"`{prefix}`" in README for prefix in READING)


def test_the_steps_of_each_level_are_true() -> None:
    rows = re.findall(r"^\| (\d) \|.*\| (\d+)(?: to (\d+))? \|$", README, re.MULTILINE)
    assert [int(level) for level, _, _ in rows] == [1, 2, 3, 4, 5]
    for env in (ShopDesk(), AirlineDesk()):
        for level, low, high in rows:
            for n in range(10):
                env.reset(seed=0, options={"index": 5 * n + int(level) - 1})
                while not env.episode.ended:
                    env.step(env.oracle())
                assert int(low) <= env.episode.turns <= int(high or low)
