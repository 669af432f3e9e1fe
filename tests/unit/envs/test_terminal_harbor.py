"""Harbor task folders: what is read, what stands in the way, what is refused."""

import gzip
import os
import shutil
from pathlib import Path

import pytest

from treegrpo.envs.errors import DataFileError
from treegrpo.envs.suite.terminal import harbor
from treegrpo.envs.suite.terminal.harbor import Copy, read_tasks

FIXTURE = Path(__file__).parents[2] / "fixtures" / "terminal" / "harbor"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the task that needs nothing but files."""
    return shutil.copytree(FIXTURE / "plain-copy", tmp_path / "plain-copy")


def test_a_folder_of_tasks_is_read_by_name() -> None:
    assert [task.name for task in read_tasks(FIXTURE)] == [
        "image-only",
        "needs-build",
        "plain-copy",
        "repair-script",
    ]
    (task,) = read_tasks(FIXTURE / "plain-copy")
    assert task.instruction.startswith("Count the lines of /app/data/visits.csv")
    assert task.settings.verifier.timeout_sec == 60.0
    assert task.settings.agent.timeout_sec == 300.0
    assert task.settings.metadata["difficulty"] == "easy"
    assert (task.image, task.workdir, task.has_solution) == ("debian:stable-slim", "/app", True)
    assert task.copies == (
        Copy("visits.csv", "/app/data/visits.csv"),
        Copy("notes.txt", "/app/readme.txt"),
    )
    assert task.needs == ()


def test_all_that_copying_files_cannot_do_is_named_with_its_line() -> None:
    (task,) = read_tasks(FIXTURE / "needs-build")
    assert task.needs == (
        "environment/Dockerfile, line 1: FROM with options, a stage's name or a second image",
        "environment/Dockerfile, line 2: RUN needs an image to be built",
        "environment/Dockerfile, line 4: ENV needs an image to be built",
        "environment/Dockerfile, line 5: COPY with --chown=agent",
        "environment/Dockerfile, line 6: COPY uses a variable",
        "environment/Dockerfile, line 7: COPY with a pattern of names",
    )


def test_a_task_with_an_image_needs_no_dockerfile(folder: Path) -> None:
    (folder / "environment" / "Dockerfile").unlink()
    (folder / "task.toml").write_text('[environment]\ndocker_image = "debian:12"\n')
    (task,) = read_tasks(folder)
    assert (task.image, task.copies, task.settings.agent.timeout_sec) == ("debian:12", (), 600.0)


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("task.toml", "", "empty"),
        ("task.toml", "[agent", "not valid TOML"),
        ("task.toml", "agent = 3", "field 'agent' is wrong"),
        ("task.toml", '[agent]\ntimeout_sec = "soon"', "field 'agent.timeout_sec' is wrong"),
        ("task.toml", "[agent]\ntimeout_sec = -1", "field 'agent.timeout_sec' is wrong"),
        ("task.toml", "[agent]\ntimeout_sec = inf", "field 'agent.timeout_sec' is wrong"),
        ("task.toml", "[environment]\ndocker_image = 3", "field 'environment.docker_image'"),
        ("instruction.md", " \n", "empty"),
        ("tests/test.sh", "", "empty"),
        ("environment/Dockerfile", "", "empty"),
        ("environment/Dockerfile", "# FROM x\nWORKDIR /app", "it has no FROM"),
        ("environment/Dockerfile", "FROM\n", "line 1: FROM has nothing behind it"),
        ("environment/Dockerfile", "FROM x\nCOPY a", "line 2: COPY needs sources and a target"),
        ("environment/Dockerfile", "FROM x\nCOPY no /x", "'no', which environment/ does not have"),
        ("environment/Dockerfile", "FROM x\nCOPY ../task.toml /x", "is outside environment/"),
        ("environment/Dockerfile", "FROM x\nCOPY /../task.toml /x", "is outside environment/"),
        ("environment/Dockerfile", "FROM x\nCOPY a/../../task.toml /x", "is outside environment/"),
        ("environment/Dockerfile", 'FROM x\nCOPY ["a", 3]', "is not a JSON list of names"),
        ("environment/Dockerfile", "FROM x\nCOPY [[[", "is not a JSON list of names"),
        (
            "environment/Dockerfile",
            'FROM x\nCOPY ["visits.csv", "\\u0000"]',
            "a JSON list of names",
        ),
        ("environment/Dockerfile", "FROM x\nWORKDIR /a\x1b", "characters that are no plain text"),
    ],
)
def test_a_damaged_part_is_named(folder: Path, name: str, text: str, found: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(DataFileError) as error:
        read_tasks(folder)
    assert found in str(error.value) and name in str(error.value)


@pytest.mark.parametrize(
    "name", ["instruction.md", "environment/Dockerfile", "tests/test.sh", "environment/visits.csv"]
)
def test_a_missing_part_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(DataFileError, match=Path(name).name):
        read_tasks(folder)


def test_wrong_bytes_and_truncated_gzip_are_refused(folder: Path) -> None:
    (folder / "instruction.md").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataFileError, match="UTF-8"):
        read_tasks(folder)
    (folder / "instruction.md").write_bytes(gzip.compress(b"do it" * 99)[:-9])
    with pytest.raises(DataFileError, match="gzip data is cut short or damaged"):
        read_tasks(folder)


@pytest.mark.parametrize("name", ["instruction.md", "environment/blob", "tests/test.sh"])
def test_a_file_of_a_gigabyte_is_refused_by_its_size(folder: Path, name: str) -> None:
    with (folder / name).open("wb") as file:
        file.truncate(1024**3)
    with pytest.raises(DataFileError, match="with it the task has more than"):
        read_tasks(folder)


def test_a_text_that_is_too_long_is_refused(folder: Path) -> None:
    (folder / "instruction.md").write_text("x" * (harbor.MAX_TEXT_BYTES + 1))
    with pytest.raises(DataFileError, match=r"instruction\.md"):
        read_tasks(folder)


@pytest.mark.parametrize("name", ["environment/link", "tests/link", "link"])
def test_links_are_refused(folder: Path, name: str) -> None:
    for target in ("/etc/passwd", "nowhere", str(folder)):
        (folder / name).symlink_to(target)
        with pytest.raises(DataFileError, match="it is a link"):
            read_tasks(folder)
        (folder / name).unlink()


def test_names_that_are_no_plain_text_are_refused(folder: Path) -> None:
    for name in (b"a\nb", b"\xff", b"\x1b[31m"):
        path = os.fsencode(folder / "environment") + b"/" + name
        Path(os.fsdecode(path)).touch()
        with pytest.raises(DataFileError, match="it has a name that is no plain text"):
            read_tasks(folder)
        os.unlink(path)


def test_a_task_behind_a_link_and_a_pipe_are_refused(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "tasks" / "one"
    link.parent.mkdir()
    link.symlink_to(folder)
    with pytest.raises(DataFileError, match="it is a link"):
        read_tasks(link.parent)
    with pytest.raises(DataFileError, match="this is not a folder"):
        read_tasks(link)
    os.mkfifo(folder / "environment" / "pipe")
    with pytest.raises(DataFileError, match="neither a file nor a folder"):
        read_tasks(folder)


def test_too_many_files_and_levels_are_refused(folder: Path) -> None:
    deep = folder / "environment" / "/".join("d" * 20)
    deep.mkdir(parents=True)
    with pytest.raises(DataFileError, match=f"{harbor.MAX_DEPTH} levels"):
        read_tasks(folder)
    shutil.rmtree(folder / "environment" / "d")
    for number in range(harbor.MAX_FILES):
        (folder / "environment" / f"f{number}").touch()
    with pytest.raises(DataFileError, match=f"{harbor.MAX_FILES} files"):
        read_tasks(folder)


def test_what_is_no_folder_of_tasks_is_refused(folder: Path, tmp_path: Path) -> None:
    for path, found in (
        (tmp_path / "nope", "this is not a folder"),
        (folder / "task.toml", "this is not a folder"),
        (folder / "environment", r"no folder in it has a task\.toml"),
    ):
        with pytest.raises(DataFileError, match=found):
            read_tasks(path)
