"""Rows of reasoning-gym: read, split, scored by the package where it is there."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from treegrpo.envs.adapters import reasoning_gym
from treegrpo.envs.adapters.reasoning_gym import ReasoningGymEnv
from treegrpo.envs.baselines import null_action, oracle_action, random_action, run_episode
from treegrpo.envs.errors import DataFileError, TreegrpoError, UnknownOption
from treegrpo.envs.laws import check_env_laws

FIXTURE = str(Path(__file__).parents[2] / "fixtures" / "reasoning_gym" / "rows.jsonl")


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Put a small stand-in for the package in place; it knows one data set."""

    def create_dataset(name: str, size: int, seed: int, largest: int = 9) -> list[dict[str, Any]]:
        if name != "halves":
            raise ValueError(f"Dataset '{name}' not registered")
        numbers = np.random.default_rng(seed).integers(2, largest + 1, size=size)
        return [
            {
                "question": f"Half of {2 * n} in round {i}?",
                "answer": str(n),
                "metadata": {"source_dataset": "halves", "difficulty": 2},
            }
            for i, n in enumerate(numbers)
        ]

    def get_score_answer_fn(name: str) -> Any:
        if name != "halves":
            raise ValueError(f"Dataset '{name}' not registered")
        return lambda answer, entry: 1.0 if answer == entry["answer"] else 0.01

    found = SimpleNamespace(create_dataset=create_dataset, get_score_answer_fn=get_score_answer_fn)
    monkeypatch.setattr(reasoning_gym, "_package", lambda: found)
    reasoning_gym._scorer.cache_clear()
    return found


def test_the_fixture_is_played() -> None:
    env = ReasoningGymEnv(rows=FIXTURE)
    assert sum(len(env.tasks(split)) for split in env.splits) == 20
    for split in env.splits:
        for index in range(len(env.tasks(split))):
            options = {"split": split, "index": index}
            assert run_episode(env, oracle_action, options=options).episode_return == 1.0
            assert run_episode(env, null_action, options=options).episode_return == 0.0
    rng = np.random.default_rng(0)
    results = [run_episode(env, lambda c: random_action(c, rng), seed=k) for k in range(20)]
    assert not any(result.success for result in results)


def test_every_law_holds() -> None:
    reports = check_env_laws(lambda: ReasoningGymEnv(rows=FIXTURE), episodes=2)
    assert [report.law for report in reports if report.checks == 0] == ["S7 transport"]


def test_texts_are_compared_where_there_is_no_scorer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reasoning_gym, "_package", lambda: None)
    env = ReasoningGymEnv(rows=FIXTURE)
    env.reset(seed=0)
    before = env.snapshot()
    assert env.step(env.encode_call("answer", text=f" {env.task.answer} \n"))[1] == 1.0
    env.restore(before)
    assert env.step(env.encode_call("answer", text=f"{env.task.answer}!"))[1] == 0.0


def test_the_packages_rows_and_scorer_are_used() -> None:
    env = ReasoningGymEnv(dataset="halves", size=300, options={"largest": 99})
    tasks = [[task.id for task in env.tasks(split)] for split in env.splits]
    assert sum(map(len, tasks)) == 300 and len({id for ids in tasks for id in ids}) == 300
    assert min(map(len, tasks)) > 30 and len(tasks[0]) > 150
    env.reset(seed=1)
    assert env.task.difficulty == 2
    before = env.snapshot()
    assert env.step(env.encode_call("answer", text=env.task.answer))[1] == 1.0
    env.restore(before)
    _, reward, _, _, info = env.step(env.encode_call("answer", text="no"))
    assert (reward, info["success"]) == (0.01, False)


def test_a_row_counts_once(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = json.dumps({"question": "One?", "answer": "1", "metadata": {}})
    path.write_text(f"{row}\n{row}\n", encoding="utf-8")
    env = ReasoningGymEnv(rows=str(path))
    assert sum(len(env.tasks(split)) for split in env.splits) == 1


def test_a_row_without_an_answer_has_no_oracle(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"question": "Free?", "answer": null, "metadata": {}}\n'))
    env = ReasoningGymEnv(rows=str(path))
    split = next(split for split in env.splits if env.tasks(split))
    env.reset(seed=0, options={"split": split})
    with pytest.raises(NotImplementedError, match="holds no answer"):
        env.oracle()


def test_what_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for row, field in (({"answer": "1"}, "question"), ({"question": "x", "answer": 3}, "answer")):
        path.write_text(json.dumps(row), encoding="utf-8")
        with pytest.raises(DataFileError, match=rf"rows.jsonl, line 1, field '{field}'"):
            ReasoningGymEnv(rows=str(path))
    with pytest.raises(UnknownOption, match=r"Give rows=PATH or dataset=NAME"):
        ReasoningGymEnv()
    with pytest.raises(UnknownOption, match=r"Give rows=PATH or dataset=NAME"):
        ReasoningGymEnv(rows=FIXTURE, dataset="halves")
    with pytest.raises(TreegrpoError, match=r"reasoning-gym refuses: Dataset 'x' not registered"):
        ReasoningGymEnv(dataset="x")
    monkeypatch.setattr(reasoning_gym, "_package", lambda: None)
    with pytest.raises(TreegrpoError, match=r"pip install reasoning-gym"):
        ReasoningGymEnv(dataset="halves")
