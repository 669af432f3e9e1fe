"""Registrations: seeds that nobody can pick, and each reason why a run is not of tier 2."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest
import sqlalchemy as sa

from tests.unit.leaderboards.stored import only_board, run, run_registered
from tests.unit.leaderboards.toy import TOY, Toy, ToyAgent, forge, half_right
from treegrpo.envs import register as register_env
from treegrpo.envs.digest import digest, stable_seed
from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.errors import StoreError
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.head import Terms
from treegrpo.leaderboards.store import (
    Registration,
    RegistrationRequest,
    Store,
    registration,
    request_like,
    submissions,
)
from treegrpo.leaderboards.store.tiers import faults
from treegrpo.leaderboards.verify import Options

ENDLESS = "tests/EndlessToy-v0"


class EndlessToy(Toy):
    """The toy with more tasks than anybody can list."""

    num_tasks: ClassVar = {"train": 50, "test": 1_000_000}


register_env(ENDLESS, "tests.unit.leaderboards.test_registration:EndlessToy")


def request(**changes: Any) -> RegistrationRequest:
    fields: dict[str, Any] = {
        "agent": "toy", "agent_digest": "0", "env_id": TOY, "env_kwargs": {}, "split": "test",
        "num_tasks": 4, "trials": 1, "track": "single-pass", "training": None,
    }  # fmt: skip
    return RegistrationRequest.model_validate(fields | changes)


@pytest.fixture
def found(store: Store) -> Registration:
    store.new_epoch("ab" * 32)
    return store.register(request())


def test_seed_and_first_task_come_from_salt_and_registration(store: Store) -> None:
    store.new_epoch("ab" * 32)
    seen = [store.register(request(env_id=ENDLESS)).manifest for _ in range(20)]
    for manifest in seen:
        assert manifest.id == digest(manifest.model_dump(mode="json"))
        assert manifest.epoch == "ab" * 32
        seed = stable_seed("treegrpo registration seed", "ab" * 32, manifest.id)
        drawn = stable_seed("treegrpo registration task", "ab" * 32, manifest.id)
        assert (manifest.seed, manifest.first_index) == (seed, drawn % (1_000_000 - 4 + 1))
        assert (manifest.tasks, manifest.num_available) == ("fresh", 1_000_000)
    assert len({m.id for m in seen}) == len({m.seed for m in seen}) == 20
    assert len({m.first_index for m in seen}) > 15
    assert len({m.key.id for m in seen}) == 1


def test_a_fixed_list_of_tasks_keeps_its_tasks_and_has_a_board_of_its_own(
    tmp_path: Path, store: Store, found: Registration
) -> None:
    manifest = found.manifest
    assert (manifest.first_index, manifest.num_available) == (0, None)
    [key] = [store.run_detail(store.add(run(tmp_path / "open"))).key]
    assert manifest.tasks == f"fresh:{key.tasks}"
    assert manifest.key.id != key.id


def test_a_run_that_answers_its_registration_is_of_tier_2(tmp_path: Path, any_store: Store) -> None:
    any_store.new_epoch()
    for number, env_id in enumerate((TOY, ENDLESS)):
        made = any_store.register(request(env_id=env_id))
        settings: dict[str, Any] = {
            "split": "test",
            "num_tasks": 4,
            "trials": 1,
            "seed": made.manifest.seed,
        }
        agent = ToyAgent(half_right)
        terms = Terms(registration=made.manifest.id)
        evaluate(
            agent, env_id, out=tmp_path / str(number), terms=terms,
            first_index=made.manifest.first_index, **settings,
        )  # fmt: skip
        detail = any_store.run_detail(any_store.add(tmp_path / str(number)))
        assert (detail.row.tier, detail.not_fresh, detail.row.attempts) == (2, None, 1)
        assert detail.key == made.manifest.key
        assert detail.row.rank == 1
    assert {key.tasks[:5] for key in any_store.boards()} == {"fresh"}
    any_store.check_ledger()


def test_every_registration_counts_as_an_attempt_whether_it_is_answered_or_not(
    tmp_path: Path, store: Store, found: Registration
) -> None:
    last = [store.register(request(trials=2)) for _ in range(3)][-1]
    store.register(request(agent_digest="1", agent="other"))
    store.add(run_registered(tmp_path / "a", last))
    store.add(run(tmp_path / "open"))
    rows = [row for key in store.boards() for row in store.board(key.id).rows]
    assert sorted((row.tier, row.attempts) for row in rows) == [(1, 1), (2, 4)]


def test_fresh_runs_with_tasks_of_their_own_are_ranked_apart(tmp_path: Path, store: Store) -> None:
    """Compared by their scores alone: the n-th task of one is not the n-th of another.

    20 and 15 of 30 differ by 1.3 standard errors, so either may be first. Paired by place, the
    better one would have solved all that the other did, and be first in every draw.
    """
    store.new_epoch()
    for name, solved in {"better": 20, "good": 15, "bad": 0}.items():
        made = store.register(request(env_id=ENDLESS, agent=name, num_tasks=30)).manifest
        end = made.first_index + solved
        evaluate(
            ToyAgent(lambda v, end=end: v.env.oracle() if v.env.episode.index < end else "no",
                     name=name),
            ENDLESS, split="test", num_tasks=30, trials=1,
            seed=made.seed, first_index=made.first_index, out=tmp_path / name,
            terms=Terms(registration=made.id),
        )  # fmt: skip
        store.add(tmp_path / name)
    found = [(row.agent, row.rank, row.rank_low, row.rank_high) for row in only_board(store).rows]
    assert found == [("better", 1, 1, 2), ("good", 1, 1, 2), ("bad", 3, 3, 3)]


Change = Callable[[dict[str, Any]], None]
WRONG: dict[str, dict[str, Any]] = {
    "seed is 1, [0-9]+ was registered": {"seed": 1},
    "first_index is 1, 0 was registered": {"first_index": 1},
    "num_tasks is 5, 4 was registered": {"num_tasks": 5},
    "trials is 2, 1 was registered": {"trials": 2},
    "split is 'train', 'test' was registered": {"split": "train"},
    r"env_kwargs is \{'trouble': 'x'\}, \{\} was": {"env_kwargs": {"trouble": "x"}},
    "agent is 'other', 'toy' was registered": {"agent": ToyAgent(half_right, name="other")},
    "track is 'search', 'single-pass' was": {"track": "search"},
    "training is 'zero-shot', None was registered": {"training": "zero-shot"},
}


@pytest.mark.parametrize("reason", WRONG)
def test_a_run_of_something_else_is_of_tier_1_and_says_why(
    tmp_path: Path, store: Store, found: Registration, reason: str
) -> None:
    changes = dict(WRONG[reason])
    terms = {k: changes.pop(k) for k in ("track", "training") if k in changes}
    if terms:
        changes["terms"] = Terms(registration=found.manifest.id, **terms)
    digest = store.add(run_registered(tmp_path / "b", found, **changes))
    detail = store.run_detail(digest)
    assert detail.row.tier == 1
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(detail.not_fresh)
    # The registration is still open for the run that it is about.
    assert store.run_detail(store.add(run_registered(tmp_path / "right", found))).row.tier == 2


FORGED: dict[str, Change] = {
    "it was run at 2020-01-01T00:00:00Z, before its registration": lambda head: head.update(
        created="2020-01-01T00:00:00Z"
    ),
    "agent digest is '1', '0' was registered": lambda head: head["agent"].update(digest="1"),
    f"registration {'e' * 12} is not in the ledger": lambda head: head.update(
        registration="e" * 64
    ),
    "env_digest of the environment here differ from what was run": lambda head: head.update(
        env_digest="0" * 64
    ),
}


@pytest.mark.parametrize("reason", FORGED)
def test_a_manifest_that_does_not_fit_is_of_tier_1(
    tmp_path: Path, store: Store, found: Registration, reason: str
) -> None:
    run_registered(tmp_path / "b", found)
    forged = forge(tmp_path / "b", tmp_path / "f", head=FORGED[reason])
    detail = store.run_detail(store.add(forged, options=Options(accept_changed=True)))
    assert detail.row.tier == 1
    assert detail.not_fresh is not None and reason in detail.not_fresh


@pytest.mark.parametrize(
    ("name", "value"), [("max_turns", 9), ("max_observation_chars", 17), ("max_seconds", "2.5")]
)
def test_a_run_with_other_limits_does_not_answer(
    tmp_path: Path, store: Store, found: Registration, name: str, value: object
) -> None:
    """Asked of the comparison itself: a replay here finds other limits before it comes to that."""
    manifest = read_bundle(run_registered(tmp_path / "b", found)).manifest
    assert list(faults(found, manifest, (), found.registered)) == []
    limits = manifest.budgets.model_copy(update={name: value})
    other = manifest.model_copy(update={"budgets": limits})
    [fault] = faults(found, other, (), found.registered)
    assert fault.startswith("budgets is {") and fault.endswith(" was registered")


def test_one_bundle_answers_a_registration(
    tmp_path: Path, store: Store, found: Registration
) -> None:
    first = store.add(run_registered(tmp_path / "a", found))
    better = ToyAgent(lambda view: view.env.oracle())
    detail = store.run_detail(store.add(run_registered(tmp_path / "b", found, better)))
    assert detail.row.tier == 1
    assert detail.not_fresh == f"the registration is answered by run {first[:12]} already"
    store.remove(first, reason="I want another try.")
    third = store.run_detail(store.add(run_registered(tmp_path / "c", found, trials=1, seed=3)))
    assert third.row.tier == 1


def test_a_late_bundle_is_of_tier_1(
    tmp_path: Path, store: Store, found: Registration, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_registered(tmp_path / "b", found)
    begin = datetime.strptime(found.registered, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    end = (begin + timedelta(days=7)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert found.expires == end
    late = (begin + timedelta(days=7, seconds=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    monkeypatch.setattr(submissions, "now", lambda: late)
    detail = store.run_detail(store.add(tmp_path / "b"))
    assert detail.row.tier == 1
    assert detail.not_fresh == f"it was submitted at {late}, after its window ended at {end}"


def test_other_tasks_than_registered_are_found(
    tmp_path: Path, store: Store, found: Registration, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list that changed while its environment's source stayed, such as a file of tasks."""
    make = Toy.make_task
    monkeypatch.setattr(Toy, "make_task", lambda self, rng, level: make(self, rng, level % 2 + 1))
    detail = store.run_detail(store.add(run_registered(tmp_path / "b", found)))
    assert (detail.row.tier, detail.not_fresh) == (
        1, "its tasks are not the ones that were registered",
    )  # fmt: skip


