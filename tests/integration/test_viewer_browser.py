"""The viewer in a real browser, from a file: keyboard, search, links, hostile text, size."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser import complaints, look
from tests.viewer_fixture import HOSTILE, hostile_tree, question_trees, wide_tree, write_run
from treegrpo.cli.view import write_view
from treegrpo.cli.view_trees import question_tree
from treegrpo.leaderboards.site.viewer import ViewerPage, render_page, render_viewer
from treegrpo.leaderboards.site.viewer_model import ViewerNode, ViewerTree

Open = Callable[..., Any]
BY_ID = "const at = (id) => document.getElementById(id);"


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Any:
    """Return a function that opens a page of trees and gives the browser."""

    def open_page(*trees: ViewerTree, hash: str = "") -> Any:
        page = tmp_path / f"page-{len(list(tmp_path.iterdir()))}.html"
        text = render_viewer(ViewerPage(title="A run", trees=trees, source="trees.jsonl"))
        page.write_text(text, encoding="utf-8")
        complaints(browser)  # forget those of the test before
        browser.get(page.as_uri() + hash)
        return browser

    yield open_page
    look(browser)
    assert complaints(browser) == []


def press(browser: Any, *keys: str) -> None:
    """Press keys where the focus is."""
    from selenium.webdriver import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def key(name: str) -> str:
    from selenium.webdriver.common.keys import Keys

    return getattr(Keys, name)


def selected(browser: Any) -> str:
    """Return the id of the selected step, as the address says it."""
    script = "return new URLSearchParams(location.hash.slice(1)).get('node')"
    return browser.execute_script(script)


def text_of(browser: Any, id: str) -> str:
    return browser.execute_script(f"{BY_ID} return at('{id}').innerText")


def is_in_sight(browser: Any) -> bool:
    """Return whether the selected card lies wholly inside the canvas."""
    return browser.execute_script(
        BY_ID
        + """
        const card = document.querySelector(".card[aria-selected='true']").getBoundingClientRect();
        const box = at("canvas").getBoundingClientRect();
        return card.left >= box.left && card.right <= box.right
          && card.top >= box.top && card.bottom <= box.bottom;"""
    )


def processor_seconds(browser: Any) -> dict[int, float]:
    """Return the processor time of each of the browser's processes, by process id."""
    ticks = os.sysconf("SC_CLK_TCK")
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # the process has ended meanwhile
        pid = int(stat.parent.name)
        parents[pid] = int(fields[1])
        seconds[pid] = (int(fields[11]) + int(fields[12])) / ticks
    ours = {browser.service.process.pid}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return {pid: seconds[pid] for pid in ours if pid in seconds}


def small() -> ViewerTree:
    return question_tree(question_trees())


# ---- what is shown


def test_every_step_is_a_card_with_its_credit_and_outcome(opened: Open) -> None:
    browser = opened(small())
    cards = browser.execute_script(
        "return [...document.querySelectorAll('.card')]"
        ".sort((a, b) => a.dataset.index - b.dataset.index)"
        ".map((card) => [card.className, card.innerText.replace(/\\s+/g, ' ')])"
    )
    assert [words for words, _ in cards] == [
        "card u on-path", "card z", "card p10", "card n10", "card p5",
    ]  # fmt: skip
    assert cards[1][1] == "1 search \u25c6 0.00 Sund 2"
    assert cards[2][1] == "2 answer \u25b2 +0.50 Maren correct"
    assert cards[3][1] == "2 answer \u25bc \u22120.50 Tove wrong"


def test_the_detail_says_all_of_a_step(opened: Open) -> None:
    browser = opened(small(), hash="#node=0.1")
    detail = text_of(browser, "detail")
    for shown in ("Step 1", "Look.", "search", "query: Sund", "Maren.", "a" * 64, "0.5"):
        assert shown in detail
    assert "Branches at this fork" in detail  # the chain of the other tree begins beside it
    steps = browser.execute_script(
        "return [...document.querySelectorAll('.timeline button')].map((b) => b.innerText.trim())"
    )
    assert steps == ["start", "1", "2"]
    browser.execute_script("document.querySelectorAll('.timeline button')[2].click()")
    assert selected(browser) == "0.2"


# ---- keyboard


def test_arrow_keys_walk_to_parent_child_and_neighbour(opened: Open) -> None:
    browser = opened(small())
    browser.execute_script("document.getElementById('canvas').focus()")
    walk = [
        ("ARROW_RIGHT", "0.1"), ("ARROW_RIGHT", "0.2"), ("ARROW_RIGHT", "0.2"),
        ("ARROW_DOWN", "0.3"), ("ARROW_DOWN", "0.3"), ("ARROW_UP", "0.2"),
        ("ARROW_LEFT", "0.1"), ("ARROW_DOWN", "1.1"), ("HOME", "start"),
    ]  # fmt: skip
    for name, expected in walk:
        press(browser, key(name))
        assert (name, selected(browser)) == (name, expected)


