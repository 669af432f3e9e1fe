"""The models of a bundle's files: names, numbers and the published JSON Schemas."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from treegrpo.leaderboards.json_schema import FOLDER, schemas, write
from treegrpo.leaderboards.schema import Dollars, Name, Number
from treegrpo.leaderboards.usage import Usage, usage_of


def test_the_published_schemas_are_those_of_the_models(tmp_path: Path) -> None:
    """After a change of a model: python -m treegrpo.leaderboards.json_schema."""
    write(tmp_path)
    names = {"run.schema.json", "episode.schema.json", "event.schema.json"}
    assert {path.name for path in FOLDER.iterdir()} == names == set(schemas())
    for name in names:
        assert (FOLDER / name).read_bytes() == (tmp_path / name).read_bytes()
        schema = json.loads((FOLDER / name).read_text())
        assert schema["$schema"].endswith("2020-12/schema")
    assert json.loads((FOLDER / "run.schema.json").read_text())["additionalProperties"] is False


@pytest.mark.parametrize("text", ["0.0", "1.1", "-0.5", "1e-07", "1e+16", "-0.0"])
def test_a_number_is_what_python_writes(text: str) -> None:
    assert TypeAdapter(Number).validate_python(text) == text
    assert repr(float(text)) == text


@pytest.mark.parametrize(
    "text",
    ["0", "1", "1.10", "01.0", "1e0", "1E+16", "inf", "nan", "+1.0", " 1.0", "1.0\n", "1_0.0"],
)
def test_a_number_has_no_other_spelling(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Number).validate_python(text)


@pytest.mark.parametrize(
    ("dollars", "text"),
    [("0", "0"), ("0.0310", "0.031"), ("1E+2", "100"), ("1E-12", "0.000000000001"), ("-0", "0")],
)
def test_dollars_have_one_spelling(dollars: str, text: str) -> None:
    assert Usage(dollars=Decimal(dollars)).amount == text
    assert TypeAdapter(Dollars).validate_python(text) == text


@pytest.mark.parametrize("text", ["1.50", "-1", "01", "1e2", ".5", "1.", "$1", "1.0"])
def test_dollars_have_no_other_spelling(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Dollars).validate_python(text)


@pytest.mark.parametrize("name", ["toy", "Qwen 3 (8B)", "Zo\u00eb", "\u65e5\u672c", "a/b:c-v0"])
def test_ordinary_names_are_taken(name: str) -> None:
    assert TypeAdapter(Name).validate_python(name) == name


@pytest.mark.parametrize(
    "name",
    ["", " a", "a\n", "a\x00", "\u202ea", "a\u200b", "e\u0301", "\uff41", "\ud800", "a" * 201],
)
def test_names_that_look_like_others_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Name).validate_python(name)


def test_what_an_agent_counts() -> None:
    assert usage_of(None) == Usage()
    assert usage_of(7) == Usage(output=7)
    assert usage_of(Usage(input=3)) == Usage(input=3)
    for wrong in (True, 1.5, "7", [7]):
        with pytest.raises(ValueError, match="no int, Usage or None"):
            usage_of(wrong)
    for fields, says in (
        ({"input": -1}, "-1 as input"),
        ({"output": 2**53 + 1}, "as output"),
        ({"requests": True}, "True as requests"),
        ({"input": 3, "cached": 4}, "4 cached of 3 input"),
        ({"output": 3, "reasoning": 4}, "4 reasoning of 3 output"),
        ({"dollars": Decimal("NaN")}, "NaN dollars"),
        ({"dollars": Decimal(-1)}, "-1 dollars"),
    ):
        with pytest.raises(ValueError, match=says):
            Usage(**fields)  # type: ignore[arg-type]
