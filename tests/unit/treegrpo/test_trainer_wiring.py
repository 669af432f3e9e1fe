"""treegrpo.trainer: that importance reaches the credit, is learned, saved and loaded again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.toy_game import ID, save_tiny_model
from treegrpo.config import TrainConfig, load_config
from treegrpo.credit import get_credit
from treegrpo.importance import drop_importance, importance
from treegrpo.learner import Question
from treegrpo.trainer import Trainer
from treegrpo.tree import Node, Tree


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


def config_of(model: str, out: Path, /, **changes: Any) -> TrainConfig:
    fields: dict[str, Any] = {
        "model": model, "env": ID, "out": str(out), "steps": 4, "questions": 2, "trunks": 3,
        "forks": 2, "rounds": 1, "max_action_tokens": 2, "max_context_tokens": 200, "lr": 1e-2,
        "checkpoint_every": 2, "threads": 1,
    }  # fmt: skip
    return load_config(base={**fields, **changes})


def watched(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> list[Question]:
    """The scored trees of every question that the trainer goes on to learn from."""
    seen: list[Question] = []
    learn = trainer._learner.learn

    def spy(questions: Sequence[Question], rate: float) -> list[dict[str, float]]:
        seen.extend(questions)
        return learn(questions, rate)

    monkeypatch.setattr(trainer._learner, "learn", spy)
    return seen


def weights(trainer: Trainer) -> list[torch.Tensor]:
    return [p.detach().clone() for p in trainer.model.parameters()]


def same(one: list[torch.Tensor], two: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.fixture
def registered() -> Iterator[Callable[[Callable[[Tree, Node], float]], str]]:
    """Registers an importance until the test ends, and gives its name."""

    def register(function: Callable[[Tree, Node], float]) -> str:
        importance("of_a_test")(function)
        return "of_a_test"

    yield register
    drop_importance("of_a_test")


def test_an_importance_of_0_takes_a_steps_credit(
    model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    registered: Callable[[Callable[[Tree, Node], float]], str],
) -> None:
    name = registered(lambda _tree, step: 0.0 if step.depth == 1 else 2.0)
    trainer = Trainer(config_of(model, tmp_path / "run", steps=1, importance=name))
    seen = watched(trainer, monkeypatch)
    trainer.run()
    plain = Trainer(config_of(model, tmp_path / "plain", steps=1))
    plain.run()
    estimator = get_credit(trainer.config.credit)
    num_first = num_later = 0
    for question in seen:
        of_credit = estimator([tree for tree, _ in question])
        for (tree, credit), own in zip(question, of_credit, strict=True):
            assert tree.nodes[1].advantage == 0
            for leaf, row in credit.items():
                assert row == [0.0, *(2 * advantage for advantage in own[leaf][1:])]
                num_first += bool(own[leaf][0])
                num_later += any(own[leaf][1:])
    assert num_first and num_later, "there was credit to take, and to double"
    assert not same(weights(trainer), weights(plain))


def test_learned_importance_is_saved_loaded_and_used(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Actions of one token, so that some siblings act alike."""
    monkeypatch.setattr("treegrpo.importance.MIN_PAIRS", 0.5)
    learned: dict[str, Any] = {"importance": "learned", "max_action_tokens": 1}
    whole = Trainer(config_of(model, tmp_path / "whole", **learned))
    rows = whole.run()
    parts = config_of(model, tmp_path / "parts", **learned)
    first = Trainer(parts)
    found = first.run(steps=2)
    state = tmp_path / "parts" / "checkpoint" / "step-000002" / "state.json"
    saved = json.loads(state.read_text())["importance"]
    assert saved == first._importance.state() and all(saved["1"][1::2]), "pairs of both kinds"
    second = Trainer(parts, resume=True)
    assert second._importance.state() == saved
    assert found + second.run() == rows and same(weights(second), weights(whole))
    plain = Trainer(config_of(model, tmp_path / "plain", max_action_tokens=1))
    plain.run()
    assert not same(weights(plain), weights(whole)), "with MIN_PAIRS reached, it weighs"
