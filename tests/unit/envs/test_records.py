"""Data files: what each way of reading gives, and one clear error for each fault of the file."""

from __future__ import annotations

import gzip
import hashlib
import json
import time
from pathlib import Path
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from treegrpo.envs.errors import DataFileError
from treegrpo.envs.records import DataFile, Entry, Item, describe


def written(path: Path, content: str | bytes) -> DataFile:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return DataFile(path, "questions")


def told(caught: pytest.ExceptionInfo[DataFileError], path: Path) -> str:
    """Return the one message of an error, without its beginning."""
    message, head = str(caught.value), f"Reading questions from '{path}'"
    assert message.startswith(head) and message.endswith(".")
    assert message.isprintable()
    return message.removeprefix(head)


def refusal(path: Path, content: str | bytes | None = None, *, max_bytes: int = 10_000_000) -> str:
    """Write the content, read its entries to the end, and return the one message."""
    if content is not None:
        written(path, content)
    with pytest.raises(DataFileError) as caught:
        list(DataFile(path, "questions", max_bytes).entries())
    return told(caught, path)


# Entries: a list of objects, or an object a line.


def test_entries_know_their_places(tmp_path: Path) -> None:
    file = written(tmp_path / "data", '\n[ {"a": 1}, {"a":\n 2},\n\n {"a": 3} ]\n')
    entries = list(file.entries())
    assert entries == [Entry({"a": 1}, 2, 1), Entry({"a": 2}, 2, 2), Entry({"a": 3}, 5, 3)]
    assert [entry.place for entry in entries] == [
        "entry 1 (line 2)",
        "entry 2 (line 2)",
        "entry 3 (line 5)",
    ]
    file = written(tmp_path / "data", '\n{"a": 1}\n \n  {"a": "\u2028"}')
    entries = list(file.entries())
    assert entries == [Entry({"a": 1}, 2), Entry({"a": "\u2028"}, 4)]
    assert entries[1].place == "line 4"


@pytest.mark.parametrize("packed", [False, True])
def test_packing_is_told_by_the_first_bytes_and_marks_are_left_out(
    tmp_path: Path, packed: bool
) -> None:
    for text in ('[{"a": 1}]', '{"a": 1}\r\n\r\n'):
        data = b"\xef\xbb\xbf" + text.encode()
        file = written(tmp_path / "data", gzip.compress(data) if packed else data)
        assert [entry.fields for entry in file.entries()] == [{"a": 1}]
        assert file.text() == text


def test_lines_are_streamed(tmp_path: Path) -> None:
    entries = written(tmp_path / "data", '{"a": 1}\nbroken').entries()
    assert next(entries).fields == {"a": 1}  # what follows has not been looked at
    with pytest.raises(DataFileError, match="line 2, column 1"):
        next(entries)


def test_the_digest_is_of_the_bytes_on_disk(tmp_path: Path) -> None:
    packed = gzip.compress(b"[]", mtime=0)
    file = written(tmp_path / "data", packed)
    assert file.digest() == hashlib.sha256(packed).hexdigest()


@given(
    rows=st.lists(
        st.dictionaries(
            st.text(max_size=4), st.none() | st.text(max_size=4) | st.integers(), max_size=3
        ),
        min_size=1,
        max_size=5,
    ),
    indent=st.sampled_from([None, 0, 3]),
    packed=st.booleans(),
)
def test_any_objects_are_read_as_written(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, object]],
    indent: int | None,
    packed: bool,
) -> None:
    path = tmp_path_factory.mktemp("records") / "data"
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    for text in (json.dumps(rows, indent=indent), lines):
        data = text.encode()
        file = written(path, gzip.compress(data) if packed else data)
        assert [entry.fields for entry in file.entries()] == rows
    assert [item.value for item in written(path, json.dumps(rows)).items()] == rows


@given(data=st.binary(max_size=40), packed=st.booleans())
def test_any_bytes_give_entries_or_the_one_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, packed: bool
) -> None:
    path = tmp_path_factory.mktemp("records") / "data"
    file = written(path, gzip.compress(data)[: len(data)] if packed else data)
    for read in (file.entries, file.items, file.table, file.text):
        try:
            list(read())
        except DataFileError as error:
            message = str(error)
            assert message.startswith(f"Reading questions from '{path}'")
            assert "\n" not in message


# The file itself.


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "dev.jsonl").write_text("{}")
    assert refusal(tmp_path / "deb.jsonl") == (
        ": there is no such file. Check the path. Did you mean 'dev.jsonl'? Nothing is downloaded."
    )
    assert "no such file" in refusal(tmp_path / "no_folder" / "dev.jsonl")
    assert "cannot be opened (File name too long)" in refusal(tmp_path / ("x" * 300))
    with pytest.raises(DataFileError, match="no such file"):
        DataFile(tmp_path / "nul\0byte", "x").text()


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


