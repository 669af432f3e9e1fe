"""The queue: each submission once, to one verifier at a time, and lost by no kill."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from treegrpo.leaderboards.server import queue
from treegrpo.leaderboards.server.tables import create_server_tables
from treegrpo.leaderboards.store import Store

LONG_S = 3_600.0


@pytest.fixture
def store(any_store: Store) -> Store:
    create_server_tables(any_store)
    return any_store


def submit(store: Store, owner: str = "ada", archive: str | None = "a" * 64) -> queue.Submission:
    return queue.enqueue(store, queue.new_id(), owner, archive=archive)


def test_the_oldest_first_and_each_to_one_worker(store: Store) -> None:
    first, second = submit(store, archive="1" * 64), submit(store, archive="2" * 64)
    assert [one.state for one in (first, second)] == ["waiting", "waiting"]
    taken = [queue.take(store, f"worker {n}", LONG_S) for n in range(3)]
    assert [one and one.id for one in taken] == [first.id, second.id, None]
    assert taken[0] is not None and taken[0].state == "verifying"


def test_a_decision_ends_it(store: Store) -> None:
    one = submit(store)
    queue.take(store, "w", LONG_S)
    assert queue.decide(store, one.id, "w", "refused", run_digest=None, reason="a word")
    found = queue.get_submission(store, one.id)
    assert found is not None and (found.state, found.reason) == ("refused", "a word")
    assert found.decided is not None
    assert queue.take(store, "w", LONG_S) is None
    assert not queue.decide(store, one.id, "w", "verified", run_digest="d" * 64, reason=None)


def test_when_a_lease_runs_out_another_takes_over_and_the_first_decides_nothing(
    store: Store,
) -> None:
    one = submit(store)
    queue.take(store, "dead", -1.0)
    again = queue.take(store, "alive", LONG_S)
    assert again is not None and again.id == one.id
    assert not queue.renew(store, one.id, "dead", LONG_S)
    assert not queue.decide(store, one.id, "dead", "verified", run_digest="d" * 64, reason=None)
    assert not queue.give_back(store, one.id, "dead", counted=False)
    assert queue.decide(store, one.id, "alive", "verified", run_digest="d" * 64, reason=None)


def test_a_renewed_lease_holds(store: Store) -> None:
    one = submit(store)
    queue.take(store, "w", -1.0)
    assert queue.renew(store, one.id, "w", LONG_S)
    assert queue.take(store, "other", LONG_S) is None


def test_three_verifiers_that_die_are_enough(store: Store) -> None:
    one = submit(store)
    for n in range(queue.MAX_ATTEMPTS):
        taken = queue.take(store, f"dies {n}", -1.0)
        assert taken is not None and taken.state == "verifying"
    last = queue.take(store, "w", LONG_S)
    assert last is not None and (last.id, last.state) == (one.id, "failed")
    assert last.reason is not None and "ended 3 times without an answer" in last.reason
    assert queue.take(store, "w", LONG_S) is None


def test_what_is_given_back_waits_and_is_not_counted(store: Store) -> None:
    one = submit(store)
    for n in range(2 * queue.MAX_ATTEMPTS):
        taken = queue.take(store, f"stops {n}", LONG_S)
        assert taken is not None and (taken.id, taken.state) == (one.id, "verifying")
        assert queue.give_back(store, one.id, f"stops {n}", counted=False)


def test_what_is_given_back_as_an_attempt_fails_in_the_end(store: Store) -> None:
    submit(store)
    for n in range(queue.MAX_ATTEMPTS):
        taken = queue.take(store, f"stops {n}", LONG_S)
        assert taken is not None and queue.give_back(store, taken.id, f"stops {n}", counted=True)
    last = queue.take(store, "w", LONG_S)
    assert last is not None and last.state == "failed"


@pytest.mark.parametrize("counted", [True, False])
def test_what_is_given_back_waits_behind_all_others(store: Store, counted: bool) -> None:
    stuck, second, third = (submit(store, archive=word * 64) for word in "123")
    taken = queue.take(store, "w", LONG_S)
    assert taken is not None and taken.id == stuck.id
    assert queue.give_back(store, stuck.id, "w", counted=counted)
    order = [queue.take(store, "w", LONG_S) for _ in range(3)]
    assert [one and one.id for one in order] == [second.id, third.id, stuck.id]
    assert order[2] is not None and order[2].received == stuck.received


def test_what_comes_later_waits_behind_what_was_given_back(store: Store) -> None:
    stuck = submit(store, archive="1" * 64)
    queue.take(store, "w", LONG_S)
    queue.give_back(store, stuck.id, "w", counted=False)
    submit(store, archive="2" * 64)
    again = queue.take(store, "w", LONG_S)
    assert again is not None and again.id == stuck.id


def test_a_reason_may_quote_anything(store: Store) -> None:
    one = submit(store)
    queue.take(store, "w", LONG_S)
    reason = "found 'a\0b\ud800'"
    assert queue.decide(store, one.id, "w", "refused", run_digest=None, reason=reason)
    found = queue.get_submission(store, one.id)
    assert found is not None and found.reason == "found 'a?b?'"


def test_the_same_archive_of_an_owner_is_one_submission(store: Store) -> None:
    one = submit(store)
    assert submit(store).id == one.id
    assert submit(store, owner="bob").id != one.id
    assert submit(store, archive="b" * 64).id != one.id
    queue.take(store, "w", LONG_S)
    assert submit(store).id == one.id
    queue.decide(store, one.id, "w", "refused", run_digest=None, reason="no")
    assert submit(store).id != one.id, "after a refusal it may be tried again"


def test_what_is_open_is_counted(store: Store) -> None:
    one = submit(store)
    submit(store, owner="bob")
    assert (queue.num_open(store), queue.num_open(store, "ada")) == (2, 1)
    queue.take(store, "w", LONG_S)
    assert queue.num_open(store, "ada") == 1
    queue.decide(store, one.id, "w", "refused", run_digest=None, reason="no")
    assert (queue.num_open(store), queue.num_open(store, "ada")) == (1, 0)


def test_workers_at_once_never_get_the_same_one(store: Store) -> None:
    ids = {submit(store, archive=f"{n:064x}").id for n in range(12)}
    taken: list[str] = []

    def work(name: str) -> None:
        while (one := queue.take(store, name, LONG_S)) is not None:
            taken.append(one.id)

    threads = [threading.Thread(target=work, args=(f"w{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(taken) == dict.fromkeys(ids, 1)
