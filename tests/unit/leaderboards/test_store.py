"""The store: only what replays gets in, once, whole; boards, runs and files come out of it."""

from __future__ import annotations

import io
import os
import sqlite3
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from rich.console import Console

from tests.unit.leaderboards.stored import claimed, every_board, only_board, run
from tests.unit.leaderboards.toy import TOY, ToyAgent, forge, half_right
from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.agents import scripted_agent
from treegrpo.leaderboards.board import Board
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.errors import BundleError, StoreError, Unverified
from treegrpo.leaderboards.head import Terms
from treegrpo.leaderboards.render import count, leaderboard_table, plain, summary_table
from treegrpo.leaderboards.schema import Track
from treegrpo.leaderboards.stats import UNIT
from treegrpo.leaderboards.stats.ranks import ranked
from treegrpo.leaderboards.store import Store, open_store, submissions
from treegrpo.leaderboards.summary import success_by_task, summarise
from treegrpo.leaderboards.usage import Usage
from treegrpo.leaderboards.verify import Options


def shown(renderable: Any, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def folder(path: Path) -> dict[str, bytes]:
    return {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}


def test_a_board_ranks_contestants_and_pins_the_scripted_agents(
    tmp_path: Path, any_store: Store
) -> None:
    right = ToyAgent(lambda view: view.env.oracle(), name="right")
    agents = {
        "null": scripted_agent("null"), "oracle": scripted_agent("oracle"),
        "half": ToyAgent(half_right, tokens=1000), "right": right,
    }  # fmt: skip
    for name, agent in agents.items():
        any_store.add(run(tmp_path / name, agent))
    rows = only_board(any_store).rows
    assert [row.agent for row in rows[2:]] == ["toy", "null"]
    assert {row.agent: row.pinned for row in rows} == {
        "oracle": "oracle", "right": None, "toy": None, "null": "null",
    }  # fmt: skip
    by_agent = {row.agent: row for row in rows}
    summary = summarise(read_bundle(tmp_path / "half"))
    half = by_agent["toy"]
    assert (half.success, half.success_low) == (summary.success.mean, summary.success.low)
    assert (half.num_tasks, half.trials, half.sampled_tokens, half.tier) == (4, 1, 4000, 1)
    assert (half.words["success"], half.words["sampled_tokens"]) == ("replayed", "declared")
    wanted = ranked(
        {n: success_by_task(read_bundle(tmp_path / n)) for n in ("half", "right")}, bounds=UNIT
    )
    found = [by_agent[n] for n in ("right", "toy")]
    assert [(r.rank, r.rank_low, r.rank_high) for r in found] == [
        (r.upper_bound_rank, r.rank_low, r.rank_high) for r in wanted
    ]
    assert {(r.rank, r.rank_low, r.rank_high) for r in rows if r.pinned} == {(None, None, None)}
    text = shown(leaderboard_table([only_board(any_store)]))
    for part in ("0.500 r", f"[{half.success_low:.3f}, {half.success_high:.3f}] c", "4,000 d"):
        assert part in text
    assert half.digest[:8] in text.split()  # what `leaderboard get` asks for


def test_a_table_in_80_columns_cuts_nothing(store: Store, tmp_path: Path) -> None:
    store.add(run(tmp_path / "b", ToyAgent(half_right)))
    key, [row] = only_board(store).key, only_board(store).rows
    wide = row.model_copy(
        update={
            "agent": "warm start", "rank_low": 1, "rank_high": 2, "rank": 1, "num_tasks": 100,
            "tool_calls": 12.5, "sampled_tokens": 123_456, "dollars": "0.1234",
        }
    )  # fmt: skip
    lines = shown(leaderboard_table([Board(key=key, rows=[wide])]), width=80).splitlines()
    assert max(map(len, lines)) <= 80
    words = " ".join(lines).split()
    assert {"warm", "start", row.digest[:8], "123,456", "0.1234", "tier", "100x1"} <= {*words}
    assert "\N{HORIZONTAL ELLIPSIS}" not in "".join(lines)


def test_another_option_split_track_or_task_list_is_another_board(
    tmp_path: Path, store: Store
) -> None:
    """A larger budget through an option does not rank with the default."""
    search: Track = "search"
    changes: list[dict[str, Any]] = [
        {}, {"seed": 1}, {"env_kwargs": {"trouble": "none"}}, {"split": "train"},
        {"terms": Terms(track=search)}, {"num_tasks": 3}, {"first_index": 1},
    ]  # fmt: skip
    for number, change in enumerate(changes):
        store.add(run(tmp_path / str(number), **change))
    keys = store.boards()
    assert len(keys) == len({key.id for key in keys}) == len(changes) - 1  # the seed is no part
    sizes = sorted(len(store.board(key.id).rows) for key in keys)
    assert sizes == [1] * (len(changes) - 2) + [2]
    assert {key.track for key in keys} == {"single-pass", "search"}
    assert {tuple(key.env_kwargs) for key in keys} == {(), ("trouble",)}


def test_costs_are_summed_and_what_nobody_counted_is_null(tmp_path: Path, store: Store) -> None:
    usage = Usage(input=10, cached=4, output=3, reasoning=1, dollars=Decimal("0.25"), requests=1)
    store.add(run(tmp_path / "b", ToyAgent(half_right, tokens=usage)))
    [row] = only_board(store).rows
    assert (row.input_tokens, row.sampled_tokens) == (40, 12)
    assert (row.dollars, row.dollars_per_success) == ("1", "0.5")  # two of four solved
    store.add(run(tmp_path / "free", ToyAgent(half_right)))
    free = [row for row in only_board(store).rows if row.dollars is None]
    assert [(row.input_tokens, row.dollars_per_success) for row in free] == [(None, None)]


def test_adding_twice_is_adding_once(tmp_path: Path, any_store: Store) -> None:
    bundle = run(tmp_path / "b")
    assert any_store.add(bundle) == any_store.add(bundle) == read_bundle(bundle).digest
    detail = any_store.run_detail(any_store.add(bundle))
    assert len(only_board(any_store).rows) == len(detail.verifications) == 1
    assert [entry.kind for entry in any_store.ledger()] == ["submit", "verify"]


def test_what_does_not_replay_stays_out(tmp_path: Path, store: Store) -> None:
    run(tmp_path / "b", scripted_agent("null"))
    forged = forge(tmp_path / "b", tmp_path / "f", episode=lambda e: {"success": True})
    with pytest.raises(Unverified, match="field success: recorded True, replayed False"):
        store.add(forged)
    with pytest.raises(BundleError, match="found nothing"):
        store.add(tmp_path / "missing")
    with pytest.raises(StoreError, match="only what replays whole gets in"):
        store.add(tmp_path / "b", options=Options(sample=1))
    assert store.boards() == store.ledger() == []
    assert not (tmp_path / "objects").exists()


def test_a_failing_write_adds_nothing(
    tmp_path: Path, any_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    any_store.add(run(tmp_path / "a", scripted_agent("null")))
    before = any_store.ledger(), every_board(any_store)
    rows = submissions.episode_columns

    def doubled(*args: Any) -> Any:
        made = rows(*args)
        return [*made, made[0]]

    monkeypatch.setattr(submissions, "episode_columns", doubled)
    with pytest.raises(StoreError, match=r"UNIQUE constraint failed|duplicate key value"):
        any_store.add(run(tmp_path / "b"))
    assert (any_store.ledger(), every_board(any_store)) == before


def test_a_bundle_that_changes_while_it_is_replayed_is_refused(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = run(tmp_path / "b")
    verify = submissions.verify_bundle

    def meddle(*args: Any) -> Any:
        report = verify(*args)
        file = next((bundle / "trajectories").iterdir())
        file.write_bytes(file.read_bytes()[:-1] + b"x")
        return report

    monkeypatch.setattr(submissions, "verify_bundle", meddle)
    with pytest.raises(BundleError, match="changed while it was replayed"):
        store.add(bundle)
    assert store.boards() == []


def test_a_name_or_a_digest_makes_nobody_the_oracle(tmp_path: Path, store: Store) -> None:
    """What the oracle does is known: a run is pinned only when all of it comes out the same."""
    liar = ToyAgent(half_right, name="oracle")
    liar.digest = scripted_agent("oracle").digest
    store.add(run(tmp_path / "liar", liar))
    honest = scripted_agent("oracle")
    honest.name = "somebody"
    store.add(run(tmp_path / "honest", ToyAgent(half_right, name="null")))
    assert [row.pinned for row in only_board(store).rows] == [None, None]


def test_a_removed_run_leaves_its_board_and_stays_visible_on_request(
    tmp_path: Path, any_store: Store
) -> None:
    first = any_store.add(run(tmp_path / "a"))
    second = any_store.add(run(tmp_path / "b", ToyAgent(lambda v: v.env.oracle(), name="right")))
    assert any_store.run_detail(first).row.rank_high == 2
    any_store.remove(second[:8], reason="It was trained on these tasks.", who="ada")
    [row] = only_board(any_store).rows
    assert (row.digest, row.rank, row.rank_high) == (first, 1, 1)
    detail = any_store.run_detail(second)
    assert detail.removed == "It was trained on these tasks."
    assert (detail.row.rank, detail.ledger[-1].kind, detail.ledger[-1].who) == (
        None, "remove", "ada",
    )  # fmt: skip
    with pytest.raises(StoreError, match="removed before, with the reason 'It was trained"):
        any_store.remove(second, reason="Again.")
    with pytest.raises(StoreError, match="without a reason"):
        any_store.remove(first, reason="  ")
    for fields in ({"reason": "a\x00b"}, {"reason": "why", "who": "\ud800"}):
        with pytest.raises(StoreError, match=r"of a (run|ledger) asked for, found the character U"):
            any_store.remove(first, **fields)
    assert any_store.run_detail(first).removed is None
    assert any_store.add(tmp_path / "b") == second
    assert len(only_board(any_store).rows) == 1
    any_store.remove(first, reason="It, too.")
    assert any_store.boards() == []


def test_a_run_comes_out_as_the_bundle_that_went_in(tmp_path: Path, any_store: Store) -> None:
    bundle = run(tmp_path / "b", trials=2)
    digest = any_store.add(bundle)
    assert folder(any_store.get(digest[:8], tmp_path / "out" / "again")) == folder(bundle)
    read = read_bundle(bundle)
    detail = any_store.run_detail(digest)
    assert (detail.manifest, detail.episodes) == (read.manifest, list(read.episodes))
    for episode in read.episodes:
        events = any_store.episode_events(digest, episode.index, episode.trial)
        assert events == read.events(episode)
    with pytest.raises(StoreError, match="that path exists"):
        any_store.get(digest, tmp_path / "b")
    with pytest.raises(StoreError, match="Task 9, trial 0 of run"):
        any_store.episode_events(digest, 9, 0)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["again"]


def test_a_damaged_file_is_found_and_mended_by_adding_again(tmp_path: Path, store: Store) -> None:
    bundle = run(tmp_path / "b")
    digest = store.add(bundle)
    log = read_bundle(bundle).episodes[0].trajectory
    assert log is not None
    path = tmp_path / "objects" / log[:2] / log[2:]
    path.write_bytes(b"other")
    with pytest.raises(StoreError, match="was altered: its bytes do not have the digest"):
        store.get(digest, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    store.add(bundle)
    assert store.episode_events(digest, 0, 0)
    path.unlink()
    with pytest.raises(StoreError, match="found nothing"):
        store.episode_events(digest, 0, 0)
    store.add(bundle)
    assert store.episode_events(digest, 0, 0)
    assert len(store.ledger()) == 2


def test_what_a_killed_writer_left_a_day_ago_is_swept_away(tmp_path: Path, store: Store) -> None:
    store.objects.put(b"x")
    part = tmp_path / "objects" / "part"
    for name, age in {"old": 2 * 86_400, "new": 3600}.items():
        (part / name).write_bytes(b"half")
        os.utime(part / name, (time.time() - age, time.time() - age))
    with open_store(f"sqlite:///{tmp_path / 'board.sqlite'}", create=True):
        assert [file.name for file in part.iterdir()] == ["new"]


def test_an_environment_shows_floors_ceiling_replays_and_difficulty(
    tmp_path: Path, any_store: Store
) -> None:
    for name in ("null", "oracle"):
        any_store.add(run(tmp_path / name, scripted_agent(name)))
    any_store.add(run(tmp_path / "half", trials=2))
    found = any_store.environment_detail(TOY, {}, "test")
    assert {row.pinned for row in found.pinned} == {"null", "oracle"}
    assert (found.replayed_episodes, found.matched_episodes) == (16, 16)
    assert [(t.index, t.difficulty, t.success, t.episodes) for t in found.tasks] == [
        (0, 1, 1.0, 2), (1, 2, 0.0, 2), (2, 1, 1.0, 2), (3, 2, 0.0, 2),
    ]  # fmt: skip
    with pytest.raises(StoreError, match=r"the store has no board of it"):
        any_store.environment_detail(TOY, {"trouble": "x"}, "test")


def test_a_claim_is_shown_and_never_ranked(any_store: Store) -> None:
    digest = any_store.claim(claimed())
    assert any_store.claim(claimed()) == digest
    any_store.claim(claimed(score="0.5", uncertainty={}, agent="other", num_samples=40))
    board = only_board(any_store)
    assert (board.key.tasks, board.key.env_kwargs) == ("claimed", {"metric": "accuracy"})
    first, second = board.rows
    assert (first.tier, first.success, first.success_low, first.rank) == (0, 0.75, 0.5, None)
    assert (first.reward, first.turns, first.trials, first.num_tasks) == (None, None, None, None)
    assert (second.success, second.num_tasks, second.success_low) == (0.5, 40, None)
    assert first.words == {"success": "declared", "interval": "declared"}
    detail = any_store.run_detail(digest)
    assert (detail.manifest, detail.episodes) == (None, [])
    assert detail.claimed == claimed().model_dump(mode="json")
    with pytest.raises(StoreError, match="the store has only its numbers"):
        any_store.rescore(digest)


def test_where_less_is_better_the_least_claim_stands_first(store: Store) -> None:
    for score in ("0.5", "0.25", "0.75"):
        store.claim(claimed(score=score, lower_is_better=True, uncertainty={}))
    assert [row.success for row in only_board(store).rows] == [0.25, 0.5, 0.75]


def test_a_changed_environment_outdates_the_runs_of_the_old_one(
    tmp_path: Path, any_store: Store
) -> None:
    """Their replay is their own affair: shown last, without a rank, never mixed."""
    run(tmp_path / "b", ToyAgent(lambda view: view.env.oracle(), name="right"))
    old = forge(tmp_path / "b", tmp_path / "old", head=lambda h: h.update(env_digest="0" * 64))
    with pytest.raises(Unverified, match="env_digest of the environment here differ"):
        any_store.add(old)
    digest = any_store.add(old, options=Options(accept_changed=True))
    assert any_store.run_detail(digest).row.outdated
    new = any_store.add(run(tmp_path / "new"))
    rows = only_board(any_store).rows
    assert [(row.digest, row.outdated, row.rank) for row in rows] == [
        (new, False, 1), (digest, True, None),
    ]  # fmt: skip


def test_a_rescored_run_that_no_longer_comes_out_is_outdated(
    tmp_path: Path, any_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = any_store.add(run(tmp_path / "b"))
    assert any_store.rescore(digest[:8]).verified
    assert not any_store.run_detail(digest).row.outdated
    monkeypatch.setattr("tests.unit.leaderboards.toy.Toy.max_turns", 3)
    found = any_store.rescore(digest, who="eve")
    assert (found.verified, found.changed) == (False, ["budgets"])
    detail = any_store.run_detail(digest)
    assert (detail.row.outdated, detail.row.rank) == (True, None)
    assert set(detail.row.words.values()) == {"declared"}
    assert sorted(v.verified for v in detail.verifications)[0] is False
    assert (detail.ledger[-1].kind, detail.ledger[-1].who) == ("rescore", "eve")
    monkeypatch.undo()
    assert any_store.rescore(digest).verified
    assert only_board(any_store).rows[0].rank == 1
    with pytest.raises(StoreError, match="by a sample asked for"):
        any_store.rescore(digest, options=Options(sample=1))


def test_a_reader_waits_for_no_writer_and_sees_one_state(any_store: Store) -> None:
    any_store.claim(claimed())
    count_runs = sa.text("select count(*) from run")
    with any_store.reading() as reader:
        assert reader.execute(count_runs).scalar() == 1
        with any_store.writing() as writer:
            writer.execute(sa.text("delete from run"))
            assert reader.execute(count_runs).scalar() == 1
            assert len(any_store.boards()) == 1
        assert reader.execute(count_runs).scalar() == 1
    assert any_store.boards() == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("board.sqlite", "that is no database URL"),
        ("sqlite:////nowhere/at/all/board.sqlite", "there is no file"),
        ("sqlite:////nowhere/x@y/board.sqlite", "'sqlite:////nowhere/x@y/board.sqlite' asked for"),
        ("oracle+missing://host/db", "asked for, but"),
        (
            "postgresql//x:secret@host/db",
            r"'\*\*\*@host/db' asked for, but that is no database URL",
        ),
        ("x:sec@ret:secret@host", r"'\*\*\*@host' asked for"),
        ("postgresql://x:secret@host:port/db", r"'postgresql://\*\*\*@host:port/db' asked for"),
        ("oracle+missing://host/db?user=x&password=secret", r"\?password=\*\*\*&user=x' asked"),
        ("postgresql+psycopg://x:secret@127.0.0.1:1/db", "Connection refused|connection failed"),
    ],
)
def test_a_database_that_cannot_be_opened_is_named(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as caught, open_store(url):
        pass
    assert "secret" not in str(caught.value)


def test_reading_makes_no_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'board.sqlite'}"
    with pytest.raises(StoreError, match="Add a bundle first"), open_store(url):
        pass
    assert list(tmp_path.iterdir()) == []
    sqlite3.connect(tmp_path / "board.sqlite").close()
    with pytest.raises(StoreError, match="no tables of a leaderboard"), open_store(url):
        pass


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "board.sqlite").write_text("no database " * 100)
    url = f"sqlite:///{tmp_path / 'board.sqlite'}"
    for create in (False, True):
        with pytest.raises(StoreError, match="not a database"), open_store(url, create=create):
            pass


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/missing/board.sqlite"
    with pytest.raises(StoreError, match="there is no folder"), open_store(url, create=True):
        pass


def test_without_a_folder_for_files_nothing_is_added(tmp_path: Path, postgres_url: str) -> None:
    with open_store(postgres_url, create=True) as store:
        with pytest.raises(StoreError, match="Say it with --objects DIR"):
            store.add(run(tmp_path / "b"))
        assert store.boards() == []


def test_what_the_store_does_not_have_is_named(tmp_path: Path, store: Store) -> None:
    digest = store.add(run(tmp_path / "b"))
    for wrong in ("", digest[:7], "0" * 64, "%" * 8):
        with pytest.raises(StoreError, match=r"no run begins so\. Give at least 8 digits"):
            store.run_detail(wrong)
    board = only_board(store).key.id
    with pytest.raises(StoreError, match=f"Did you mean '{board}'"):
        store.board(board[:-1] + "x")


def test_tables_are_strict_and_the_file_is_in_wal_mode(tmp_path: Path, store: Store) -> None:
    store.add(run(tmp_path / "b"))
    with sqlite3.connect(tmp_path / "board.sqlite") as database:
        assert database.execute("pragma journal_mode").fetchone() == ("wal",)
        with pytest.raises(sqlite3.IntegrityError, match="cannot store TEXT value in INTEGER"):
            database.execute("update run set tier = 'high'")
    database.close()


def test_names_from_bundles_are_shown_literally(tmp_path: Path, store: Store) -> None:
    store.add(run(tmp_path / "b", ToyAgent(half_right, name="[bold red]me[/]")))
    assert "[bold red]me[/]" in shown(leaderboard_table(every_board(store)), width=160)


def test_names_with_escapes_or_hidden_characters_get_into_no_bundle(tmp_path: Path) -> None:
    for name in ("me \x1b[2J", "m\u202ee", "m\u200be", "me ", "e\u0301"):
        with pytest.raises(TreegrpoError, match=r"field agent\.name: "):
            run(tmp_path / "b", ToyAgent(half_right, name=name))
    assert list(tmp_path.iterdir()) == []


def test_a_summary_shows_difficulties_and_failures(tmp_path: Path) -> None:
    run(tmp_path / "b", scripted_agent("oracle"), env_kwargs={"trouble": "grader"})
    text = shown(summary_table(summarise(read_bundle(tmp_path / "b"))))
    for part in ("difficulty 1", "failed by grader", "First failure: GraderFailed"):
        assert part in text


def test_small_pieces() -> None:
    assert (count(None), count(0)) == ("-", "0")
    assert plain("a\nb").plain == "a\N{REPLACEMENT CHARACTER}b"
    assert "No rows." in shown(leaderboard_table([]))
