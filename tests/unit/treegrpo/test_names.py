"""The table of named plug-ins: what is found, what is refused, and users' own modules."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from treegrpo.attention.base import attention, attention_names
from treegrpo.attention.dense import dense
from treegrpo.credit import credit_names, drop_credit, get_credit
from treegrpo.edges import Edges
from treegrpo.envs.errors import TreegrpoError, UnknownOption
from treegrpo.losses import LossOptions, drop_loss, get_loss
from treegrpo.names import Names, blaming
from treegrpo.tree import Tree

OWN = """
from treegrpo.credit import credit

@credit("first_step")
def first_step(question):
    return [
        {leaf: [1.0] + [0.0] * (tree.nodes[leaf].depth - 1) for leaf in tree.leaves()}
        for tree in question
    ]
"""


@pytest.fixture
def colours() -> Names[int]:
    names: Names[int] = Names("colour")
    names.add("red")(1)
    names.add("blue")(2)
    return names


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path; its modules are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    loaded = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - loaded:
        if (sys.modules[name].__file__ or "").startswith(str(tmp_path)):
            del sys.modules[name]


def test_names_are_found_listed_and_dropped(colours: Names[int]) -> None:
    assert colours.names() == ["blue", "red"]
    assert colours.get("red") == 1
    colours.drop("red")
    assert colours.names() == ["blue"]
    assert colours.add("red")(3) == colours.get("red") == 3


def test_tables_are_apart(colours: Names[int]) -> None:
    other: Names[int] = Names("colour")
    assert other.names() == [] and colours.names() != []


def test_an_unknown_name_suggests_and_lists(colours: Names[int]) -> None:
    expected = r"^Unknown colour 'bleu'\. Did you mean 'blue'\? Known: blue, red; 'module:name' .*"
    with pytest.raises(UnknownOption, match=expected):
        colours.get("bleu")
    with pytest.raises(UnknownOption, match=expected):
        colours.drop("bleu")
    with pytest.raises(UnknownOption, match="Unknown colour ''"):
        colours.get("")


@pytest.mark.parametrize(
    ("name", "fault"),
    [("red", "the name is taken"), ("", "not empty"), ("my:own", "holds no colon")],
)
def test_names_that_cannot_be_registered(colours: Names[int], name: str, fault: str) -> None:
    with pytest.raises(TreegrpoError, match=f"^Colour '{name}' asked to be registered, .*{fault}"):
        colours.add(name)
    assert colours.names() == ["blue", "red"] and colours.get("red") == 1


def test_a_users_module_is_imported_for_its_plugin(folder: Path) -> None:
    (folder / "my_credits.py").write_text(OWN)
    try:
        estimator = get_credit("my_credits:first_step")
        assert "first_step" in credit_names()
        assert get_credit("first_step") is get_credit("my_credits:first_step") is estimator
        tree = Tree("q")
        tree.add(None, observation_ids=[1])
        tree.add(0)
        tree.add(1)
        assert estimator([tree]) == [{2: [1.0, 0.0]}]
    finally:
        drop_credit("my_credits:first_step")
    assert "first_step" not in credit_names()


def test_modules_of_packages_have_dots(colours: Names[int], folder: Path) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "__init__.py").touch()
    (folder / "mine" / "empty.py").touch()
    assert colours.get("mine.empty:red") == 1
    expected = r"Unknown colour 'mine\.empty:rad'\. Importing 'mine\.empty' did not register it\."
    with pytest.raises(UnknownOption, match=expected + r" Did you mean 'red'\?"):
        colours.get("mine.empty:rad")


@pytest.mark.parametrize("name", ["no_such_module_:red", "no_such_module_.part:red"])
def test_a_module_that_is_not_there(colours: Names[int], name: str) -> None:
    expected = (
        r"cannot be imported \(ModuleNotFoundError: No module named 'no_such_module_'\)\. "
        r"Correct it, install it, or put its folder on the path: PYTHONPATH=\."
    )
    with pytest.raises(UnknownOption, match=expected) as caught:
        colours.get(name)
    assert isinstance(caught.value.__cause__, ImportError)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_library_", r"named 'no_such_library_'"),
        ("from math import no_such_function_", r"cannot import name 'no_such_function_'"),
    ],
)
def test_an_import_that_fails_inside_the_module_is_named(
    colours: Names[int], folder: Path, code: str, reason: str
) -> None:
    (folder / "needs_more.py").write_text(code + "\n")
    with pytest.raises(UnknownOption, match=rf"'needs_more' cannot be imported \(.*{reason}"):
        colours.get("needs_more:red")


@pytest.mark.parametrize("code", ["1 / 0\n", "def red(:\n"])
def test_an_error_of_a_users_module_is_one_message(
    colours: Names[int], folder: Path, code: str
) -> None:
    (folder / "broken.py").write_text(code)
    with pytest.raises(UnknownOption, match=r"imported \((ZeroDivision|Syntax)Error: .*Correct it"):
        colours.get("broken:red")


def test_a_taken_name_in_a_users_module_is_told_by_its_own_message(folder: Path) -> None:
    (folder / "dup.py").write_text(OWN.replace('"first_step"', '"group"'))
    with pytest.raises(TreegrpoError) as refused:
        get_credit("dup:group")
    assert str(refused.value) == (
        "Credit 'group' asked to be registered, but the name is taken. Choose another name, or "
        "drop the old one first."
    )


RAISES = """
from treegrpo.credit import credit
from treegrpo.losses import loss

