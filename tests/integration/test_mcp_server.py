"""MCP over real standard streams, both ways, and every law on a server's tools.

The servers: one from the standard library alone, one made with the official package, and
`treegrpo mcp` itself. The clients: ours, and the official package's own.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters, stdio_client

from treegrpo.cli.main import app
from treegrpo.envs import TreegrpoError, check_env_laws, list_envs, register
from treegrpo.envs.baselines import oracle_action, run_episode
from treegrpo.envs.formats import get_format
from treegrpo.envs.mcp.env import McpEnv
from treegrpo.envs.mcp.server import PROMPT, ServedEpisode, make_server
from treegrpo.envs.recorder import StepEvent, read_log, replay
from treegrpo.envs.tools import RESERVED, collect_tools

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "mcp"
TILL = [sys.executable, "-S", str(FIXTURES / "till.py")]
SQL = "treegrpo/SQL-v0"
# Without those whose every episode starts a sandbox: their tools are listed by the same code.
SANDBOXED = tuple(f"treegrpo/{name}-v{n}" for name in ("CodeExec", "PythonMath") for n in (0, 1))
SERVED = [id for id in list_envs() if id.startswith("treegrpo/") and id not in SANDBOXED]
OFFICIAL = '''
from mcp.server import MCPServer
from mcp.types import ToolAnnotations
server, kept = MCPServer("list"), []

@server.tool()
def keep(word: str, times: int = 1) -> str:
    """Keep a word."""
    kept.extend([word] * times)
    return f"{len(kept)} kept."

@server.tool(annotations=ToolAnnotations(readOnlyHint=True))
def show() -> list[str]:
    """Show what was kept."""
    return kept

server.run("stdio")
'''


def serve_command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from treegrpo.cli.main import main; main()", *arguments]


@pytest.fixture(scope="module", autouse=True)
def _till_stays_open() -> Iterator[None]:
    env = McpEnv(server=TILL, rename={"reset": "clear"})
    yield
    env.close()


def till_rows() -> list[dict[str, Any]]:
    return [
        {
            "question": f"Bring the total to {total}.",
            "check": {"name": "total", "gives": str(total)},
            "solution": [
                {"name": "add", "arguments": {"amount": total - 2}},
                {"name": "add", "arguments": {"amount": 2}},
            ],
            "split": "train",
        }
        for total in range(5, 25)
    ]


def test_every_law_holds_on_a_servers_tools() -> None:
    kwargs = {"server": TILL, "rows": till_rows(), "only": ["add", "total", "note"]}
    register("foreign/Till-v0", "treegrpo.envs.mcp.env:McpEnv", kwargs=kwargs)
    reports = check_env_laws("foreign/Till-v0", episodes=2)
    assert [report.law for report in reports if report.checks == 0 or report.note] == []


def test_a_server_of_the_official_package_is_used_and_forked(tmp_path: Path) -> None:
    script = tmp_path / "server.py"
    script.write_text(OFFICIAL, encoding="utf-8")
    row = {"question": "Keep oak twice.", "check": {"name": "show", "gives": "oak\noak"}}
    env = McpEnv(server=[sys.executable, str(script)], rows=[{**row, "split": "train"}])
    try:
        assert [s["function"]["name"] for s in env.tool_schemas()] == ["keep", "show", "answer"]
        env.reset(seed=0)
        assert env.step(env.encode_call("keep", word="oak"))[0] == "1 kept."
        twin = env.fork()
        assert env.step(env.encode_call("keep", word="elm", times="2"))[0] == "3 kept."
        assert twin.step(twin.encode_call("keep", word="oak"))[0] == "2 kept."
        assert twin.step(twin.encode_call("show"))[0] == "oak\noak"
        assert [e.step(e.encode_call("answer"))[1] for e in (env, twin)] == [0.0, 1.0]
        twin.close()
    finally:
        env.close()


def test_an_episode_is_served_and_its_log_replays(tmp_path: Path) -> None:
    log = tmp_path / "episode.jsonl"
    plan = ServedEpisode(SQL, seed=3)
    result = run_episode(plan.core, oracle_action, seed=3)
    calls = [
        (call.name, call.arguments)
        for action in result.actions
        for call in get_format("hermes").parse(action, collect_tools(type(plan.core))).calls
    ]
    command = serve_command("mcp", SQL, "--seed", "3", "--log", str(log))
    served = asyncio.run(play(command, calls))
    assert served["tools"] == ["list_tables", "schema", "query", "submit"]
    assert served["read only"] == ["list_tables", "schema"]
    assert served["task"] == served["instructions"] == plan.task
    assert served["replies"][-1].endswith("The episode has ended.")
    assert [name for name, refused in served["refused"].items() if not refused] == []
    events = read_log(log)
    assert sum(float(e.reward) for e in events if isinstance(e, StepEvent)) == 1.0
    assert len(events) == 1 + len(calls) and replay(events).matches


async def play(command: list[str], calls: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    """Return what the official client sees of a served episode."""
    found: dict[str, Any] = {"replies": [], "refused": {}}
    parameters = StdioServerParameters(
        command=command[0], args=command[1:], env={"PYTHONPATH": str(ROOT)}
    )
    with open(os.devnull, "w", encoding="ascii") as errors:
        async with Client(stdio_client(parameters, errlog=errors)) as client:
            tools = (await client.list_tools()).tools
            found["tools"] = [tool.name for tool in tools]
            found["read only"] = [
                tool.name for tool in tools if tool.annotations and tool.annotations.read_only_hint
            ]
            found["instructions"] = client.instructions
            prompt = await client.get_prompt(PROMPT)
            found["task"] = getattr(prompt.messages[0].content, "text", None)
            for name in sorted(RESERVED):
                found["refused"][name] = (await client.call_tool(name, {})).is_error
            for name, arguments in calls:
                result = await client.call_tool(name, arguments)
                found["replies"].append(getattr(result.content[0], "text", None))
            late = await client.call_tool(*calls[0])
            found["refused"]["after the end"] = late.is_error
    return found


@pytest.mark.parametrize("id", SERVED)
def test_every_environment_is_served_without_its_control_calls(id: str) -> None:
    episode = ServedEpisode(id, seed=1)
    listed = {tool["name"] for tool in episode.tools()}
    assert listed and not listed & RESERVED
    for name in sorted(RESERVED):
        text, failed = episode.call(name, {})
        assert failed and text.startswith(f"Unknown tool '{name}'")
    assert len(episode.events) == 1  # nothing of it reached the environment
    name = sorted(listed)[0]
    episode.call(name, {"no such argument": 1})
    assert len(episode.events) == 2
    assert id in episode.summary and "1 turns" in episode.summary
    assert make_server(episode).name == id


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["treegrpo/SQLL-v0"], r"Did you mean 'treegrpo/SQL-v0'"),
        ([SQL, "--log", __file__], r"--log '.*' asked for, but it exists"),
        ([SQL, "--index", "-4"], r"Task index -4 asked for"),
        ([SQL, "--env-arg", "horizon"], r"no key=value"),
    ],
)
def test_the_command_says_what_is_wrong(arguments: list[str], message: str) -> None:
    with pytest.raises(TreegrpoError, match=message):
        app(["mcp", *arguments], standalone_mode=False)
