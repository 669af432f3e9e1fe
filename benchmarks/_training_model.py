"""The models that tree_training trains: sizes as published, weights random."""

from __future__ import annotations

import copy
import types
from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen3Config

MAX_POSITIONS = 131_072

SCRATCH_10M = Qwen3Config(
    vocab_size=2048,
    hidden_size=320,
    num_hidden_layers=8,
    num_attention_heads=10,
    num_key_value_heads=10,
    head_dim=32,
    intermediate_size=880,
    max_position_embeddings=MAX_POSITIONS,
    tie_word_embeddings=True,
    pad_token_id=0,
    bos_token_id=None,
    eos_token_id=3,
)
"""10.0M parameters in the body: small enough to be trained from nothing on a CPU."""


def qwen25(hidden: int, layers: int, heads: int, intermediate: int) -> Qwen2Config:
    """Return the configuration of a Qwen2.5 model with two key heads."""
    return Qwen2Config(
        vocab_size=151_936,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=2,
        intermediate_size=intermediate,
        max_position_embeddings=MAX_POSITIONS,
        tie_word_embeddings=True,
    )


QWEN_05B = qwen25(896, 24, 14, 4864)
QWEN_15B = qwen25(1536, 28, 12, 8960)
CONFIGS: dict[str, Any] = {"0.5B": QWEN_05B, "1.5B": QWEN_15B, "10M": SCRATCH_10M}


def build(config: Any, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Any:
    """Return an untrained causal language model in eval mode; the same one every time."""
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        return cast("Any", AutoModelForCausalLM).from_config(config, dtype=dtype).eval()


def in_float64(model: Any) -> Any:
    """Return a copy that computes in float64 throughout.

    The library's norms round to float32 on the way, and a rounding can fall either way.
    """
    exact = copy.deepcopy(model).double()
    for module in exact.modules():
        if hasattr(module, "variance_epsilon"):
            module.forward = types.MethodType(_norm, module)
    return exact


def _norm(self: Any, hidden: torch.Tensor) -> torch.Tensor:
    variance = hidden.pow(2).mean(-1, keepdim=True)
    return self.weight * hidden * torch.rsqrt(variance + self.variance_epsilon)


def build_10m() -> Any:
    """Return the 10M model in float32 on the CPU."""
    return build(SCRATCH_10M)
