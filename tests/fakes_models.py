"""Tiny models with random weights and a word tokenizer: everything small, nothing downloaded."""

from typing import Any, Literal, cast

import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

Family = Literal["qwen3", "qwen2", "llama"]


def tiny_model(
    family: Family = "qwen3",
    *,
    seed: int = 0,
    vocab_size: int = 61,
    hidden_size: int = 32,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    attention: Literal["sdpa", "eager"] = "sdpa",
) -> PreTrainedModel:
    """Return a model whose outputs differ clearly from token to token."""
    sizes: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": 3 * hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 512,
        # Large weights: distributions far from uniform, so a wrong mask or position shows.
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": None,
        "attn_implementation": attention,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if family == "qwen3":
            return Qwen3ForCausalLM(Qwen3Config(head_dim=hidden_size // heads, **sizes))
        if family == "qwen2":
            return Qwen2ForCausalLM(Qwen2Config(**sizes))
        return LlamaForCausalLM(LlamaConfig(**sizes))


SPECIAL_TOKENS = (
    "<unk>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|eot_id|>",
    "<|start_header_id|>", "<|end_header_id|>", "<tool_call>", "</tool_call>",
    "<tool_response>", "</tool_response>", "<think>", "</think>",
)  # fmt: skip
"""Ids 0 to 12 of the tiny tokenizer; the markers of the tool format are not `special`."""


def tiny_tokenizer(
    chat_template: str | None, *, eos_token: str | None = None
) -> PreTrainedTokenizerFast:
    """Return a tokenizer of single characters that decodes what it encoded, byte for byte."""
    characters = [chr(code) for code in (10, *range(32, 127))]
    vocabulary = {token: i for i, token in enumerate((*SPECIAL_TOKENS, *characters))}
    core = cast(Any, Tokenizer(WordLevel(vocabulary, unk_token="<unk>")))
    core.pre_tokenizer = cast(Any, pre_tokenizers).Split("", "isolated")
    core.decoder = Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", eos_token=eos_token
    )
    cast(Any, tokenizer).add_special_tokens(
        {"additional_special_tokens": list(SPECIAL_TOKENS[1:7])}
    )
    cast(Any, tokenizer).add_tokens(list(SPECIAL_TOKENS[7:]))
    tokenizer.chat_template = chat_template
    return tokenizer
