"""Tree attention: every token sees its ancestors and itself, computed in several ways.

Importing the package registers the backends; `tree_attention(model, name)` switches one on.
"""

from treegrpo.attention import dense, flex, segments, varlen
from treegrpo.attention.base import (
    Backend,
    BackendRefused,
    attention,
    attention_names,
    get_attention,
    repeat_heads,
    tree_attention,
)
from treegrpo.attention.layout import Segment, TreeLayout

__all__ = [
    "Backend",
    "BackendRefused",
    "Segment",
    "TreeLayout",
    "attention",
    "attention_names",
    "dense",
    "flex",
    "get_attention",
    "repeat_heads",
    "segments",
    "tree_attention",
    "varlen",
]
