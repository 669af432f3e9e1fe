"""Task folders on their way into a sandbox: what is copied where, what cannot be played."""

import errno
import shutil
from pathlib import Path

import pytest

from treegrpo.envs import make
from treegrpo.envs.errors import DataFileError, TreegrpoError, UnknownOption
from treegrpo.envs.suite.terminal import folder_tasks, solution
from treegrpo.envs.suite.terminal.folder_tasks import Files, Job, load_tasks, obstacles_of
from treegrpo.envs.suite.terminal.harbor import read_tasks

FIXTURE = Path(__file__).parents[2] / "fixtures" / "terminal" / "harbor"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of a task that can be played."""
    return shutil.copytree(FIXTURE / "repair-script", tmp_path / "tasks" / "repair-script")


def job_of(folder: Path) -> Job:
    (task,) = load_tasks(folder)
    return task.data["job"]


def obstacles(folder: Path) -> tuple[str, ...]:
    (task,) = read_tasks(folder)
    return obstacles_of(task)


def dockerfile(folder: Path, *lines: str) -> None:
    text = "\n".join(["FROM debian:stable-slim", *lines])
    (folder / "environment" / "Dockerfile").write_text(text)


def test_files_lie_below_the_workspace_and_their_texts_say_so(folder: Path) -> None:
    (task,) = load_tasks(folder)
    assert (task.id, task.difficulty, task.answer) == ("repair-script", 2, None)
    assert task.question.startswith(
        "You are in /workspace/opt/tools. `/workspace/opt/tools/greet.sh NAME` must print"
    )
    job = job_of(folder)
    assert job.root == "/workspace/opt/tools"
    assert sorted(job.environment.contents) == [
        "/workspace/opt/tools/conf/language",
        "/workspace/opt/tools/greet.sh",
    ]
    script = job.environment.contents["/workspace/opt/tools/greet.sh"]
    assert b"# Reads /workspace/opt/tools/conf/language, which is not /opt-old/tools." in script
    assert job.environment.runnable == ("/workspace/opt/tools/greet.sh",)
    assert job.environment.folders == ("/workspace/opt/tools", "/workspace/opt/tools/conf")
    assert sorted(job.tests.contents) == ["cases/de", "cases/en", "test.sh"]
    assert sorted(job.solution.contents) == ["greet.sh", "solve.sh"]
    assert (job.names["/opt"], job.verifier_s) == ("/workspace/opt", 30.0)


def test_a_folder_is_copied_with_all_in_it_and_a_file_under_its_new_name(folder: Path) -> None:
    (folder / "environment" / "tools" / "empty").mkdir()
    dockerfile(folder, "WORKDIR //srv/x/..", "COPY tools/conf .", "COPY tools/greet.sh /data/g")
    job = job_of(folder)
    assert job.root == "/workspace/srv"
    assert sorted(job.environment.contents) == ["/workspace/data/g", "/workspace/srv/language"]
    dockerfile(folder, "COPY tools /", "COPY tools/conf/language /tmp/l")
    job = job_of(folder)
    assert sorted(job.environment.contents) == [
        "/tmp/l",
        "/workspace/conf/language",
        "/workspace/greet.sh",
    ]
    assert job.environment.folders == ("/workspace", "/workspace/conf", "/workspace/empty")


def test_tasks_that_cannot_be_played_are_left_out_and_counted_once() -> None:
    with pytest.warns(RuntimeWarning) as caught:
        found = load_tasks(FIXTURE)
    assert [task.id for task in found] == ["image-only", "plain-copy", "repair-script"]
    (warning,) = caught
    assert str(warning.message).startswith(
        f"1 of the 4 tasks in '{FIXTURE}' are left out: 'needs-build' (environment/Dockerfile, "
        "line 1: FROM with options"
    )


def test_a_folder_without_a_task_to_play_is_refused_with_all_reasons() -> None:
    with pytest.raises(DataFileError) as error:
        load_tasks(FIXTURE / "needs-build")
    assert "no task in it can be played in a sandbox: 'needs-build' (" in str(error.value)
    assert "line 7: COPY with a pattern of names). Give tasks that" in str(error.value)


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["COPY tools /etc/tools"], "environment/Dockerfile: /etc cannot be written"),
        (["WORKDIR /usr/src"], "environment/Dockerfile: /usr cannot be written"),
        (["COPY tools /workspace/app", "COPY tools /app"], "/workspace, where other folders lie"),
        (
            ["COPY tools/greet.sh /app", "COPY tools /app/x"],
            "/app is copied as a file and as a folder",
        ),
        (["COPY tools/greet.sh /app", "WORKDIR /app"], "/app is copied as a file and as a folder"),
    ],
)
def test_what_a_sandbox_cannot_lay_out_is_named(folder: Path, lines: list[str], found: str) -> None:
    dockerfile(folder, *lines)
    (reason,) = obstacles(folder)
    assert found in reason


def test_what_cannot_be_known_or_rewritten_is_named(folder: Path) -> None:
    assert obstacles(folder) == ()
    (folder / "environment" / ".dockerignore").write_text("*\n")
    (folder / "environment" / "tools" / "tool").write_bytes(b"\x7fELF\0/opt/tools\0")
    (folder / "tests" / "lib").write_bytes(b"\xff/logs/x")
    assert obstacles(folder) == (
        "environment/.dockerignore: what it leaves out is not known",
        "/opt/tools/tool: it names /opt and is no text that could be rewritten",
        "tests/lib: it names /logs and is no text that could be rewritten",
    )


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("apt-get update", "apt-get"),
        ("  curl -LsSf https://example.org | sh", "curl"),
        ("cd /app && uvx pytest", "uvx"),
        ("if true; then pip install pytest; fi", "pip install"),
    ],
)
def test_tests_that_fetch_something_are_named(folder: Path, line: str, command: str) -> None:
    (folder / "tests" / "test.sh").write_text(f"#!/bin/sh\n{line}\n")
    assert obstacles(folder) == (f"tests/test.sh, line 2: {command} needs a network",)


@pytest.mark.parametrize("line", ["echo curl", "python curl.py", "pip --version", "./apt-get"])
def test_tests_that_only_name_a_command_are_played(folder: Path, line: str) -> None:
    (folder / "tests" / "test.sh").write_text(f"#!/bin/sh\n{line}\n")
    assert obstacles(folder) == ()


def test_large_tasks_are_named_and_large_folders_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("environment/tools", "tests"):
        with (folder / part / "blob").open("wb") as file:
            file.truncate(folder_tasks.MAX_COPIED_BYTES)
        assert obstacles(folder) == (f"{part.split('/')[0]}/: more than 16 MiB to copy",)
        (folder / part / "blob").unlink()
    shutil.copytree(folder, folder.parent / "second")
    monkeypatch.setattr(folder_tasks, "MAX_HELD_BYTES", 1_000)
    with pytest.raises(DataFileError, match="its tasks hold more than"):
        load_tasks(folder.parent)


def test_a_file_that_cannot_be_read_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(DataFileError, match=r"': it cannot be read \(Permission denied\)"):
        load_tasks(folder)


def test_a_path_without_a_sandbox_is_refused() -> None:
    with pytest.raises(UnknownOption, match=r"path='x' of Terminal asked for with backend='mem"):
        make("treegrpo/Terminal-v0", path="x")
    with pytest.raises(DataFileError, match="this is not a folder"):
        make("treegrpo/Terminal-v0", backend="sandbox", path="no/such/folder")


def test_the_expert_writes_the_solution_down_in_pieces() -> None:
    long = "".join(f"echo {number:04} /tests\n" for number in range(200))
    names = {"/app": "/workspace/app"}
    files = Files({"solve.sh": long.encode(), "bin/tool": b"\0\1END", "e": b"no newline"})
    job = Job("/workspace/it's", Files(), Files(), files, names, 1.0)
    lines = solution.lines_of(job, "x")
    assert lines[
        0
    ] == "mkdir -p /tmp/solution/bin\nbase64 -d > /tmp/solution/bin/tool <<'END'\n" + (
        "AAFFTkQ=\nEND"
    )
    assert lines[1].endswith("base64 -d > /tmp/solution/e <<'END'\nbm8gbmV3bGluZQ==\nEND")
    assert lines[2].startswith(
        "mkdir -p /tmp/solution\ncat > /tmp/solution/solve.sh <<'END'\necho "
    )
    assert lines[3].startswith("cat >> /tmp/solution/solve.sh <<'END'\necho ")
    assert lines[4:] == [
        "chmod +x /tmp/solution/solve.sh && cd '/workspace/it'\"'\"'s' && /tmp/solution/solve.sh"
    ]
    assert max(map(len, lines)) < solution.MAX_PIECE + 100
    written = [line.split("<<'END'\n")[1].removesuffix("END") for line in lines[2:4]]
    assert "".join(written) == long


def test_a_text_with_the_end_mark_in_it_gets_another_one() -> None:
    job = Job("/", Files(), Files(), Files({"solve.sh": b"END\nEND1\n"}), {"/a": "/b"}, 1.0)
    assert solution.lines_of(job, "x")[0].endswith("<<'END2'\nEND\nEND1\nEND2")


def test_a_task_without_a_solution_has_no_expert() -> None:
    job = Job("/", Files(), Files(), Files(), {"/a": "/b"}, 1.0)
    with pytest.raises(TreegrpoError, match=r"'x' asked for; it has no solution/solve\.sh"):
        solution.lines_of(job, "x")
