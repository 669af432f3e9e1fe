"""CodeExec-v0 and PythonMath-v0 are frozen: tasks and episodes have the bytes they always had."""

from typing import Any

import pytest

from tests.unit.envs.fake_sandbox import FakeBackend
from treegrpo.envs import make
from treegrpo.envs.digest import digest
from treegrpo.envs.snapshot import core_of
from treegrpo.envs.suite.code_exec import sandboxed

TASKS = {
    ("CodeExec", "train"): "075bc124756a99df1be2ae6ffef6dab265b017cd15b3a71082766380e22d2d43",
    ("CodeExec", "test"): "4900494d312c5fc4054e95717c3c607302a4ddcb739bb217834a6177e21cfc66",
    ("PythonMath", "train"): "82f6735a2f97c8d43963807a7bed822bfaea84663e7417940d5664cff0bd03a5",
    ("PythonMath", "test"): "c4d56875e87a9c6635e9e33d8099dd85ca632a10339ab2e2b20af63821883844",
}
EPISODES = {
    "CodeExec": "935db20769e57503179f974adf9f90f381aada273a6be540590ac4ff984bcdea",
    "PythonMath": "79a11a82326abeb15cc3f7ed66ca8f3c05e0d7917f3d41b56a623d8d23cca3b8",
}


@pytest.mark.parametrize(("name", "split"), TASKS)
def test_the_first_forty_tasks(name: str, split: str) -> None:
    tasks = core_of(make(f"treegrpo/{name}-v0")).tasks(split)
    assert digest(tasks[:40]) == TASKS[name, split]


@pytest.mark.parametrize("name", EPISODES)
def test_observations_and_rewards_of_ten_episodes(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    backend = FakeBackend()
    monkeypatch.setattr(sandboxed, "shared_backend", lambda *names, **options: backend)
    env = make(f"treegrpo/{name}-v0")
    core = core_of(env)
    seen: list[Any] = [core.tool_schemas()]
    for index in range(10):
        seen.append(env.reset(seed=index, options={"split": "test", "index": index}))
        while not core.episode.ended:
            is_first = core.episode.turns == 0 and index % 3 == 0
            action = core.encode_call("python", code="1 + 1") if is_first else core.oracle()
            seen.append(env.step(action))
    assert digest(seen) == EPISODES[name]
