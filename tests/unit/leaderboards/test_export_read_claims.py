"""Records of others: what is claimed, what is refused, and that it is never more than a claim."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.unit.leaderboards.exported import toy_bundle
from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.claimed import ClaimedResult, Uncertainty
from treegrpo.leaderboards.export.every_eval_ever import write
from treegrpo.leaderboards.export.read_every_eval_ever import (
    MAX_BYTES,
    parse_claims,
    read_claims,
)


def record() -> dict[str, Any]:
    """Return a small record, as a converter of another leaderboard writes it."""
    return {
        "schema_version": "0.2.2",
        "evaluation_id": "board/lab/m-7b/1760000000",
        "retrieved_timestamp": "1760000000.25",
        "source_metadata": {
            "source_name": "A Board",
            "source_type": "documentation",
            "source_organization_name": "A Lab",
            "evaluator_relationship": "third_party",
        },
        "eval_library": {"name": "harness", "version": "1.2"},
        "model_info": {"name": "M 7B", "id": "lab/m-7b", "additional_details": {"size": "7"}},
        "evaluation_results": [
            {
                "evaluation_name": "shop.easy",
                "source_data": {"dataset_name": "shop", "source_type": "other"},
                "evaluation_timestamp": "2026-01-02T03:04:05+02:00",
                "metric_config": {
                    "metric_name": "pass rate",
                    "lower_is_better": False,
                    "score_type": "continuous",
                    "min_score": 0,
                    "max_score": 100,
                },
                "score_details": {
                    "score": 41,
                    "uncertainty": {
                        "standard_error": {"value": 2.5, "method": "bootstrap"},
                        "confidence_interval": {
                            "lower": 36, "upper": 46.0, "confidence_level": 0.95,
                        },
                        "num_samples": 120,
                    },
                },
            },
            {
                "evaluation_name": "shop.cost",
                "source_data": {"dataset_name": "shop", "source_type": "other"},
                "metric_config": {
                    "lower_is_better": True, "min_score": "-Infinity", "max_score": "Infinity",
                },
                "score_details": {"score": 0.125},
            },
        ],
    }  # fmt: skip


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


def test_each_result_is_a_claim_with_numbers_only() -> None:
    data = encoded(record())
    first, second = parse_claims(data, "record.json")
    assert first == ClaimedResult(
        source="A Board",
        source_format="every-eval-ever 0.2.2",
        source_id="board/lab/m-7b/1760000000",
        source_digest=hashlib.sha256(data).hexdigest(),
        relationship="third_party",
        agent="M 7B",
        model="lab/m-7b",
        env="shop",
        evaluation="shop.easy",
        metric="pass rate",
        lower_is_better=False,
        score="41.0",
        min_score="0.0",
        max_score="100.0",
        uncertainty=Uncertainty(
            standard_error="2.5", low="36.0", high="46.0", confidence="0.95", method="bootstrap"
        ),
        num_samples=120,
        # 03:04:05 two hours east of Greenwich.
        evaluated="2026-01-02T01:04:05Z",
        # 1,760,000,000 seconds after 1970.
        retrieved="2025-10-09T08:53:20Z",
        library="harness 1.2",
    )
    assert (second.metric, second.lower_is_better, second.score) == ("score", True, "0.125")
    assert (second.min_score, second.max_score, second.num_samples) == (None, None, None)
    assert second.uncertainty == Uncertainty()
    assert second.evaluated is None


def test_a_claim_is_tier_0_and_all_of_it_declared() -> None:
    first, second = parse_claims(encoded(record()), "record.json")
    assert (first.tier, second.tier) == (0, 0)
    assert first.words == {
        "score": "declared", "uncertainty": "declared", "num_samples": "declared",
    }  # fmt: skip
    assert second.words == {"score": "declared"}


def test_an_agent_is_told_from_its_model() -> None:
    found = record()
    change("model_info.additional_details.agent", "Scaffold")(found)
    change(f"{R}.metric_config.metric_id", "pass_rate")(found)
    first, _ = parse_claims(encoded(found), "record.json")
    assert (first.agent, first.model) == ("Scaffold", "lab/m-7b")
    assert first.metric == "pass rate"
    change("evaluation_results.1.metric_config.metric_id", "cost")(found)
    _, second = parse_claims(encoded(found), "record.json")
    assert second.metric == "cost"


def test_the_identity_of_a_claim_covers_every_field() -> None:
    first, second = parse_claims(encoded(record()), "record.json")
    again, _ = parse_claims(encoded(record()), "elsewhere.json")
    assert first.digest == again.digest
    changed = first.model_copy(update={"score": "42.0"})
    assert len({first.digest, second.digest, changed.digest}) == 3


def test_our_own_export_comes_back_as_a_claim(tmp_path: Path) -> None:
    bundle = toy_bundle(tmp_path / "bundle")
    write(bundle, tmp_path / "out")
    (path,) = (tmp_path / "out").rglob("*.json")
    success, reward = read_claims(path)
    assert (success.agent, success.model) == ("half right", "unknown/half right")
    assert (success.env, success.evaluation) == ("tests/Toy-v0", "tests/Toy-v0.test")
    assert float(success.score) == pytest.approx(2 / 3)
    assert (success.num_samples, success.evaluated) == (3, bundle.manifest.created)
    assert success.source_digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (reward.metric, reward.max_score) == ("mean reward", None)
    # Replayable as the bundle is, its copy in this format is not.
    assert success.tier == 0


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("1760000000", "2025-10-09T08:53:20Z"),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        ("2026-01-02", "2026-01-02"),
        ("2026-01-02T03:04:05", "2026-01-02T03:04:05"),
        ("99999999999999", "99999999999999"),
        ("last week", "last week"),
    ],
)
def test_moments_are_spelled_alike_where_they_are_certain(given: str, wanted: str) -> None:
    value = record() | {"retrieved_timestamp": given}
    assert parse_claims(encoded(value), "record.json")[0].retrieved == wanted


Change = Callable[[dict[str, Any]], None]


def change(path: str, value: object) -> Change:
    """Return what sets the field at "a.0.b"; a value of `...` takes it out."""

    def apply(found: Any) -> None:
        *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        for step in way:
            found = found[step]
        if value is ...:
            del found[last]
        else:
            found[last] = value

    return apply


R = "evaluation_results.0"


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("schema_version", "1.0", "field schema_version: String should match pattern"),
        ("evaluation_results", [], "field evaluation_results: List should have at least 1 item"),
        ("model_info", ..., "field model_info: Field required"),
        ("model_info.name", "a\u200bb", "field agent: Value error, a name may not hold the hidden"),
        ("model_info.id", "x" * 201, "field model: String should have at most 200 characters"),
        (f"{R}.score_details.score", "0.4", f"field {R}.score_details.score: Input should be a"),
        (f"{R}.score_details.score", True, f"field {R}.score_details.score: Input should be a"),
        (f"{R}.score_details.score", 10**400, f"field {R}.score_details.score: Input should be"),
        (f"{R}.score_details.score", 141, "Value error, score 141.0 lies above max_score 100.0"),
        (f"{R}.score_details.score", -1, "Value error, score -1.0 lies below min_score 0.0"),
        (f"{R}.metric_config.lower_is_better", ..., f"field {R}.metric_config.lower_is_better: F"),
        (f"{R}.source_data.dataset_name", "", "field env: String should have at least 1 character"),
        (f"{R}.score_details.uncertainty.num_samples", -1, "field num_samples: Input should be"),
        (f"{R}.score_details.uncertainty.num_samples", 1.5, "num_samples: Input should be a valid"),
        (f"{R}.score_details.uncertainty.confidence_interval.lower", 47, "interval begins at 47.0"),
        (f"{R}.score_details.uncertainty.standard_error.value", -0.5, "a standard error is not ne"),
        (f"{R}.score_details.uncertainty.confidence_interval.confidence_level", 95, "from 0 to 1"),
        ("source_metadata.evaluator_relationship", "self", "evaluator_relationship: Input should"),
    ],
)  # fmt: skip
def test_a_record_that_is_wrong_is_refused(path: str, value: object, fault: str) -> None:
    found = record()
    change(path, value)(found)
    with pytest.raises(TreegrpoError) as caught:
        parse_claims(encoded(found), "'record.json'")
    message = str(caught.value)
    assert message.startswith("'record.json', ")
    assert fault in message
    assert message.endswith(". Get a valid record from its source, or leave it out.")


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"", "Expecting value"),
        (b"{} {}", "Extra data"),
        (b"\xff", "can't decode byte 0xff"),
        (b'{"score": NaN}', "NaN is no number"),
        (b'{"a": 1, "a": 2}', "the name a is there twice"),
        (b"[" * 100_000, "recursion"),
        (b"9" * 5_000, "Exceeds the limit"),
    ],
    ids=["empty", "two", "bytes", "nan", "double", "deep", "long"],
)
def test_what_is_no_json_is_refused(data: bytes, fault: str) -> None:
    with pytest.raises(TreegrpoError) as caught:
        parse_claims(data, "'record.json'")
    message = str(caught.value)
    assert message.startswith("'record.json' is not one JSON value (")
    assert fault in message


def test_a_number_beyond_floats_is_refused() -> None:
    data = encoded(record()).replace(b'"score": 41', b'"score": 1e999')
    with pytest.raises(TreegrpoError, match="score: Input should be a finite number"):
        parse_claims(data, "'record.json'")


def test_the_result_that_is_wrong_is_named() -> None:
    found = record()
    change("evaluation_results.1.source_data.dataset_name", " shop")(found)
    with pytest.raises(TreegrpoError) as caught:
        parse_claims(encoded(found), "'record.json'")
    assert str(caught.value).startswith("'record.json', result 1 ('shop.cost'), field env: ")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TreegrpoError) as caught:
        read_claims(tmp_path / "none.json")
    assert str(caught.value) == (
        f"A record of every-eval-ever at '{tmp_path / 'none.json'}' asked for, found nothing. "
        "Give the path of one JSON file."
    )
    with pytest.raises(TreegrpoError, match="found no regular file"):
        read_claims(tmp_path)


def test_a_file_beyond_the_cap_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "big.json").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(TreegrpoError, match=f"has more than {MAX_BYTES} bytes"):
        read_claims(tmp_path / "big.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
PATHS = [
    "schema_version", "retrieved_timestamp", "source_metadata", "model_info.additional_details",
    "model_info.name", "evaluation_results", R, f"{R}.metric_config.min_score",
    f"{R}.score_details", f"{R}.score_details.uncertainty", f"{R}.evaluation_timestamp",
]  # fmt: skip


@given(st.sampled_from(PATHS), JSON)
def test_any_value_anywhere_is_a_claim_or_one_message(path: str, value: Any) -> None:
    found = record()
    change(path, value)(found)
    message = "'record.json'"
    claims: list[ClaimedResult] = []
    try:
        claims = parse_claims(encoded(found), "'record.json'")
    except TreegrpoError as error:
        message = str(error)
    assert message.startswith("'record.json'")
    assert all(claim.words["score"] == "declared" for claim in claims)


def test_a_claim_cannot_be_changed_or_given_more() -> None:
    first, _ = parse_claims(encoded(record()), "record.json")
    with pytest.raises(ValidationError, match="frozen"):
        first.score = "99.0"
    with pytest.raises(ValidationError, match="Extra inputs"):
        ClaimedResult.model_validate(first.model_dump() | {"tier": 2})
