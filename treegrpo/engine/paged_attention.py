"""How a Hugging Face model attends through the native engine: one packed row of tokens.

    with kv_attention(model):
        forward(ids_T, positions_T, wanted_G, attend)

Models of the library hand unknown keyword arguments on to the attention function, so `attend`
reaches each layer unchanged: it stores the new keys and values and returns what the queries see.

Shapes: T tokens of the packed row, H query heads, K key heads, D head size, G outputs, V words.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeAlias, cast

from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel

from treegrpo.engine.base import EngineRefused

NAME = "treegrpo_native"

Attend: TypeAlias = Callable[[int, Tensor, Tensor, Tensor, float], Tensor]
"""(layer, query_HTD, key_KTD, value_KTD, scale) -> out_THD."""

Forward: TypeAlias = Callable[[Tensor, Tensor, Tensor, Attend], Tensor]
"""(ids_T, positions_T, wanted_G, attend) -> logits_GV."""


def forward_of(model: PreTrainedModel) -> Forward:
    """Return the model as a function of packed tokens; it computes the wanted outputs only."""

    def forward(ids_T: Tensor, positions_T: Tensor, wanted_G: Tensor, attend: Attend) -> Tensor:
        output = model(
            input_ids=ids_T[None],
            position_ids=positions_T[None],
            use_cache=False,
            logits_to_keep=wanted_G,
            attend=attend,
        )
        return output.logits[0]

    return forward


@contextmanager
def kv_attention(model: PreTrainedModel) -> Generator[None]:
    """Let the model attend through `attend`; afterwards it has its own attention again."""
    config = cast(Any, model.config)
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    attend: Attend,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    del attention_mask  # none was made: transformers knows no mask of this name
    for name in ("softcap", "s_aux", "position_bias", "sliding_window"):
        if kwargs.get(name) is not None:
            raise EngineRefused(
                f"The native engine was asked to compute {type(module).__name__} and found that "
                f"its attention has {name!r}, which it does not know. Use the engine 'hf'."
            )
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return attend(module.layer_idx, query[0], key[0], value[0], scale)[None], None


AttentionInterface.register(NAME, _attention)
