"""The scripted agents: thin, seeded, and refused by name with a suggestion."""

from __future__ import annotations

import pytest

from tests.unit.leaderboards.toy import TOY
from treegrpo.envs import ToolEnv, make
from treegrpo.envs.errors import UnknownOption
from treegrpo.leaderboards.agents import SCRIPTED, EpisodeView, scripted_agent


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


def test_random_depends_on_the_episodes_seed_alone() -> None:
    def actions(views: list[EpisodeView]) -> list[list[str]]:
        agent = scripted_agent("random")
        return [agent.act(views) for _ in range(6)]

    together = actions([view("a", 1), view("b", 2)])
    assert [texts[0] for texts in together] == [texts[0] for texts in actions([view("a", 1)])]
    assert [texts[0] for texts in together] != [texts[1] for texts in together]


def test_a_finished_episode_is_forgotten() -> None:
    agent = scripted_agent("random")
    first = [agent.act([view()]) for _ in range(3)]
    assert agent.finish("0/0") is None
    assert [agent.act([view()]) for _ in range(3)] == first


def test_digests_tell_agents_apart() -> None:
    digests = {scripted_agent(name).digest for name in SCRIPTED}
    assert len(digests) == len(SCRIPTED) == 3
    assert scripted_agent("null").digest in digests


def test_an_unknown_name_is_refused_with_the_closest() -> None:
    with pytest.raises(UnknownOption, match=r"'oracel' asked for.*Did you mean 'oracle'"):
        scripted_agent("oracel")
