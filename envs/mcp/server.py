"""An environment served over MCP for one episode: its tools, and nothing else.

    episode = ServedEpisode("treegrpo/SQL-v0", seed=3)
    serve_stdio(episode)             # until the client leaves
    write_log(path, episode.events)

The client sees the tools, and the task as the server's instructions and as the prompt "task".
It cannot reset, step back, take snapshots or ask for the score: no such call is listed, and no
tool can have such a name. Each call is one turn; after the end every call is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from treegrpo.envs import registry
from treegrpo.envs.mcp.extra import require_mcp
from treegrpo.envs.recorder import Event, Recorder
from treegrpo.envs.snapshot import core_of
from treegrpo.envs.tools import collect_tools

if TYPE_CHECKING:
    from mcp.server import Server

PROMPT = "task"


class ServedEpisode:
    """One episode that is played by calls, and its action log."""

    def __init__(
        self,
        env_id: str,
        *,
        seed: int = 0,
        options: Mapping[str, Any] | None = None,
        env_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Begin the episode; `options` are those of reset(), `env_kwargs` those of make()."""
        env = registry.make(env_id, **dict(env_kwargs or {}))
        self.core, self.env_id = core_of(env), env_id
        self._recorder = Recorder(env)
        self.task, _ = self._recorder.reset(seed=seed, options=options)

    @property
    def events(self) -> list[Event]:
        """The action log so far."""
        return list(self._recorder.events)

    @property
    def summary(self) -> str:
        """One line on how it went; it is for whoever serves, not for the client."""
        episode = self.core.episode
        end = episode.end_reason or "not ended"
        return (
            f"{self.env_id}, task {episode.task.id}: {end} after {episode.turns} turns, return "
            f"{episode.episode_return:g}"
        )

    def tools(self) -> list[dict[str, Any]]:
        """Return the tools as MCP lists them."""
        own = collect_tools(type(self.core))
        listed: list[dict[str, Any]] = []
        for schema in self.core.tool_schemas():
            function = schema["function"]
            described: dict[str, Any] = {
                "name": function["name"],
                "description": function["description"],
                "inputSchema": {"type": "object", **function["parameters"]},
            }
            if function["name"] in own:
                reads = own[function["name"]].effects == "read"
                described["annotations"] = {"readOnlyHint": reads}
            listed.append(described)
        return listed

    def call(self, name: str, arguments: Mapping[str, Any]) -> tuple[str, bool]:
        """Return what a call gives as the agent sees it, and whether it is an error.

        Raises:
            SandboxFailed, GraderFailed: not the client's fault.
        """
        if self.core.episode.ended:
            return "The episode has ended; no call is taken any more.", True
        names = [tool["name"] for tool in self.tools()]
        if name not in names:
            return f"Unknown tool {name[:100]!r}. Tools: {', '.join(names)}.", True
        text, _, terminated, truncated, info = self._recorder.step(
            self.core.encode_call(name, **dict(arguments))
        )
        over = "\nThe episode has ended." if terminated or truncated else ""
        return text + over, bool(info["errors"])


def make_server(episode: ServedEpisode) -> Server[Any]:
    """Return an MCP server that offers the episode's tools and its task.

    Raises:
        TreegrpoError: the package `mcp` is missing.
    """
    require_mcp()
    from mcp import types
    from mcp.server import Server

    async def list_tools(ctx: Any, params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(
            tools=[types.Tool.model_validate(tool) for tool in episode.tools()]
        )

    async def call_tool(ctx: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        # One client, one episode: calls are taken in turn, on the loop's own thread.
        text, failed = episode.call(params.name, params.arguments or {})
        return types.CallToolResult(
            content=[types.TextContent(type="text", text=text)], is_error=failed
        )

    async def list_prompts(ctx: Any, params: Any) -> types.ListPromptsResult:
        prompt = types.Prompt(name=PROMPT, description="What is to be done.")
        return types.ListPromptsResult(prompts=[prompt])

    async def get_prompt(ctx: Any, params: types.GetPromptRequestParams) -> types.GetPromptResult:
        if params.name != PROMPT:
            raise ValueError(f"Prompt {params.name[:100]!r} asked for; there is '{PROMPT}'.")
        content = types.TextContent(type="text", text=episode.task)
        return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=content)])

    return Server(
        episode.env_id,
        instructions=episode.task,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
    )


def serve_stdio(episode: ServedEpisode) -> None:
    """Serve the episode over standard input and output, until the client leaves."""
    server = make_server(episode)
    from mcp.server.stdio import stdio_server

    async def serve() -> None:
        async with stdio_server() as (reading, writing):
            await server.run(reading, writing, server.create_initialization_options())

    asyncio.run(serve())
