"""Older tables are carried over with their data; newer ones are left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.unit.leaderboards.stored import only_board, run
from tests.unit.leaderboards.toy import ToyAgent, half_right
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.errors import StoreError
from treegrpo.leaderboards.store import Store, open_store
from treegrpo.leaderboards.summary import summarise

# The tables of version 1, as SQLAlchemy made them.
VERSION_1 = [
    """create table run (digest varchar(64) primary key, agent varchar not null,
    agent_digest varchar not null, env_id varchar not null, env_digest varchar,
    split varchar not null, num_tasks integer not null, trials integer not null,
    seed bigint not null, success float not null, success_low float, success_high float,
    reward float not null, turns float not null, tool_calls float not null,
    sampled_tokens bigint, created varchar not null, manifest text not null)""",
    "create index ix_run_env_id on run (env_id)",
    """create table episode (run_digest varchar(64) references run (digest), "index" bigint,
    trial integer, task_id varchar, difficulty integer, reward varchar not null,
    success boolean not null, end_reason varchar, failure varchar, turns integer not null,
    tool_calls integer not null, sampled_tokens bigint,
    primary key (run_digest, "index", trial))""",
    """create table verification (id integer primary key, run_digest varchar(64) not null
    references run (digest), verified varchar not null, treegrpo_version varchar not null,
    environment_changed boolean not null, words json not null)""",
    "create index ix_verification_run_digest on verification (run_digest)",
]
WORDS = {"success": "replayed", "interval": "recomputed"}


def fill_version_1(url: str, bundle_path: Path) -> str:
    """Write a bundle as version 1 did and return its digest."""
    bundle = read_bundle(bundle_path)
    manifest, summary = bundle.manifest, summarise(bundle)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for statement in VERSION_1:
            connection.execute(sa.text(statement))
        tables = sa.MetaData()
        tables.reflect(connection)
        connection.execute(tables.tables["run"].insert(), {
            "digest": bundle.digest, "agent": manifest.agent.name,
            "agent_digest": manifest.agent.digest, "env_id": manifest.env_id,
            "env_digest": manifest.env_digest, "split": manifest.split,
            "num_tasks": manifest.num_tasks, "trials": manifest.trials, "seed": manifest.seed,
            "success": summary.success.mean, "success_low": summary.success.low,
            "success_high": summary.success.high, "reward": summary.reward.mean,
            "turns": summary.turns, "tool_calls": summary.tool_calls,
            "sampled_tokens": summary.sampled_tokens, "created": manifest.created,
            "manifest": manifest.model_dump_json(),
        })  # fmt: skip
        names = {
            "index", "trial", "task_id", "difficulty", "reward", "success", "end_reason",
            "failure", "turns", "tool_calls",
        }  # fmt: skip
        connection.execute(tables.tables["episode"].insert(), [
            {"run_digest": bundle.digest, "sampled_tokens": e.tokens.output}
            | e.model_dump(include=names)
            for e in bundle.episodes
        ])  # fmt: skip
        connection.execute(
            sa.text("insert into verification values (7, :run, :time, '0.1.0', :no, :words)"),
            {"run": bundle.digest, "time": "2026-01-02T03:04:05Z", "no": False,
             "words": json.dumps(WORDS)},
        )  # fmt: skip
    engine.dispose()
    return bundle.digest


@pytest.fixture
def old(any_url: str, tmp_path: Path) -> tuple[str, str]:
    """Return URL and run of a database of version 1."""
    return any_url, fill_version_1(any_url, run(tmp_path / "b", trials=2))


def test_version_1_is_carried_over_with_its_data(tmp_path: Path, old: tuple[str, str]) -> None:
    url, digest = old
    objects = tmp_path / "objects"
    with pytest.raises(StoreError, match="of version 1, and version 2 is read"), open_store(url):
        pass
    with open_store(url, create=True, objects=objects) as store:
        [row] = only_board(store).rows
        detail = store.run_detail(digest)
        store.check_ledger()
        with pytest.raises(StoreError, match="the store has only its numbers"):
            store.get(digest, tmp_path / "out")
    with open_store(f"sqlite:///{tmp_path / 'new.sqlite'}", create=True) as new:
        new.add(tmp_path / "b")
        [wanted] = only_board(new).rows
        difficulties = new.environment_detail(wanted_env(new), {}, "test").tasks
    lost = {"wall_seconds": None, "input_tokens": None, "dollars": None}
    changes = {**lost, "words": WORDS, "submitted": "2026-01-02T03:04:05Z"}
    assert row == wanted.model_copy(update=changes)
    assert detail.manifest == read_bundle(tmp_path / "b").manifest
    assert [(v.time, v.episodes, v.verified) for v in detail.verifications] == [
        ("2026-01-02T03:04:05Z", 8, True)
    ]
    assert [entry.detail["carried_over"] for entry in detail.ledger] == [True]
    with open_store(url, create=True, objects=objects) as store:
        assert store.environment_detail(wanted_env(store), {}, "test").tasks == difficulties


def wanted_env(store: Store) -> str:
    return only_board(store).key.env_id


def test_adding_a_carried_over_run_again_brings_its_files(
    tmp_path: Path, old: tuple[str, str]
) -> None:
    url, digest = old
    with open_store(url, create=True, objects=tmp_path / "objects") as store:
        assert store.add(tmp_path / "b") == digest
        assert [len(store.run_detail(digest).episodes), len(store.ledger())] == [8, 1]
        assert store.rescore(digest).verified
        store.add(run(tmp_path / "c", ToyAgent(half_right), seed=3))
        assert len(only_board(store).rows) == 2
        store.check_ledger()


def test_a_migration_is_whole_or_not_at_all(tmp_path: Path, any_url: str) -> None:
    fill_version_1(any_url, run(tmp_path / "b"))
    engine = sa.create_engine(any_url)
    with engine.begin() as connection:
        connection.execute(sa.text("update run set manifest = '{}'"))
    for _ in range(2):
        with (
            pytest.raises(StoreError, match="but its manifest is of another format"),
            open_store(any_url, create=True, objects=tmp_path / "objects"),
        ):
            pass
    with engine.begin() as connection:
        assert connection.execute(sa.text("select count(*) from episode")).scalar() == 4
        assert not sa.inspect(connection).has_table("ledger")
    engine.dispose()


def test_a_newer_version_is_refused_and_left_alone(tmp_path: Path, any_url: str) -> None:
    objects = tmp_path / "objects"
    with open_store(any_url, create=True, objects=objects) as store, store.writing() as session:
        session.execute(sa.text("update schema_version set version = 3"))
    for create in (False, True):
        with (
            pytest.raises(StoreError, match="of version 3, and this treegrpo knows version 2"),
            open_store(any_url, create=create, objects=objects),
        ):
            pass
