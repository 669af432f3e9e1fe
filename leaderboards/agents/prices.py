"""What tokens cost: a dated price table, as a TOML file of the user's.

    name = "openai"
    date = 2026-11-01
    currency = "USD"

    [models."some-model"]        # dollars per million tokens
    input = 2.50
    cached = 0.25                # default: as input
    output = 10
    reasoning = 10               # default: as output

The id of this table is "openai-2026-11-01"; it stands in the manifest of every bundle whose
dollars were computed with it. Amounts are decimal, never binary floats.
"""

from __future__ import annotations

import tomllib
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.errors import first_fault
from treegrpo.leaderboards.schema import Name
from treegrpo.leaderboards.usage import Usage

MILLION = Decimal(1_000_000)
MAX_TABLE_BYTES = 2**20
Price = Annotated[Decimal, Field(ge=0, le=1_000_000, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ModelPrices(_Strict):
    """Dollars per million tokens of each kind."""

    input: Price
    cached: Price | None = None
    """Of the input tokens that a cache served; as input where there is none."""
    output: Price
    reasoning: Price | None = None
    """Of hidden thoughts; as output where there is none."""

    def cost(self, usage: Usage) -> Decimal | None:
        """Return the dollars of an episode; None where input or output was not counted."""
        if usage.input is None or usage.output is None:
            return None
        cached, hidden = usage.cached or 0, usage.reasoning or 0
        total = (usage.input - cached) * self.input + (usage.output - hidden) * self.output
        total += cached * (self.input if self.cached is None else self.cached)
        total += hidden * (self.output if self.reasoning is None else self.reasoning)
        return total / MILLION


class PriceTable(_Strict):
    """The prices of one day."""

    name: Annotated[Name, Field(max_length=100)]
    date: date
    currency: Literal["USD"]
    models: dict[Name, ModelPrices]

    @property
    def id(self) -> str:
        """The name and the date, such as "openai-2026-11-01"."""
        return f"{self.name}-{self.date.isoformat()}"


def read_prices(path: Path) -> PriceTable:
    """Return the price table of a TOML file.

    Raises:
        TreegrpoError: no such file, no TOML, or a field that is missing, unknown or wrong.
    """
    where = f"Prices from '{path}' asked for, but"
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise TreegrpoError(f"{where} it has more than {MAX_TABLE_BYTES} bytes.")
        fields = tomllib.loads(path.read_text("utf-8"), parse_float=Decimal)
        return PriceTable.model_validate(fields)
    except OSError as error:
        raise TreegrpoError(f"{where} it cannot be read: {error.strerror}.") from None
    except ValidationError as error:
        raise TreegrpoError(
            f'{where} {first_fault(error)}. Give name, date, currency = "USD" and, by model, '
            "input and output in dollars per million tokens."
        ) from None
    except (ValueError, RecursionError) as error:
        raise TreegrpoError(f"{where} it is no TOML in UTF-8: {error}.") from None
