"""treegrpo eval: which agent is meant, what the bundle says of it, and what the user is told."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from tests.fake_chat import KEY, FakeChat, Reply, calls, fake_chat, says
from tests.unit.leaderboards.toy import TOY, ToyAgent, half_right
from treegrpo.cli.agents import without_secrets
from treegrpo.cli.errors import Stopped
from treegrpo.cli.evaluate import eval_command
from treegrpo.envs.errors import TreegrpoError
from treegrpo.envs.suites import Suite, SuiteEntry, register_suite
from treegrpo.leaderboards.agents import Agent
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.errors import AgentUnusable
from treegrpo.leaderboards.schema import Manifest

ROOT = Path(__file__).resolve().parents[3]
MINE = "tests.unit.leaderboards.own_agents"
SUITE = Suite("tests/pair-v1", (SuiteEntry(TOY), SuiteEntry(TOY, {"format": "xml"})))
register_suite(SUITE)

Call = Callable[..., Result]


def folder_agent(folder: Path, *, temperature: float = 1.0) -> Agent:
    return ToyAgent(half_right, name=f"{folder.name} at {temperature}")


@pytest.fixture
def call() -> Call:
    app = typer.Typer()
    app.command("eval")(eval_command(folder_agent))
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> Generator[FakeChat]:
    monkeypatch.setenv("THE_KEY", KEY)
    with fake_chat() as found:
        yield found


def manifest(out: Path) -> Manifest:
    return read_bundle(out).manifest


def toy(agent: object, out: Path, *more: object) -> list[object]:
    return ["--agent", agent, "--env", TOY, "--tasks", 2, "--out", out, *more]


def test_a_chat_endpoint_is_evaluated_and_its_dollars_are_dated(
    call: Call, chat: FakeChat, tmp_path: Path
) -> None:
    (tmp_path / "p.toml").write_text(
        'name = "local"\ndate = 2026-11-01\ncurrency = "USD"\n'
        '[models."m/1"]\ninput = 1000\noutput = 1000\n'
    )
    chat.answer = lambda body: calls(("guess", {"number": -1}))
    result = call(
        *toy("openai:m/1", tmp_path / "b", "--base-url", chat.url, "--key-env", "THE_KEY"),
        "--prices", tmp_path / "p.toml", "--retries", 2, "--requests-per-minute", 100_000,
        "--agent-arg", "temperature=0", "--agent-arg", "timeout_s=30", "--training", "zero-shot",
        "--registration", "1" * 64,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = manifest(tmp_path / "b")
    assert (found.agent.model, found.prices, found.training) == (
        "m/1",
        "local-2026-11-01",
        "zero-shot",
    )
    assert found.agent.settings == {"calls": "native", "temperature": 0.0}
    assert found.registration == "1" * 64
    # 8 requests of 107 tokens at a tenth of a cent each
    assert "0.8560" in result.output
    assert chat.keys == [f"Bearer {KEY}"] * 8
    assert KEY not in result.output
    assert "--key-env THE_KEY" in found.command


def test_a_model_without_a_price_costs_nothing_known(
    call: Call, chat: FakeChat, tmp_path: Path
) -> None:
    (tmp_path / "p.toml").write_text(
        'name = "local"\ndate = 2026-11-01\ncurrency = "USD"\n[models.m1]\ninput = 1\noutput = 1\n'
    )
    result = call(
        *toy("openai:m2", tmp_path / "b", "--base-url", chat.url, "--prices", tmp_path / "p.toml")
    )
    assert result.exit_code == 0, result.output
    told = [line for line in result.output.splitlines() if "No price of 'm2'" in line]
    assert len(told) == 1
    assert manifest(tmp_path / "b").prices is None
    assert [e.dollars for e in read_bundle(tmp_path / "b").episodes] == [None, None]


def test_failures_that_are_not_the_agents_are_told_apart(
    call: Call, chat: FakeChat, tmp_path: Path
) -> None:
    chat.answer = lambda body: Reply(status=500) if len(body["messages"]) > 1 else says("hm")
    result = call(
        *toy("openai:m", tmp_path / "b", "--base-url", chat.url, "--retries", 0, "--trials", 2),
        "--agent-arg", "backoff_s=0",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    assert "4 of 4 episodes failed without the agent's doing (provider 4)." in words
    assert "They stay in the count and score 0." in words
    assert "--retry-failed 2" in words


def test_an_endpoint_that_never_answers_leaves_no_bundle(
    call: Call, chat: FakeChat, tmp_path: Path
) -> None:
    chat.answer = lambda body: Reply(raw=b"<html>Welcome</html>")
    result = call(
        *toy("openai:m", tmp_path / "b", "--base-url", chat.url, "--retries", 1),
        "--agent-arg", "backoff_s=0",
    )  # fmt: skip
    assert isinstance(result.exception, AgentUnusable)
    assert "most end in /v1" in str(result.exception)
    assert not (tmp_path / "b").exists()


def test_search_goes_around_any_agent(call: Call, tmp_path: Path) -> None:
    result = call(
        *toy("search:random", tmp_path / "b", "--agent-arg", "expand=2"),
        "--agent-arg", "expansions=3", "--agent-arg", f"value={MINE}:halfway_of_toy",
    )  # fmt: skip
    assert result.exit_code == 0, result.exception
    found = manifest(tmp_path / "b")
    assert (found.track, found.agent.name) == ("search", "search(random)")
    assert found.agent.settings == {
        "search": {"expand": 2, "expansions": 3, "value": "halfway_of_toy"}
    }
    assert "turns in forks" in result.output


def test_a_search_around_an_endpoint_pays_for_every_branch(
    call: Call, chat: FakeChat, tmp_path: Path
) -> None:
    (tmp_path / "p.toml").write_text(
        'name = "local"\ndate = 2026-11-01\ncurrency = "USD"\n[models.m]\ninput = 1\noutput = 1\n'
    )
    chat.answer = lambda body: calls(("guess", {"number": len(body["messages"])}))
    result = call(
        *toy("search:openai:m", tmp_path / "b", "--base-url", chat.url, "--agent-arg", "expand=2"),
        "--agent-arg", "expansions=9", "--agent-arg", "temperature=1",
        "--prices", tmp_path / "p.toml", "--tasks", 1,
    )  # fmt: skip
    assert result.exit_code == 0, result.exception
    [episode] = read_bundle(tmp_path / "b").episodes
    assert episode.search is not None
    assert episode.requests == len(chat.asked) == episode.search.turns
    assert episode.tokens.input == 100 * len(chat.asked)
    found = manifest(tmp_path / "b")
    assert (found.agent.model, found.prices) == ("m", "local-2026-11-01")
    # Branches go on in one conversation: every reply is behind its call.
    assert all("tool_calls" in body["messages"][-2] for body in chat.asked[2:])


def test_a_class_a_function_and_a_folder_take_options(call: Call, tmp_path: Path) -> None:
    assert call(*toy(f"{MINE}:guess", tmp_path / "f", "--agent-arg", "number=4")).exit_code == 0
    assert manifest(tmp_path / "f").agent.settings == {"number": 4}
    assert call(*toy(f"{MINE}:Whole", tmp_path / "w", "--agent-arg", "number=4")).exit_code == 0
    assert manifest(tmp_path / "w").agent.name == "whole"
    (tmp_path / "model").mkdir()
    words = toy(tmp_path / "model", tmp_path / "m", "--agent-arg", "temperature=0.5")
    assert call(*words).exit_code == 0
    assert manifest(tmp_path / "m").agent.name == "model at 0.5"


def test_the_documents_example_is_an_agent(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "evaluating.md").read_text("utf-8")
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "mine_of_the_page.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    result = call(
        "--agent", "mine_of_the_page:act", "--agent-arg", "high=99", "--env",
        "guess:examples/Guess-v0", "--tasks", 3, "--out", tmp_path / "b",
    )  # fmt: skip
    assert result.exit_code == 0, result.exception
    assert all(episode.success for episode in read_bundle(tmp_path / "b").episodes)


REFUSED = {
    "an option of an endpoint": (
        ["oracle", "--base-url", "http://127.0.0.1"], "--base-url asked for, but it says nothing"
    ),
    "an option of no script": (["oracle", "--agent-arg", "a=1"], "agent 'oracle' has no options"),
    "a secret": (["openai:m", "--agent-arg", "api_key=x"], "Put secrets into an environment"),
    "a secret inside": (
        ["openai:m", "--agent-arg", 'extra={"a": [{"headers": {"X-Api-Key": "sk-12"}}]}'],
        "'extra.a.headers.X-Api-Key' in it, .* Put secrets into an environment",
    ),
    "a secret inside a search": (
        ["search:null", "--agent-arg", 'x={"Authorization": "Bearer sk-12"}'], "Put secrets into",
    ),
    "a secret in camel case": (["null", "--agent-arg", "accessToken=sk-12"], "Put secrets into"),
    "a credential": (["null", "--agent-arg", "credentials=sk-12"], "Put secrets into"),
    "a secret of the environment": (
        ["null", "--env-arg", 'url={"bearer": "sk-12"}'], "--env-arg url=... .* Put secrets into",
    ),
    "no URL": (["openai:m"], "without a --base-url"),
    "no model": (["openai:", "--base-url", "http://127.0.0.1"], "without a model"),
    "no such variable": (
        ["openai:m", "--base-url", "http://127.0.0.1", "--key-env", "NO_SUCH_KEY"],
        "there is no such environment variable",
    ),
    "a setting": (
        ["openai:m", "--base-url", "http://127.0.0.1", "--agent-arg", "temprature=1"],
        "field temprature: .* Did you mean 'temperature'",
    ),
    "a limit": (
        ["openai:m", "--base-url", "http://127.0.0.1", "--requests-per-minute", "0"],
        "field requests_per_minute",
    ),
    "no prices": (
        ["openai:m", "--base-url", "http://127.0.0.1", "--prices", "none.toml"], "cannot be read"
    ),
    "no value": (["search:null", "--agent-arg", f"value={MINE}:NOT_AN_AGENT"], "is no function"),
    "a search of nothing": (["search:nul"], "Did you mean 'null'"),
    "a number": (["search:null", "--agent-arg", "expand=0"], "expand=0 asked for"),
    "training": (["null", "--training", "zero"], "it is one of zero-shot, trained-in-suite"),
    "registration": (["null", "--registration", "x"], "field registration"),
    "no pair": (["null", "--agent-arg", "x"], "Write --agent-arg top_k=3"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_effect_or_no_sense_is_refused(call: Call, tmp_path: Path, name: str) -> None:
    words, message = REFUSED[name]
    result = call(*toy(words[0], tmp_path / "b", *words[1:]))
    assert isinstance(result.exception, TreegrpoError)
    assert re.search(message, str(result.exception))
    assert "sk-12" not in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_names_that_only_resemble_a_secret_are_taken() -> None:
    taken = {"max_tokens": 9, "extra": {"keys": [1], "monkey": {"a": "b"}}}
    assert without_secrets("--agent-arg", taken) == taken


def test_the_command_is_the_line_that_asks_again(call: Call, tmp_path: Path) -> None:
    first = call(
        *toy("search:random", tmp_path / "a b", "--agent-arg", "expand=2", "--seed", 5),
        "--agent-arg", "expansions=2", "--split", "train", "--env-arg", "format=xml",
    )  # fmt: skip
    assert first.exit_code == 0, first.exception
    command = manifest(tmp_path / "a b").command
    assert command == (
        f"treegrpo eval --agent search:random --env {TOY} --out '{tmp_path}/a b' --split train "
        "--tasks 2 --seed 5 --env-arg format=xml --agent-arg expand=2 --agent-arg expansions=2"
    )
    assert call(*toy("oracle", tmp_path / "c")).exit_code == 0
    # What was not given is not there, options that may be repeated included.
    assert manifest(tmp_path / "c").command == (
        f"treegrpo eval --agent oracle --env {TOY} --out {tmp_path}/c --tasks 2"
    )


def test_a_suite_is_evaluated_entry_by_entry(call: Call, tmp_path: Path) -> None:
    words = ["--agent", "oracle", "--env", SUITE.name, "--tasks", 2, "--out", tmp_path / "s"]
    result = call(*words)
    assert result.exit_code == 0, result.exception
    assert "oracle on tests/pair-v1" in result.output
    shown = " ".join(result.output.split())
    assert "Score (null 0, oracle 1): 1.000" in shown
    assert {path.name for path in (tmp_path / "s").iterdir()} == {
        "tests-Toy-v0", "tests-Toy-v0-format-xml"
    }  # fmt: skip
    again = call(*words)  # all is there: the same score, and nothing is played
    assert again.output == result.output
    for option in (["--split", "train"], ["--env-arg", "format=xml"]):
        refused = call(*words, *option)
        assert f"{option[0]} asked for with suite" in str(refused.exception)


def test_stopping_says_what_is_kept(call: Call, tmp_path: Path, monkeypatch: Any) -> None:
    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("treegrpo.cli.evaluate.evaluate", stop)
    result = call(*toy("oracle", tmp_path / "b"))
    assert isinstance(result.exception, Stopped)
    assert "the same command goes on" in str(result.exception)


def test_after_a_wrong_key_the_same_command_goes_on(
    call: Call, chat: FakeChat, tmp_path: Path
) -> None:
    words = toy(
        "openai:m", tmp_path / "b", "--base-url", chat.url, "--key-env", "THE_KEY", "--tasks", 3,
        "--concurrency", 1,
    )  # fmt: skip
    # The second episode's second request is refused.
    chat.script = [says("I give up.")] * 5 + [Reply({"error": KEY}, status=401)]
    stopped = call(*words)
    assert isinstance(stopped.exception, AgentUnusable)
    assert "status 401" in str(stopped.exception)
    assert KEY not in str(stopped.exception) + stopped.output
    assert [path.name for path in tmp_path.iterdir()] == [".b.part"]
    done = call(*words)
    assert done.exit_code == 0, done.exception
    assert len(chat.asked) == 6 + 8
    assert len(read_bundle(tmp_path / "b").episodes) == 3
