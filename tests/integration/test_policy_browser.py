"""The pages' content policy in a real browser: what it is there to stop is stopped.

A page into which somebody has got markup is opened twice, with the policy and without. Without,
everything runs; so what does not run with it was stopped by it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.browser import complaints
from treegrpo.leaderboards.site.pages import ASSETS, POLICY, STATIC, render_index

INJECTED = (
    "<script>document.documentElement.dataset.script = 'ran';</script>"
    "<img src=x onerror=\"document.documentElement.dataset.handler = 'ran'\">"
    "<div id=styled style='width: 77px'></div>"
)
ATTRIBUTE = 'http-equiv="Content-Security-Policy"'
RAN = (
    "const seen = document.documentElement.dataset;"
    "return [seen.script, seen.handler, document.querySelector('#styled').style.width]"
)


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """Two pages with the same markup put in: with.html and without.html."""
    (tmp_path / "static").mkdir()
    for name in ASSETS:
        (tmp_path / "static" / name).write_bytes((STATIC / name).read_bytes())
    page = render_index([])
    assert POLICY.replace("'", "&#39;") in page and page.count(ATTRIBUTE) == 1
    page = page.replace("</main>", INJECTED + "</main>")
    (tmp_path / "with.html").write_text(page, encoding="utf-8")
    (tmp_path / "without.html").write_text(page.replace(ATTRIBUTE, "name=none"), encoding="utf-8")
    return tmp_path


def opened(browser: Any, page: Path) -> list[str]:
    """Open a page, to the end of its loading; return what the console says of it."""
    complaints(browser)
    browser.get(page.as_uri())
    return complaints(browser)


def test_nothing_inline_runs(browser: Any, pages: Path) -> None:
    opened(browser, pages / "without.html")
    assert browser.execute_script(RAN) == ["ran", "ran", "77px"]
    told = opened(browser, pages / "with.html")
    assert browser.execute_script(RAN) == [None, None, ""]
    assert sum("Content Security Policy" in line for line in told) >= 3


def test_no_script_turns_text_into_markup(browser: Any, pages: Path) -> None:
    write = (
        "try { document.querySelector('#styled').innerHTML = '<b>x</b>'; return 'written'; }"
        "catch (error) { return error.name; }"
    )
    opened(browser, pages / "without.html")
    assert browser.execute_script(write) == "written"
    opened(browser, pages / "with.html")
    assert browser.execute_script(write) == "TypeError"
    assert complaints(browser) != []  # and leaves none for the next test


def test_no_script_sends_a_request(browser: Any, pages: Path) -> None:
    ask = (
        "const done = arguments[0];"
        "document.addEventListener('securitypolicyviolation', (e) => done(e.effectiveDirective));"
        "fetch('data:text/plain,x').then(() => done('sent'), () => {});"
    )
    opened(browser, pages / "without.html")
    assert browser.execute_async_script(ask) == "sent"
    opened(browser, pages / "with.html")
    assert browser.execute_async_script(ask) == "connect-src"
    assert complaints(browser) != []
