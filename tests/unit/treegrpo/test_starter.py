"""A starter: what it learns from, what it is written as, and what it is refused for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from tests.unit.envs import toys
from treegrpo import starter
from treegrpo.cli.policy import load_policy
from treegrpo.envs import register
from treegrpo.envs.errors import TreegrpoError
from treegrpo.loading import load_model
from treegrpo.starter import build_starter, flawed_demonstrations
from treegrpo.starter_settings import StarterSettings

ID = "toys/Sum-v0"


class Oracleless(toys.Sum):
    def oracle(self) -> str:
        return super(toys.Sum, self).oracle()


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    register(ID, "tests.unit.envs.toys:Sum")
    register("toys/Oracleless-v0", f"{__name__}:Oracleless")
    yield
    for id in (ID, "toys/Oracleless-v0"):
        gymnasium.registry.pop(id, None)


def _settings(**values: Any) -> StarterSettings:
    return StarterSettings(**{"demonstrations": 12, "layers": 1, **values})


def test_without_mistakes_the_oracle_plays() -> None:
    played = flawed_demonstrations(ID, _settings(mistakes=0.0, difficulty=2))
    assert [demo.success for demo in played] == [True] * 12
    assert [len(demo.messages) for demo in played] == [5] * 12  # system, task, add, total, answer


def test_mistakes_are_made_in_the_share_asked_for() -> None:
    steps = mistakes = 0
    for demo in flawed_demonstrations(ID, _settings(mistakes=0.5, demonstrations=200)):
        task = int(demo.messages[1]["content"].split()[1].rstrip("."))
        said = [m["content"] for m in demo.messages if m["role"] == "assistant"]
        steps += 1
        mistakes += f'"number": {task}}}' not in said[0]
    assert 0.4 < mistakes / steps < 0.6


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    built = [build_starter(ID, tmp_path / name, _settings(seed=3)) for name in ("a", "b")]
    assert built[0] == built[1]
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert build_starter(ID, tmp_path / "c", _settings(seed=4)).loss != built[0].loss


def test_it_is_an_ordinary_model_folder_that_plays(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    built = build_starter(
        ID, tmp_path / "m", _settings(), advance=lambda done, total: told.append((done, total))
    )
    model, tokenizer = load_model(str(tmp_path / "m"), device="cpu")
    assert sum(p.numel() for p in model.parameters()) == built.num_parameters
    assert model.config.max_position_embeddings == starter.MAX_CONTEXT_TOKENS
    text = 'Reach 57. {"name": "add"}\n\x00 \u00e9'
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert told[:12] == [(number, 12) for number in range(1, 13)] and told[12:] == [(1, 1)]
    assert load_policy(tmp_path / "m").name == "m"


def test_sizes_cover_every_demonstration(tmp_path: Path) -> None:
    built = build_starter(ID, tmp_path / "m", _settings())
    _, tokenizer = load_model(str(tmp_path / "m"), device="cpu")
    demos = flawed_demonstrations(ID, _settings())
    said = [m["content"] for demo in demos for m in demo.messages if m["role"] == "assistant"]
    longest = max(len(tokenizer.encode(text)) for text in said)
    assert built.max_action_tokens == longest + 1  # the token that ends an action
    assert 1.2 * longest < built.max_context_tokens < starter.MAX_CONTEXT_TOKENS


@pytest.mark.parametrize(
    ("id", "said"),
    [
        ("toys/Oracleless-v0", "ships no oracle to learn from. Give it an oracle()"),
        (ID, "tokens, and a model this small reads 40. Choose an easier"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, id: str, said: str
) -> None:
    monkeypatch.setattr(starter, "MAX_CONTEXT_TOKENS", 40)
    with pytest.raises(TreegrpoError) as refused:
        build_starter(id, tmp_path / "m", _settings(mistakes=0.0))
    assert said in str(refused.value) and f"A starter for {id} asked for" in str(refused.value)
    assert not (tmp_path / "m").exists()
