from __future__ import annotations

import importlib.metadata
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec

from tests.unit.envs.toys import Sum
from treegrpo.envs import list_envs, make, register, registry
from treegrpo.envs.errors import TreegrpoError, UnknownEnv, UnknownOption
from treegrpo.envs.suite.sql.env import SQLEnv

ENTRY = "tests.unit.envs.toys:Sum"


@pytest.fixture(autouse=True)
def _restored_registry() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    before = set(gymnasium.registry)
    yield
    for id in set(gymnasium.registry) - before:
        gymnasium.registry.pop(id)
    registry.load_plugins.cache_clear()


def test_the_suite_is_registered_on_import() -> None:
    assert {"treegrpo/SearchQA-v0", "treegrpo/SQL-v0"} <= set(list_envs())
    env = make("treegrpo/SQL-v0", horizon="long")
    assert isinstance(env.unwrapped, SQLEnv) and env.unwrapped.horizon == "long"


def test_a_registered_environment_is_made_and_listed() -> None:
    register("tests/Sum-v0", ENTRY, max_episode_steps=3, kwargs={"format": "xml"})
    env = make("tests/Sum-v0")
    assert isinstance(env, gymnasium.wrappers.TimeLimit) and isinstance(env.unwrapped, Sum)
    assert "tests/Sum-v0" in list_envs()
    gymnasium.registry.pop("tests/Sum-v0")
    assert "tests/Sum-v0" not in list_envs()


def test_a_spec_has_a_json_form() -> None:
    register("tests/Sum-v0", ENTRY)
    spec = registry.find_spec("tests/Sum-v0")
    assert EnvSpec.from_json(spec.to_json()) == spec


def test_registering_twice_changes_nothing_but_taking_over_is_refused() -> None:
    register("tests/Sum-v0", ENTRY)
    register("tests/Sum-v0", ENTRY)
    with pytest.raises(TreegrpoError, match=r"it is taken by tests\.unit\.envs\.toys:Sum"):
        register("tests/Sum-v0", "tests.unit.envs.toys:BreaksS1")


@pytest.mark.parametrize(
    ("id", "entry", "says"),
    [
        ("tests/Sum-v0", "toys.Sum", "must be spelled 'module:Class'"),
        ("tests Sum", ENTRY, "cannot be registered"),
    ],
)
def test_malformed_registrations_are_refused(id: str, entry: str, says: str) -> None:
    with pytest.raises(TreegrpoError, match=says):
        register(id, entry)


@pytest.mark.parametrize(
    ("id", "says"),
    [
        ("treegrpo/SerchQA-v0", "Unknown environment 'treegrpo/SerchQA-v0'. Did you mean 'treegr"),
        ("treegrpo/SearchQA", "Did you mean 'treegrpo/SearchQA-v1'? List all with treegrpo envs."),
        ("zzz", "Unknown environment 'zzz'. List all with treegrpo envs."),
        ("no_such_module:a/B-v0", "its module cannot be imported"),
    ],
)
def test_an_unknown_id_gets_a_suggestion(id: str, says: str) -> None:
    with pytest.raises(UnknownEnv) as caught:
        make(id)
    assert says in str(caught.value)


def test_a_module_that_raises_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_module.py").write_text("x = 1\ny = x / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UnknownEnv, match=r"raised ZeroDivisionError at broken_module.py:2: "):
        make("broken_module:a/B-v0")


@pytest.mark.parametrize("entry", ["no_such_module:Env", "tests.unit.envs.toys:NoSuchClass"])
def test_an_entry_point_that_is_not_there_is_named(entry: str) -> None:
    register("tests/Lost-v0", entry)
    with pytest.raises(UnknownEnv, match="cannot be imported"):
        make("tests/Lost-v0")


