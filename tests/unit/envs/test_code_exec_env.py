"""CodeExecEnv: tools, rewards, refusals, whose failure is whose; on a fake sandbox."""

from typing import Any

import numpy as np
import pytest

from tests.unit.envs.fake_sandbox import FakeBackend
from treegrpo.envs import make, sandboxed
from treegrpo.envs.errors import GraderFailed, SandboxFailed, TreegrpoError, UnknownOption
from treegrpo.envs.sandbox_output import MAX_CHARS, UNDONE, show
from treegrpo.envs.suite.code_exec.checks import Exam, Outside
from treegrpo.envs.suite.code_exec.env import MAX_SOURCE_CHARS, CodeExecEnv
from treegrpo.envs.tasks import Task
from treegrpo.sandboxes import Limits, Reason, Result, SandboxUnavailable


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    fake = FakeBackend()
    monkeypatch.setattr(sandboxed, "shared_backend", lambda *names, **options: fake)
    return fake


def start(**options: Any) -> CodeExecEnv:
    env = CodeExecEnv(**options)
    env.reset(seed=0)
    return env


def call(env: CodeExecEnv, tool: str, **arguments: str) -> str:
    return env.step(env.encode_call(tool, **arguments))[0]


def play(env: CodeExecEnv) -> float:
    while not env.episode.ended:
        env.step(env.oracle())
    return env.episode.episode_return


def test_variables_and_files_last(backend: FakeBackend) -> None:
    env = start()
    assert call(env, "python", code="a = 20\na + 1") == "21"
    assert call(env, "python", code="print(a)\na += 1") == "20"
    assert call(env, "python", code="a") == "21"
    assert call(env, "python", code="b = 1") == "(no output)"
    assert call(env, "write_file", path="x.py", text="print(int(input()) + 1)") == "Wrote x.py."
    assert call(env, "read_file", path="x.py") == "print(int(input()) + 1)"
    assert call(env, "run_file", path="x.py", stdin="4") == "5"
    assert call(env, "python", code="1 / 0").startswith("ZeroDivisionError")
    assert call(env, "run_file", path="-c") == (
        "Tool 'run_file' failed: ToolRefused: a path does not begin with a hyphen"
    )


def test_what_kills_the_interpreter_leaves_the_episode_before_the_step(
    backend: FakeBackend,
) -> None:
    env = start(timeout_s=3)
    call(env, "python", code="a = 20")
    for code, told in (
        ("a = 1\nprint(7)\nhang()", f"7\n[stopped after 3 seconds] {UNDONE}"),
        ("a = 1\ncrash()", f"[the interpreter crashed with signal 11] {UNDONE}"),
        (
            "a = 1\nleft_thread = True",
            f"[the step left behind: threads; end these in the step] {UNDONE}",
        ),
    ):
        before = env.sandbox.state_hash
        assert call(env, "python", code=code) == told
        assert env.sandbox.state_hash == before
        assert call(env, "python", code="a") == "20"
    assert not env.episode.ended


def test_a_path_outside_is_the_agents_error(backend: FakeBackend) -> None:
    env = start()
    for tool, arguments in (
        ("write_file", {"path": "/etc/passwd", "text": "x"}),
        ("read_file", {"path": "nowhere"}),
        ("submit", {"path": "nowhere"}),
    ):
        text, _, _, _, info = env.step(env.encode_call(tool, **arguments))
        assert info["errors"] == ["tool_error"] and "FileRefused" in text
    assert not env.episode.ended


def test_a_sandbox_that_fails_is_not_the_agents_error(backend: FakeBackend) -> None:
    env = start()
    backend.lost = True
    for tool, arguments in (("python", {"code": "1"}), ("run_file", {"path": "x.py"})):
        with pytest.raises(SandboxFailed, match="SandboxLost: The supervisor is gone"):
            call(env, tool, **arguments)
    with pytest.raises(SandboxFailed, match="No sandbox could be made"):
        call(env, "submit", source="pass")
    with pytest.raises(SandboxFailed, match="No sandbox could be made"):
        env.reset(seed=1)


