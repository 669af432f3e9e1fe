"""Losses over an edge list: pure functions from log-probs to a scalar and its metrics.

    result = get_loss("grpo")(logp_E, edges, LossOptions(clip_high=0.28))

Token ratios: `reinforce`, `grpo`, `dr_grpo`, `dapo`, `cispo` (policy.py). Step and leaf
ratios: `step_ratio`, `gspo` (sequence.py). Others: `sft`, `step_dpo`. Weights sum to at most 1
over the global batch, so losses and metrics of micro-batches add.

The settings load without torch, so that a configuration can be checked without it; the first
use of any other name loads and registers all losses.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from treegrpo.edges import Edges
    from treegrpo.losses.base import (
        Loss,
        LossFunction,
        LossResult,
        check_options,
        drop_loss,
        get_loss,
        loss,
        loss_names,
    )
    from treegrpo.losses.correction import corrected
    from treegrpo.losses.kl import reference_kl
    from treegrpo.losses.metrics import merge, summarise
    from treegrpo.losses.options import LossDefaults, LossOptions
    from treegrpo.losses.policy import cispo, dapo, dr_grpo, grpo, reinforce
    from treegrpo.losses.preference import step_dpo
    from treegrpo.losses.ratio import MAX_LOG_RATIO
    from treegrpo.losses.sequence import gspo, step_ratio
    from treegrpo.losses.supervised import sft

__all__ = [
    "MAX_LOG_RATIO",
    "Edges",
    "Loss",
    "LossDefaults",
    "LossFunction",
    "LossOptions",
    "LossResult",
    "check_options",
    "cispo",
    "corrected",
    "dapo",
    "dr_grpo",
    "drop_loss",
    "get_loss",
    "grpo",
    "gspo",
    "loss",
    "loss_names",
    "merge",
    "reference_kl",
    "reinforce",
    "sft",
    "step_dpo",
    "step_ratio",
    "summarise",
]

_WITHOUT_TORCH = ("LossDefaults", "LossOptions")
_FAMILIES = ("policy", "sequence", "supervised", "preference")
_OTHERS = ("base", "correction", "kl", "metrics", "ratio")


def __getattr__(name: str) -> object:
    """Return a public name, importing what it needs on first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    files = ("options",) if name in _WITHOUT_TORCH else (*_FAMILIES, *_OTHERS)
    modules = [vars(import_module(f"{__name__}.{file}")) for file in files]
    return next(module[name] for module in modules if name in module)


def __dir__() -> list[str]:
    """Return the module's names, the lazy ones included."""
    return sorted({*globals(), *__all__})
