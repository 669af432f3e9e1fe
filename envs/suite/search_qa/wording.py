"""How facts are put into words: sentences of pages, phrases of questions, lines of no use.

Every relation has a plain wording, "The mayor of Alburg is Erik.", and another that does not
use its name, "Erik governs Alburg."; questions likewise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

PLAIN = "The {relation} of {s} is {o}."
ONCE = "Until last year the {relation} of {s} was {o}."
"""A fact that holds no more: it answers no question."""
IN_A_NOVEL = "In the novel the {relation} of {s} is {o}."
"""A fact of a story about a name of the real world: it answers no question either."""


@dataclass(frozen=True)
class Wording:
    """A relation in other words: a sentence, the words to find it by, a phrase of a question."""

    sentence: str
    key: str
    phrase: str


OTHER_WORDS: Mapping[str, Wording] = {
    "home": Wording("{s} lives in {o}.", "lives in", "the city lived in by {x}"),
    "birthplace": Wording("{s} was born in {o}.", "was born in", "the native city of {x}"),
    "employer": Wording("{s} works for {o}.", "works for", "the company that employs {x}"),
    "client": Wording("{o} buys from {s}.", "buys from", "the company that buys from {x}"),
    "friend": Wording("{s} likes {o} best.", "likes", "the person liked best by {x}"),
    "mentor": Wording("{o} teaches {s}.", "teaches", "the person who teaches {x}"),
    "seat": Wording(
        "{s} has its head office in {o}.",
        "head office",
        "the city with the head office of {x}",
    ),
    "depot": Wording(
        "{s} keeps its goods in {o}.", "its goods", "the city that stores the goods of {x}"
    ),
    "chief": Wording("{o} leads {s}.", "leads", "the person who leads {x}"),
    "founder": Wording("{o} started {s}.", "started", "the person who started {x}"),
    "mayor": Wording("{o} governs {s}.", "governs", "the person who governs {x}"),
    "architect": Wording("{o} planned {s}.", "planned", "the person who planned {x}"),
}

FILLERS: Mapping[str, tuple[str, ...]] = {
    "person": (
        "{s} gets up early.",
        "{s} has a red coat.",
        "{s} plays chess on Sundays.",
        "{s} speaks three languages.",
        "{s} never eats fish.",
        "{s} keeps two cats.",
        "{s} can swim far.",
        "{s} collects old maps.",
        "{s} paints in the evening.",
        "{s} has a sister at sea.",
    ),
    "city": (
        "{s} has long winters.",
        "{s} lies on a river.",
        "{s} has a clock tower.",
        "{s} is known for its bread.",
        "{s} has two bridges.",
        "{s} holds a fair in spring.",
        "{s} has narrow streets.",
        "{s} burned down once.",
        "{s} has a small harbour.",
        "{s} is full of gardens.",
    ),
    "company": (
        "{s} makes lamps.",
        "{s} owns nine trucks.",
        "{s} closes in August.",
        "{s} has a green sign.",
        "{s} pays on Fridays.",
        "{s} sells by post.",
        "{s} has its own choir.",
        "{s} prints a calendar.",
        "{s} won a prize for glass.",
        "{s} has a night shift.",
    ),
    "novel": (
        "It is short.",
        "It was read on the radio.",
        "It has a sad end.",
        "It was made into a film.",
    ),
}


def plain_phrase(relation: str, inner: str) -> str:
    """Return "the mayor of Alburg" for ("mayor", "Alburg")."""
    return f"the {relation} of {inner}"


def other_phrase(relation: str, inner: str) -> str:
    """Return "the person who governs Alburg" for ("mayor", "Alburg")."""
    return OTHER_WORDS[relation].phrase.format(x=inner)