def test_a_file_that_opens_but_cannot_be_read() -> None:
    assert ": it cannot be read (Input/output error)" in refusal(Path("/proc/self/mem"))


@pytest.mark.parametrize("content", ["", "\n \n", gzip.compress(b"", mtime=0), b"\xef\xbb\xbf"])
def test_an_empty_file(tmp_path: Path, content: str | bytes) -> None:
    assert refusal(tmp_path / "q.json", content).startswith(": the file is empty. ")
    with pytest.raises(DataFileError, match="the file is empty"):
        DataFile(tmp_path / "q.json", "x").text()


def test_an_empty_list(tmp_path: Path) -> None:
    assert "the list is empty" in refusal(tmp_path / "q.json", " [ ]\n")


def test_not_utf8_names_line_and_byte(tmp_path: Path) -> None:
    message = refusal(tmp_path / "q.jsonl", b'{}\n{}\n{"id": "caf\xe9"}\n')
    assert ", line 3: not UTF-8 text (byte 0xe9)" in message
    message = refusal(tmp_path / "q.json", b'[\n{"id": 1},\n{"id": "\xff"}]')
    assert ", line 3: not UTF-8" in message
    assert ", line 1: not UTF-8" in refusal(tmp_path / "q.json", "[]".encode("utf-16"))


def test_cut_or_damaged_gzip(tmp_path: Path) -> None:
    packed = gzip.compress(json.dumps([{"text": str(n**9)} for n in range(50)]).encode())
    assert "cut short or damaged" in refusal(tmp_path / "q.json.gz", packed[:-20])
    assert "cut short or damaged" in refusal(tmp_path / "q.json.gz", packed[:4])
    assert "cut short or damaged" in refusal(tmp_path / "q.json.gz", packed + b"more")
    damaged = packed[:60] + bytes(b ^ 0xFF for b in packed[60:90]) + packed[90:]
    assert "cut short or damaged" in refusal(tmp_path / "q.json.gz", damaged)


def test_what_is_held_in_memory_is_bounded(tmp_path: Path) -> None:
    mib, long = 1024**2, "x" * 1024**2
    path = tmp_path / "q.json"
    packed = gzip.compress(json.dumps([{"id": long}], indent=1).encode())
    assert ": the JSON list is longer than 1 MiB" in refusal(path, packed, max_bytes=mib)
    lines = f'{{"id": 1}}\n{{"id": "{long}"}}\n'
    assert ": line 2 is longer than 1 MiB" in refusal(path, lines, max_bytes=mib)
    with pytest.raises(DataFileError, match="it is longer than 1 MiB"):
        DataFile(path, "x", mib).text()


def test_a_large_file_is_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "q.json"
    for first in (b"[\n", b"[" + b" " * 100):
        with path.open("wb") as stream:
            stream.write(first)
            stream.truncate(2**34)  # 16 GiB of nothing: sparse, and never read
        begun = time.process_time()
        if first.endswith(b"\n"):
            assert ": the JSON list is longer than" in refusal(path)
        else:
            assert ": line 1 is longer than" in refusal(path)
        with pytest.raises(DataFileError, match="it is longer than 256 MiB"):
            DataFile(path, "x").table()
        assert time.process_time() - begun < 5.0


# Its JSON.


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
    assert message.startswith(f", {where}: not valid JSON (") and why in message


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
    assert message.startswith(f", {where}: not valid JSON ({why})")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('"text"', "line 1: expected an object, found the string 'text'"),
        ("null", "line 1: expected an object, found null"),
        ("true", "line 1: expected an object, found true"),
        ("2.5", "line 1: expected an object, found the number 2.5"),
        ("[3]", "entry 1 (line 1): expected an object, found the number 3"),
        ("[\n[1, 2]]", "entry 1 (line 2): expected an object, found a list of 2"),
    ],
)
def test_wrong_top_level_type(tmp_path: Path, content: str, found: str) -> None:
    message = refusal(tmp_path / "q.json", content)
    assert message == f", {found}. Give a JSON list of objects, or one object per line."


# Items and tables: one value that holds all.


