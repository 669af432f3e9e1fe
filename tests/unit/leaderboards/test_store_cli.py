"""The commands of the results database, as a user types them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from tests.unit.leaderboards.stored import run
from tests.unit.leaderboards.test_store_migrations import fill_version_1
from tests.unit.leaderboards.toy import TOY, ToyAgent, half_right
from treegrpo.cli.evaluate import eval_command
from treegrpo.cli.leaderboard import leaderboard_app
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.errors import StoreError
from treegrpo.leaderboards.export.every_eval_ever import write
from treegrpo.leaderboards.head import Terms

Call = Callable[..., Result]


@pytest.fixture
def call(tmp_path: Path) -> Call:
    """Return what runs a command on the store of this test; it must end well."""
    app = typer.Typer()
    app.command("eval")(eval_command(lambda folder: ToyAgent(half_right, name=folder.name)))
    app.add_typer(leaderboard_app, name="leaderboard")
    store = f"sqlite:///{tmp_path}/board.sqlite"

    def invoke(name: str, *words: object, error: type[Exception] | None = None) -> Result:
        place = [] if name == "eval" else ["leaderboard"]
        ending = [] if name == "eval" else ["--store", store]
        result = CliRunner().invoke(
            app, [*place, name, *map(str, words), *ending], env={"COLUMNS": "200"}
        )
        if error is None:
            assert result.exit_code == 0, result.output + repr(result.exception)
        else:
            assert isinstance(result.exception, error), result.output
        return result

    return invoke


def test_from_registration_to_a_row_of_tier_2(call: Call, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    refused = call("register", "--like", run(tmp_path / "x"), error=StoreError)
    assert "treegrpo leaderboard epoch --salt random" in str(refused.exception)
    call("epoch", "--salt", "AB" * 32)
    call("eval", "--agent", tmp_path / "model", "--env", TOY, "--tasks", 2, "--out", tmp_path / "t")
    said = call("register", "--like", tmp_path / "t", "--tasks", 4, "--who", "ada").output
    [line] = [one for one in said.splitlines() if one.startswith("treegrpo eval")]
    assert "--requests-per-minute" not in line  # an option that was not given
    words = shlex.split(line)[2:]
    words[words.index("--agent") + 1] = str(tmp_path / "model")
    words[words.index("--out") + 1] = str(tmp_path / "fresh")
    call("eval", *words)
    added = call("add", tmp_path / "fresh", "--who", "ada").output
    assert "verified; tier 2" in added
    table = call("table", "--env", TOY).output
    assert "fresh tasks" in table and re.search(r"1 \(1-1\) model +[0-9a-f]{8} 0\.500 r", table)
    late = call("add", tmp_path / "t").output
    assert "tier 1" in late and "not of tier 2" not in late
    ledger = call("ledger").output
    for part in ("epoch", "register", "submit", "verify", "ada"):
        assert part in ledger


def test_why_a_run_is_not_fresh_is_said(call: Call, tmp_path: Path) -> None:
    call("epoch", "--salt", "random")
    said = call("register", "--like", run(tmp_path / "t")).output
    registration = re.search(r"Registered: (\w{64})", said)
    assert registration
    run(tmp_path / "b", terms=Terms(registration=registration[1]))
    assert "It is not of tier 2: seed is 0," in call("add", tmp_path / "b").output


def test_get_rescore_remove(call: Call, tmp_path: Path) -> None:
    digest = read_bundle(run(tmp_path / "b")).digest
    call("add", tmp_path / "b")
    call("get", digest[:12], tmp_path / "again")
    assert read_bundle(tmp_path / "again").digest == digest
    assert "all 4 episodes came out" in call("rescore", digest).output
    assert "is off its board" in call("remove", digest, "--reason", "A test.").output
    assert "No rows." in call("table").output
    assert "It was removed from its board: A test." in call("add", tmp_path / "b").output
    gone = call("get", "0" * 12, tmp_path / "x", error=StoreError)
    assert "no run begins so" in str(gone.exception)


def test_a_checkpoint_is_printed_and_held_against_the_ledger(call: Call, tmp_path: Path) -> None:
    call("add", run(tmp_path / "b"))
    mark = call("ledger", "--checkpoint").output
    assert set(json.loads(mark)) == {"chain", "size", "root"}
    (tmp_path / "mark.json").write_text(mark)
    call("add", run(tmp_path / "c", seed=4))
    assert "4 entries, all as written" in call("ledger", "--check").output
    assert "goes on from the 2 entries" in call("ledger", "--since", tmp_path / "mark.json").output
    (tmp_path / "mark.json").write_text(mark.replace('"size":2', '"size":9'))
    cut = call("ledger", "--since", tmp_path / "mark.json", error=StoreError)
    assert "entries were taken off its end" in str(cut.exception)


def test_merge_takes_over_another_store(call: Call, tmp_path: Path) -> None:
    call("add", run(tmp_path / "b"))
    (tmp_path / "here").mkdir()
    here = f"sqlite:///{tmp_path}/here/board.sqlite"
    app_result = CliRunner().invoke(
        leaderboard_app, ["merge", f"sqlite:///{tmp_path}/board.sqlite", "--store", here]
    )
    assert app_result.exit_code == 0, app_result.output
    assert "Merged: 1 new runs" in app_result.output
    missing = call("merge", f"sqlite:///{tmp_path}/none.sqlite", error=StoreError)
    assert "there is no file" in str(missing.exception)


def test_migrate_carries_an_older_store_over(call: Call, tmp_path: Path) -> None:
    nothing = call("migrate", error=StoreError)
    assert "there is no file" in str(nothing.exception)
    fill_version_1(f"sqlite:///{tmp_path}/board.sqlite", run(tmp_path / "b"))
    old = call("table", error=StoreError)
    assert "treegrpo leaderboard migrate" in str(old.exception)
    call("migrate")
    assert "toy" in call("table").output


def test_claims_are_read_from_a_record_of_every_eval_ever(call: Call, tmp_path: Path) -> None:
    write(read_bundle(run(tmp_path / "b")), tmp_path / "out")
    [record] = (tmp_path / "out").rglob("*.json")
    assert "claims are in" in call("claim", record, "--who", "ada").output
    assert "claimed" in call("table").output
