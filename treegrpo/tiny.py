"""A tiny language model and tokenizers for it, built from nothing.

All are saved as an ordinary Hugging Face folder: `AutoModelForCausalLM.from_pretrained` and
`AutoTokenizer.from_pretrained` load it like any other.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, cast

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from treegrpo.loading import save_model

__all__ = ["build_bpe_tokenizer", "build_model", "build_tokenizer", "save_model"]

END, START, PAD, UNKNOWN = "<|im_end|>", "<|im_start|>", "<|pad|>", "<|unk|>"

# A token is: the fixed opening of a tool call, its fixed end, a tag, a quoted SQL name, a
# word or a sign. White space separates and is not kept: decoding joins by single spaces.
_TOKEN = r"""\{"name": "\w+", "arguments": \{(?:"\w+": ")?|"?\}\}|<\|?/?\w+\|?>|'\w+'|\w+|[^\w\s]"""

# ChatML without system text and tool schemas: so small a model learns its tools from
# demonstrations, and every prompt token costs time.
_CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return a word-level tokenizer that knows every word of `texts`, and a chat template.

    The vocabulary is ordered by name, so it depends on the set of words alone.
    """
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(cast("list[str]", re.findall(_TOKEN, text)))
    words = sorted(set(counts) | {"system", "user", "assistant", "tool"})
    special = [PAD, UNKNOWN, START, END]
    vocabulary = {w: i for i, w in enumerate([*special, *(w for w in words if w not in special)])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    splitter: Any = pre_tokenizers.Split(Regex(_TOKEN), behavior="removed", invert=True)
    cast("Any", core).pre_tokenizer = splitter
    return _with_chat_template(core)


def build_bpe_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer of at most `vocabulary` tokens, and a chat template.

    Nothing is lost in it, so it suits texts of any kind; digits are tokens of their own.
    """
    core = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits: Any = pre_tokenizers.Digits(individual_digits=True)
    cast("Any", core).pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    cast("Any", core).decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, UNKNOWN, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return _with_chat_template(core)


def _with_chat_template(core: Tokenizer) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[START],
    )
    tokenizer.chat_template = _CHAT_TEMPLATE
    return tokenizer


def build_model(
    vocab_size: int,
    *,
    layers: int = 4,
    width: int = 128,
    max_context_tokens: int = 2048,
    seed: int = 0,
) -> Any:
    """Return an untrained Qwen3 causal language model in float32.

    4 layers of width 128 have about 0.9M parameters. The initial standard deviation of 0.06
    is three times the library's default: with 0.02 so small a model takes several times as
    long to learn to copy from its context.
    """
    config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        num_key_value_heads=width // 32,
        head_dim=32,
        intermediate_size=3 * width,
        max_position_embeddings=max_context_tokens,
        tie_word_embeddings=True,
        initializer_range=0.06,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config).eval()
