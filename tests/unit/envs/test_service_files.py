"""Domain folders in tau2-bench's form: what is read, what is refused, how tasks are judged."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from treegrpo.envs import make
from treegrpo.envs.core import ToolEnv
from treegrpo.envs.errors import DataFileError, UnknownSplit
from treegrpo.envs.snapshot import core_of
from treegrpo.envs.suite.service import domain_files
from treegrpo.envs.suite.service.domain_files import Action, load_domain, with_data
from treegrpo.envs.suite.service.file_desk import PATIENCE, FileDesk, match, tells

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "service"
LIBRARY, LISTS = FIXTURES / "library", FIXTURES / "lists"


def at(task_id: str, split: str = "base") -> FileDesk:
    env = FileDesk(str(LIBRARY))
    env.reset(seed=0, options={"split": split, "task_id": task_id})
    return env


def call(env: ToolEnv, tool: str, **arguments: Any) -> tuple[str, float, list[str]]:
    text, reward, _, _, info = env.step(env.encode_call(tool, **arguments))
    return text, reward, info["errors"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the library, to be spoiled."""
    return Path(shutil.copytree(LIBRARY, tmp_path / "library"))


def test_a_folder_is_read_as_it_is() -> None:
    domain = load_domain(LIBRARY)
    assert [task.id for task in domain.tasks] == ["renew", "fine", "waiting"]
    assert domain.skipped == {"initialization actions": 1}
    assert domain.splits["train"] == ("renew", "scripted")
    assert {name: len(rows) for name, rows in domain.tables.items()} == {"readers": 2, "loans": 3}
    assert domain.actions == {"renew_loan": ("loan_id", "days"), "waive_fine": ("reader_id",)}
    assert domain.tasks[0].sentences == (
        "I want to keep Harbor Lights two weeks longer.",
        "My number is r1.",
        "If it cannot be renewed I bring it back tomorrow.",
    )
    assert len(domain.tasks[1].sentences) == 1 and domain.tasks[2].gold == ()


def test_toml_with_lists_is_read_and_needs_no_splits() -> None:
    env = FileDesk(str(LISTS))
    assert {name: list(rows) for name, rows in env.folder.tables.items()} == {
        "shows": ["s1", "s2"],
        "halls": ["0"],
    }
    env.reset(seed=0, options={"split": "test"})
    assert call(env, "record", table="shows", key="s2")[0] == (
        '{"show_id": "s2", "title": "The Mill", "day": "2025-05-03"}'
    )


@pytest.mark.parametrize("folder", [LIBRARY, LISTS])
def test_the_oracle_solves_every_playable_task(folder: Path) -> None:
    env = make("treegrpo/Service-v0", data=str(folder))
    core = core_of(env)
    for split in ("train", "test"):
        for index in range(len(core.tasks(split))):
            env.reset(seed=0, options={"split": split, "index": index})
            while not core.episode.ended:
                env.step(core.oracle())
            assert core.episode.episode_return == 1.0


def test_the_tools_show_the_records() -> None:
    env = at("fine")
    assert call(env, "tables")[0] == "readers (2), loans (3)"
    assert call(env, "find", table="loans", text="harbor LIGHTS")[0] == "l1"
    assert call(env, "find", table="loans", text="nowhere")[0] == "Nothing found."
    assert '"fine": 4' in call(env, "record", table="readers", key="r1")[0]
    assert '"fine": 9' in call(env, "record", table="readers", key="r2")[0]
    for tool, arguments, reply in (
        ("record", {"table": "readers", "key": "r9"}, "table readers has no record 'r9'"),
        ("record", {"table": "cars", "key": "r9"}, "there is no table 'cars'; tables: readers"),
        ("act", {"action": "burn", "arguments": {}}, "there is no act 'burn'; acts: renew_loan"),
        ("act", {"action": "waive_fine", "arguments": {"x": "y" * 5000}}, "at most 4000"),
    ):
        text, _, errors = call(env, tool, **arguments)
        assert reply in text and errors == ["tool_error"], text
    assert call(env, "act", action="waive_fine", arguments="much")[2] == ["bad_arguments"]


def test_a_tasks_own_data_does_not_reach_other_tasks() -> None:
    env = at("renew")
    assert '"fine": 3' in call(env, "record", table="readers", key="r1")[0]
    below = {"a": {"x": 1, "y": {"z": 2}}, "b": {}}
    assert with_data(below, {"a": {"y": {"z": 3}}}) == {"a": {"x": 1, "y": {"z": 3}}, "b": {}}
    assert below["a"] == {"x": 1, "y": {"z": 2}}


def test_the_customer_reads_the_card_and_then_loses_patience() -> None:
    env = at("renew")
    assert "Customer: I want to keep" in env.messages[-1]["content"]
    assert call(env, "say", text="Who are you?")[0] == "Customer: My number is r1."
    assert call(env, "say", text="And else?")[0].startswith("Customer: If it cannot be renewed")
    for _ in range(PATIENCE - 1):
        assert call(env, "say", text="?")[0] == "Customer: I have told you all I know."
    call(env, "say", text="?")
    assert (env.episode.end_reason, env.episode.episode_return) == ("customer_left", 0.0)


def test_acts_must_be_the_gold_ones_and_no_more() -> None:
    right = {"action": "renew_loan", "arguments": {"loan_id": "l1", "days": 14}}
    for acts, reward in (
        ([right], 1.0),
        ([], 0.0),
        ([right, right], 0.0),
        ([{**right, "arguments": {"loan_id": "l1", "days": 7}}], 0.0),
        ([right, {"action": "waive_fine", "arguments": {"reader_id": "r1"}}], 0.0),
    ):
        env = at("renew")
        for act in acts:
            assert call(env, "act", **act)[0] == "Noted."
        assert call(env, "done")[1] == reward


