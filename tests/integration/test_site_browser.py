"""The leaderboard's pages in a real browser, from files and over HTTP."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.board_fixture import (
    AGENTS,
    KEY,
    FixtureSource,
    digest_of,
    hostile_board,
    large_board,
    make_board,
    outcomes,
)
from tests.browser import complaints, look
from treegrpo.leaderboards.site.build import build_site
from treegrpo.leaderboards.site.data import run_script
from treegrpo.leaderboards.site.pages import render_board
from treegrpo.leaderboards.stats import UNIT, compare_all, paired_difference

BOARD = f"boards/{KEY.id}.html"
WAIT_S = 60


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The invented boards as a folder; of the large one only the page and one run."""
    out = tmp_path_factory.mktemp("site") / "out"
    board, large = make_board(), large_board()
    # Episode pages belong to the viewer's tests; five runs are enough for comparisons.
    source = FixtureSource(board.model_copy(update={"rows": []}), hostile_board())
    build_site(source, out)
    (out / BOARD).write_text(render_board(board), encoding="utf-8")
    (out / f"boards/{large.key.id}.html").write_text(render_board(large), encoding="utf-8")
    details = FixtureSource(board)
    for row in board.rows:
        script = run_script(details.run_detail(row.digest))
        (out / "data" / f"{row.digest[:32]}.js").write_text(script, encoding="utf-8")
    return out


