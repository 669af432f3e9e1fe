"""The results database and its table: only what replays gets in, once, whole."""

from __future__ import annotations

import io
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.unit.leaderboards.toy import TOY, ToyAgent, forge, half_right
from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards import store as stores
from treegrpo.leaderboards.agents import scripted_agent
from treegrpo.leaderboards.errors import BundleError, StoreError, Unverified
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.render import count, leaderboard_table, plain, summary_table
from treegrpo.leaderboards.summary import EvaluationSummary
from treegrpo.leaderboards.verify import Options


def run(out: Path, agent: Any, **changes: Any) -> EvaluationSummary:
    settings: dict[str, Any] = {"split": "test", "num_tasks": 4, "trials": 1, "seed": 0}
    return evaluate(agent, TOY, out=out, **settings | changes)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'board.sqlite'}"


def shown(renderable: Any, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_rows_are_ranked_by_success(tmp_path: Path, url: str) -> None:
    run(tmp_path / "null", scripted_agent("null"))
    summary = run(tmp_path / "half", ToyAgent(half_right, tokens=1000))
    run(tmp_path / "oracle", scripted_agent("oracle"))
    run(tmp_path / "random", scripted_agent("random"), split="train")
    for name in ("null", "half", "oracle", "random"):
        stores.add(tmp_path / name, url)
    rows = stores.table(url)
    found = [(row.rank, row.agent, row.split) for row in rows]
    assert found == [
        (1, "oracle", "test"),
        (2, "toy", "test"),
        (3, "null", "test"),
        (1, "random", "train"),
    ]
    half = rows[1]
    assert (half.success, half.success_low) == (summary.success.mean, summary.success.low)
    assert (half.num_tasks, half.trials, half.sampled_tokens) == (4, 1, 4000)
    assert half.words["success"] == "replayed"
    assert rows[0].sampled_tokens is None
    assert stores.table(url, env_id="treegrpo/Other-v0") == []
    text = shown(leaderboard_table(rows))
    assert "0.500 r" in text
    assert f"[{half.success_low:.3f}, {half.success_high:.3f}] c" in text
    assert "4,000 d" in text
    assert f"{TOY} (test)" in text
    assert f"{TOY} (train)" in text
    assert "r replayed, c recomputed, d declared" in text
    assert "No rows." in shown(leaderboard_table([]))


def test_equal_scores_share_a_rank(tmp_path: Path, url: str) -> None:
    for seed in (0, 1):
        run(tmp_path / f"o{seed}", scripted_agent("oracle"), seed=seed)
        stores.add(tmp_path / f"o{seed}", url)
    run(tmp_path / "null", scripted_agent("null"))
    stores.add(tmp_path / "null", url)
    assert [row.rank for row in stores.table(url)] == [1, 1, 3]


def test_adding_twice_is_adding_once(tmp_path: Path, url: str) -> None:
    run(tmp_path / "b", scripted_agent("oracle"))
    assert stores.add(tmp_path / "b", url) == stores.add(tmp_path / "b", url)
    with sqlite3.connect(tmp_path / "board.sqlite") as database:
        counts = [
            database.execute(f"select count(*) from {name}").fetchone()[0]
            for name in ("run", "episode", "verification")
        ]
    database.close()
    assert counts == [1, 4, 1]


def test_what_does_not_replay_stays_out_and_leaves_no_file(tmp_path: Path, url: str) -> None:
    run(tmp_path / "b", scripted_agent("null"))
    forged = forge(tmp_path / "b", tmp_path / "f", episode=lambda e: {"success": True})
    with pytest.raises(Unverified, match="field success: recorded True, replayed False"):
        stores.add(forged, url)
    assert not (tmp_path / "board.sqlite").exists()
    with pytest.raises(BundleError, match="found nothing"):
        stores.add(tmp_path / "missing", url)


def test_a_failing_write_adds_nothing(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "a", scripted_agent("null"))
    run(tmp_path / "b", scripted_agent("oracle"))
    stores.add(tmp_path / "a", url)
    make_run = stores._run

    def doubled(*args: Any) -> Any:
        made = make_run(*args)
        made.episodes[1].index = made.episodes[0].index
        return made

    monkeypatch.setattr(stores, "_run", doubled)
    with pytest.raises(StoreError, match="UNIQUE constraint failed"):
        stores.add(tmp_path / "b", url)
    assert [row.agent for row in stores.table(url)] == ["null"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("board.sqlite", "that is no database URL"),
        ("sqlite:////nowhere/at/all/board.sqlite", "there is no file"),
        ("oracle+missing://host/db", "asked for, but"),
    ],
)
def test_a_database_that_cannot_be_opened_is_named(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        stores.table(url)


def test_reading_makes_no_database(tmp_path: Path, url: str) -> None:
    with pytest.raises(StoreError, match="Add a bundle first"):
        stores.table(url)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_named(tmp_path: Path, url: str) -> None:
    run(tmp_path / "b", scripted_agent("null"))
    (tmp_path / "board.sqlite").write_text("no database " * 100)
    for ask in (lambda: stores.table(url), lambda: stores.add(tmp_path / "b", url)):
        with pytest.raises(StoreError, match="file is not a database"):
            ask()


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    run(tmp_path / "b", scripted_agent("null"))
    with pytest.raises(StoreError, match="there is no folder"):
        stores.add(tmp_path / "b", f"sqlite:///{tmp_path}/missing/board.sqlite")


def test_a_sample_is_not_enough_to_get_in(tmp_path: Path, url: str) -> None:
    run(tmp_path / "b", scripted_agent("null"))
    with pytest.raises(StoreError, match="only what replays whole gets in"):
        stores.add(tmp_path / "b", url, options=Options(sample=1))


def test_names_from_bundles_are_shown_literally(tmp_path: Path, url: str) -> None:
    run(tmp_path / "b", ToyAgent(half_right, name="[bold red]me[/]"))
    stores.add(tmp_path / "b", url)
    text = shown(leaderboard_table(stores.table(url)), width=120)
    assert "[bold red]me[/]" in text


def test_names_with_escapes_or_hidden_characters_get_into_no_bundle(tmp_path: Path) -> None:
    for name in ("me \x1b[2J", "m\u202ee", "m\u200be", "me ", "e\u0301"):
        with pytest.raises(TreegrpoError, match=r"field agent\.name: "):
            run(tmp_path / "b", ToyAgent(half_right, name=name))
    assert list(tmp_path.iterdir()) == []


def test_a_summary_shows_difficulties_and_failures(tmp_path: Path) -> None:
    summary = run(tmp_path / "b", scripted_agent("oracle"), env_kwargs={"trouble": "grader"})
    text = shown(summary_table(summary))
    assert "difficulty 1" in text
    assert "failed by grader" in text
    assert "First failure: GraderFailed" in text


def test_small_pieces() -> None:
    assert count(None) == "-"
    assert count(0) == "0"
    assert plain("a\nb").plain == "a\N{REPLACEMENT CHARACTER}b"
