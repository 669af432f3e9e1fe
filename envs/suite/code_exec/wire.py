"""How a value computed in a sandbox comes out of it, to be judged outside.

Inside, a value is spelled as JSON in which no two values of different types are spelled alike;
outside it is read as data, never run. Code that tampers with the spelling gains nothing: what
would be right is not known inside.
"""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any, cast

SHOW = "_treegrpo_show"
"""The name under which a sandbox knows the function that spells values."""
VALUE_FILE = ".treegrpo-value"
"""Where a long spelling is left, relative to the workspace."""
MAX_INLINE = 16_000
MAX_VALUE_BYTES = 8 * 2**20
_IN_FILE = '{"t":"file"}'

# Runs in a namespace of its own: code under test may call its variables `list` or `json`.
_ENCODER = f"""
import json, fractions
open_ = open

def plain(value, depth):
    if depth > 100:
        return {{"t": "other", "v": "a value nested too deeply"}}
    if value is None or value is True or value is False:
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        number = int(value)
        return number if -2**53 < number < 2**53 else {{"t": "int", "v": hex(number)}}
    if isinstance(value, float):
        number = float(value)
        if number - number == 0:
            return number
        return {{"t": "float", "v": repr(number)}}
    if isinstance(value, complex):
        return {{"t": "complex", "v": [repr(value.real), repr(value.imag)]}}
    if isinstance(value, (bytes, bytearray)):
        return {{"t": "bytes", "v": bytes(value).hex()}}
    if isinstance(value, list):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {{"t": "dict", "v": [[plain(k, depth + 1), plain(v, depth + 1)]
                                    for k, v in value.items()]}}
    for kind in (tuple, frozenset, set):
        if isinstance(value, kind):
            return {{"t": kind.__name__, "v": [plain(item, depth + 1) for item in value]}}
    if isinstance(value, fractions.Fraction):
        return {{"t": "fraction", "v": [hex(value.numerator), hex(value.denominator)]}}
    return {{"t": "other", "v": type(value).__name__}}

class Spelling(str):
    __slots__ = ()
    def __repr__(self):
        return str.__str__(self)

def show(compute):
    text = json.dumps(plain(compute(), 0), separators=(",", ":"))
    if len(text) <= {MAX_INLINE}:
        return Spelling(text)
    with open_({VALUE_FILE!r}, "w") as file:
        file.write(text)
    return Spelling({_IN_FILE!r})
"""
SETUP = f"{SHOW} = {{}}\nexec({_ENCODER!r}, {SHOW})\n{SHOW} = {SHOW}['show']"
"""Code that makes the function known in a sandbox; to be run before anything else."""


class Unreadable(ValueError):
    """A spelling that no value has: what the code gave cannot be judged, so it is wrong."""


class Other:
    """A value of a type that is not carried over; equal to nothing, itself included."""

    def __init__(self, kind: str) -> None:
        """Keep the name of the type, for messages."""
        self.kind = kind

    def __eq__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return hash(self.kind)


def asking(expression: str) -> str:
    """Return code whose value is the spelling of an expression's value."""
    return f"{SHOW}(lambda: (\n{expression}\n))"


def is_in_file(spelling: str) -> bool:
    """Return whether a spelling only says that the value was left in VALUE_FILE."""
    return spelling == _IN_FILE


def read_value(spelling: str) -> Any:
    """Return the value that was spelled.

    Raises:
        Unreadable: the text is no spelling.
    """
    if len(spelling) > MAX_VALUE_BYTES:
        raise Unreadable(f"the value takes more than {MAX_VALUE_BYTES} characters")
    try:
        return _value(json.loads(spelling))
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise Unreadable(f"the value cannot be read: {error}") from None


def _value(plain: object) -> Any:
    if isinstance(plain, list):
        return [_value(item) for item in cast("list[object]", plain)]
    if not isinstance(plain, dict):
        return plain
    tagged = cast("dict[str, Any]", plain)
    content = tagged.get("v")
    match tagged.get("t"):
        case "int":
            return int(str(content), 16)
        case "float":
            return float(str(content))
        case "bytes":
            return bytes.fromhex(str(content))
        case "complex" | "fraction" as kind:
            return _number(kind, cast("list[str]", content))
        case "other":
            return Other(str(content))
        case kind:
            return _container(str(kind), cast("list[object]", content))


def _number(kind: str, parts: list[str]) -> Any:
    one, two = parts
    if kind == "complex":
        return complex(float(one), float(two))
    denominator = int(two, 16)
    if denominator == 0:
        raise ValueError("a fraction with denominator 0")
    return Fraction(int(one, 16), denominator)


def _container(kind: str, items: list[object]) -> Any:
    if kind == "dict":
        pairs = cast("list[list[object]]", items)
        return {_value(key): _value(value) for key, value in pairs}
    makers: dict[str, type[Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}
    if kind not in makers:
        raise ValueError(f"an unknown kind {kind[:20]!r}")
    return makers[kind]([_value(item) for item in items])
