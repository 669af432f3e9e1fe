"""What a comparison in a real browser says of the seeds that its rows were evaluated with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.board_fixture import AGENTS, FixtureSource, make_board
from tests.browser import complaints
from treegrpo.leaderboards.site.data import run_name, run_script
from treegrpo.leaderboards.site.pages import ASSETS, STATIC, render_board

WAIT_S = 60
LARGE = 2**63 + 1


@pytest.mark.parametrize("seeds", [(7, 7), (7, LARGE)])
def test_other_seeds_are_said(browser: Any, tmp_path: Path, seeds: tuple[int, int]) -> None:
    from selenium.webdriver.support.wait import WebDriverWait  # not there without dev extras

    board = make_board(AGENTS[3:5])
    for name in ("static", "boards", "data"):
        (tmp_path / name).mkdir()
    for name in ASSETS:
        (tmp_path / "static" / name).write_bytes((STATIC / name).read_bytes())
    page = tmp_path / "boards" / "board.html"
    page.write_text(render_board(board), encoding="utf-8")
    for row, seed in zip(board.rows, seeds, strict=True):
        detail = FixtureSource(board).run_detail(row.digest)
        assert detail.manifest is not None
        manifest = detail.manifest.model_copy(update={"seed": seed})
        script = run_script(detail.model_copy(update={"manifest": manifest}))
        (tmp_path / "data" / f"{run_name(row.digest)}.js").write_text(script, encoding="utf-8")
    complaints(browser)
    rows = ",".join(row.digest[:12] for row in board.rows)
    browser.get("about:blank")
    browser.get(f"{page.as_uri()}#view=compare&rows={rows}")
    drawn = "return document.querySelector('#pairs') !== null"
    WebDriverWait(browser, WAIT_S).until(lambda driver: driver.execute_script(drawn))
    said = browser.execute_script("return document.querySelector('#seeds')?.textContent")
    if seeds[0] == seeds[1]:
        assert said is None
    else:
        assert said is not None
        assert said.startswith(f"The evaluation seeds differ (A 7, B {LARGE}): the tasks are")
    assert complaints(browser) == []
