"""The fields that are read of WebShop's public files, as pydantic models."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field


def _empty_as(kind: type[Any]) -> BeforeValidator:
    """Return a validator that reads "" and null, as the files spell nothing, as an empty kind."""

    def read(value: object) -> object:
        return kind() if value in (None, "") else value

    return BeforeValidator(read)


_Text = Annotated[str, _empty_as(str)]
_Texts = Annotated[list[str], _empty_as(list)]


class InstructionRecord(BaseModel):
    """One instruction that a person wrote for a product."""

    model_config = ConfigDict(extra="ignore")

    instruction: str = Field(min_length=1)
    instruction_attributes: _Texts
    instruction_options: Annotated[list[str] | dict[str, str], _empty_as(list)] = []

    def wanted_options(self) -> list[str]:
        """Return the values of the wanted options."""
        wanted = self.instruction_options
        return list(wanted.values()) if isinstance(wanted, dict) else wanted


class AttributeRecord(BaseModel):
    """What the file of attributes says of one product."""

    model_config = ConfigDict(extra="ignore")

    attributes: _Texts = []
    instruction: str | None = None
    instruction_attributes: _Texts = []

    def told(self) -> list[InstructionRecord]:
        """Return the instruction that was made from attributes, if there is one."""
        if not self.instruction:
            return []
        wanted = self.instruction_attributes
        return [InstructionRecord(instruction=self.instruction, instruction_attributes=wanted)]


class OptionRecord(BaseModel):
    """One value of an option, such as a size."""

    model_config = ConfigDict(extra="ignore")

    value: str


_Price = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
_Options = dict[str, list[OptionRecord] | None]


class ProductRecord(BaseModel):
    """One product, with what the cached form adds to it."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    asin: str = Field(min_length=1)
    name: str = Field(min_length=1, validation_alias=AliasChoices("name", "Title"))
    query: _Text = ""
    category: _Text = ""
    product_category: _Text = ""
    pricing: str | list[_Price] | None = None
    customization_options: Annotated[_Options, _empty_as(dict)] = {}
    options: Annotated[dict[str, list[str]], _empty_as(dict)] = {}
    small_description: str | list[str] | None = Field(
        default=None, validation_alias=AliasChoices("small_description", "BulletPoints")
    )
    full_description: str | None = Field(
        default=None, validation_alias=AliasChoices("full_description", "Description")
    )
    attributes: _Texts = Field(
        default=[], validation_alias=AliasChoices("Attributes", "attributes")
    )
    instructions: Annotated[list[InstructionRecord], _empty_as(list)] = []
    instruction_text: str | None = None
    instruction_attributes: _Texts = []
    instruction_options: Annotated[list[str] | dict[str, str], _empty_as(list)] = []

    def option_texts(self) -> dict[str, list[str]]:
        """Return the values of each option, from whichever field holds them."""
        raw = self.customization_options
        named = {name: [v.value for v in values] for name, values in raw.items() if values}
        return named or self.options

    def bullet_points(self) -> list[str]:
        """Return the lines of the short description."""
        points = self.small_description or []
        return [points] if isinstance(points, str) else points

    def told(self) -> list[InstructionRecord]:
        """Return the instructions that the product itself carries."""
        if self.instructions or not self.instruction_text:
            return self.instructions
        return [
            InstructionRecord(
                instruction=self.instruction_text,
                instruction_attributes=self.instruction_attributes,
                instruction_options=self.instruction_options,
            )
        ]
