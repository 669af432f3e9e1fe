"""A model as an agent: a batch plays as each episode alone, and a failed call changes nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from treegrpo.cli.policy import PolicyAgent, folder_digest, load_policy
from treegrpo.engine.base import ContextTooLong
from treegrpo.envs import make
from treegrpo.envs.baselines import oracle_action
from treegrpo.envs.snapshot import core_of
from treegrpo.leaderboards.agents import EpisodeView
from treegrpo.leaderboards.agents.search import SearchAgent
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.evaluate import evaluate
from treegrpo.tiny import build_model, build_tokenizer, save_model

ENV = "treegrpo/SearchQA-v0"


def _words() -> list[str]:
    env, texts = make(ENV), list[str]()
    for seed in range(12):
        text, info = env.reset(seed=seed)
        texts.append(text)
        while info["end_reason"] is None:
            action = oracle_action(core_of(env))
            text, _, _, _, info = env.step(action)
            texts += [action, text]
    return texts


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "tiny"
    tokenizer = build_tokenizer(_words())
    save_model(build_model(len(tokenizer), layers=1, width=32, seed=1), tokenizer, path)
    return path


def _agent(folder: Path, **options: Any) -> PolicyAgent:
    from treegrpo.loading import load_model

    model, tokenizer = load_model(str(folder))
    options = {"max_action_tokens": 12} | options
    return PolicyAgent(model, tokenizer, name="tiny", weights_digest="0" * 64, **options)


def _play(agent: PolicyAgent, seeds: list[int], *, turns: int = 3) -> dict[int, list[str]]:
    """Return each episode's actions; all live episodes are asked for together."""
    envs = {seed: make(ENV) for seed in seeds}
    deltas = {seed: env.reset(seed=seed)[1]["messages"] for seed, env in envs.items()}
    said: dict[int, list[str]] = {seed: [] for seed in seeds}
    for _ in range(turns):
        views = [EpisodeView(f"{s}/0", s, core_of(envs[s]), deltas[s]) for s in deltas]
        for seed, text in zip(list(deltas), agent.act(views), strict=True):
            said[seed].append(text)
            _, _, ended, cut, info = envs[seed].step(text)
            deltas[seed] = info["messages"]
            if ended or cut:
                del deltas[seed]
    for seed in seeds:
        agent.finish(f"{seed}/0")
    return said


def test_a_batch_plays_like_each_episode_alone(folder: Path) -> None:
    together = _play(_agent(folder), [3, 4, 5, 6])
    alone = {seed: _play(_agent(folder), [seed])[seed] for seed in (3, 4, 5, 6)}
    assert together == alone
    assert len({tuple(texts) for texts in together.values()}) == 4
    assert any(text for texts in together.values() for text in texts)


def test_greedy_play_does_not_depend_on_the_seed(folder: Path) -> None:
    env = make(ENV)
    delta = env.reset(seed=0)[1]["messages"]
    views = [EpisodeView(f"{seed}/0", seed, core_of(env), delta) for seed in range(4)]
    assert len(set(_agent(folder, temperature=0.0).act(views))) == 1
    assert len(set(_agent(folder).act(views))) > 1


def test_a_call_that_fails_changes_nothing(folder: Path) -> None:
    """The evaluation asks again, one by one, when a batch raises: nothing may have moved."""
    agent, other = _agent(folder), _agent(folder)
    env = make(ENV)
    delta = env.reset(seed=0)[1]["messages"]
    good = EpisodeView("0/0", 0, core_of(env), delta)
    first = agent.act([good])
    assert other.act([good]) == first
    follow = EpisodeView("0/0", 0, core_of(env), env.step(first[0])[4]["messages"])
    long = EpisodeView("1/0", 1, core_of(env), [{"role": "user", "content": "the " * 3000}])
    live = agent._engine.live_contexts
    with pytest.raises(ContextTooLong):
        agent.act([follow, long])
    assert agent._engine.live_contexts == live
    assert agent.act([follow]) == other.act([follow])