def test_only_the_arguments_to_compare_count() -> None:
    loose = Action(name="f", arguments={"a": 1, "b": 2}, compare_args=["a"])
    strict = Action(name="f", arguments={"a": 1, "b": 2})
    assert match([loose], [("f", '{"a": 1, "b": 3}')])
    assert not match([strict], [("f", '{"a": 1, "b": 3}')])
    acts = [("f", '{"a": 1, "b": 2}'), ("f", '{"a": 1, "b": 3}')]
    assert match([loose, strict], acts) and match([loose, strict], acts[::-1])


def test_facts_are_told_as_whole_words() -> None:
    assert tells("You pay 1,250 now.", "1250") and tells("On 2025-03-09.", "2025-03-09")
    assert not tells("You pay 12500.", "1250") and not tells("03-09 2025", "2025-03-09")
    env = at("waiting")
    call(env, "say", text="There are 2 readers, and it is due 2025-03-09.")
    assert env.state.told == [0, 1]
    assert call(env, "done")[1] == 1.0


def test_an_unknown_split_is_told_with_those_of_the_file() -> None:
    with pytest.raises(UnknownSplit, match="train, test, base"):
        FileDesk(str(LIBRARY)).reset(options={"split": "validation"})


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match=r"policy\.md': there is no such file\..*Nothing is"):
        load_domain(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": None}, r"tasks\.json', entry 1 \(line 1\): field 'id' is wrong"),
        ({"user_scenario": None}, r"\(line 1\): field 'user_scenario' is wrong"),
        ({"user_scenario": {"instructions": {"known_info": "x"}}}, r"reason_for_call' is missing"),
        ({"evaluation_criteria": {"actions": [{"name": 3}]}}, r"criteria\.actions\.0\.name' is"),
        ({"evaluation_criteria": None}, "no task can be played"),
        ({"evaluation_criteria": {"actions": [{"name": "get_x"}]}}, "nothing to tell"),
        ({"evaluation_criteria": {"actions": [{"name": "f", "requestor": "user"}]}}, "of the user"),
        ({"evaluation_criteria": {"env_assertions": [{}]}}, "assertions about the environment"),
        ({"initial_state": {"message_history": [{}]}}, "a message history"),
    ],
)
def test_wrong_fields_are_named(folder: Path, change: dict[str, Any], message: str) -> None:
    task = json.loads((LIBRARY / "tasks.json").read_text("utf-8"))[0]
    (folder / "split_tasks.json").unlink()
    (folder / "tasks.json").write_text(json.dumps([{**task, **change}]), "utf-8")
    with pytest.raises(DataFileError, match=message):
        load_domain(folder)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("tasks.json", "", "the file is empty"),
        ("tasks.json", "[]", "the list is empty"),
        ("tasks.json", "{}", "line 1: field 'id' is missing"),
        ("tasks.json", "[\n7]", r"entry 1 \(line 2\): expected an object, found the number 7"),
        ("tasks.json", '[\n{"id": }]', "line 2, column 8: not valid JSON"),
        ("tasks.json", "[" * 100_000, "not valid JSON|expected an object"),
        ("db.json", '{"a": {}', "not valid JSON"),
        ("db.json", "[1]", "expected an object, found a list of 1"),
        ("db.json", '{"a": 1}', "no table was found"),
        ("db.json", "{} {}", "text after the end"),
        ("split_tasks.json", '{"train": 1}', "field 'train' is no list"),
        ("split_tasks.json", '{"train": ["lost"]}', "names task 'lost'"),
    ],
)
def test_broken_files_are_one_message(folder: Path, name: str, text: str, message: str) -> None:
    (folder / name).write_text(text, "utf-8")
    with pytest.raises(DataFileError, match=message):
        load_domain(folder)


def test_bytes_that_are_no_text_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "policy.md").write_bytes(b"ok\n\xff")
    with pytest.raises(DataFileError, match="line 2: not UTF-8"):
        load_domain(folder)
    packed = gzip.compress((LIBRARY / "db.json").read_bytes())
    (folder / "policy.md").write_text("ok", "utf-8")
    (folder / "db.json").write_bytes(packed)
    assert load_domain(folder).tables == load_domain(LIBRARY).tables
    (folder / "db.json").write_bytes(packed[:-9])
    with pytest.raises(DataFileError, match="cut short or damaged"):
        load_domain(folder)
    monkeypatch.setattr(domain_files, "MAX_BYTES", 10)
    with pytest.raises(DataFileError, match="it is longer than"):
        load_domain(LIBRARY)


def test_bad_toml_and_two_tasks_of_one_id_are_told(folder: Path, tmp_path: Path) -> None:
    lists = Path(shutil.copytree(LISTS, tmp_path / "lists"))
    (lists / "db.toml").write_text("a = ", "utf-8")
    with pytest.raises(DataFileError, match="not valid TOML"):
        load_domain(lists)
    task = json.loads((LIBRARY / "tasks.json").read_text("utf-8"))[0]
    (folder / "tasks.json").write_text(f"[{json.dumps(task)},\n{json.dumps(task)}]", "utf-8")
    with pytest.raises(
        DataFileError, match=r"entry 2 \(line 2\): field 'id' is 'renew', as on line 1"
    ):
        load_domain(folder)
