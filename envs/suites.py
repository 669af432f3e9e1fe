"""Suites: named sets of environments with splits and weights, and one score over them.

    suite = find_suite("treegrpo/core-v1")
    for entry in suite.entries:
        env = registry.make(entry.env, **entry.options)
    suite.score({entry.name: success_rate_of(entry) for entry in suite.entries})

Other packages register theirs through the entry-point group of the environments,
"treegrpo.envs". The version at the end of a name goes up with any change of its entries.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import gymnasium.error
from gymnasium.envs.registration import parse_env_id

from treegrpo.envs import registry
from treegrpo.envs.digest import digest
from treegrpo.envs.errors import (
    SnapshotUnsupported,
    TreegrpoError,
    UnknownEnv,
    UnknownOption,
    suggest,
)

# Every suite by name, in order of arrival.
_registered: dict[str, Suite] = {}


@dataclass(frozen=True)
class SuiteEntry:
    """One member: an environment with its options, the split it is scored on, its weight.

    `null_success` and `oracle_success` are the success rates, from 0 to 1, that count as 0 and
    as 1 in the suite's score.
    """

    env: str
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    split: str = "test"
    weight: float = 1.0
    null_success: float = 0.0
    oracle_success: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what no score can be made of."""
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise TreegrpoError(
                f"Weight {self.weight!r} of '{self.env}' asked for in a suite; a weight is a "
                "finite number above 0. Leave the entry out instead of giving it no weight."
            )
        if not 0 <= self.null_success < self.oracle_success <= 1:
            raise TreegrpoError(
                f"null_success={self.null_success!r} and oracle_success={self.oracle_success!r} "
                f"of '{self.env}' asked for in a suite; they are rates from 0 to 1, the oracle's "
                "above the null agent's."
            )
        try:
            digest(self.options)
        except SnapshotUnsupported as error:
            raise TreegrpoError(
                f"Options {dict(self.options)!r:.100} of '{self.env}' asked for in a suite; they "
                f"are plain data, and {error.reasons[0].replace('state', 'options', 1)}."
            ) from error
        # A copy that nobody can change: the options are part of the suite's digest.
        frozen = MappingProxyType(copy.deepcopy(dict(self.options)))
        object.__setattr__(self, "options", frozen)

    @property
    def name(self) -> str:
        """The id, with the options where there are some: "treegrpo/Service-v0 domain=airline"."""
        return " ".join([self.env, *(f"{k}={v}" for k, v in sorted(self.options.items()))])

    def normalised(self, success: float) -> float:
        """Return (success - null_success) / (oracle_success - null_success), not clipped.

        Args:
            success: the success rate on the entry's split, from 0 to 1.

        Raises:
            TreegrpoError: a rate that is none.
        """
        if not 0 <= success <= 1:
            raise TreegrpoError(
                f"A success rate of {success!r} given for '{self.name}'; it lies from 0 to 1."
            )
        return (success - self.null_success) / (self.oracle_success - self.null_success)


@dataclass(frozen=True)
class Suite:
    """What one score is about: a name that ends in a version, and the members."""

    name: str
    entries: tuple[SuiteEntry, ...]

    def __post_init__(self) -> None:
        """Refuse an empty suite, a malformed name, and a member that is there twice."""
        if not _is_name(self.name):
            raise TreegrpoError(
                f"Suite name '{self.name}' asked for; it must be spelled 'namespace/name-v0'."
            )
        if not self.entries:
            raise TreegrpoError(f"Suite '{self.name}' has no entries; name at least one.")
        names = [entry.name for entry in self.entries]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise TreegrpoError(
                f"Suite '{self.name}' names '{twice}' more than once. Give one entry the weight."
            )

    @property
    def digest(self) -> str:
        """A digest of the name and of everything in the entries, the same in every process."""
        return digest(self)

    @property
    def shares(self) -> dict[str, float]:
        """Return each entry's part of the score by its name; they sum to 1."""
        total = math.fsum(entry.weight for entry in self.entries)
        return {entry.name: entry.weight / total for entry in self.entries}

    def score(self, success: Mapping[str, float]) -> float:
        """Return the weighted mean of the members' normalised success rates.

        0 is the null agent's score and 1 the oracle's; nothing is clipped.

        Args:
            success: the success rate by entry name, for every entry and for nothing else.

        Raises:
            TreegrpoError: an entry without a rate, a rate without an entry, no rate.
        """
        shares = self.shares
        missing = [name for name in shares if name not in success]
        foreign = [name for name in success if name not in shares]
        if missing or foreign:
            raise TreegrpoError(
                f"A score of suite '{self.name}' asked for; missing: {', '.join(missing) or '-'}; "
                f"not in it: {', '.join(foreign) or '-'}. Give a rate for every entry."
            )
        return math.fsum(
            shares[entry.name] * entry.normalised(success[entry.name]) for entry in self.entries
        )


def _is_name(name: str) -> bool:
    try:
        namespace, _, version = parse_env_id(name)
    except gymnasium.error.Error:
        return False
    return namespace is not None and version is not None


def register_suite(suite: Suite) -> None:
    """Register a suite; doing it again with the same entries changes nothing.

    Raises:
        TreegrpoError: the name is taken by a suite of other entries.
    """
    taken = _registered.setdefault(suite.name, suite)
    if taken.digest != suite.digest:
        raise TreegrpoError(
            f"Suite '{suite.name}' is registered already, with other entries. "
            "Choose another name, or a higher version."
        )


def find_suite(name: str) -> Suite:
    """Return the suite of that name, all of whose environments are registered.

    Raises:
        UnknownOption: no such suite, with the closest name.
        UnknownEnv: an environment of it is not registered.
    """
    if name not in _registered:
        registry.load_plugins()
    if name not in _registered:
        raise UnknownOption(
            f"Unknown suite '{name}'.{suggest(name, _registered)} List all with treegrpo envs."
        )
    for entry in _registered[name].entries:
        try:
            registry.find_spec(entry.env)
        except UnknownEnv as error:
            raise UnknownEnv(
                f"Suite '{name}' asked for, but a member of it is missing. {error}"
            ) from error
    return _registered[name]


def list_suites() -> list[str]:
    """Return every name that was registered here or by a plug-in, sorted."""
    registry.load_plugins()
    return sorted(_registered)


Member = tuple[str, Mapping[str, Any]]

# Families have equal weights, and members share their family's: a family is one kind of task (a
# folder of envs/suite). Five small games would otherwise be a third of the score.
_CORE_FAMILIES: tuple[tuple[Member, ...], ...] = (
    (("SearchQA-v1", {}),),
    (("SQL-v1", {}),),
    (("CodeExec-v1", {}), ("PythonMath-v1", {})),
    (("Service-v0", {}), ("Service-v0", {"domain": "airline"})),
    (("Terminal-v0", {}),),
    (("WebShop-v0", {}),),
    tuple(
        (f"{game}-v0", {})
        for game in ("Sokoban", "Minesweeper", "Mastermind", "WordGuess", "FrozenLake")
    ),
    (("Crafting-v0", {}),),
    (("Notes-v0", {}),),
)

register_suite(
    Suite(
        "treegrpo/core-v1",
        tuple(
            SuiteEntry(f"treegrpo/{env}", options, weight=1 / len(family))
            for family in _CORE_FAMILIES
            for env, options in family
        ),
    )
)
