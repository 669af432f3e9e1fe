"""The files of a new environment's package: what `treegrpo new` writes."""

from __future__ import annotations

from collections.abc import Mapping

ENVIRONMENT = '''\
"""Reach a number from 1 by doubling and adding one: works as it is; make it yours."""

from treegrpo.envs import Task, ToolEnv, register, tool


class {cls}(ToolEnv):
    max_turns = 20

    def tasks(self, split):
        numbers = [n for n in range(64, 512) if (n % 5 == 0) == (split == "test")]
        return [Task(f"reach-{{n}}", f"Start at 1 and reach {{n}}.", n) for n in numbers]

    def setup(self, task, rng):
        return {{"number": 1}}

    @tool(effects="write")
    def step_up(self, double: bool) -> str:
        """Double the number, or else add one."""
        self.state["number"] += self.state["number"] if double else 1
        if self.state["number"] >= self.task.answer:
            self.finish("reached")
        return f"The number is {{self.state['number']}}."

    def score(self, state, transcript, task):
        return float(state["number"] == task.answer)

    def oracle(self):
        goal = self.task.answer
        while goal // 2 >= self.state["number"]:
            goal //= 2
        return self.encode_call("step_up", double=goal == self.state["number"])


register("{id}", "{name}:{cls}")
'''

TEST = '''\
"""The environment obeys the laws, its oracle solves it, and a refusal does not."""

import pytest

import {name}
from treegrpo.envs import check_env_laws, make
from treegrpo.envs.baselines import null_action, oracle_action, run_episode

ID = "{id}"


def test_every_law_holds():
    assert [report.law for report in check_env_laws(ID) if not report.checks] == []


@pytest.mark.parametrize("split", {name}.{cls}.splits)
def test_the_oracle_solves_what_the_null_agent_does_not(split):
    env = make(ID)
    for seed in range(20):
        assert run_episode(env, oracle_action, seed=seed, options={{"split": split}}).success
        assert not run_episode(env, null_action, seed=seed, options={{"split": split}}).success
'''

PROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "0.1.0"
description = "The environment {id}"
requires-python = ">=3.11"
dependencies = ["treegrpo"]

# How `treegrpo list`, `check`, `train` and `eval` find it once it is installed.
[project.entry-points."treegrpo.envs"]
{name} = "{name}"

[tool.setuptools]
py-modules = ["{name}"]
"""


def class_name(name: str) -> str:
    """Return the class of an environment's module: "my_env" -> "MyEnv"."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def env_id(name: str) -> str:
    """Return the id of an environment's module: "my_env" -> "my_env/MyEnv-v0"."""
    return f"{name}/{class_name(name)}-v0"


def files(name: str) -> Mapping[str, str]:
    """Return the text of each file of the package, by its name."""
    words = {"name": name, "cls": class_name(name), "id": env_id(name)}
    return {
        "pyproject.toml": PROJECT.format(**words),
        f"{name}.py": ENVIRONMENT.format(**words),
        f"test_{name}.py": TEST.format(**words),
    }
