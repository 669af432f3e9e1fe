"""The ledger: any change of what it says, or of the rows that it is about, is found."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.leaderboards.stored import claimed
from treegrpo.envs.digest import digest
from treegrpo.leaderboards.board import LedgerEntry
from treegrpo.leaderboards.errors import StoreError
from treegrpo.leaderboards.store import Checkpoint, Store, open_store, parse_checkpoint
from treegrpo.leaderboards.store.ledger import (
    append,
    beginning,
    check_chain,
    check_since,
    entry_hash,
)

CHAIN = "c" * 64
FIELDS = ("number", "time", "kind", "subject", "who", "detail", "previous", "hash")


def chained(size: int, chain: str = CHAIN) -> list[LedgerEntry]:
    """Return a ledger of claims."""
    found: list[LedgerEntry] = []
    previous = beginning(chain)
    for number in range(1, size + 1):
        entry = LedgerEntry(
            number=number, time=f"2026-11-28T06:00:{number:02}Z", kind="submit",
            subject=digest(number), who="local", detail={"tier": 0, "n": number},
            previous=previous, hash="",
        )  # fmt: skip
        previous = entry_hash(chain, entry)
        found.append(entry.model_copy(update={"hash": previous}))
    return found


def test_a_hash_covers_the_entry_and_the_one_before() -> None:
    """Worked out from the module's equations, so that others can check a ledger."""
    [entry] = chained(1)
    start = digest(["treegrpo ledger 1", CHAIN])
    facts = [1, entry.time, "submit", entry.subject, "local", {"tier": 0, "n": 1}]
    assert entry.hash == digest(["treegrpo ledger 1", CHAIN, *facts, start])
    assert check_chain(CHAIN, [entry]) == Checkpoint(chain=CHAIN, size=1, root=entry.hash)
    assert check_chain(CHAIN, []) == Checkpoint(chain=CHAIN, size=0, root=start)


@given(st.integers(0, 4), st.sampled_from(FIELDS), st.data())
def test_any_changed_field_is_found(place: int, field: str, data: st.DataObject) -> None:
    found = chained(5)
    old = getattr(found[place], field)
    new: Any
    if field == "number":
        new = data.draw(st.integers(-2, 9).filter(lambda n: n != old))
    elif field == "kind":
        new = data.draw(st.sampled_from(["register", "verify", "rescore", "remove", "epoch"]))
    elif field == "detail":
        values = st.one_of(st.integers(-3, 9), st.text(max_size=3), st.booleans(), st.none())
        new = data.draw(st.dictionaries(st.sampled_from(["tier", "n", "x"]), values))
        if digest(new) == digest(old):
            return
    else:
        new = data.draw(st.text(max_size=70).filter(lambda text: text != old))
    found[place] = found[place].model_copy(update={field: new})
    with pytest.raises(StoreError, match="its hashes do not come out"):
        check_chain(CHAIN, found)


@given(st.permutations(range(5)), st.sets(st.integers(0, 4)))
def test_any_reordered_or_dropped_entry_is_found_but_at_the_end(
    order: list[int], dropped: set[int]
) -> None:
    found = chained(5)
    before = check_chain(CHAIN, found)
    kept = [found[place] for place in order if place not in dropped]
    if kept == found[: len(kept)]:  # cut at its end: only a checkpoint tells
        check_chain(CHAIN, kept)
        if len(kept) < 5:
            with pytest.raises(StoreError, match="entries were taken off its end"):
                check_since(kept, before)
        return
    with pytest.raises(StoreError, match="its hashes do not come out"):
        check_chain(CHAIN, kept)


def test_another_name_of_the_ledger_is_found() -> None:
    with pytest.raises(StoreError, match="entry 1 does not follow the entry before it"):
        check_chain("d" * 64, chained(2))


@given(st.integers(0, 5), st.integers(0, 5))
def test_a_ledger_goes_on_from_any_of_its_checkpoints(before: int, after: int) -> None:
    mark = check_chain(CHAIN, chained(before))
    if before <= after:
        check_since(chained(after), mark)
        if before:
            rewritten = mark.model_copy(update={"root": "0" * 64})
            with pytest.raises(StoreError, match="found another one: it was rewritten"):
                check_since(chained(after), rewritten)
    else:
        with pytest.raises(StoreError, match=f"at least {before} entries"):
            check_since(chained(after), mark)


