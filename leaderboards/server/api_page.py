"""The API as a page: what openapi.json says, for people, without a script from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from treegrpo.leaderboards.site.pages import POLICY

_SITE, _SERVER = "treegrpo.leaderboards.site", "treegrpo.leaderboards.server"


@dataclass(frozen=True)
class Field:
    """One thing that a request may hold."""

    name: str
    place: str
    type: str
    required: bool


@dataclass(frozen=True)
class Endpoint:
    """One endpoint as the page shows it."""

    id: str
    method: str
    path: str
    text: str
    fields: tuple[Field, ...]
    answers: str


def render_api(openapi: Mapping[str, Any]) -> str:
    """Return the page that describes an API.

    Args:
        openapi: the API's OpenAPI document.
    """
    template = _templates().get_template("api.html.j2")
    return template.render(root="", policy=POLICY, endpoints=list(endpoints(openapi)))


def endpoints(openapi: Mapping[str, Any]) -> Iterator[Endpoint]:
    """Yield every endpoint of an OpenAPI document, in its order."""
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            responses = operation["responses"].items()
            answers = "; ".join(f"{code} {answer['description']}" for code, answer in responses)
            yield Endpoint(
                id=operation["operationId"],
                method=method.upper(),
                path=path,
                text=operation.get("description", ""),
                fields=tuple(_fields(openapi, operation)),
                answers=answers,
            )


def _fields(openapi: Mapping[str, Any], operation: Mapping[str, Any]) -> Iterator[Field]:
    for one in operation.get("parameters", ()):
        yield Field(one["name"], one["in"], _type(one["schema"]), one.get("required", False))
    for content in operation.get("requestBody", {}).get("content", {}).values():
        schema = _resolved(openapi, content["schema"])
        for name, field in schema.get("properties", {}).items():
            yield Field(name, "body", _type(field), name in schema.get("required", ()))


def _resolved(openapi: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in schema:
        return schema
    return openapi["components"]["schemas"][schema["$ref"].rpartition("/")[2]]


def _type(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    return str(schema.get("type", "any"))


@cache
def _templates() -> Environment:
    return Environment(
        loader=ChoiceLoader([PackageLoader(_SERVER), PackageLoader(_SITE)]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
