"""Sokoban: pushing, dead ends, the search, and levels from files."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from treegrpo.envs.errors import DataFileError
from treegrpo.envs.suite.games import sokoban, xsb
from treegrpo.envs.suite.games.base import STEPS, Direction
from treegrpo.envs.suite.games.rooms import Room, draw_room, pull_apart, solve
from treegrpo.envs.suite.games.sokoban import LEVELS, SokobanEnv
from treegrpo.envs.suite.games.xsb import FileLevel, read_levels

FIXTURE = Path(__file__).parents[2] / "fixtures" / "games" / "rooms.xsb"


def level_of(tmp_path: Path, text: str) -> FileLevel:
    path = tmp_path / "one.xsb"
    path.write_text(text, encoding="utf-8")
    (level,) = read_levels(path)
    return level


def played(level: FileLevel, moves: tuple[Direction, ...]) -> bool:
    """Return whether moves solve a level."""
    boxes, player = level.boxes, level.player
    for direction in moves:
        boxes, player = level.room.move(boxes, player, direction)
    return level.room.goals.issuperset(boxes)


def move(env: SokobanEnv, direction: str) -> str:
    return env.step(env.encode_call("move", direction=direction))[0]


def test_boxes_are_pushed_and_blocked(tmp_path: Path) -> None:
    level = level_of(tmp_path, "#######\n#@$$ .#\n#  .  #\n#######\n")
    room, boxes, player = level.room, level.boxes, level.player
    assert room.move(boxes, player, "right") == (boxes, player)  # two boxes in a row
    assert room.move(boxes, player, "up") == (boxes, player)
    after, stands = room.move(boxes, room.step(player, "down"), "right")
    assert (after, stands) == (boxes, player + room.width + 1)
    after, _ = room.move(boxes, player + room.width + 2, "up")  # a box against the wall
    assert after == boxes
    assert room.rows(boxes, player)[1] == "#@$$-.#"


def test_a_push_is_seen_counted_and_wins() -> None:
    env = SokobanEnv(levels=FIXTURE)
    env.reset(seed=0, options={"index": 0})
    assert move(env, "left") == "Blocked.\n# # # # #\n# @ $ . #\n# # # # #\nMoves left: 399"
    text, reward, terminated, truncated, info = env.step(env.encode_call("move", direction="right"))
    assert text == "# # # # #\n# - @ * #\n# # # # #\nYou won."
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert (info["end_reason"], info["reward_components"]) == ("won", {"won": 1.0})


def test_moves_run_out() -> None:
    env = SokobanEnv()
    env.reset(seed=0, options={"index": 0})
    moves, total = env.task.data["moves"], 0.0
    assert moves == 2 * len(env.task.data["plan"])
    for _ in range(moves):
        assert not env.episode.ended
        _, reward, *_ = env.step(env.encode_call("move", direction="up"))
        total += reward
    assert (env.episode.end_reason, env.episode.terminated, total) == ("no_moves_left", True, 0.0)


@pytest.mark.parametrize("direction", ["north", "", 3, None, ["up"], "up\x00"])
def test_a_bad_direction_costs_no_move(direction: object) -> None:
    env = SokobanEnv()
    env.reset(seed=0, options={"index": 0})
    _, _, _, _, info = env.step(env.encode_call("move", direction=direction))
    assert info["errors"] == ["bad_arguments"]
    assert env.state.moves_left == env.task.data["moves"]


@pytest.mark.parametrize("difficulty", [1, 2, 3, 4, 5])
def test_the_plan_of_a_level_solves_it(difficulty: int) -> None:
    level, rng, checked = LEVELS[difficulty], np.random.default_rng(difficulty), 0
    while checked < 4:
        room = draw_room(rng, level.size, level.walls, level.boxes)
        start = None if room is None else pull_apart(rng, room, level.pushes[0])
        if room is None or start is None:
            continue
        checked += 1
        assert len(start.boxes) == len(room.goals) == level.boxes
        assert not room.goals & set(start.boxes)
        assert played(FileLevel(room, start.boxes, start.player), start.plan)


def test_a_room_without_a_floor_is_none() -> None:
    rng = np.random.default_rng(0)
    assert draw_room(rng, 4, 1.0, 1) is None
    assert draw_room(rng, 4, 0.9, 2) is None


def test_the_oracle_finds_its_way_back_to_a_solution() -> None:
    env, astray = SokobanEnv(), 0
    for index in range(4):
        env.reset(seed=0, options={"split": "test", "index": index})
        env.state.moves_left = 90
        for direction in STEPS:
            if direction != env.task.data["plan"][0] and is_a_walk(env, direction):
                move(env, direction)
                astray += 1
                break
        while not env.episode.ended:
            env.step(env.oracle())
        assert env.episode.end_reason == "won"
    assert astray >= 2


def is_a_walk(env: SokobanEnv, direction: Direction) -> bool:
    """Return whether a move goes somewhere and pushes nothing."""
    room: Room = env.task.data["room"]
    boxes, player = room.move(env.state.boxes, env.state.player, direction)
    return list(boxes) == env.state.boxes and player != env.state.player


def test_a_box_in_a_corner_is_a_dead_end(tmp_path: Path) -> None:
    path = tmp_path / "corner.xsb"
    path.write_text("#####\n# $ #\n#@ .#\n#   #\n#####\n", encoding="utf-8")
    env = SokobanEnv(levels=path)
    env.reset(seed=0)
    room, state = env.task.data["room"], env.state
    # A box against the upper wall never comes down to the goal in the second row.
    assert solve(room, tuple(state.boxes), state.player) is None
    with pytest.raises(NotImplementedError, match=r"asked for 'level-1-.* 20,000 positions"):
        env.oracle()


def test_in_a_dead_end_the_oracle_plays_on() -> None:
    env = SokobanEnv(levels=FIXTURE)
    env.reset(seed=0, options={"index": 1})
    env.state.boxes[0] = 7 + 4  # the corner in the second row
    assert solve(env.task.data["room"], tuple(env.state.boxes), env.state.player) is None
    assert '"up"' in env.oracle()


def test_the_fixture_is_read_and_solved() -> None:
    levels = read_levels(FIXTURE)
    assert [len(level.boxes) for level in levels] == [1, 2, 2]
    for level in levels:
        moves = solve(level.room, level.boxes, level.player)
        assert moves and played(level, moves)
    second = levels[1].room.rows(levels[1].boxes, levels[1].player)
    assert second == ["#######", "####--#", "#-$--.#", "#@$--.#", "#######"]
    assert levels[2].room.rows(levels[2].boxes, levels[2].player)[1] == "#-+-*-#"


def test_the_oracle_plays_a_file_of_any_split() -> None:
    for split in ("train", "validation", "test"):
        env = SokobanEnv(levels=FIXTURE)
        for index in range(3):
            env.reset(seed=0, options={"split": split, "index": index})
            while not env.episode.ended:
                env.step(env.oracle())
            assert env.episode.end_reason == "won"
    assert SokobanEnv(levels=FIXTURE).max_turns == sokoban.FILE_MOVES


def test_gzip_windows_line_ends_and_a_byte_order_mark(tmp_path: Path) -> None:
    text = FIXTURE.read_text(encoding="utf-8")
    packed, marked = tmp_path / "rooms.xsb.gz", tmp_path / "rooms.txt"
    packed.write_bytes(gzip.compress(text.encode()))
    marked.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert read_levels(packed) == read_levels(marked) == read_levels(FIXTURE)


def test_what_lies_outside_the_walls_becomes_wall(tmp_path: Path) -> None:
    level = level_of(tmp_path, "##########\n#@$.#  * #\n##########\n")
    assert level.room.rows(level.boxes, level.player)[1] == "#@$.######"


BAD = {
    "": "the file is empty",
    "\n \n": "the file is empty",
    "Title\n; nothing\n": "no level found. A level is made of lines that begin with '#'",
    "a\n#####\n#@$x#\n#####\n": "line 3, column 4: sign 'x' found",
    "#####\n#@$\t.#\n#####\n": "line 2, column 4: sign '\\t' found",
    "a\n\n#####\n# $.#\n#####\n": r"lines 3 to 5: 0 men (@ or +). Give the level exactly one",
    "#####\n#@$+#\n#####\n": "2 men",
    "#####\n#@$ #\n#####\n": "boxes ($ or *): 1, goals (. * or +): 0",
    "#####\n#@ ##\n#####\n": "boxes ($ or *): 0, goals (. * or +): 0",
    "####\n#@*#\n####\n": "every box is on a goal. Leave out solved levels",
    "#####\n#@$.\n#####\n": "a way out of the level. Close the walls (#)",
    "# ###\n#@$.#\n#####\n": "a way out of the level",
    "########\n#@$.##$#\n########\n": "a box that the man can never reach",
    "########\n#@$.##.#\n########\n": "a goal that the man can never reach",
    "#" * 41 + "\n#@$." + " " * 36 + "#\n" + "#" * 41: "lines 1 to 3: a level of 3 rows and 41 col",
    "#": "line 1: 0 men",
}


@pytest.mark.parametrize("text", list(BAD))
def test_a_bad_level_is_told_with_its_place(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.xsb"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataFileError) as caught:
        SokobanEnv(levels=path)
    assert str(caught.value).startswith(f"Reading Sokoban levels from '{path}'")
    assert BAD[text] in str(caught.value)


def test_a_bad_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = FIXTURE.read_bytes()
    (tmp_path / "cut.xsb.gz").write_bytes(gzip.compress(text)[:-9])
    (tmp_path / "latin.xsb").write_bytes(b"; rooms\n; caf\xe9\n" + text)
    (tmp_path / "rooms.xsb").write_bytes(text)
    monkeypatch.setattr(xsb, "MAX_BYTES", 2**20)
    (tmp_path / "long.xsb.gz").write_bytes(gzip.compress(b"#" * (2**20 + 1)))
    faults = {
        "cut.xsb.gz": "the gzip data is cut short or damaged",
        "latin.xsb": "line 2: not UTF-8",
        "long.xsb.gz": "more than 1 MiB. Split the file",
        "room.xsb": r"there is no such file. Name one file. Did you mean 'rooms.xsb'\?",
        ".": "this is a folder",
        "none/rooms.xsb": "there is no such file",
    }
    for name, fault in faults.items():
        with pytest.raises(DataFileError, match=fault):
            read_levels(tmp_path / name)
