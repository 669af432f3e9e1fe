"""The site's pages as text: escaping, policy, what each shows, what it does not."""

from __future__ import annotations

import re

import pytest

from tests.board_fixture import (
    AGENTS,
    HOSTILE,
    Agent,
    hostile_board,
    large_board,
    make_board,
    make_detail,
    make_environment,
)
from treegrpo.leaderboards.board import Board
from treegrpo.leaderboards.site.pages import (
    ASSETS,
    MAX_EPISODES,
    POLICY,
    STATIC,
    render_board,
    render_environment,
    render_index,
    render_run,
)

ATTACKER = Agent(HOSTILE, 0.5, price=0.001, fields={"provider": HOSTILE, "signer": HOSTILE})


def hostile_pages() -> dict[str, str]:
    board = hostile_board()
    detail = make_detail(ATTACKER, 1, board.key)
    entry = detail.ledger[0].model_copy(update={"who": HOSTILE, "detail": {HOSTILE: HOSTILE}})
    episode = detail.episodes[0].model_copy(
        update={"task_id": HOSTILE, "failure": "tool", "failure_detail": HOSTILE, "success": False}
    )
    last = detail.verifications[-1].model_copy(update={"first_difference": HOSTILE})
    detail = detail.model_copy(
        update={
            "removed": HOSTILE, "not_fresh": HOSTILE, "ledger": [entry], "verifications": [last],
            "episodes": [episode, *detail.episodes[1:]],
        }
    )  # fmt: skip
    return {
        "index": render_index([board]),
        "board": render_board(board),
        "environment": render_environment(make_environment(board)),
        "run": render_run(detail),
    }


@pytest.mark.parametrize("name", ["index", "board", "environment", "run"])
def test_hostile_text_is_neither_markup_nor_hidden(name: str) -> None:
    page = hostile_pages()[name]
    assert (
        "<img" not in page
        and "<script>window" not in page
        and "{{" not in page.replace("{{ 7*7 }}", "")
    )
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\u2029\u200b]", page)
    tags = re.findall(r"<[a-zA-Z][^>]*>", page)
    assert [tag for tag in tags if re.search(r"\son\w+\s*=|\sstyle\s*=", tag)] == []
    assert "\ufffdgnp.exe" in page or "\\ufffdgnp.exe" in page


@pytest.mark.parametrize("name", ["index", "board", "environment", "run"])
def test_every_page_has_a_strict_policy_and_asks_nobody_else(name: str) -> None:
    page = hostile_pages()[name]
    policy = POLICY.replace("'", "&#39;")
    assert page.index(f'content="{policy}"') < page.index("<link")
    assert not re.search(r'(src|href)="(https?:)?//', page)
    for script in re.findall(r"<script([^>]*)>", page):
        assert ' src="' in script or 'type="application/json"' in script


def test_the_policy_allows_files_of_the_site_and_nothing_inline() -> None:
    """Frozen as text: what is allowed here is what a hostile text in a page could do."""
    assert POLICY == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; "
        "trusted-types treegrpo"
    )


def test_only_pages_with_episodes_ask_search_engines_to_stay_away() -> None:
    pages = hostile_pages()
    asking = [
        name for name, page in pages.items() if '<meta name="robots" content="noindex">' in page
    ]
    assert asking == ["run"]


def test_a_page_of_a_thousand_rows_is_below_200_kb_with_style_and_scripts() -> None:
    page = render_board(large_board())
    loaded = re.findall(r'(?:src|href)="\.\./static/([^"]+)"', page)
    assert set(loaded) == set(ASSETS) - {"compare.js", "statistics.js"}
    total = len(page.encode()) + sum((STATIC / name).stat().st_size for name in loaded)
    assert total < 200_000


def test_scripts_and_styles_are_short_and_parse_no_html() -> None:
    for name in ASSETS:
        text = (STATIC / name).read_text(encoding="ascii")
        assert len(text.splitlines()) < 300
        forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function"
        assert not re.search(forbidden, text), name


def test_the_index_shows_the_best_rows_of_each_board() -> None:
    empty = Board(
        key=make_board().key.model_copy(update={"id": "0" * 12, "split": "train"}), rows=[]
    )
    page = render_index([make_board(), empty])
    ranked = [row.agent for row in make_board().rows if row.pinned is None]
    places = [page.index(agent) for agent in ranked[:3]]
    assert places == sorted(places) and ranked[3] not in page and "oracle" not in page
    assert "8 rows" in page and "No agent yet." in page
    assert "No board yet." in render_index([])


