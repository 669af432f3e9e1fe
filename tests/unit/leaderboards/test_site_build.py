"""A site as a folder: every link leads somewhere, whole or not at all, other files stay."""

from __future__ import annotations

import json
import os
import re
import time
from html import unescape
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tests.board_fixture import AGENTS, FixtureSource, hostile_board, make_board
from tests.unit.leaderboards.stored import claimed, run
from treegrpo.cli.leaderboard import leaderboard_app
from treegrpo.leaderboards.agents import scripted_agent
from treegrpo.leaderboards.board import Board, RunDetail
from treegrpo.leaderboards.errors import StoreError
from treegrpo.leaderboards.site.build import MARK, build_site
from treegrpo.leaderboards.store import open_store

ORACLE = scripted_agent("oracle")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "out"
    small = make_board(AGENTS[:4])
    hostile = hostile_board()
    hostile = hostile.model_copy(update={"rows": hostile.rows[-1:]})
    build_site(FixtureSource(small, hostile), out)
    return out


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def links(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    found = re.findall(r'(?:href|src)="([^"]+)"', text.partition('type="application/json"')[0])
    return [unescape(link) for link in found]


def test_every_relative_link_leads_to_a_file_of_the_site(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    broken = [
        f"{page.relative_to(site)} -> {link}"
        for page in pages
        for link in links(page)
        if not link.startswith(("#", "data:"))
        and not (page.parent / link.partition("#")[0]).resolve().is_file()
    ]
    assert broken == []
    assert len(pages) > 300
    outside = [
        link
        for page in pages
        for link in links(page)
        if not link.startswith(("#", "data:"))
        and not (page.parent / link).resolve().is_relative_to(site.resolve())
    ]
    assert outside == []


def test_the_rows_of_a_table_lead_to_pages_and_outcomes(site: Path) -> None:
    for row in make_board(AGENTS[:4]).rows:
        assert (site / "runs" / f"{row.digest[:32]}.html").is_file()
        assert (site / "data" / f"{row.digest[:32]}.js").is_file()


def test_every_page_can_be_reached_from_the_index(site: Path) -> None:
    seen: set[Path] = set()
    todo = [(site / "index.html").resolve()]
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".html":
            continue
        seen.add(page)
        todo += [(page.parent / link).resolve() for link in links(page) if link[0] not in "#d"]
    # Runs hang on tables, which scripts draw.
    drawn = {p.resolve() for name in ("runs", "episodes") for p in (site / name).iterdir()}
    assert {p.resolve() for p in site.rglob("*.html")} - seen - drawn == set()


def test_the_board_lies_beside_its_page_in_full(site: Path) -> None:
    board = make_board(AGENTS[:4])
    text = (site / "boards" / f"{board.key.id}.json").read_text(encoding="utf-8")
    assert Board.model_validate(json.loads(text)) == board


def test_a_site_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    build_site(FixtureSource(), out)
    (out / "stale.html").write_text("old")
    count = build_site(FixtureSource(), out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    names = {path.name for path in out.iterdir()}
    assert "stale.html" not in names and {MARK, "index.html", "static"} <= names
    assert count == len(files(out))


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError) as caught:
        build_site(FixtureSource(), tmp_path)
    assert str(caught.value) == (
        f"A site at '{tmp_path}' asked for, but that folder holds other files. Give an empty or "
        "new folder, or one that this command has made."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_and_a_link_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("file", "link"):
        with pytest.raises(StoreError, match=r"asked for, but that is no folder\. Give another"):
            build_site(FixtureSource(), tmp_path / name)


def test_a_missing_parent_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "no" / "out"
    with pytest.raises(StoreError) as caught:
        build_site(FixtureSource(), out)
    assert str(caught.value) == (
        f"A site at '{out}' asked for, but it cannot be written: its parent folder does not "
        "exist. Give a path with space and write permission."
    )


class _Broken(FixtureSource):
    def run_detail(self, digest: str) -> RunDetail:
        raise StoreError("The files of this run are damaged.")


def test_a_build_killed_between_its_renames_is_mended_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    build_site(FixtureSource(), out)
    (out / "index.html").write_text("the older site")
    rename = Path.rename

    def dies(path: Path, target: Path) -> Path:
        if path.suffix == ".part":
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", dies)
        with pytest.raises(KeyboardInterrupt):
            build_site(FixtureSource(), out)
    assert [path.suffix for path in tmp_path.iterdir()] == [".old"]
    with pytest.raises(StoreError, match="damaged"):
        build_site(_Broken(make_board(AGENTS[:1])), out)
    assert (out / "index.html").read_text() == "the older site"
    build_site(FixtureSource(), out)
    assert (out / "index.html").read_text() != "the older site"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_killed_builds_left_is_swept_after_a_day(tmp_path: Path) -> None:
    names = {name: f".out.{name}_000.{kind}" for name, kind in (
        ("past", "part"), ("olds", "old"), ("live", "part"),
    )}  # fmt: skip
    others = [".out.of_their.part", ".out.other.past_000.part", ".out.past_000.tmp"]
    for name in (*names.values(), *others):
        (tmp_path / name).mkdir()
        if name != ".out.of_their.part":  # of this form, but not a site
            (tmp_path / name / MARK).touch()
        age = 0 if "live" in name else 86_500
        os.utime(tmp_path / name, (time.time() - age, time.time() - age))
    (tmp_path / "out").mkdir()
    build_site(FixtureSource(), tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"out", names["live"], *others}


def test_a_run_that_cannot_be_read_leaves_the_old_site(tmp_path: Path) -> None:
    out = tmp_path / "out"
    build_site(FixtureSource(), out)
    before = (out / "index.html").read_text(encoding="utf-8")
    with pytest.raises(StoreError, match="damaged"):
        build_site(_Broken(make_board(AGENTS[:1])), out)
    assert (out / "index.html").read_text(encoding="utf-8") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_command_builds_a_site_from_a_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/board.sqlite"
    with open_store(url, create=True) as store:
        digests = [store.add(run(tmp_path / "a")), store.add(run(tmp_path / "o", ORACLE))]
        claim = store.claim(claimed())
    app = typer.Typer()
    app.add_typer(leaderboard_app, name="leaderboard")
    out = tmp_path / "site"
    words = ["leaderboard", "site", str(out), "--store", url]
    result = CliRunner().invoke(app, words, env={"COLUMNS": "300"})
    assert result.exit_code == 0, result.exception
    assert result.output == f"{len(files(out))} files; open {out}/index.html\n"
    names = {path.stem for path in (out / "runs").iterdir()}
    assert names == {digest[:32] for digest in (*digests, claim)}
    assert {path.stem for path in (out / "data").iterdir()} == {d[:32] for d in digests}
    assert len(list((out / "episodes").iterdir())) == 8
    claim_page = (out / "runs" / f"{claim[:32]}.html").read_text(encoding="utf-8")
    assert "0.75" in claim_page and "A board" in claim_page
    broken = [
        f"{page.name} -> {link}"
        for page in out.rglob("*.html")
        for link in links(page)
        if link[:1] != "#" and link[:5] != "data:" and not (page.parent / link).is_file()
    ]
    assert broken == []


def test_the_command_refuses_a_folder_before_it_reads_anything(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    result = CliRunner().invoke(
        leaderboard_app, ["site", str(tmp_path), "--store", f"sqlite:///{tmp_path}/none.sqlite"]
    )
    assert isinstance(result.exception, StoreError)
    assert "holds other files" in str(result.exception)
