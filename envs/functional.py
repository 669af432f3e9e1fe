"""An environment from functions and rows, for the smallest case: no class to write.

    def area(width: int, height: int) -> str:
        "Multiply two numbers."
        return str(width * height)

    def reward(answer: str | None, task: Task) -> float:
        return float(answer == task.answer)

    Areas = make_tool_env("mine/Areas-v0", tools=[area], tasks=ROWS, reward=reward)

What comes back is a ToolEnv class like any other: registered, checked by the same laws, forked
the same way. Every such environment has one more tool, `answer(text)`, which ends the episode.
"""

from __future__ import annotations

import inspect
import keyword
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from treegrpo.envs.core import Message, ToolEnv
from treegrpo.envs.errors import suggest
from treegrpo.envs.registry import register
from treegrpo.envs.row_tasks import Row, split_tasks
from treegrpo.envs.tasks import Task
from treegrpo.envs.tools import RESERVED, collect_tools, tool, type_hints

ANSWER = "answer"
"""The tool that ends an episode; its text goes to the reward."""
_HIDDEN = ("state", "rng")
"""Parameters of a tool that the environment fills in, and the agent never sees."""
_REWARD_TAKES = ("answer", "state", "transcript", "task")
_ID = re.compile(r"[\w-]+/(?P<name>[^\W\d]\w*)-v\d+", re.ASCII)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value)


def _is_duration(value: object) -> bool:
    return value is None or (_is_finite(value) and cast("float", value) > 0)


_COUNT = (_is_count, "a whole number of at least 1")
_SETTINGS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "system_prompt": (lambda value: isinstance(value, str), "a text"),
    "max_turns": _COUNT,
    "max_tool_calls": _COUNT,
    "max_seconds": (_is_duration, "a number of seconds above 0, or None"),
    "max_observation_chars": _COUNT,
    "max_action_chars": _COUNT,
    "success_threshold": (_is_finite, "a finite number"),
}
"""Setting -> whether a value will do, and what one is."""


def make_tool_env(
    id: str,
    *,
    tools: Sequence[Callable[..., Any]],
    tasks: Sequence[Row] | Mapping[str, Sequence[Row]],
    reward: Callable[..., float | Mapping[str, float]],
    state: Callable[[Task], Any] | None = None,
    oracle: Callable[..., Mapping[str, Any]] | None = None,
    **settings: Any,
) -> type[ToolEnv]:
    """Return a registered environment class; keep it in a variable of the class's name.

    Args:
        id: "namespace/Name-v0"; the class is called Name, and is looked up by that name in the
            module that calls this function.
        tools: typed functions. A parameter named `state` receives the episode's own state, and
            `rng` its generator; the agent sees neither.
        tasks: rows with `question`, and `answer`, `id`, `difficulty` and any other field as they
            like; or such rows per split. Of a plain list, every fifth row (by its content, not
            its place) is for the split "test".
        reward: takes any of `answer` (None if there was none), `state`, `transcript`, `task`.
        state: makes an episode's state: plain data, which forks copy. By default {}.
        oracle: takes any of `task`, `state`, `turn`; returns the expert's next call as
            {"name": tool, "arguments": {...}}.
        settings: system_prompt, max_turns, max_tool_calls, max_seconds, max_observation_chars,
            max_action_chars, success_threshold, as in ToolEnv.

    Raises:
        TypeError, DataFileError: what cannot be used, by name, and what to do about it.
    """
    name, module = _class_name(id), _calling_module()
    _check_settings(id, settings)
    _check_tools(id, tools)
    members = _task_members(split_tasks(tasks, prefix=name)) | settings
    members |= _function_members(reward, state, oracle)
    return _registered(id, module, name, members, tools)


def _registered(
    id: str, module: str, name: str, members: dict[str, Any], tools: Iterable[Callable[..., Any]]
) -> type[ToolEnv]:
    about = f"The environment {id}, made of functions and rows."
    members |= {"__module__": module, "__qualname__": name, "__doc__": about}
    for function in tools:
        method = _method(function, taken=members)
        members[method.__name__] = method
    made = cast("type[ToolEnv]", type(name, (_FunctionEnv,), members))
    collect_tools(made)  # a parameter without a type hint is told here, not at the first episode
    register(id, f"{module}:{name}")
    return made


def _function_members(
    reward: Callable[..., Any],
    state: Callable[[Task], Any] | None,
    oracle: Callable[..., Any] | None,
) -> dict[str, Any]:
    _check_takes(reward, _REWARD_TAKES, "reward")
    if state is not None:
        _check_callable(state, "state")
    members: dict[str, Any] = {"make_state": staticmethod(state or _nothing)}
    members["reward"] = staticmethod(reward)
    if oracle is not None:
        _check_takes(oracle, ("task", "state", "turn"), "oracle")
        members |= {"expert": staticmethod(oracle), "oracle": _FunctionEnv.scripted}
    return members


def _task_members(splits: Mapping[str, Sequence[Task]]) -> dict[str, Any]:
    levels = {task.difficulty for rows in splits.values() for task in rows}
    return {
        "splits": tuple(splits),
        "rows": splits,
        "shared": ("rows",),
        "difficulties": tuple(sorted(levels)),
    }


