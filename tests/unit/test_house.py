"""The rules of the house: one import root, imports that point downwards, files of a size.

Folders are floors: sandboxes < envs < the trainer, leaderboards beside it, and the command
line is the roof. Each rule names the file that breaks it.
"""

import ast
import functools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINKED = [name for name in ("sandboxes", "envs", "leaderboards") if (ROOT / name).is_dir()]
MAY_IMPORT = {
    "sandboxes": {"sandboxes"},
    "envs": {"envs", "sandboxes"},
    "treegrpo": {"treegrpo", "envs", "sandboxes"},
    "leaderboards": {"leaderboards", "envs", "sandboxes"},
    "cli": {"cli", "treegrpo", "leaderboards", "envs", "sandboxes"},
}
WITHOUT_TORCH = {"sandboxes", "envs", "leaderboards"}
MAX_LINES = {"tests": 600}
OTHER_FOLDERS = ("tests", "benchmarks", "examples")
VAGUE_FILES = {"utils.py", "util.py", "helpers.py", "helper.py", "misc.py", "common.py"}


def package_files() -> dict[str, Path]:
    """Return every module of the import root: dotted name -> file under its real path."""
    folders = {"treegrpo": ROOT / "treegrpo"}
    folders |= {f"treegrpo.{name}": ROOT / name for name in LINKED}
    found: dict[str, Path] = {}
    for prefix, folder in folders.items():
        for file in sorted(folder.rglob("*.py")):
            inside = file.relative_to(folder)
            if prefix == "treegrpo" and inside.parts[0] in LINKED:
                continue  # newer Pythons may follow the links; those files come by themselves
            parts = [prefix, *inside.with_suffix("").parts]
            found[".".join(parts).removesuffix(".__init__")] = file
    return found


MODULES = package_files()
OTHER_FILES = [file for folder in OTHER_FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
ALL_FILES = [*MODULES.values(), *OTHER_FILES]


class Parsed(NamedTuple):
    """What the rules ask of a file, which is parsed once for all of them."""

    docstring: str | None
    classes: tuple[str, ...]
    imports: tuple[ast.Import | ast.ImportFrom, ...]


@functools.cache
def parsed(file: Path) -> Parsed:
    """Return what is in a file, also inside functions."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    return Parsed(
        ast.get_docstring(tree),
        tuple(node.name for node in nodes if isinstance(node, ast.ClassDef)),
        tuple(node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)),
    )


def imports(module: str, file: Path) -> Iterator[str]:
    """Yield the dotted name of everything `file` imports, also inside functions."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    for node in parsed(file).imports:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            continue
        source = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            source = ".".join([*above, *([source] if source else [])])
        yield from (f"{source}.{alias.name}" for alias in node.names)


def floor(module: str) -> str:
    """Return the floor a module of ours stands on."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in MAY_IMPORT else "treegrpo"


def run_python(code: str) -> str:
    """Return what `code` prints in a fresh interpreter that starts in the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_floors_are_there() -> None:
    assert {"envs", "leaderboards"} <= set(LINKED)


@pytest.mark.skipif(
    (ROOT / "PKG-INFO").exists(), reason="an unpacked sdist holds files where a checkout has links"
)
@pytest.mark.parametrize("name", LINKED)
def test_a_relative_link_puts_each_folder_into_the_package(name: str) -> None:
    link = ROOT / "treegrpo" / name
    assert link.is_symlink(), f"treegrpo/{name} must be a symlink"
    assert os.readlink(link) == f"../{name}"


def test_imports_point_downwards() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, file in MODULES.items()
        for target in imports(module, file)
        if target.split(".")[0] == "treegrpo"
        and target not in ("treegrpo", "treegrpo.__version__")
        and floor(target) not in MAY_IMPORT[floor(module)]
    ]
    assert wrong == []


def test_the_floors_without_torch_do_not_name_it() -> None:
    wrong = [
        f"{module} imports {target}"
        for module, file in MODULES.items()
        if floor(module) in WITHOUT_TORCH
        for target in imports(module, file)
        if target.split(".")[0] in ("torch", "transformers")
    ]
    assert wrong == []


def test_environments_of_the_suite_do_not_import_each_other() -> None:
    def environment(module: str) -> str | None:
        match = re.match(r"treegrpo\.envs\.suite\.(\w+)", module)
        return match.group(1) if match else None

    wrong = [
        f"{module} imports {target}"
        for module, file in MODULES.items()
        if environment(module)
        for target in imports(module, file)
        if environment(target) not in (None, environment(module))
    ]
    assert wrong == []


def test_nobody_imports_the_folders_by_their_bare_names() -> None:
    wrong = [
        f"{file.relative_to(ROOT)} imports {target}"
        for module, file in [*MODULES.items(), *((f.stem, f) for f in OTHER_FILES)]
        for target in imports(module, file)
        if target.split(".")[0] in ("envs", "sandboxes", "leaderboards")
    ]
    assert wrong == []


def test_after_importing_everything_no_bare_folder_name_is_loaded() -> None:
    names = [name for name in MODULES if not name.endswith("__main__")]
    loaded = run_python(
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "print(sorted({'envs', 'sandboxes', 'leaderboards'} & set(sys.modules)))"
    )
    assert loaded == "[]"


@pytest.mark.parametrize(
    "module", ["treegrpo.envs", "treegrpo.leaderboards", "treegrpo.config", "treegrpo.cli.main"]
)
def test_floors_load_without_torch(module: str) -> None:
    heavy = run_python(
        f"import sys, {module}\nprint(sorted({{'torch', 'transformers'}} & set(sys.modules)))"
    )
    assert heavy == "[]"


def test_the_import_root_loads_nothing_else() -> None:
    loaded = run_python(
        "import sys\nbefore = set(sys.modules)\nimport treegrpo\n"
        "print(sorted({n.split('.')[0] for n in set(sys.modules) - before}"
        " - set(sys.stdlib_module_names)))"
    )
    assert loaded == "['treegrpo']"


def test_files_are_short() -> None:
    long = {
        str(file.relative_to(ROOT)): count
        for file in ALL_FILES
        if (count := len(file.read_text(encoding="utf-8").splitlines()))
        > MAX_LINES.get(file.relative_to(ROOT).parts[0], 500)
    }
    assert long == {}


def test_names_say_what_is_inside() -> None:
    vague = [str(file.relative_to(ROOT)) for file in ALL_FILES if file.name in VAGUE_FILES]
    vague += [
        f"{file.relative_to(ROOT)}: class {name}"
        for file in MODULES.values()
        for name in parsed(file).classes
        if re.search(r"Manager|Helper|Util", name)
    ]
    assert vague == []


def test_source_is_ascii_and_finished() -> None:
    wrong: list[str] = []
    for file in ALL_FILES:
        text = file.read_text(encoding="utf-8")
        if not text.isascii():
            wrong.append(f"{file.relative_to(ROOT)} is not ASCII")
        if re.search(r"#\s*(TODO|FIXME|XXX)\b", text):
            wrong.append(f"{file.relative_to(ROOT)} has an open note")
    assert wrong == []


def test_every_module_opens_with_a_docstring() -> None:
    assert [module for module, file in MODULES.items() if not parsed(file).docstring] == []
