"""The commands eval and leaderboard, as a user types them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from tests.unit.leaderboards.toy import TOY, ToyAgent, forge, half_right
from treegrpo.cli.evaluate import eval_command
from treegrpo.cli.leaderboard import leaderboard_app
from treegrpo.cli.stores import limits
from treegrpo.envs.errors import TreegrpoError, UnknownOption
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.errors import BundleError, Unverified
from treegrpo.leaderboards.guarded import Limits
from treegrpo.leaderboards.store import open_store

Call = Callable[..., Result]


@pytest.fixture
def call() -> Call:
    folders: list[Path] = []

    def folder_agent(folder: Path) -> Any:
        folders.append(folder)
        return ToyAgent(half_right, name=folder.name)

    app = typer.Typer()
    app.command("eval")(eval_command(folder_agent))
    app.add_typer(leaderboard_app, name="leaderboard")
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def test_eval_add_verify_table(call: Call, tmp_path: Path) -> None:
    out, store = tmp_path / "bundle", f"sqlite:///{tmp_path}/board.sqlite"
    result = call(
        "eval", "--agent", "oracle", "--env", TOY, "--tasks", 3, "--trials", 2, "--seed", 5,
        "--env-arg", "format=xml", "--out", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "success" in result.output
    assert read_bundle(out).manifest.env_kwargs == {"format": "xml"}
    verified = call("leaderboard", "verify", out)
    assert "6 of 6 episodes: match" in verified.output
    assert "success: replayed" in verified.output
    added = call("leaderboard", "add", out, "--store", store)
    assert added.exit_code == 0
    table = call("leaderboard", "table", "--store", store, "--env", TOY)
    assert table.exit_code == 0
    assert "oracle" in table.output
    assert "1.000 r" in table.output


def test_a_folder_goes_to_the_factory(call: Call, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    result = call(
        "eval", "--agent", tmp_path / "model", "--env", TOY, "--tasks", 2, "--out", tmp_path / "b"
    )
    assert result.exit_code == 0, result.output
    assert read_bundle(tmp_path / "b").manifest.agent.name == "model"


def test_neither_name_nor_folder_is_refused(call: Call, tmp_path: Path) -> None:
    result = call("eval", "--agent", "oracel", "--env", TOY, "--out", tmp_path / "b")
    assert isinstance(result.exception, UnknownOption)
    assert "Did you mean 'oracle'" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_verify_of_a_forged_bundle_shows_the_step_and_is_an_error(
    call: Call, tmp_path: Path
) -> None:
    call("eval", "--agent", "null", "--env", TOY, "--tasks", 2, "--out", tmp_path / "b")
    forge(tmp_path / "b", tmp_path / "f", episode=lambda e: {"success": True})
    result = call("leaderboard", "verify", tmp_path / "f")
    assert isinstance(result.exception, Unverified)
    assert "at step 4, field success: recorded True, replayed False" in str(result.exception)
    assert "2 of 2 episodes: diverged" in result.output


@pytest.mark.parametrize("option", ["--tasks", "--trials", "--concurrency"])
def test_numbers_out_of_range_are_usage_errors(call: Call, tmp_path: Path, option: str) -> None:
    result = call("eval", "--agent", "null", "--env", TOY, "--out", tmp_path / "b", option, 0)
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_verify_takes_a_sample_limits_and_signatures(call: Call, tmp_path: Path) -> None:
    call("eval", "--agent", "null", "--env", TOY, "--tasks", 4, "--out", tmp_path / "b")
    result = call(
        "leaderboard", "verify", tmp_path / "b", "--sample", 2, "--step-seconds", 60,
        "--episode-seconds", 90, "--accept-changed",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "2 of 2 episodes: match" in result.output
    assert "2 of 4 episodes were drawn with seed" in result.output
    assert "Not signed." in result.output
    wrong = call("leaderboard", "sign", tmp_path / "b", "--key", tmp_path / "none")
    assert isinstance(wrong.exception, BundleError)


def test_a_changed_source_is_refused_until_replay_alone_may_decide(
    call: Call, tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path}/board.sqlite"
    call("eval", "--agent", "null", "--env", TOY, "--tasks", 2, "--out", tmp_path / "b")
    forge(tmp_path / "b", tmp_path / "f", head=lambda h: h.update(scorer_digest="0" * 64))
    result = call("leaderboard", "add", tmp_path / "f", "--store", store)
    assert isinstance(result.exception, Unverified)
    assert "say --accept-changed" in str(result.exception)
    accepted = call("leaderboard", "add", tmp_path / "f", "--store", store, "--accept-changed")
    assert accepted.exit_code == 0, accepted.output


def test_a_limit_of_the_episode_alone_has_an_effect(call: Call, tmp_path: Path) -> None:
    call("eval", "--agent", "null", "--env", TOY, "--tasks", 1, "--out", tmp_path / "b")
    for words in (["verify", tmp_path / "b"], ["add", tmp_path / "b", "--store", "sqlite:///x"]):
        result = call("leaderboard", *words, "--episode-seconds", 0)
        assert isinstance(result.exception, TreegrpoError)
        assert "Limits(step_s=0.0) asked for" in str(result.exception)
    assert limits(None, None) is None
    assert limits(None, 5) == Limits(5, 5)
    assert limits(2, None) == Limits(2, 3600)


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")
def test_a_board_names_the_signers_that_it_knows(call: Call, tmp_path: Path) -> None:
    out, key, store = tmp_path / "b", tmp_path / "key", f"sqlite:///{tmp_path}/board.sqlite"
    call("eval", "--agent", "null", "--env", TOY, "--tasks", 1, "--out", out)
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ann", "-f", str(key)]
    subprocess.run(words, check=True, capture_output=True)
    assert call("leaderboard", "sign", out, "--key", key).exit_code == 0
    known = tmp_path / "known"
    known.write_text(f"ann@example.org {(tmp_path / 'key.pub').read_text()}")
    added = call(
        "leaderboard", "add", out, "--store", store, "--allowed-signers", known,
        "--step-seconds", 60,
    )  # fmt: skip
    assert added.exit_code == 0, added.exception
    with open_store(store) as opened:
        [row] = opened.board(opened.boards()[0].id).rows
    assert "ann@example.org" in str(row.signer)
