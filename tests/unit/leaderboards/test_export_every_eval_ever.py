"""Bundles as every-eval-ever: names, numbers and places of the format, computed by hand."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.leaderboards.exported import WORDY, toy_bundle
from treegrpo.leaderboards.bundle import Bundle
from treegrpo.leaderboards.export.every_eval_ever import aggregate, folder_name, sample, write

UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
REQUIRED = {
    "schema_version", "evaluation_id", "model_id", "evaluation_name", "sample_id",
    "interaction_type", "input", "answer_attribution", "evaluation",
}  # fmt: skip


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return toy_bundle(tmp_path_factory.mktemp("toy") / "bundle", env_kwargs={"format": "hermes"})


def written(bundle: Bundle, out: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    write(bundle, out)
    (results,) = out.rglob("*.json")
    (samples,) = out.rglob("*.jsonl")
    rows = [json.loads(line) for line in samples.read_text(encoding="ascii").splitlines()]
    return json.loads(results.read_text(encoding="ascii")), rows


def test_the_files_lie_where_the_format_wants_them(bundle: Bundle, tmp_path: Path) -> None:
    record, rows = written(bundle, tmp_path / "out")
    found = sorted(p.relative_to(tmp_path / "out").as_posix() for p in tmp_path.rglob("*.json*"))
    folder = "data/tests_Toy-v0/unknown/half_right"
    assert [re.sub(UUID4, "UUID", name) for name in found] == [
        f"{folder}/UUID.json",
        f"{folder}/UUID_samples.jsonl",
    ]
    assert record["detailed_evaluation_results"] == {
        "format": "jsonl",
        "file_path": found[1],
        "hash_algorithm": "sha256",
        "checksum": hashlib.sha256((tmp_path / "out" / found[1]).read_bytes()).hexdigest(),
        "total_rows": 6,
    }
    assert len(rows) == 6


def test_the_same_bundle_gives_the_same_bytes(bundle: Bundle, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(bundle, tmp_path / name)
    first, second = (
        {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*.json*")}
        for name in ("a", "b")
    )
    assert first == second
    assert len(first) == 2


def test_the_success_rate_and_how_sure_it_is(bundle: Bundle) -> None:
    record = aggregate(bundle)
    success, reward = record["evaluation_results"]
    details = success["score_details"]
    # Tasks 1, 0, 1: mean 2/3, unbiased variance 1/3, standard error sqrt(1/3/3).
    assert details["score"] == pytest.approx(2 / 3)
    uncertainty = details["uncertainty"]
    assert uncertainty["standard_error"]["value"] == pytest.approx(1 / 3)
    assert uncertainty["num_samples"] == 3
    interval = uncertainty["confidence_interval"]
    assert 0 < interval["lower"] < 2 / 3 < interval["upper"] < 1
    assert interval["confidence_level"] == 0.95
    assert details["details"]["episodes"] == "6"
    assert details["details"]["sampled_tokens"] == "60"
    assert details["details"]["end_reasons"] == '{"answered": 4, "turn_limit": 2}'
    metric = success["metric_config"]
    assert (metric["min_score"], metric["max_score"], metric["lower_is_better"]) == (0, 1, False)
    # 1.1, 0.1, 1.1: a metric without bounds is spelled with words.
    assert reward["score_details"]["score"] == pytest.approx(2.3 / 3)
    assert reward["metric_config"]["min_score"] == "-Infinity"
    assert reward["metric_config"]["max_score"] == "Infinity"


def test_no_spread_is_not_certainty(tmp_path: Path) -> None:
    bundle = toy_bundle(tmp_path / "bundle", num_tasks=1, trials=2)
    (success, _) = aggregate(bundle)["evaluation_results"]
    assert success["score_details"]["uncertainty"] == {"num_samples": 1}
    solved = toy_bundle(tmp_path / "solved", action=lambda view: view.env.oracle())
    (success, reward) = aggregate(solved)["evaluation_results"]
    assert set(success["score_details"]["uncertainty"]) == {"num_samples", "confidence_interval"}
    assert set(reward["score_details"]["uncertainty"]) == {"num_samples"}


def test_who_and_what_is_named(bundle: Bundle) -> None:
    record = aggregate(bundle)
    assert record["schema_version"] == "0.3.0"
    assert record["model_info"]["id"] == "unknown/half right"
    assert record["model_info"]["developer"] == "unknown"
    details = record["model_info"]["additional_details"]
    assert (details["deployment_type"], details["model_availability"]) == ("unknown", "unknown")
    assert record["source_metadata"]["source_type"] == "evaluation_run"
    assert record["source_metadata"]["evaluator_relationship"] == "other"
    kept = record["source_metadata"]["additional_details"]
    assert kept["bundle_digest"] == bundle.digest
    assert kept["seed"] == "3"
    assert all(isinstance(value, str) for value in kept.values())
    success = record["evaluation_results"][0]
    assert success["evaluation_name"] == "tests/Toy-v0.test"
    assert success["source_data"]["additional_details"]["env_kwargs"] == '{"format": "hermes"}'
    args = success["generation_config"]["generation_args"]
    assert args["temperature"] == 0.5
    assert args["execution_command"] == bundle.manifest.command
    assert args["agentic_eval_config"]["additional_details"]["max_turns"] == "4"


def test_a_line_holds_the_episode(bundle: Bundle) -> None:
    row = sample(bundle, bundle.episodes[0])
    assert set(row) >= REQUIRED
    assert row["interaction_type"] == "agentic"
    assert row["output"] is None
    assert row["input"] == {"raw": "A number below 10?", "reference": []}
    text = b'{"raw":"A number below 10?","reference":[]}'
    assert row["sample_hash"] == hashlib.sha256(text).hexdigest()
    roles = [message["role"] for message in row["messages"]]
    assert roles == ["user", "assistant", "tool", "assistant", "tool"]
    assert [message["turn_idx"] for message in row["messages"]] == [0, 1, 2, 3, 4]
    call, answer = row["messages"][1], row["messages"][2]
    assert call["tool_calls"] == [{"id": "1.1", "name": "guess", "arguments": {"number": "6"}}]
    assert call["content"].startswith("<tool_call>")
    assert answer["tool_call_id"] == ["1.1"]
    assert row["evaluation"] == {
        "score": 1.0, "is_correct": True, "num_turns": 5, "tool_calls_count": 2,
    }  # fmt: skip
    assert row["token_usage"] == {
        "input_tokens": 100, "output_tokens": 10, "total_tokens": 110,
        "input_tokens_cache_read": 40, "reasoning_tokens": 4,
    }  # fmt: skip
    assert row["metadata"]["reward"] == "1.1"
    assert row["metadata"]["dollars"] == "0.25"
    assert row["metadata"]["chain"] == bundle.episodes[0].chain
    assert row["error"] is None


def test_keys_join_lines_and_results(bundle: Bundle, tmp_path: Path) -> None:
    record, rows = written(bundle, tmp_path / "out")
    success = record["evaluation_results"][0]
    for row, episode in zip(rows, bundle.episodes, strict=True):
        assert row["evaluation_id"] == record["evaluation_id"]
        assert row["model_id"] == record["model_info"]["id"]
        assert row["evaluation_result_id"] == success["evaluation_result_id"]
        assert row["metadata"]["trial"] == str(episode.trial)
    assert [row["sample_id"] for row in rows] == [e.task_id for e in bundle.episodes]
    share = sum(row["evaluation"]["score"] for row in rows) / len(rows)
    assert share == pytest.approx(success["score_details"]["score"])


def test_a_count_that_nobody_made_is_no_zero(tmp_path: Path) -> None:
    bundle = toy_bundle(tmp_path / "bundle", usage=7, num_tasks=1, trials=1)
    row = sample(bundle, bundle.episodes[0])
    assert row["token_usage"] is None
    assert row["metadata"]["tokens_output"] == "7"
    assert "tokens_input" not in row["metadata"]
    assert "dollars" not in row["metadata"]


def test_an_episode_without_a_reset_still_has_a_line(tmp_path: Path) -> None:
    bundle = toy_bundle(tmp_path / "bundle", env_kwargs={"trouble": "reset"}, trials=1)
    record, rows = written(bundle, tmp_path / "out")
    assert [row["error"] for row in rows] == [
        None,
        "environment: RuntimeError: no world today",
        "environment: RuntimeError: no world today",
    ]
    assert rows[1]["sample_id"] == "task 1"
    assert rows[1]["messages"] == [{"turn_idx": 0, "role": "user", "content": None}]
    assert rows[1]["sample_hash"] is None
    assert rows[1]["evaluation"]["num_turns"] == 1
    details = record["evaluation_results"][0]["score_details"]["details"]
    assert details["failures"] == '{"environment": 2}'
    # Failed episodes stay in the denominator.
    assert record["evaluation_results"][0]["score_details"]["score"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("length", "known"), [(1_999, True), (2_000, False), (2_500, False)])
def test_a_question_that_may_be_cut_has_no_hash(length: int, known: bool, tmp_path: Path) -> None:
    bundle = toy_bundle(
        tmp_path / "bundle", env=WORDY, env_kwargs={"length": length}, num_tasks=1, trials=1
    )
    row = sample(bundle, bundle.episodes[0])
    assert len(row["input"]["raw"]) == min(length, 2_000)
    assert (row["sample_hash"] is not None) == known


def test_a_limit_of_seconds_is_whole_and_never_shorter(tmp_path: Path) -> None:
    bundle = toy_bundle(tmp_path / "bundle", env=WORDY, num_tasks=1, trials=1)
    generation = aggregate(bundle)["evaluation_results"][0]["generation_config"]
    assert generation["generation_args"]["eval_limits"] == {"time_limit": 3601}


def test_a_model_with_an_owner_keeps_its_name(bundle: Bundle) -> None:
    agent = bundle.manifest.agent.model_copy(update={"model": "lab/m-7b", "provider": "cloud"})
    other = Bundle(
        bundle.path, bundle.manifest.model_copy(update={"agent": agent}), bundle.episodes
    )
    info = aggregate(other)["model_info"]
    assert (info["id"], info["developer"], info["name"]) == ("lab/m-7b", "lab", "lab/m-7b")
    assert info["inference_platform"] == "cloud"
    assert info["additional_details"]["agent"] == "half right"


@given(st.text(min_size=1, max_size=200))
@example("..")
@example("data")
@example("CON.txt")
@example("a/../../b")
@example("x.")
def test_every_text_becomes_one_harmless_folder(text: str) -> None:
    name = folder_name(text)
    assert re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,100}", name)
    assert not name.endswith(".")
    assert name.split(".")[0].lower() not in ("data", "con", "prn", "aux", "nul", "com1", "lpt9")


def test_plain_names_stay_as_they_are() -> None:
    assert folder_name("Llama-3.1_8B") == "Llama-3.1_8B"
    assert folder_name("treegrpo/SQL-v0") == "treegrpo_SQL-v0"
