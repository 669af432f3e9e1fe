"""The chat agent: what it sends, which actions it makes, what it counts, whose fault is what."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Generator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tests.fake_chat import KEY, FakeChat, Reply, calls, fake_chat, says
from tests.unit.leaderboards.toy import TOY
from treegrpo.envs import make
from treegrpo.envs.snapshot import core_of
from treegrpo.leaderboards.agents import EpisodeView
from treegrpo.leaderboards.agents.chat import ChatAgent, ChatSettings
from treegrpo.leaderboards.agents.conversation import LEFT_OUT, NOT_RUN
from treegrpo.leaderboards.agents.endpoint import Endpoint
from treegrpo.leaderboards.agents.prices import ModelPrices
from treegrpo.leaderboards.agents.reach import Reach
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.errors import AgentUnusable, ProviderFailed
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.summary import EvaluationSummary
from treegrpo.leaderboards.usage import NOTHING
from treegrpo.leaderboards.verify import verify

PRICES = ModelPrices(input=Decimal(2), cached=Decimal(1), output=Decimal(10))
Build = Callable[..., ChatAgent]


@pytest.fixture
def chat() -> Generator[FakeChat]:
    with fake_chat() as found:
        yield found


@pytest.fixture
def agent(chat: FakeChat) -> Generator[Build]:
    made: list[ChatAgent] = []

    def build(*, prices: ModelPrices | None = None, **settings: Any) -> ChatAgent:
        endpoint = Endpoint(chat.url, KEY, Reach(retries=1, backoff_s=0))
        made.append(ChatAgent("model-1", endpoint, ChatSettings(**settings), prices=prices))
        return made[-1]

    yield build
    for one in made:
        one.close()


class Game:
    """One toy episode that an agent plays step by step."""

    def __init__(self, agent: ChatAgent, key: str = "0/0", **options: Any) -> None:
        self.agent, self.key, self.env = agent, key, make(TOY, **options)
        info = self.env.reset(seed=0, options={"split": "test", "index": 0})[1]
        self.core, self.delta, self.info = core_of(self.env), info["messages"], info

    def ask(self) -> Any:
        [action] = self.agent.act([EpisodeView(self.key, 1, self.core, self.delta)])
        return action

    def step(self) -> str:
        action = self.ask()
        assert isinstance(action, str), action
        self.info = self.env.step(action)[4]
        self.delta = self.info["messages"]
        return action


def run(agent: ChatAgent, out: Path, **changes: Any) -> EvaluationSummary:
    settings: dict[str, Any] = {"split": "test", "num_tasks": 2, "trials": 1, "seed": 0}
    return evaluate(agent, TOY, out=out, **settings | changes)


def test_the_schemas_are_sent_and_a_tool_call_becomes_an_action(
    chat: FakeChat, agent: Build
) -> None:
    game = Game(agent(temperature=0.5, max_tokens=9, extra={"top_p": 0.9}))
    chat.script = [calls(("guess", {"number": 3}), text="I think so."), says("done")]
    action = game.step()
    assert action == f"I think so.\n{game.core.encode_call('guess', number=3)}"
    sent = chat.asked[0]
    assert sent["tools"] == game.core.tool_schemas()
    assert [sent[n] for n in ("model", "temperature", "max_tokens", "top_p")] == [
        "model-1", 0.5, 9, 0.9
    ]  # fmt: skip
    game.step()
    question, said, reply = chat.asked[1]["messages"]
    assert question["content"] == game.core.messages[0]["content"]
    assert json.loads(said["tool_calls"][0]["function"]["arguments"]) == {"number": 3}
    assert reply["tool_call_id"] == said["tool_calls"][0]["id"]
    assert reply["content"].startswith("noise ")


def test_several_calls_get_their_own_replies(chat: FakeChat, agent: Build) -> None:
    game = Game(agent())
    chat.script = [
        calls(("guess", '{"number": '), ("gess", {}), ("guess", {"number": -1}), ("guess", [1])),
        says("?"),
    ]
    game.step()
    assert game.info["errors"] == ["parse", "parse", "unknown_tool"]
    game.step()
    said, *replies = chat.asked[1]["messages"][1:]
    ids = [call["id"] for call in said["tool_calls"]]
    assert len(set(ids)) == 4
    by_id = {reply["tool_call_id"]: reply["content"] for reply in replies}
    assert "not valid JSON" in by_id[ids[0]]
    assert "Unknown tool 'gess'" in by_id[ids[1]]
    assert by_id[ids[2]].startswith("noise ")
    assert "must be a JSON object" in by_id[ids[3]]
    assert [call["function"]["arguments"] for call in said["tool_calls"]] == [
        "{}", "{}", '{"number": -1}', "{}"
    ]  # fmt: skip


def test_a_call_that_was_not_run_is_answered_too(chat: FakeChat, agent: Build) -> None:
    game = Game(agent())
    chat.script = [calls(*[("guess", "{")] * 5), says("?")]
    game.step()  # the environment tells three faults of one action
    game.step()
    contents = [m["content"] for m in chat.asked[1]["messages"] if m["role"] == "tool"]
    assert [content == NOT_RUN for content in contents] == [False] * 3 + [True] * 2
    assert chat.last_roles() == ["user", "assistant", *["tool"] * 5]


def test_a_format_of_the_environments_is_spelled_as_it_reads_it(
    chat: FakeChat, agent: Build
) -> None:
    chat.script = [calls(("guess", {"number": 3}))]
    assert Game(agent(), format="xml").step() == "<guess>3</guess>"


@pytest.mark.parametrize(
    ("reply", "action"),
    [
        (says(""), ""),
        (says(None), ""),
        (says(None, refusal="I will not."), "I will not."),
        (says([{"type": "text", "text": "in "}, {"type": "text", "text": "parts"}, 3]), "in parts"),
        (says("half \ud800 a character"), "half \ud800 a character"),
        (says("\u00e9\u4e2d", tool_calls=[]), "\u00e9\u4e2d"),
        (calls(("", "")), '<tool_call>\n{"name": "", "arguments": {}}\n</tool_call>'),
    ],
)
def test_odd_answers_are_the_agents_own(
    chat: FakeChat, agent: Build, reply: Reply, action: str
) -> None:
    game = Game(agent())
    chat.script = [reply, says("next")]
    assert game.step() == action
    assert game.info["errors"] in (["parse"], ["unknown_tool"])
    assert game.step() == "next"


def test_words_make_room_for_calls(chat: FakeChat, agent: Build) -> None:
    game = Game(agent())
    chat.script = [calls(("guess", {"number": 3}), text="x" * 100_000)]
    assert len(game.step()) == game.core.max_action_chars
    assert game.info["errors"] == []


def test_tools_can_be_told_in_words(chat: FakeChat, agent: Build) -> None:
    player = agent(calls="text")
    game = Game(player)
    chat.script = [says('<tool_call>{"name": "guess", "arguments": {"number": -1}}</tool_call>')]
    game.step()
    assert game.info["errors"] == []
    game.step()
    sent = chat.asked[1]
    assert "tools" not in sent
    system, question, _, reply = sent["messages"]
    assert system["role"] == "system"
    assert json.dumps(game.core.tool_schemas()[0]) in system["content"]
    assert "Call a tool: <tool_call>" in system["content"]
    assert question["role"] == reply["role"] == "user"
    assert reply["content"].startswith("<tool_response>\nnoise ")
    assert player.prompt_digest is not None
    assert agent().prompt_digest is None


def test_tools_in_words_are_spelled_as_the_environment_reads_them(
    chat: FakeChat, agent: Build
) -> None:
    game = Game(agent(calls="text"), format="xml")
    chat.script = [says("<guess>-1</guess>")]
    game.step()
    assert game.info["errors"] == []
    assert "Call a tool: <tool_name>" in chat.asked[0]["messages"][0]["content"]


def test_a_full_context_loses_its_oldest_observations(chat: FakeChat, agent: Build) -> None:
    game, full = Game(agent()), Reply({"error": "context_length_exceeded"}, status=400)
    chat.script = [calls(("guess", {"number": -1})), calls(("guess", {"number": -2}))]
    game.step()
    game.step()
    chat.script = [full, says("short enough")]
    assert game.step() == "short enough"
    contents = [m["content"] for m in chat.asked[-1]["messages"] if m["role"] == "tool"]
    assert contents[0] == LEFT_OUT
    assert contents[1].startswith("noise ")
    question = chat.asked[0]["messages"][0]
    assert chat.asked[-1]["messages"][0] == question


def test_a_context_that_stays_full_is_the_agents_failure(
    chat: FakeChat, agent: Build, tmp_path: Path
) -> None:
    chat.answer = lambda body: Reply({"error": "context_length_exceeded"}, status=400)
    summary = run(agent(), tmp_path / "b")
    assert summary.failures == {"policy": 2}
    assert "context_length_exceeded" in str(summary.first_failure)


def test_nobody_waits_for_the_slowest_answer(chat: FakeChat, agent: Build, tmp_path: Path) -> None:
    others_done = threading.Event()
    is_first = iter([True])

    def answer(body: dict[str, Any]) -> Reply:
        if next(is_first, False):
            assert others_done.wait(60), "the others waited for the first"
        elif len(chat.asked) == 1 + 3 * 4:
            others_done.set()
        return says("I give up.")

    chat.answer = answer
    summary = run(agent(), tmp_path / "b", num_tasks=4)
    assert (summary.turns, summary.failures) == (4.0, {})
    assert others_done.is_set()


def test_stopping_by_hand_does_not_wait_for_an_answer(chat: FakeChat, agent: Build) -> None:
    main = threading.main_thread().ident
    assert main is not None

    def stop(body: dict[str, Any]) -> Reply:
        signal.pthread_kill(main, signal.SIGINT)
        return Reply(hang=True)

    chat.answer = stop
    game = Game(agent())
    with pytest.raises(KeyboardInterrupt):
        game.ask()
    chat.answer = lambda body: says("again")
    assert game.step() == "again"


def test_each_kind_of_token_is_counted_and_priced(chat: FakeChat, agent: Build) -> None:
    player = agent(prices=PRICES)
    game = Game(player)
    chat.script = [Reply(status=500), says("a"), says("b")]
    game.step()
    game.step()
    usage = player.finish(game.key)
    assert (usage.input, usage.cached, usage.output, usage.reasoning) == (200, 80, 14, 6)
    assert usage.requests == 3
    # twice 60 x 2 + 40 x 1 + 7 x 10 = 230 dollars per million
    assert usage.dollars == Decimal("0.00046")
    assert player.finish(game.key) == NOTHING


@pytest.mark.parametrize(
    "usage",
    [None, {}, 7, {"prompt_tokens": -1, "completion_tokens": "many"}, {"prompt_tokens": 2.5}],
)
def test_what_an_endpoint_does_not_count_is_null(chat: FakeChat, agent: Build, usage: Any) -> None:
    player = agent(prices=PRICES)
    chat.script = [says("a", usage=usage)]
    game = Game(player)
    game.step()
    counted = player.finish(game.key)
    assert (counted.input, counted.output, counted.dollars) == (None, None, None)
    assert counted.requests == 1


def test_parts_that_exceed_their_whole_are_not_counted(chat: FakeChat, agent: Build) -> None:
    player = agent()
    count = {"prompt_tokens": 5, "prompt_tokens_details": {"cached_tokens": 6}}
    chat.script = [says("a", usage=count)]
    game = Game(player)
    game.step()
    counted = player.finish(game.key)
    assert (counted.input, counted.cached, counted.dollars) == (5, None, None)


def test_a_provider_that_fails_costs_its_own_episode_and_is_asked_once(
    chat: FakeChat, agent: Build, tmp_path: Path
) -> None:
    chat.script = [says("hello")]
    chat.answer = lambda body: Reply({"error": "down"}, status=500)
    chat.answer = lambda body: (
        Reply(status=500) if len(body["messages"]) > 1 else calls(("guess", {"number": -1}))
    )
    summary = run(agent(prices=PRICES), tmp_path / "b", trials=2)
    assert summary.failures == {"provider": 4}
    episodes = read_bundle(tmp_path / "b").episodes
    assert sum(episode.requests or 0 for episode in episodes) == len(chat.asked) == 4 + 8
    assert [episode.tokens.input for episode in episodes] == [100] * 4


def test_a_failed_call_changes_nothing_of_the_conversation(chat: FakeChat, agent: Build) -> None:
    game = Game(agent())
    chat.script = [says("one"), Reply(status=500), Reply(status=500), says("two")]
    game.step()
    assert isinstance(game.ask(), ProviderFailed)
    assert game.step() == "two"
    assert chat.asked[-1] == chat.asked[-2]


def test_a_wrong_key_stops_the_evaluation_and_keeps_what_is_finished(
    chat: FakeChat, agent: Build, tmp_path: Path
) -> None:
    chat.answer = lambda body: Reply(status=401) if len(chat.asked) > 6 else says("I give up.")
    with pytest.raises(AgentUnusable, match=r"status 401.*give the same command again"):
        run(agent(), tmp_path / "b", concurrency=1)
    assert [path.name for path in tmp_path.iterdir()] == [".b.part"]
    chat.answer = lambda body: says("I give up.")
    before = len(chat.asked)
    run(agent(), tmp_path / "b", concurrency=1)
    assert len(chat.asked) - before == 4  # the second episode's four turns


def test_failed_episodes_are_played_again_before_the_bundle_is_sealed(
    chat: FakeChat, agent: Build, tmp_path: Path
) -> None:
    oracle = calls(("guess", {"number": 7}))
    chat.script = [says("hm"), Reply(status=500), Reply(status=500), oracle]
    chat.answer = lambda body: says("I give up.")
    summary = run(agent(prices=PRICES), tmp_path / "b", num_tasks=1, retry_failed=2, concurrency=1)
    assert summary.failures == {}
    [episode] = read_bundle(tmp_path / "b").episodes
    assert episode.reruns == 1
    # One answer and two failures, then at most four turns: all of it is paid for.
    assert episode.requests == len(chat.asked) == 3 + episode.turns
    assert episode.tokens.input == 100 * (1 + episode.turns)
    assert verify(tmp_path / "b").verified


def test_played_again_is_not_played_for_ever(chat: FakeChat, agent: Build, tmp_path: Path) -> None:
    chat.script = [says("hm")]
    chat.answer = lambda body: Reply(status=500)
    summary = run(agent(), tmp_path / "b", num_tasks=1, retry_failed=2, concurrency=1)
    assert summary.failures == {"provider": 1}
    [episode] = read_bundle(tmp_path / "b").episodes
    assert (episode.reruns, episode.requests) == (2, 1 + 2 + 2 + 2)


def test_the_key_is_nowhere_in_the_bundle(chat: FakeChat, agent: Build, tmp_path: Path) -> None:
    chat.answer = lambda body: calls(("guess", {"number": -1, KEY: KEY}), text=f"It is {KEY}.")
    player = agent(extra={"user": "me"})
    run(player, tmp_path / "b")
    from treegrpo.leaderboards.files import unpacked

    logs = [
        unpacked(path.read_bytes(), 2**20, "log")
        for path in (tmp_path / "b" / "trajectories").iterdir()
    ]
    files = [path.read_bytes() for path in (tmp_path / "b").glob("*.json*")]
    assert len(logs) == len(files) == 2
    for data in [*logs, *files, repr(player).encode(), repr(vars(player)).encode()]:
        assert KEY.encode() not in data
    assert any(b"[key]" in data for data in logs)


def test_the_bundle_says_who_was_asked_and_how(
    chat: FakeChat, agent: Build, tmp_path: Path
) -> None:
    run(agent(temperature=0.25), tmp_path / "b")
    entry = read_bundle(tmp_path / "b").manifest.agent
    assert (entry.name, entry.model) == ("model-1", "model-1")
    assert entry.provider == chat.url.split("/")[2]
    assert entry.settings == {"calls": "native", "temperature": 0.25}
    assert agent(temperature=0.25).digest == entry.digest != agent().digest


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"calls": "xml"}, "calls"),
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"extra": {"stream": True}}, "'stream' is filled in by the agent"),
        ({"temprature": 1}, "temprature"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        ChatSettings(**settings)