def test_boards_and_rows_that_look_alike_are_told_apart() -> None:
    board = make_board()
    digest = board.key.tasks
    words = f"open seeds, the same tasks for all, list {digest[:8]}"
    assert f"40 tasks \u00d7 2 trials; {words}" in render_index([board])
    assert f"<span>40 tasks \u00d7 2 trials</span><span>{words}</span>" in render_board(board)
    assert words in render_environment(make_environment(board))
    first, second = (row.model_copy(update={"agent": "scripted", "model": None})
                     for row in board.rows[3:5])  # fmt: skip
    rows = [first.model_copy(update={"trials": 1}), second.model_copy(update={"trials": 5})]
    fresh = board.key.model_copy(update={"tasks": f"fresh:{digest}"})
    page = render_index([Board(key=fresh, rows=rows)])
    assert (
        f"40 tasks \u00d7 1 to 5 trials; registered runs on the same tasks, list {digest[:8]}"
        in page
    )
    assert all(f"run {row.digest[:6]}" in page for row in rows)
    one = render_index([Board(key=fresh, rows=[rows[0].model_copy(update={"num_tasks": 1})])])
    assert "1 task \u00d7 1 trial;" in one and "run " not in one.split("<ol>")[1]


def test_a_board_whose_rows_have_tasks_of_their_own_has_no_one_size() -> None:
    board = make_board(AGENTS[:2])
    rows = [board.rows[0], board.rows[1].model_copy(update={"num_tasks": 7})]
    assert "tasks \u00d7" not in render_index([board.model_copy(update={"rows": rows})])


def test_an_outdated_row_is_never_the_best() -> None:
    board = make_board()
    best = max((row for row in board.rows if not row.pinned), key=lambda row: row.success)
    rows = [
        row.model_copy(update={"outdated": True}) if row.digest == best.digest else row
        for row in board.rows
    ]
    page = render_index([board.model_copy(update={"rows": rows})])
    assert best.agent not in page


def test_a_run_shows_verification_command_and_episodes() -> None:
    page = render_run(make_detail(AGENTS[3], 3))
    assert "episode 3/0, step 2: observation &#39;Paris&#39; became &#39;Lyon&#39;" in page
    assert "changed: env_digest" in page
    assert "treegrpo eval --agent oracle --env treegrpo/SearchQA-v1" in page
    digest = make_detail(AGENTS[3], 3).row.digest
    assert f'href="../episodes/{digest[:32]}-39-1.html"' in page
    assert "rescore" in page and "reason=source changed" in page


def test_a_claim_shows_what_was_claimed() -> None:
    detail = make_detail(AGENTS[3], 3)
    row = detail.row.model_copy(
        update={"tier": 0, "success": 71.25, "success_low": None, "success_high": None}
        | dict.fromkeys(("reward", "num_tasks", "trials", "turns", "tool_calls"))
    )
    claim = {"source": "A paper", "metric": "accuracy", "min_score": None}
    page = render_run(
        detail.model_copy(
            update={"row": row, "manifest": None, "episodes": [], "verifications": [],
                    "claimed": claim}
        )
    )  # fmt: skip
    assert "71.25" in page and "A paper" in page and "Nothing has been replayed" in page
    assert "Run it again" not in page and "<h2>Episodes</h2>" not in page
    assert "7125" not in page


def test_a_long_run_lists_its_first_episodes_and_says_so() -> None:
    detail = make_detail(AGENTS[0], 0)
    many = [
        detail.episodes[0].model_copy(update={"index": i, "trial": 0})
        for i in range(MAX_EPISODES + 5)
    ]
    page = render_run(detail.model_copy(update={"episodes": many}))
    assert "The first 2,000 of 2,005; the bundle has all of them." in page
    assert page.count("../episodes/") == MAX_EPISODES


def test_the_environment_says_whether_replays_came_out_the_same() -> None:
    detail = make_environment(make_board())
    page = render_environment(detail)
    assert "&check; no difference found" in page
    assert "1,760 of 1,760 episodes came out as recorded. A run that does not replay" in page
    assert "<code>treegrpo check treegrpo/SearchQA-v1</code>" in page
    assert "Determinism" not in page
    page = render_environment(detail.model_copy(update={"matched_episodes": 1_758}))
    assert "1,758 of 1,760 episodes came out" in page and "2 differ" in page and "99.9 %" in page
    none = render_environment(
        detail.model_copy(update={"replayed_episodes": 0, "tasks": [], "pinned": []})
    )
    assert "No episode has been replayed yet." in none and "have not been evaluated here" in none


def test_difficulty_is_shown_by_level_with_the_mean_of_its_tasks() -> None:
    detail = make_environment(make_board())
    mean = sum(task.success for task in detail.tasks if task.difficulty == 5) / 8
    page = render_environment(detail)
    assert f"<td>8</td><td>{100 * mean:.1f} %</td>" in page
