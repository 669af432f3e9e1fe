"""Task files: each public format is read, converted and solved; a bad file is told exactly."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.unit.envs.fake_sandbox import FakeBackend
from treegrpo.envs import make
from treegrpo.envs.errors import DataFileError, UnknownOption
from treegrpo.envs.suite.code_exec.checks import Exam, Inside, Outside, Stdin
from treegrpo.envs.suite.code_exec.files import Dataset, load_tasks
from treegrpo.envs.suite.code_exec.grading import grade
from treegrpo.envs.tasks import Task
from treegrpo.sandboxes import SandboxSpec

FOLDER = Path(__file__).parents[2] / "fixtures" / "code"
FILES: dict[Dataset, str] = {
    "humaneval": "HumanEval.jsonl",
    "mbpp": "mbpp.jsonl",
    "mbpp_sanitized": "sanitized-mbpp.json",
    "apps": "apps.jsonl",
}


def load(dataset: Dataset) -> list[Task]:
    return load_tasks(FOLDER / FILES[dataset], dataset)


def exam(task: Task) -> Exam:
    assert isinstance(task.answer, Exam)
    return task.answer


def score(task: Task, source: str) -> float:
    backend = FakeBackend()
    spec = SandboxSpec()
    return grade(lambda: backend.create(spec), exam(task), source, stop_early=False).fraction


@pytest.mark.parametrize("dataset", FILES)
def test_every_reference_solves_its_task_and_nothing_solves_none(dataset: Dataset) -> None:
    solved = 0
    for task in load(dataset):
        assert score(task, "pass") < 1.0, task.id
        if task.data["solution"] is not None:
            assert score(task, task.data["solution"]) == 1.0, task.id
            solved += 1
    assert solved >= 3


@pytest.mark.parametrize(
    ("dataset", "kinds"),
    [
        (
            "humaneval",
            {"Own/0": (5, 0, 0), "Own/1": (4, 0, 0), "Own/2": (1, 1, 0), "Own/3": (2, 0, 0)},
        ),
        (
            "mbpp",
            {
                "mbpp/9001": (3, 0, 0),
                "mbpp/9002": (3, 0, 0),
                "mbpp/9003": (3, 0, 0),
                "mbpp/9004": (2, 1, 0),
            },
        ),
        (
            "mbpp_sanitized",
            {"mbpp/9101": (2, 0, 0), "mbpp/9102": (3, 0, 0), "mbpp/9103": (3, 0, 0)},
        ),
        (
            "apps",
            {
                "apps/0": (0, 0, 2),
                "apps/1": (2, 0, 0),
                "apps/2": (0, 0, 1),
                "apps/4": (2, 0, 0),
            },
        ),
    ],
)
def test_what_is_checked_outside(dataset: Dataset, kinds: dict[str, tuple[int, ...]]) -> None:
    found: dict[str, tuple[int, ...]] = {}
    for task in load(dataset):
        counts = Counter(type(check) for check in exam(task).checks)
        found[task.id] = (counts[Outside], counts[Inside], counts[Stdin])
        assert exam(task).num_inside == counts[Inside]
    assert found == kinds


def test_questions_show_what_is_needed_and_hide_the_rest() -> None:
    tasks = {task.id: task for dataset in FILES for task in load(dataset)}
    assert "def widest_gap(marks" in tasks["Own/0"].question
    assert "[10, 100]" not in tasks["Own/0"].question
    question = tasks["mbpp/9001"].question
    assert 'count_vowels("banana") == 3' in question and "aeiou" not in question
    assert "sorted(set" not in tasks["mbpp/9101"].question
    assert tasks["apps/0"].question.endswith("standard output.")
    assert "Begin with:\nclass Solution" in tasks["apps/1"].question
    assert tasks["apps/1"].question.endswith("The tests call Solution().places.")
    assert [tasks[f"apps/{i}"].difficulty for i in (0, 1, 2)] == [1, 2, 3]
    assert tasks["apps/2"].data["example"] == "1 2\n3"


def test_a_wrong_solution_of_a_file_fails() -> None:
    tasks = {task.id: task for dataset in FILES for task in load(dataset)}
    assert score(tasks["Own/2"], "def unlock(text):\n    return 'abc'") == 0.5
    assert score(tasks["Own/3"], "def spans(text):\n    return [len(w) for w in text.split()]") == 0
    assert score(tasks["apps/0"], "print('9')\nprint('-4')") == 0.5
    assert score(tasks["mbpp/9002"], "def ring_area(a, b):\n    return 9.4248") == 1 / 3


def test_gzip_and_lists_and_lines_are_told_by_the_content(tmp_path: Path) -> None:
    data = (FOLDER / FILES["humaneval"]).read_bytes()
    packed = tmp_path / "HumanEval.jsonl.gz"
    packed.write_bytes(gzip.compress(data))
    as_list = tmp_path / "HumanEval.json"
    as_list.write_text(json.dumps([json.loads(line) for line in data.splitlines()]))
    assert load_tasks(packed, "humaneval") == load_tasks(as_list, "humaneval") == load("humaneval")
    packed.write_bytes(gzip.compress(data)[:-9])
    with pytest.raises(DataFileError, match="cut short or damaged"):
        load_tasks(packed, "humaneval")


HUMANEVAL: dict[str, Any] = json.loads((FOLDER / FILES["humaneval"]).read_text().splitlines()[0])
MBPP: dict[str, Any] = json.loads((FOLDER / FILES["mbpp"]).read_text().splitlines()[0])
APPS: dict[str, Any] = json.loads((FOLDER / FILES["apps"]).read_text().splitlines()[0])


@pytest.mark.parametrize(
    ("dataset", "entry", "change", "message"),
    [
        ("humaneval", HUMANEVAL, {"test": None}, "field 'test' is wrong: Input should be a valid"),
        (
            "humaneval",
            HUMANEVAL,
            {"prompt": ...},
            "field 'prompt' is missing; found an object with",
        ),
        ("humaneval", HUMANEVAL, {"test": "def"}, "field 'test' is not valid Python: invalid syn"),
        ("humaneval", HUMANEVAL, {"test": "x = 1"}, "field 'test' has no function check(candidat"),
        ("humaneval", HUMANEVAL, {"entry_point": "f"}, "field 'entry_point' names 'f', which the"),
        ("humaneval", HUMANEVAL, {"canonical_solution": ")"}, "field 'canonical_solution' is not"),
        ("mbpp", MBPP, {"task_id": "7"}, "field 'task_id' is wrong: Input should be a valid int"),
        ("mbpp", MBPP, {"test_list": []}, "field 'test_list' is wrong: List should have at leas"),
        ("mbpp", MBPP, {"test_list": ["assert"]}, "field 'test_list.0' is not valid Python"),
        ("mbpp", MBPP, {"code": "def f(:"}, "field 'code' is not valid Python"),
        ("mbpp", MBPP, {"test_setup_code": "("}, "field 'test_setup_code' is not valid Python"),
        ("mbpp_sanitized", MBPP, {}, "field 'prompt' is missing"),
        ("apps", APPS, {"input_output": "{"}, "field 'input_output' holds no valid JSON"),
        ("apps", APPS, {"input_output": "[1]"}, "field 'input_output' holds JSON of a list, not"),
        ("apps", APPS, {"input_output": '{"inputs": []}'}, "field 'input_output.outputs' is miss"),
        (
            "apps",
            APPS,
            {"input_output": '{"inputs": ["1"], "outputs": []}'},
            "field 'input_output' has 1 inputs and 0 outputs",
        ),
        ("apps", APPS, {"solutions": "{}"}, "field 'solutions' holds JSON of a dict, not of a li"),
        ("apps", APPS, {"difficulty": "hard"}, "field 'difficulty' is wrong: Input should be 'in"),
        ("apps", APPS, {"problem_id": ...}, "field 'problem_id' is missing"),
    ],
)
def test_a_wrong_field_is_named_with_file_and_line(
    tmp_path: Path, dataset: Dataset, entry: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    wrong = {k: v for k, v in (entry | change).items() if v is not ...}
    good = {**entry, "task_id": "Own/x" if dataset == "humaneval" else 1, "problem_id": 99}
    path = tmp_path / "tasks.jsonl"
    lines = [json.dumps(wrong)] if dataset == "mbpp_sanitized" else [json.dumps(good), "", ""]
    if len(lines) > 1:
        lines[2] = json.dumps(wrong)
    path.write_text("\n".join(lines))
    with pytest.raises(DataFileError) as error:
        load_tasks(path, dataset)
    assert f"Reading {dataset} tasks from '{path}', line {len(lines)}: {message}" in str(
        error.value
    )
    assert str(error.value).endswith("Correct the entry or leave it out.")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        ("\n \n", "the file is empty"),
        ("[]", "the list is empty"),
        ('{"a": 1', "line 1, column 8: not valid JSON"),
        ('\n{"a": 1} x', "line 2, column 10: not valid JSON (text after the end of the object)"),
        ("[1]", "entry 1 (line 1): expected an object, found the number 1"),
        ("7", "line 1: expected an object, found the number 7"),
        ('[{"a": 1}\n{"b": 2}]', "entry 1 (line 1): field 'problem_id' is missing"),
        ("\n" + "[" * 5_000, "not valid JSON"),
    ],
)
def test_what_is_no_task_file_is_told(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text(content)
    with pytest.raises(DataFileError) as error:
        load_tasks(path, "apps")
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_other_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_bytes(json.dumps(MBPP).encode() + b"\n\xff\n")
    with pytest.raises(DataFileError, match="line 2: not UTF-8 text"):
        load_tasks(path, "mbpp")
    with pytest.raises(DataFileError, match=r"no such file.*Did you mean 'tasks.jsonl'"):
        load_tasks(tmp_path / "task.jsonl", "mbpp")
    with pytest.raises(DataFileError, match="this is a folder"):
        load_tasks(tmp_path, "mbpp")
    path.write_text("\n".join([json.dumps(MBPP)] * 2))
    with pytest.raises(DataFileError, match="line 2: field 'task_id' holds 'mbpp/9001', which li"):
        load_tasks(path, "mbpp")
    path.write_text(json.dumps(APPS | {"input_output": ""}))
    with pytest.raises(DataFileError, match="no entry has tests"):
        load_tasks(path, "apps")
    with pytest.raises(UnknownOption, match="Did you mean 'mbpp'"):
        load_tasks(path, "mbp")  # type: ignore[arg-type]


def test_a_number_that_python_cannot_read_skips_its_entry(tmp_path: Path) -> None:
    long = '{"fn_name": "f", "inputs": [[' + "9" * 5_000 + ']], "outputs": [1]}'
    path = tmp_path / "tasks.jsonl"
    path.write_text(f"{json.dumps(APPS)}\n{json.dumps(APPS | {'id': 5, 'input_output': long})}")
    assert [task.id for task in load_tasks(path, "apps")] == ["apps/0"]


def test_the_environment_takes_a_file(tmp_path: Path) -> None:
    path = str(FOLDER / FILES["mbpp"])
    core: Any = make("treegrpo/CodeExec-v0", path=path, dataset="mbpp").unwrapped
    assert [task.id for task in core.tasks("test")] == [task.id for task in load("mbpp")]
    with pytest.raises(UnknownOption, match="Give both, or neither"):
        make("treegrpo/CodeExec-v0", path=path)
    with pytest.raises(UnknownOption, match="Give both, or neither"):
        make("treegrpo/CodeExec-v0", dataset="mbpp")
    with pytest.raises(DataFileError, match="field 'prompt' is missing"):
        make("treegrpo/CodeExec-v0", path=path, dataset="mbpp_sanitized")
