"""How many tokens a KV pool holds: what the user says, or a share of the memory that is free."""

from treegrpo.engine.base import EngineRefused
from treegrpo.engine.kv import KVShape
from treegrpo.memory import free_bytes

MEMORY_SHARE = 0.3
"""Of the memory that is free, what the pool takes if its size is not given."""


def pool_tokens(shape: KVShape, longest: int, asked: int | None, max_rows: int) -> int:
    """Return how many tokens the pool holds; refuse where one context would not fit.

    Args:
        shape: of the model's KV.
        longest: tokens of the longest context.
        asked: the user's own number.
        max_rows: contexts that the pool holds at most if its size is not given.
    """
    a_token = 2 * shape.layers * shape.heads * shape.head_dim * shape.dtype.itemsize
    free = free_bytes(shape.device)
    tokens = min(int(MEMORY_SHARE * free) // a_token, max_rows * longest)
    tokens = tokens if asked is None else asked
    needed = f"{longest * a_token / 2**20:.0f} MiB in {shape.dtype}"
    if tokens < longest:
        found = "" if asked is None else f"kv_tokens={tokens}, and "
        raise EngineRefused(
            f"A pool for contexts of up to {longest} tokens was asked for, which takes {needed}; "
            f"found {found}{free / 2**20:.0f} MiB free memory. Set engine_options.kv_tokens to at "
            f"least {longest}, lower max_context_tokens, or free some memory."
        )
    if tokens * a_token > free:
        raise EngineRefused(
            f"A pool of kv_tokens={tokens} was asked for, which takes "
            f"{tokens * a_token / 2**20:.0f} MiB; found {free / 2**20:.0f} MiB free memory. Lower "
            "engine_options.kv_tokens, or load the model with dtype=bfloat16, which takes half."
        )
    return tokens
