"""What the README of CodeExec and PythonMath says is what they do."""

import re
from pathlib import Path
from typing import get_args

import pytest

from tests.unit.envs.fake_sandbox import FakeBackend
from treegrpo.envs.core import ToolEnv
from treegrpo.envs.suite import code_exec
from treegrpo.envs.suite.code_exec import CodeExecEnv, PythonMathEnv, math_tasks, sandboxed, tasks
from treegrpo.envs.suite.code_exec.files import Dataset
from treegrpo.envs.suite.code_exec.output import MAX_CHARS

README = (Path(code_exec.__file__).parent / "README.md").read_text(encoding="ascii")


@pytest.mark.parametrize("kind", [CodeExecEnv, PythonMathEnv])
def test_the_transcripts_are_true_episodes(
    monkeypatch: pytest.MonkeyPatch, kind: type[ToolEnv]
) -> None:
    backend = FakeBackend()
    monkeypatch.setattr(sandboxed, "shared_backend", lambda *names, **options: backend)
    name = kind.__name__.removesuffix("Env")
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
    assert f"{CodeExecEnv.max_turns} turns. Replies are cut after {MAX_CHARS:,} char" in README
    assert f"and {PythonMathEnv.max_turns} turns." in README
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
