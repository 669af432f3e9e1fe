"""Loading a model and its tokenizer from a Hugging Face folder or the hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from treegrpo.envs.errors import TreegrpoError


class ModelNotFound(TreegrpoError):
    """No model can be loaded from that folder or id."""


# Its bars over weight files would tear the run's own progress display.
transformers_logging.disable_progress_bar()


def load_model(name: str, *, dtype: str = "float32", device: str = "auto") -> tuple[Any, Any]:
    """Return (model in eval mode on its device, tokenizer).

    Args:
        name: a Hugging Face folder, or a hub id.
        dtype: "float32" or "bfloat16".
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        ModelNotFound: not a model folder, and not to be had from the hub.
    """
    is_path = Path(name).exists() or name.startswith((".", "/", "~")) or name.count("/") > 1
    if is_path and not (Path(name) / "config.json").is_file():
        found = "that is no folder" if not Path(name).is_dir() else "it has no config.json"
        raise ModelNotFound(
            f"Model '{name}' asked for, but {found}. Give a Hugging Face model folder, or a hub "
            "id such as Qwen/Qwen2.5-0.5B-Instruct."
        )
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(name)
        model: Any = AutoModelForCausalLM.from_pretrained(
            name, dtype=getattr(torch, dtype), attn_implementation="sdpa"
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ModelNotFound(
            f"Model '{name}' asked for, but it cannot be loaded{offline}: {first_line} "
            "Give a Hugging Face model folder, or a hub id that this machine can reach."
        ) from error
    return model.to(pick_device(device)).eval(), tokenizer


def pick_device(name: str) -> torch.device:
    """Return the device; "auto" takes a GPU where there is one.

    Raises:
        TreegrpoError: a GPU asked for where there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise TreegrpoError(f"Device '{name}' asked for, but torch sees no GPU. Use device=cpu.")
    return torch.device(name)
