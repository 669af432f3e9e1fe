"""The conformance kit itself: it sees what is wrong, and its data are whole."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from treegrpo.sandboxes.base import Capabilities, Feature, Level, Result
from treegrpo.sandboxes.conformance import ATTACKS, CASES, ROWS, Bench, Case, Checks, run_case
from treegrpo.sandboxes.conformance.abuse import PREAMBLE
from treegrpo.sandboxes.conformance.bait import VARIABLE, Bait, planted
from treegrpo.sandboxes.conformance.case import NotHere, Violation
from treegrpo.sandboxes.conformance.leaks import check_nothing_left, footprint, new_nonce
from treegrpo.sandboxes.conformance.programs import PRELUDE, TREE_SIZE, random_programs
from treegrpo.sandboxes.conformance.report import (
    FORK_ROWS,
    Column,
    Report,
    column_of,
    page,
    read_report,
)


@pytest.fixture
def bait() -> Iterator[Bait]:
    with planted() as found:
        yield found


@pytest.fixture
def idle(tmp_path: Path, bait: Bait) -> Bench:
    """A bench without a backend, for what needs none."""
    nothing: Any = SimpleNamespace(name="none", options={})
    return Bench(
        nothing, lambda: nothing, tmp_path, bait, Capabilities("none", Level.L2), Level.L2, nothing
    )


def case(check: Any, **fields: Any) -> Case:
    return Case("a-case", "function", "A statement.", check, **fields)


def broken(_: Bench, check: Checks) -> None:
    check.same(1, 2, "a number")


def absent(_: Bench, __: Checks) -> None:
    raise NotHere("no such device")


def sound(_: Bench, check: Checks) -> None:
    check.that(True, "never shown")


def test_every_row_of_the_tables_has_its_cases() -> None:
    assert {attack.row for attack in ATTACKS} == set(ROWS) == set(range(1, 22))
    assert {case.row for case in CASES if case.group == "fork"} == set(FORK_ROWS)
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))


def test_attacks_are_code_and_say_what_they_promise() -> None:
    for attack in ATTACKS:
        code = re.sub(r"@(TCP|UDP|PID|VICTIM)@", "1", PREAMBLE + attack.code)
        compile(code, attack.name, "exec")
        assert attack.promise and attack.kinds
        # What ends in ok is judged by the code's own word or by the host.
        judged = "HELD" in attack.code or "verdict()" in attack.code or not attack.says_held
        assert judged or "ok" not in attack.kinds, attack.name
        assert attack.says_held or attack.outside or "ok" not in attack.kinds or attack.row == 7
        assert bool(attack.below) == (attack.holds_from != Level.L1), attack.name


@pytest.mark.parametrize(
    ("check", "fields", "status", "detail"),
    [
        (sound, {}, "holds", ""),
        (broken, {}, "fails", "Violation: a number: expected 1, got 2"),
        (broken, {"holds_from": Level.L3, "below": "shared"}, "open", "Violation: a number"),
        (sound, {"holds_from": Level.L3, "below": "shared"}, "holds", ""),
        (broken, {"holds_from": Level.L3, "runs_below": False}, "open", "not tried at this level"),
        (absent, {}, "skipped", "no such device"),
    ],
)
def test_an_outcome_tells_what_was_found(
    idle: Bench, check: Any, fields: dict[str, Any], status: str, detail: str
) -> None:
    outcome = run_case(case(check, **fields), idle)
    assert (outcome.status, outcome.name) == (status, "a-case")
    assert outcome.detail.startswith(detail)
    assert outcome.declared == (fields.get("below", "") if status == "open" else "")


def test_checks_name_the_wrong_error() -> None:
    check = Checks()
    assert isinstance(check.raises(KeyError, lambda: {}["x"]), KeyError)
    with pytest.raises(Violation, match="expected KeyError, got IndexError"):
        check.raises(KeyError, lambda: [][0])
    with pytest.raises(Violation, match="expected KeyError, got 5"):
        check.raises(KeyError, lambda: 5)
    with pytest.raises(Violation, match=r"still there, after 0.0 s: \[1\]"):
        check.empties(lambda: [1], "still there", 0.0)
    assert check.count == 4


def test_a_left_process_is_seen(idle: Bench) -> None:
    nonce, before = new_nonce(), footprint(idle)
    with subprocess.Popen(["sleep", nonce]) as left:
        with pytest.raises(Violation, match=rf"'commands': \[{left.pid}\]"):
            check_nothing_left(idle, Checks(), before, nonce, within_s=0.2)
        left.kill()
    check_nothing_left(idle, Checks(), before, nonce)


def test_left_files_and_descriptors_are_seen(idle: Bench) -> None:
    before = footprint(idle)
    left = idle.home / "left"
    with left.open("w") as file:
        with pytest.raises(Violation, match="left'"):
            check_nothing_left(idle, Checks(), before, new_nonce(), within_s=0.05)
        left.unlink()
        with pytest.raises(Violation, match="'descriptors': 1"):
            check_nothing_left(idle, Checks(), before, new_nonce(), within_s=0.05)
        assert not file.closed
    check_nothing_left(idle, Checks(), before, new_nonce())


def test_bait_hears_and_is_found(bait: Bait) -> None:
    import socket

    assert os.environ[VARIABLE] == bait.secret
    assert Path(bait.places["@TMP_SECRET@"]).read_text(encoding="ascii") == bait.secret
    assert bait.found_in(Result("ok", stderr=f"x{bait.secret}".encode()))
    assert bait.found_in(Result("ok", value=bait.secret))
    assert not bait.found_in(Result("ok", stdout=b"CANARY-"))
    assert bait.visitors() == ()
    with socket.create_connection(("127.0.0.1", int(bait.places["@TCP@"]))):
        assert bait.visitors()[0].startswith("AF_INET")
    assert bait.visitors() == ()


def test_nothing_of_the_bait_stays() -> None:
    with planted() as found:
        places = [Path(found.places[name]) for name in ("@TMP_SECRET@", "@HOME_SECRET@")]
        assert all(place.exists() for place in places)
    assert not any(place.exists() for place in places)
    assert VARIABLE not in os.environ


def test_a_seed_decides_its_program() -> None:
    assert random_programs(7) == random_programs(7) != random_programs(8)
    for seed in range(50):
        programs = random_programs(seed, numpy=seed % 2 == 0)
        assert all(-1 <= parent < step for step, parent in enumerate(programs.parents))
        assert len(set(programs.parents)) < TREE_SIZE  # it branches
        path = programs.path(TREE_SIZE - 1)
        assert path[-1] == TREE_SIZE - 1 and programs.parents[path[0]] == -1 and len(path) > 3
        for code in (PRELUDE, *programs.steps):
            compile(code, "step", "exec")


def column(idle: Bench, level: Level, *checks: Any) -> Column:
    outcomes = [run_case(case(check, row="3"), idle) for check in checks]
    missing = Feature("cgroups", False, "not delegated", "run under systemd-run")
    return column_of(Capabilities("process", level, (missing,)), outcomes)


def test_a_report_keeps_columns_and_draws_them(idle: Bench, tmp_path: Path) -> None:
    one = column(idle, Level.L2, sound, sound, broken)
    two = column(idle, Level.L1, absent)
    report = Report(columns={"process L2": one, "process L1": two})
    file = tmp_path / "report.json"
    file.write_text(report.model_dump_json(), encoding="utf-8")
    assert read_report(file) == report
    assert read_report(tmp_path / "none.json") == Report()
    text = page(report)
    assert "| 3 | endless loops, ignored signals | holds 2, FAILS 1 | skipped 1 |" in text
    assert "| F1 | changes stay in the fork | not run | not run |" in text
    assert "- process L2, a-case: A statement. Violation: a number: expected 1, got 2" in text
    assert one.missing == {"cgroups": "not delegated"}


def test_the_page_shows_every_attack_and_no_failure() -> None:
    text = (Path(__file__).parents[2] / "docs/sandboxes_abuse.md").read_text(encoding="utf-8")
    assert [attack.name for attack in ATTACKS if attack.name not in text] == []
    assert re.findall(r"FAILS \d+", text) == []
