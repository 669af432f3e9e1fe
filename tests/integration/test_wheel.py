"""What is shipped: the wheel, and a wheel made from the sdist, in a clean environment.

Both are built from a copy of the tree, so that the checkout stays as it is.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FLOORS = [name for name in ("sandboxes", "envs", "leaderboards") if (ROOT / name).is_dir()]
NOT_COPIED = shutil.ignore_patterns(
    ".*", "runs", "build", "dist", "*.egg-info", "__pycache__", "results"
)


@dataclass(frozen=True)
class Built:
    """The files a release consists of."""

    sdist: Path
    wheel: Path
    wheel_of_sdist: Path


def run(*command: object, cwd: Path, **variables: str) -> str:
    """Return what a command prints; fails with all of its output."""
    keep = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=keep | variables,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("build")
    tree = folder / "tree"
    shutil.copytree(ROOT, tree, symlinks=True, ignore=NOT_COPIED)
    build = (sys.executable, "-m", "build", "--no-isolation", "--outdir")
    # Without a choice, `build` makes the sdist and then the wheel from the unpacked sdist.
    run(*build, folder / "release", tree, cwd=folder)
    run(*build, folder / "direct", "--wheel", tree, cwd=folder)
    (sdist,) = (folder / "release").glob("*.tar.gz")
    (wheel_of_sdist,) = (folder / "release").glob("*.whl")
    (wheel,) = (folder / "direct").glob("*.whl")
    return Built(sdist, wheel, wheel_of_sdist)


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def shipped_files() -> set[str]:
    """Return every file of the packages that belongs into a wheel, as a path inside it."""
    wanted = {".py", ".html", ".j2", ".css", ".js", ".md", ".typed"}
    folders = {"treegrpo": ROOT / "treegrpo"}
    folders |= {f"treegrpo/{name}": ROOT / name for name in FLOORS}
    return {
        f"{prefix}/{file.relative_to(folder).as_posix()}"
        for prefix, folder in folders.items()
        for file in folder.rglob("*")
        if (file.suffix in wanted or file.name.endswith(".schema.json")) and file.is_file()
    }


@pytest.mark.parametrize("which", ["wheel", "wheel_of_sdist"])
def test_a_wheel_has_one_top_level_name(built: Built, which: str) -> None:
    names = names_in(getattr(built, which))
    tops = {name.split("/")[0] for name in names}
    (info,) = (top for top in tops if top.endswith(".dist-info"))
    assert tops - {info} == {"treegrpo"}


def test_the_wheel_holds_every_module_template_and_readme(built: Built) -> None:
    names = {name for name in names_in(built.wheel) if name.startswith("treegrpo/")}
    assert sorted(shipped_files() - names) == []
    assert sorted(names - shipped_files()) == []
    for expected in ("treegrpo/envs/core.py", "treegrpo/leaderboards/bundle.py"):
        assert expected in names


def test_the_wheel_of_the_sdist_is_the_same(built: Built) -> None:
    assert names_in(built.wheel_of_sdist) == names_in(built.wheel)


def test_the_sdist_holds_files_not_links_and_the_tests(built: Built) -> None:
    with tarfile.open(built.sdist) as archive:
        members = archive.getmembers()
    assert [member.name for member in members if member.issym() or member.islnk()] == []
    inside = {member.name.partition("/")[2] for member in members}
    assert {"treegrpo/envs/core.py", "tests/conftest.py", "LICENSE", "Makefile"} <= inside
    assert {name.split("/")[0] for name in inside}.isdisjoint(FLOORS)


@pytest.mark.parametrize("which", ["wheel", "wheel_of_sdist"])
def test_it_works_beside_the_users_own_envs_folder(
    built: Built, which: str, tmp_path: Path
) -> None:
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
    run(*pip, "--no-deps", "--no-index", getattr(built, which), cwd=tmp_path)
    # The dependencies are those of the test run, behind the new environment's own packages.
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path)
    borrowed = Path(site.strip()) / "borrowed.pth"
    borrowed.write_text(sysconfig.get_path("purelib") + "\n")

    mine = tmp_path / "mine"
    for name in ("envs", "leaderboards", "sandboxes"):
        (mine / name).mkdir(parents=True)
        (mine / name / "__init__.py").write_text("OWNER = 'user'\n")
    (mine / "train.py").write_text(
        "import envs, leaderboards, sandboxes, sys\n"
        "import treegrpo, treegrpo.envs, treegrpo.leaderboards\n"
        "assert {envs.OWNER, leaderboards.OWNER, sandboxes.OWNER} == {'user'}\n"
        "assert treegrpo.__file__.startswith(sys.prefix), treegrpo.__file__\n"
        "env = treegrpo.envs.make('treegrpo/SearchQA-v0')\n"
        "text, info = env.reset(seed=0)\n"
        "assert text and info['task_id']\n"
        "print(treegrpo.__version__)\n"
    )
    assert run(python, "train.py", cwd=mine).strip() == built.wheel.name.split("-")[1]
    assert "demo" in run(tmp_path / "venv" / "bin" / "treegrpo", "--help", cwd=mine)
