"""The tiny model and its tokenizer: ordinary Hugging Face parts, decided by words and seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from treegrpo.chat import ChatFormat
from treegrpo.envs import make
from treegrpo.envs.baselines import oracle_action, random_action
from treegrpo.envs.snapshot import core_of
from treegrpo.tiny import build_model, build_tokenizer, save_model

# Turns that do not parse reach the model too: what the environment answers must be readable.
_ODD_ACTIONS = (
    "",
    "Hello there.",
    "<tool_call>{",
    '<tool_call>\n{"name": "serch", "arguments": {"query": "x"}}\n</tool_call>',
    '<tool_call>\n{"name": "search", "arguments": {"words": 3}}\n</tool_call>',
    '<tool_call>\n{"name": "search", "arguments": {"query": "zzz"}}\n</tool_call>',
)


def _texts() -> list[str]:
    """Return actions and observations of the search environment, good and bad ones."""
    env = make("treegrpo/SearchQA-v0")
    core, rng, found = core_of(env), np.random.default_rng(0), list[str]()
    for seed in range(24):
        text, _ = env.reset(seed=seed)
        found.append(text)
        over, turn = False, 0
        while not over:
            odd = _ODD_ACTIONS[(seed + turn) % len(_ODD_ACTIONS)]
            action = (oracle_action(core), odd, random_action(core, rng))[seed % 3]
            text, _, ended, cut, _ = env.step(action)
            found += [action, text]
            over, turn = ended or cut, turn + 1
    env.close()
    return found


TEXTS = _texts()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer(TEXTS)


def test_the_texts_hold_answers_to_good_and_to_bad_actions() -> None:
    everything = " ".join(TEXTS)
    for words in ("Answer received", "Nothing found", "serch", "The home of"):
        assert words in everything


def test_every_text_is_read_without_an_unknown_token(tokenizer: PreTrainedTokenizerFast) -> None:
    for text in TEXTS:
        assert tokenizer.unk_token_id not in tokenizer.encode(text, add_special_tokens=False), text


def test_decoding_and_encoding_again_gives_the_same_ids(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False)
        again = tokenizer.encode(tokenizer.decode(ids), add_special_tokens=False)
        assert again == ids, text


def test_a_decoded_call_means_the_same_to_the_environment(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """What the model writes comes back through the tokenizer, and must solve the task still."""
    chat, env = ChatFormat(tokenizer), make("treegrpo/SearchQA-v0")
    for seed in range(0, 18, 3):  # the oracle's episodes of `_texts`: every word is known
        _, info = env.reset(seed=seed)
        while info["end_reason"] is None:
            action = oracle_action(core_of(env))
            _, _, _, _, info = env.step(chat.decode_action(chat.action_ids(action)))
            assert info["errors"] == []
        assert info["success"] is True
    env.close()


def test_an_unseen_word_is_the_unknown_token(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.encode("Zyzzyva", add_special_tokens=False)
    assert ids == [tokenizer.unk_token_id]


def test_the_vocabulary_depends_on_the_set_of_words_alone() -> None:
    one, other = build_tokenizer(TEXTS), build_tokenizer([*reversed(TEXTS), *TEXTS])
    assert one.get_vocab() == other.get_vocab()
    assert len(build_tokenizer([*TEXTS, "Zyzzyva"])) == len(one) + 1


def test_the_template_ends_turns_and_leaves_system_text_out(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    chat = ChatFormat(tokenizer)
    ids = chat.prompt_ids(
        [{"role": "system", "content": "Nothing"}, {"role": "user", "content": "The home"}]
    )
    assert tokenizer.convert_ids_to_tokens(ids) == [
        "<|im_start|>", "user", "The", "home", "<|im_end|>", "<|im_start|>", "assistant",
    ]  # fmt: skip
    assert list(chat.stop_ids) == [tokenizer.eos_token_id]
    assert chat.observation_role == "tool"


def test_the_seed_decides_the_weights_and_leaves_the_global_state_alone() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (build_model(40, layers=1, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    pairs = list(zip(one.parameters(), same.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(one.lm_head.weight, other.lm_head.weight)
    assert one.lm_head.weight.std().item() == pytest.approx(0.06, rel=0.05)


def test_the_longest_context_is_the_callers() -> None:
    found = [build_model(40, layers=1, **given) for given in ({}, {"max_context_tokens": 4096})]
    assert [model.config.max_position_embeddings for model in found] == [2048, 4096]
    assert torch.equal(found[0].lm_head.weight, found[1].lm_head.weight)


def test_the_sizes_are_those_of_the_docstring() -> None:
    sizes = {n: sum(p.numel() for p in build_model(400, layers=n).parameters()) for n in (2, 4)}
    assert 0.4e6 < sizes[2] < 0.6e6
    assert 0.8e6 < sizes[4] < 1.0e6


def test_the_folder_loads_like_any_other(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = build_model(len(tokenizer), layers=1)
    save_model(model, tokenizer, tmp_path / "model")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    words = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert words.get_vocab() == tokenizer.get_vocab()
    assert words.chat_template == tokenizer.chat_template
    for text in TEXTS[:20]:
        ids = words.encode(text, add_special_tokens=False)
        assert ids == tokenizer.encode(text, add_special_tokens=False)
    ids = torch.tensor([tokenizer.encode(TEXTS[0], add_special_tokens=False)])
    with torch.no_grad():
        assert torch.equal(loaded.eval()(ids).logits, model(ids).logits)
