"""What the site's pages embed: text without hidden characters, columns, outcomes of a run."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.board_fixture import (
    AGENTS,
    HOSTILE,
    KEY,
    digest_of,
    hostile_board,
    large_board,
    make_board,
    make_detail,
    outcomes,
)
from treegrpo.leaderboards.board import Board
from treegrpo.leaderboards.site.data import (
    FIELDS,
    board_data,
    embedded,
    environment_id,
    run_name,
    run_outcomes,
    run_script,
)
from treegrpo.leaderboards.site.text import counted, interval, options, percent, visible


def decoded(data: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows that the page's script reads, by the rules that the module states."""
    found: list[dict[str, Any]] = []
    for i in range(data["rows"]):
        whole: dict[str, Any] = {}
        for name, (kind, base, way) in data["fields"].items():
            if kind == "digest":
                text = data["columns"][name][22 * i : 22 * i + 22]
                whole[name] = base64.urlsafe_b64decode(text + "==").hex()
                continue
            column = data["columns"].get(name)
            value = data["same"][name] if column is None else column[i]
            value = int(value) if isinstance(column, str) else value
            if kind == "listed":
                value = None if value < 0 else data["lists"][name][value]
            elif value is not None and base is not None:
                value = (whole[base] or 0) + way * value
            whole[name] = value
        found.append(whole)
    return found


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain \u00e9\u4e2d text\n\tindented", "plain \u00e9\u4e2d text\n\tindented"),
        ("\x1b[31mred", "\u241b[31mred"),
        ("a\x00b\rc\x7f", "a\u2400b\u240dc\u2421"),
        ("\x9b31m", "\ufffd31m"),
        ("\u202egnp.exe\u202c", "\ufffdgnp.exe\ufffd"),
        ("zero\u200bwidth\ufeff", "zero\ufffdwidth\ufffd"),
        ("\u2028\u2029", "\ufffd\ufffd"),
        ("\U000e0041 \ud800", "\ufffd \ufffd"),
    ],
)
def test_hidden_characters_are_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_making_visible_twice_changes_nothing_more_and_no_length(text: str) -> None:
    shown = visible(text)
    assert visible(shown) == shown and len(shown) == len(text)
    assert shown.encode("utf-8").decode("utf-8") == shown  # no lone surrogate is left


def test_numbers_have_one_spelling() -> None:
    assert [percent(x) for x in (0.8125, 0.0, 1.0, 0.5685)] == [
        "81.3 %",
        "0.0 %",
        "100.0 %",
        "56.9 %",
    ]
    assert interval(0.7125, 0.95) == "71.3 to 95.0 %" and interval(None, None) == "no interval"
    assert (
        counted(12345) == "12,345" and counted(None) == "not counted" and counted(2.5, 1) == "2.5"
    )
    assert options({"level": 3, "backend": "sandbox"}) == "backend=sandbox, level=3"


@given(st.text())
def test_embedded_json_cannot_end_its_element(text: str) -> None:
    spelled = embedded({"a": text})
    assert re.search(r"[<>&\u2028\u2029]", spelled) is None and spelled.isascii()
    assert json.loads(spelled) == {"a": text}


def test_rows_come_back_as_they_were() -> None:
    board = make_board()
    rows = decoded(json.loads(embedded(board_data(board))))
    assert [row["digest"] for row in rows] == [row.digest[:32] for row in board.rows]
    for found, row in zip(rows, board.rows, strict=True):
        assert found["agent"] == row.agent
        assert (found["model"], found["pinned"], found["tier"]) == (row.model, row.pinned, row.tier)
        assert (found["rank"], found["rank_low"], found["rank_high"]) == (
            row.rank, row.rank_low, row.rank_high,
        )  # fmt: skip
        assert found["success"] == round(10_000 * row.success)
        assert row.success_low is not None and row.success_high is not None
        assert found["success_low"] == round(10_000 * row.success_low)
        assert found["success_high"] == round(10_000 * row.success_high)
        assert found["sampled_tokens"] == row.sampled_tokens
        assert (found["dollars"] is None) == (row.dollars is None)
        assert found["submitted"] - found["evaluated"] > 0
    first = next(row for row in rows if row["agent"] == "atlas-react")
    assert (first["dollars"], first["tool_calls"], first["turns"]) == (1.712, 6.4, 7.4)
    assert first["words"]["success"] == "r" and first["words"]["interval"] == "c"
    assert first["words"]["dollars"] == "d"


