"""The tables at the end of a run."""

import math

import pytest
from rich.console import Console
from rich.table import Table

from treegrpo.envs.errors import TreegrpoError
from treegrpo.view import Costs, GroupRow, before_after_table, cost_table


def text_of(table: Table) -> str:
    console = Console(width=120, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_before_after_table() -> None:
    before = [GroupRow("1 hop", 40, 0.412, 0.33, 0.5), GroupRow("[red]all", 1, 0, math.nan, 1)]
    after = [GroupRow("1 hop", 40, 0.9, 0.85, 0.95), GroupRow("[red]all", 2, 1, 0.5, 1)]
    text = text_of(before_after_table(before, after))
    for shown in ("41.2 % (33.0 to 50.0)", "90.0 % (85.0 to 95.0)", "+48.8 pt", "(n/a)", "1 / 2"):
        assert shown in text
    assert "[red]all" in text  # a label is no markup


def test_before_after_table_refuses_other_groups() -> None:
    row = GroupRow("1 hop", 4, 0.5, 0.1, 0.9)
    with pytest.raises(TreegrpoError, match=r"before are \['1 hop'\] and after \[\]"):
        before_after_table([row], [])


def test_cost_table() -> None:
    seconds = {"generation": 60.0, "environment": 15.0, "training": 75.0}
    text = text_of(cost_table(Costs(412_380, 21_644, 1.74, seconds)))
    for shown in ("412,380", "21,644", "1.74", "60.0 s", "40 %", "10 %", "50 %", "150.0 s"):
        assert shown in text
