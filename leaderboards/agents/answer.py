"""An answer of a chat endpoint: what an agent reads of it, and what it makes of oddities.

Endpoints differ in what they leave out. Only a message is required; a count that makes no
sense is no count.
"""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    WrapValidator,
)
from pydantic_core.core_schema import ValidatorFunctionWrapHandler

from treegrpo.leaderboards.usage import MAX_COUNT, Usage


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


def _joined(content: Any) -> Any:
    """Return the text of content that comes in parts."""
    if not isinstance(content, list):
        return content
    parts = [cast("dict[str, Any]", p) for p in cast("list[Any]", content) if isinstance(p, dict)]
    return "".join(str(part.get("text") or "") for part in parts)


def _or_none(value: Any, read: ValidatorFunctionWrapHandler) -> Any:
    try:
        return read(value)
    except ValidationError:
        return None


Text = Annotated[str | None, BeforeValidator(_joined)]
Counted = Annotated[int | None, Field(ge=0, le=MAX_COUNT, strict=True), WrapValidator(_or_none)]


class CalledFunction(_Read):
    """The function of a tool call; its arguments as they came: JSON text, or an object."""

    name: str = ""
    arguments: JsonValue = ""


class Called(_Read):
    """One tool call."""

    id: str | None = None
    function: CalledFunction


class Said(_Read):
    """The assistant's message."""

    content: Text = None
    refusal: Text = None
    tool_calls: list[Called] | None = None

    @property
    def text(self) -> str:
        """What was said in words; a refusal counts as such."""
        return self.content or self.refusal or ""


class Choice(_Read):
    """One choice; only the first is read."""

    message: Said
    finish_reason: str | None = None


class InputDetails(_Read):
    """Kinds of input tokens."""

    cached_tokens: Counted = None


class OutputDetails(_Read):
    """Kinds of output tokens."""

    reasoning_tokens: Counted = None


class Count(_Read):
    """The tokens of one request."""

    prompt_tokens: Counted = None
    completion_tokens: Counted = None
    prompt_tokens_details: Annotated[InputDetails | None, WrapValidator(_or_none)] = None
    completion_tokens_details: Annotated[OutputDetails | None, WrapValidator(_or_none)] = None


class Answer(_Read):
    """A whole answer."""

    choices: Annotated[list[Choice], Field(min_length=1)]
    usage: Annotated[Count | None, WrapValidator(_or_none)] = None

    @property
    def said(self) -> Said:
        """The message of the first choice."""
        return self.choices[0].message

    def counted(self, requests: int) -> Usage:
        """Return the tokens by kind; parts that are more than their whole were not counted."""
        count = self.usage or Count()
        details = count.prompt_tokens_details, count.completion_tokens_details
        cached = details[0].cached_tokens if details[0] else None
        reasoning = details[1].reasoning_tokens if details[1] else None
        return Usage(
            input=count.prompt_tokens,
            cached=_part(cached, count.prompt_tokens),
            output=count.completion_tokens,
            reasoning=_part(reasoning, count.completion_tokens),
            requests=requests,
        )


def _part(some: int | None, whole: int | None) -> int | None:
    return None if some is None or whole is None or some > whole else some
