"""treegrpo train: what a step's line, the last table and the end of a run say."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from treegrpo.checkpoint import Position, save_checkpoint
from treegrpo.cli.train import how_to_go_on, last_step_table, step_line
from treegrpo.config import TrainConfig
from treegrpo.metrics import rollout_metrics, update_metrics
from treegrpo.rollout import Grown
from treegrpo.runfolder import RunFolder
from treegrpo.trainer import StepReport
from treegrpo.tree import Tree

TRAINED = {
    "loss": 0.1, "grad_norm": 0.5, "trained_leaves": 4.0, "trained_tokens": 50.0,
    "trained_tokens_flat": 75.0, "speedup_limit": 1.4, "packed_updates": 1.0,
}  # fmt: skip


def grown(*ends: dict[str, Any], **counts: Any) -> Grown:
    """One question, one tree, one step per leaf; `ends` are the fields of each leaf."""
    tree = Tree("q")
    tree.add(None, observation_ids=[1, 2])
    for end in ends:
        fields: dict[str, Any] = {"tool_calls": 1, **end}
        tree.add(0, action_ids=[3], action_logps=[-1.0], **fields)
    made = Grown(questions=[[tree]], tool_calls=tree.tool_calls)
    for name, value in counts.items():
        setattr(made, name, Counter(value))
    return made


def line_of(made: Grown, *updates: dict[str, float]) -> str:
    metrics = {**rollout_metrics(made, 1.0), **update_metrics(updates)}
    return step_line(StepReport(1, 50, metrics, {"compute": 1.0, "compute_flat_estimate": 1.2}))


def solved(reward: float = 1.0) -> dict[str, Any]:
    return {"reward": reward, "terminated": True, "end_reason": "answered"}


def cut(reason: str) -> dict[str, Any]:
    return {"truncated": True, "end_reason": reason}


FAILED = {"terminated": True, "end_reason": "grader_failed", "failure": "grader"}
NAN = ("grader", "score() of a/Nan-v0 gave {'score': nan}: not finite")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (
            grown(FAILED, FAILED, failures={"grader": 2}, faults={NAN: 2}),
            "no outcome  failed 2 of 2: grader: score() of a/Nan-v0 gave {'score': nan}: not "
            "finite  nothing learned: every rollout failed",
        ),
        (
            grown(failures={"environment": 2}, faults={("environment", "OSError:\n gone"): 2}),
            "no outcome  failed 2 of 2: environment: OSError: gone  nothing learned: every "
            "rollout failed",
        ),
        (
            grown(cut("context_limit"), cut("context_limit")),
            "success 0.00  nothing learned: every episode is cut at the context limit: raise "
            "max_context_tokens",
        ),
        (
            grown(unstarted={"context_limit": 2}),
            "no outcome  nothing learned: every episode is cut at the context limit: raise "
            "max_context_tokens",
        ),
        (
            grown(cut("budget"), unstarted={"budget": 1}),
            "no outcome  nothing learned: the budget leaves no episode whole: raise it, or lower "
            "questions or trunks",
        ),
        (
            grown(solved(), solved(), FAILED, failures={"grader": 1}, faults={NAN: 1}),
            "success 1.00  failed 1 of 3: grader: score() of a/Nan-v0 gave {'score': nan}: not "
            "finite  nothing learned: equal rewards in every question",
        ),
        (
            grown(
                {**cut("context_limit"), "tool_calls": 0}, {**cut("context_limit"), "tool_calls": 0}
            ),
            "success 0.00  nothing learned: no tool call was made: give the model a better start, "
            "such as treegrpo warmstart with more demonstrations, or raise max_action_tokens and "
            "max_context_tokens",
        ),
        (
            grown({**cut("turn_limit"), "tool_calls": 0}),
            "success 0.00  nothing learned: no tool call was made: give the model a better start, "
            "such as treegrpo warmstart with more demonstrations, or raise max_action_tokens",
        ),
        (
            grown(cut("turn_limit"), cut("turn_limit")),
            "success 0.00  nothing learned: equal rewards in every question, and no success: give "
            "the model a better start, such as treegrpo warmstart with more demonstrations, or "
            "easier tasks",
        ),
        (grown(), "no outcome  nothing learned: no rollout has an outcome"),
        (
            grown(solved(), solved(0.0)),
            "success 0.50  nothing learned: the credit of every step is 0",
        ),
    ],
)
def test_a_step_in_which_nothing_is_learned_says_why(made: Grown, said: str) -> None:
    assert line_of(made, {}) == f"  step 2/50  {said}"


def test_failures_are_told_beside_what_was_trained() -> None:
    made = grown(solved(), solved(0.0), FAILED, failures={"grader": 1}, faults={NAN: 1})
    line = line_of(made, TRAINED)
    assert "success 0.50  failed 1 of 3: grader: score()" in line
    assert "U 50  T 75  shared 1.50  S* 1.40  gain 1.20" in line and "nothing" not in line


@pytest.mark.parametrize(("count", "words"), [(1, "1 update not"), (2, "2 updates not")])
def test_updates_that_were_left_out_are_counted(count: int, words: str) -> None:
    line = line_of(grown(solved(), solved(0.0)), *[{"skipped_updates": 1.0}] * count)
    assert line == f"  step 2/50  success 0.50  {words} finite, left out"


def test_the_commonest_failure_is_one_short_line_that_every_process_gives() -> None:
    rare, common = ("tool", "rare"), ("environment", f"<Env at 0x7f3a9c>\n{'long ' * 50}")
    row = rollout_metrics(grown(faults={rare: 1, common: 3}), 1.0)
    assert row["commonest_failure"].startswith("environment: <Env at 0x...> long long ")
    assert row["commonest_failure"].endswith("...") and len(row["commonest_failure"]) < 120
    assert rollout_metrics(grown(), 1.0)["commonest_failure"] == ""


def shown(row: dict[str, Any]) -> str:
    text = io.StringIO()
    Console(file=text, width=80, color_system=None).print(last_step_table([row]))
    return text.getvalue()


def test_the_last_table_tells_both_sharings_by_name() -> None:
    made = grown(solved(), solved(0.0))
    row = {**rollout_metrics(made, 1.0), **TRAINED, "learning_rate": 1e-3}
    text = shown(row)
    assert "Last of 1 step" in text and "Last of 1 steps" not in text
    assert f"{row['sharing_ratio']:.4g}" in text.split("shared, all rollouts")[1].splitlines()[0]
    assert "1.5" in text.split("shared, what was trained")[1].splitlines()[0]
    assert "0.5" in text.split("success rate")[1].splitlines()[0]


def test_no_success_is_told_where_nothing_has_an_outcome() -> None:
    text = shown(rollout_metrics(grown(FAILED, failures={"grader": 1}), 1.0))
    assert text.count("no outcome") == 2 and "what was trained" not in text


def test_how_to_go_on_follows_what_is_there(tmp_path: Path) -> None:
    config = TrainConfig(model="m", env="e")
    folder = RunFolder(tmp_path / "run", config, resume_at=None)
    assert how_to_go_on(tmp_path / "run") == (
        "No step was done: start the run again without --resume."
    )
    assert not (tmp_path / "run").exists()
    folder = RunFolder(tmp_path / "run", config, resume_at=None)
    folder.metrics(0, {"loss": 1.0})
    assert how_to_go_on(tmp_path / "run").startswith("There is no checkpoint: with the same")
    save_checkpoint(tmp_path / "run" / "checkpoint", Position(next_step=1), {})
    assert "--resume goes on from the checkpoint in" in how_to_go_on(tmp_path / "run")
