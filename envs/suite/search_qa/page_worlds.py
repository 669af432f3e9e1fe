"""Small generated worlds as pages: one page per person, city and company, to open and read.

Names and relations are those of `worlds`; facts, wordings, facts of the past, lines of no use
and pages about novels of the same name are drawn anew for every world, the more of them the
higher the level. A fact may stand in the worlds of one split only, decided by its three places
in the lists, so nothing that is true in one split is true in another.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from treegrpo.envs.digest import stable_seed
from treegrpo.envs.suite.search_qa.schemas import Document
from treegrpo.envs.suite.search_qa.shelf import Shelf
from treegrpo.envs.suite.search_qa.wording import FILLERS, IN_A_NOVEL, ONCE, OTHER_WORDS, PLAIN
from treegrpo.envs.suite.search_qa.worlds import RELATIONS, Fact, Kind, names

SPLITS = ("train", "validation", "test")
NUM_WORLDS: Mapping[str, int] = {"train": 400, "validation": 100, "test": 100}
_PER_WORLD: Mapping[Kind, int] = {"person": 12, "city": 9, "company": 6}
_LISTS = (*map(names, _PER_WORLD), list(RELATIONS))
_PLACES: Mapping[str, int] = {word: place for one in _LISTS for place, word in enumerate(one)}


@dataclass(frozen=True)
class Level:
    """What makes a level: hops, other words, and the shares of what leads astray.

    `missing` is the share of facts that no page tells, `unanswerable` that of questions about
    one of them; `outdated` that of facts with an outdated one beside them; `novels` that of
    names with a page about a novel, too; `fillers` counts lines of no use on a page.
    """

    hops: int
    fillers: int = 0
    rewords_pages: bool = False
    rewords_questions: bool = False
    missing: float = 0.0
    unanswerable: float = 0.0
    outdated: float = 0.0
    novels: float = 0.0


LEVELS: Mapping[int, Level] = {
    1: Level(1),
    2: Level(2, fillers=2),
    3: Level(3, fillers=3, rewords_pages=True, missing=0.12, unanswerable=0.2),
    4: Level(4, 4, rewords_pages=True, missing=0.12, unanswerable=0.2, outdated=0.3),
    5: Level(4, 10, True, True, missing=0.12, unanswerable=0.25, outdated=0.3, novels=0.4),
}


@dataclass(frozen=True)
class Told:
    """A fact as a page tells it, and the words by which the sentence can be found."""

    fact: Fact
    sentence: str
    key: str


class PageWorld:
    """One world: what its pages tell, by (subject, relation), and the pages themselves."""

    def __init__(
        self, told: dict[tuple[str, str], Told], kinds: dict[str, Kind], pages: list[Document]
    ) -> None:
        """Keep what was drawn; the pages are indexed when first searched."""
        self.told, self.kinds, self.pages = told, kinds, tuple(pages)

    @functools.cached_property
    def shelf(self) -> Shelf:
        """The pages, to search and to open."""
        return Shelf(self.pages)

    def follow(self, subject: str, relations: Sequence[str]) -> list[Told]:
        """Return the chain of facts from `subject` on, up to the first that no page tells."""
        chain: list[Told] = []
        for relation in relations:
            if (subject, relation) not in self.told:
                break
            chain.append(self.told[subject, relation])
            subject = chain[-1].fact.object
        return chain


@functools.lru_cache(maxsize=512)
def build_pages(level: int, split: str, number: int) -> PageWorld:
    """Return world `number` of a level and split: a pure function, kept for reuse."""
    rng = np.random.default_rng(stable_seed("search_qa pages", level, split, number))
    shape, kinds = LEVELS[level], _members(rng)
    told: dict[tuple[str, str], Told] = {}
    for subject in kinds:
        for fact in _facts_of(rng, subject, kinds, split):
            if rng.random() >= shape.missing:
                told[subject, fact.relation] = _tell(rng, fact, shape)
    pages = [_page(rng, name, kinds, told, shape) for name in kinds]
    pages += [_novel(rng, name, kinds) for name in kinds if rng.random() < shape.novels]
    order = rng.permutation(len(pages))
    return PageWorld(told, kinds, [pages[int(i)] for i in order])


def fact_split(fact: Fact) -> str:
    """Return the split in whose worlds this fact may stand."""
    places = _PLACES[fact.subject] + _PLACES[fact.relation] + _PLACES[fact.object]
    return SPLITS[places % len(SPLITS)]


def _members(rng: np.random.Generator) -> dict[str, Kind]:
    """Return the names of a world: as many of each third, so every fact has objects to draw."""
    kinds: dict[str, Kind] = {}
    for kind, count in _PER_WORLD.items():
        for third in range(len(SPLITS)):
            some = names(kind)[third :: len(SPLITS)]
            for i in rng.permutation(len(some))[: count // len(SPLITS)]:
                kinds[some[int(i)]] = kind
    return kinds


def _facts_of(
    rng: np.random.Generator, subject: str, kinds: Mapping[str, Kind], split: str
) -> list[Fact]:
    facts: list[Fact] = []
    for relation, (start, end) in RELATIONS.items():
        if start != kinds[subject]:
            continue
        objects = [name for name, kind in kinds.items() if kind == end and name != subject]
        fitting = [Fact(subject, relation, name) for name in objects]
        fitting = [fact for fact in fitting if fact_split(fact) == split]
        facts.append(fitting[int(rng.integers(len(fitting)))])
    return facts


def _tell(rng: np.random.Generator, fact: Fact, shape: Level) -> Told:
    other = OTHER_WORDS[fact.relation]
    if shape.rewords_pages and rng.random() < 0.6:
        return Told(fact, other.sentence.format(s=fact.subject, o=fact.object), other.key)
    return Told(fact, _plain(PLAIN, fact), fact.relation)


def _plain(form: str, fact: Fact) -> str:
    return form.format(relation=fact.relation, s=fact.subject, o=fact.object)


def _page(
    rng: np.random.Generator,
    name: str,
    kinds: Mapping[str, Kind],
    told: Mapping[tuple[str, str], Told],
    shape: Level,
) -> Document:
    """Return the page of a name: what it is, then its facts and other lines in random order."""
    relations = [r for r, (start, _) in RELATIONS.items() if start == kinds[name]]
    lines = [told[name, r].sentence for r in relations if (name, r) in told]
    lines += [
        _plain(ONCE, _other_fact(rng, name, relation, kinds, told))
        for relation in relations
        if rng.random() < shape.outdated
    ]
    fillers = FILLERS[kinds[name]]
    lines += [fillers[int(i)].format(s=name) for i in rng.permutation(len(fillers))][
        : shape.fillers
    ]
    order = [lines[int(i)] for i in rng.permutation(len(lines))]
    return Document(name, " ".join([f"{name} is a {kinds[name]}.", *order]))


def _other_fact(
    rng: np.random.Generator,
    subject: str,
    relation: str,
    kinds: Mapping[str, Kind],
    told: Mapping[tuple[str, str], Told],
) -> Fact:
    """Return a fact that is false: its object is not the one that a page tells."""
    known = told.get((subject, relation))
    avoided = {subject, known.fact.object if known else subject}
    end = RELATIONS[relation][1]
    objects = [name for name, kind in kinds.items() if kind == end and name not in avoided]
    return Fact(subject, relation, objects[int(rng.integers(len(objects)))])


def _novel(rng: np.random.Generator, name: str, kinds: Mapping[str, Kind]) -> Document:
    relations = [r for r, (start, _) in RELATIONS.items() if start == kinds[name]]
    lines = [
        _plain(IN_A_NOVEL, _other_fact(rng, name, relation, kinds, {})) for relation in relations
    ]
    lines += [FILLERS["novel"][int(i)] for i in rng.permutation(len(FILLERS["novel"]))[:2]]
    order = [lines[int(i)] for i in rng.permutation(len(lines))]
    return Document(f"{name} (novel)", " ".join([f"{name} is a novel.", *order]))
