"""Two stores made one: by digest, in either order, with both ledgers still to be checked."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.unit.leaderboards.stored import claimed, every_board, run, run_registered
from tests.unit.leaderboards.test_registration import request
from tests.unit.leaderboards.toy import ToyAgent, half_right
from treegrpo.leaderboards.agents import scripted_agent
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.errors import StoreError
from treegrpo.leaderboards.store import Store, open_store

Make = Any


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Yield what opens a store of a name in a folder of its own."""
    with ExitStack() as stack:

        def opened(name: str) -> Store:
            (tmp_path / name).mkdir(exist_ok=True)
            url = f"sqlite:///{tmp_path / name / 'board.sqlite'}"
            return stack.enter_context(open_store(url, create=True))

        yield opened


def copy(make: Make, tmp_path: Path, source: str, target: str) -> Store:
    """Return a copy of a store whose connections are idle."""
    with open_store(f"sqlite:///{tmp_path / source / 'board.sqlite'}") as store:
        raw = store.engine.raw_connection()
        raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
        raw.close()
    shutil.copytree(tmp_path / source, tmp_path / target)
    return make(target)


def filled(make: Make, tmp_path: Path) -> tuple[Store, Store]:
    """Return two stores that share a run, and have others, claims, removals of their own."""
    a, b = make("a"), make("b")
    shared = run(tmp_path / "shared")
    a.add(shared)
    a.add(run(tmp_path / "null", scripted_agent("null")))
    a.claim(claimed())
    b.add(shared)
    b.new_epoch("ab" * 32)
    found = b.register(request(trials=2))
    b.add(run_registered(tmp_path / "fresh", found))
    b.remove(b.add(run(tmp_path / "bad", ToyAgent(half_right, name="bad"))), reason="Bad.")
    return a, b


def test_merging_commutes(make: Make, tmp_path: Path) -> None:
    a, b = filled(make, tmp_path)
    copies = [copy(make, tmp_path, name, f"{name}2") for name in ("a", "b")]
    assert (a.merge(b), copies[1].merge(copies[0])) == (2, 2)
    assert every_board(a) == every_board(copies[1])
    assert {row.tier for board in every_board(a) for row in board.rows} == {0, 1, 2}
    for store in (a, copies[1]):
        assert len(store.check_ledger()) == 2
    for key in a.boards():
        for row in a.board(key.id).rows:
            if row.tier > 0:
                path = a.get(row.digest, tmp_path / "out" / row.digest)
                other = copies[1].get(row.digest, tmp_path / "out2" / row.digest)
                assert (path / "run.json").read_bytes() == (other / "run.json").read_bytes()


def test_merging_twice_is_merging_once_and_later_entries_follow(make: Make, tmp_path: Path) -> None:
    a, b = filled(make, tmp_path)
    a.merge(b, who="ada")
    size = len(a.ledger())
    assert (a.merge(b), len(a.ledger())) == (0, size)
    own = [entry for entry in a.ledger() if entry.chain == ""]
    assert (own[-1].kind, own[-1].who, own[-1].detail["runs"]) == ("merge", "ada", 2)
    b.claim(claimed(score="0.5", uncertainty={}))
    assert a.merge(b) == 1
    a.check_ledger()


def test_ledgers_of_ledgers_are_kept(make: Make, tmp_path: Path) -> None:
    a, b, c = make("a"), make("b"), make("c")
    c.claim(claimed(agent="c"))
    b.claim(claimed(agent="b"))
    b.merge(c)
    a.merge(b)
    assert len(a.check_ledger()) == 3
    assert c.merge(a) == 1
    assert every_board(a) == every_board(b) == every_board(c)
    assert c.check_ledger()[0].chain == b.check_ledger()[1].chain