def test_in_a_chain_the_arrow_keys_turn_with_it(opened: Open) -> None:
    nodes = [ViewerNode(str(i), str(i - 1) if i else None, i) for i in range(4)]
    browser = opened(ViewerTree("an episode", tuple(nodes)))
    press(browser, key("ARROW_DOWN"), key("ARROW_DOWN"))
    assert selected(browser) == "2"
    press(browser, key("ARROW_UP"), key("ARROW_RIGHT"))
    assert selected(browser) == "1"


def test_enter_reads_the_step_and_escape_goes_back(opened: Open) -> None:
    browser = opened(small())
    focus = "return document.activeElement.id"
    browser.execute_script("document.getElementById('canvas').focus()")
    press(browser, key("ENTER"))
    assert browser.execute_script(focus) == "detail"
    press(browser, key("ESCAPE"))
    assert browser.execute_script(focus) == "canvas"


def test_space_folds_a_subtree_and_the_right_arrow_unfolds_it(opened: Open) -> None:
    browser = opened(small(), hash="#node=0.1")
    count = "return document.querySelectorAll('.card').length"
    folded = "return document.querySelector('.folded')?.textContent"
    press(browser, " ")
    assert (browser.execute_script(count), browser.execute_script(folded)) == (3, "+2")
    press(browser, key("ARROW_RIGHT"))
    assert (browser.execute_script(count), selected(browser)) == (5, "0.2")


def test_the_keys_are_explained(opened: Open) -> None:
    browser = opened(small())
    press(browser, "?")
    assert "fold or unfold" in text_of(browser, "help")
    press(browser, key("ESCAPE"))
    assert not browser.execute_script(f"{BY_ID} return at('help').open")


# ---- links, search, filter


def test_a_deep_link_selects_a_step_and_brings_it_into_sight(opened: Open) -> None:
    browser = opened(wide_tree(500), hash="#node=0.480")
    assert selected(browser) == "0.480"
    assert is_in_sight(browser)
    assert "node\n0.480" in text_of(browser, "detail")


def test_a_link_in_an_open_page_is_followed(opened: Open) -> None:
    browser = opened(wide_tree(100), small(), hash="#tree=2&node=0.3")
    assert "Tove" in text_of(browser, "detail")
    browser.execute_script("location.hash = '#node=0.42'")
    assert browser.execute_async_script(
        "addEventListener('hashchange', () => setTimeout(arguments[0], 0, 'seen'), {once: true});"
        "location.hash = '#node=0.43'"
    )
    assert selected(browser) == "0.43"


def test_a_link_to_nothing_says_so(opened: Open) -> None:
    browser = opened(small(), hash="#node=9.9&tree=x&show=constructor")
    assert text_of(browser, "status") == "There is no step 9.9 on this page."
    assert selected(browser) == "start"


def test_search_goes_through_what_it_finds(opened: Open) -> None:
    browser = opened(small())
    press(browser, "/")
    press(browser, "ANSWER")
    assert (selected(browser), text_of(browser, "count")) == ("0.2", "1 / 3")
    press(browser, key("ENTER"))
    assert (selected(browser), text_of(browser, "count")) == ("0.3", "2 / 3")
    press(browser, key("ESCAPE"), "n", "n")
    assert (selected(browser), text_of(browser, "count")) == ("0.2", "1 / 3")
    assert browser.execute_script("return document.querySelectorAll('.card.dim').length") == 2
    press(browser, "/", "no such word")
    assert text_of(browser, "count") == "none"


def test_the_filter_shows_ways_to_failure_or_forks_and_stands_in_the_address(opened: Open) -> None:
    browser = opened(small(), hash="#show=failed&node=0.3")
    shown = (
        "return [...document.querySelectorAll('.card')].map((c) => Number(c.dataset.index)).sort()"
    )
    assert browser.execute_script(shown) == [0, 1, 3]
    choose = (
        f"{BY_ID} at('show').value = arguments[0]; at('show').dispatchEvent(new Event('change'))"
    )
    browser.execute_script(choose, "correct")
    assert browser.execute_script(shown) == [0, 1, 2, 4]
    assert selected(browser) == "0.1"  # what was selected is hidden: the step above it is shown
    assert browser.execute_script("return location.hash").endswith("&show=correct")
    browser.execute_script(choose, "forks")
    assert browser.execute_script(shown) == [0, 1, 2, 3, 4]


