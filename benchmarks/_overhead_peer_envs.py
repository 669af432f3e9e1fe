"""The environments of other gyms that env_overhead plays, driven as their users would.

Runs in the peer's own venv: imports nothing of ours, and each peer only where it is played.
"""

from __future__ import annotations

import asyncio
import copy
import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

Given = dict[str, Any]
"""The games that are played on both sides, and a folder for files."""

Moment = tuple[str, float, bool]
"""What a step gave: observation, reward, whether the episode has ended."""

SEED = 0


@dataclass(frozen=True)
class Entry:
    """One environment of a peer, and how it is driven.

    make: returns a new episode, seeded with SEED.
    step: takes one action.
    actions: what is played, over and over.
    copy: how an episode is copied where the peer has no snapshot of its own.
    """

    make: Callable[[], Any]
    step: Callable[[Any, Any], Moment]
    actions: Sequence[Any]
    copy: Callable[[Any], Any] = copy.deepcopy


Entries = dict[str, Callable[[Given], Entry]]

# -------------------------------------------------------------------------------------- gem-llm


def _gem_made(name: str, change: Callable[[Any], None] | None = None, **options: Any) -> Any:
    def make() -> Any:
        env: Any = import_module("gem").make(name, **options)
        env.reset(seed=SEED)
        if change is not None:
            change(env)
        return env

    return make


def _gem_step(env: Any, action: str) -> Moment:
    text, reward, terminated, truncated, info = env.step(action)
    # The board of a game stands in the suffix, which the prompt of the next turn ends with.
    return f"{text}\n{info.get('suffix', '')}", float(reward), bool(terminated or truncated)


def _gem_mastermind(given: Given) -> Entry:
    game = given["mastermind"]
    options = {"num_numbers": 6, "max_turns": 20}
    make = _gem_made(
        "game:Mastermind-v0-hard",
        lambda env: setattr(env, "game_code", list(game["secret"])),
        **options,
    )
    return Entry(make, _gem_step, game["actions"])


def _gem_sokoban(given: Given) -> Entry:
    game = given["sokoban"]
    make = _gem_made("game:Sokoban-v0-easy", lambda env: _set_room(env, game), max_turns=100)
    return Entry(_once(make), _gem_step, game["actions"])


def _gem_minesweeper(given: Given) -> Entry:
    cells = [f"\\boxed{{reveal {cell // 8} {cell % 8}}}" for cell in _scattered(64)]
    return Entry(_gem_made("game:Minesweeper-v0-hard"), _gem_step, cells)


def _gem_python(given: Given) -> Entry:
    wrapper = import_module("gem.tools.tool_env_wrapper").ToolEnvWrapper
    tool = import_module("gem.tools.python_code_tool").PythonCodeTool

    def make() -> Any:
        env = wrapper(import_module("gem").make("rg:leg_counting"), [tool()])
        env.reset(seed=SEED)
        return env

    calls = [f"<python>print({number} + 1)</python>" for number in range(2)]
    return Entry(make, _gem_step, [*calls, "\\boxed{3}"])


# ------------------------------------------------------------------------------------ textarena


def _arena_made(name: str, change: Callable[[Any], None] | None = None, **options: Any) -> Any:
    def make() -> Any:
        env: Any = import_module("textarena").make(name, **options)
        env.reset(num_players=1, seed=SEED)
        env.get_observation()
        if change is not None:
            change(_innermost(env))
        return env

    return make


def _arena_step(env: Any, action: str) -> Moment:
    done, _ = env.step(action)
    _, text = env.get_observation()
    rewards: Any = env.state.rewards
    return str(text), float(rewards[0]) if done else 0.0, bool(done)


def _arena_mastermind(given: Given) -> Entry:
    game = given["mastermind"]

    def change(env: Any) -> None:
        env.state.game_state["secret_code"] = list(game["secret"])

    return Entry(_arena_made("Mastermind-v0", change), _arena_step, game["actions"])


def _arena_sokoban(given: Given) -> Entry:
    game = given["sokoban"]
    make = _arena_made("Sokoban-v0", lambda env: _set_room(env, game), max_turns=100)
    return Entry(_once(make), _arena_step, game["actions"])


