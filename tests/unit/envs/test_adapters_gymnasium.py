"""Gymnasium's environments behind one tool: copied, cloned or replayed."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest

from treegrpo.envs.adapters.gymnasium import GymnasiumEnv
from treegrpo.envs.adapters.keepers import CloneKeeper, CopyKeeper, ReplayKeeper
from treegrpo.envs.adapters.spelling import ActionWords, BadAction, spell_observation
from treegrpo.envs.baselines import null_action, oracle_action, random_action, run_episode
from treegrpo.envs.errors import SnapshotUnsupported, TreegrpoError, UnknownOption
from treegrpo.envs.laws import check_env_laws

TAXI = max(id for id in gymnasium.registry if id.startswith("Taxi-v"))
CLIFF = max(id for id in gymnasium.registry if id.startswith("CliffWalking-v"))


class Walk(gymnasium.Env[Any, Any]):
    """Walk left or right at random strength; holds a lock, so that it cannot be copied."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self) -> None:
        self.action_space = gymnasium.spaces.Discrete(3, start=-1)
        self.observation_space = gymnasium.spaces.Box(-1e9, 1e9, (2,))
        self.lock = threading.Lock()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, Any]:
        super().reset(seed=seed)
        self.place = 0
        return self.see(), {}

    def see(self) -> Any:
        return np.array([self.place, abs(self.place)], dtype=np.float32)

    def step(self, action: int) -> tuple[Any, float, bool, bool, Any]:
        self.place += int(action) * int(self.np_random.integers(1, 9))
        over = abs(self.place) > 30
        return self.see(), float(over and self.place > 0), over, False, {}


class Machine(Walk):
    """A walk whose whole state can be cloned, as that of an Arcade machine."""

    stickiness = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.ale = self

    def getFloat(self, name: str) -> float:
        return self.stickiness

    def clone_state(self, include_rng: bool = False) -> Any:
        return self.place, self.np_random.bit_generator.state if include_rng else None

    def restore_state(self, state: Any) -> None:
        self.place = state[0]
        self.np_random.bit_generator.state = state[1]


class Sticky(Machine):
    stickiness = 0.25


class Drifting(Walk):
    """Its steps depend on the clock."""

    def see(self) -> Any:
        return np.array([self.place, time.perf_counter_ns() % 100_000])


class Echo(gymnasium.Env[Any, Any]):
    """Wants a short text and gives it back; ends by its own limit."""

    def __init__(self) -> None:
        self.action_space = gymnasium.spaces.Text(5)
        self.observation_space = gymnasium.spaces.Text(20)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[str, Any]:
        super().reset(seed=seed)
        self.said: list[str] = []
        return "Say something.", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, Any]:
        self.said.append(action)
        return " ".join(self.said), 0.0, False, len(self.said) == 3, {}


KINDS: dict[str, Any] = {k.__name__: k for k in (Walk, Machine, Sticky, Drifting, Echo)}
for name, kind in KINDS.items():
    gymnasium.register(f"adapted/{name}-v0", entry_point=kind, max_episode_steps=12)


def law_count(**settings: Any) -> int:
    reports = check_env_laws(lambda: GymnasiumEnv(**settings), episodes=2)
    assert [report.law for report in reports if report.checks == 0] == ["S7 transport"]
    return sum(report.checks for report in reports)


@pytest.mark.parametrize(
    ("game", "keeper"),
    [
        ("FrozenLake-v1", CopyKeeper),
        (TAXI, CopyKeeper),
        ("Blackjack-v1", CopyKeeper),
        (CLIFF, CopyKeeper),
        ("adapted/Machine-v0", CloneKeeper),
        ("adapted/Sticky-v0", ReplayKeeper),
        ("adapted/Walk-v0", ReplayKeeper),
        ("adapted/Echo-v0", ReplayKeeper),
    ],
)
def test_every_law_holds_by_the_keeper_that_suits(game: str, keeper: type) -> None:
    env = GymnasiumEnv(game=game, max_turns=5)
    assert type(env._keeper) is keeper
    assert law_count(game=game, max_turns=5) > 200


@pytest.mark.parametrize("game", ["FrozenLake-v1", "Blackjack-v1"])
def test_toy_text_can_be_replayed_as_well(game: str) -> None:
    assert law_count(game=game, snapshots="replay", max_turns=4) > 200


