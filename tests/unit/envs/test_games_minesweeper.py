"""Minesweeper: opening, flags, mines, and what can be deduced."""

import itertools

import pytest

from treegrpo.envs.suite.games.mines import CLOSED, Field, safe_cells, steps_to_clear
from treegrpo.envs.suite.games.minesweeper import LEVELS, MinesweeperEnv


def start(index: int = 0) -> MinesweeperEnv:
    env = MinesweeperEnv()
    env.reset(seed=0, options={"index": index})
    return env


def call(env: MinesweeperEnv, tool: str, row: object, column: object) -> tuple[str, float]:
    text, reward, *_ = env.step(env.encode_call(tool, row=row, column=column))
    return text, reward


def place(env: MinesweeperEnv, cell: int) -> tuple[int, int]:
    row, column = divmod(cell, env.task.data["field"].width)
    return row + 1, column + 1


def test_numbers_count_and_openings_spread() -> None:
    field = Field(3, 4, frozenset({3, 11}), first=0)
    assert [field.number(cell) for cell in (0, 2, 6, 7)] == [0, 1, 2, 2]
    assert field.around(0) == (1, 4, 5)
    shown = field.begin()
    assert "".join(shown) == "001?002?001?"
    field.open(shown, 7)
    assert "".join(shown) == "001?0022001?"
    assert field.is_clear(shown)


def test_deduction_by_one_number_and_by_two() -> None:
    # 1 1 on the lower row: the mine of the first is one of two, so the third cell is safe.
    field = Field(2, 3, frozenset({0}), first=3)
    shown = [CLOSED, CLOSED, CLOSED, "1", "1", CLOSED]
    assert safe_cells(field, shown, is_simple=True) == []
    assert safe_cells(field, shown) == [2, 5]
    assert safe_cells(field, ["?", "?", "?", "1", "1", "0"], is_simple=True) == [1, 2]
    # The number of all mines counts, too: the one mine stands by the 1.
    far = Field(1, 5, frozenset({1}), first=0)
    assert safe_cells(far, ["1", "?", "?", "?", "?"]) == [2, 3, 4]
    assert safe_cells(far, ["1", "F", "?", "?", "?"], is_simple=True) == [2, 3, 4]


def test_no_cell_is_called_safe_that_could_be_a_mine() -> None:
    """Against every layout of three mines on a small field that shows the same."""
    layouts = [frozenset(mines) for mines in itertools.combinations(range(12), 3)]
    checked = 0
    for mines in layouts[::4]:
        field = Field(3, 4, mines, first=min(set(range(12)) - mines))
        shown = field.begin()
        alike = [
            other
            for other in layouts
            if all(
                cell not in other and Field(3, 4, other, 0).number(cell) == int(sign)
                for cell, sign in enumerate(shown)
                if sign.isdigit()
            )
        ]
        for cell in safe_cells(field, shown):
            assert all(cell not in other for other in alike)
            checked += 1
    assert checked > 20


def test_a_field_that_needs_a_guess_is_told() -> None:
    corner = Field(2, 2, frozenset({0}), first=3)
    assert steps_to_clear(corner, is_simple=False) is None
    assert steps_to_clear(Field(1, 4, frozenset({3}), first=0), is_simple=True) == 0
    assert steps_to_clear(Field(1, 4, frozenset({1}), first=0), is_simple=False) == 2


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_levels_need_what_they_say(level: int) -> None:
    for number in range(2):
        field = MinesweeperEnv().tasks("train")[5 * number + level - 1].data["field"]
        simple = steps_to_clear(field, is_simple=True)
        assert (simple is not None) == LEVELS[level].is_simple
        steps = steps_to_clear(field, is_simple=False)
        assert steps is not None and steps >= LEVELS[level].steps
        assert len(field.mines) == LEVELS[level].mines


def test_a_mine_ends_the_game() -> None:
    env = start()
    text, reward = call(env, "reveal", *place(env, min(env.task.data["field"].mines)))
    assert "*" in text and text.endswith("You lost.")
    assert (reward, env.episode.end_reason, env.episode.terminated) == (0.0, "mine", True)


def test_flags_protect_come_off_and_cost_moves() -> None:
    env = start()
    before, (row, column) = env.state.moves_left, place(env, min(env.task.data["field"].mines))
    text, _ = call(env, "flag", row, column)
    assert "F" in text and text.endswith(f"Moves left: {before - 1}")
    text, _ = call(env, "reveal", row, column)
    assert "has your flag" in text and env.state.moves_left == before - 1
    call(env, "flag", row, column)
    assert "F" not in env.state.shown and env.state.moves_left == before - 2


def test_wrong_flags_are_taken_off_by_the_oracle() -> None:
    env = start()
    cell = safe_cells(env.task.data["field"], env.state.shown)[0]
    call(env, "flag", *place(env, cell))
    assert '"flag"' in env.oracle()
    while not env.episode.ended:
        env.step(env.oracle())
    assert env.episode.end_reason == "won"


def test_flags_alone_use_up_the_moves() -> None:
    env = start()
    place_ = place(env, min(env.task.data["field"].mines))
    while not env.episode.ended:
        call(env, "flag", *place_)
    assert (env.episode.end_reason, env.episode.episode_return) == ("no_moves_left", 0.0)


@pytest.mark.parametrize("row", [0, 6, -1, 10**30, "x", None, 1.5])
def test_bad_cells_cost_no_move(row: object) -> None:
    env = start()
    for tool in ("reveal", "flag"):
        before = env.state.moves_left
        text, reward = call(env, tool, row, 1)
        assert text.startswith(("Tool ", "Bad arguments: row")) and len(text) < 300
        assert (env.state.moves_left, reward) == (before, 0.0)


def test_open_cells_take_neither_tool() -> None:
    env = start()
    first = place(env, env.task.data["field"].first)
    assert "is open." in call(env, "reveal", *first)[0]
    assert "is open; only closed cells take a flag" in call(env, "flag", *first)[0]
