"""What SQL's README says is what the environments do."""

import re
from pathlib import Path

import pytest

from treegrpo.envs.suite import sql
from treegrpo.envs.suite.sql import folder
from treegrpo.envs.suite.sql.env import MAX_ROWS, DatabaseEnv, SQLEnv
from treegrpo.envs.suite.sql.file_database import (
    MAX_FILE_BYTES,
    MAX_FILE_STEPS,
    MAX_GROWTH_BYTES,
    MAX_SECONDS,
    MAX_SQL_BYTES,
    MAX_VALUE_BYTES,
    FileDatabase,
)
from treegrpo.envs.suite.sql.guard import LIMITS, MAX_VM_STEPS
from treegrpo.envs.suite.sql.level_env import MIN_TOOL_CALLS, SQLLevelsEnv
from treegrpo.envs.suite.sql.levels import LEVELS
from treegrpo.envs.suite.sql.tasks import vocabulary

README = (Path(sql.__file__).parent / "README.md").read_text(encoding="ascii")


@pytest.mark.parametrize(("version", "kind"), [("v0", SQLEnv), ("v1", SQLLevelsEnv)])
def test_the_transcript_is_a_true_episode(version: str, kind: type[DatabaseEnv]) -> None:
    head = rf"Test task (\d+) of `SQL-{version}`[^,]*, played by the oracle:\n\n"
    index = re.search(head + r"```text\n(.*?)\n```", README, re.DOTALL)
    assert index is not None
    env = kind(render_mode="ansi")
    env.reset(seed=0, options={"split": "test", "index": int(index[1])})
    while not env.episode.ended:
        env.step(env.oracle())
    assert index[2] == f"{env.render()}\n[reward] {env.episode.episode_return}"


def test_the_numbers_are_the_code_s() -> None:
    assert f"Texts use {len(vocabulary('long'))} words" in README
    assert f"at most {MAX_ROWS})" in README
    assert f"{MAX_VM_STEPS:,} steps" in README
    assert f"at most {LIMITS[0][1]:,} bytes" in README
    for horizon in ("short", "long"):
        assert f"`{horizon}`: {SQLEnv(horizon=horizon).max_turns} turns" in README


def test_the_numbers_of_version_one_are_the_code_s() -> None:
    text = " ".join(README.split())
    assert (
        f"{SQLLevelsEnv.max_turns} turns; twice the oracle's steps in tool calls, at least" in text
    )
    assert f"at least {MIN_TOOL_CALLS} |" in text
    assert f"more than {FileDatabase.ROW_LIMIT:,} rows" in text
    caps = (folder.MAX_TEXT_BYTES // 1024**2, MAX_FILE_BYTES // 1024**2)
    assert "questions {} MiB, a database {} MiB".format(*caps) in text
    assert f"At most {folder.MAX_OPEN} databases are open" in text
    assert f"{MAX_FILE_STEPS:,} steps, statements of {MAX_SQL_BYTES:,} bytes" in text
    assert f"values of {MAX_VALUE_BYTES:,} bytes" in text
    grows = f"grows by {MAX_GROWTH_BYTES // 1024**3} GiB of resident memory (measured on Linux)"
    assert f"{grows}, or that takes {MAX_SECONDS:g} seconds, is stopped" in text


def test_the_levels_are_the_generator_s() -> None:
    """The steps of the table hold for a hundred tasks of each level, and are reached."""
    rows = re.findall(r"^\| (\d) \| .* \| (\d+)(?: to (\d+))? \|$", README, re.MULTILINE)
    stated = {int(level): (int(low), int(high or low)) for level, low, high in rows}
    steps: dict[int, list[int]] = {level: [] for level in LEVELS}
    jobs: list[int] = []
    for task in SQLLevelsEnv().tasks("train")[:500]:
        steps[task.difficulty].append(len(task.data["plan"]))
        if task.difficulty == 5:
            jobs.append(sum(step.writes for step in task.data["plan"]))
    assert stated == {level: (min(found), max(found)) for level, found in steps.items()}
    assert f"a chain of {min(jobs)} to {max(jobs)} jobs" in README


def test_every_tool_is_listed() -> None:
    listed = re.findall(r"^\| `(\w+)\(", README, re.MULTILINE)
    assert listed == [schema["function"]["name"] for schema in SQLEnv().tool_schemas()]
