"""Engines: token ids in, sampled token ids and their log-probabilities out.

`treegrpo.engine.base` is the contract (no torch); one module per backend beside it.
"""

from treegrpo.engine.base import (
    Capabilities,
    Context,
    ContextTooLong,
    Engine,
    EngineRefused,
    EngineStats,
    NotFinite,
    ReleasedContext,
    Sampled,
    SamplingParams,
    StaleKV,
)

__all__ = [
    "Capabilities",
    "Context",
    "ContextTooLong",
    "Engine",
    "EngineRefused",
    "EngineStats",
    "NotFinite",
    "ReleasedContext",
    "Sampled",
    "SamplingParams",
    "StaleKV",
]