class _FunctionEnv(ToolEnv):
    """What the classes of make_tool_env have in common."""

    rows: Mapping[str, Sequence[Task]]
    reward: Callable[..., float | Mapping[str, float]]
    make_state: Callable[[Task], Any]
    expert: Callable[..., Mapping[str, Any]]

    def tasks(self, split: str) -> Sequence[Task]:
        """Return the rows of a split."""
        return self.rows[split]

    def setup(self, task: Task, rng: np.random.Generator) -> dict[str, Any]:
        """Return the author's state, and no answer yet."""
        return {ANSWER: None, "state": self.make_state(task)}

    def score(
        self, state: Any, transcript: Sequence[Message], task: Task
    ) -> float | Mapping[str, float]:
        """Return the author's reward."""
        given = {**state, "transcript": transcript, "task": task}
        return self.reward(**_wanted(self.reward, given))

    @tool(effects="write")
    def answer(self, text: str) -> str:
        """Give the final answer; this ends the episode.

        Args:
            text: the answer.
        """
        self.state[ANSWER] = text
        self.finish("answered")
        return "Answer received."

    def scripted(self) -> str:
        """Return the author's expert's next call as an action."""
        given = {"task": self.task, "state": self.state["state"], "turn": self.episode.turns}
        call = self.expert(**_wanted(self.expert, given))
        return self.encode_call(call["name"], **call.get("arguments", {}))


def _calling_module() -> str:
    """Return the name of the module that calls make_tool_env."""
    frame = inspect.currentframe()
    outer = frame.f_back.f_back if frame is not None and frame.f_back is not None else None
    return str(outer.f_globals.get("__name__", "__main__")) if outer is not None else "__main__"


def _class_name(id: str) -> str:
    found = _ID.fullmatch(str(id))
    if found is None or keyword.iskeyword(found["name"]):
        raise TypeError(
            f"Id '{id}' given to make_tool_env; it must read 'namespace/Name-v0', where Name can "
            "be the name of a class. Spell it so."
        )
    return found["name"]


def _nothing(task: Task) -> dict[str, Any]:
    return {}


def _method(function: Callable[..., Any], taken: Mapping[str, Any]) -> Callable[..., Any]:
    """Return a tool method that calls the function; its signature hides `state` and `rng`."""
    name = str(getattr(function, "__name__", type(function).__name__))
    _check_name(name, function, taken)
    signature = inspect.signature(function)
    hidden = [key for key in _HIDDEN if key in signature.parameters]

    def call(self: _FunctionEnv, **arguments: Any) -> Any:
        inside = {"state": self.state["state"], "rng": self.np_random}
        return function(**arguments, **{key: inside[key] for key in hidden})

    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    shown = [p for key, p in signature.parameters.items() if key not in hidden]
    for parameter in shown:
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise TypeError(
                f"Tool '{name}': '{parameter.name}' is positional only. Take the '/' out."
            )
    if not (function.__doc__ or "").strip():
        raise TypeError(
            f"Tool '{name}' has no docstring, and its first paragraph is all that the agent is "
            "told of it. Write one, or a description where it comes from a JSON schema."
        )
    hints = type_hints(function, name)
    method: Any = call
    method.__name__ = method.__qualname__ = name
    method.__doc__ = function.__doc__
    method.__signature__ = signature.replace(parameters=[itself, *shown])
    method.__annotations__ = {key: hint for key, hint in hints.items() if key not in hidden}
    return tool(effects="write" if "state" in hidden else "read")(method)


def _check_name(name: str, function: Callable[..., Any], taken: Mapping[str, Any]) -> None:
    found = f"Tool '{name}'"
    if not name.isidentifier() or name.startswith("_"):
        raise TypeError(f"{found}: a tool needs a plain name. Define it with def name(...).")
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"{found} is a coroutine function; steps are synchronous. Use plain def.")
    if name == ANSWER:
        raise TypeError(f"{found}: every such environment has it, to end an episode. Rename it.")
    if name in RESERVED:
        raise TypeError(f"{found}: it is a control call, out of an agent's reach. Rename it.")
    if name in taken and not hasattr(ToolEnv, name):
        raise TypeError(f"{found} is given twice, or means something in every class. Rename one.")
    if hasattr(_FunctionEnv, name):
        raise TypeError(f"{found}: the name means something in every environment. Rename it.")


def _check_settings(id: str, settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        given = f"'{key}' given to make_tool_env for '{id}'"
        if key not in _SETTINGS:
            raise TypeError(
                f"{given}; it is no setting. Settings are: {', '.join(_SETTINGS)}."
                f"{suggest(key, _SETTINGS)}"
            )
        is_right, what = _SETTINGS[key]
        if not is_right(value):
            raise TypeError(f"{given} as {value!r:.80}; it must be {what}. Correct it.")


def _check_tools(id: str, tools: object) -> None:
    if not isinstance(tools, Sequence) or isinstance(tools, str):
        raise TypeError(
            f"'tools' given to make_tool_env for '{id}' as {tools!r:.80}; it must be a list of "
            "functions. Write tools=[...]."
        )
    if not tools:
        raise TypeError(
            f"'tools' given to make_tool_env for '{id}' as an empty list; without a tool an agent "
            "could only answer. Give at least one function."
        )
    for one in cast("Sequence[object]", tools):
        _check_callable(one, "tool")


def _check_callable(given: object, what: str) -> None:
    if not callable(given):
        raise TypeError(f"The {what} must be a function, found {given!r:.80}. Give one.")


def _check_takes(function: Callable[..., Any], known: Sequence[str], what: str) -> None:
    _check_callable(function, what)
    for key in inspect.signature(function).parameters:
        if key not in known:
            raise TypeError(
                f"The {what} takes '{key}'; it can have: {', '.join(known)}. Rename the parameter."
            )


def _wanted(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    return {key: given[key] for key in inspect.signature(function).parameters}
