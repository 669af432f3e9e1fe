"""What is only declared is bounded: no number of one bundle can break the pages of a board."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.unit.leaderboards.stored import run
from tests.unit.leaderboards.toy import TOY, Toy, ToyAgent, half_right
from treegrpo.envs import register
from treegrpo.leaderboards import standalone_verify
from treegrpo.leaderboards.agents import EpisodeView
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.chain import spelled
from treegrpo.leaderboards.errors import BundleError, ProviderFailed
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.json_schema import FOLDER
from treegrpo.leaderboards.schema import EpisodeRecord, Tokens
from treegrpo.leaderboards.store.scores import score_columns
from treegrpo.leaderboards.usage import NOTHING, Usage, amount_text, total


class Huge(Toy):
    """Rewards whose sum over two tasks is beyond every float."""

    def score(self, *_: Any) -> float:
        return 1.7e308


HUGE = "tests/Huge-v0"
register(HUGE, "tests.unit.leaderboards.test_declared:Huge")


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> EpisodeRecord:
    """Return an episode of the toy environment."""
    return read_bundle(run(tmp_path_factory.mktemp("declared") / "b")).episodes[0]


def taken(record: EpisodeRecord, seconds: str) -> set[bool]:
    """Return what the model, the file without packages and the JSON Schema say of a duration."""
    fields = record.model_dump() | {"wall_seconds": seconds}
    schema = json.loads((FOLDER / "episode.schema.json").read_text())["properties"]
    answers = {re.search(schema["wall_seconds"]["pattern"], seconds) is not None}
    try:
        EpisodeRecord.model_validate(fields)
        answers.add(True)
    except ValidationError:
        answers.add(False)
    try:
        standalone_verify.require(fields, standalone_verify.EPISODE, "line")
        answers.add(True)
    except standalone_verify.Refused:
        answers.add(False)
    return answers


@pytest.mark.parametrize("seconds", ["0.0", "1e-06", "0.000123", "3600.5", "999999999.9999999"])
def test_every_reader_takes_seconds_that_can_be(record: EpisodeRecord, seconds: str) -> None:
    assert float(seconds).__repr__() == seconds
    assert taken(record, seconds) == {True}


@pytest.mark.parametrize("seconds", ["-1.0", "-0.0", "1000000000.0", "1e+16", "1.7e+308", "nan"])
def test_every_reader_refuses_seconds_that_cannot_be(record: EpisodeRecord, seconds: str) -> None:
    assert taken(record, seconds) == {False}


def test_endless_seconds_of_a_bundle_are_named(tmp_path: Path) -> None:
    place = run(tmp_path / "b") / "episodes.jsonl"
    lines = [json.loads(line) for line in place.read_bytes().splitlines()]
    lines[2]["wall_seconds"] = "1.7e+308"
    place.write_bytes(b"".join(spelled(line) for line in lines))
    with pytest.raises(BundleError, match=r"episodes\.jsonl, line 3, field wall_seconds"):
        read_bundle(tmp_path / "b")


def test_rewards_without_a_finite_mean_are_refused(record: EpisodeRecord, tmp_path: Path) -> None:
    says = r"^episodes\.jsonl, field reward: .* too large, their sum or spread is no finite number"
    for reward in ("1.7e+308", "1e+200"):  # a sum, and a spread that is none
        two = [
            record.model_copy(update={"index": index, "reward": f"{sign}{reward}"})
            for index, sign in ((0, ""), (1, "" if reward.startswith("1.7") else "-"))
        ]
        with pytest.raises(BundleError, match=says):
            score_columns(two)
    with pytest.raises(BundleError, match=says):
        evaluate(
            ToyAgent(half_right), HUGE, split="test", num_tasks=2, trials=1, seed=0,
            out=tmp_path / "b",
        )  # fmt: skip
    assert not (tmp_path / "b").exists()


def test_tokens_beyond_the_databases_are_refused(record: EpisodeRecord) -> None:
    tokens = Tokens(input=0, cached=0, output=2**53, reasoning=0)
    many = [record.model_copy(update={"tokens": tokens})] * 1023
    assert score_columns(many)["sampled_tokens"] == 2**63 - 2**53
    with pytest.raises(BundleError, match=r"field tokens\.output: 9223372036854775808 are decla"):
        score_columns([*many, many[0]])


def test_any_sum_of_dollars_is_exact(record: EpisodeRecord) -> None:
    most = record.model_copy(update={"dollars": "999999999999.999999999999", "success": True})
    found = score_columns([most] * 200_000)
    assert found["dollars"] == "199999999999999999.9999998"  # 30 digits: 200000 * (10**12 - 1e-12)
    assert found["dollars_per_success"] == "999999999999.999999999999"
    assert total([Decimal("1e17"), Decimal("1e-12")]) == Decimal("100000000000000000.000000000001")
    assert amount_text(Decimal("100000000000000000.000000000001")).endswith(".000000000001")


def test_a_total_is_unknown_as_soon_as_one_is() -> None:
    assert (total([1, 2, 3]), total([1, None]), total([])) == (6, None, None)
    assert total([Decimal("0.1"), Decimal("0.2")]) == Decimal("0.3")


def test_an_episode_that_was_never_begun_cost_nothing(tmp_path: Path) -> None:
    """One failed reset does not make the tokens and dollars of all others unknown."""
    usage = Usage(input=9, cached=0, output=5, reasoning=0, dollars=Decimal("0.5"), requests=1)
    found = evaluate(
        ToyAgent(half_right, tokens=usage), TOY, split="test", num_tasks=10, trials=1, seed=0,
        out=tmp_path / "b", env_kwargs={"trouble": "reset"},
    )  # fmt: skip
    played = 10 - found.failures["environment"]
    assert 0 < played < 10
    assert (found.sampled_tokens, found.input_tokens) == (5 * played, 9 * played)
    assert (found.requests, found.dollars) == (played, Decimal("0.5") * played)
    for episode in read_bundle(tmp_path / "b").episodes:
        if episode.failure is not None:
            assert episode.tokens.model_dump() == dict.fromkeys(episode.tokens.model_dump(), 0)
            assert (episode.dollars, episode.requests) == (NOTHING.amount, 0)


def test_a_rerun_that_cannot_begin_keeps_what_was_spent_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(view: EpisodeView) -> str:
        monkeypatch.setattr(Toy, "setup", broken)
        raise ProviderFailed("down")

    def broken(*_: object) -> None:
        raise RuntimeError("no world any more")

    usage = Usage(input=9, cached=0, output=5, reasoning=0, dollars=Decimal("0.5"), requests=1)
    evaluate(
        ToyAgent(down, tokens=usage), TOY, split="test", num_tasks=1, trials=1, seed=0,
        out=tmp_path / "b", retry_failed=1,
    )  # fmt: skip
    [episode] = read_bundle(tmp_path / "b").episodes
    assert (episode.failure, episode.reruns) == ("environment", 1)
    assert (episode.tokens.output, episode.dollars, episode.requests) == (5, "0.5", 1)
