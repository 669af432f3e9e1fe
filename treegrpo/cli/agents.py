"""Which agent --agent names.

oracle | random | null      the scripted ones
DIR                         a local Hugging Face model
openai:MODEL                any endpoint that speaks OpenAI's chat completions, at --base-url
module:name                 a class or a function of your own
search:AGENT                best-first search over forks around any of these
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ValidationError

from treegrpo.envs.errors import TreegrpoError, UnknownOption, suggest
from treegrpo.leaderboards.agents import SCRIPTED, Agent, scripted_agent
from treegrpo.leaderboards.agents.prices import PriceTable, read_prices
from treegrpo.leaderboards.agents.python_class import check_options, load, load_agent
from treegrpo.leaderboards.agents.search import SearchAgent
from treegrpo.leaderboards.errors import first_fault

FolderAgent = Callable[..., Agent]
"""Makes an agent of a model folder and options; it is the one part that needs torch."""

CHAT, SEARCH = "openai:", "search:"
_SEARCH_OPTIONS = ("expand", "expansions", "value")
M = TypeVar("M", bound=BaseModel)
_SECRET = re.compile(
    r"(^|[^a-z0-9])(key|apikey|secret|password|token|authorization|bearer|credentials?)$"
)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
"""Where a word begins in a name such as apiKey."""


@dataclass(frozen=True)
class Wanted:
    """What the command line says of the agent; the last five are about an endpoint."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    base_url: str | None = None
    key_env: str | None = None
    prices: Path | None = None
    retries: int | None = None
    requests_per_minute: float | None = None


@dataclass(frozen=True)
class Found:
    """The agent, the id of the price table its dollars come from, and what to tell the user."""

    agent: Agent
    prices: str | None = None
    note: str | None = None


def find_agent(wanted: Wanted, folder_agent: FolderAgent) -> Found:
    """Return the agent that the command line names.

    Raises:
        TreegrpoError: no such agent, or an option without effect on it.
    """
    without_secrets("--agent-arg", wanted.options)
    name = wanted.name
    if name.startswith(SEARCH):
        return _search(wanted, folder_agent)
    if name.startswith(CHAT):
        return _chat(wanted)
    for option in ("base_url", "key_env", "prices", "retries", "requests_per_minute"):
        if getattr(wanted, option) is not None:
            raise TreegrpoError(
                f"--{option.replace('_', '-')} asked for, but it says nothing to agent '{name}'. "
                f"It is for {CHAT}MODEL; leave it out."
            )
    if name in SCRIPTED:
        _refuse_options(wanted)
        return Found(scripted_agent(name))
    if Path(name).is_dir():
        check_options(folder_agent, wanted.options, what=f"Agent '{name}'", given=1)
        return Found(folder_agent(Path(name), **wanted.options))
    if ":" in name:
        return Found(load_agent(name, wanted.options))
    raise UnknownOption(
        f"Agent '{name}' asked for, which is neither one of {', '.join(SCRIPTED)} nor a folder."
        f"{suggest(name, SCRIPTED)} Give one of the names, the folder of a model, {CHAT}MODEL, "
        f"module:name, or {SEARCH}AGENT."
    )


