"""How a value computed in a sandbox comes out of it, to be judged outside.

Inside, a value is spelled as JSON in which no two values of different types are spelled alike;
outside it is read as data, never run. Code that tampers with the spelling gains nothing: what
would be right is not known inside. A forged spelling must not keep the reader busy either, so
everything that reading or comparing could take long over is capped.
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
MAX_VALUE_BYTES = 2**20
MAX_ELEMENTS = 100_000
"""How many values one value is made of at most, itself and dict keys counted."""
MAX_KEYS = 10_000
"""The largest set or dict: keys can be chosen so that their hashes collide."""
MAX_ALIKE = 100
"""How many keys of one set or dict may have one hash: each is compared with all before it."""
MAX_DIGITS = 4_000
"""The characters of a number: more than Python itself prints; a fraction is reduced slowly."""
MAX_DEPTH = 100
_IN_FILE = '{"t":"file"}'

# Runs in a namespace of its own: code under test may call its variables `list` or `json`.
_ENCODER = f"""
import json, fractions
open_ = open

def plain(value, depth):
    if depth >= {MAX_DEPTH}:
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
        return id(self)  # by kind, a set of them would compare each with all


def asking(expression: str) -> str:
    """Return code whose value is the spelling of an expression's value."""
    return f"{SHOW}(lambda: (\n{expression}\n))"


def is_in_file(spelling: str) -> bool:
    """Return whether a spelling only says that the value was left in VALUE_FILE."""
    return spelling == _IN_FILE


def read_value(spelling: str) -> Any:
    """Return the value that was spelled.

    Raises:
        Unreadable: the text is no spelling, or the value is beyond one of the caps.
    """
    if len(spelling) > MAX_VALUE_BYTES:
        raise Unreadable(f"the value takes more than {MAX_VALUE_BYTES} characters")
    try:
        plain: object = json.loads(
            spelling,
            parse_int=lambda text: int(_digits(text)),
            parse_float=lambda text: float(_digits(text)),
        )
        return _Reader().value(plain, 0)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise Unreadable(f"the value cannot be read: {error}") from None


class _Reader:
    """Turns plain JSON into one value, and counts what the value is made of."""

    def __init__(self) -> None:
        self._elements = 0

    def value(self, plain: object, depth: int) -> Any:
        self._elements += 1
        if self._elements > MAX_ELEMENTS:
            raise Unreadable(f"it is made of more than {MAX_ELEMENTS} values")
        if depth > MAX_DEPTH:
            raise Unreadable(f"it is nested more than {MAX_DEPTH} deep")
        if isinstance(plain, list):
            return [self.value(item, depth + 1) for item in cast("list[object]", plain)]
        if not isinstance(plain, dict):
            return plain
        tagged = cast("dict[str, Any]", plain)
        kind, content = tagged.get("t"), tagged.get("v")
        if kind in ("dict", "tuple", "set", "frozenset"):
            return self._container(kind, content, depth + 1)
        return _scalar(kind, content)

    def _container(self, kind: str, content: object, depth: int) -> Any:
        if not isinstance(content, list):
            raise Unreadable(f"a {kind} without a list of what is in it")
        items = cast("list[Any]", content)
        if kind == "tuple":
            return tuple([self.value(item, depth) for item in items])
        if len(items) > MAX_KEYS:
            raise Unreadable(f"it has a {kind} of more than {MAX_KEYS} keys")
        if kind == "dict":
            keys = [self.value(key, depth) for key, _ in items]
            values = [self.value(value, depth) for _, value in items]
            return dict(zip(_hashable(keys), values, strict=True))
        found = _hashable([self.value(item, depth) for item in items])
        return set(found) if kind == "set" else frozenset(found)


def _hashable(keys: list[Any]) -> list[Any]:
    """Return the keys, of which no more than MAX_ALIKE have the same hash."""
    hashes = sorted(map(hash, keys))
    if any(low == high for low, high in zip(hashes, hashes[MAX_ALIKE:], strict=False)):
        raise Unreadable(f"more than {MAX_ALIKE} keys have the same hash")
    return keys


def _scalar(kind: object, content: Any) -> Any:
    match kind:
        case "int":
            return int(_digits(content), 16)
        case "float":
            return float(_digits(content))
        case "bytes":
            return bytes.fromhex(content)
        case "other":
            return Other(str(content)[:100])
        case "complex":
            real, imaginary = content
            return complex(float(_digits(real)), float(_digits(imaginary)))
        case "fraction":
            one, two = (int(_digits(part), 16) for part in content)
            if two == 0:
                raise Unreadable("a fraction with denominator 0")
            return Fraction(one, two)
        case _:
            raise Unreadable(f"an unknown kind {str(kind)[:20]!r}")


def _digits(text: Any) -> str:
    """Return the text of a number that is not too long to be read."""
    if not isinstance(text, str) or len(text) > MAX_DIGITS:
        raise Unreadable(f"a number takes more than {MAX_DIGITS} characters, or is no text")
    return text
