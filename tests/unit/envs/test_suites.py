"""Suites: what they refuse, the score by hand, digests, plug-ins, and treegrpo/core-v1."""

from __future__ import annotations

import importlib.metadata
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treegrpo.envs import list_envs, make, registry, suites
from treegrpo.envs.errors import TreegrpoError, UnknownEnv, UnknownOption
from treegrpo.envs.snapshot import core_of
from treegrpo.envs.suites import Suite, SuiteEntry, find_suite, list_suites, register_suite

CORE = suites._registered["treegrpo/core-v1"]
SQL = SuiteEntry("treegrpo/SQL-v0", weight=3.0)
NOTES = SuiteEntry("treegrpo/Notes-v0", null_success=0.2, oracle_success=0.7)
TWO = Suite("mine/two-v0", (SQL, NOTES))


@pytest.fixture(autouse=True)
def _restored_suites(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(suites, "_registered", dict(suites._registered))
    yield
    registry.load_plugins.cache_clear()


def test_the_score_is_the_weighted_mean_of_normalised_rates() -> None:
    # Shares 3/4 and 1/4; 0.45 of Notes is half of the way from 0.2 to 0.7.
    assert TWO.shares == {"treegrpo/SQL-v0": 0.75, "treegrpo/Notes-v0": 0.25}
    rates = {"treegrpo/SQL-v0": 0.4, "treegrpo/Notes-v0": 0.45}
    assert TWO.score(rates) == pytest.approx(0.75 * 0.4 + 0.25 * 0.5, abs=1e-15)
    # Below the floor counts below 0: nothing is clipped.
    below = TWO.score({"treegrpo/SQL-v0": 0.0, "treegrpo/Notes-v0": 0.0})
    assert below == pytest.approx(0.25 * -0.4, abs=1e-15)


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=9), st.data())
def test_null_scores_0_and_the_oracle_1_whatever_the_weights(
    weights: list[float], data: st.DataObject
) -> None:
    rate = st.floats(0, 1)
    pairs = [sorted([data.draw(rate), data.draw(rate)]) for _ in weights]
    entries = tuple(
        SuiteEntry(f"a/E-v{n}", weight=weight, null_success=low, oracle_success=high)
        for n, (weight, (low, high)) in enumerate(zip(weights, pairs, strict=True))
        if low < high
    )
    if not entries:
        return
    suite = Suite("a/some-v0", entries)
    assert suite.score({e.name: e.null_success for e in entries}) == 0.0
    assert suite.score({e.name: e.oracle_success for e in entries}) == pytest.approx(1.0, abs=1e-9)
    assert math.fsum(suite.shares.values()) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    ("rates", "says"),
    [
        ({"treegrpo/SQL-v0": 1.0}, "missing: treegrpo/Notes-v0; not in it: -. Give a rate"),
        (
            {"treegrpo/SQL-v0": 1.0, "treegrpo/Notes-v0": 1.0, "SQL": 1.0},
            "missing: -; not in it: SQL. Give a rate",
        ),
        (
            {"treegrpo/SQL-v0": 1.5, "treegrpo/Notes-v0": 1.0},
            "A success rate of 1.5 given for 'treegrpo/SQL-v0'; it lies from 0 to 1.",
        ),
        (
            {"treegrpo/SQL-v0": math.nan, "treegrpo/Notes-v0": 1.0},
            "A success rate of nan given for 'treegrpo/SQL-v0'",
        ),
    ],
    ids=["missing", "foreign", "above 1", "nan"],
)
def test_a_score_needs_a_rate_of_every_entry(rates: dict[str, float], says: str) -> None:
    with pytest.raises(TreegrpoError) as raised:
        TWO.score(rates)
    assert says in str(raised.value)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_a_weight_is_finite_and_above_0(weight: float) -> None:
    with pytest.raises(TreegrpoError, match=rf"Weight {weight!r} of 'a/E-v0' .* above 0"):
        SuiteEntry("a/E-v0", weight=weight)


