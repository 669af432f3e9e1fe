"""Crafting's files: what is read from AgentGym items and recipe text, one error per fault."""

import gzip
import json
from pathlib import Path

import pytest

from treegrpo.envs.errors import DataFileError
from treegrpo.envs.suite.crafting import files
from treegrpo.envs.suite.crafting.book import Book
from treegrpo.envs.suite.crafting.files import BATCH, load_tasks
from treegrpo.envs.suite.crafting.plan import num_steps
from treegrpo.envs.tasks import Task

CRAFTING = Path(__file__).parents[2] / "fixtures" / "crafting"
HEAD = "Crafting commands:\n"
GOOD = HEAD + "craft 1 cup using 2 clay\nGoal: craft cup.\n"


def refusal(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataFileError) as caught:
        load_tasks(path)
    message = str(caught.value)
    assert message.startswith(f"Reading crafting tasks from '{path}'")
    assert message.endswith(".") and "\n" not in message
    return message.removeprefix(f"Reading crafting tasks from '{path}'")


def book_of(task: Task) -> Book:
    return task.data["book"]


def test_agentgym_items_give_recipes_goal_and_id() -> None:
    sign, mug = load_tasks(CRAFTING / "items.json")
    assert (sign.id, sign.answer, sign.difficulty) == ("textcraft_0", ("birch sign", 1), 3)
    assert (mug.id, mug.answer, mug.difficulty) == ("textcraft_1", ("tin mug", 2), 2)
    assert [recipe.item for recipe in book_of(sign).recipes] == [
        "birch sign",
        "birch planks",
        "stick",
        "birch door",
    ]
    # "planks" is a group, and birch planks the first item that belongs to it.
    assert book_of(sign).recipes[2].parts == (("birch planks", 2),)
    # 6 planks and a stick of 2 planks: 2 logs. 6 ingots: 6 ore, 6 coal.
    assert [(r.name, r.stock) for r in book_of(sign).resources] == [("birch log", BATCH)]
    assert [(r.name, r.stock) for r in book_of(mug).resources] == [("tin ore", 12), ("coal", 12)]
    assert num_steps(book_of(mug), mug.answer) == (2 + 2 + 6 + 2, 12)


def test_recipe_text_gives_its_blocks_in_order() -> None:
    hut, candle = load_tasks(CRAFTING / "recipes.txt")
    assert (hut.answer, candle.answer) == (("reed hut", 1), ("candle", 3))
    assert hut.question == (
        "Gather: bamboo pole, reed. Craft: reed hut, reed mat. Make 1 reed hut."
    )
    assert book_of(candle).recipes[0].parts == (("wax", 1), ("string", 1))


