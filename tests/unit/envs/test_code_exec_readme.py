"""What the README of CodeExec and PythonMath says is what they do."""

import re
from pathlib import Path
from typing import get_args

import pytest

from tests.unit.envs.fake_sandbox import FakeBackend
from treegrpo.envs import sandboxed
from treegrpo.envs.core import ToolEnv
from treegrpo.envs.sandbox_output import MAX_CHARS
from treegrpo.envs.suite import code_exec
from treegrpo.envs.suite.code_exec import (
    CodeExecEnv,
    CodeLevelsEnv,
    MathLevelsEnv,
    PythonMathEnv,
    math_tasks,
    tasks,
)
from treegrpo.envs.suite.code_exec.checks import Exam
from treegrpo.envs.suite.code_exec.files import Dataset

README = (Path(code_exec.__file__).parent / "README.md").read_text(encoding="ascii")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("CodeExec-v0", CodeExecEnv),
        ("PythonMath-v0", PythonMathEnv),
        ("PythonMath-v1", MathLevelsEnv),
    ],
)
def test_the_transcripts_are_true_episodes(
    monkeypatch: pytest.MonkeyPatch, name: str, kind: type[ToolEnv]
) -> None:
    backend = FakeBackend()
    monkeypatch.setattr(sandboxed, "shared_backend", lambda *names, **options: backend)
    found = re.search(
        rf"Test task (\d+) of {name}, played by the oracle:\n\n```text\n(.*?)\n```", README, re.S
    )
    assert found is not None
    env = kind(render_mode="ansi")
    env.reset(seed=0, options={"split": "test", "index": int(found[1])})
    while not env.episode.ended:
        env.step(env.oracle())
    assert found[2] == f"{env.render()}\n[reward] {env.episode.episode_return}"


def test_the_numbers_are_the_code_s() -> None:
    turns = f"{CodeExecEnv.max_turns} turns, {CodeLevelsEnv.max_turns} in version 1."
    assert f"{turns} Replies are cut after {MAX_CHARS:,} char" in README
    assert f"and {PythonMathEnv.max_turns} turns, {MathLevelsEnv.max_turns} in ver" in README
    assert f"The {tasks.NUM_HIDDEN} hidden tests" in README
    assert f"fails at least {tasks.MIN_DIFFERENT - 1} of them" in README
    assert f"at least {math_tasks.MIN_SIZE} or fractions" in README
    limits = CodeExecEnv().sandbox_spec.limits
    assert f"({limits.timeout_s:g} s, {limits.memory_mb} MB)" in README


def test_every_tool_option_and_dataset_is_listed() -> None:
    listed = re.findall(r"^\| `(\w+)\(", README, re.MULTILINE)
    assert listed == [schema["function"]["name"] for schema in CodeExecEnv().tool_schemas()]
    for schema in PythonMathEnv().tool_schemas():
        assert f"`{schema['function']['name']}(" in README
    for dataset in get_args(Dataset):
        assert f"| `{dataset}` |" in README
    for option in ("sandbox", "image", "min_level", "unsafe", "timeout_s", "memory_mb"):
        assert f"`{option}`" in README


def test_the_versions_are_as_they_are_told() -> None:
    old, new = CodeExecEnv, CodeLevelsEnv
    for one in (MathLevelsEnv, new):
        splits = ", ".join(f"`{split}`" for split in one.splits)
        assert f"| splits | `train`, `test` | {splits} |" in README
    told = f"{old.max_turns}, {PythonMathEnv.max_turns} | {new.max_turns}"
    assert f"| {told}, {MathLevelsEnv.max_turns} |" in README
    found = CodeLevelsEnv().tasks("test")
    counts: list[int] = []
    for index in (3, 4):
        exam = found[index].answer
        assert isinstance(exam, Exam)
        counts.append(len(exam.checks))
    assert f"({counts[0]} and {counts[1]} in all)" in README


@pytest.mark.parametrize(
    ("kind", "section"), [(CodeLevelsEnv, "CodeExec"), (MathLevelsEnv, "PythonMath")]
)
def test_the_oracle_takes_the_steps_of_the_table(
    monkeypatch: pytest.MonkeyPatch, kind: type[ToolEnv], section: str
) -> None:
    backend = FakeBackend()
    monkeypatch.setattr(sandboxed, "shared_backend", lambda *names, **options: backend)
    part = README.split(f"## Tasks of {section}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\d) \|.*\| (\d)(?: to (\d))? \|$", part, re.MULTILINE)
    assert [int(level) for level, _, _ in rows] == list(kind.difficulties)
    env = kind()
    for level, least, most in rows:
        for seed in range(6):
            env.reset(seed=seed, options={"difficulty": int(level), "split": "test"})
            while not env.episode.ended:
                env.step(env.oracle())
            assert int(least) <= env.episode.turns <= int(most or least), (level, seed)
