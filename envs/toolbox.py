"""The tools of one environment and the format that spells their calls.

From an action's text to calls, from a call to its reply. Nothing that an agent writes raises.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from treegrpo.envs.errors import SandboxFailed, UnknownOption, suggest
from treegrpo.envs.formats import Parsed, ToolCall, get_format
from treegrpo.envs.spaces import random_words
from treegrpo.envs.tools import BadArguments, collect_tools

CallError = Literal["unknown_tool", "bad_arguments", "tool_error"]
MAX_FAULTS = 3
"""How many faults of one action are told to the agent; the rest are as good as said."""


class Toolbox:
    """What an environment class offers to an agent, in one action format."""

    def __init__(self, owner: type, format: str) -> None:
        """Collect the @tool methods of `owner`; `format` is a name in formats.FORMATS."""
        self.tools = collect_tools(owner)
        self.format = get_format(format)

    def parse(self, action: str, max_chars: int) -> Parsed:
        """Return the calls of an action, or at least one fault; none of one that is too long."""
        if len(action) > max_chars:
            return Parsed((), (_too_long(action, max_chars),))
        parsed = self.format.parse(action, self.tools)
        if parsed.calls or parsed.errors:
            return Parsed(parsed.calls, parsed.errors[:MAX_FAULTS])
        return Parsed((), (f"No tool call found. {self.format.instructions()}",))

    def cost(self, call: ToolCall) -> int:
        """Return what a call takes from the budget; an unknown tool costs 1."""
        return self.tools[call.name].cost if call.name in self.tools else 1

    def run(self, env: object, call: ToolCall) -> tuple[str, CallError | None]:
        """Return the reply of `env` to a call, and the kind of error, if any.

        Raises:
            SandboxFailed: what the tool works on failed; the agent cannot help it.
        """
        if call.name not in self.tools:
            known = ", ".join(self.tools)
            return f"Unknown tool '{call.name[:100]}'. Tools: {known}.", "unknown_tool"
        try:
            valid = self.tools[call.name].validate(call.arguments)
        except BadArguments as error:
            return f"Bad arguments: {error}", "bad_arguments"
        try:
            return str(getattr(env, call.name)(**valid)), None
        except SandboxFailed:
            raise
        except Exception as error:  # noqa: BLE001 - a tool's failure is the agent's observation
            return f"Tool '{call.name}' failed: {type(error).__name__}: {error}", "tool_error"

    def schemas(self) -> list[dict[str, Any]]:
        """Return the OpenAI-style schemas, in the order of definition."""
        return [tool.schema() for tool in self.tools.values()]

    def encode(self, name: str, arguments: dict[str, Any]) -> str:
        """Return the action text of one call.

        Raises:
            UnknownOption: no such tool.
        """
        if name not in self.tools:
            known = ", ".join(self.tools)
            raise UnknownOption(
                f"Tool '{name}' asked for; known tools: {known}.{suggest(name, self.tools)}"
            )
        return self.format.encode(self.tools[name], arguments)

    def random_action(self, rng: np.random.Generator) -> str:
        """Return a random action: mostly a call with random words, at times junk."""
        if not self.tools or rng.random() < 0.2:
            return random_words(rng)
        tool = list(self.tools.values())[int(rng.integers(len(self.tools)))]
        parameters = tool.schema()["function"]["parameters"]["properties"]
        arguments = {name: _random_value(rng, schema) for name, schema in parameters.items()}
        return self.format.encode(tool, arguments)


def _too_long(action: str, max_chars: int) -> str:
    # The exact number up to where clean_action() cuts, so that a replay says the same.
    most = 2 * max_chars
    found = f"{len(action):,}" if len(action) <= most else f"more than {most:,}"
    return (
        f"The action is too long: found {found} characters, at most {max_chars:,} are read. "
        "Nothing was run. Write a shorter one."
    )


def _random_value(rng: np.random.Generator, schema: dict[str, Any]) -> Any:
    """Return a value of the schema's type where it is a simple one, else words."""
    if "enum" in schema:
        return schema["enum"][int(rng.integers(len(schema["enum"])))]
    match schema.get("type"):
        case "integer":
            return int(rng.integers(-10, 100))
        case "number":
            return float(rng.integers(-10, 100)) / 4
        case "boolean":
            return bool(rng.integers(2))
        case _:
            return random_words(rng)
