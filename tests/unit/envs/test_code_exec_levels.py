"""CodeExec-v1's tasks: sound at every level, told apart by their tests, in one split each."""

import functools
from typing import Any

import numpy as np
import pytest

from tests.unit.envs.fake_sandbox import FakeBackend
from treegrpo.envs import sandboxed
from treegrpo.envs.suite.code_exec import levels, machines, ops, programs, tasks
from treegrpo.envs.suite.code_exec.checks import Exam, Outside, agrees
from treegrpo.envs.suite.code_exec.level_env import CodeLevelsEnv
from treegrpo.envs.suite.code_exec.programs import NAMES, Program
from treegrpo.envs.suite.code_exec.splits import SPLITS, split_of_content
from treegrpo.envs.tasks import Task

PROGRAMS = (4, 5)


@functools.cache
def sample(difficulty: int, split: str = "train", count: int = 8) -> list[Task]:
    rngs = map(np.random.default_rng, range(count))
    return [levels.make_task(rng, difficulty, split=split) for rng in rngs]


def checks(task: Task) -> list[Outside]:
    assert isinstance(task.answer, Exam)
    return [check for check in task.answer.checks if isinstance(check, Outside)]


def defined(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(source, names)
    return names


def passed(source: str, task: Task) -> int:
    """Return how many hidden tests a program of ours passes."""
    names = defined(source)
    found = checks(task)
    return sum(agrees(c, eval(c.expression, names), c.expected) for c in found)


@pytest.mark.parametrize("difficulty", levels.LEVELS)
def test_the_reference_passes_and_examples_are_true_and_not_hidden(difficulty: int) -> None:
    for task in sample(difficulty):
        assert passed(task.data["solution"], task) == len(checks(task)) >= tasks.NUM_HIDDEN
        names = defined(task.data["solution"])
        hidden = {check.expression for check in checks(task)}
        examples = task.question.split("Examples:\n")[1].splitlines()
        for line in examples:
            assert eval(line, names) is True
            assert line.split(" == ")[0] not in hidden
        assert not any(name in task.question for name in NAMES)


@pytest.mark.parametrize(("difficulty", "count"), [(4, 3), (5, 4)])
def test_every_function_of_a_program_is_asked_for_shown_and_tested(
    difficulty: int, count: int
) -> None:
    for task in sample(difficulty):
        names = [line[4:].partition("(")[0] for line in task.data["solution"].splitlines()
                 if line.startswith("def ")]  # fmt: skip
        assert len(set(names)) == count
        assert f"with {count} functions." in task.question
        examples = task.question.split("Examples:\n")[1].splitlines()
        wanted = [*names, names[-1]]
        assert [line.partition("(")[0] for line in examples] == wanted
        tested = [check.expression.partition("(")[0] for check in checks(task)]
        assert sorted(set(tested), key=names.index) == names
        for name in names:
            results = {repr(c.expected) for c in checks(task) if c.expression.startswith(name)}
            assert len(results) >= tasks.MIN_DIFFERENT
            assert f"{name}([])" in {c.expression for c in checks(task)} or difficulty == 4


@pytest.mark.parametrize("difficulty", PROGRAMS)
def test_edges_are_hidden_tests(difficulty: int) -> None:
    for task in sample(difficulty):
        last = checks(task)[-1].expression.partition("(")[0]
        calls = {check.expression for check in checks(task)}
        assert f"{last}([])" in calls
        assert any(call.startswith(f"{last}([None, ") for call in calls)


@pytest.mark.parametrize("difficulty", PROGRAMS)
def test_a_program_that_lacks_a_rule_fails(difficulty: int) -> None:
    """The same fold, without its rule for None, its memory, or the helper's last step."""
    for task in sample(difficulty, count=5):
        source: str = task.data["solution"]
        for rule, without in (
            ("if (score + memory) % ", "if score % "),
            ("        kept += x\n", "        kept = x\n"),
            ("elif score > memory:", "elif score >= memory + 1000:"),
        ):
            assert rule in source
            assert passed(source.replace(rule, without), task) < len(checks(task)), rule


def by_hand_fold(fold: Any, items: list[Any], make: Any, judge: Any, change: Any) -> list[int]:
    """Return what the fold leaves before its last steps, written another way."""
    done: list[int] = []
    memory = 0
    for v in [make(item) for item in items if item is not None]:
        s = judge(v)
        quotient = (s + memory) / fold.k
        if quotient == int(quotient):
            done = done + change(v)
        elif s - memory > 0:
            done = [*done, s]
        else:
            done = done[: max(0, len(done) - fold.cut)]
        memory = (fold.a * memory + s) % fold.modulus
    return done


def test_a_fold_by_hand() -> None:
    change = next(op for op in ops.OPS if "swap the numbers" in op.says)
    fold = programs._Fold("f_one", "f_two", change, 3, 2, 2, 10)
    lines = "".join(f"    {line}\n" for line in fold.body().splitlines())
    names: dict[str, Any] = {"f_one": lambda item: list(item), "f_two": lambda v: sum(v)}
    exec(f"def f_all(x):\n{lines}    return x\n", names)
    # [1, 2]: 3 + 0 is divisible by 3: swapped. Memory 3. [5]: 5 + 3 is not, 5 > 3: put. Memory
    # 2 * 3 + 5 = 11, so 1. None. [1]: 1 + 1 is not, 1 is not > 1: two are cut. Memory 3. [7]: put.
    assert names["f_all"]([[1, 2]]) == [2, 1]
    assert names["f_all"]([[1, 2], [5]]) == [2, 1, 5]
    assert names["f_all"]([[1, 2], [5], None, [1]]) == [2]
    assert names["f_all"]([[1, 2], [5], None, [1], [7]]) == [2, 7]
    assert names["f_all"]([]) == names["f_all"]([None]) == []
    rng = np.random.default_rng(0)
    for _ in range(200):
        items = [None if rng.random() < 0.2 else rng.integers(-9, 9, 3).tolist() for _ in range(6)]
        swapped = lambda v: [v[1], v[0], v[2]]  # noqa: E731
        assert names["f_all"](items) == by_hand_fold(fold, items, list, sum, swapped)


def interpreter(seed: int) -> tuple[Program, dict[str, Any]]:
    program = programs.random_interpreter(np.random.default_rng(seed))
    return program, defined(program.source())


@pytest.mark.parametrize(
    ("given", "unrolled"),
    [
        ("", ""),
        ("a,b", "a,b"),
        ("again 2,a,enough,b", "a,a,b"),
        ("again 2,a,again 3,b,enough,c,enough,d", "a,b,b,b,c,a,b,b,b,c,d"),
        ("again 0,a,enough,b", "b"),
        ("again -1,a,again 2,b,enough,enough,c", "c"),
        ("enough,a,enough", "a"),
        ("a,again 2,b", "a,b,b"),
        ("again 2,a,again 2,b", "a,b,b,a,b,b"),
        ("again 2,a,again 0,b", "a,a"),
        ("again 2,enough,a", "a"),
    ],
)
def test_loops_by_hand(given: str, unrolled: str) -> None:
    _, names = interpreter(0)
    texts = given.split(",") if given else []
    assert names["f_one"](texts) == (unrolled.split(",") if unrolled else [])


def test_keeping_and_going_back_by_hand() -> None:
    effects = {effect.code[0]: effect for effect in machines._EFFECTS}
    commands = (
        ("put", effects["items.append(n)"]),
        ("add", effects["total += n"]),
        ("stow", programs._KEEP),
        ("fetch", programs._RECALL),
    )
    body = "kept = None\n" + machines.Machine(commands, "back").code()

    def run(text: str) -> list[int]:
        return tasks.run_body(body, [text.split(",")])[0]

    assert run("fetch,put 1") == [1, 0]
    assert run("put 1,add 5,stow,put 2,fetch") == [1, 5]
    assert run("put 1,stow,put 2,fetch,put 3,fetch") == [1, 0]
    assert run("put 1,stow,put 2,fetch,back") == [1, 2, 0]
    assert run("put 1,stow,back,put 2,fetch") == [1, 0]  # what was kept stays kept


def test_the_second_function_unrolls_first() -> None:
    for seed in range(4):
        program, names = interpreter(seed)
        word = program.functions[1].rules[1].split('"')[1]
        once = [f"{word[:-2]} 3" if word.endswith(" n") else word]
        looped = ["again 3", *once, "enough"]
        assert names["f_two"](looped) == names["f_two"](once * 3)


def test_levels_grow() -> None:
    lines = [
        np.mean([len(task.data["solution"].splitlines()) for task in sample(level)])
        for level in levels.LEVELS
    ]
    assert lines == sorted(lines) and lines[4] > 1.5 * lines[3]
    assert [len(task.data.get("parts", ())) for level in levels.LEVELS
            for task in sample(level, count=1)] == [0, 0, 0, 2, 3]  # fmt: skip


def test_a_program_is_in_one_split() -> None:
    def body(task: Task) -> str:
        return task.data["solution"].partition("\n")[2]

    found = {split: {body(task) for task in sample(1, split, 120)} for split in SPLITS}
    for one in SPLITS:
        assert len(found[one]) > 10
        for other in SPLITS:
            assert one == other or not found[one] & found[other]


def test_a_test_program_of_one_version_is_one_of_the_other() -> None:
    found: set[bool] = set()
    for seed in range(40):
        draft = tasks.chain_draft(np.random.default_rng(seed), 3)
        is_test = levels.split_of(draft) == "test"
        assert is_test == (tasks.split_of(draft) == "test")
        found.add(is_test)
    assert found == {True, False}
    assert {split_of_content(str(n)) for n in range(50)} == set(SPLITS)


def test_a_task_depends_on_its_seed_alone() -> None:
    for level in levels.LEVELS:
        again = levels.make_task(np.random.default_rng(1), level, split="train")
        assert sample(level)[1] == again
    ids = [task.id for level in levels.LEVELS for task in sample(level)]
    assert len(set(ids)) == len(ids)


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> CodeLevelsEnv:
    backend = FakeBackend()
    monkeypatch.setattr(sandboxed, "shared_backend", lambda *names, **options: backend)
    return CodeLevelsEnv()


@pytest.mark.parametrize(("difficulty", "steps"), [(1, 3), (2, 3), (3, 3), (4, 5), (5, 6)])
def test_the_oracle_tries_each_part_and_solves(
    env: CodeLevelsEnv, difficulty: int, steps: int
) -> None:
    for split in SPLITS:
        env.reset(seed=0, options={"difficulty": difficulty, "split": split})
        while not env.episode.ended:
            env.step(env.oracle())
        assert (env.episode.episode_return, env.episode.turns) == (1.0, steps)
        shown = [m["content"] for m in env.messages if m["role"] == "tool"]
        assert not any("Traceback" in text for text in shown)


def test_the_oracle_solves_from_late_states_and_partial_programs_score_nothing(
    env: CodeLevelsEnv,
) -> None:
    env.reset(seed=0, options={"difficulty": 5})
    while env.episode.turns < env.max_turns - 3:
        env.step("What now?")
    while not env.episode.ended:
        env.step(env.oracle())
    assert env.episode.episode_return == 1.0
    env.reset(seed=0, options={"difficulty": 5})
    part = env.task.data["solution"].rpartition("\n\n\n")[0]
    env.step(env.encode_call("submit", source=part))
    assert env.episode.episode_return == 0.0 and env.episode.terminated
