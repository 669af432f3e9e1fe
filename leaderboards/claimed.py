"""Results that were only claimed: numbers from elsewhere, with no episode behind them.

A claim enters a board at tier 0, and each of its numbers has the word "declared". It can be
shown beside results that were replayed, never ranked among them.

    source      who published the numbers, and the digest of the bytes they were read from
    subject     agent, model, environment or dataset, metric
    numbers     score, its uncertainty, its bounds, how many samples; decimal strings as in a
                bundle, so that a claim can be hashed

Null is not zero: it says that the source does not say.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from treegrpo.envs.digest import digest
from treegrpo.leaderboards.schema import Count, Digest, Name, Number, Text

CLAIMED_TIER: Literal[0] = 0
"""The tier of numbers that nobody can replay."""


class Uncertainty(BaseModel):
    """How sure the source is of a score; every field is the source's own word."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    standard_error: Number | None = None
    low: Number | None = None
    """Ends of an interval, both or neither."""
    high: Number | None = None
    confidence: Number | None = None
    """Confidence level of the interval, from 0 to 1."""
    method: Text | None = None
    """How standard error or interval were computed."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval has both ends, or none")
        if self.low is not None and self.high is not None and float(self.low) > float(self.high):
            raise ValueError(f"the interval begins at {self.low} and ends at {self.high}")
        if self.standard_error is not None and float(self.standard_error) < 0:
            raise ValueError(f"a standard error is not negative, found {self.standard_error}")
        if self.confidence is not None and not 0 <= float(self.confidence) <= 1:
            raise ValueError(f"a confidence level lies from 0 to 1, found {self.confidence}")
        return self


class ClaimedResult(BaseModel):
    """One number that somebody published: tier 0, every part of it declared."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    source: Name
    """Name of the board, paper or organisation that published the number."""
    source_format: Name
    """Format that it was read from, with its version: "every-eval-ever 0.3.0"."""
    source_id: Text
    """The source's own id of the evaluation."""
    source_digest: Digest
    """sha256 of the bytes that were read."""
    relationship: Name | None
    """Of the evaluator to the model: first_party, third_party, collaborative, other."""
    agent: Name
    model: Name | None
    """Id of the model, where the source names one."""
    env: Name
    """Environment or dataset."""
    evaluation: Name
    """The source's name of the evaluation: a part of a dataset, for instance."""
    metric: Name
    lower_is_better: bool
    score: Number
    min_score: Number | None
    """Bounds of the metric; null where there is none, or none is stated."""
    max_score: Number | None
    uncertainty: Uncertainty
    num_samples: Count | None
    evaluated: Name | None
    """When it was evaluated: UTC as 2026-11-28T06:00:00Z, or as the source spells it."""
    retrieved: Name
    """When the source's record was made; spelled likewise."""
    library: Name | None
    """What ran the evaluation, with its version."""

    @model_validator(mode="after")
    def _within_bounds(self) -> Self:
        score = float(self.score)
        if self.min_score is not None and score < float(self.min_score):
            raise ValueError(f"score {self.score} lies below min_score {self.min_score}")
        if self.max_score is not None and score > float(self.max_score):
            raise ValueError(f"score {self.score} lies above max_score {self.max_score}")
        return self

    @property
    def tier(self) -> Literal[0]:
        """0, whatever the source says of itself."""
        return CLAIMED_TIER

    @property
    def words(self) -> dict[str, Literal["declared"]]:
        """The word of each number that is there: always "declared"."""
        there = {"score": True, "uncertainty": self.uncertainty != Uncertainty()}
        there["num_samples"] = self.num_samples is not None
        return {name: "declared" for name, found in there.items() if found}

    @property
    def digest(self) -> str:
        """The claim's identity: the digest of all its fields, as 64 hex digits."""
        return digest(self.model_dump(mode="json"))
