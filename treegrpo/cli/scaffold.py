"""The files of a new environment's package: what `treegrpo new` writes."""

from __future__ import annotations

from collections.abc import Mapping

ENVIRONMENT = '''\
"""Press buttons in the order asked for: works as it is; make it yours."""

from itertools import permutations

from treegrpo.envs import Task, ToolEnv, register, tool

ORDERS = [list(order) for order in permutations(range(8), 4)]
TASKS = [Task(f"press-{{order}}", f"Press {{order}}.", order) for order in ORDERS]


class {cls}(ToolEnv):
    max_turns = 8

    def tasks(self, split):
        return [task for task in TASKS if (sum(task.answer) % 5 == 0) == (split == "test")]

    def setup(self, task, rng):
        return {{"pressed": []}}

    @tool(effects="write")
    def press(self, button: int) -> str:
        """Press a button; a wrong one ends the episode."""
        pressed = self.state["pressed"] = [*self.state["pressed"], button]
        if pressed != self.task.answer[: len(pressed)] or pressed == self.task.answer:
            self.finish("pressed")
        return f"Pressed {{button}}."

    def score(self, state, transcript, task):
        return float(state["pressed"] == task.answer)

    def oracle(self):
        return self.encode_call("press", button=self.task.answer[len(self.state["pressed"])])


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

# How `treegrpo envs`, `check`, `train` and `eval` find it once it is installed.
[project.entry-points."treegrpo.envs"]
{name} = "{name}"

[tool.setuptools]
package-dir = {{"" = "src"}}
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
        f"src/{name}.py": ENVIRONMENT.format(**words),
        f"test_{name}.py": TEST.format(**words),
    }