@pytest.mark.parametrize("rates", [(0.5, 0.5), (0.6, 0.5), (-0.1, 1.0), (0.0, 1.1), (math.nan, 1)])
def test_the_oracle_is_above_the_null_agent(rates: tuple[float, float]) -> None:
    with pytest.raises(TreegrpoError, match="rates from 0 to 1, the oracle's above"):
        SuiteEntry("a/E-v0", null_success=rates[0], oracle_success=rates[1])


def test_options_are_plain_data() -> None:
    with pytest.raises(TreegrpoError, match=r"Options .* of 'a/E-v0' .* options\.x is a builtins"):
        SuiteEntry("a/E-v0", {"x": object()})


@pytest.mark.parametrize(
    ("name", "entries", "says"),
    [
        ("core", (SQL,), "Suite name 'core' asked for; it must be spelled 'namespace/name-v0'."),
        ("a/core", (SQL,), "must be spelled"),
        ("core-v1", (SQL,), "must be spelled"),
        ("a/b c-v1", (SQL,), "must be spelled"),
        ("a/b-v1", (), "Suite 'a/b-v1' has no entries"),
        (
            "a/b-v1",
            (SQL, NOTES, replace(SQL, weight=1.0)),
            "Suite 'a/b-v1' names 'treegrpo/SQL-v0' more than once.",
        ),
    ],
    ids=["bare", "no version", "no namespace", "a blank", "empty", "twice"],
)
def test_a_malformed_suite_is_refused(
    name: str, entries: tuple[SuiteEntry, ...], says: str
) -> None:
    with pytest.raises(TreegrpoError) as raised:
        Suite(name, entries)
    assert says in str(raised.value)


def test_options_cannot_be_changed_once_they_are_given() -> None:
    options: dict[str, Any] = {"domain": "airline", "sizes": [1]}
    entry = SuiteEntry("a/E-v0", options)
    before = (entry.name, Suite("a/s-v0", (entry,)).digest)
    options["domain"] = "shop"
    options["sizes"].append(2)
    assert (entry.name, Suite("a/s-v0", (entry,)).digest) == before
    with pytest.raises(TypeError, match="does not support item assignment"):
        entry.options["domain"] = "shop"  # type: ignore[index]


def test_one_environment_may_come_with_different_options() -> None:
    long = SuiteEntry("treegrpo/SQL-v0", {"horizon": "long", "format": "xml"})
    assert long.name == "treegrpo/SQL-v0 format=xml horizon=long"
    assert list(Suite("a/b-v0", (SQL, long)).shares) == ["treegrpo/SQL-v0", long.name]


def test_registering_twice_changes_nothing_but_taking_over_is_refused() -> None:
    register_suite(TWO)
    register_suite(Suite("mine/two-v0", (SQL, NOTES)))
    assert find_suite("mine/two-v0") == TWO and "mine/two-v0" in list_suites()
    with pytest.raises(TreegrpoError, match=r"'mine/two-v0' is registered already, with other"):
        register_suite(Suite("mine/two-v0", (SQL,)))
    assert find_suite("mine/two-v0") == TWO


def test_an_unknown_suite_comes_with_the_closest_name() -> None:
    with pytest.raises(UnknownOption) as raised:
        find_suite("treegrpo/core-v7")
    assert str(raised.value) == (
        "Unknown suite 'treegrpo/core-v7'. Did you mean 'treegrpo/core-v1'? "
        "List all with treegrpo envs."
    )


def test_a_missing_member_is_named() -> None:
    register_suite(Suite("mine/typo-v0", (SQL, SuiteEntry("treegrpo/Note-v0"))))
    with pytest.raises(UnknownEnv) as raised:
        find_suite("mine/typo-v0")
    assert str(raised.value).startswith(
        "Suite 'mine/typo-v0' asked for, but a member of it is missing. Unknown environment "
        "'treegrpo/Note-v0'. Did you mean 'treegrpo/Notes-v0'?"
    )


