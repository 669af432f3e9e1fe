"""Whether a model fits into memory, told before anything is loaded."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError, safe_open

from treegrpo.envs.errors import TreegrpoError

GIB = 2**30


class NotEnoughMemory(TreegrpoError):
    """What was asked for does not fit; the message says how much is needed and what shrinks it."""


def free_bytes(device: torch.device) -> int:
    """Return the memory that is free on the device, or for it on the host."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            found = [line.split()[1] for line in file if line.startswith("MemAvailable:")]
        return int(found[0]) * 1024
    except (OSError, IndexError):  # not Linux
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def num_parameters(folder: Path) -> int | None:
    """Return the numbers in a model folder's weight files; None where they cannot be counted."""
    files = sorted(folder.glob("*.safetensors"))
    total = 0
    try:
        for path in files:
            with cast("Any", safe_open)(path, framework="pt") as file:
                names = cast("list[str]", file.keys())
                total += sum(int(math.prod(file.get_slice(name).get_shape())) for name in names)
    except (OSError, SafetensorError):
        return None  # whoever loads it says what is wrong
    return total if files else None


def require_training_room(
    model: str, dtype: torch.dtype, device: torch.device, *, keeps_reference: bool
) -> None:
    """Refuse to train a local model whose weights, gradients and moments do not fit.

    Activations and KV come on top; they are bounded by settings of their own.

    Args:
        model: a folder; of any other name nothing is known beforehand.
        dtype: of the weights, and so of gradients and moments.
        device: where it is trained.
        keeps_reference: whether a second copy of the weights is kept for the KL term.

    Raises:
        NotEnoughMemory: with the sum and what makes it smaller.
    """
    count = num_parameters(Path(model))
    if count is None:
        return
    weights = count * dtype.itemsize
    needed, free = weights * (4 + keeps_reference), free_bytes(device)
    if needed <= free:
        return
    smaller = ["use a smaller model or a larger machine"]
    if keeps_reference:
        smaller.insert(0, "leave out loss_options.kl_beta, which keeps a copy of the weights")
    if dtype != torch.bfloat16:
        smaller.insert(0, "set dtype=bfloat16, which takes half of it")
    raise NotEnoughMemory(
        f"Training '{model}' on {device} was asked for; its {count:,} parameters in {dtype} take "
        f"{needed / GIB:.1f} GiB with gradients, AdamW's two moments"
        f"{' and the reference' if keeps_reference else ''}, and {free / GIB:.1f} GiB are free. "
        f"Either {', or '.join(smaller)}."
    )
