"""TextArena's games, by a stand-in of its interface: global luck, wrappers, rewards at close."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from treegrpo.envs.adapters import textarena
from treegrpo.envs.adapters.replay import StateLost
from treegrpo.envs.adapters.textarena import Arena, TextArenaEnv
from treegrpo.envs.errors import SnapshotUnsupported, TreegrpoError
from treegrpo.envs.laws import check_env_laws
from treegrpo.envs.snapshot import Snapshot


class Dice:
    """Guess what both dice show together; each roll draws from a global generator."""

    def reset(self, num_players: int, seed: int | None = None) -> None:
        assert num_players == 1
        self.news, self.hits, self.rolls = ["Guess the sum of two dice."], 0, 0

    def get_observation(self) -> tuple[int, str]:
        text, self.news = "\n".join(self.news), []
        return 0, text

    def step(self, action: str) -> tuple[bool, dict[str, Any]]:
        self.rolls += 1
        total = random.randint(1, 6) + int(np.random.randint(1, 7))
        self.hits += action == str(total)
        self.news.append(f"They show {total}.")
        return self.rolls == 5, {}

    def close(self) -> tuple[dict[int, float], dict[str, Any]]:
        return {0: self.hits / 5}, {}


class Wrapped:
    """Looks for what it lacks in the game inside, as TextArena's wrappers do."""

    def __init__(self, env: Any) -> None:
        self.env, self.looks = env, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def get_observation(self) -> tuple[int, str]:
        self.looks += 1
        player, text = self.env.get_observation()
        return player, f"{self.looks}: {text}"


class Streaming(Dice):
    """Holds a generator, which cannot be copied."""

    def reset(self, num_players: int, seed: int | None = None) -> None:
        super().reset(num_players, seed)
        self.stream = (number for number in range(9))


GAMES = {"Dice-v0": lambda: Wrapped(Wrapped(Dice())), "Streaming-v0": Streaming}


@pytest.fixture(autouse=True)
def _package(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = SimpleNamespace(make=lambda game, **options: GAMES[game](**options))
    monkeypatch.setattr(textarena, "_package", lambda: stand_in)


def say(env: TextArenaEnv, action: str) -> str:
    return env.step(env.encode_call("act", action=action))[0]


def test_every_law_holds() -> None:
    reports = check_env_laws(lambda: TextArenaEnv(game="Dice-v0"), episodes=3)
    assert [report.law for report in reports if report.checks == 0] == ["S7 transport"]


def test_the_process_notices_nothing() -> None:
    random.seed(5)
    np.random.seed(5)
    expected = random.random(), float(np.random.random())
    random.seed(5)
    np.random.seed(5)
    env = TextArenaEnv(game="Dice-v0")
    env.reset(seed=0)
    say(env, "7")
    env.fork().step("x")
    assert (random.random(), float(np.random.random())) == expected


def test_forks_have_their_parents_luck_whatever_else_is_drawn() -> None:
    env = TextArenaEnv(game="Dice-v0")
    env.reset(seed=0)
    twin, late = env.fork(), env.snapshot()
    rolls = [say(env, "7") for _ in range(5)]
    random.random()
    assert [say(twin, "7") for _ in range(5)] == rolls and len(set(rolls)) > 2
    env.restore(late)
    assert say(env, "2") == rolls[0]


def test_a_snapshot_travels_with_its_wrappers() -> None:
    env = TextArenaEnv(game="Dice-v0")
    env.reset(seed=0)
    say(env, "7")
    sent = Snapshot.from_bytes(env.snapshot().to_bytes())
    other = TextArenaEnv(game="Dice-v0")
    other.restore(sent)
    assert say(other, "7") == say(env, "7")
    assert other.state["arena"].game.looks == 3


def test_the_games_reward_comes_at_its_end() -> None:
    env = TextArenaEnv(game="Dice-v0")
    env.reset(seed=0)
    shot = env.snapshot()
    rolls = [say(env, "0").split()[-1].rstrip(".") for _ in range(4)]
    env.restore(shot)
    for total in rolls:
        say(env, total)
    text, reward, terminated, _, info = env.step(env.encode_call("act", action="0"))
    assert (text, reward, terminated) == ("The game is over.", 0.8, True)
    assert info["end_reason"] == "game_over"
    short = TextArenaEnv(game="Dice-v0", max_turns=2)
    short.reset(seed=0)
    say(short, "7")
    assert short.step(short.encode_call("act", action="7"))[1:4] == (0.0, False, True)


def test_no_seed_is_in_two_splits() -> None:
    env = TextArenaEnv(game="Dice-v0")
    ids = [{task.id for task in env.tasks(split)[:100]} for split in env.splits]
    assert len(set.union(*ids)) == 300
    assert env.reset(seed=4)[0] == TextArenaEnv(game="Dice-v0").reset(seed=4)[0]
    assert env.reset(seed=4)[0].endswith("\n1: 1: Guess the sum of two dice.")


def test_a_game_that_cannot_be_copied_is_refused() -> None:
    env = TextArenaEnv(game="Streaming-v0")
    env.reset(seed=0)
    with pytest.raises(SnapshotUnsupported, match=r"A copy of the TextArena game Streaming"):
        env.snapshot()
    assert issubclass(StateLost, SnapshotUnsupported)


def test_what_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TreegrpoError, match=r"'Go-v0' .* cannot be made: 'Go-v0' \(KeyError\)"):
        TextArenaEnv(game="Go-v0")
    monkeypatch.setattr(textarena, "_package", lambda: None)
    with pytest.raises(TreegrpoError, match=r"pip install textarena"):
        TextArenaEnv(game="Dice-v0")


def test_an_arena_knows_its_own_course() -> None:
    arena = Arena(Dice(), seed=3)
    arena.look()
    arena.act("7")
    log, luck = arena.state_facts()
    assert log == ["3", "Guess the sum of two dice.", "7"] and len(luck) == 64