def test_null_stays_null_and_zero_stays_zero() -> None:
    rows = {row["agent"]: row for row in decoded(board_data(make_board()))}
    assert rows["kestrel-nano"]["sampled_tokens"] is None
    assert rows["kestrel-nano"]["dollars"] is None
    assert rows["warm start"]["dollars"] == 0


def test_a_claimed_row_may_hold_nulls_and_any_score() -> None:
    row = make_board().rows[-1].model_copy(
        update={
            "tier": 0, "success": 71.25, "success_low": None, "success_high": None, "reward": None,
            "num_tasks": None, "trials": None, "turns": None, "tool_calls": None, "rank": None,
            "rank_low": None, "rank_high": None,
        }
    )  # fmt: skip
    (found,) = decoded(board_data(Board(key=KEY, rows=[row])))
    assert found["success"] == 712_500 and found["num_tasks"] is None and found["reward"] is None


def test_every_field_of_a_row_but_the_agents_digest_is_embedded() -> None:
    fields = set(type(make_board().rows[0]).model_fields)
    assert set(FIELDS) == fields - {"agent_digest"}


def test_an_empty_board_is_embedded() -> None:
    assert decoded(board_data(Board(key=KEY, rows=[]))) == []


def test_a_thousand_rows_are_below_140_kb() -> None:
    data = embedded(board_data(large_board()))
    assert 100_000 < len(data) < 140_000
    assert len({row["digest"] for row in decoded(json.loads(data))}) == 1_000


def test_hostile_text_is_embedded_harmless() -> None:
    data = embedded(board_data(hostile_board()))
    assert "<" not in data and "\\u001b" not in data and "\\u202e" not in data
    rows = decoded(json.loads(data))
    assert rows[3]["agent"] == visible(HOSTILE) or rows[4]["agent"] == visible(HOSTILE)


def test_outcomes_of_a_run_are_counted_by_hand() -> None:
    agent = AGENTS[3]
    detail = make_detail(agent, 3)
    found = run_outcomes(detail)
    assert found["tasks"][0] == f"0:{digest_of('task 0')[:8]}" and len(found["tasks"]) == 40
    assert found["solved"] == [sum(trials) for trials in outcomes(agent)]
    assert set(found["trials"]) == {2} and found["seed"] == "7"
    assert set(found["curves"]) == {"tool_calls", "sampled_tokens", "dollars", "turns"}
    last = found["curves"]["dollars"][-1]
    assert last[0] == 0.0214 and last[1] == round(detail.row.success, 4)
    scores = [point[1] for point in found["curves"]["tool_calls"]]
    assert scores == sorted(scores)


def test_a_cost_that_nobody_counted_has_no_curve() -> None:
    found = run_outcomes(make_detail(AGENTS[-1], 1))
    assert set(found["curves"]) == {"tool_calls", "turns"}


def test_the_script_of_a_run_calls_one_function_with_its_name() -> None:
    detail = make_detail(AGENTS[3], 3)
    match = re.fullmatch(r'treegrpo\.loaded\("([0-9a-f]{32})",(\{.*\})\);\n', run_script(detail))
    assert match is not None and match[1] == run_name(detail.row.digest)
    assert json.loads(match[2]) == run_outcomes(detail)


def test_an_environments_page_depends_on_options_and_split() -> None:
    names = {
        environment_id("a/B-v0", {}, "test"),
        environment_id("a/B-v0", {}, "train"),
        environment_id("a/B-v0", {"level": 1}, "test"),
        environment_id("a/B-v1", {}, "test"),
    }
    assert len(names) == 4 and all(re.fullmatch("[0-9a-f]{12}", name) for name in names)
