"""Bundles as logs of inspect_ai: version 2, fields in order, numbers computed by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.leaderboards.exported import WORDY, toy_bundle
from tests.unit.leaderboards.toy import forge
from treegrpo.leaderboards.bundle import Bundle, read_bundle
from treegrpo.leaderboards.export.inspect_log import header, sample, write


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return toy_bundle(tmp_path_factory.mktemp("toy") / "bundle")


def test_the_samples_come_last_so_that_a_header_can_be_read_alone(
    bundle: Bundle, tmp_path: Path
) -> None:
    write(bundle, tmp_path / "log.json")
    log: dict[str, Any] = json.loads((tmp_path / "log.json").read_text(encoding="ascii"))
    assert list(log) == ["version", "status", "eval", "plan", "results", "stats", "samples"]
    assert (log["version"], log["status"]) == (2, "success")
    assert [(one["id"], one["epoch"]) for one in log["samples"]] == [
        (0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2),
    ]  # fmt: skip
    assert log["samples"] == [sample(bundle, episode) for episode in bundle.episodes]


def test_the_same_bundle_gives_the_same_bytes(bundle: Bundle, tmp_path: Path) -> None:
    write(bundle, tmp_path / "a.json")
    write(bundle, tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_what_was_run(bundle: Bundle) -> None:
    spec = header(bundle)["eval"]
    assert (spec["task"], spec["task_version"]) == ("tests/Toy-v0", 0)
    assert (spec["model"], spec["solver"]) == ("unknown/half right", "half right")
    assert spec["solver_args"] == {"temperature": 0.5}
    assert spec["created"] == bundle.manifest.created
    assert spec["dataset"]["samples"] == 3
    assert spec["dataset"]["sample_ids"] == [0, 1, 2]
    assert spec["config"] == {
        "limit": [0, 3], "epochs": 2, "epochs_reducer": ["mean"], "fail_on_error": False,
        "turn_limit": 4,
    }  # fmt: skip
    assert spec["metadata"]["bundle_digest"] == bundle.digest
    assert spec["packages"] == bundle.manifest.versions


def test_the_scores_are_means_over_tasks(bundle: Bundle) -> None:
    results = header(bundle)["results"]
    assert (results["total_samples"], results["completed_samples"]) == (6, 6)
    success, reward = results["scores"]
    values = {name: metric["value"] for name, metric in success["metrics"].items()}
    # Tasks 1, 0, 1: mean 2/3, standard error sqrt(1/3/3).
    assert values["accuracy"] == pytest.approx(2 / 3)
    assert values["stderr"] == pytest.approx(1 / 3)
    assert 0 < values["ci_lower"] < 2 / 3 < values["ci_upper"] < 1
    assert (success["scored_samples"], success["reducer"]) == (3, "mean")
    assert reward["metrics"]["mean"]["value"] == pytest.approx(2.3 / 3)


def test_tokens_leave_out_what_a_cache_served(bundle: Bundle) -> None:
    one = sample(bundle, bundle.episodes[0])["model_usage"]["unknown/half right"]
    assert one == {
        "input_tokens": 60, "output_tokens": 10, "total_tokens": 110,
        "input_tokens_cache_read": 40, "reasoning_tokens": 4, "total_cost": 0.25,
    }  # fmt: skip
    total = header(bundle)["stats"]["model_usage"]["unknown/half right"]
    assert total == {
        "input_tokens": 360, "output_tokens": 60, "total_tokens": 660,
        "input_tokens_cache_read": 240, "reasoning_tokens": 24, "total_cost": 1.5,
    }  # fmt: skip


def test_a_count_that_nobody_made_is_no_zero(tmp_path: Path) -> None:
    bundle = toy_bundle(tmp_path / "bundle", usage=7, num_tasks=1, trials=1)
    one = sample(bundle, bundle.episodes[0])
    assert one["model_usage"] == {}
    assert one["metadata"]["tokens_output"] == "7"
    assert header(bundle)["stats"]["model_usage"] == {}


def test_a_transcript_with_calls(bundle: Bundle) -> None:
    one = sample(bundle, bundle.episodes[0])
    assert one["input"] == "A number below 10?"
    assert one["target"] == ""
    assert [m["role"] for m in one["messages"]] == [
        "user",
        "assistant",
        "tool",
        "assistant",
        "tool",
    ]
    call, answer = one["messages"][1], one["messages"][2]
    assert call["tool_calls"] == [{"id": "1.1", "function": "guess", "arguments": {"number": 6}}]
    assert (answer["tool_call_id"], answer["content"][:6]) == ("1.1", "noise ")
    assert one["output"]["choices"][0]["message"] == one["messages"][3]
    ids = [m["id"] for m in one["messages"]]
    assert len(set(ids)) == len(ids)
    assert one["scores"]["success"] == {"value": 1.0}
    assert one["scores"]["reward"] == {"value": 1.1, "metadata": {"right": 1.0, "style": 0.1}}
    assert (one["turn_count"], one["limit"], one["error"]) == (2, None, None)


def test_a_limit_and_an_answer_without_a_call(bundle: Bundle) -> None:
    one = sample(bundle, bundle.episodes[2])
    assert one["limit"] == {"type": "turn", "limit": 4, "reason": "turn_limit"}
    assert [m["role"] for m in one["messages"]][1:3] == ["assistant", "user"]
    assert "tool_calls" not in one["messages"][1]


def test_a_failure_is_an_error_of_its_sample(tmp_path: Path) -> None:
    bundle = toy_bundle(tmp_path / "bundle", env_kwargs={"trouble": "reset"}, trials=1)
    assert header(bundle)["results"]["completed_samples"] == 1
    one = sample(bundle, bundle.episodes[1])
    assert one["error"] == {
        "message": "environment: RuntimeError: no world today",
        "traceback": "",
        "traceback_ansi": "",
    }
    assert (one["messages"], one["output"]["choices"]) == ([], [])
    assert one["scores"]["success"] == {"value": 0.0}


def test_a_sum_needs_every_count(bundle: Bundle, tmp_path: Path) -> None:
    forge(
        bundle.path,
        tmp_path / "forged",
        episode=lambda record: {"dollars": None} if record.index == 1 else {},
    )
    total = header(read_bundle(tmp_path / "forged"))["stats"]["model_usage"]["unknown/half right"]
    assert (total["total_cost"], total["output_tokens"]) == (None, 60)


def test_cut_messages_limits_and_versions(tmp_path: Path) -> None:
    bundle = toy_bundle(tmp_path / "bundle", env=WORDY, num_tasks=2, trials=1, first_index=4)
    spec = header(bundle)["eval"]
    assert spec["task_version"] == 3
    assert spec["config"]["limit"] == [4, 6]
    assert spec["config"]["time_limit"] == 3601
    first, second = sample(bundle, bundle.episodes[0])["messages"][:2]
    assert first["metadata"] == {"cut": True}
    assert "metadata" not in second


def test_calls_in_another_syntax_stay_text(tmp_path: Path) -> None:
    bundle = toy_bundle(
        tmp_path / "bundle", env_kwargs={"format": "xml"}, num_tasks=1, trials=1
    )  # fmt: skip
    one = sample(bundle, bundle.episodes[0])
    assert one["messages"][1]["content"] == "<guess>6</guess>"
    assert "tool_calls" not in one["messages"][1]
    assert one["messages"][2]["role"] == "user"
    # What would be a call in the default syntax is none in this one.
    other = toy_bundle(
        tmp_path / "other",
        action=lambda _: '<tool_call>{"name": "guess"}</tool_call>',
        env_kwargs={"format": "xml"},
        num_tasks=1,
        trials=1,
    )
    assert "tool_calls" not in sample(other, other.episodes[0])["messages"][1]
