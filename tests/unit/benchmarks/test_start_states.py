"""benchmarks.start_states: its corridor, its arms, its numbers on rows made by hand, its cache."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from benchmarks import _start_runs, start_states
from benchmarks._start_corridor import (
    ENV_ID,
    RIGHT,
    ROOMS,
    WORDS,
    Corridor,
    demonstrations,
    every_text,
)
from benchmarks._start_figure import draw
from benchmarks._start_runs import ARMS, FULL, Log, RightWay, Setting, finished_runs, run_config
from benchmarks._start_summary import (
    flat_metrics,
    oracle_minus_reset,
    reset_at_half,
    tokens_to_half,
)
from treegrpo.chat import ChatFormat
from treegrpo.envs import check_env_laws
from treegrpo.rollout.starts.oracle_prefix import OracleOptions
from treegrpo.tiny import build_model, build_tokenizer
from treegrpo.trainer import StepReport, Trainer

TINY = Setting(
    demonstrations=16,
    width=32,
    budget_tokens=400,
    questions=1,
    eval_tasks=3,
    end_tasks=4,
    eval_points=1,
    exact_tasks=2,
)


def walk(actions: list[str], seed: int = 0) -> tuple[list[str], float]:
    """Return what the corridor shows after each action, and the reward; "" asks the oracle."""
    env = Corridor(format="xml")
    env.reset(seed=seed)
    seen: list[str] = []
    reward = 0.0
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(action or env.oracle())
        seen.append(observation)
        assert (terminated or truncated) == (len(seen) == ROOMS)
    return seen, reward


# ------------------------------------------------------------------------------- the corridor


def test_the_oracle_reaches_the_end() -> None:
    seen, reward = walk([""] * ROOMS)
    assert reward == 1.0 and seen[-1] == "end" and seen[0].startswith("room 2 ")


@pytest.mark.parametrize("room", [0, 5, ROOMS - 1])
def test_one_wrong_word_loses_all_and_shows_nothing(room: int) -> None:
    env = Corridor(format="xml")
    env.reset(seed=0)
    for _ in range(room):
        env.step(env.oracle())
    right = env.oracle()
    wrong = next(c for word in WORDS if (c := env.encode_call("say", word=word)) != right)
    path = [""] * ROOMS
    path[room] = wrong
    assert walk(path) == (walk([""] * ROOMS)[0], 0.0)


def test_a_turn_without_a_call_cannot_be_made_up_for() -> None:
    seen, reward = walk(["oak", *[""] * (ROOMS - 1)])
    assert "No tool call" in seen[0] and reward == 0.0


def test_the_corridor_keeps_the_laws_of_environments() -> None:
    assert check_env_laws(ENV_ID)


def test_the_walker_is_right_as_often_as_asked() -> None:
    env = Corridor(format="xml")
    played = demonstrations(env, 0.57, 300, seed=1)
    words = [m["content"] for demo in played for m in demo.messages if m["role"] == "assistant"]
    signs = [m["content"].split()[-1] for demo in played for m in demo.messages[::2]]
    hits = [env.encode_call("say", word=RIGHT[s]) == w for s, w in zip(signs, words, strict=True)]
    # 3,600 words: the standard error is 0.008.
    assert sum(hits) / len(hits) == pytest.approx(0.57, abs=0.03)


def test_the_tokenizer_knows_every_word() -> None:
    tokenizer = build_tokenizer(every_text())
    texts = [
        m["content"] for d in demonstrations(Corridor(format="xml"), 0.5, 20, 0) for m in d.messages
    ]
    assert not any(tokenizer.unk_token_id in tokenizer.encode(text) for text in texts)


# ----------------------------------------------------------------------------------- the runs


def test_both_arms_differ_in_the_start_alone() -> None:
    one, other = (run_config(FULL, arm, 3, Path("m"), Path("o")).model_dump() for arm in ARMS)
    assert {name for name in one if one[name] != other[name]} == {"start", "start_options"}
    assert one["max_sampled_tokens"] == FULL.budget_tokens and one["start"] == "reset"
    assert other["start_options"] == {"share": 0.5}


def test_the_start_state_is_switched_as_by_default() -> None:
    given = run_config(FULL, "oracle_prefix", 0, Path("m"), Path("o")).start_options
    options = OracleOptions.model_validate(given)
    assert (options.on_below, options.off_above) == (0.01, 0.05)


def test_the_chance_is_that_of_the_sampled_tokens_alone() -> None:
    tokenizer = build_tokenizer(every_text())
    model: Any = build_model(len(tokenizer), layers=1, width=32)
    for weight in model.parameters():
        torch.nn.init.zeros_(weight)  # every token is as likely as any other
    chance, word = RightWay(ChatFormat(tokenizer), 3).chances(model)
    # <say>, the word, </say> and the end of the turn.
    assert word == pytest.approx(len(tokenizer) ** -4.0, rel=1e-3)
    assert chance == pytest.approx(word**ROOMS, rel=1e-3, abs=1e-40)


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "warm"
    _start_runs.build_warm_start(TINY, 0, folder)
    (folder / "seconds.txt").write_text("1.5\n")
    return folder


def test_a_run_spends_its_tokens_and_is_measured_at_both_ends(warm: Path) -> None:
    row = _start_runs.train_run(TINY, "oracle_prefix", 0, warm)
    first, last = row["points"]
    assert (first["sampled_tokens"], first["episodes"], last["episodes"]) == (0, 4, 4)
    assert TINY.budget_tokens - 6 < last["sampled_tokens"] <= TINY.budget_tokens
    assert row["sampled_tokens"] == last["sampled_tokens"] and row["leaves_in_training"] > 0
    assert row["seconds_warm_start"] == 1.5 and row["off_at_tokens"] is None


@pytest.fixture
def log(warm: Path, tmp_path: Path) -> Iterator[Log]:
    trainer = Trainer(run_config(TINY, "oracle_prefix", 0, warm, tmp_path / "run"))
    yield Log(trainer, TINY, 0)
    trainer.close()


def test_the_switch_is_noted_when_it_is_first_off(log: Log) -> None:
    metrics = {"sampled_tokens": 40, "leaves": 12, "success_rate": 0.25}
    report = StepReport(0, 9, metrics, {"step": 1.0})
    log.points = [{}]  # nothing is due
    for is_on in (True, False, False):
        level = {"seen": 60, "episodes": 60.0, "successes": 3.0, "is_on": is_on}
        learned = {"threshold": 1.0, "solved": 9, "unsolved": 0, "levels": {"1": level}}
        log.trainer.position = log.trainer.position.model_copy(update={"start": learned})
        log.step(report)
    assert log.off_at_tokens == 80
    assert (log.tokens, log.leaves, log.solved, log.steps) == (120, 36, 9, 3)


def test_finished_runs_are_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, int]] = []

    def train(setting: Setting, arm: str, seed: int, warm: Path) -> dict[str, Any]:
        ran.append((arm, seed))
        return {"arm": arm}

    def build(setting: Setting, seed: int, folder: Path) -> None:
        folder.mkdir(parents=True)

    monkeypatch.setattr(_start_runs, "build_warm_start", build)
    monkeypatch.setattr(_start_runs, "train_run", train)
    monkeypatch.setattr(_start_runs, "commit", lambda: "abc")
    first = list(finished_runs(FULL, [7], tmp_path))
    assert first == [{"arm": arm, "commit": "abc"} for arm in ARMS]
    monkeypatch.setattr(_start_runs, "commit", lambda: "later")
    assert list(finished_runs(FULL, [7], tmp_path)) == first and len(ran) == 2
    list(finished_runs(dataclasses.replace(FULL, lr=1.0), [7], tmp_path))
    assert ran[2:] == [(arm, 7) for arm in ARMS]


# -------------------------------------------------------------------------------- the numbers


def row(arm: str, seed: int, chances: list[float]) -> dict[str, Any]:
    """Return a run with an evaluation every 1,000 tokens."""
    points = [
        {"sampled_tokens": 1000 * n, "success": c, "chance": c, "right_word": c ** (1 / ROOMS)}
        for n, c in enumerate(chances)
    ]
    return {
        "arm": arm, "seed": seed, "points": points, "off_at_tokens": 500 * seed or None,
        "success_start": chances[0], "success_end": chances[-1], "steps": 9, "seconds": 30.0,
        "sampled_tokens": 2000, "leaves_in_training": 90, "solved_in_training": 4,
    }  # fmt: skip


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    ends = {"reset": (0.0, 0.002, 0.001), "oracle_prefix": (0.6, 0.7, 0.4)}
    return [
        row(arm, seed, [0.001, 0.2 if end > 0.1 else 0.001, end])
        for arm, values in ends.items()
        for seed, end in enumerate(values)
    ]


def test_tokens_to_a_half_are_read_by_straight_lines() -> None:
    assert tokens_to_half(row("reset", 0, [0.0, 0.4, 0.6])) == pytest.approx(1500)
    assert tokens_to_half(row("reset", 0, [0.0, 0.6, 0.4])) == pytest.approx(1000 * 5 / 6)
    assert tokens_to_half(row("reset", 0, [0.5, 0.9])) == 0.0
    assert tokens_to_half(row("reset", 0, [0.0, 0.4, 0.49])) is None


def test_metrics_are_flat_and_complete(rows: list[dict[str, Any]]) -> None:
    metrics = flat_metrics(rows)
    assert all(isinstance(value, int | float) for value in metrics.values())
    assert metrics["success_start"] == pytest.approx(0.001)
    assert metrics["success_oracle_prefix_end"] == pytest.approx(1.7 / 3)
    # t(0.975, 2) = 4.3027, standard deviation 0.15275, three seeds; Wilson's form with N = 31.57:
    # w = t^2 / N = 0.5864, (0.56667 + w / 2) / (1 + w) - sqrt(w p (1 - p) + w^2 / 4) / (1 + w).
    low = 0.2397
    assert metrics["success_oracle_prefix_end_low"] == pytest.approx(low, abs=1e-4)
    assert metrics["success_reset_end"] == pytest.approx(0.001)
    assert (metrics["seeds_at_half_oracle_prefix"], metrics["seeds_at_half_reset"]) == (2, 0)
    assert metrics["seeds_above_one_percent_oracle_prefix"] == 3
    assert metrics["seeds_above_one_percent_reset"] == 0
    # Lines from 0.2 at 1,000 to 0.6 and 0.7 at 2,000 tokens; the third never comes so far.
    assert metrics["tokens_to_half_success_oracle_prefix"] == pytest.approx((1750 + 1600) / 2)
    assert "tokens_to_half_success_reset" not in metrics
    assert (metrics["seeds_switched_off"], metrics["switched_off_at_tokens"]) == (2, 750)


def test_reset_is_read_where_the_other_arm_came_to_a_half(rows: list[dict[str, Any]]) -> None:
    # After 1,750 and 1,600 tokens: lines from 0.001 at 1,000 to 0.0 and 0.002 at 2,000.
    found = reset_at_half(rows)
    assert found == {"0": [pytest.approx(0.00025)], "1": [pytest.approx(0.0016)]}
    name = "chance_reset_when_oracle_prefix_at_half"
    assert flat_metrics(rows)[name] == pytest.approx(0.000925)


def test_the_difference_is_paired_by_seed(rows: list[dict[str, Any]]) -> None:
    paired = oracle_minus_reset(rows)
    assert paired.difference.mean == pytest.approx((0.6 + 0.698 + 0.399) / 3)
    assert paired.wins == 3


def test_the_table_names_both_arms_and_who_never_came_to_a_half(rows: list[dict[str, Any]]) -> None:
    printed = io.StringIO()
    start_states.show(rows, Console(width=120, file=printed))
    lines = printed.getvalue().splitlines()
    half = next(line for line in lines if "tokens to a half" in line)
    assert "never, never, never" in half and "2k, 2k, never" in half
    end = next(line for line in lines if line[2:].startswith("success at the end"))
    assert "0.0010 [0.0001, 0.0080]" in end and "0.5667 [" in end


def test_the_picture_is_written(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    draw(rows, tmp_path / "deep" / "picture.png")
    assert (tmp_path / "deep" / "picture.png").read_bytes().startswith(b"\x89PNG")


def test_the_record_is_that_of_the_runs(
    rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [{**one, "commit": "abc"} for one in rows]
    monkeypatch.setattr(start_states, "finished_runs", lambda setting, seeds, cache: iter(known))
    file = tmp_path / "x.json"
    start_states.main(["--seeds", "3", "--json", str(file)])
    record = json.loads(file.read_text())
    assert (record["commit"], record["seeds"]) == ("abc", [0, 1, 2])
    assert record["setting"]["share"] == 0.5 and record["rows"] == known
    assert file.with_suffix(".png").exists()


def test_quick_is_small_and_of_its_own() -> None:
    quick = start_states.QUICK
    assert quick.budget_tokens <= FULL.budget_tokens / 10 and quick.digest() != FULL.digest()


def test_wrong_options_are_refused() -> None:
    with pytest.raises(SystemExit) as refused:
        start_states.main(["--seeds", "0"])
    assert refused.value.code == 2