def test_a_machine_without_sandboxes_is_told(
    backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(spec: object) -> object:
        raise SandboxUnavailable("Level 2 asked for; none. Do this.")

    monkeypatch.setattr(backend, "create", refuse)
    with pytest.raises(TreegrpoError, match="Do this"):
        CodeExecEnv().reset(seed=0)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.3, 1.0])
def test_rewards(backend: FakeBackend, part: float) -> None:
    env = start(partial_credit=part)
    assert play(env) == 1.0 and env.episode.info["success"]
    half = Task(
        "half",
        "?",
        Exam((Outside("f(1)", 1), Outside("f(2)", 4))),
        data={"solution": None, "example": None, "is_program": False},
    )
    env._file_tasks = [half]
    env.reset(seed=0)
    call(env, "submit", source="def f(n): return n")
    assert env.episode.episode_return == pytest.approx(part / 2)
    assert set(env.episode.info["reward_components"]) == (
        {"all_tests", "share"} if part else {"all_tests"}
    )
    env.reset(seed=0)
    with pytest.raises(NotImplementedError, match="comes without a solution"):
        env.oracle()


def test_without_a_submission_nothing_is_graded(backend: FakeBackend) -> None:
    env = start()
    while not env.episode.ended:
        env.step("I cannot help with that.")
    assert (env.episode.episode_return, backend.trees) == (0.0, 1)


def test_submissions(backend: FakeBackend) -> None:
    env = start()
    solution: str = env.task.data["solution"]
    for arguments, told in (
        ({}, "give either source or path"),
        ({"source": " \n"}, "give either source or path"),
        ({"source": "x", "path": "y"}, "give either source or path"),
    ):
        assert told in call(env, "submit", **arguments)
    call(env, "write_file", path="a.py", text=solution)
    call(env, "python", code="open('a.py', 'w').write('x' * 64_001)")
    call(env, "python", code="f = open('a.py', 'w')\nf.write('x' * 64_001)\nf.close()")
    assert f"more than {MAX_SOURCE_CHARS} characters" in call(env, "submit", path="a.py")
    call(env, "write_file", path="a.py", text=solution)
    text, reward, terminated, _, info = env.step(env.encode_call("submit", path="a.py"))
    assert (text, reward, terminated) == ("Submitted.", 1.0, True)
    assert info["end_reason"] == "submitted"


def test_the_oracle_recovers(backend: FakeBackend) -> None:
    env = start()
    steps = [env.oracle()]
    env.step(steps[0])
    call(env, "write_file", path="solution.py", text="junk")
    assert env.oracle() == steps[0]
    while env.episode.turns < env.max_turns - 1:
        call(env, "write_file", path="solution.py", text=f"junk {env.episode.turns}")
    assert play(env) == 1.0


@pytest.mark.parametrize("difficulty", CodeExecEnv.difficulties)
def test_the_oracle_solves_and_random_agents_do_not(backend: FakeBackend, difficulty: int) -> None:
    env, rng = CodeExecEnv(), np.random.default_rng(difficulty)
    for seed in range(8):
        env.reset(seed=seed, options={"difficulty": difficulty})
        assert play(env) == 1.0 and env.episode.turns == 3
        env.reset(seed=seed, options={"difficulty": difficulty})
        while not env.episode.ended:
            env.step(env.sample_action(rng))
        assert env.episode.episode_return == 0.0


def test_close_reset_and_forks_give_their_sandboxes_back(backend: FakeBackend) -> None:
    env = start()
    call(env, "python", code="a = 1")
    assert backend.open == 1
    fork = env.fork()
    assert backend.open == 2
    env.step(env.encode_call("submit", source="pass"))
    fork.close()
    fork.close()
    env.close()
    assert backend.open <= 1  # the copy that was graded goes with the garbage