def test_items_of_lists_and_of_objects(tmp_path: Path) -> None:
    items = list(written(tmp_path / "q", '{\n"a": 1,\n"b\\n":\n[2]}').items())
    assert items == [Item("a", 1, 2), Item("b\n", [2], 3)]
    assert [item.place for item in items] == ["entry 'a' (line 2)", r"entry 'b\n' (line 3)"]
    assert list(written(tmp_path / "q", "[null,\n 7]").items()) == [
        Item(1, None, 1),
        Item(2, 7, 2),
    ]
    assert list(written(tmp_path / "q", "{}").items()) == []
    assert list(written(tmp_path / "q", " []").items()) == []


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("7", "line 1, column 1: not valid JSON (it is neither a list nor an object)"),
        ("{3: 4}", "line 1, column 2: not valid JSON (expecting a name and ':')"),
        ('{"a" 4}', "line 1, column 2: not valid JSON (expecting a name and ':')"),
        ('{"a": 4', "line 1, column 8: not valid JSON (expecting ',' or '}')"),
        ('{"a": 4}\n}', "line 2, column 1: not valid JSON (text after the end of the object)"),
        ('{"a": }', "line 1, column 7: not valid JSON (expecting value)"),
        ("{", "line 1, column 2: not valid JSON (expecting value)"),
    ],
)
def test_items_that_go_wrong(tmp_path: Path, content: str, found: str) -> None:
    file = written(tmp_path / "q", content)
    with pytest.raises(DataFileError) as caught:
        list(file.items())
    assert told(caught, file.path).startswith(f", {found}. ")


def test_tables_of_json_and_toml(tmp_path: Path) -> None:
    assert written(tmp_path / "a.json", ' {"a": {"b": 1}}\n').table() == {"a": {"b": 1}}
    assert written(tmp_path / "a.toml", "[a]\nb = 1\n").table() == {"a": {"b": 1}}
    assert written(tmp_path / "a.toml.gz", gzip.compress(b"b = 1")).table() == {"b": 1}


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.json", "[1]", ": expected an object, found a list of 1. Give one JSON object."),
        ("a.json", '{"a": 1} 2', ", line 1, column 10: not valid JSON (text after the end of the"),
        ("a.json", '{"a": {}', ", line 1, column 9: not valid JSON (expecting ',' delimiter)"),
        ("a.json", "  ", ": the file is empty. "),
        ("a.toml", "a = ", ": not valid TOML (Invalid value (at end of document))"),
        ("a.toml", f"a = {'9' * 5_000}", ": not valid TOML (Exceeds the limit"),
        ("a.toml", f"a = {'[' * 5_000}", ": not valid TOML ("),
    ],
)
def test_tables_that_go_wrong(tmp_path: Path, name: str, content: str, found: str) -> None:
    file = written(tmp_path / name, content)
    with pytest.raises(DataFileError) as caught:
        file.table()
    assert told(caught, file.path).startswith(found)


# Its fields.


class Part(BaseModel):
    size: int


class Shape(BaseModel):
    model_config = ConfigDict(strict=True)

    name: Annotated[str, Field(min_length=1)]
    parts: list[Part] = []
    card: Part | str = ""
    pair: tuple[int, int] = (0, 0)
    counts: dict[str, int] = {}


def test_read_gives_the_model(tmp_path: Path) -> None:
    fields = {"name": "x", "parts": [{"size": 3}], "other": 1}
    shape = DataFile(tmp_path, "x").read(Entry(fields, 1), Shape)
    assert shape == Shape(name="x", parts=[Part(size=3)])


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"name": ...}, "field 'name' is missing; found an empty object"),
        ({"name": 3}, "field 'name' is wrong: Input should be a valid string; found the number 3"),
        ({"parts": [{"size": 1}, {}]}, "field 'parts.1.size' is missing; found an empty object"),
        ({"parts": 7}, "field 'parts' is wrong: Input should be a valid list; found the number 7"),
        ({"card": {"x": 1}}, "field 'card.size' is missing; found an object with the fields 'x'"),
        (
            {"counts": {"\x1b\n": "much"}},
            "field 'counts.\\x1b\\n' is wrong: Input should be a valid integer; "
            "found the string 'much'",
        ),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, change: dict[str, object], found: str) -> None:
    fields = {k: v for k, v in ({"name": "x"} | change).items() if v is not ...}
    file = DataFile(tmp_path / "q", "questions")
    with pytest.raises(DataFileError) as caught:
        file.read(Entry(fields, 7, 2), Shape)
    assert told(caught, file.path) == (
        f", entry 2 (line 7): {found}. Correct the entry or leave it out."
    )


def test_a_missing_part_of_a_pair_and_a_field_within_a_field(tmp_path: Path) -> None:
    file = DataFile(tmp_path / "q", "questions")
    with pytest.raises(DataFileError, match=r"line 7: field 'pair\.1' is missing"):
        file.read(Entry({"name": "x", "pair": (1,)}, 7), Shape)
    with pytest.raises(DataFileError, match=r"line 7: field 'inner\.name' is missing"):
        file.read(Entry({}, 7), Shape, under="inner")
    assert str(file.wrong_field(Entry({}, 7), "f", "is odd", "Make it even.")) == (
        f"Reading questions from '{file.path}', line 7: field 'f' is odd. Make it even."
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("x" * 50, f"the string '{'x' * 40}'..."),
        ("a\x1b[2J", "the string 'a\\x1b[2J'"),  # no control character reaches a terminal
        (False, "false"),
        (None, "null"),
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
