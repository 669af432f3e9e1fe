"""FrozenLake: slips, forks and their luck, and the exact chances of the best play."""

import pytest

from treegrpo.envs.suite.games.frozen_lake import LEAST_CHANCE, LEVELS, FrozenLakeEnv
from treegrpo.envs.suite.games.lake import Lake, careless_chance, plan
from treegrpo.envs.tasks import Task


def start(*rows: str, slip: float = 0.5, moves: int = 30) -> FrozenLakeEnv:
    """Return an environment at the start of a lake."""
    task = Task("lake-test", "Cross it.", data={"lake": Lake(rows, slip, moves)})
    env = FrozenLakeEnv()
    env.tasks = lambda split: [task]
    env.reset(seed=3)
    return env


def move(env: FrozenLakeEnv, direction: str) -> tuple[str, float]:
    text, reward, *_ = env.step(env.encode_call("move", direction=direction))
    return text, reward


def test_on_snow_a_move_goes_where_it_should() -> None:
    env = start("---", "--G")
    assert move(env, "left")[0] == "@ - -\n- - G\nMoves left: 29"  # the edge holds
    assert move(env, "right")[0] == "- @ -\n- - G\nMoves left: 28"
    assert move(env, "down")[0] == "- - -\n- @ G\nMoves left: 27"
    assert move(env, "right") == ("- - -\n- - @\nYou won.", 1.0)
    assert env.np_random.random() == start("-G").np_random.random()  # snow draws nothing


def test_a_hole_ends_the_game() -> None:
    env = start("-O", "-G")
    text, reward = move(env, "right")
    assert (text, reward) == ("- @\n- G\nYou lost.", 0.0)
    assert env.episode.end_reason == "fell_into_a_hole"


def test_ice_leads_to_both_sides_about_as_often_as_it_says() -> None:
    env = start("---", "-~-", "--G", slip=0.4)
    move(env, "right")
    move(env, "down")
    shot, ends = env.snapshot(), []
    for seed in range(400):
        env.restore(shot, seed=seed)
        text, _ = move(env, "right")
        ends.append((env.state.row, env.state.column))
        slipped = (env.state.row, env.state.column) != (1, 2)
        assert text.startswith("You slipped: ") == slipped
    assert set(ends) == {(1, 2), (0, 1), (2, 1)}
    assert 200 < ends.count((1, 2)) < 280
    assert min(ends.count((0, 1)), ends.count((2, 1))) > 50


def test_forks_share_their_luck_unless_they_are_given_seeds() -> None:
    env = start("~~~~", "~~~~", "~~~~", "~~~G", slip=0.6)
    course = ["right", "down", "left", "up"] * 5

    def path(twin: FrozenLakeEnv) -> list[str]:
        return [move(twin, direction)[0] for direction in course if not twin.episode.ended]

    assert path(env.fork()) == path(env.fork())
    assert path(env.fork(seed=1)) == path(env.fork(seed=1))
    assert len({tuple(path(env.fork(seed=seed))) for seed in range(8)}) > 4


def test_chances_are_exact() -> None:
    assert plan(Lake(("-G",), 0.4, 1)).chance == 1.0
    assert plan(Lake(("-~G",), 0.4, 1)).chance == 0.0
    assert plan(Lake(("-~G",), 0.4, 2)).chance == pytest.approx(0.6)
    assert plan(Lake(("-~G",), 0.4, 3)).chance == pytest.approx(0.6 + 0.4 * 0.6)
    # A slip up goes back to the start, a slip down stays on the ice.
    for moves, chance in {1: 0.0, 2: 0.6, 3: 0.72, 4: 0.864}.items():
        lake = Lake(("-O", "~G"), 0.4, moves)
        assert plan(lake).chance == pytest.approx(chance)
        assert careless_chance(lake) == pytest.approx(chance)


def test_the_best_play_goes_around_where_haste_falls() -> None:
    rows = ("-~-", "-O-", "---", "--G")
    lake = Lake(rows, 0.5, 12)
    assert plan(lake).chance == 1.0
    assert plan(lake).direction(0, 0, 12) == "down"
    hasty = Lake(("-~-", "OOG"), 0.5, 12)
    assert plan(hasty).direction(0, 0, 12) == "right"


def test_of_equal_moves_the_oracle_takes_the_shorter() -> None:
    env = start("----", "----", "---G")
    while not env.episode.ended:
        env.step(env.oracle())
    assert (env.episode.turns, env.episode.end_reason) == (5, "won")


def test_the_oracle_s_success_is_the_chance_it_states() -> None:
    env = start("-~~~", "-O~~", "-~OG", slip=0.5, moves=9)
    shot, wins = env.snapshot(), 0
    for seed in range(150):
        env.restore(shot, seed=seed)
        while not env.episode.ended:
            env.step(env.oracle())
        wins += env.episode.end_reason == "won"
    assert wins / 150 == pytest.approx(plan(env.task.data["lake"]).chance, abs=0.12)


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_lakes_reward_care(level: int) -> None:
    for number in range(2):
        lake = FrozenLakeEnv().tasks("train")[5 * number + level - 1].data["lake"]
        assert plan(lake).chance >= LEAST_CHANCE
        assert 0 < careless_chance(lake) <= LEVELS[level].careless
        assert (lake.slip, lake.moves) == (LEVELS[level].slip, LEVELS[level].moves)


def test_a_lake_without_a_way_is_refused() -> None:
    lake = Lake(("-O", "OG"), 0.5, 9)
    assert (careless_chance(lake), plan(lake).chance) == (0.0, 0.0)


@pytest.mark.parametrize("direction", ["diagonal", "UP", "", 0, None, "right\n", "\x00"])
def test_a_bad_direction_costs_no_move(direction: object) -> None:
    env = start("-~", "-G")
    before = env.state.moves_left
    _, _, _, _, info = env.step(env.encode_call("move", direction=direction))
    assert (info["errors"], env.state.moves_left) == (["bad_arguments"], before)
