"""Task folders that a sandbox can play: their files in memory, and why others cannot be played.

Played are tasks that copying files sets up, below folders that a sandbox can write, with tests
that need no network. Everything is read once; later changes on disk do not matter.
"""

from __future__ import annotations

import posixpath
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from treegrpo.envs.errors import DataFileError
from treegrpo.envs.records import DataFile
from treegrpo.envs.suite.terminal.disk import MAX_FILE_BYTES, Disk, Entry, File, Folder, parent_of
from treegrpo.envs.suite.terminal.harbor import WHAT, HarborTask, read_tasks
from treegrpo.envs.suite.terminal.places import (
    SYSTEM,
    TESTS,
    path_in_binary,
    placed,
    renaming,
    rewritten,
    rewritten_file,
    top_of,
)
from treegrpo.envs.suite.terminal.real import PLACE
from treegrpo.envs.tasks import Task

MAX_COPIED_BYTES = 16 * 1024**2
"""The most that is copied into a sandbox for one task, and again for its tests."""
MAX_HELD_BYTES = 256 * 1024**2
"""The most that the tasks of a folder may hold together."""
_DIFFICULTIES = {"easy": 1, "medium": 2, "hard": 3}
_SHOWN_TASKS = 5
_SAMPLED = 60
_FETCHES = re.compile(
    r"(?:^|[;&|(`]|\b(?:sudo|then|do|else|exec)\s)\s*"
    r"(apt-get|apt|apk|dnf|yum|curl|wget|uvx|uv|npm|npx|pip3? install|git clone)\b"
)


@dataclass(frozen=True)
class Files:
    """Contents by path, the paths that can be executed, and folders that may be empty."""

    contents: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    runnable: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    def renamed(self, names: Mapping[str, str]) -> Files:
        """Return the same files with the paths in their texts rewritten, under their old paths."""
        contents = {path: rewritten_file(data, names) for path, data in self.contents.items()}
        return Files(contents, self.runnable, self.folders)

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(map(len, self.contents.values()))


@dataclass(frozen=True)
class Job:
    """What a played task is made of besides its text.

    `environment` lies at the sandbox's paths and is rewritten; `tests` and `solution` are as
    their folders have them, by relative path. `names` maps the task's folders to the sandbox's;
    `verifier_s` are the seconds that the tests may take.
    """

    root: str
    environment: Files
    tests: Files
    solution: Files
    names: Mapping[str, str]
    verifier_s: float


def load_tasks(path: Path) -> tuple[Task, ...]:
    """Return the tasks of a folder that can be played, by name.

    Tasks of a folder of tasks that cannot be played are left out, and counted in one warning.

    Raises:
        DataFileError: a folder that cannot be read, or without a task that can be played.
    """
    found: list[Task] = []
    refused: dict[str, tuple[str, ...]] = {}
    held = 0
    for harbor_task in read_tasks(path):
        task, obstacles = _loaded(harbor_task)
        if obstacles:
            refused[harbor_task.name] = obstacles
            continue
        found.append(task)
        job: Job = task.data["job"]
        held += job.environment.size + job.tests.size + job.solution.size
        if held > MAX_HELD_BYTES:
            raise DataFile(path, WHAT).error(
                f"its tasks hold more than {MAX_HELD_BYTES // 1024**2} MiB", "Play parts of it."
            )
    if not found:
        raise _none_playable(path, refused)
    if refused:
        warnings.warn(
            f"{len(refused)} of the {len(refused) + len(found)} tasks in '{path}' are left out: "
            f"{_listed(refused, 1)}.",
            RuntimeWarning,
            stacklevel=3,
        )
    return tuple(found)


def obstacles_of(task: HarborTask) -> tuple[str, ...]:
    """Return why a sandbox cannot play a task, () if it can.

    Raises:
        DataFileError: a file that cannot be read.
    """
    return _loaded(task)[1]


def sampled_disk(job: Job) -> Disk:
    """Return some of a task's text files as they are at the start, for random commands."""
    entries: dict[str, Entry] = {"/": Folder(), job.root: Folder()}
    for path, data in sorted(job.environment.contents.items()):
        if len(entries) < _SAMPLED and len(data) <= MAX_FILE_BYTES:
            entries[path] = File(data.decode("utf-8", "replace"))
            entries[parent_of(path)] = Folder()
    return Disk(entries)


def _none_playable(path: Path, refused: Mapping[str, tuple[str, ...]]) -> DataFileError:
    return DataFile(path, WHAT).error(
        f"no task in it can be played in a sandbox: {_listed(refused, _SHOWN_TASKS)}",
        "Give tasks that only copy files.",
    )


def _listed(refused: Mapping[str, tuple[str, ...]], most: int) -> str:
    """Return the first tasks with what stands in their way, and how many more there are."""
    shown = [f"'{name}' ({'; '.join(why)})" for name, why in list(refused.items())[:most]]
    more = len(refused) - most
    return ", ".join(shown) + (f", and {more} more" if more > 0 else "")


