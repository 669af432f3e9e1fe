"""Settings of the losses; what is left at its default takes the chosen loss's own value."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class LossOptions(BaseModel):
    """Settings of a loss; none means the loss's own value, or that there is no such bound."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )

    clip_low: float | None = Field(default=None, ge=0, lt=1)
    """Ratios below 1 - clip_low stop pushing a bad token further down."""
    clip_high: float | None = Field(default=None, ge=0)
    """Ratios above 1 + clip_high stop pushing a good token further up."""
    dual_clip: float | None = Field(default=None, gt=1)
    """Ratios above this stop counting against a bad token."""
    kl_beta: float = Field(default=0.0, ge=0)
    """Weight of the KL to the reference policy; 0 needs no reference."""
    kl_estimator: Literal["k1", "k3"] | None = None
    """Form of that KL term: k3 (none means this), or k1 with an unbiased gradient."""
    correction: Literal["none", "tis", "icepop", "sequence_mask"] = "none"
    """What to do where the sampler's log-probs differ from the trainer's."""
    correction_low: float | None = Field(default=None, ge=0, le=1)
    """Least trainer/sampler ratio that trains (icepop 0.5, sequence_mask 0.9)."""
    correction_high: float | None = Field(default=None, ge=1)
    """Largest such ratio (icepop 5, sequence_mask 1.1), or where tis cuts it off (2)."""
    dpo_beta: float | None = Field(default=None, gt=0)
    """How far preferences may move the policy from the reference: less for larger values."""

    @property
    def lowest_ratio(self) -> float:
        """1 - clip_low; 0 where there is no such bound."""
        return 0.0 if self.clip_low is None else 1.0 - self.clip_low

    @property
    def highest_ratio(self) -> float:
        """1 + clip_high; infinite where there is no such bound."""
        return math.inf if self.clip_high is None else 1.0 + self.clip_high

    def given(self) -> dict[str, Any]:
        """Return the settings that differ from their defaults."""
        fields = type(self).model_fields
        return {name: value for name, value in self if value != fields[name].default}


class LossDefaults(LossOptions):
    """A loss's own settings, and the normaliser that its weights are usual with."""

    normaliser: str = "token_mean"
