from __future__ import annotations

import re

import pytest

from tests.unit.envs import toys
from treegrpo.envs import ToolEnv, check_env_laws
from treegrpo.envs.errors import LawViolation
from treegrpo.envs.law_cases import Factory
from treegrpo.envs.laws import LAWS, law_name

BROKEN: list[tuple[Factory, str, str]] = [
    (toys.BreaksS1, "S1 round trip", "state hash after restore"),
    (toys.BreaksS2, "S2 continuation", "observation"),
    (toys.BreaksS2Hidden, "S2 continuation", "Roll number"),
    (toys.BreaksS3, "S3 purity", "after snapshot()"),
    (toys.BreaksS3Score, "S3 purity", "after score()"),
    (toys.BreaksS4, "S4 multi shot", "second restore"),
    (toys.BreaksS5, "S5 isolation", "BreaksS5.rolls of the parent"),
    (toys.BreaksS6, "S6 totality", "list_iterator"),
    (toys.BreaksS6Outside, "S6 totality", "self.total was set"),
    (toys.BreaksS7, "S7 transport", "a fresh process saw something else"),
    (toys.BreaksS8, "S8 reseed", "random state"),
    (lambda: toys.UnknownWrapper(toys.Sum()), "S9 wrappers", "UnknownWrapper may hold state"),
    (lambda: toys.BreaksS9(toys.Sum()), "S9 wrappers", "observation"),
    (toys.BreaksS10, "S10 reset independence", "Game 1"),
    (toys.BreaksS11, "S11 budgets", "after restore"),
    (toys.BreaksS11Fork, "S11 budgets", "after fork"),
    (toys.BreaksS12, "S12 refusal", "an open file in self.state"),
]


@pytest.mark.parametrize(("make", "law", "shows"), BROKEN)
def test_a_broken_environment_is_named_by_the_law_it_breaks(
    make: Factory, law: str, shows: str
) -> None:
    roll, add = toys.Sum().encode_call("roll"), toys.Sum().encode_call("add", number=3)
    answer = toys.Sum().encode_call("answer")
    with pytest.raises(LawViolation, match=f"^{law}: .*{re.escape(shows)}"):
        check_env_laws(make, actions=[add, roll, roll, add, answer], episodes=2)
    with pytest.raises(LawViolation, match=f"^{law}: "):
        check_env_laws(make, episodes=3)


def test_a_modules_variable_breaks_isolation() -> None:
    env = toys.Sum()
    actions = [env.encode_call("roll"), env.encode_call("add", number=1), env.encode_call("answer")]
    with pytest.raises(LawViolation, match=r"^S5 isolation: .*The board says"):
        check_env_laws(toys.BreaksS5Module, actions=actions, episodes=8)


def test_every_law_is_checked_on_a_sound_environment() -> None:
    reports = check_env_laws(toys.Sum)
    assert [report.law.split()[0] for report in reports] == [f"S{n}" for n in range(1, 13)]
    assert all(report.checks > 0 and report.note == "" for report in reports)
    statement = "Turns, calls and time used at a snapshot still count; a fork refills nothing."
    assert reports[10].statement == statement


def test_every_law_has_a_broken_environment() -> None:
    assert {law for _, law, _ in BROKEN} == {law_name(law) for law in LAWS}


def test_what_another_process_cannot_make_is_said() -> None:
    def make() -> ToolEnv:
        return toys.Sum()

    transport = check_env_laws(make)[6]
    assert (transport.law, transport.checks) == ("S7 transport", 0)
    assert "register it" in transport.note
