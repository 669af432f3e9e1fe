"""The scripted agents: thin, seeded, and refused by name with a suggestion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.unit.leaderboards.toy import TOY, ToyAgent
from treegrpo.envs import ToolEnv, make
from treegrpo.envs.errors import UnknownOption
from treegrpo.leaderboards.agents import SCRIPTED, Acted, EpisodeView, scripted_agent
from treegrpo.leaderboards.agents.base import act_each, act_some
from treegrpo.leaderboards.errors import AgentUnusable


def view(key: str = "0/0", seed: int = 1) -> EpisodeView:
    env = make(TOY)
    env.reset(seed=0, options={"split": "test", "index": 0})
    assert isinstance(env.unwrapped, ToolEnv)
    return EpisodeView(key, seed, env.unwrapped, [])


def test_oracle_and_null_are_those_of_the_environment() -> None:
    one = view()
    assert scripted_agent("oracle").act([one]) == [one.env.oracle()]
    [refusal] = scripted_agent("null").act([one])
    assert "<tool_call>" not in refusal


def test_random_depends_on_the_episodes_seed_and_turn_alone() -> None:
    def actions(seed: int) -> list[str]:
        agent, one = scripted_agent("random"), view(seed=seed)
        texts: list[str] = []
        while not one.env.episode.ended:
            texts += agent.act([view(seed=99), one])[1:]
            assert agent.act([one]) == texts[-1:]
            one.env.step(texts[-1])
        assert agent.finish(one.key) is None
        return texts

    assert actions(1) == actions(1)
    assert actions(1) != actions(2)
    assert len(set(actions(1))) > 1


def test_digests_tell_agents_apart() -> None:
    digests = {scripted_agent(name).digest for name in SCRIPTED}
    assert len(digests) == len(SCRIPTED) == 3
    assert scripted_agent("null").digest in digests


def test_an_unknown_name_is_refused_with_the_closest() -> None:
    with pytest.raises(UnknownOption, match=r"'oracel' asked for.*Did you mean 'oracle'"):
        scripted_agent("oracel")


class Ready(ToyAgent):
    """An agent that answers the last episode first, and fails as it is told."""

    trouble = ""

    def act_ready(self, episodes: Sequence[EpisodeView]) -> dict[str, Acted]:
        if self.trouble == "raises":
            raise RuntimeError("no idea")
        if self.trouble == "stops":
            raise AgentUnusable("no key")
        return {} if self.trouble == "nothing" else {episodes[-1].key: "last first"}


def test_some_episodes_may_be_answered_before_others() -> None:
    agent = Ready(lambda one: "all at once")
    views = [view("0/0"), view("1/0")]
    assert act_some(agent, views) == {"1/0": "last first"}
    for agent.trouble in ("raises", "nothing"):
        assert act_some(agent, views) == {"0/0": "all at once", "1/0": "all at once"}
    agent.trouble = "stops"
    with pytest.raises(AgentUnusable):
        act_some(agent, views)


def test_a_batch_that_raises_is_asked_one_by_one() -> None:
    def act(one: EpisodeView) -> str:
        if one.key == "1/0":
            raise RuntimeError("no idea")
        return "fine"

    found = act_each(ToyAgent(act), [view("0/0"), view("1/0"), view("2/0")])
    assert [str(one) for one in found] == ["fine", "no idea", "fine"]
    assert isinstance(found[1], RuntimeError)


@pytest.mark.parametrize("given", ["two", None, ["one"], {"0/0": "x", "1/0": "y"}])
def test_what_is_no_list_of_actions_is_the_agents_failure(given: Any) -> None:
    class Wrong(ToyAgent):
        def act(self, episodes: Any) -> Any:
            return given if len(episodes) > 1 else []

    found = act_each(Wrong(lambda one: ""), [view("0/0"), view("1/0")])
    assert [str(one) for one in found] == ["the agent gave 0 actions for 1 episodes"] * 2


def test_an_agent_that_cannot_act_stops_all_however_it_says_so() -> None:
    with pytest.raises(AgentUnusable, match="no key"):
        act_each(ToyAgent(lambda one: AgentUnusable("no key")), [view("0/0")])