def _loaded(harbor_task: HarborTask) -> tuple[Task, tuple[str, ...]]:
    """Return the task as it is played, and why it cannot be."""
    copied = _copied(harbor_task)
    names = renaming([*copied.contents, *copied.folders, harbor_task.workdir])
    tests, solution = (_under(harbor_task.folder / part) for part in ("tests", "solution"))
    job = Job(
        root=placed(harbor_task.workdir, names),
        environment=_settled(copied.renamed(names), names),
        tests=tests,
        solution=solution if harbor_task.has_solution else Files(),
        names=names,
        verifier_s=min(harbor_task.settings.verifier.timeout_sec, 86_400.0),
    )
    difficulty = str(harbor_task.settings.metadata.get("difficulty"))
    text = rewritten(harbor_task.instruction, names)
    task = Task(
        id=harbor_task.name,
        question=f"You are in {job.root}. {text}",
        difficulty=_DIFFICULTIES.get(difficulty, 1),
        data={"job": job, "root": job.root},
    )
    return task, (*harbor_task.needs, *_obstacles(harbor_task, copied, tests, names))


def _obstacles(
    task: HarborTask, copied: Files, tests: Files, names: Mapping[str, str]
) -> Iterator[str]:
    if (task.folder / "environment" / ".dockerignore").exists():
        yield "environment/.dockerignore: what it leaves out is not known"
    paths = {task.workdir, *copied.contents, *copied.folders}
    for top in sorted({top_of(path) for path in paths} & SYSTEM):
        yield f"environment/Dockerfile: /{top} cannot be written in a sandbox"
    tops = {top_of(path) for path in paths}
    if PLACE[1:] in tops and tops - {"", "tmp", PLACE[1:]}:
        yield f"environment/Dockerfile: {PLACE}, where other folders lie in a sandbox"
    for part, files in (("environment", copied), ("tests", tests)):
        if files.size > MAX_COPIED_BYTES:
            yield f"{part}/: more than {MAX_COPIED_BYTES // 1024**2} MiB to copy"
    folders = {*copied.folders, *_above([*copied.contents, *copied.folders])}
    for path in sorted(folders & copied.contents.keys()):
        yield f"environment/Dockerfile: {path} is copied as a file and as a folder"
    hidden = {f"tests/{path}": data for path, data in tests.contents.items()}
    for path, data in sorted({**copied.contents, **hidden}.items()):
        if (name := path_in_binary(data, {**names, TESTS: TESTS})) is not None:
            yield f"{path}: it names {name} and is no text that could be rewritten"
    script = tests.contents["test.sh"].decode("utf-8", "replace")
    for number, line in enumerate(script.splitlines(), 1):
        if (found := _FETCHES.search(line)) is not None:
            yield f"tests/test.sh, line {number}: {found[1]} needs a network"


def _copied(task: HarborTask) -> Files:
    """Return what COPY puts where, by absolute path of the task's own machine."""
    contents: dict[str, bytes] = {}
    runnable: dict[str, bool] = {}
    folders = [task.workdir]
    for copy in task.copies:
        source = task.folder / "environment" / copy.source
        if source.is_file():
            contents[copy.target] = _bytes(source)
            runnable[copy.target] = _is_runnable(source)
            continue
        inside = _under(source)
        for path, data in inside.contents.items():
            target = posixpath.join(copy.target, path)
            contents[target], runnable[target] = data, path in inside.runnable
        folders += [posixpath.join(copy.target, path) for path in ("", *inside.folders)]
    return Files(
        contents,
        tuple(sorted(path for path in contents if runnable[path])),
        tuple(sorted({folder.rstrip("/") or "/" for folder in folders})),
    )


def _settled(files: Files, names: Mapping[str, str]) -> Files:
    """Return files at the sandbox's paths instead of the task's."""
    return Files(
        {placed(path, names): data for path, data in files.contents.items()},
        tuple(placed(path, names) for path in files.runnable),
        tuple(placed(path, names) for path in files.folders),
    )


def _under(folder: Path) -> Files:
    """Return all files of a folder by relative path; an empty Files if it is not there."""
    paths = sorted(folder.rglob("*")) if folder.is_dir() else []
    files = {path.relative_to(folder).as_posix(): path for path in paths if path.is_file()}
    return Files(
        {name: _bytes(path) for name, path in files.items()},
        tuple(name for name, path in files.items() if _is_runnable(path)),
        tuple(path.relative_to(folder).as_posix() for path in paths if path.is_dir()),
    )


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataFile(path, WHAT).error(
            f"it cannot be read ({error.strerror})", "Check its rights."
        ) from error


def _is_runnable(path: Path) -> bool:
    return bool(path.stat().st_mode & 0o100)


def _above(paths: Iterable[str]) -> set[str]:
    """Return every folder above some paths."""
    found: set[str] = set()
    for path in paths:
        while (path := parent_of(path)) != "/":
            found.add(path)
    return found
