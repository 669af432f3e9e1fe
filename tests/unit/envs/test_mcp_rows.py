"""Rows of tasks for an MCP server: what is read, what is refused, which split."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from treegrpo.envs.errors import DataFileError
from treegrpo.envs.mcp.rows import read_rows, tasks_of

FIXTURE = Path(__file__).parents[2] / "fixtures" / "mcp" / "till.jsonl"
SPLITS = ("train", "validation", "test")


def test_the_fixture_is_read() -> None:
    rows = read_rows(str(FIXTURE))
    tasks = [task for split in SPLITS for task in tasks_of(rows, split)]
    assert len(tasks) == len(rows) == 4
    by_id = {task.id: task for task in tasks}
    first = by_id["till-1"]
    assert (first.question, first.answer, first.difficulty) == ("Bring the total to 7.", None, 1)
    check, setup = first.data["check"], first.data["setup"]
    assert (check.name, check.gives, setup[0].arguments) == ("total", "7", {"amount": 3})


def test_content_decides_the_split_and_no_task_is_in_two() -> None:
    rows = read_rows([{"question": f"Sum {n}?", "answer": n} for n in range(300)])
    ids = [{task.id for task in tasks_of(rows, split)} for split in SPLITS]
    assert sum(map(len, ids)) == 300 and not ids[0] & ids[1] and not ids[2] & (ids[0] | ids[1])
    assert min(map(len, ids)) > 30 and len(ids[0]) > 150


def test_a_row_may_name_its_split_but_not_two() -> None:
    row = {"question": "Sum?", "answer": 1}
    rows = read_rows([{**row, "split": "test"}, {**row, "split": "test"}])
    assert len(tasks_of(rows, "test")) == 2
    with pytest.raises(DataFileError, match="asks the same as one in split 'test'"):
        read_rows([{**row, "split": "test"}, {**row, "split": "train"}])


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"answer": 1}, "question"),
        ({"question": "", "answer": 1}, "question"),
        ({"question": "x"}, "row"),
        ({"question": "x", "check": {"name": "total"}}, "row"),
        ({"question": "x", "answer": 1, "setup": [{"arguments": {}}]}, "setup.0.name"),
        ({"question": "x", "answer": 1, "difficulty": 9}, "difficulty"),
        ({"question": "x", "answer": 1, "colour": "red"}, "colour"),
        ([1], "row"),
    ],
)
def test_a_wrong_row_is_named_with_its_field(row: Any, field: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "fine", "answer": 1}) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DataFileError, match=f"rows.jsonl, line 2, field '{field}'"):
        read_rows(str(path))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="cannot be read"):
        read_rows(str(tmp_path / "none.jsonl"))
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n\n")
    with pytest.raises(DataFileError, match="it holds none"):
        read_rows(str(empty))
    broken = tmp_path / "broken.jsonl"
    broken.write_bytes(b'{"question": "x", "answer": 1}\n{"question": \xff\n')
    with pytest.raises(DataFileError, match="line 2: no JSON"):
        read_rows(str(broken))
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(FIXTURE.read_bytes()))
    assert len(read_rows(str(packed))) == 4
    packed.write_bytes(gzip.compress(FIXTURE.read_bytes())[:-20])
    with pytest.raises(DataFileError, match="cannot be read"):
        read_rows(str(packed))


def test_a_line_without_end_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treegrpo.envs.adapters.json_lines.MAX_LINE_BYTES", 100)
    path = tmp_path / "long.jsonl"
    path.write_bytes(b'{"question": "' + b"x" * 10_000)
    with pytest.raises(DataFileError, match="line 1: longer than 100 bytes"):
        read_rows(str(path))
