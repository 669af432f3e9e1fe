"""What holds for every game: splits, levels, budgets, rewards, and what their README says."""

import re
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest

from treegrpo.envs import make
from treegrpo.envs.baselines import null_action, oracle_action, random_action, run_episode
from treegrpo.envs.suite import games
from treegrpo.envs.suite.games import (
    FrozenLakeEnv,
    MastermindEnv,
    MinesweeperEnv,
    SokobanEnv,
    WordGuessEnv,
    frozen_lake,
    mastermind,
    minesweeper,
    sokoban,
    word_guess,
)
from treegrpo.envs.suite.games.base import SPLITS, GameEnv, canonical, split_of
from treegrpo.envs.suite.games.words import WORDS
from treegrpo.envs.tasks import Task

GAMES = [FrozenLakeEnv, MastermindEnv, MinesweeperEnv, SokobanEnv, WordGuessEnv]
README = (Path(games.__file__).parent / "README.md").read_text(encoding="ascii")


@cache
def tasks_of(game: type[GameEnv], split: str) -> tuple[Task, ...]:
    """Return the first tasks of a split, of every level."""
    return tuple(game().tasks(split)[:15])


def content(task: Task) -> object:
    """Return what decides a task's split."""
    match task.id.partition("-")[0]:
        case "lake":
            return canonical(task.data["lake"].rows)
        case "room":
            return canonical(task.data["room"].rows())
        case "mines":
            return canonical(minesweeper._drawn(task.data["field"]))
        case "code":
            return [task.data["letters"], task.answer]
        case _:
            return task.answer


@pytest.mark.parametrize("game", GAMES)
def test_content_decides_the_split(game: type[GameEnv]) -> None:
    for split in SPLITS:
        tasks = tasks_of(game, split)
        assert {split_of(content(task)) for task in tasks} == {split}
        assert len({task.id for task in tasks}) == len(tasks)
        assert [task.difficulty for task in tasks] == [1, 2, 3, 4, 5] * 3


def test_every_split_has_its_share() -> None:
    splits = [split_of(["any", number]) for number in range(500)]
    assert 260 < splits.count("train") < 340
    assert 70 < splits.count("validation") < 130
    assert 70 < splits.count("test") < 130


def test_mirrored_and_turned_boards_are_one() -> None:
    board = ("ab-", "c--")
    forms = [board, board[::-1], ("-ba", "--c"), ("ca", "-b", "--"), ("--", "b-", "ac")]
    assert len({canonical(form) for form in forms}) == 1
    assert canonical(board) != canonical(("ab-", "-c-"))


@pytest.mark.parametrize("game", GAMES)
def test_a_task_depends_on_its_index_alone(game: type[GameEnv]) -> None:
    known = tasks_of(game, "validation")
    again = game().tasks("validation")
    for index in (11, 3, 0):
        assert again[index] == known[index]


@pytest.mark.parametrize("game", GAMES)
@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_the_oracle_wins_and_doing_nothing_loses(game: type[GameEnv], level: int) -> None:
    env = game()
    for number in range(2):
        options = {"split": "validation", "index": 5 * number + level - 1}
        best = run_episode(env, oracle_action, seed=number, options=options)
        assert (best.difficulty, best.end_reason, best.episode_return) == (level, "won", 1.0)
    worst = run_episode(env, null_action, seed=0, options={"index": level - 1})
    assert (worst.end_reason, worst.episode_return) == ("turn_limit", 0.0)


@pytest.mark.parametrize("game", GAMES)
def test_the_random_agent_plays_to_the_end_and_wins_little(game: type[GameEnv]) -> None:
    env, rng = game(), np.random.default_rng(4)
    policy = partial(random_action, rng=rng)
    results = [run_episode(env, policy, seed=n, options={"index": n % 5}) for n in range(15)]
    assert sum(result.success for result in results) <= 2
    assert {result.end_reason for result in results} & {"no_moves_left", "mine"}


@pytest.mark.parametrize("game", GAMES)
def test_nothing_told_gives_the_answer_away(game: type[GameEnv]) -> None:
    env = game()
    _, info = env.reset(seed=0, options={"split": "test", "index": 0})
    told = str(info) + str(env.tool_schemas())
    assert re.fullmatch(r"[a-z]+-[0-9a-f]{16}", env.task.id)
    assert "*" not in info["messages"][-1]["content"]
    if isinstance(env.task.answer, str):
        assert env.task.answer not in told and " ".join(env.task.answer) not in told


@pytest.mark.parametrize("game", GAMES)
def test_every_budget_leaves_room_for_the_moves(game: type[GameEnv]) -> None:
    env = game()
    for index in range(5):
        env.reset(seed=0, options={"index": index})
        assert env.state.moves_left < env.max_turns
        assert env.max_tool_calls >= env.max_turns


def test_a_game_has_to_be_drafted() -> None:
    with pytest.raises(NotImplementedError, match=r"needs draft\(\)"):
        _ = GameEnv().tasks("train")[0]


# --------------------------------------------------------------------------------- the README


@pytest.mark.parametrize("game", GAMES)
def test_the_transcript_is_a_true_episode(game: type[GameEnv]) -> None:
    name = game.__name__.removesuffix("Env")
    found = re.search(
        rf"### {name}\n\nTest task (\d+), played by the oracle:\n\n```text\n(.*?)\n```",
        README,
        re.S,
    )
    assert found is not None
    env = game(render_mode="ansi")
    run_episode(env, oracle_action, seed=0, options={"split": "test", "index": int(found[1])})
    assert found[2] == f"{env.render()}\n[reward] {env.episode.episode_return}"


def test_every_tool_and_id_is_listed() -> None:
    listed = re.findall(r"^\| (\w+) \| `(\w+)\(", README, re.MULTILINE)
    tools = {
        (game.__name__.removesuffix("Env"), schema["function"]["name"])
        for game in GAMES
        for schema in game().tool_schemas()
    }
    assert set(listed) == tools
    for game in GAMES:
        id = f"treegrpo/{game.__name__.removesuffix('Env')}-v0"
        assert f"`{id}`" in README
        assert isinstance(make(id).unwrapped, game)


def test_the_tables_show_the_code_s_numbers() -> None:
    rooms, fields = sokoban.LEVELS, minesweeper.LEVELS
    words, lakes = word_guess.LEVELS, frozen_lake.LEVELS
    for level in (1, 2, 3, 4, 5):
        size, _, boxes, (low, high) = rooms[level]
        assert f"| {level} | {size} x {size} | {boxes} | {low}, {high} |" in README
        size, mines, steps, _ = fields[level]
        assert f"| {level} | {size} x {size} | {mines} | {steps} |" in README
        assert "| {} | {} | {} | {} |".format(level, *mastermind.LEVELS[level]) in README
        length, given, guesses = words[level]
        count = len(WORDS[length])
        assert f"| {level} | {length} | {count} | {given} | {guesses} |" in README
        size, _, _, slip, careless, moves = lakes[level]
        assert f"| {level} | {size} x {size} | {slip} | {moves} | {careless} |" in README
    for game in GAMES:
        name, turns = game.__name__.removesuffix("Env"), game().max_turns
        assert re.search(rf"^\| {name} \| {turns}( \||; {sokoban.FILE_MOVES})", README, re.M)