def test_the_newest_epoch_salts_and_old_ones_stay(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(["2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"])
    monkeypatch.setattr(registration, "now", lambda: next(times, "2026-03-01T00:00:00Z"))
    store.new_epoch("ff" * 16)
    store.new_epoch("AA" * 16)
    assert store.register(request()).manifest.epoch == "aa" * 16
    with pytest.raises(StoreError, match="which the store has had"):
        store.new_epoch("ff" * 16)
    for salt in ("", "xyz", "a" * 31, "a" * 65):
        with pytest.raises(StoreError, match="a salt has 32 to 64 hexadecimal digits"):
            store.new_epoch(salt)
    assert len({store.new_epoch() for _ in range(3)}) == 3


def test_what_cannot_be_registered_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="has no epoch, whose salt decides the seeds"):
        store.register(request())
    store.new_epoch()
    with pytest.raises(StoreError, match="A registration of 51 tasks asked for; the split 'test'"):
        store.register(request(num_tasks=51))
    with pytest.raises(TreegrpoError, match="Split 'dev' of tests/Toy-v0 asked for; it has"):
        store.register(request(split="dev"))
    assert [entry.kind for entry in store.ledger()] == ["epoch"]


def test_a_trial_run_says_what_to_register(tmp_path: Path) -> None:
    manifest = read_bundle(run(tmp_path / "b")).manifest
    assert request_like(manifest, num_tasks=9) == request(num_tasks=9)
    with pytest.raises(StoreError, match="A registration asked for, but field trials"):
        request_like(manifest, trials=0)


def test_an_altered_registration_is_found(store: Store, found: Registration) -> None:
    with store.writing() as session:
        session.execute(sa.text("update registration set manifest = replace(manifest, '4', '5')"))
    with pytest.raises(StoreError, match="its content does not give its id"):
        store.check_ledger()