def _arena_minesweeper(given: Given) -> Entry:
    cells = [f"[{cell // 8} {cell % 8}]" for cell in _scattered(64)]
    return Entry(_arena_made("Minesweeper-v0"), _arena_step, cells)


def _arena_lake(given: Given) -> Entry:
    moves = ["[right]", "[left]"] * 10
    return Entry(_arena_made("FrozenLake-v0"), _arena_step, moves)


def _set_room(env: Any, game: Given) -> None:
    """Put the given level in the place of the drawn one."""
    numpy: Any = import_module("numpy")
    env.room_fixed = numpy.array(game["fixed"])
    env.room_state = numpy.array(game["state"])
    env.player_position = numpy.argwhere(env.room_state == 5)[0]
    env.num_boxes = game["boxes"]


def _once(make: Callable[[], Any]) -> Callable[[], Any]:
    """Return a `make` that copies one episode: to draw a room takes longer than to play it."""
    made = make()
    return lambda: copy.deepcopy(made)


def _innermost(env: Any) -> Any:
    while "env" in vars(env):
        env = env.env
    return env


def _scattered(count: int) -> list[int]:
    """Return the numbers below `count`, a power of 2, in a fixed order that jumps about."""
    return [(number * 37 + 11) % count for number in range(count)]


# ------------------------------------------------------------------------------------ skyrl-gym


def _skyrl_step(env: Any, action: str) -> Moment:
    out = env.step(action)
    text = "\n".join(message["content"] for message in out["observations"])
    return text, float(out["reward"]), bool(out["done"])


def _skyrl_sql(given: Given) -> Entry:
    folder = Path(given["folder"])
    file = folder / "spider" / "database" / "shop" / "shop.sqlite"
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        base = sqlite3.connect(file)
        base.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, price REAL)")
        rows = [(number, f"item {number}", number / 4) for number in range(200)]
        base.executemany("INSERT INTO items VALUES (?, ?, ?)", rows)
        base.commit()
        base.close()
    env_class = import_module("skyrl_gym.envs.sql.env").SQLEnv
    config = import_module("skyrl_gym.envs.sql.env").Text2SQLEnvConfig(db_path=str(folder))
    truth = "SELECT name FROM items WHERE price > 40"
    extras = {
        "db_id": "shop",
        "data": "spider",
        "reward_spec": {"ground_truth": truth},
        "max_turns": 6,
    }
    queries = [truth.replace("40", str(price)) for price in (10, 20, 30, 40)]
    actions = [f"<think>try</think><sql>{query}</sql>" for query in queries]
    actions.append(f"<think>done</think><solution>{truth}</solution>")
    return Entry(lambda: env_class(config, extras), _skyrl_step, actions)


def _skyrl_gsm8k(given: Given) -> Entry:
    env_class = import_module("skyrl_gym.envs.gsm8k.multi_turn_env").GSM8kMultiTurnEnv
    extras = {"reward_spec": {"ground_truth": "18"}, "max_turns": 5}
    actions = [f"Let me see. #### {number}" for number in (3, 9, 12, 18)]
    return Entry(lambda: env_class(None, extras), _skyrl_step, actions)


# ------------------------------------------------------------------------------------ verifiers


@dataclass
class _Rollout:
    """The state of one rollout, and the messages that the model sees next."""

    env: Any
    state: Any
    prompt: Any


def _verifiers_mastermind(given: Given) -> Entry:
    """Return Mastermind written for StatefulToolEnv: what ships needs downloads."""
    game = given["mastermind"]
    env = _mastermind_tool_env(list(game["secret"]))
    types = import_module("verifiers.types")
    client = _scripted_client()

    def make() -> _Rollout:
        row = {"prompt": [{"role": "user", "content": "Find the code."}], "example_id": 0}
        state = _run(env.init_state(row, client, "scripted"))
        _run(env.setup_state(state))
        return _Rollout(env, state, _run(env.get_prompt_messages(state)))

    def response(text: str, guess: list[int]) -> Any:
        arguments = json.dumps({"code": " ".join(map(str, guess))})
        call = types.ToolCall(id="1", name="guess", arguments=arguments)
        message = types.ResponseMessage(
            content=text, tool_calls=[call], finish_reason="tool_calls", is_truncated=False
        )
        return types.Response(id="1", created=0, model="scripted", message=message)

    pairs = zip(game["actions"], game["guesses"], strict=True)
    actions = [response(text, guess) for text, guess in pairs]
    return Entry(make, _verifiers_step, actions, _copy_rollout)


