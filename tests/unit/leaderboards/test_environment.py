"""Opening environments by id, and the digest that notices a changed source."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import pytest

from tests.unit.leaderboards.toy import TOY
from treegrpo.envs import ToolEnv, make, register
from treegrpo.envs.errors import TreegrpoError, UnknownEnv, UnknownOption
from treegrpo.envs.snapshot import core_of
from treegrpo.leaderboards.environment import open_env, source_digest

SOURCE = "from treegrpo.envs import ToolEnv\nclass World(ToolEnv):\n    pass\n"


def test_the_digest_covers_the_package_and_the_base_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "toy_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "world.py").write_text(SOURCE)
    (package / "data.py").write_text("CITIES = 1\n")
    (tmp_path / "beside.py").write_text("x = 1\n")
    register("tests/World-v0", "toy_package.world:World")
    env = core_of(make("tests/World-v0"))
    first = source_digest(env)
    assert first is not None
    assert first != source_digest(ToolEnv())
    (tmp_path / "beside.py").write_text("x = 2\n")
    assert source_digest(env) == first
    (package / "data.py").write_text("CITIES = 2\n")
    assert source_digest(env) != first
    (package / "data.py").write_text("CITIES = 1\n")
    assert source_digest(env) == first


def test_a_source_that_cannot_be_read_has_no_digest() -> None:
    namespace: dict[str, Any] = {"ToolEnv": ToolEnv, "__name__": "no_such_module"}
    exec("class Ghost(ToolEnv): pass", namespace)
    assert source_digest(namespace["Ghost"]()) is None


def test_environments_of_different_source_differ() -> None:
    ids = ("treegrpo/SearchQA-v0", "treegrpo/SQL-v0", TOY)
    assert len({source_digest(core_of(make(env_id))) for env_id in ids}) == 3


def test_unknown_ids_and_options_are_refused() -> None:
    with pytest.raises(UnknownEnv, match="Did you mean 'tests/Toy-v0'"):
        open_env("tests/Toi-v0", {})
    with pytest.raises(UnknownOption, match="'nothing'"):
        open_env(TOY, {"nothing": 1})


def test_other_gymnasium_environments_are_refused() -> None:
    class Plain(gymnasium.Env[Any, Any]):
        observation_space = action_space = gymnasium.spaces.Discrete(2)

    def make_plain(**options: Any) -> Plain:
        return Plain()

    gymnasium.register("tests/Plain-v0", make_plain)
    try:
        with pytest.raises(TreegrpoError, match="Plain is no ToolEnv"):
            open_env("tests/Plain-v0", {})
    finally:
        gymnasium.registry.pop("tests/Plain-v0")
