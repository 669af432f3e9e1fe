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
