"""Generated programming tasks: sound, told apart by their tests, split by their program."""

import numpy as np
import pytest

from treegrpo.envs.suite.code_exec import machines, ops, tasks
from treegrpo.envs.suite.code_exec.checks import Exam, Outside, agrees
from treegrpo.envs.tasks import Task


def sample(difficulty: int, split: str = "train", count: int = 25) -> list[Task]:
    rngs = map(np.random.default_rng, range(count))
    return [tasks.make_task(rng, difficulty, split=split) for rng in rngs]


def checks(task: Task) -> list[Outside]:
    assert isinstance(task.answer, Exam)
    return [check for check in task.answer.checks if isinstance(check, Outside)]


@pytest.mark.parametrize("difficulty", tasks.DIFFICULTIES)
def test_the_reference_passes_and_constants_do_not(difficulty: int) -> None:
    for task in sample(difficulty):
        namespace: dict[str, object] = {}
        exec(task.data["solution"], namespace)
        found = checks(task)
        assert len(found) == tasks.NUM_HIDDEN
        values = [eval(check.expression, namespace) for check in found]
        assert all(map(agrees, found, values, (check.expected for check in found)))
        for value in values:
            passed = sum(agrees(check, value, check.expected) for check in found)
            assert passed <= tasks.NUM_HIDDEN - tasks.MIN_DIFFERENT + 1


@pytest.mark.parametrize("difficulty", tasks.DIFFICULTIES)
def test_the_examples_are_true_and_not_hidden_tests(difficulty: int) -> None:
    for task in sample(difficulty, count=10):
        namespace: dict[str, object] = {}
        exec(task.data["solution"], namespace)
        examples = task.question.split("Examples:\n")[1].splitlines()
        assert len(examples) == tasks.NUM_SHOWN
        hidden = {check.expression for check in checks(task)}
        for line in examples:
            assert eval(line, namespace) is True
            assert line.split(" == ")[0] not in hidden


def test_levels_grow() -> None:
    lines = [
        np.mean([len(task.data["solution"].splitlines()) for task in sample(level, count=40)])
        for level in tasks.DIFFICULTIES
    ]
    assert lines == sorted(lines) and lines[-1] > 3 * lines[0]
    assert all("command" in task.question for task in sample(4) + sample(5))
    assert all("put list and total back" in task.question for task in sample(5))


def program(task: Task) -> str:
    return task.data["solution"].partition("\n")[2]


def test_no_program_is_in_both_splits() -> None:
    for level in (1, 2):
        train = {program(task) for task in sample(level, "train", 150)}
        test = {program(task) for task in sample(level, "test", 150)}
        assert len(train) > 40 and len(test) > 10 and not train & test


def test_a_task_depends_on_its_seed_alone() -> None:
    for level in tasks.DIFFICULTIES:
        assert sample(level, count=4) == sample(level, count=4)
    ids = [task.id for level in tasks.DIFFICULTIES for task in sample(level)]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("op", ops.OPS, ids=lambda op: op.says[:40])
def test_every_op_gives_what_it_says(op: ops.Op) -> None:
    kinds = {"ints": list, "words": list, "text": str, "table": dict, "int": int}
    rng = np.random.default_rng(0)
    results: set[str] = set()
    for _ in range(40):
        drawn, value = op.drawn(rng), ops.random_input(rng, op.takes)
        assert "<" not in drawn.says.replace("i < j", "")
        found = tasks.run_body(drawn.code, [value])[0]
        assert type(found) is kinds[op.gives]
        if isinstance(found, list):
            assert {type(item) for item in found} <= {int if op.gives == "ints" else str}
        results.add(repr(found))
    assert len(results) > 5
    empty = {"ints": [], "words": [], "text": "", "table": {}}
    tasks.run_body(op.drawn(rng).code, [empty[op.takes]])


@pytest.mark.parametrize(
    ("says", "value", "result"),
    [
        ("differences of neighbours", [3, 5, 1], [2, -4]),
        ("sum of all numbers up to", [3, 5, 1], [3, 8, 9]),
        ("split the list in the middle", [1, 2, 3, 4, 5], [1, 4, 2, 5, 3]),
        ("swap the numbers at positions", [1, 2, 3], [2, 1, 3]),
        ("how often it has occurred", [7, 7, 1, 7], [1, 2, 1, 3]),
        ("sum of its decimal digits", [-19, 4], [10, 4]),
        ("in base 2", [-5, 0], ["101", "0"]),
        ("subtract those at odd positions", [9, 2, 4], 11),
        ("pairs of positions", [3, 1, 2], 2),
        ("longest stretch of neighbouring", [1, 1, 0, 5, 6, 2], 3),
        ("followed by how long", "aab", "a2b1"),
        ("all vowels (a, e, i, o, u, small or capital)", "bAne", "bn"),
        ("shorten each stretch", "aabba", "aba"),
        ("each vowel", "bE", "bEE"),
        ("sort the words by their length", ["b", "aa", "a"], ["a", "b", "aa"]),
        ("keeping the last of each", ["a", "b", "a"], ["b", "a"]),
        ("odd positions (counting from 0) in capitals", ["a", "b"], ["a", "B"]),
        ("first character of each word", ["abc", ""], ["bca", ""]),
        ("how often it occurs", ["a", "b", "a"], {"a": 2, "b": 1}),
        ("values from large to small", {"a": 1, "c": 2, "b": 2}, ["b", "c", "a"]),
        ("order of their sorted keys", {"b": 1, "a": 2}, [2, 1]),
    ],
)
def test_ops_by_hand(says: str, value: object, result: object) -> None:
    op = next(op for op in ops.OPS if says in op.says)
    assert tasks.run_body(op.code, [value]) == [result]


def test_a_machine_by_hand() -> None:
    effects = {effect.code[0]: effect for effect in machines._EFFECTS}
    machine = machines.Machine(
        (("put", effects["items.append(n)"]), ("flip", effects["items = items[::-1]"])), "back"
    )
    commands = ["put 3", "put -4", "flip", "back", "back", "zzz 1", "put 5", "back", "back", "back"]
    for count, result in ((2, [3, -4, 0]), (3, [-4, 3, 0]), (4, [3, -4, 0]), (5, [3, 0])):
        assert tasks.run_body(machine.code(), [commands[:count]]) == [result]
    assert tasks.run_body(machine.code(), [commands[:7]]) == [[3, 5, 0]]
    assert tasks.run_body(machine.code(), [commands]) == [[0]]
    assert [line.partition(":")[0] for line in machine.says()[:3]] == [
        '- "put n"',
        '- "flip"',
        '- "back"',
    ]
