"""Dated price tables: exact amounts, and refusals by field."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.agents.prices import read_prices
from treegrpo.leaderboards.usage import NOTHING, Searched, Usage

TABLE = """
name = "openai"
date = 2026-11-01
currency = "USD"
[models."big"]
input = 2.50
cached = 0.1
output = 10
reasoning = 12.5
[models."small"]
input = 0.1
output = 0.3
"""


def table(path: Path, text: str = TABLE) -> Path:
    (path / "prices.toml").write_text(text)
    return path / "prices.toml"


def test_each_kind_has_its_price(tmp_path: Path) -> None:
    prices = read_prices(table(tmp_path))
    assert prices.id == "openai-2026-11-01"
    usage = Usage(input=1_000, cached=400, output=100, reasoning=40)
    # 600 x 2.5 + 400 x 0.1 + 60 x 10 + 40 x 12.5 = 1500 + 40 + 600 + 500, per million
    assert prices.models["big"].cost(usage) == Decimal("0.00264")
    # without prices of their own: 1000 x 0.1 + 100 x 0.3 = 130, exactly
    assert prices.models["small"].cost(usage) == Decimal("0.00013")


def test_what_nobody_counted_has_no_price(tmp_path: Path) -> None:
    small = read_prices(table(tmp_path)).models["small"]
    assert small.cost(Usage(input=5)) is None
    assert small.cost(Usage(output=5)) is None
    assert small.cost(Usage(input=10, output=0)) == Decimal("0.000001")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"USD"', '"EUR"', "field currency"),
        ("2026-11-01", '"soon"', "field date"),
        ("0.3", "-0.3", "field models.small.output"),
        ("0.3", "nan", "field models.small.output"),
        ("output = 0.3", "", "field models.small.output: Field required"),
        ("output = 10", "output = 10\nprompt = 1", "field models.big.prompt"),
        ('name = "openai"', 'name = "open\\u200bai"', "hidden character"),
        ("[models", "[[models", "no TOML"),
        ("date = ", "date := ", "no TOML"),
    ],
)
def test_a_wrong_table_is_refused_by_field(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in TABLE
    with pytest.raises(TreegrpoError, match=message):
        read_prices(table(tmp_path, TABLE.replace(old, new)))


def test_no_file_and_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TreegrpoError, match="cannot be read: No such file"):
        read_prices(tmp_path / "none.toml")
    (tmp_path / "prices.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(TreegrpoError, match="no TOML in UTF-8"):
        read_prices(tmp_path / "prices.toml")


def test_usages_add_up_and_null_stays_null() -> None:
    one = Usage(input=5, cached=1, output=2, dollars=Decimal("0.1"), requests=1)
    other = Usage(input=7, cached=None, output=3, dollars=Decimal("0.2"), requests=2)
    assert one + other == Usage(input=12, output=5, dollars=Decimal("0.3"), requests=3)
    assert NOTHING + other == other
    searched = Usage(search=Searched(1, 4, 5))
    assert (searched + searched).search == Searched(2, 8, 10)
    assert (searched + one).search == Searched(1, 4, 5)
    with pytest.raises(ValueError, match="-1 as turns"):
        Searched(0, -1, 0)
