"""The one signature of tree attention, and how a Hugging Face model is made to use it.

    with tree_attention(model, "dense"):
        model(input_ids=ids_BU, position_ids=layout.position_BU, tree_layout=layout)

Backends are registered with transformers' attention interface as "treegrpo_NAME". Models of the
library hand unknown keyword arguments on to it, so the layout reaches each layer unchanged.

Shapes: B rows, H heads, K key heads, U columns, D numbers a head.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeAlias

from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from treegrpo.attention.layout import TreeLayout
from treegrpo.envs.errors import TreegrpoError, UnknownOption, suggest
from treegrpo.names import Names

Backend: TypeAlias = Callable[[Tensor, Tensor, Tensor, TreeLayout, float], Tensor]
"""(query_BHUD, key_BKUD, value_BKUD, layout, scale) -> out_BHUD."""

PREFIX = "treegrpo_"
RESERVED = ("auto", "flat", "whole")

_BACKENDS: Names[Backend] = Names("attention")


class BackendRefused(TreegrpoError):
    """A backend does not compute what it was given; `reason` is the message's second part."""

    def __init__(self, asked: str, reason: str, to_do: str) -> None:
        self.reason = reason
        super().__init__(f"{asked}, but {reason}. {to_do}.")


def attention(name: str) -> Callable[[Backend], Backend]:
    """Return a decorator that registers a backend, also with transformers.

    Raises:
        TreegrpoError: the name is taken, or means something else as a setting.
    """
    if name in RESERVED:
        raise TreegrpoError(
            f"Attention '{name}' asked to be registered, but as a setting that name means "
            "something else. Choose another name."
        )

    def register(backend: Backend) -> Backend:
        _BACKENDS.add(name)(backend)
        AttentionInterface.register(PREFIX + name, _adapted(backend))
        AttentionMaskInterface.register(PREFIX + name, _no_mask)
        return backend

    return register


def get_attention(name: str) -> Backend:
    """Return the backend registered as `name`.

    Raises:
        UnknownOption: no such backend; suggests the closest name.
    """
    try:
        return _BACKENDS.get(name)
    except UnknownOption:
        choices = [*_BACKENDS.names(), "auto", "flat"]
        raise UnknownOption(
            f"Unknown attention '{name}'.{suggest(name, choices)} Known: {', '.join(choices)}."
        ) from None


def attention_names() -> list[str]:
    """Return the registered names, sorted."""
    return _BACKENDS.names()


@contextmanager
def tree_attention(model: Any, name: str) -> Generator[None]:
    """Let the model attend with a backend; afterwards it has its own attention again."""
    get_attention(name)
    config = model.config
    before = config._attn_implementation
    config._attn_implementation = PREFIX + name
    try:
        yield
    finally:
        config._attn_implementation = before


def repeat_heads(value_BKUD: Tensor, heads: int) -> Tensor:
    """Return the tensor with each key head repeated for the query heads that share it."""
    times = heads // value_BKUD.shape[1]
    return value_BKUD if times == 1 else value_BKUD.repeat_interleave(times, dim=1)


def _adapted(backend: Backend) -> Callable[..., tuple[Tensor, None]]:
    def attend(
        module: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        *,
        tree_layout: TreeLayout,
        scaling: float | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        _require_plain(kwargs)
        del module, attention_mask  # no mask but the layout's
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        out_BHUD = backend(query, key, value, tree_layout, scale)
        return out_BHUD.transpose(1, 2).contiguous(), None

    return attend


def _require_plain(settings: dict[str, Any]) -> None:
    """Refuse what a model asks of attention and no backend computes."""
    for name in ("softcap", "s_aux", "position_bias"):
        if settings.get(name) is not None:
            raise BackendRefused(
                "Tree attention asked for",
                f"the model's own attention has '{name}', which no backend computes",
                "Train it with attention=flat",
            )


def _no_mask(**kwargs: Any) -> None:
    """The layout is the mask: transformers must not build one."""
    del kwargs