def without_secrets(option: str, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the values, none of which is named like a key or a password, however deep it lies.

    Args:
        option: what the user wrote the values after, such as "--env-arg".
        values: by name; their own values may be JSON objects and lists.

    Raises:
        TreegrpoError: names it, without its value.
    """
    words = ((path, _HUMP.sub("_", path[-1]).lower()) for path in _names(values))
    secret = next((path for path, name in words if _SECRET.search(name)), None)
    if secret is not None:
        raise TreegrpoError(
            f"{option} {secret[0]}=... asked for, found {'.'.join(secret)!a} in it, but "
            "options stand in the bundle for everybody to read. Put secrets into an environment "
            "variable."
        )
    return values


def _names(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path to every name in JSON data."""
    if isinstance(value, Mapping):
        for name, inner in cast("Mapping[str, Any]", value).items():
            below = (*path, name)
            yield below
            yield from _names(inner, below)
    elif isinstance(value, list):
        for inner in cast("list[Any]", value):
            yield from _names(inner, path)


def _search(wanted: Wanted, folder_agent: FolderAgent) -> Found:
    own = {name: v for name, v in wanted.options.items() if name in _SEARCH_OPTIONS}
    rest = {name: v for name, v in wanted.options.items() if name not in _SEARCH_OPTIONS}
    if "value" in own:
        own["value"] = load(str(own["value"]), what="Value")
        if not callable(own["value"]):
            raise TreegrpoError(
                f"--agent-arg value={wanted.options['value']} asked for, which is no function. "
                "Give one that takes an environment and returns a number."
            )
    inner = replace(wanted, name=wanted.name.removeprefix(SEARCH), options=rest)
    base = find_agent(inner, folder_agent)
    return Found(SearchAgent(base.agent, **own), base.prices, base.note)


def _chat(wanted: Wanted) -> Found:
    # httpx and its certificates, only when an endpoint is named
    from treegrpo.leaderboards.agents.chat import ChatAgent, ChatSettings
    from treegrpo.leaderboards.agents.endpoint import Endpoint
    from treegrpo.leaderboards.agents.reach import Reach

    model = wanted.name.removeprefix(CHAT)
    if not model or wanted.base_url is None:
        raise TreegrpoError(
            f"Agent '{wanted.name}' asked for without a "
            f"{'--base-url' if model else 'model'}. Write --agent {CHAT}MODEL --base-url "
            "http://127.0.0.1:8000/v1, with --key-env NAME where the endpoint wants a key."
        )
    table = None if wanted.prices is None else read_prices(wanted.prices)
    prices = None if table is None else table.models.get(model)
    reaching = {"retries": wanted.retries, "requests_per_minute": wanted.requests_per_minute}
    given = dict(wanted.options) | {n: v for n, v in reaching.items() if v is not None}
    of_reach = {name: value for name, value in given.items() if name in Reach.model_fields}
    of_chat = {name: value for name, value in given.items() if name not in Reach.model_fields}
    known = [*ChatSettings.model_fields, *Reach.model_fields]
    settings = _checked(ChatSettings, of_chat, known)
    endpoint = Endpoint(wanted.base_url, _key(wanted.key_env), _checked(Reach, of_reach, known))
    agent = ChatAgent(model, endpoint, settings, prices=prices)
    if table is None or prices is not None:
        return Found(agent, None if table is None else table.id)
    return Found(agent, note=_no_price(model, table))


def _no_price(model: str, table: PriceTable) -> str:
    return (
        f"No price of '{model}' in {table.id}{suggest(model, table.models)}: dollars stay "
        "uncounted, which is not 0."
    )


def _key(name: str | None) -> str | None:
    if name is None:
        return None
    if name not in os.environ:
        raise TreegrpoError(
            f"--key-env {name} asked for, but there is no such environment variable. Set it to "
            "the key; leave --key-env out where the endpoint wants none."
        )
    return os.environ[name].strip()


def _checked(model: type[M], fields: Mapping[str, Any], known: Sequence[str]) -> M:
    try:
        return model.model_validate(dict(fields))
    except ValidationError as error:
        unknown = next((name for name in fields if name not in known), "")
        raise TreegrpoError(
            f"--agent-arg asked for, but {first_fault(error)}.{suggest(unknown, known)} Options "
            f"of {CHAT}MODEL: {', '.join(known)}."
        ) from None


def _refuse_options(wanted: Wanted) -> None:
    if wanted.options:
        raise UnknownOption(
            f"--agent-arg {', '.join(wanted.options)} asked for, but agent '{wanted.name}' has no "
            "options. Leave it out."
        )
