"""Documents keep their word: links lead somewhere; dependencies are used, explained, pinned."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("treegrpo", "envs", "leaderboards", "sandboxes")
FOLDERS = ("docs", "tests", "benchmarks", "examples", *PACKAGES)
PAGES = sorted({*ROOT.glob("*.md"), *(f for name in FOLDERS for f in (ROOT / name).rglob("*.md"))})
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# Modules that belong to the public interface of a dependency under another name.
PART_OF = {
    "huggingface_hub": "transformers",
    "markupsafe": "jinja2",
    "pydantic_core": "pydantic",
    "safetensors": "transformers",
    "yaml": "pyyaml",
}


def prose(page: Path) -> str:
    """Return a page without its code, in which brackets mean something else."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", "`code`", text)


def anchors(page: Path) -> set[str]:
    """Return the link targets that a page's headings make."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ +(.+?) *$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


def requirement_name(requirement: str) -> str:
    """Return the name in a requirement line, in lower case, without extras and bounds."""
    return re.split(r"[\[<>=!~; ]", requirement)[0].lower()


def imported_by_us() -> dict[str, Path]:
    """Return each third-party module our packages import, with one file that does."""
    found: dict[str, Path] = {}
    for file in (f for name in PACKAGES for f in (ROOT / name).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            found |= {name.split(".")[0]: file for name in names}
    ours = {"treegrpo", *sys.stdlib_module_names}
    return {PART_OF.get(name, name): file for name, file in found.items() if name not in ours}


CORE = {requirement_name(one) for one in PROJECT["dependencies"]}
EXTRAS = {
    requirement_name(one) for extra in PROJECT["optional-dependencies"].values() for one in extra
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken: list[str] = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", path):
            continue  # other sites are not asked: tests run without a network
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def test_every_document_is_reached_from_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    pages = [page.relative_to(ROOT / "docs").as_posix() for page in PAGES if "docs" in page.parts]
    assert [page for page in pages if page != "README.md" and f"({page})" not in index] == []


def test_core_dependencies_are_exactly_what_the_packages_import() -> None:
    used = imported_by_us()
    missing = {name: str(file) for name, file in used.items() if name not in CORE | EXTRAS}
    assert missing == {}
    assert sorted(CORE - set(used)) == []


def test_every_dependency_has_a_reason_and_a_pin() -> None:
    reasons = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    explained = {name.lower() for name in re.findall(r"^\| `([^`]+)` \|", reasons, flags=re.M)}
    assert explained == CORE | EXTRAS
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {requirement_name(line) for line in pins if not line.startswith("#")}
    # tensorboard is optional and not part of what CI runs
    assert sorted((CORE | EXTRAS) - {"tensorboard"} - pinned) == []


def test_constraints_are_exact_and_name_no_host() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    wrong = [x for x in lines if not re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", x)]
    assert wrong == []


def test_the_fork_in_the_readme_prints_what_its_comments_say(
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, flags=re.M | re.S)
    block = next(text for text in blocks if "fork(env)" in text)
    exec(compile(block, "README.md", "exec"), {})
    said = re.findall(r"^print\(.*# *(\d+)$", block, flags=re.M)
    printed = [word for word in capsys.readouterr().out.split() if word.isdigit()]
    assert printed == said == ["0", "1"]
