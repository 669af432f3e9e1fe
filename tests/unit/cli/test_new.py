"""treegrpo new: a package that works once it is installed, and never over anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from treegrpo.cli import main, scaffold

PLAY = """
import sys
import pytest
from treegrpo.envs import list_envs, make
from treegrpo.envs.checks.episodes import oracle_solves, reachability
from treegrpo.envs.snapshot import core_of

ID = "my_env/MyEnv-v0"
assert ID in list_envs()
core = core_of(make(ID))
train, test = ({task.id for task in core.tasks(split)} for split in core.splits)
assert not train & test
print(reachability(lambda: make(ID), episodes=200, seconds=60, seed=0).found)
print(*(found.found for found in oracle_solves(lambda: make(ID), seconds=60, seed=0)), sep="|")
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "."]))
"""


def _new(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setattr(sys, "argv", ["treegrpo", "new", *words])
    try:
        main.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_what_it_writes_is_a_small_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _new(monkeypatch, "my_env") == 0
    names = ["my_env.py", "pyproject.toml", "test_my_env.py"]
    written = [path for path in (tmp_path / "my_env").rglob("*") if path.is_file()]
    assert sorted(path.name for path in written) == names
    out = capsys.readouterr().out
    assert "pip install -e my_env\n" in out and "treegrpo check my_env/MyEnv-v0\n" in out


def test_the_environment_has_at_most_25_lines() -> None:
    text = scaffold.files("my_env")["src/my_env.py"]
    assert len([line for line in text.splitlines() if line.strip()]) <= 25
    assert max(map(len, text.splitlines())) <= 100


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed a new package."""
    folder = tmp_path_factory.mktemp("author")
    for name, text in scaffold.files("my_env").items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", *offline, "--target", "site", "."],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder / "site"


def _run(site: Path, *words: str) -> str:
    path = os.pathsep.join([str(site), *(os.path.abspath(entry) for entry in sys.path)])
    done = subprocess.run(
        [sys.executable, "-W", "error", *words],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        cwd=site.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_installed_environment_is_listed_and_works_and_its_own_test_passes(site: Path) -> None:
    random, oracle, *own = _run(site, "-c", PLAY).splitlines()
    assert random.startswith("200 episodes, no exception; ")
    assert int(random.split()[-2]) <= 8  # of 200
    assert oracle.startswith("10 tasks, all solved; ") and oracle.endswith("|0 of 10 tasks solved")
    assert own[-1].startswith("3 passed")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("My_env", "a name has small letters, digits and single underscores"),
        ("my-env", "Try: my_env"),
        ("../escape", "Try: my_env"),
        ("a" * 51, "at most 50 characters"),
        ("my__env", "single underscores"),
        ("my_env_", "single underscores"),
        ("1st", "begins with a letter"),
        ("class", "a word of the language"),
        ("match", "a word of the language"),
        ("json", "can be imported already"),
        ("numpy", "can be imported already"),
        ("treegrpo", "treegrpo/CodeExec-v0 has that namespace"),
        ("huggingface_hub", "can be imported already"),
    ],
)
def test_names_that_are_taken_or_none(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    words: str,
) -> None:
    assert _new(monkeypatch, name, "--into", str(tmp_path)) == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["folder", "file", "broken link"])
def test_nothing_is_overwritten(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    path = tmp_path / "my_env"
    match kind:
        case "folder":
            path.mkdir()
        case "file":
            path.write_text("mine")
        case _:
            path.symlink_to(tmp_path / "nowhere")
    assert _new(monkeypatch, "my_env", "--into", str(tmp_path)) == 2
    assert "that path is taken" in capsys.readouterr().err
    assert not (tmp_path / "my_env" / "pyproject.toml").exists()


def test_names_of_classes_and_ids() -> None:
    assert scaffold.class_name("card_game2") == "CardGame2"
    assert scaffold.env_id("guess") == "guess/Guess-v0"
