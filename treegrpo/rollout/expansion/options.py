"""The options of a plug-in, read from a table of plain values, with one message per wrong one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from treegrpo.envs.errors import UnknownOption, suggest

M = TypeVar("M", bound=BaseModel)

STRICT = ConfigDict(
    frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
)
"""How every model of options is configured."""


def read_options(model: type[M], options: Mapping[str, JsonValue], setting: str, of: str) -> M:
    """Return the options as the model that describes them.

    Args:
        model: the options there are, each with a line that says what it does.
        options: what the user set.
        setting: the setting they stand under, such as expansion_options.
        of: whose options they are, such as "expansion 'random'".

    Raises:
        UnknownOption: one line for each option that does not exist or has a wrong value.
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        lines = dict.fromkeys(_lines(error, model, options, setting, of))
        raise UnknownOption("\n".join(lines)) from None


def _lines(
    error: ValidationError,
    model: type[BaseModel],
    options: Mapping[str, JsonValue],
    setting: str,
    of: str,
) -> Iterator[str]:
    """Yield for each wrong option its name, what was given, what is allowed."""
    for detail in error.errors(include_url=False):
        message: str = detail["msg"]
        if not detail["loc"]:
            yield f"{setting} of {of}: {message.removeprefix('Value error, ')}"
            continue
        name = str(detail["loc"][0])
        if name not in model.model_fields:
            yield _unknown(name, model, setting, of)
            continue
        allowed: Any = message.removeprefix("Input should be ")
        doc = model.model_fields[name].description
        yield f"{setting}.{name} of {of}: got {options[name]!r}; allowed: {allowed}. {doc}"


def _unknown(name: str, model: type[BaseModel], setting: str, of: str) -> str:
    known = ", ".join(model.model_fields) or "none"
    hint = suggest(name, model.model_fields)
    return f"Unknown option '{setting}.{name}' of {of}.{hint} Its options: {known}."