def test_a_module_before_the_id_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        def find_spec(self, name: str, *_: Any) -> Any:
            if name == "late_envs":
                register("late/Sum-v0", ENTRY)
                return importlib.machinery.ModuleSpec(name, self)  # type: ignore[arg-type]
            return None

        def create_module(self, spec: Any) -> Any:
            return types.ModuleType("late_envs")

        def exec_module(self, module: Any) -> None:
            return None

    monkeypatch.setattr(sys, "meta_path", [Finder(), *sys.meta_path])
    monkeypatch.delitem(sys.modules, "late_envs", raising=False)
    assert isinstance(make("late_envs:late/Sum-v0").unwrapped, Sum)
    sys.modules.pop("late_envs")


def test_an_unknown_option_names_the_accepted_ones() -> None:
    with pytest.raises(UnknownOption) as caught:
        make("treegrpo/SQL-v0", horizn="long")
    assert str(caught.value) == (
        "Option 'horizn' of 'treegrpo/SQL-v0' asked for; it takes: horizon, render_mode, format, "
        "max_episode_steps, disable_env_checker. Did you mean 'horizon'?"
    )


def make_sum(**options: Any) -> Sum:
    """Return an environment from a function that takes anything."""
    return Sum(**options)


def test_a_function_that_takes_anything_is_given_anything() -> None:
    register("tests/Made-v0", f"{__name__}:make_sum")
    assert isinstance(make("tests/Made-v0", format="xml").unwrapped, Sum)


def make_refused(*, trouble: str = "", error: str = "TypeError") -> Sum:
    """Raise what a constructor may raise."""
    raise {"TypeError": TypeError, "KeyError": KeyError, "OSError": OSError}[error](trouble)


@pytest.mark.parametrize("error", ["TypeError", "KeyError", "OSError"])
def test_what_a_constructor_raises_is_one_message(error: str) -> None:
    register("tests/Refused-v0", f"{__name__}:make_refused")
    with pytest.raises(TreegrpoError) as caught:
        make("tests/Refused-v0", trouble="a text was wanted", error=error)
    assert str(caught.value).replace("made: 'a text was wanted'", "made: a text was wanted") == (
        "Environment 'tests/Refused-v0' with the options {'trouble': 'a text was wanted', "
        f"'error': '{error}'}} asked for, but it cannot be made: a text was wanted ({error}). "
        "Give each option a value that it can use."
    )
    with pytest.raises(TreegrpoError, match=r"cannot be made: .*TypeError.* Correct its const"):
        make("tests/Refused-v0")


def test_what_a_constructor_refuses_in_our_words_passes_through() -> None:
    with pytest.raises(UnknownOption, match=r"^horizon 'longer' asked for"):
        make("treegrpo/SQL-v0", horizon="longer")
    with pytest.raises(TreegrpoError, match=r"SearchQA-v0' with the options {'data': 3} asked"):
        make("treegrpo/SearchQA-v0", data=3, disable_env_checker=True)


class Point:
    """Stands for an entry point of another package."""

    def __init__(self, name: str, load: Any) -> None:
        self.name, self.value, self._load = name, f"{name}_package.envs", load

    def load(self) -> Any:
        return self._load()


def test_plugins_load_late_and_one_failure_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("half installed")

    def register_theirs() -> None:
        register("theirs/Sum-v0", ENTRY)

    points = [Point("broken", broken), Point("fine", lambda: register_theirs)]
    asked: list[str] = []

    def entry_points(*, group: str) -> list[Point]:
        asked.append(group)
        return points

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    registry.load_plugins.cache_clear()
    make("treegrpo/SQL-v0")
    assert asked == []
    with pytest.warns(RuntimeWarning, match=r"Plug-in 'broken' .* RuntimeError: half installed"):
        env = make("theirs/Sum-v0")
    assert isinstance(env.unwrapped, Sum)
    assert "theirs/Sum-v0" in list_envs() and asked == ["treegrpo.envs"]


def test_a_folder_that_hides_a_plugins_module_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "hidden_plugin").mkdir()  # a project's folder, found in place of its module
    monkeypatch.syspath_prepend(str(tmp_path))
    point = Point("hidden", lambda: importlib.import_module("hidden_plugin"))
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: [point])
    registry.load_plugins.cache_clear()
    with pytest.warns(RuntimeWarning, match=r"'hidden' .* the folder .*hidden_plugin hides"):
        list_envs()
