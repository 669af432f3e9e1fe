"""The entries of a data file: their places, and one clear error for each fault of the file."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from treegrpo.envs.errors import DataFileError
from treegrpo.envs.suite.search_qa import records
from treegrpo.envs.suite.search_qa.records import DataFile, Entry, describe


def refusal(path: Path, content: str | bytes | None = None) -> str:
    """Write the content, read it to the end, and return the one message of the error."""
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataFileError) as caught:
        list(DataFile(path, "questions").entries())
    message = str(caught.value)
    assert message.startswith(f"Reading questions from '{path}'")
    assert "\n" not in message and message.endswith(".")
    return message


def test_entries_know_their_places(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text('\n[ {"a": 1}, {"a":\n 2},\n\n {"a": 3} ]\n')
    assert list(DataFile(path, "x").entries()) == [
        Entry({"a": 1}, "entry 1 (line 2)"),
        Entry({"a": 2}, "entry 2 (line 2)"),
        Entry({"a": 3}, "entry 3 (line 5)"),
    ]
    path.write_text('\n{"a": 1}\n \n  {"a": "\u2028"}')
    assert list(DataFile(path, "x").entries()) == [
        Entry({"a": 1}, "line 2"),
        Entry({"a": "\u2028"}, "line 4"),
    ]


def test_lines_are_streamed(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_text('{"a": 1}\nbroken')
    entries = DataFile(path, "x").entries()
    assert next(entries).fields == {"a": 1}  # what follows has not been looked at
    with pytest.raises(DataFileError, match="line 2, column 1"):
        next(entries)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x" * 50, f"the string '{'x' * 40}'..."),
        ("a\x1b[2J", "the string 'a\\x1b[2J'"),  # no control character reaches a terminal
        (False, "false"),
        (1.5, "the number 1.5"),
        ({}, "an empty object"),
        (
            {str(n): n for n in range(20)},
            "an object with the fields '0', '1', '2', '3', '4', "
            "'5', '6', '7', '8', '9', '10', '11'",
        ),
        ([1], "a list of 1"),
        ((1,), "tuple"),
    ],
)
def test_describe(value: object, text: str) -> None:
    assert describe(value) == text


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "dev.jsonl").write_text("{}")
    message = refusal(tmp_path / "deb.jsonl")
    assert "there is no such file" in message and "Did you mean 'dev.jsonl'?" in message
    assert "no such file" in refusal(tmp_path / "no_folder" / "dev.jsonl")


def test_a_folder_tells_what_it_holds(tmp_path: Path) -> None:
    assert "It holds no JSON file." in refusal(tmp_path)
    (tmp_path / "dev.jsonl.gz").write_text("")
    message = refusal(tmp_path)
    assert "this is a folder" in message and "It holds dev.jsonl.gz." in message


def test_a_device_is_refused() -> None:
    assert "not a regular file" in refusal(Path("/dev/null"))


def test_a_file_that_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    assert "cannot be opened (Permission denied)" in refusal(Path(__file__))


@pytest.mark.parametrize("content", ["", "\n \n", gzip.compress(b"", mtime=0), b"\xef\xbb\xbf"])
def test_an_empty_file(tmp_path: Path, content: str | bytes) -> None:
    assert "the file is empty" in refusal(tmp_path / "q.json", content)


def test_an_empty_list(tmp_path: Path) -> None:
    assert "the list is empty" in refusal(tmp_path / "q.json", " [ ]\n")


def test_not_utf8_names_line_and_byte(tmp_path: Path) -> None:
    message = refusal(tmp_path / "q.jsonl", b'{}\n{}\n{"id": "caf\xe9"}\n')
    assert "line 3: not UTF-8 text (byte 0xe9)" in message
    message = refusal(tmp_path / "q.json", b'[\n{"id": 1},\n{"id": "\xff"}]')
    assert "line 3: not UTF-8" in message
    assert "line 1: not UTF-8" in refusal(tmp_path / "q.json", "[]".encode("utf-16"))


def test_cut_or_damaged_gzip(tmp_path: Path) -> None:
    packed = gzip.compress(json.dumps([{"text": str(n**9)} for n in range(50)]).encode())
    assert "cut short or damaged" in refusal(tmp_path / "q.json.gz", packed[:-20])
    assert "cut short or damaged" in refusal(tmp_path / "q.json.gz", packed[:4])
    damaged = packed[:60] + bytes(b ^ 0xFF for b in packed[60:90]) + packed[90:]
    assert "cut short or damaged" in refusal(tmp_path / "q.json.gz", damaged)


@pytest.mark.parametrize(
    ("content", "where", "why"),
    [
        ('{"id": "a", }\n', "line 1, column 13", "double quotes"),
        ('{"_id": "a"} {"_id": "b"}\n', "line 1, column 14", "text after the end of the object"),
        ("{\n", "line 1, column 2", "one object per line"),
        ("hello\n", "line 1, column 1", "expecting value"),
        ("[\n {},\n {,\n]", "line 3, column 3", "double quotes"),
        ('\n[{"context": 1,\n "x": "y', "line 3, column 7", "unterminated string"),
        ("[[[" * 50_000, "line 1, column 2", "recursion"),
        ("[" + "1" * 5_000 + "]", "line 1, column 2", "digits"),
    ],
)
def test_not_json_names_line_and_column(tmp_path: Path, content: str, where: str, why: str) -> None:
    message = refusal(tmp_path / "q.json", content)
    assert f"{where}: not valid JSON (" in message and why in message


@pytest.mark.parametrize(
    ("after", "where", "why"),
    [
        ("", "line 3, column 1", "expecting ',' or ']'"),
        (" {}]", "line 3, column 2", "expecting ',' or ']'"),
        (",]", "line 3, column 2", "expecting value"),
        ("]]", "line 3, column 2", "text after the end of the list"),
    ],
)
def test_a_list_that_goes_wrong_between_entries(
    tmp_path: Path, after: str, where: str, why: str
) -> None:
    message = refusal(tmp_path / "q.json", f"[\n{{}}\n{after}")
    assert f"{where}: not valid JSON ({why})" in message


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('"text"', "line 1: expected an object, found the string 'text'"),
        ("null", "line 1: expected an object, found null"),
        ("true", "found true"),
        ("2.5", "found the number 2.5"),
        ("[3]", "entry 1 (line 1): expected an object, found the number 3"),
        ("[\n[1, 2]]", "entry 1 (line 2): expected an object, found a list of 2"),
    ],
)
def test_wrong_top_level_type(tmp_path: Path, content: str, found: str) -> None:
    message = refusal(tmp_path / "q.json", content)
    assert found in message and "one object per line" in message


def test_what_is_held_in_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_TEXT_BYTES", 1024**2)
    long = "x" * 1024**2
    packed = gzip.compress(json.dumps([{"id": long}], indent=1).encode())
    assert "the JSON list is longer than 1 MiB" in refusal(tmp_path / "q.json", packed)
    message = refusal(tmp_path / "q.json", f'{{"id": 1}}\n{{"id": "{long}"}}\n')
    assert "line 2 is longer than 1 MiB" in message
