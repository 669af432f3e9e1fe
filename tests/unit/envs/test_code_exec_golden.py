"""CodeExec and PythonMath are frozen: tasks and episodes have the bytes they always had."""

from typing import Any

import pytest

from tests.unit.envs.fake_sandbox import FakeBackend
from treegrpo.envs import make, sandboxed
from treegrpo.envs.digest import digest
from treegrpo.envs.snapshot import core_of

TASKS = {
    ("CodeExec", "train"): "075bc124756a99df1be2ae6ffef6dab265b017cd15b3a71082766380e22d2d43",
    ("CodeExec", "test"): "4900494d312c5fc4054e95717c3c607302a4ddcb739bb217834a6177e21cfc66",
    ("PythonMath", "train"): "82f6735a2f97c8d43963807a7bed822bfaea84663e7417940d5664cff0bd03a5",
    ("PythonMath", "test"): "c4d56875e87a9c6635e9e33d8099dd85ca632a10339ab2e2b20af63821883844",
}
LEVELS = {
    ("CodeExec", "train"): "c6fecf681b9e384cab818fec517ec3cafd6efea920ab151fb69f98b73b542676",
    ("CodeExec", "validation"): "ee908f436b1da4e6105ead88959c2813c01ad298713ebd1c7c69b9f8244f6e32",
    ("CodeExec", "test"): "28dc6c52afea7c70835c9aecb2be038e1058423b6b6795f8e274972ea6eedfb3",
    ("PythonMath", "train"): "4f8929b9e59bb2cacb979c3bc6fb79db0997d7f28e2437e883f26e28d8f539d3",
    (
        "PythonMath",
        "validation",
    ): "96516506f23add2e39a1c3df8c32c4089431cfebae4ace82432a17d7ba15c578",
    ("PythonMath", "test"): "1a6139c5a1e6190e36845844bd1c1e0ed6cbfa398dc2233e1b6add4b39879cbd",
}
EPISODES = {
    "CodeExec": "935db20769e57503179f974adf9f90f381aada273a6be540590ac4ff984bcdea",
    "PythonMath": "79a11a82326abeb15cc3f7ed66ca8f3c05e0d7917f3d41b56a623d8d23cca3b8",
}


@pytest.mark.parametrize(("name", "split"), TASKS)
def test_the_first_forty_tasks(name: str, split: str) -> None:
    tasks = core_of(make(f"treegrpo/{name}-v0")).tasks(split)
    assert digest(tasks[:40]) == TASKS[name, split]


@pytest.mark.parametrize(("name", "split"), LEVELS)
def test_the_first_ten_tasks_of_version_1(name: str, split: str) -> None:
    tasks = core_of(make(f"treegrpo/{name}-v1")).tasks(split)
    assert digest(tasks[:10]) == LEVELS[name, split]


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