def test_a_game_that_does_not_repeat_itself_is_refused() -> None:
    env = GymnasiumEnv(game="adapted/Drifting-v0")
    env.reset(seed=0)
    with pytest.raises(SnapshotUnsupported, match=r"call 1 of the history, .*reset.* at first and"):
        env.snapshot()
    env.step(env.encode_call("act", action=1))
    with pytest.raises(SnapshotUnsupported, match="fix its seed and clock"):
        env.fork()


def test_a_game_that_cannot_be_copied_says_what_to_do() -> None:
    env = GymnasiumEnv(game="adapted/Walk-v0", snapshots="copy")
    with pytest.raises(SnapshotUnsupported, match=r"A copy of Walk.*Use snapshots='replay'"):
        env.reset(seed=0)


def test_sticky_actions_cannot_be_cloned() -> None:
    with pytest.raises(SnapshotUnsupported, match="leaves out the last action"):
        GymnasiumEnv(game="adapted/Sticky-v0", snapshots="clone")


def test_a_seeded_fork_of_a_copied_game_has_luck_of_its_own() -> None:
    env = GymnasiumEnv(game="FrozenLake-v1")
    env.reset(seed=3)
    act = env.encode_call("act", action="right")
    assert len({env.fork().step(act)[0] for _ in range(12)}) == 1
    assert len({env.fork(seed=k).step(act)[0] for k in range(12)}) > 1


@pytest.mark.parametrize("game", [TAXI, "adapted/Machine-v0", "adapted/Walk-v0"])
def test_a_pickle_keeps_the_episode(game: str) -> None:
    env = GymnasiumEnv(game=game)
    assert pickle.loads(pickle.dumps(env)).reset(seed=2) == env.reset(seed=2)
    act = env.encode_call("act", action=0)
    env.step(act)
    twin = pickle.loads(pickle.dumps(env))
    assert twin.state_hash() == env.state_hash()
    assert twin.step(act) == env.step(act)


def test_the_oracle_plays_what_states_its_transitions() -> None:
    solved: dict[str, int] = {}
    rng = np.random.default_rng(0)
    for game in ("FrozenLake-v1", TAXI, CLIFF):
        env = GymnasiumEnv(game=game)
        results = [run_episode(env, oracle_action, seed=seed) for seed in range(20)]
        solved[game] = sum(result.success for result in results)
        for seed in range(5):
            assert not run_episode(env, null_action, seed=seed).success
            assert not run_episode(env, lambda core: random_action(core, rng), seed=seed).success
    assert solved["FrozenLake-v1"] >= 12  # the ice: about three of four can be solved
    assert (solved[TAXI], solved[CLIFF]) == (20, 20)
    env = GymnasiumEnv(game="Blackjack-v1")
    env.reset(seed=0)
    with pytest.raises(NotImplementedError, match="Blackjack-v1 states no transitions"):
        env.oracle()


def test_a_task_is_a_seed_and_no_seed_is_in_two_splits() -> None:
    env = GymnasiumEnv(game=TAXI)
    ids = [{task.id for task in env.tasks(split)[:200]} for split in env.splits]
    assert [len(found) for found in ids] == [200] * 3
    assert not ids[0] & ids[1] and not ids[2] & (ids[0] | ids[1])
    assert env.tasks("test")[7] == GymnasiumEnv(game=TAXI).tasks("test")[7]


def test_what_the_agent_sees() -> None:
    env = GymnasiumEnv(game="FrozenLake-v1", options={"is_slippery": False})
    opening, _ = env.reset(seed=0)
    assert "Play FrozenLake-v1. Actions: left, down, right, up." in opening
    assert opening.endswith("Observation: 0\n[S]FFF\nFHFH\nFFFH\nHFFG")
    text, reward, *_ = env.step(env.encode_call("act", action="Down"))
    assert (text, reward) == ("Observation: 4\n  (Down)\nSFFF\n[F]HFH\nFFFH\nHFFG", 0.0)
    for action, fault in (("fly", "there is no action 'fly'. Actions: left"), (4, "action '4'")):
        text, _, _, _, info = env.step(env.encode_call("act", action=action))
        assert fault in text and info["errors"] == ["tool_error"]
    text, reward, terminated, _, info = env.step(env.encode_call("act", action=2))
    assert text.endswith("The game is over.") and terminated
    assert (reward, info["end_reason"]) == (0.0, "game_over")


