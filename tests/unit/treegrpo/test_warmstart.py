"""The warm start: what is recorded, which token has which weight, and that it learns."""

from __future__ import annotations

import pytest
import torch

from treegrpo.chat import ChatFormat
from treegrpo.cli.demo import FAST
from treegrpo.cli.demo_model import flawed_demonstrations
from treegrpo.envs import make
from treegrpo.envs.baselines import oracle_action
from treegrpo.envs.snapshot import core_of
from treegrpo.tiny import build_model, build_tokenizer
from treegrpo.warmstart import (
    Demonstration,
    WarmStartSettings,
    encode,
    record_demonstrations,
    warm_start,
)


def _oracle(count: int, seed: int) -> list[Demonstration]:
    env = make("treegrpo/SearchQA-v0")
    core = core_of(env)
    return record_demonstrations(env, lambda: None, lambda: oracle_action(core), count, seed)


@pytest.fixture(scope="module")
def demonstrations() -> list[Demonstration]:
    return _oracle(48, seed=0)


@pytest.fixture(scope="module")
def chat(demonstrations: list[Demonstration]) -> ChatFormat:
    texts = [m["content"] for demo in demonstrations for m in demo.messages]
    return ChatFormat(build_tokenizer(texts))


def test_a_demonstration_is_a_whole_episode_that_ends_with_the_agent(
    demonstrations: list[Demonstration],
) -> None:
    for demo in demonstrations:
        roles = [m["role"] for m in demo.messages]
        assert roles[:3] == ["system", "user", "assistant"]
        assert roles[2:] == ["assistant", "tool"] * ((len(roles) - 3) // 2) + ["assistant"]
        assert demo.success
        assert {tool["function"]["name"] for tool in demo.tools} == {"search", "answer"}
    assert len({demo.messages[1]["content"] for demo in demonstrations}) > 40


def test_the_seed_decides_the_questions() -> None:
    assert _oracle(3, seed=5) == _oracle(3, seed=5)
    assert _oracle(3, seed=5) != _oracle(3, seed=6)


def test_recording_tells_how_far_it_is() -> None:
    env, seen = make("treegrpo/SearchQA-v0"), list[tuple[int, int]]()
    core = core_of(env)
    record_demonstrations(
        env,
        lambda: None,
        lambda: oracle_action(core),
        3,
        0,
        on_episode=lambda d, t: seen.append((d, t)),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_the_demonstrator_of_the_demo_errs_with_a_favourite() -> None:
    from dataclasses import replace

    demos = flawed_demonstrations(replace(FAST, demonstrations=300), seed=0)
    share = sum(demo.success for demo in demos) / len(demos)
    assert 0.15 < share < 0.55
    searches = " ".join(m["content"] for d in demos for m in d.messages if m["role"] == "assistant")
    asked = " ".join(d.messages[1]["content"] for d in demos)
    assert searches.count("birthplace of") > 2 * searches.count("home of")
    assert asked.count("home of") > 0.5 * asked.count("birthplace of")


def test_only_the_agents_own_tokens_have_full_weight(
    demonstrations: list[Demonstration], chat: ChatFormat
) -> None:
    demo = max(demonstrations, key=lambda d: len(d.messages))
    ids, weights = encode(demo, chat, 0.25)
    actions = [chat.action_ids(m["content"]) for m in demo.messages if m["role"] == "assistant"]
    assert len(ids) == len(weights)
    assert set(weights) == {0.25, 1.0}
    full = [i for i, weight in zip(ids, weights, strict=True) if weight == 1.0]
    assert full == [i for action in actions for i in action]
    assert weights[-1] == 1.0
    assert ids[-1] in chat.stop_ids


def test_the_pieces_are_the_whole_conversation(
    demonstrations: list[Demonstration], chat: ChatFormat
) -> None:
    demo = demonstrations[0]
    words = [m["content"].split()[0] for m in demo.messages if m["role"] != "system"]
    text = chat.decode_action(encode(demo, chat, 0.5)[0])
    places = [text.find(word) for word in words]
    assert -1 not in places
    assert places[0] == min(places)
    assert text.count("<|im_start|>") == len(demo.messages) - 1  # no system turn


def test_the_loss_falls_and_the_seed_decides_the_weights(
    demonstrations: list[Demonstration], chat: ChatFormat
) -> None:
    settings = WarmStartSettings(batch_size=8, lr=5e-3, warmup_steps=2, seed=1)
    vocabulary = len(chat._template._tokenizer)  # type: ignore[arg-type]
    losses, last = list[float](), 0.0
    models = [build_model(vocabulary, layers=1, width=32) for _ in range(2)]
    for model in models:
        losses.clear()
        last = warm_start(
            model, chat, demonstrations * 4, settings, lambda done, total, loss: losses.append(loss)
        )
        assert not model.training
    assert len(losses) == 24
    assert losses[-1] == last < 0.7 * losses[0]
    pairs = zip(models[0].parameters(), models[1].parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_context_weight_zero_teaches_nothing_about_the_context(
    demonstrations: list[Demonstration], chat: ChatFormat
) -> None:
    """The weight decides what is learned: questions are predicted worse without it."""

    def loss_of_questions(context_weight: float) -> float:
        model = build_model(len(chat._template._tokenizer), layers=1, width=32)  # type: ignore[arg-type]
        settings = WarmStartSettings(
            batch_size=8, lr=5e-3, warmup_steps=2, context_weight=context_weight
        )
        warm_start(model, chat, demonstrations * 4, settings)
        ids = torch.tensor([encode(demonstrations[0], chat, 0.5)[0][:14]])
        with torch.no_grad():
            logp = model(ids).logits[:, :-1].log_softmax(-1)
        return -float(logp.gather(2, ids[:, 1:, None]).mean())

    assert loss_of_questions(0.5) < 0.7 * loss_of_questions(0.0)
