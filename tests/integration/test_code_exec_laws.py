"""CodeExec and PythonMath on real sandboxes: forks of live interpreters obey the contract."""

import gc
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.containers import IMAGE
from treegrpo.envs import check_env_laws, make
from treegrpo.envs.baselines import oracle_action, run_episode
from treegrpo.envs.core import ToolEnv
from treegrpo.envs.sandbox_output import UNDONE
from treegrpo.envs.snapshot import Snapshot, core_of
from treegrpo.envs.suite.code_exec import CodeExecEnv, PythonMathEnv
from treegrpo.sandboxes import Level, open_backend

FIXTURES = Path(__file__).parents[1] / "fixtures" / "code"
FILES = {
    "humaneval": "HumanEval.jsonl",
    "mbpp": "mbpp.jsonl",
    "mbpp_sanitized": "sanitized-mbpp.json",
    "apps": "apps.jsonl",
}


def _has_sandboxes() -> bool:
    with open_backend("process") as backend:
        return backend.probe().level >= Level.L2


in_process = pytest.mark.skipif(
    not _has_sandboxes(), reason="this machine gives no process sandbox of level 2"
)


def call(env: ToolEnv, tool: str, **arguments: str) -> str:
    return env.step(env.encode_call(tool, **arguments))[0]


def start(env: ToolEnv | None = None) -> ToolEnv:
    env = env or CodeExecEnv()
    env.reset(seed=0)
    return env


FORK_BOMB = "for _ in range(999):\n    if os.fork() == 0:\n        time.sleep(60)"
NEEDS_PROCESSES = "import subprocess\n[subprocess.run(['true']).returncode for _ in range(9)]"


@in_process
def test_after_a_fork_bomb_the_next_call_has_one_answer() -> None:
    env = start()
    call(env, "python", code="import os, time")
    before, found = env.snapshot(), list[tuple[str, str]]()
    for _ in range(4):
        env.restore(before)
        found.append(
            (call(env, "python", code=FORK_BOMB), call(env, "python", code=NEEDS_PROCESSES))
        )
    assert len(set(found)) == 1
    assert found[0][0].endswith(UNDONE) and found[0][1] == str([0] * 9)


# Whatever the code does to its interpreter, the laws hold; the quiet cases are test_suite_laws'.
ROUGH = (
    ("python", {"code": "import random, os, signal\na = {'k': {random.random()}}\na"}),
    ("python", {"code": "a = 1\nos._exit(3)"}),
    ("write_file", {"path": "d/m.py", "text": "def f():\n    return open('f.txt').read()\n"}),
    ("python", {"code": "a = 2\nos.kill(os.getpid(), signal.SIGSEGV)"}),
    ("python", {"code": "from d.m import f\nfile = open('f.txt', 'w+')\nfile.write('x')\nf()"}),
    (
        "python",
        {"code": "from threading import Event, Thread\nThread(target=Event().wait).start()"},
    ),
    ("python", {"code": "file.write('y')\nfile.flush()\nf(), a, random.random()"}),
    ("submit", {"path": "d/m.py"}),
)


@in_process
def test_the_laws_hold_for_rough_code() -> None:
    env = CodeExecEnv()
    actions = [env.encode_call(name, **arguments) for name, arguments in ROUGH]
    reports = check_env_laws(CodeExecEnv, episodes=1, actions=actions)
    assert [report.law for report in reports if report.checks == 0 or report.note] == []
    start(env)
    shown = [env.step(action)[0] for action in actions]
    assert shown[1] == f"[the interpreter was ended] {UNDONE}"
    assert "crashed with signal 11" in shown[3] and "left behind: threads" in shown[5]
    assert shown[6].startswith("('xy', {'k': {0.")