def test_of_two_runs_for_one_registration_the_earlier_one_answers(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = make("a")
    a.new_epoch()
    found = a.register(request())
    b = copy(make, tmp_path, "a", "b")
    first = a.add(run_registered(tmp_path / "first", found))
    better = ToyAgent(lambda view: view.env.oracle())
    later = found.expires
    monkeypatch.setattr("treegrpo.leaderboards.store.submissions.now", lambda: later)
    second = b.add(run_registered(tmp_path / "second", found, better))
    assert {a.run_detail(first).row.tier, b.run_detail(second).row.tier} == {2}
    # Copies of one store that both went on share the beginning of a ledger and no more.
    with pytest.raises(StoreError, match="a copy that went its own way"):
        a.merge(b)
    c, d = make("c"), make("d")
    for store, order in ((c, (a, b)), (d, (b, a))):
        for other in order:
            with store.writing() as session:  # forget the ledgers: only the rows matter here
                session.execute(sa.text("delete from ledger"))
            store.merge(other)
    assert every_board(c) == every_board(d)
    for store in (c, d):
        assert [store.run_detail(digest).row.tier for digest in (first, second)] == [2, 1]
        reason = store.run_detail(second).not_fresh
        assert reason == f"the registration is answered by run {first[:12]} already"


def test_a_removal_in_either_store_counts(make: Make, tmp_path: Path) -> None:
    a, b = make("a"), make("b")
    for store in (a, b):
        digest = store.add(run(tmp_path / f"{store.url.database}".replace("/", "_")))
    shared = run(tmp_path / "shared", seed=9)
    digest = a.add(shared)
    b.add(shared)
    b.remove(digest, reason="Wrong.")
    a.merge(b)
    assert a.run_detail(digest).removed == "Wrong."
    assert a.run_detail(digest).row.rank is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("update ledger set who = 'eve' where number = 1", "its hashes do not come out"),
        ("update object set digest = (select digest from object where name = 'episodes.jsonl')",
         "what the store names as such is none"),
    ],
)  # fmt: skip
def test_a_damaged_store_is_not_taken_over(
    make: Make, tmp_path: Path, change: str, message: str
) -> None:
    a, b = make("a"), make("b")
    b.add(run(tmp_path / "b1"))
    with b.writing() as session:
        session.execute(sa.text(change))
    with pytest.raises(StoreError, match=message):
        a.merge(b)
    assert a.ledger() == a.boards() == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("run.json", "run.json of run {} in the other store is missing or of another run"),
        ("episodes.jsonl", "episodes.jsonl of run {} in the other store is of another run"),
    ],
)
def test_files_of_another_run_are_not_taken_over(
    make: Make, tmp_path: Path, name: str, message: str
) -> None:
    a, b = make("a"), make("b")
    b.add(run(tmp_path / "other", ToyAgent(lambda view: view.env.oracle(), name="other")))
    digest = b.add(run(tmp_path / "mine"))
    swapped = sa.text(
        "update object set digest = (select digest from object where name = :name "
        "and run_digest <> :run) where name = :name and run_digest = :run"
    )
    with b.writing() as session:
        session.execute(swapped, {"name": name, "run": digest})
    with pytest.raises(StoreError) as caught:
        a.merge(b)
    assert message.format(digest[:12]) in str(caught.value)
    assert a.ledger() == a.boards() == []


def test_a_manifest_that_was_edited_is_not_taken_over(make: Make, tmp_path: Path) -> None:
    """It still names the run's digest, which its content no longer gives."""
    a, b = make("a"), make("b")
    digest = b.add(run(tmp_path / "mine"))
    text = (tmp_path / "mine" / "run.json").read_bytes()
    edited = b.objects.put(text.replace(b'"name": "toy"', b'"name": "ada"'))
    with b.writing() as session:
        session.execute(
            sa.text("update object set digest = :edited where name = 'run.json'"),
            {"edited": edited},
        )
    assert b.run_detail(digest).manifest.agent.name == "ada"
    with pytest.raises(StoreError, match=f"run.json of run {digest[:12]} in the other store is"):
        a.merge(b)
    assert a.ledger() == a.boards() == []


def test_forged_scores_in_the_other_store_are_computed_anew(make: Make, tmp_path: Path) -> None:
    a, b = make("a"), make("b")
    digest = b.add(run(tmp_path / "b1"))
    honest = b.run_detail(digest).row
    with b.writing() as session:
        session.execute(sa.text("update run set success = 1.0, reward = 9.0, agent = 'best'"))
        session.execute(sa.text("update episode set success = 1"))
    a.merge(b)
    assert a.run_detail(digest).row == honest


def test_both_databases_give_the_same_and_can_be_merged(
    make: Make, tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("submissions", "claims", "registration", "ledger"):
        monkeypatch.setattr(
            f"treegrpo.leaderboards.store.{module}.now", lambda: "2999-01-01T00:00:00Z"
        )
    sqlite, third = make("a"), make("b")
    with open_store(postgres_url, create=True, objects=tmp_path / "objects") as postgres:
        names = {"null": scripted_agent("null"), "half": ToyAgent(half_right, tokens=7)}
        bundles = [run(tmp_path / name, agent, trials=2) for name, agent in names.items()]
        bundles.append(run(tmp_path / "late", ToyAgent(half_right, name="late"), seed=2))
        for store in (sqlite, postgres):
            digest = [store.add(bundle) for bundle in bundles][-1]
            store.claim(claimed(agent="\u00e9l\u00e9phant"))
            store.rescore(digest)
            store.remove(digest, reason="Late.")
        assert every_board(sqlite) == every_board(postgres)
        digest = read_bundle(bundles[-1]).digest
        assert sqlite.run_detail(digest).model_copy(update={"ledger": []}) == (
            postgres.run_detail(digest).model_copy(update={"ledger": []})
        )
        env = sqlite.boards()[0]
        details = [
            store.environment_detail(env.env_id, env.env_kwargs, env.split)
            for store in (sqlite, postgres)
        ]
        assert details[0] == details[1]
        kinds = [[(e.number, e.kind, e.subject, e.detail) for e in store.ledger()]
                 for store in (sqlite, postgres)]  # fmt: skip
        assert kinds[0] == kinds[1]
        third.merge(postgres)
        assert postgres.merge(sqlite) == 0
        assert every_board(third) == every_board(postgres) == every_board(sqlite)
        assert len(postgres.check_ledger()) == 2


def test_what_another_store_calls_fresh_has_to_fit_its_registration(
    make: Make, tmp_path: Path
) -> None:
    a, b = make("a"), make("b")
    b.new_epoch()
    found = b.register(request())
    digest = b.add(run(tmp_path / "open"))
    with b.writing() as session:
        session.execute(
            sa.text("update run set tier = 2, registration = :id"), {"id": found.manifest.id}
        )
    a.merge(b)
    detail = a.run_detail(digest)
    assert detail.row.tier == 1
    assert detail.not_fresh is not None and detail.not_fresh.startswith("seed is 0, ")