def _verifiers_step(rollout: _Rollout, action: Any) -> Moment:
    return _run(_verifiers_turn(rollout, action))


async def _verifiers_turn(rollout: _Rollout, response: Any) -> Moment:
    """Return what the environment's part of a turn gives: all but the model's answer."""
    env, state = rollout.env, rollout.state
    await env.add_model_response(state, rollout.prompt, response)
    rollout.prompt = await env.get_prompt_messages(state)
    done = await env.is_completed(state)
    return str(rollout.prompt[-1].content), float(state["solved"]), bool(done)


def _copy_rollout(rollout: _Rollout) -> _Rollout:
    # The client stands for a server: a copy of the state goes on with the same one.
    memo: dict[int, Any] = {id(rollout.state["client"]): rollout.state["client"]}
    state, prompt = copy.deepcopy((rollout.state, rollout.prompt), memo)
    return _Rollout(rollout.env, state, prompt)


def _mastermind_tool_env(secret: list[int]) -> Any:
    verifiers: Any = import_module("verifiers")
    datasets: Any = import_module("datasets")

    def guess(code: str, state: Any) -> str:
        """Guess the code."""
        said = [int(digit) for digit in code.split()]
        black = sum(one == other for one, other in zip(secret, said, strict=True))
        common = sum(min(secret.count(d), said.count(d)) for d in set(said))
        state["guesses"].append(said)
        state["solved"] = said == secret
        return f"{black} black peg(s), {common - black} white peg(s)"

    class Mastermind(verifiers.StatefulToolEnv):
        async def setup_state(self, state: Any) -> Any:
            state["guesses"], state["solved"] = [], False
            return state

        def update_tool_args(
            self, tool_name: str, tool_args: Any, messages: Any, state: Any, **_: Any
        ) -> Any:
            return {**tool_args, "state": state}

        @verifiers.stop
        async def found(self, state: Any) -> bool:
            return bool(state["solved"])

    rows = datasets.Dataset.from_list([{"question": "Find the code.", "answer": "none"}])
    env = Mastermind(tools=[], max_turns=20, dataset=rows)
    env.add_tool(guess, args_to_skip=["state"])
    return env


def _scripted_client() -> Any:
    """Return a client that is never asked: the driver gives the answers itself."""
    base: Any = import_module("verifiers.clients").Client
    named = {name: _never for name in base.__abstractmethods__}
    return type("Scripted", (base,), named)(object())


async def _never(*_: Any, **__: Any) -> Any:
    raise RuntimeError("the scripted client was asked for an answer")


_runner = asyncio.Runner()


def _run(coroutine: Any) -> Any:
    """Return a coroutine's result, in one event loop that stays."""
    return _runner.run(coroutine)


# ------------------------------------------------------------------------- ---- the peers

PEERS: dict[str, tuple[str, Entries]] = {
    "gem_llm": (
        "gem-llm",
        {
            "Mastermind": _gem_mastermind,
            "Minesweeper": _gem_minesweeper,
            "Sokoban": _gem_sokoban,
            "PythonTool": _gem_python,
        },
    ),
    "textarena": (
        "textarena",
        {
            "FrozenLake": _arena_lake,
            "Mastermind": _arena_mastermind,
            "Minesweeper": _arena_minesweeper,
            "Sokoban": _arena_sokoban,
        },
    ),
    "skyrl_gym": ("skyrl-gym", {"Text2SQL": _skyrl_sql, "GSM8kMultiTurn": _skyrl_gsm8k}),
    "verifiers": ("verifiers", {"Mastermind": _verifiers_mastermind}),
}
