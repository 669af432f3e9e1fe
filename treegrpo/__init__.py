"""Tree-GRPO on real forks: environments, trainer and leaderboards under one import root.

Importing this package is light: no torch, no transformers. The trainer's names are loaded on
first use, so `import treegrpo.envs` and `import treegrpo.leaderboards` stay light as well.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from treegrpo.config import TrainConfig
    from treegrpo.trainer import Trainer

__version__ = "0.1.0"

__all__ = ["TrainConfig", "Trainer", "__version__"]

_LAZY = {"TrainConfig": "treegrpo.config", "Trainer": "treegrpo.trainer"}


def __getattr__(name: str) -> object:
    """Return a public name, importing its module on first use."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    """Return the module's names, the lazy ones included."""
    return sorted({*globals(), *_LAZY})