def test_the_link_to_a_step_can_be_copied(opened: Open) -> None:
    browser = opened(small(), hash="#node=0.2")
    browser.execute_script("document.querySelector('.copy').click()")
    script = (
        "const done = arguments[0]; (function look() {"
        "  const field = document.querySelector('.address');"
        "  if (field) return done(field.value);"
        "  if (document.querySelector('.copy')?.textContent === 'Copied') return done('copied');"
        "  setTimeout(look, 10); })()"
    )
    assert browser.execute_async_script(script) in ("copied", browser.current_url)
    assert browser.current_url.endswith("#node=0.2")


# ---- size


def test_a_tree_of_five_hundred_steps_opens_in_two_seconds_of_work(opened: Open) -> None:
    browser = opened(wide_tree(500))
    before = processor_seconds(browser)
    browser.refresh()
    assert browser.execute_script("return document.querySelectorAll('.card').length") >= 10
    after = processor_seconds(browser)
    # Of all processes of the browser, new ones included: what else the machine does is not in it.
    assert sum(spent - before.get(pid, 0.0) for pid, spent in after.items()) < 2.0
    press(browser, "0")
    script = "return document.querySelectorAll('.card').length"
    assert browser.execute_async_script(
        "requestAnimationFrame(() => requestAnimationFrame(() => arguments[0](1)))"
    )
    assert browser.execute_script(script) == 500  # the whole tree is in sight


def test_of_a_large_tree_only_what_is_in_sight_is_in_the_page(opened: Open) -> None:
    browser = opened(wide_tree(5_000), hash="#node=0.2500")
    assert browser.execute_script("return document.querySelectorAll('.card').length") < 200
    assert is_in_sight(browser)


def test_it_works_on_a_narrow_screen_and_in_the_dark(opened: Open, browser: Any) -> None:
    look(browser, width=360, height=740, is_dark=True)
    opened(wide_tree(60), hash="#node=0.50")
    assert browser.execute_script("return document.documentElement.scrollWidth") == 360
    assert is_in_sight(browser)
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(19, 21, 24)"


def test_the_colours_chosen_on_the_site_hold_here_too(opened: Open, browser: Any) -> None:
    opened(small())
    browser.execute_script("localStorage.setItem('theme', 'dark')")
    browser.refresh()
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    browser.execute_script("localStorage.clear()")
    assert ground == "rgb(19, 21, 24)"


# ---- hostile text


def test_hostile_text_is_shown_and_does_nothing(opened: Open) -> None:
    browser = opened(hostile_tree())
    press(browser, key("ARROW_DOWN"))  # a chain: the one step after the start
    detail = text_of(browser, "detail")
    assert "<script>window.owned = 1</script>" in detail
    assert "\u241b[31mred" in detail  # the escape is seen
    assert "{{ 7 * 7 }}" in detail
    assert f"{1_000_000 + len(HOSTILE) - 20_000:,}".replace(",", "\u202f") in detail
    assert browser.execute_script("return typeof window.owned") == "undefined"
    counts = (
        "return ['img', 'iframe', 'style', 'script', 'a']"
        ".map((name) => document.body.querySelectorAll(name).length)"
    )
    assert browser.execute_script(counts) == [0, 0, 0, 2, 0]
    reading = "return getComputedStyle(document.querySelector('pre.seen')).unicodeBidi"
    assert browser.execute_script(reading) == "isolate"


# ---- the pages of a run


def test_a_bundles_table_keeps_its_words_whole_on_a_narrow_screen(
    browser: Any, tmp_path: Path
) -> None:
    index = tmp_path / "index.html"
    values = dict.fromkeys(("reward", "turns", "tool_calls", "tokens", "index", "trial"), "0")
    row = values | {"page": "x", "task": "question-12", "outcome": "correct", "ending": "answered"}
    text = render_page("viewer_bundle.html.j2", title="A run", facts=[], rows=[row])
    index.write_text(text, encoding="utf-8")
    look(browser, width=360, height=740)
    browser.get(index.as_uri())
    heights = "return [...document.querySelectorAll('tr')].map((line) => line.offsetHeight)"
    assert max(browser.execute_script(heights)) < 40  # one line each
    assert browser.execute_script("return document.documentElement.scrollWidth") == 360
    look(browser)


def test_from_the_training_page_to_the_trees_of_a_step_and_back(
    browser: Any, tmp_path: Path
) -> None:
    index = write_view([write_run(tmp_path / "mine")], None, 1.0).index
    complaints(browser)
    browser.get(index.as_uri())
    assert browser.execute_script("return document.querySelectorAll('.chart svg').length") == 6
    browser.execute_script("document.querySelector('td a').click()")
    assert browser.current_url.startswith((index.parent / "steps" / "000003.html").as_uri())
    assert browser.execute_script("return document.querySelectorAll('.card').length") == 5
    browser.execute_script("document.querySelector('.links a').click()")
    assert browser.current_url == index.as_uri()
    assert complaints(browser) == []