def test_the_games_own_rewards_can_be_the_reward() -> None:
    env = GymnasiumEnv(game=CLIFF, reward="return", max_turns=20)
    env.reset(seed=0)
    text, *_ = env.step(env.encode_call("act", action="up"))
    assert "Reward: -1." in text
    while not env.episode.ended:
        env.step(env.oracle())
    assert env.episode.episode_return == -13.0  # up was the first step of the shortest way
    assert env.success_threshold == -50.0 and GymnasiumEnv.success_threshold == 1.0


def test_limits_truncate() -> None:
    env = GymnasiumEnv(game="adapted/Echo-v0")
    env.reset(seed=0)
    assert env.max_turns == 12
    assert env.step(env.encode_call("act", action="one"))[0] == "one"
    text, *_, info = env.step(env.encode_call("act", action="too long"))
    assert "is not in Text" in text and info["errors"] == ["tool_error"]
    env.step(env.encode_call("act", action="two"))
    _, _, terminated, truncated, info = env.step(env.encode_call("act", action="three"))
    assert (terminated, truncated, info["end_reason"]) == (False, True, "game_limit")
    short = GymnasiumEnv(game=TAXI, max_turns=2)
    short.reset(seed=0)
    short.step(short.encode_call("act", action="south"))
    assert short.step(short.encode_call("act", action="south"))[3]


def test_wrong_options_name_the_remedy() -> None:
    with pytest.raises(TreegrpoError, match=r"'NoSuch-v0' .* cannot be made.*Check the id"):
        GymnasiumEnv(game="NoSuch-v0")
    with pytest.raises(TreegrpoError, match=r"cannot be made.*no_such_module"):
        GymnasiumEnv(game="no_such_module:Game-v0")
    with pytest.raises(TreegrpoError, match="cannot be written as a word"):
        GymnasiumEnv(game="Pendulum-v1")
    with pytest.raises(UnknownOption, match=r"have: copy, clone, replay\. Did you mean 'clone'"):
        GymnasiumEnv(snapshots="clones")
    with pytest.raises(UnknownOption, match="have: solved, return"):
        GymnasiumEnv(reward="sum")
    with pytest.raises(TreegrpoError, match=r"2 names of actions given.*it has 4"):
        GymnasiumEnv(actions=["left", "right"])


def test_observations_are_spelled() -> None:
    assert spell_observation((np.int64(3), 0.5, True)) == "(3, 0.5, True)"
    assert spell_observation({"a": np.array([1.25, 2.0]), "b": "x"}) == "a: (1.25, 2), b: x"
    big = spell_observation(np.zeros((20, 20), dtype=np.uint8))
    assert big.startswith("array 20x20 of uint8, digest ")
    assert big != spell_observation(np.ones((20, 20), dtype=np.uint8))
    drawing = "\x1b[43mA\x1b[0m\x1b[34;1mB\x1b[0m\x1b[35mC\x1b[0m\x1b[2J"
    assert spell_observation(5, drawing) == "Observation: 5\n[A](B)<C>"


def test_actions_are_read_by_name_or_number() -> None:
    words = ActionWords(gymnasium.spaces.Discrete(2, start=5), ["on", "off"], "x")
    assert [words.read(said) for said in ("on", " OFF ", 5, "6")] == [5, 6, 5, 6]
    for wrong in ("", "4", 7, "-1", "5.0", "9" * 50):
        with pytest.raises(BadAction):
            words.read(wrong)
    assert {words.draw(np.random.default_rng(k)) for k in range(20)} == {"on", "off"}


def test_the_guides_command_finds_the_guides_module(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "adapters.md").read_text()
    module = re.search(r"^    # my_games\.py\n(?:    .*\n)+", page, re.MULTILINE)
    command = re.search(r"^    (.*)treegrpo check (\S+)$", page, re.MULTILINE)
    assert module is not None and command is not None
    (tmp_path / "my_games.py").write_text(textwrap.dedent(module[0]))
    code = f"from treegrpo.envs.registry import find_spec; print(find_spec('{command[2]}').id)"
    variables = {"PATH": os.environ["PATH"], **dict(w.split("=") for w in command[1].split())}
    # -P: like the installed command, which does not have its caller's folder on the path.
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "mine/Taxi-v0\n", done.stderr