def test_a_gzip_file_and_objects_one_after_the_other_are_read(tmp_path: Path) -> None:
    items = json.loads((CRAFTING / "items.json").read_text())
    path = tmp_path / "items.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(json.dumps(item) for item in items).encode()))
    assert load_tasks(path) == load_tasks(CRAFTING / "items.json")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", ": the file is empty. "),
        ("[]", ": the list is empty. "),
        ("[7]", ", entry 1 (line 1): expected an object, found the number 7. "),
        ('[\n{"item_id": "a"', ", line 2, column 16: not valid JSON (expecting ',' delimiter)"),
        ("[" * 100_000, ", line 1, column 2: not valid JSON (maximum recursion"),
        ('[\n{"conversations": []}]', ", entry 1 (line 2): field 'item_id' is missing; "),
        ('[{"item_id": 3, "conversations": []}]', ", entry 1 (line 1): field 'item_id' is wrong: "),
        (
            '[{"item_id": "a", "conversations": []}]',
            ", entry 1 (line 1): field 'conversations' is wrong: List",
        ),
        (
            '[{"item_id": "a", "conversations": [{"value": 4}]}]',
            ", entry 1 (line 1): field 'conversations.0.value' is wrong: Input should be a valid",
        ),
        (
            '[{"item_id": "a", "conversations": [{"value": "Hello."}]}]',
            ", entry 1 (line 1): field 'conversations' has no message with 'Crafting commands:'",
        ),
        (b"\xff\xfe", ", line 1: not UTF-8 text (byte 0xff)"),
        (gzip.compress(GOOD.encode(), mtime=0)[:-9], ": the gzip data is cut short or damaged"),
        ("craft 1 cup using 2 clay", ", line 1: found 'craft 1 cup using 2 clay' outside a task"),
        (HEAD + "craft 1 cup using 2 clay\n", ", line 1: the task ends without 'Goal:'"),
        (HEAD + GOOD, ", line 2: line 1's task has no goal"),
        (HEAD + "craft cup using clay\nGoal: craft cup.", ", line 2: 'craft cup using clay' is no"),
        (HEAD + "craft 1 cup using 0 clay\nGoal: craft cup.", ", line 2: 'craft 1 cup using 0"),
        (HEAD + "craft 1 cup using 1000 clay\nGoal: craft cup.", ", line 2: 'craft 1 cup using"),
        (HEAD + "craft 1 cup using 1 clay,\nGoal: craft cup.", ", line 2: 'craft 1 cup using 1"),
        (HEAD + "craft 1 cup using 1 clay\nGoal: make cup.", ", line 3: 'Goal: make cup.' is no"),
        (HEAD + "craft 1 cup using 1 clay\nGoal: craft jug.", ", line 3: no commands lead from"),
        (HEAD + "craft 1 a using 1 b\ncraft 1 b using 1 a\nGoal: craft a.", ", line 4: no comma"),
        (HEAD + "craft 1 a using 600 b\nGoal: craft 9 a.", ", line 3: the goal takes 685 steps"),
        (
            HEAD + "craft 1 a using 1 b\n" * 301 + "Goal: craft a.",
            ", line 302: the task has more than 300 commands",
        ),
        (GOOD + GOOD, ", line 5: the task is the same as that of line 2"),
    ],
)
def test_each_fault_is_one_message(tmp_path: Path, content: str | bytes, found: str) -> None:
    assert refusal(tmp_path / "tasks", content).startswith(found)


def test_a_fault_inside_a_message_names_field_and_line(tmp_path: Path) -> None:
    value = HEAD + "craft 1 cup using 2 clay\nmelt 1 cup\nGoal: craft cup."
    items = [{"item_id": "a", "conversations": [{"from": "human", "value": value}]}]
    assert refusal(tmp_path / "items.json", json.dumps(items)) == (
        ", entry 1 (line 1): field 'conversations.0.value', its line 3: "
        "'melt 1 cup' is no command. "
        "Write 'craft 4 oak planks using 1 oak log', counts from 1 to 999."
    )
    items[0]["conversations"] = [{"value": "Goal: craft cup.\n" + HEAD}]
    assert "no goal follows the commands" in refusal(tmp_path / "items.json", json.dumps(items))


def test_an_id_used_twice_is_named(tmp_path: Path) -> None:
    items = json.loads((CRAFTING / "items.json").read_text())
    text = ",\n".join(json.dumps(item) for item in (items[0], items[0]))
    found = ", entry 2 (line 2): field 'item_id' is 'textcraft_0', as on line 1. Leave one of"
    assert refusal(tmp_path / "items.json", f"[{text}]").startswith(found)


def test_a_file_too_long_and_a_folder_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 1024)
    assert refusal(tmp_path / "long", "x" * 1025).startswith(": it is longer than 0.0009")
    bomb = gzip.compress(b"x" * 10_000_000, mtime=0)
    assert refusal(tmp_path / "bomb", bomb).startswith(": it is longer than 0.0009")
    with pytest.raises(DataFileError, match="this is a folder"):
        load_tasks(tmp_path)
    with pytest.raises(DataFileError, match="Did you mean 'bomb'"):
        load_tasks(tmp_path / "bombs")