@dataclass
class Point:
    """An entry point as importlib.metadata gives it."""

    name: str
    loaded: Callable[[], None]
    value: str = "their_package:register"

    def load(self) -> Any:
        return self.loaded


def test_another_packages_suite_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def theirs() -> None:
        register_suite(Suite("theirs/games-v0", (SQL,)))

    monkeypatch.setattr(importlib.metadata, "entry_points", lambda *, group: [Point("p", theirs)])
    registry.load_plugins.cache_clear()
    assert find_suite("theirs/games-v0").entries == (SQL,)
    assert "theirs/games-v0" in list_suites()


@pytest.mark.parametrize(
    "other",
    [
        replace(TWO, name="mine/two-v1"),
        replace(TWO, entries=(NOTES, SQL)),
        replace(TWO, entries=(SQL, replace(NOTES, weight=2.0))),
        replace(TWO, entries=(SQL, replace(NOTES, split="train"))),
        replace(TWO, entries=(SQL, replace(NOTES, options={"format": "xml"}))),
        replace(TWO, entries=(SQL, replace(NOTES, null_success=0.1))),
        replace(TWO, entries=(SQL, replace(NOTES, oracle_success=1.0))),
        replace(TWO, entries=(SQL, replace(NOTES, env="treegrpo/Notes-v1"))),
    ],
    ids=["name", "order", "weight", "split", "options", "null", "oracle", "env"],
)
def test_the_digest_sees_every_field(other: Suite) -> None:
    assert other.digest != TWO.digest


def test_the_digest_is_the_same_in_every_process() -> None:
    code = "from treegrpo.envs.suites import _registered as r; print(r['treegrpo/core-v1'].digest)"
    for hash_seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == CORE.digest


# ------------------------------------------------------------------------------ treegrpo/core-v1


def test_nine_families_share_the_core_score_equally() -> None:
    shares = CORE.shares
    ninth, games = 1 / 9, ("Sokoban", "Minesweeper", "Mastermind", "WordGuess", "FrozenLake")
    for name in ("SearchQA-v1", "SQL-v1", "Terminal-v0", "WebShop-v0", "Crafting-v0", "Notes-v0"):
        assert shares[f"treegrpo/{name}"] == pytest.approx(ninth)
    for name in ("CodeExec-v1", "PythonMath-v1", "Service-v0"):
        assert shares[f"treegrpo/{name}"] == pytest.approx(ninth / 2)
    for game in games:
        assert shares[f"treegrpo/{game}-v0"] == pytest.approx(ninth / 5)
    assert len(shares) == 15 and math.fsum(shares.values()) == pytest.approx(1.0)


def test_the_core_suite_has_the_newest_version_of_every_environment() -> None:
    newest: dict[str, str] = {}
    for id in (id for id in list_envs() if id.startswith("treegrpo/")):
        family, _, version = id.rpartition("-v")
        newest[family] = max(newest.get(family, "0"), version)
    members = {entry.env for entry in find_suite("treegrpo/core-v1").entries}
    assert members == {f"{family}-v{version}" for family, version in newest.items()}


@pytest.mark.parametrize("entry", CORE.entries, ids=lambda entry: entry.name)
def test_every_member_of_the_core_suite_can_be_made_and_has_its_split(entry: SuiteEntry) -> None:
    core = core_of(make(entry.env, **entry.options))
    assert entry.split == "test" and entry.split in core.splits
    assert len(core.tasks(entry.split)) >= 200


def test_the_core_score_by_hand() -> None:
    # Everything failed but one of two domains of one of nine families.
    rates = dict.fromkeys(CORE.shares, 0.0) | {"treegrpo/Service-v0 domain=airline": 1.0}
    assert CORE.score(rates) == pytest.approx(1 / 18)
