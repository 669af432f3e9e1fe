"""Models and tokenizers from a Hugging Face folder or the hub, and back into a folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer

from treegrpo.envs.errors import TreegrpoError

_HUB_SECONDS = 5.0  # the hub answers in well under a second, or not at all


class ModelNotFound(TreegrpoError):
    """No model can be loaded from that folder or id."""


class NotWritten(TreegrpoError):
    """A model cannot be written there; nothing half-written was left."""


def load_model(name: str, *, dtype: str = "float32", device: str = "auto") -> tuple[Any, Any]:
    """Return (model in eval mode on its device, tokenizer).

    Args:
        name: a Hugging Face folder, or a hub id; the network is asked for a hub id only.
        dtype: "float32" or "bfloat16".
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        ModelNotFound: not a model folder, damaged, or not to be had from the hub.
    """
    target = pick_device(device)
    local = _is_local(name) or not _hub_has(name)
    options: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
    try:
        tokenizer = cast("Any", AutoTokenizer).from_pretrained(name, **options)
        model, report = cast("Any", AutoModelForCausalLM).from_pretrained(
            name,
            dtype=getattr(torch, dtype),
            attn_implementation="sdpa",
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # a foreign folder makes the loaders raise anything
        raise _unloadable(name, error, on_hub=not local) from error
    if missing := sorted(report["missing_keys"]):
        raise ModelNotFound(
            f"Model '{name}' asked for, but its weight files lack {len(missing)} tensors, the "
            f"first is '{missing[0]}'. Get the folder again, complete."
        )
    return model.to(target).eval(), tokenizer


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write both as a Hugging Face folder, whole or not at all; an older one is replaced.

    Raises:
        NotWritten: no room, or no right to write.
    """
    part = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        write_model(model, tokenizer, part)
        if folder.exists():
            shutil.rmtree(folder)
        part.replace(folder)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).strip() or repr(error)
        raise NotWritten(
            f"Writing a model to '{folder}' asked for, but: {reason}. Free some space, or choose "
            "another folder."
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write the files of a Hugging Face folder, readable by whom the folder is."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(str(folder))
    for file in folder.iterdir():
        # safetensors makes its files for the owner only, and published models are read by all.
        file.chmod(file.stat().st_mode | (folder.stat().st_mode & 0o044))


def pick_device(name: str) -> torch.device:
    """Return the device; "auto" takes a GPU where there is one.

    Raises:
        TreegrpoError: a GPU asked for that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if (device.index or 0) >= count:
        raise TreegrpoError(
            f"Device '{name}' asked for, but torch sees {count or 'no'} GPU. Use device=cpu."
        )
    return device


def _is_local(name: str) -> bool:
    """Return whether the name is a folder's; refuse a folder without a model."""
    path = Path(name)
    if not (path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1):
        return False
    if (path / "model" / "config.json").is_file():
        raise ModelNotFound(
            f"Model '{name}' asked for, but that is a run's folder. Did you mean "
            f"'{path / 'model'}'?"
        )
    if not (path / "config.json").is_file():
        found = "there is no such folder"
        if path.exists():
            found = "it has no config.json" if path.is_dir() else "that is a file"
        raise ModelNotFound(
            f"Model '{name}' asked for, but {found}. Give a Hugging Face model folder, or a hub "
            "id such as Qwen/Qwen2.5-0.5B-Instruct."
        )
    return True


def _hub_has(name: str) -> bool:
    """Return whether the hub can be asked for the model; if not, the cache is all there is.

    One short question first: the loaders themselves try for most of a minute.
    """
    from huggingface_hub import model_info
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return False
    try:
        model_info(name, timeout=_HUB_SECONDS)
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelNotFound(
            f"Model '{name}' asked for, but there is no folder of that name, and the hub has no "
            "such model that you may read. Check the spelling; a private model needs HF_TOKEN."
        ) from error
    except Exception:  # noqa: BLE001 - no network shows as whatever the HTTP client raises
        return False
    return True


def _unloadable(name: str, error: Exception, *, on_hub: bool) -> ModelNotFound:
    if not on_hub and not Path(name).exists():
        return ModelNotFound(
            f"Model '{name}' asked for, but there is no folder of that name, the hub cannot be "
            "reached, and the local cache does not hold it. Check the spelling or the network, "
            "or give a Hugging Face model folder."
        )
    lines = str(error).strip().splitlines() or [repr(error)]
    return ModelNotFound(
        f"Model '{name}' asked for, but it cannot be loaded: {lines[0].rstrip('. ')}. Give a "
        "causal language model that is complete: config.json, tokenizer files and weights."
    )