@credit("raises")
def raises(question):
    return [{leaf: [1.0 / len(tree.nodes[0].action_ids)] for leaf in tree.leaves()}
            for tree in question]

@loss("raises")
def raises_too(logp_E, edges, options):
    raise KeyError
"""


def test_what_a_users_plugin_raises_is_one_message_with_its_line(folder: Path) -> None:
    (folder / "bad.py").write_text(RAISES)
    tree = Tree("q")
    tree.add(None, observation_ids=[1])
    tree.add(0)
    try:
        with pytest.raises(TreegrpoError) as refused:
            get_credit("bad:raises")([tree])
        with pytest.raises(
            TreegrpoError, match=r"^Loss 'raises' raised KeyError at bad\.py:12\. C"
        ):
            get_loss("bad:raises")(torch.zeros(1), Edges.supervised(torch.ones(1)), LossOptions())
    finally:
        drop_credit("raises")
        drop_loss("raises")
    assert str(refused.value) == (
        "Credit 'raises' raised ZeroDivisionError at bad.py:7: float division by zero. Correct it."
    )
    assert isinstance(refused.value.__cause__, ZeroDivisionError)


def test_the_line_told_is_the_users_own_even_where_a_library_raised() -> None:
    def mine() -> None:
        torch.zeros(2).view(3)

    def library_below() -> None:
        json.loads("{")

    for plugin, words in (
        (mine, "RuntimeError at {}: shape"),
        (library_below, "JSONDecodeError at {}: "),
    ):
        at = rf"test_names\.py:{plugin.__code__.co_firstlineno + 1}"
        with (
            pytest.raises(TreegrpoError, match=words.format(at)),
            blaming("credit", "mine", plugin),
        ):
            plugin()


def test_a_bug_of_a_built_in_plugin_and_an_error_of_ours_stay_as_they_are() -> None:
    with pytest.raises(ZeroDivisionError), blaming("credit", "group", get_credit("group")):
        raise ZeroDivisionError
    own = TreegrpoError("whole")
    with pytest.raises(TreegrpoError) as kept, blaming("credit", "mine", lambda: None):
        raise own
    assert kept.value is own


@pytest.mark.parametrize("name", [":red", ".mine:red", "a b:red", "mine..more:red", "a:b:red"])
def test_what_is_no_module_name_is_refused(colours: Names[int], name: str) -> None:
    with pytest.raises(UnknownOption, match="is not the name of a module"):
        colours.get(name)


@pytest.mark.parametrize("name", ["auto", "flat", "whole"])
def test_settings_that_are_no_backend_are_no_names_for_one(name: str) -> None:
    before = attention_names()
    with pytest.raises(TreegrpoError, match=f"'{name}'.* means something else"):
        attention(name)(dense)
    assert attention_names() == before