@in_process
def test_a_fork_has_variables_files_and_randomness_of_its_own() -> None:
    env = start()
    call(env, "python", code="import random\na = [1]\nopen('f.txt', 'w').write('old')")
    fork = env.fork()
    assert fork.state_hash() == env.state_hash()
    draw = "random.random()"
    assert call(fork, "python", code=draw) == call(env.fork(), "python", code=draw)
    call(fork, "python", code="a.append(2)\nopen('f.txt', 'w').write('new')")
    assert call(fork, "python", code="a, open('f.txt').read()") == "([1, 2], 'new')"
    assert call(env, "python", code="a, open('f.txt').read()") == "([1], 'old')"
    assert call(env, "read_file", path="f.txt") == "old"
    assert fork.state_hash() != env.state_hash()


@in_process
def test_a_step_that_dies_leaves_the_episode_before_it() -> None:
    env = start(CodeExecEnv(timeout_s=2))
    call(env, "python", code="a = 1\nopen('f.txt', 'w').write('old')")
    kept = env.state.sandbox.state_hash
    for code, told in (
        ("a = 2\nprint('on')\nimport time\ntime.sleep(600)", "[stopped after 2 seconds]"),
        ("open('f.txt', 'w').write('new')\nimport os\nos._exit(0)", "[the interpreter was ended]"),
        ("a = 3\nimport os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "crashed with signal"),
        (
            "a = 4\nfrom threading import Event, Thread\nThread(target=Event().wait).start()",
            "[the step left behind: threads;",
        ),
    ):
        shown = call(env, "python", code=code)
        assert told in shown and shown.endswith(UNDONE)
        assert env.state.sandbox.state_hash == kept
        fork = env.fork()
        assert call(fork, "python", code="a, open('f.txt').read()") == "(1, 'old')"


@in_process
def test_tracebacks_show_the_codes_own_frames() -> None:
    env = start()
    call(env, "write_file", path="m.py", text="def f(x):\n    return 1 / x\n")
    shown = call(env, "python", code="import m\nm.f(0)")
    assert "1 / x" in shown and "ZeroDivisionError: division by zero" in shown
    assert "treegrpo" not in shown and "worker" not in shown
    for code in ("f(", "import nowhere", "undefined"):
        assert "treegrpo" not in call(env, "python", code=code)


@in_process
def test_files_and_programs() -> None:
    env = start()
    text = "import sys\nprint(sys.stdin.read().upper())\nsys.exit(3)\n"
    assert call(env, "write_file", path="a/p.py", text=text) == "Wrote a/p.py."
    assert call(env, "run_file", path="a/p.py", stdin="hey") == "HEY\n[exit code 3]"
    assert "root:" not in call(env, "read_file", path="../../etc/passwd")
    for path in ("../p.py", "/etc/p.py", "/usr/p.py"):
        _, _, _, _, info = env.step(env.encode_call("write_file", path=path, text=text))
        assert info["errors"] == ["tool_error"], path


@pytest.mark.parametrize(
    "cheat",
    [
        "import builtins\nbuiltins.repr = lambda v: '6'",
        "import json\njson.dumps = lambda *a, **k: '6'",
        "class Any:\n    __eq__ = lambda s, o: True\n    __hash__ = None\nNAME = lambda x: Any()",
        "import sys\nsys.exit(0)",
        "import os\nos._exit(0)",
        "def NAME(x):\n    import inspect\n    return inspect.stack()",
        "import gc\nNAME = lambda x: [o for o in gc.get_objects() if isinstance(o, dict)][0]",
    ],
)
@in_process
def test_cheats_score_nothing(cheat: str) -> None:
    env = start()
    name = env.task.data["example"].partition("(")[0]
    _, reward, *_ = env.step(env.encode_call("submit", source=cheat.replace("NAME", name)))
    assert reward == 0.0 and env.episode.terminated


@pytest.mark.parametrize("dataset", FILES)
@in_process
def test_the_references_of_task_files_solve_them(dataset: str) -> None:
    env: Any = make("treegrpo/CodeExec-v0", path=str(FIXTURES / FILES[dataset]), dataset=dataset)
    core = core_of(env)
    solved = 0
    for index, task in enumerate(core.tasks("test")):
        if task.data["solution"] is not None:
            result = run_episode(env, oracle_action, options={"split": "test", "index": index})
            assert result.episode_return == 1.0, task.id
            solved += 1
    assert solved >= 3
    env.close()


GO_ON = """
import sys
from treegrpo.envs import make
from treegrpo.envs.snapshot import Snapshot, core_of
env = core_of(make("treegrpo/CodeExec-v0"))
env.restore(Snapshot.from_bytes(sys.stdin.buffer.read()))
print(env.state_hash())
print(env.step(env.encode_call("python", code="a['k'].append(3)\\nrandom.random(), a"))[0])
"""


@in_process
def test_a_portable_snapshot_goes_on_in_another_process() -> None:
    env = core_of(make("treegrpo/CodeExec-v0"))
    start(env)
    call(env, "python", code="import random\nrandom.random()\na = {'k': [1, 2]}")
    shot = env.snapshot()
    assert shot.portable and shot.nbytes < 100_000
    done = subprocess.run(
        [sys.executable, "-c", GO_ON],
        input=shot.to_bytes(),
        capture_output=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr.decode()[-2_000:]
    hash_there, shown_there = done.stdout.decode().splitlines()
    assert hash_there == env.state_hash()
    assert shown_there == call(env, "python", code="a['k'].append(3)\nrandom.random(), a"), (
        "the replayed state went on differently"
    )
    here = core_of(make("treegrpo/CodeExec-v0"))
    here.restore(Snapshot.from_bytes(shot.to_bytes()))
    assert json.dumps(here.messages) == json.dumps(env.messages[: len(here.messages)])


@in_process
def test_closed_and_forgotten_episodes_give_their_sandboxes_back() -> None:
    env = start()
    tree = env.state.sandbox.tree
    forks = [env.fork() for _ in range(20)]
    for number, fork in enumerate(forks):
        call(fork, "python", code=f"a = {number}")
    assert tree.stats().live == 20
    while forks:
        forks.pop().close()
    gc.collect()
    assert tree.stats().live <= 2
    env.close()
    env.close()
    assert tree.closed
    other = start()
    tree = other.state.sandbox.tree
    shot = other.snapshot()
    del other
    gc.collect()
    assert not tree.closed, "the snapshot holds it"
    del shot
    gc.collect()
    # What the collector dropped is given back by a thread of the backend.
    deadline = time.monotonic() + 20
    while not tree.closed and time.monotonic() < deadline:
        threading.Event().wait(0.01)
    assert tree.closed


def docker_env(kind: Any = CodeExecEnv) -> Any:
    return kind(sandbox="docker", image=IMAGE)


@pytest.mark.docker
@pytest.mark.parametrize("kind", [CodeExecEnv, PythonMathEnv])
def test_in_docker_the_oracle_solves_and_forks_live(kind: type[ToolEnv]) -> None:
    env = docker_env(kind)
    for difficulty in (1, 5):
        options = {"difficulty": difficulty}
        assert run_episode(env, oracle_action, seed=0, options=options).episode_return == 1.0
    start(env)
    call(env, "python", code="a = [1]")
    fork = env.fork()
    assert call(fork, "python", code="a.append(2)\na") == "[1, 2]"
    assert call(env, "python", code="a") == "[1]"
    env.restore(Snapshot.from_bytes(fork.snapshot().to_bytes()))
    assert call(env, "python", code="a") == "[1, 2]"
    fork.close()
    env.close()


@pytest.mark.docker
def test_in_docker_the_laws_hold() -> None:
    env = CodeExecEnv()
    actions = [env.encode_call(ROUGH[i][0], **ROUGH[i][1]) for i in (0, 2, 7)]
    reports = check_env_laws(docker_env, episodes=1, actions=actions)
    assert [report.law for report in reports if report.checks == 0 or report.note] == []
