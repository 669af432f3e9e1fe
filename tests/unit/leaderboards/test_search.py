"""Search over forks: it finds more than its base agent, pays for all of it, and verifies."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.unit.leaderboards import own_agents
from tests.unit.leaderboards.toy import TOY, ToyAgent, half_right
from treegrpo.envs import make
from treegrpo.envs.errors import SnapshotUnsupported, TreegrpoError
from treegrpo.envs.snapshot import core_of
from treegrpo.leaderboards import standalone_verify
from treegrpo.leaderboards.agents import EpisodeView, scripted_agent
from treegrpo.leaderboards.agents.search import SearchAgent
from treegrpo.leaderboards.bundle import Bundle, read_bundle
from treegrpo.leaderboards.errors import AgentUnusable, ProviderFailed
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.leaderboards.schema import SearchEntry
from treegrpo.leaderboards.site.data import run_outcomes
from treegrpo.leaderboards.store import Store
from treegrpo.leaderboards.usage import Usage
from treegrpo.leaderboards.verify import verify

LAKE = "treegrpo/FrozenLake-v0"


def bundle_of(agent: Any, out: Path, env: str = TOY, **changes: Any) -> Bundle:
    settings: dict[str, Any] = {"split": "test", "num_tasks": 2, "trials": 1, "seed": 0}
    evaluate(agent, env, out=out, **settings | changes)
    return read_bundle(out)


def guesses(*numbers: int) -> ToyAgent:
    """An agent whose n-th action in an episode, branches counted one by one, is numbers[n]."""
    asked: dict[str, int] = {}

    def act(view: EpisodeView) -> str:
        episode = view.key.partition(".")[0]
        asked[episode] = asked.get(episode, -1) + 1
        number = numbers[asked[episode] % len(numbers)]
        return view.env.encode_call("guess", number=number if number >= 0 else view.env.task.answer)

    return ToyAgent(act, tokens=Usage(input=10, output=5, dollars=Decimal("0.01"), requests=1))


def test_search_beats_its_base_agent_and_its_bundle_verifies(tmp_path: Path) -> None:
    alone = bundle_of(scripted_agent("random"), tmp_path / "alone", LAKE, num_tasks=4)
    agent = SearchAgent(scripted_agent("random"), expand=8, expansions=60, value=own_agents.halfway)
    found = bundle_of(agent, tmp_path / "search", LAKE, num_tasks=4)
    solved = [sum(episode.success for episode in bundle.episodes) for bundle in (alone, found)]
    assert solved == [0, 2]
    assert found.manifest.track == "search"
    assert alone.manifest.track == "single-pass"
    assert verify(tmp_path / "search").verified
    assert standalone_verify.check(tmp_path / "search") == found.digest


def test_every_branch_is_paid_for(tmp_path: Path) -> None:
    # Three wrong guesses at the first node; at the second, the second guess is right.
    agent = SearchAgent(guesses(900, 901, 902, 903, -1, 904), expand=3, expansions=9)
    [episode, _] = bundle_of(agent, tmp_path / "b").episodes
    assert (episode.success, episode.turns, episode.tool_calls) == (True, 2, 2)
    assert episode.search == SearchEntry(branches=1 + 2 + 2, turns=6, tool_calls=6)
    assert (episode.tokens.input, episode.tokens.output) == (60, 30)
    assert (episode.dollars, episode.requests) == ("0.06", 6)


def test_a_board_shows_what_all_branches_cost_and_says_it_is_declared(
    tmp_path: Path, store: Store
) -> None:
    agent = SearchAgent(guesses(900, 901, 902, 903, -1, 904), expand=3, expansions=9)
    bundle = bundle_of(agent, tmp_path / "b", num_tasks=1)
    [row] = store.board(store.run_detail(store.add(tmp_path / "b")).key.id).rows
    assert (row.turns, row.tool_calls) == (2 + 6, 2 + 6)
    assert (row.words["turns"], row.words["tool_calls"]) == ("declared", "declared")
    assert (row.words["success"], verify(tmp_path / "b").words["reward"]) == ("replayed",) * 2
    [[spent, share, *_]] = run_outcomes(store.run_detail(bundle.digest))["curves"]["tool_calls"]
    assert (spent, share) == (8, 1)


def test_a_path_without_success_is_played_to_its_end(tmp_path: Path) -> None:
    agent = SearchAgent(guesses(900), expand=2, expansions=4)
    [episode, _] = bundle_of(agent, tmp_path / "b").episodes
    # Deepest first: four expansions go straight down to the last turn.
    assert (episode.success, episode.end_reason, episode.turns) == (False, "turn_limit", 4)
    assert episode.search == SearchEntry(branches=5, turns=8, tool_calls=8)
    assert episode.requests == 8


def test_where_the_path_ends_the_base_agent_goes_on_alone(tmp_path: Path) -> None:
    seen: list[list[str]] = []

    def act(view: EpisodeView) -> str:
        if "." not in view.key:
            seen.append([message["role"] for message in view.messages_delta])
        return view.env.encode_call("guess", number=900)

    base = ToyAgent(act, tokens=7)
    [episode, _] = bundle_of(SearchAgent(base, expand=2, expansions=1), tmp_path / "b").episodes
    assert (episode.turns, episode.tokens.output) == (4, 7 * 3)
    assert episode.search == SearchEntry(branches=2, turns=2, tool_calls=2)
    # It never saw the searched turn, so it is told everything once, and then what is new.
    assert seen[::2] == [["user", "assistant", "tool"], ["tool"], ["tool"]]
    assert sorted(base.finished) == ["0/0", "0/0.0", "0/0.1", "1/0", "1/0.0", "1/0.1"]


def test_an_agent_that_forks_is_told_only_what_is_new(tmp_path: Path) -> None:
    forks: list[tuple[str, str]] = []
    seen: dict[str, list[str]] = {}

    class Forking(ToyAgent):
        def fork(self, key: str, twin: str) -> None:
            forks.append((key, twin))

    def act(view: EpisodeView) -> str:
        seen[view.key] = [message["role"] for message in view.messages_delta]
        return view.env.encode_call("guess", number=900)

    bundle_of(SearchAgent(Forking(act), expand=2, expansions=2), tmp_path / "b", num_tasks=1)
    assert forks == [("0/0.0", "0/0.0.0"), ("0/0.0", "0/0.0.1")]
    assert seen["0/0.1"] == ["user"]
    assert seen["0/0.0.1"] == ["tool"]


def test_episodes_are_searched_in_step(tmp_path: Path) -> None:
    base = ToyAgent(half_right)
    bundle_of(SearchAgent(base, expand=3, expansions=1), tmp_path / "b", num_tasks=4)
    assert base.batches[0] == 12


def test_the_value_decides_what_is_expanded(tmp_path: Path) -> None:
    def high(env: Any) -> float:
        return float(env.state["guess"] or 0)

    agent = SearchAgent(guesses(900, 950, 901), expand=3, expansions=2, value=high)
    bundle = bundle_of(agent, tmp_path / "b", num_tasks=1)
    first = next(event for event in bundle.events(bundle.episodes[0]) if event.kind == "step")
    assert '"number": 950' in first.action
    assert bundle.manifest.agent.settings["search"] == {
        "expand": 3, "expansions": 2, "value": "high",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("error", "failure"),
    [(ProviderFailed("down"), "provider"), (RuntimeError("no idea"), "policy")],
)
def test_a_base_agent_that_fails_fails_its_own_episode(
    tmp_path: Path, error: Exception, failure: str
) -> None:
    def act(view: EpisodeView) -> str:
        if view.env.episode.index == 1 and view.env.episode.turns == 1:
            raise error
        return view.env.oracle()

    base = ToyAgent(act, tokens=2)
    first, second = bundle_of(SearchAgent(base, expand=2), tmp_path / "b").episodes
    assert (first.success, second.success, second.failure) == (True, False, failure)
    assert second.search is not None
    assert second.tokens.output == 2 * 4
    assert len(base.finished) == len(set(base.finished))


def test_no_text_and_no_value_are_the_agents_failure(tmp_path: Path) -> None:
    def worthless(env: Any) -> float:
        raise ZeroDivisionError("worth")

    numbers = ToyAgent(lambda view: 7)
    [episode] = bundle_of(SearchAgent(numbers), tmp_path / "a", num_tasks=1).episodes
    assert episode.failure_detail == "TypeError: the agent gave int, not a text"
    agent = SearchAgent(ToyAgent(half_right), value=worthless)
    [episode] = bundle_of(agent, tmp_path / "b", num_tasks=1).episodes
    assert episode.failure_detail == "ZeroDivisionError: worth"


@pytest.mark.parametrize("worth", ["x", "0.5", None, float("nan"), [1]], ids=ascii)
def test_a_value_that_is_no_number_stops_all(worth: Any, tmp_path: Path) -> None:
    def bad(env: Any) -> Any:
        return worth

    agent = SearchAgent(ToyAgent(half_right), value=bad)
    with pytest.raises(AgentUnusable) as failed:
        bundle_of(agent, tmp_path / "b", num_tasks=1)
    assert f"value={__name__}:bad asked for, but it returned {worth!r}, " in str(failed.value)
    assert not (tmp_path / "b").exists()


def test_a_fork_that_breaks_leads_nowhere(tmp_path: Path) -> None:
    whole = bundle_of(scripted_agent("oracle"), tmp_path / "whole", num_tasks=6)
    agent = SearchAgent(scripted_agent("oracle"), expand=2)
    found = bundle_of(agent, tmp_path / "b", num_tasks=6, env_kwargs={"trouble": "step"})
    failures = [episode.failure for episode in found.episodes]
    assert set(failures) == {None, "environment"}
    assert len(whole.episodes) == len(failures)


def test_an_environment_that_cannot_be_forked_stops_the_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise SnapshotUnsupported(["it holds a socket"])

    monkeypatch.setattr("tests.unit.leaderboards.toy.Toy.fork", refuse)
    with pytest.raises(AgentUnusable, match=r"cannot be forked: .*it holds a socket"):
        bundle_of(SearchAgent(scripted_agent("oracle")), tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_every_fork_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    env = make(TOY)
    info = env.reset(seed=0, options={"split": "test", "index": 0})[1]
    core, live = core_of(env), set[int]()
    fork, close = type(core).fork, type(core).close
    kept: list[Any] = []

    def forked(self: Any, **options: Any) -> Any:
        kept.append(fork(self, **options))
        live.add(id(kept[-1]))
        return kept[-1]

    def closed(self: Any) -> None:
        live.discard(id(self))
        close(self)

    monkeypatch.setattr(type(core), "fork", forked)
    monkeypatch.setattr(type(core), "close", closed)
    agent = SearchAgent(guesses(900), expand=3, expansions=5)
    before = core.state_hash()
    agent.act([EpisodeView("0/0", 1, core, info["messages"])])
    assert (len(kept), live) == (15, set())
    assert core.state_hash() == before


@pytest.mark.parametrize("options", [{"expand": 0}, {"expansions": 0}, {"expand": "many"}])
def test_wrong_numbers_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(TreegrpoError, match="give a whole number from 1 up"):
        SearchAgent(scripted_agent("null"), **options)


def test_closing_closes_the_base_agent() -> None:
    closed: list[bool] = []

    class Closing(ToyAgent):
        def close(self) -> None:
            closed.append(True)

    def views(_: Sequence[EpisodeView]) -> str:
        return ""

    SearchAgent(Closing(lambda view: "")).close()
    SearchAgent(scripted_agent("null")).close()
    assert closed == [True]