def test_a_fork_goes_its_own_way(backend: FakeBackend) -> None:
    env = start()
    call(env, "python", code="a = [1]")
    fork = env.fork()
    assert fork.state_hash() == env.state_hash()
    call(fork, "python", code="a.append(2)")
    assert fork.state_hash() != env.state_hash()
    assert (call(env, "python", code="a"), call(fork, "python", code="a")) == ("[1]", "[1, 2]")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sandbox": "dockr"}, "it takes: process, docker. Did you mean 'docker'?"),
        ({"image": "x"}, "image='x' of CodeExec asked for with sandbox='process'"),
        ({"min_level": 7}, "min_level=7 of CodeExec asked for; levels are 0, 1, 2, 3"),
        ({"timeout_s": 0}, "timeout_s=0 of CodeExec asked for, but: Input should be greater"),
        ({"memory_mb": 1}, "memory_mb=1 of CodeExec asked for, but: Input should be greater"),
        ({"partial_credit": 2}, "Give a number from 0 to 1"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownOption) as error:
        make("treegrpo/CodeExec-v0", **options)
    assert message in str(error.value)


def test_options_reach_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    fake = FakeBackend()

    def share_fake(name: str, **options: Any) -> FakeBackend:
        asked.append((name, options))
        return fake

    monkeypatch.setattr(sandboxed, "shared_backend", share_fake)
    options: dict[str, Any] = {"min_level": 3, "timeout_s": 2.5, "memory_mb": 128}
    env = CodeExecEnv(sandbox="docker", image="python:3.12-slim", **options)
    assert asked == []
    env.reset(seed=0)
    env.fork().reset(seed=1)
    CodeExecEnv(sandbox="docker", image="python:3.12-slim").reset(seed=1)
    assert asked and all(ask == ("docker", {"image": "python:3.12-slim"}) for ask in asked)
    spec = env.sandbox_spec
    assert (int(spec.min_level), spec.limits.timeout_s, spec.limits.memory_mb) == (3, 2.5, 128)


def test_a_broken_exam_is_the_graders_failure(backend: FakeBackend) -> None:
    env = start()
    exam = Exam((Outside("f(1)", 1),), before="1 / 0")
    env._file_tasks = [Task("broken", "?", exam, data={"solution": "pass"})]
    env.reset(seed=0)
    with pytest.raises(GraderFailed, match="fails by itself"):
        call(env, "submit", source="def f(n): return n")


LIMITS = Limits(timeout_s=2, memory_mb=100)


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        (Result("ok"), "(no output)"),
        (Result("ok", b"out\n", b"err\n", value="7"), "out\nerr\n7"),
        (Result("exception", b"out", traceback="Trace\nX: y\n", exception="X"), "out\nTrace\nX: y"),
        (Result("exception", exception="Odd"), "Odd"),
        (Result("exit", exit_code=3), "[exit code 3]"),
        (Result("exit", exit_code=3, alive=False), f"[the interpreter was ended] {UNDONE}"),
        (Result("memory", traceback="MemoryError"),
         "MemoryError\n[stopped at the limit of 100 MB of memory]"),
        (Result("memory", alive=False),
         f"[stopped at the limit of 100 MB of memory] {UNDONE}"),
        (Result("pids"), "[stopped at the limit of 32 processes]"),
        (Result("disk"), "[stopped at the limit of 64 MB of files]"),
        (Result("signal", alive=False), f"[the interpreter crashed] {UNDONE}"),
        (Result("protocol", alive=False), f"[the interpreter was tampered with] {UNDONE}"),
    ],
)  # fmt: skip
def test_what_is_shown(result: Result, shown: str) -> None:
    assert show(result, LIMITS) == shown


def test_what_is_shown_is_bounded() -> None:
    text = show(Result("ok", b"a" * 10_000 + b"end"), LIMITS)
    assert len(text) < MAX_CHARS + 50 and text.startswith("aaa") and text.endswith("aend")
    assert "\n[... cut ...]\n" in text
    one = show(Result("timeout", b"y\n" * 5_000, alive=False), LIMITS)
    other = show(Result("timeout", b"y\n" * 7_000, alive=False), LIMITS)
    assert one == other and len(one) < 1_000
    left = show(Result("ok"), LIMITS, [Reason("child_processes", "1"), Reason("threads", "2")])
    assert "left behind: child processes, threads;" in left