class Page:
    """An open page and what a reader does with it."""

    def __init__(self, driver: Any, base: str) -> None:
        self.driver, self.base = driver, base

    def open(self, path: str) -> None:
        self.driver.get("about:blank")  # a change of the hash alone would load nothing
        self.driver.get(self.base + path)

    def js(self, code: str, *values: Any) -> Any:
        return self.driver.execute_script(code, *values)

    def until(self, code: str) -> Any:
        """Return what the code returns, once that is true."""
        from selenium.webdriver.support.wait import WebDriverWait

        return WebDriverWait(self.driver, WAIT_S).until(lambda driver: driver.execute_script(code))

    def click(self, selector: str) -> None:
        self.driver.find_element("css selector", selector).click()

    def type(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def agents(self) -> list[str]:
        """Return the ranked agents that the table shows, in order."""
        return self.js(
            "return [...document.querySelectorAll('#rows tbody:nth-of-type(2) .agent')]"
            ".map((cell) => cell.textContent)"
        )

    def state(self) -> dict[str, str]:
        """Return what the address says."""
        return {k: v[0] for k, v in parse_qs(self.js("return location.hash.slice(1)")).items()}

    def focused(self) -> str:
        return self.js("return document.activeElement.dataset.column || document.activeElement.id")


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Yield the address of a plain file server on loopback."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.fixture
def page(browser: Any, site: Path) -> Iterator[Page]:
    """A page from a file; afterwards the console must have been silent."""
    look(browser, width=1400, height=900)
    complaints(browser)
    yield Page(browser, site.as_uri() + "/")
    assert complaints(browser) == []
    look(browser)


def name_of(agent: str) -> str:
    return digest_of(agent)[:12]


def by_score() -> list[str]:
    return [row.agent for row in make_board().rows if row.pinned is None]


def test_the_table_shows_every_row_pinned_ones_first(page: Page) -> None:
    page.open(BOARD)
    assert page.agents() == by_score()
    pinned = page.js("return document.querySelector('#rows tbody').innerText")
    assert [word for word in ("oracle", "random", "null") if word in pinned] == [
        "oracle", "random", "null",
    ]  # fmt: skip
    assert page.js("return document.querySelector('#count').textContent") == (
        "8 ranked rows, 3 pinned"
    )
    cell = "return document.querySelector('#rows tbody:nth-of-type(2) tr .c-success').textContent"
    best = max(row.success for row in make_board().rows if row.pinned is None)
    assert page.js(cell) == f"{100 * best:.1f}r"


def test_a_header_sorts_and_tells_it_to_everybody(page: Page) -> None:
    page.open(BOARD)
    page.click("#rows [data-column=tool_calls]")
    calls = {agent.name: agent.calls for agent in AGENTS}
    assert page.agents() == sorted(by_score(), key=lambda name: calls[name])
    sort = "return document.querySelector('#rows th.c-tool_calls').ariaSort"
    assert page.js(sort) == "ascending" and page.state()["sort"] == "tool_calls"
    page.click("#rows [data-column=tool_calls]")
    assert page.agents() == sorted(by_score(), key=lambda name: -calls[name])
    assert page.js(sort) == "descending"
    page.click("#rows [data-column=dollars]")
    assert page.agents()[-1] == "kestrel-nano"  # nobody counted its dollars: last both ways
    page.click("#rows [data-column=dollars]")
    assert page.agents()[0] == "kestrel-tools" and page.agents()[-1] == "kestrel-nano"


def test_search_and_filters_narrow_the_table_and_stand_in_the_address(page: Page) -> None:
    page.open(BOARD)
    page.click("#q")
    page.type("GRPO")
    assert sorted(page.agents()) == ["flat-grpo 0.9M", "tree-grpo 0.9M"]
    assert page.js("return document.querySelector('#count').textContent") == "2 of 8 ranked rows"
    page.js(
        "const s = document.querySelector('#tier'); s.value = '2';"
        "s.dispatchEvent(new Event('change'))"
    )
    tiers = {row.agent: row.tier for row in make_board().rows}
    assert page.agents() == [name for name in by_score() if "grpo" in name and tiers[name] == 2]
    assert page.state() == {"q": "GRPO", "tier": "2"}
    page.click("#clear")
    assert page.agents() == by_score() and page.state() == {}
    page.type("nobody-has-this-name")
    assert page.js("return document.querySelector('#no-rows').innerText") == (
        "No row matches these filters."
    )
    assert page.js("return document.querySelector('#rows tbody').rows.length") == 0
    page.open(f"{BOARD}#q=oracle")
    assert page.js("return document.querySelector('#rows tbody').innerText").count("oracle") == 1
    assert page.js("return document.querySelector('#no-rows').hidden") is True
    assert page.js("return document.querySelector('#count').textContent") == (
        "0 of 8 ranked rows, 1 pinned"
    )


def test_a_link_restores_all_that_was_set(page: Page) -> None:
    page.open(f"{BOARD}#sort=-tokens&q=atlas&cols=rank,success,signer&rows={name_of('atlas-mini')}")
    assert page.agents() == ["atlas-react", "atlas-mini"]
    heads = (
        "return [...document.querySelectorAll('#rows thead button')].map((b) => b.dataset.column)"
    )
    assert page.js(heads) == ["rank", "agent", "success", "signer"]
    assert page.js(
        "return [...document.querySelectorAll('#rows tbody:nth-of-type(2) input')]"
        ".map((box) => box.checked)"
    ) == [False, True]
    assert page.js("return document.querySelector('#q').value") == "atlas"


def test_columns_can_be_chosen(page: Page) -> None:
    page.open(BOARD)
    page.click("#columns summary")
    page.click("#columns [data-column=reward]")
    page.click("#columns [data-column=attempts]")
    columns = page.state()["cols"].split(",")
    assert "reward" in columns and "attempts" not in columns
    assert page.js("return document.querySelectorAll('#rows thead th.c-reward').length") == 1
    page.click("#columns [data-column=reward]")
    page.click("#columns [data-column=attempts]")
    assert page.state() == {}


def test_the_keyboard_reaches_and_works_everything(page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    page.open(BOARD)
    page.type(Keys.TAB)
    assert page.js("return document.activeElement.className") == "skip"
    shown = page.js("return document.activeElement.getBoundingClientRect().top") >= 0
    assert shown
    page.type("/")
    assert page.focused() == "q"
    page.type("finch")
    assert page.agents() == ["finch-7b-react"]
    page.js("document.querySelector('#rows [data-column=success]').focus()")
    page.type(Keys.ENTER)
    assert page.state()["sort"] == "-success" and page.focused() == "success"
    page.type(Keys.SPACE)
    assert page.state()["sort"] == "success"
    outline = page.js("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.click("#columns summary")
    page.type(Keys.ESCAPE)
    assert page.js("return document.querySelector('#columns').open") is False


def saved_csv(page: Page) -> list[dict[str, str]]:
    """Return the rows of what the CSV button gives, read from the blob it makes."""
    page.js(
        "window.blobs = []; const make = URL.createObjectURL;"
        "URL.createObjectURL = (blob) => { window.blobs.push(blob); return make(blob); };"
        "HTMLAnchorElement.prototype.click = function () { window.savedAs = this.download; };"
    )
    page.click("#csv")
    text = page.driver.execute_async_script(
        "const done = arguments[0]; window.blobs[0].text().then(done)"
    )
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_the_csv_holds_the_rows_that_are_shown(page: Page) -> None:
    page.open(f"{BOARD}#provider=Kestrel&sort=-tool_calls")
    rows = saved_csv(page)
    assert page.js("return window.savedAs") == f"{KEY.id}.csv"
    assert [row["agent"] for row in rows] == [
        "oracle", "random", "null", "kestrel-nano", "kestrel-tools",
    ]  # fmt: skip
    nano, tools = rows[3:]
    known = {row.agent: row for row in make_board().rows}["kestrel-tools"]
    assert tools["digest"] == known.digest[:32] and tools["env_id"] == KEY.env_id
    assert float(tools["success"]) == round(known.success, 4)
    assert tools["sampled_tokens"] == str(known.sampled_tokens)
    assert tools["evaluated"] == known.evaluated[:16] + "Z"
    assert (nano["dollars"], nano["sampled_tokens"]) == ("", "")


def test_the_plot_draws_what_was_counted_and_lists_the_rest(page: Page) -> None:
    page.open(f"{BOARD}#view=plot&x=dollars")
    marks = page.js("return document.querySelectorAll('#plot .mark').length")
    assert marks == 7
    assert page.js("return document.querySelector('#uncounted').innerText") == "kestrel-nano"
    assert page.js("return document.querySelectorAll('#plot .floor').length") == 3
    names = page.js(
        "return [...document.querySelectorAll('#plot .best')].map((m) => m.ariaLabel.split(':')[0])"
    )
    rows = {row.agent: row for row in make_board().rows if row.pinned is None and row.dollars}
    cost = {name: float(row.dollars or 0) for name, row in rows.items()}
    assert names == expected_frontier({n: (cost[n], rows[n].success) for n in rows})
    assert len(names) > 1
    page.click("#costs [value=calls]")
    assert page.state() == {"view": "plot", "x": "calls"}
    assert page.js("return document.querySelectorAll('#plot .mark').length") == 8
    assert page.js("return document.querySelector('#uncounted')") is None


def test_rows_of_one_name_are_told_apart_and_the_plot_opens_on_what_was_counted(
    page: Page, site: Path
) -> None:
    rows = make_board((*AGENTS[:3], AGENTS[3])).rows
    uncounted = {"agent": "scripted", "model": None, "sampled_tokens": None}
    twins = [
        rows[3].model_copy(update=uncounted | {"digest": digest_of(name)})
        for name in ("first", "second")
    ]
    board = make_board().model_copy(update={"rows": [*rows[:3], *twins]})
    (site / "boards/twins.html").write_text(render_board(board), encoding="utf-8")
    page.open("boards/twins.html")
    under = "return [...document.querySelectorAll('#rows .under')].map((line) => line.innerText)"
    assert page.js(under) == [f"run {digest_of(name)[:6]}" for name in ("first", "second")]
    page.open(f"boards/twins.html#view=compare&rows={name_of('first')}")
    alone = "return document.querySelector('#comparison .empty')?.innerText"
    assert page.until(alone).startswith(f"scripted, run {digest_of('first')[:6]} is chosen")
    page.open("boards/twins.html")
    page.click("#views [data-view=plot]")
    pressed = "return document.querySelector('#costs [aria-pressed=true]').value"
    assert page.js(pressed) == "calls" and page.state() == {"view": "plot"}
    assert page.js("return document.querySelectorAll('#plot .mark').length") == 2


def test_a_board_of_one_row_has_one_row(page: Page, site: Path) -> None:
    board = make_board(AGENTS[3:4])
    (site / "boards/one.html").write_text(render_board(board), encoding="utf-8")
    page.open("boards/one.html")
    assert page.js("return document.querySelector('#count').textContent") == "1 ranked row"


def expected_frontier(points: dict[str, tuple[float, float]]) -> list[str]:
    """Return by rising cost those whom nobody beats in both, found by comparing all pairs."""
    found = [
        name
        for name, (cost, score) in points.items()
        if not any(
            (c <= cost and s >= score) and (c, s) != (cost, score) for c, s in points.values()
        )
    ]
    return sorted(found, key=lambda name: points[name])


def test_rows_are_chosen_in_the_table_and_compared(page: Page) -> None:
    page.open(BOARD)
    for agent in ("atlas-react", "warm start"):
        page.click(f"#rows input[aria-label='Compare {agent}']")
    page.click("#views [data-view=compare]")
    page.until("return document.querySelector('#pairs')")
    means = {
        agent.name: {str(i): [float(x) for x in won] for i, won in enumerate(outcomes(agent))}
        for agent in AGENTS
    }
    exact = paired_difference(means["atlas-react"], means["warm start"], bounds=UNIT).difference
    assert exact.low is not None and exact.high is not None
    cells = page.js("return [...document.querySelectorAll('#pairs td')].map((c) => c.innerText)")
    assert cells[0] == signed(exact.mean)
    assert cells[1].strip() == f"{signed(exact.low)} to {signed(exact.high)}"
    assert cells[4] == "A is better"
    assert page.js("return document.querySelectorAll('.curve').length") == 2
    assert page.js("return document.querySelectorAll('.matrix .cell').length") == 80
    assert page.state()["rows"] == f"{name_of('atlas-react')},{name_of('warm start')}"
    page.driver.back()
    assert page.js("return document.querySelector('#view-table').hidden") is False


def signed(share: float) -> str:
    text = f"{100 * share:+.1f}"
    return text.replace("-", "\u2212") if float(text) else "0.0"


def test_the_scripts_statistics_are_those_of_the_library(page: Page) -> None:
    """Four rows, six pairs: differences, intervals and p-values beside Python's."""
    agents = [
        agent for agent in AGENTS if agent.name in ("atlas-react", "atlas-mini", "warm start")
    ]
    agents.append(AGENTS[0])
    page.open(f"{BOARD}#view=compare&rows={','.join(name_of(a.name) for a in agents)}")
    page.until("return document.querySelector('#pairs')")
    rows = {
        a.name: {str(i): [float(x) for x in t] for i, t in enumerate(outcomes(a))} for a in agents
    }
    pairs = [("atlas-react", "atlas-mini"), ("oracle", "warm start"), ("oracle", "oracle")]
    for before, after in pairs:
        expected = paired_difference(rows[before], rows[after], bounds=UNIT)
        data = [
            {"tasks": list(rows[name]), "solved": [sum(t) for t in rows[name].values()],
             "trials": [len(t) for t in rows[name].values()]}
            for name in (before, after)
        ]  # fmt: skip
        found = page.js("return treegrpo.paired(...arguments, treegrpo.data.t)", *data)
        assert found["mean"] == pytest.approx(expected.difference.mean, abs=1e-9)
        assert found["low"] == pytest.approx(expected.difference.low, abs=2e-4)
        assert found["high"] == pytest.approx(expected.difference.high, abs=2e-4)
        assert (found["wins"], found["losses"]) == (expected.wins, expected.losses)
        # The library draws 19,999 patterns above 16 tasks, the page counts all of them.
        assert found["p"] == pytest.approx(expected.flip_p_value, abs=0.015)
    assert page.js("return treegrpo.signFlips([1, 1, 1])") == 0.25
    assert page.js("return treegrpo.signFlips([2, -1, 0])") == 1.0
    library = compare_all(rows, bounds=UNIT)
    flips = [one.paired.flip_p_value for one in library]
    adjusted = page.js("return treegrpo.holm(arguments[0])", flips)
    assert adjusted == pytest.approx([one.adjusted_p for one in library])


def test_runs_on_other_tasks_are_not_paired(page: Page) -> None:
    page.open(f"{BOARD}#view=compare&rows={name_of('atlas-react')},{name_of('atlas-mini')}")
    page.until("return document.querySelector('#pairs')")
    row = {"solved": [1, 0], "trials": [1, 1]}
    first, second = {**row, "tasks": ["0:aa", "1:bb"]}, {**row, "tasks": ["0:cc", "1:bb"]}
    assert page.js("return treegrpo.paired(...arguments, [12.7])", first, second) is None


def test_a_missing_outcome_is_said(page: Page, site: Path) -> None:
    names = [row.digest[:12] for row in large_board().rows[:2]]
    page.open(f"boards/{large_board().key.id}.html#view=compare&rows={','.join(names)}")
    text = page.until(
        "const t = document.querySelector('#comparison').innerText;"
        "return t.includes('missing') && t"
    )
    assert "the file in data/ is missing" in text
    assert all("net::ERR_FILE_NOT_FOUND" in line for line in complaints(page.driver))


def test_a_thousand_rows_open_and_answer_within_seconds_of_cpu(page: Page) -> None:
    page.driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    page.open(f"boards/{large_board().key.id}.html")
    assert len(page.agents()) == 1_000
    page.click("#rows [data-column=tool_calls]")
    found = page.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    spent = {one["name"]: one["value"] for one in found}
    page.driver.execute_cdp_cmd("Performance.disable", {})
    assert 0 < spent["ScriptDuration"] < 3  # thread time, whatever else the machine does


@pytest.mark.parametrize("view", ["table", "plot", "compare"])
def test_hostile_text_does_nothing(page: Page, view: str) -> None:
    names = ",".join(row.digest[:12] for row in hostile_board().rows[-2:])
    page.open(f"boards/badbadbadbad.html#view={view}&x=dollars&rows={names}")
    if view == "compare":
        page.until("return document.querySelector('#pairs')")
    text = page.js(f"return document.querySelector('#view-{view}').textContent")
    assert "<script>window.hacked=1</script>" in text
    assert "\x1b" not in text and "\u202e" not in text and "\u241b[31mred" in text
    assert page.js("return window.hacked") is None
    assert page.js("return document.images.length") == 0


@pytest.mark.parametrize("view", ["table", "plot", "compare", "constructor", "%3Cimg%20src=x%3E"])
def test_hostile_text_in_the_address_does_nothing(page: Page, view: str) -> None:
    attack = "%3Cimg%20src=x%20onerror=window.hacked=1%3E"
    rows = f"{attack},{name_of('atlas-react')},{name_of('warm start')}"
    state = f"sort=constructor&x=__proto__&unit=toString&cols={attack}&rows={rows}&q=%22&tier=x"
    page.open(f"{BOARD}#view={view}&{state}")
    if view == "compare":
        page.until("return document.querySelector('#pairs') && document.querySelector('.curve')")
    assert page.js("return window.hacked") is None
    assert page.js("return document.images.length") == 0
    shown = (
        "return [...document.querySelectorAll('main > section')]"
        ".filter((view) => !view.hidden).map((view) => view.id)"
    )
    known = view if view in ("plot", "compare") else "table"
    assert page.js(shown) == [f"view-{known}"]


def test_a_hostile_run_page_does_nothing(page: Page, site: Path) -> None:
    for run in sorted((site / "runs").iterdir()):
        page.open(f"runs/{run.name}")
        assert page.js("return window.hacked") is None


def test_formulas_in_the_csv_stay_text(page: Page) -> None:
    page.open(BOARD)
    lines = page.js(
        "const row = {...treegrpo.data.all[0], agent: '=1+1', model: '@x', provider: 'a\"b,c'};"
        "return treegrpo.csv(treegrpo.data, [row])"
    )
    (row,) = csv.DictReader(io.StringIO(lines, newline=""))
    assert (row["agent"], row["model"], row["provider"]) == ("'=1+1", "'@x", 'a"b,c')


def test_light_dark_and_the_choice_is_kept(page: Page) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    page.open(BOARD)
    page.js("localStorage.clear()")
    offered = "return document.querySelector('#theme').innerText"
    light = page.js(ground)
    assert page.js(offered) == "Switch to dark"
    page.click("#theme")
    dark = page.js(ground)
    assert light != dark and page.js(offered) == "Switch to light"
    page.open("index.html")
    assert page.js(ground) == dark
    page.js("localStorage.clear()")
    look(page.driver, is_dark=True)
    page.open(BOARD)
    assert page.js(ground) == dark and page.js(offered) == "Switch to light"
    look(page.driver)
    page.until(f"{offered} === 'Switch to dark'")  # the system's choice holds while it is open


@pytest.mark.parametrize("path", ["table", "plot", "compare", "index", "environment", "run"])
def test_nothing_sticks_out_at_360_pixels(page: Page, site: Path, path: str) -> None:
    look(page.driver, width=360, height=740)
    names = ",".join(name_of(name) for name in ("atlas-react", "atlas-mini"))
    places = {
        "index": "index.html",
        "environment": f"environments/{sorted((site / 'environments').iterdir())[0].name}",
        "run": f"runs/{sorted((site / 'runs').iterdir())[0].name}",
    }
    page.open(places.get(path, f"{BOARD}#view={path}&rows={names}"))
    if path == "compare":
        page.until("return document.querySelector('#pairs')")
    assert page.js("return document.documentElement.scrollWidth") <= 360
    right = "return document.querySelector(arguments[0]).getBoundingClientRect().right"
    if path == "plot":
        assert page.js(right, "#plot .axis-x") <= 360
    if path == "table":
        assert page.js(right, "#rows tbody .c-interval .span") <= 345
        fades = "return document.querySelector('.table').classList.contains('more')"
        page.until(fades)
        page.js("document.querySelector('.table').scrollLeft = 9999")
        page.until(f"return !(() => {{ {fades} }})()")


def test_the_same_files_work_over_http_in_a_subfolder(browser: Any, site: Path) -> None:
    complaints(browser)
    with served(site.parent) as address:
        page = Page(browser, f"{address}{site.name}/")
        names = ",".join(name_of(name) for name in ("atlas-react", "atlas-mini"))
        page.open("index.html")
        page.open(f"{BOARD}#view=compare&rows={names}")
        page.until("return document.querySelector('#pairs')")
        page.open(BOARD)
        assert page.agents() == by_score()
        asked = page.js("return performance.getEntriesByType('resource').map((e) => e.name)")
        assert asked and all(url.startswith(address) for url in asked)
        told = page.driver.execute_async_script(
            "const done = arguments[0]; fetch(document.querySelector('#json').href)"
            ".then((r) => done(r.status), (e) => done(String(e)))"
        )
        assert "Failed to fetch" in told  # the policy lets scripts ask nobody at all
    refused = complaints(browser)
    assert refused and all("Content Security Policy" in line for line in refused)


def test_the_board_as_json_is_the_whole_board(site: Path) -> None:
    found = json.loads((site / "boards/badbadbadbad.json").read_text(encoding="utf-8"))
    assert found == hostile_board().model_dump(mode="json")
