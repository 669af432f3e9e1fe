"""Notes' files: what is read from conversations, questions and answers, one error per fault."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from treegrpo.envs.errors import DataFileError
from treegrpo.envs.suite.notes import files
from treegrpo.envs.suite.notes.files import MAX_MESSAGE_CHARS, load_tasks

MEMORY = Path(__file__).parents[2] / "fixtures" / "notes" / "memory.jsonl"
TURNS = [[{"role": "user", "content": "I like tea."}]]
TOLD = {"id": "memory_prereq_0", "scenario": "tea", "question": TURNS}
ASKED = {"id": "memory_0", "scenario": "tea", "question": TURNS}
RIGHT = {"id": "memory_0", "ground_truth": ["tea"]}


def lines(*entries: object) -> str:
    return "\n".join(json.dumps(entry) for entry in entries)


def refusal(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataFileError) as caught:
        load_tasks(path)
    message = str(caught.value)
    head = f"Reading conversations and questions from '{path}'"
    assert message.startswith(head) and message.endswith(".") and "\n" not in message
    return message.removeprefix(head)


def test_a_scenario_s_conversations_come_before_its_question() -> None:
    hives, planted, boat = load_tasks(MEMORY)
    assert hives.data["script"].messages == (
        "Good morning! I am Oda, and I keep bees behind the old mill.",
        "I began with three hives; last week I sold one of them.",
        "My neighbour Pim planted quinces this spring.",
    )
    assert planted.data["script"].messages == hives.data["script"].messages
    assert boat.data["script"].messages == ("Our boat is called the Grey Heron.",)
    assert (hives.answer, boat.answer) == (("two", "2"), ("Grey Heron",))
    assert hives.data["script"].asked == "How many hives do I have left?"
    assert hives.question == "You have 7 notes of at most 300 characters."


def test_order_does_not_matter_and_gzip_is_read(tmp_path: Path) -> None:
    path = tmp_path / "memory.jsonl.gz"
    entries = MEMORY.read_text().splitlines()
    path.write_bytes(gzip.compress("\n\n".join([*entries[3:], *entries[:3]]).encode()))
    assert load_tasks(path) == load_tasks(MEMORY)


def test_what_others_say_is_left_out_and_long_messages_are_parted(tmp_path: Path) -> None:
    long = "word " * 1_000
    said: list[Any] = [
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": long},
    ]
    path = tmp_path / "long.jsonl"
    path.write_text(lines({**TOLD, "question": [said]}, ASKED, RIGHT))
    messages = load_tasks(path)[0].data["script"].messages
    assert len(messages) == 2 and " ".join(messages) == long.strip()
    assert max(map(len, messages)) <= MAX_MESSAGE_CHARS


def test_the_level_is_by_the_number_of_messages(tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    for count, level in ((19, 1), (20, 2), (500, 5)):
        path.write_text(lines(*[TOLD] * count, ASKED, RIGHT))
        assert load_tasks(path)[0].difficulty == level


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", ": the file is empty. "),
        ("\n \n", ": the file is empty. "),
        ("[1]", ", entry 1 (line 1): expected an object, found the number 1. "),
        (lines(TOLD) + '\n{"id": ', ", line 2, column 7: not valid JSON (expecting value)"),
        ("[" * 100_000, ", line 1, column 2: not valid JSON"),
        (b"\n\xe9", ", line 2: not UTF-8 text (byte 0xe9)"),
        (
            gzip.compress(lines(TOLD).encode(), mtime=0)[:-9],
            ": the gzip data is cut short or damaged",
        ),
        (lines(TOLD, RIGHT), ": it has no question. "),
        (
            lines({"scenario": "tea"}),
            ", line 1: field 'id' is missing; found an object with the fields 'scenario'. ",
        ),
        (lines({**TOLD, "id": 3}), ", line 1: field 'id' is wrong: Input should be a valid string"),
        (lines({**TOLD, "question": "Hi"}), ", line 1: field 'question' is wrong: Input should"),
        (
            lines({**TOLD, "question": [[{"role": "user"}]]}),
            ", line 1: field 'question.0.0.content' is missing; ",
        ),
        (lines({**TOLD, "question": [[]]}), ", line 1: field 'question' has no message of the"),
        (lines({**RIGHT, "ground_truth": []}), ", line 1: field 'ground_truth' is wrong: List"),
        (lines({**RIGHT, "ground_truth": "tea"}), ", line 1: field 'ground_truth' is wrong: Input"),
        (lines({**RIGHT, "ground_truth": ["."]}), ", line 1: field 'ground_truth' has a text wit"),
        (lines(ASKED, RIGHT), ", line 1: field 'scenario' is 'tea'; conversations are of: none. "),
        (lines(TOLD, ASKED), ", line 2: field 'id' is 'memory_0', which no line with"),
        (lines(ASKED, ASKED), ", line 2: field 'id' is 'memory_0', as on line 1. "),
        (lines(RIGHT, RIGHT), ", line 2: field 'id' is 'memory_0', as on line 1. "),
    ],
)
def test_each_fault_is_one_message(tmp_path: Path, content: str | bytes, found: str) -> None:
    assert refusal(tmp_path / "memory.jsonl", content).startswith(found)


def test_a_line_too_long_a_folder_and_a_wrong_name_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 2048)
    bomb = gzip.compress(lines(TOLD).encode() + b"\n" + b" " * 10_000_000)
    assert refusal(tmp_path / "bomb", bomb).startswith(": line 2 is longer than 0.0019")
    with pytest.raises(DataFileError, match="this is a folder"):
        load_tasks(tmp_path)
    with pytest.raises(DataFileError, match="Did you mean 'bomb'"):
        load_tasks(tmp_path / "bombs")
