"""SearchQA: its worlds, tasks, tools, oracle and demonstrator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treegrpo.envs.errors import UnknownOption
from treegrpo.envs.suite.search_qa.env import NOTHING_FOUND, SearchQAEnv
from treegrpo.envs.suite.search_qa.oracle import FAVOURITE_MISTAKES, Demonstrator, Mistakes
from treegrpo.envs.suite.search_qa.tasks import NUM_WORLDS
from treegrpo.envs.suite.search_qa.worlds import RELATIONS, build_world, fact_split, names

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "qa"


def play_oracle(env: SearchQAEnv) -> tuple[float, int]:
    ended = False
    reward = 0.0
    while not ended:
        _, reward, terminated, truncated, _ = env.step(env.oracle())
        ended = terminated or truncated
    return reward, env.episode.turns


def test_training_and_test_worlds_share_no_fact() -> None:
    facts = {
        split: {fact for number in range(20) for fact in build_world(split, number).facts.values()}
        for split in NUM_WORLDS
    }
    assert len(facts["train"]) > 500
    assert len(facts["test"]) > 500
    assert not facts["train"] & facts["test"]


def test_every_fact_stands_in_the_split_that_its_parity_names() -> None:
    for split in NUM_WORLDS:
        assert {fact_split(fact) for fact in build_world(split, 3).facts.values()} == {split}


def test_names_are_distinct_over_kinds() -> None:
    everyone = [name for kind in ("person", "city", "company") for name in names(kind)]
    assert len(set(everyone)) == len(everyone)
    assert not set(everyone) & set(RELATIONS)


def test_every_fact_is_found_first_by_its_own_words() -> None:
    world = build_world("test", 0)
    for fact in world.facts.values():
        best = world.index.search(f"{fact.relation} of {fact.subject}", 1)[0]
        assert world.index.documents[best].text == fact.sentence()


def test_a_world_is_the_same_when_built_again() -> None:
    first = build_world("train", 7).facts
    build_world.cache_clear()
    assert build_world("train", 7).facts == first


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("hops", [1, 2, 3])
def test_oracle_needs_one_search_per_hop_and_is_right(split: str, hops: int) -> None:
    env = SearchQAEnv()
    for seed in range(10):
        env.reset(seed=seed, options={"split": split, "difficulty": hops})
        assert play_oracle(env) == (1.0, hops + 1)


def test_the_answer_is_never_met_on_the_way() -> None:
    env = SearchQAEnv()
    for index in range(200):
        env.reset(seed=0, options={"index": index})
        data = env.task.data
        chain = build_world(data["split"], data["world"]).follow(data["subject"], data["relations"])
        on_the_way = [data["subject"], *(fact.object for fact in chain[:-1])]
        assert env.task.answer == (chain[-1].object,)
        assert chain[-1].object not in on_the_way


def test_searching_unknown_words_finds_nothing_and_goes_on() -> None:
    env = SearchQAEnv()
    env.reset(seed=1)
    observation, reward, terminated, _, _ = env.step(env.encode_call("search", query="zzz qqq"))
    assert (observation, reward, terminated) == (NOTHING_FOUND, 0.0, False)


def test_top_k_bounds_what_is_shown() -> None:
    env = SearchQAEnv(top_k=3)
    env.reset(seed=1)
    relation, subject = env.task.data["relations"][0], env.task.data["subject"]
    observation, *_ = env.step(env.encode_call("search", query=f"{relation} of {subject}"))
    assert observation.count(".") == 3


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"top_k": "abc"}, r"top_k='abc' of SearchQA asked for; .* Give a whole number"),
        ({"top_k": 0}, "top_k=0 .* at least 1"),
        ({"top_k": -1}, "top_k=-1 .* at least 1"),
        ({"top_k": 2.0}, "top_k=2.0 .* whole number"),
        ({"top_k": True}, "top_k=True .* whole number"),
        ({"corpus": "c.jsonl"}, "corpus='c.jsonl' .* no data was given .* leave corpus out"),
        ({"source_format": "nq"}, "source_format='nq' .* no data was given .* Give data="),
        ({"source_format": 3}, "source_format=3 .* no data was given"),
        ({"data": "x.json", "source_format": "ng"}, "'ng'.* Did you mean 'nq'"),
    ],
)
def test_option_values_that_mean_nothing_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UnknownOption, match=says):
        SearchQAEnv(**options)


def test_wrong_answer_scores_nothing() -> None:
    env = SearchQAEnv()
    env.reset(seed=1)
    _, reward, terminated, _, info = env.step(env.encode_call("answer", text="nobody"))
    assert (reward, terminated, info["success"]) == (0.0, True, False)


def test_demonstrator_errs_at_the_rates_asked_for() -> None:
    env = SearchQAEnv()
    solved: dict[float, int] = {}
    for rate in (0.0, 0.65):
        player = Demonstrator(Mistakes(rate, rate / 3), np.random.default_rng(0))
        solved[rate] = 0
        for index in range(300):
            env.reset(seed=0, options={"index": index})
            player.begin(env)
            while not env.episode.terminated:
                env.step(player.act(env))
            solved[rate] += env.episode.episode_return == 1.0
    assert solved[0.0] == 300
    assert 0.25 < solved[0.65] / 300 < 0.55


def test_demonstrator_mixes_up_only_in_its_favourite_way() -> None:
    env = SearchQAEnv()
    player = Demonstrator(Mistakes(1.0, 0.0), np.random.default_rng(0))
    for index in range(60):
        env.reset(seed=0, options={"index": index})
        player.begin(env)
        first = env.task.data["relations"][0]
        expected = FAVOURITE_MISTAKES.get(first, first)
        assert f"{expected} of {env.task.data['subject']}" in player.act(env)


@pytest.mark.parametrize("name", ["hotpotqa.json", "2wiki.json", "musique.jsonl"])
def test_question_files_are_played_through_the_same_class(name: str) -> None:
    env = SearchQAEnv(data=str(FIXTURES / name), top_k=3)
    assert len(env.tasks("test")) >= 2
    for index in range(len(env.tasks("test"))):
        env.reset(seed=0, options={"split": "test", "index": index})
        reward, turns = play_oracle(env)
        assert reward == 1.0
        assert turns >= 2
        assert env.state["seen"], "the supporting titles were searched and found"


def test_a_corpus_is_shared_by_all_questions_of_an_nq_file() -> None:
    env = SearchQAEnv(data=str(FIXTURES / "nq.jsonl"), corpus=str(FIXTURES / "corpus.jsonl"))
    env.reset(seed=0, options={"index": 0})
    first = env.documents()
    env.reset(seed=0, options={"index": 1})
    assert env.documents() is first
    assert play_oracle(env)[0] == 1.0
