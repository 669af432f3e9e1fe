"""An agent of the user's own: a class or a function that is named as "module:name".

    def act(messages, tools):                       # mine.py, evaluated as --agent mine:act
        last = messages[-1]["content"]
        return '<tool_call>{"name": "guess", "arguments": {"number": 7}}</tool_call>'

A function gets the whole conversation and the tools' schemas, and returns the next action. A
class may have such a method `act`, or follow the protocol of agents/base.py, which a method
`finish` tells. Options go to the class when it is made, to a function with every call.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from pydantic import JsonValue

from treegrpo.envs.digest import digest, digest_bytes
from treegrpo.envs.errors import UnknownOption, raised_at
from treegrpo.leaderboards.agents.base import Acted, Agent, EpisodeView

_PROTOCOL = ("name", "digest", "settings", "act", "finish")
_CONVERSATION = 2
"""How many arguments a simple `act` takes: messages and tools."""


class FunctionAgent:
    """Asks a function of (messages, tools) for each action; it keeps nothing itself."""

    def __init__(
        self,
        act: Callable[[list[Any], list[Any]], Any],
        *,
        name: str,
        digest: str,
        settings: Mapping[str, JsonValue],
    ) -> None:
        """Keep the function; `digest` names its source."""
        self.name, self.digest, self.settings = name, digest, settings
        self._act = act

    def act(self, episodes: Sequence[EpisodeView]) -> list[Acted]:
        """Return an action per episode; a function that raises fails that episode alone."""
        found: list[Acted] = []
        for view in episodes:
            try:
                found.append(self._act(list(view.env.messages), view.env.tool_schemas()))
            except Exception as error:  # noqa: BLE001 - the boundary: a crash is data
                found.append(error)
        return found

    def finish(self, key: str) -> None:
        """Nothing was counted."""


def load_agent(place: str, options: Mapping[str, Any]) -> Agent:
    """Return the agent at "module:name", made with `options`.

    Its digest covers the file that defines it, and the options; not what that file imports.

    Raises:
        UnknownOption: no such module or name, or options that it does not take.
    """
    found = load(place, what="Agent")
    settings = dict(options)
    identity = digest([place, source_digest(found), settings])
    if inspect.isclass(found):
        check_options(found, options, what=f"Agent '{place}'")
        made: Any = found(**options)
        if hasattr(made, "finish"):
            return _followed(made, place)
        act, name = getattr(made, "act", None), str(getattr(made, "name", place))
    else:
        act, name = (partial(found, **options) if options else found), place
    if not callable(act) or not _takes(act, [None] * _CONVERSATION):
        raise UnknownOption(
            f"Agent '{place}' asked for, but it is no agent. Give a function act(messages, tools), "
            "a class with such a method, or a class that follows the protocol of an agent."
        )
    return FunctionAgent(act, name=name, digest=identity, settings=settings)


def load(place: str, *, what: str) -> Any:
    """Return what "module:name" names.

    Raises:
        UnknownOption: no such spelling, module or name.
    """
    module, colon, name = place.partition(":")
    if not (module and colon and name):
        raise UnknownOption(f"{what} '{place}' asked for; write it as module:name.")
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise UnknownOption(
            f"{what} '{place}' asked for, but there is no module '{error.name}'. Check the "
            "spelling, or put its folder on the path: PYTHONPATH=. treegrpo ..."
        ) from None
    except AttributeError as error:
        fault = f"has no '{name}'" if name in str(error) else f"raised {error!r}"
        raise UnknownOption(
            f"{what} '{place}' asked for, but module '{module}' {fault}."
        ) from error
    except Exception as error:  # a user's module may raise anything
        raise UnknownOption(
            f"{what} '{place}' asked for; importing its module raised {type(error).__name__} at "
            f"{raised_at(error)}: {error}. Correct it there."
        ) from error


def check_options(
    made: Callable[..., object], options: Mapping[str, Any], *, what: str, given: int = 0
) -> None:
    """Refuse options that a class or function does not take.

    Args:
        made: what is called with them.
        options: by name.
        what: what the user asked for.
        given: how many arguments it gets besides.

    Raises:
        UnknownOption: names what it takes.
    """
    if not _takes(made, [None] * given, **options):
        taken = list(inspect.signature(made).parameters.values())[given:]
        raise UnknownOption(
            f"{what} asked for with {', '.join(options) or 'no options'}; it takes "
            f"({', '.join(map(str, taken))}). Give those by --agent-arg."
        )


def source_digest(found: object) -> str:
    """Return a digest of the file that defines a class or a function; of its name without one."""
    try:
        return digest_bytes(Path(inspect.getfile(cast("Any", found))).read_bytes())
    except (TypeError, OSError):
        return digest(repr(type(found)))


def _followed(made: Any, place: str) -> Agent:
    missing = [name for name in _PROTOCOL if not hasattr(made, name)]
    if missing:
        raise UnknownOption(
            f"Agent '{place}' asked for; it has finish(), as the protocol of an agent asks, but "
            f"no {', '.join(missing)}. Add them, or leave finish() out."
        )
    return made


def _takes(called: Callable[..., object], given: Sequence[Any], **options: Any) -> bool:
    try:
        inspect.signature(called).bind(*given, **options)
    except (TypeError, ValueError):
        return False
    return True