@pytest.fixture
def filled(any_store: Store) -> Store:
    any_store.new_epoch("ab" * 32)
    for score in ("0.1", "0.2", "0.3"):
        any_store.claim(claimed(score=score, uncertainty={}), who="ada")
    any_store.remove(any_store.claim(claimed(score="0.2", uncertainty={})), reason="A typo.")
    return any_store


def test_an_honest_store_comes_out_and_gives_its_checkpoint(filled: Store) -> None:
    [mark] = filled.check_ledger()
    assert mark.size == len(filled.ledger()) == 5
    assert [entry.kind for entry in filled.ledger()] == ["epoch", *["submit"] * 3, "remove"]
    assert {entry.chain for entry in filled.ledger()} == {""}
    filled.claim(claimed(score="0.4", uncertainty={}))
    [later] = filled.check_ledger(mark)
    assert later.size == 6
    with pytest.raises(StoreError, match="the store has none of that name"):
        filled.check_ledger(mark.model_copy(update={"chain": "0" * 64}))


TAMPERED = {
    "delete from ledger where number = 3": "entry 3 is missing",
    "update ledger set who = 'eve' where number = 2": "was altered",
    "update ledger set detail = '{}' where number = 5": r"entry 5 \(remove .*\) was altered",
    "update ledger set kind = 'nothing' where number = 2": "field kind",
    "delete from ledger where number = 5": "removal .* in the tables and in no ledger",
    "update run set removed = null": "removal .* in a ledger and is missing in the tables",
    "delete from run where success < 0.15": "run .* in a ledger and is missing in the tables",
    "update run set digest = 'x' where success < 0.15": "run x stands in the tables and in no",
    "update run set success = 0.9 where success < 0.15": "is 0.9 in the tables and 0.1 in the led",
    "delete from epoch": "epoch .* in a ledger and is missing",
    "update epoch set salt = 'aa'": "epoch .* stands in the tables and in no ledger",
}


@pytest.mark.parametrize("change", TAMPERED)
def test_who_changes_the_database_is_found(filled: Store, change: str) -> None:
    with filled.writing() as session:
        changed: Any = session.execute(sa.text(change))
        assert changed.rowcount >= 1
    with pytest.raises(StoreError, match=TAMPERED[change]):
        filled.check_ledger()


def test_a_rewritten_ledger_comes_out_and_only_a_checkpoint_tells(tmp_path: Path) -> None:
    """What a hash chain does not prove: its owner can write another one."""
    url = f"sqlite:///{tmp_path / 'a.sqlite'}"
    with open_store(url, create=True) as store:
        store.claim(claimed())
        [mark] = store.check_ledger()
        with store.writing() as session:
            session.execute(sa.text("delete from ledger"))
            append(session, "submit", claimed().digest, "somebody else", {"success": "0.75"})
        [other] = store.check_ledger()
        assert (other.chain, other.size) == (mark.chain, mark.size)
        with pytest.raises(StoreError, match="it was rewritten"):
            store.check_ledger(mark)


def test_a_checkpoint_is_read_strictly() -> None:
    mark = Checkpoint(chain=CHAIN, size=1, root="r")
    assert parse_checkpoint(mark.model_dump_json(), "file") == mark
    for text in ("", "[]", '{"chain": "c", "size": "1", "root": "r"}', "{" * 10_000):
        with pytest.raises(StoreError, match="A checkpoint in 'file' asked for, but"):
            parse_checkpoint(text, "file")


def test_details_are_kept_in_one_spelling(tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path / 'a.sqlite'}", create=True) as store:
        store.claim(claimed(agent="\u00e9l\u00e9phant"))
    with sqlite3.connect(tmp_path / "a.sqlite") as database:
        [text] = database.execute("select detail from ledger").fetchone()
    database.close()
    assert text == json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
