"""How a starter is built, without what builds it: the command line reads its defaults here.

Importing treegrpo.starter takes seconds, and `treegrpo warmstart --help` should not.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_Share = Annotated[float, Field(ge=0, lt=1)]
_Count = Annotated[int, Field(ge=1)]


class StarterSettings(BaseModel):
    """How a starter is built; with short episodes the defaults take about three minutes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    demonstrations: _Count = 6000
    """Episodes of the training split that the oracle plays."""
    mistakes: _Share = 0.1
    """Share of the oracle's steps that are a random action instead."""
    difficulty: _Count | None = None
    """Level of the tasks; None for all."""
    layers: _Count = 4
    """Layers of the model, of width 128."""
    vocabulary: Annotated[int, Field(ge=300)] = 1024
    """Most tokens of the tokenizer."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Decides everything."""