def test_a_cut_action_is_closed_and_what_followed_is_read(folder: Path) -> None:
    """The context is what the trainer would see: prompt, action, forced end, observation."""
    agent, env = _agent(folder, max_action_tokens=3), make(ENV)
    delta = env.reset(seed=0)[1]["messages"]
    chat, core = agent._chat, core_of(env)
    opening = chat.opening_ids(delta, core.tool_schemas())
    [text] = agent.act([EpisodeView("0/0", 0, core, delta)])
    context = agent._contexts["0/0"]
    assert context.length == len(opening) + 3  # no stop token among three: it was cut
    follow = env.step(text)[4]["messages"]
    agent.act([EpisodeView("0/0", 0, core, follow)])
    observed = len(chat.observation_ids(follow))
    assert agent._contexts["0/0"].length == len(opening) + 3 + 1 + observed + 3
    assert agent.finish("0/0") == 6


def test_an_ended_episode_is_forgotten_and_its_tokens_told(folder: Path) -> None:
    agent, env = _agent(folder, max_action_tokens=5), make(ENV)
    delta = env.reset(seed=0)[1]["messages"]
    agent.act([EpisodeView("0/0", 0, core_of(env), delta)])
    tokens = agent.finish("0/0")
    assert tokens is not None
    assert 1 <= tokens <= 5
    assert agent.finish("0/0") is None
    assert agent._engine.live_contexts == 0


def test_an_evaluation_leaves_no_context_behind(folder: Path, tmp_path: Path) -> None:
    agent = _agent(folder)
    summary = evaluate(
        agent, ENV, split="test", num_tasks=4, trials=1, seed=0, out=tmp_path / "bundle"
    )
    assert summary.failures == {}
    assert agent._engine.live_contexts == 0
    manifest = read_bundle(tmp_path / "bundle").manifest
    assert manifest.agent.settings == {"temperature": 1.0, "max_action_tokens": 12}
    assert all(e.tokens.output for e in read_bundle(tmp_path / "bundle").episodes)


def test_the_digest_names_weights_configuration_and_tokenizer(folder: Path, tmp_path: Path) -> None:
    agent = load_policy(folder)
    assert agent.name == "tiny"
    assert agent.digest == folder_digest(folder)
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        copy = shutil.copytree(folder, tmp_path / name)
        assert folder_digest(copy) == agent.digest
        data = bytearray((copy / name).read_bytes())
        data[-2] ^= 1
        (copy / name).write_bytes(data)
        assert folder_digest(copy) != agent.digest, name


def test_a_fork_goes_on_from_the_same_context_and_counts_for_itself(folder: Path) -> None:
    agent, env = _agent(folder), make(ENV)
    delta = env.reset(seed=0)[1]["messages"]
    [text] = agent.act([EpisodeView("0/0", 7, core_of(env), delta)])
    spent = agent.finish("no such episode"), agent._tokens["0/0"]
    agent.fork("0/0", "0/0.1")
    follow = env.step(text)[4]["messages"]
    views = [EpisodeView(key, 7, core_of(env), follow) for key in ("0/0", "0/0.1")]
    first, second = agent.act(views)
    assert first == second
    assert agent._contexts["0/0.1"].length == agent._contexts["0/0"].length
    total, branch = agent.finish("0/0"), agent.finish("0/0.1")
    assert total is not None
    assert spent == (None, total - (branch or 0))
    assert agent._engine.live_contexts == 0


def test_a_search_with_a_model_leaves_no_context_behind(folder: Path, tmp_path: Path) -> None:
    agent = _agent(folder)
    search = SearchAgent(agent, expand=2, expansions=3)
    evaluate(search, ENV, split="test", num_tasks=2, trials=1, seed=0, out=tmp_path / "b")
    assert agent._engine.live_contexts == 0
    episodes = read_bundle(tmp_path / "b").episodes
    assert all(episode.search is not None and episode.tokens.output for episode in episodes)
    assert agent._tokens == agent._turns == agent._closing == {}
