"""What SQL's README says is what the environment does."""

import re
from pathlib import Path

from treegrpo.envs.suite import sql
from treegrpo.envs.suite.sql.env import MAX_ROWS, SQLEnv
from treegrpo.envs.suite.sql.guard import LIMITS, MAX_VM_STEPS
from treegrpo.envs.suite.sql.tasks import vocabulary

README = (Path(sql.__file__).parent / "README.md").read_text(encoding="ascii")


def test_the_transcript_is_a_true_episode() -> None:
    index = re.search(
        r"Test task (\d+), played by the oracle:\n\n```text\n(.*?)\n```", README, re.S
    )
    assert index is not None
    env = SQLEnv(render_mode="ansi")
    env.reset(seed=0, options={"split": "test", "index": int(index[1])})
    while not (env.episode.terminated or env.episode.truncated):
        env.step(env.oracle())
    assert index[2] == f"{env.render()}\n[reward] {env.episode.episode_return}"


def test_the_numbers_are_the_code_s() -> None:
    assert f"Texts use {len(vocabulary('long'))} words" in README
    assert f"at most {MAX_ROWS})" in README
    assert f"{MAX_VM_STEPS:,} steps" in README
    assert f"at most {LIMITS[0][1]:,} bytes" in README
    for horizon in ("short", "long"):
        assert f"{SQLEnv(horizon=horizon).max_turns} turns" in README


def test_every_tool_is_listed() -> None:
    listed = re.findall(r"^\| `(\w+)\(", README, re.MULTILINE)
    assert listed == [schema["function"]["name"] for schema in SQLEnv().tool_schemas()]
