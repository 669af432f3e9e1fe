"""Laws with their shortest episodes, other processes, leaks, cost, and all of it in one run."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest

from tests.unit.envs import toys
from treegrpo.envs import Task, ToolEnv
from treegrpo.envs.checks import Result, law_runs, leaks, processes, run_checks
from treegrpo.envs.checks.cost import cost
from treegrpo.envs.errors import UnknownEnv
from treegrpo.envs.law_cases import Case, record_cases

ADD = toys.Sum().encode_call("add", number=1)


def named(results: list[Result]) -> dict[str, Result]:
    return {result.name: result for result in results}


@pytest.mark.parametrize(
    ("env", "law", "count"),
    [
        (toys.BreaksS3, "S3 purity", 0),
        (toys.BreaksS6, "S6 totality", 1),
        (toys.BreaksS6Outside, "S6 totality", 0),
        (toys.BreaksS10, "S10 reset independence", 0),
        (toys.BreaksS12, "S12 refusal", 0),
        (toys.BreaksS5, "S5 isolation", 1),
        (toys.BreaksS2Hidden, "S2 continuation", 1),
    ],
)
def test_a_broken_law_is_shown_by_the_shortest_episode(
    env: type[ToolEnv], law: str, count: int
) -> None:
    actions = [ADD, ADD, toys.Sum().encode_call("roll"), ADD]
    cases = record_cases(env, episodes=1, seed=0, actions=actions)
    found = named(law_runs.laws(cases, seconds=20))
    broken = [result for result in found.values() if result.outcome == "fails"]
    assert [result.name for result in broken] == [law]
    shown = broken[0].shown_by
    assert shown is not None and shown.minimal and len(shown.actions) == count
    assert any(result.found == "another law is broken" for result in found.values())


def test_a_fault_that_random_actions_find_is_shown_without_chance() -> None:
    """The recorded episode alone holds the law; the random actions in its forks do not."""
    cases = record_cases(toys.BreaksS2, episodes=1, seed=0, actions=[ADD, ADD])
    found = named(law_runs.laws(cases, seconds=20))["S2 continuation"]
    assert found.outcome == "fails" and found.shown_by is not None
    assert found.shown_by.actions == (toys.Sum().encode_call("roll"),)
    assert "random actions" not in found.found


def test_a_fault_that_only_chance_shows_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(law_runs, "_told_cases", lambda case: [])
    cases = record_cases(toys.BreaksS2, episodes=1, seed=0, actions=[ADD, ADD])
    found = named(law_runs.laws(cases, seconds=20))["S2 continuation"]
    assert found.found.endswith("(seen with random actions in forks of this episode)")


def test_gymnasiums_checker_is_heard() -> None:
    class Untidy(toys.Sum):
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            observation, _ = super().reset(seed=seed, options=options)
            return observation, []

    assert law_runs.gymnasium_checker(toys.Sum).outcome == "holds"
    found = law_runs.gymnasium_checker(Untidy)
    assert found.outcome == "fails" and "AssertionError" in found.found


@pytest.fixture
def registered() -> Iterator[None]:
    """The toys under ids, which are forgotten afterwards."""
    for name in ("Sum", "BreaksS7"):
        gymnasium.register(f"tests/{name}-v7", entry_point=f"tests.unit.envs.toys:{name}")
    yield
    for name in ("Sum", "BreaksS7"):
        del gymnasium.registry[f"tests/{name}-v7"]


def test_a_process_that_plays_otherwise_is_noticed(
    registered: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "HASH_SEEDS", ("1",))
    found = processes.determinism(lambda: gymnasium.make("tests/BreaksS7-v7"), episodes=3, seed=0)
    assert found.outcome == "fails" and "with PYTHONHASHSEED=1" in found.found
    assert found.shown_by is not None and "roll" in found.shown_by.actions[-1]


def test_a_process_that_fails_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "HASH_SEEDS", ("1",))
    monkeypatch.setattr(processes, "_CODE", "import no_such_module")
    gymnasium.register("tests/Sum-v8", entry_point="tests.unit.envs.toys:Sum")
    try:
        found = processes.determinism(lambda: gymnasium.make("tests/Sum-v8"), episodes=1, seed=0)
    finally:
        del gymnasium.registry["tests/Sum-v8"]
    assert found.outcome == "fails" and found.found.endswith("No module named 'no_such_module'")


@pytest.mark.parametrize(
    ("change", "what", "count"),
    [
        ({"digests": ["x", "b", "c"]}, "the reset is", 0),
        ({"digests": ["a", "b", "x"]}, "step 2 is", 2),
        ({"actions": ["1", "x"], "digests": ["a", "b", "x"]}, "an agent's next action is", 1),
        ({"actions": ["1"], "digests": ["a", "b"]}, "an agent's next action is", 1),
    ],
)
def test_the_first_difference_is_told(change: dict[str, Any], what: str, count: int) -> None:
    here: dict[str, Any] = {"seed": 4, "actions": ["1", "2"], "digests": ["a", "b", "c"]}
    assert processes._difference([here], [here], "1") is None
    if change.get("actions") == ["1"]:
        here, change = {**here, **change}, here
    found = processes._difference([here], [{**here, **change}], "1")
    assert found is not None and found.found.startswith(what) and found.shown_by is not None
    assert (found.shown_by.seed, found.shown_by.actions) == (4, tuple(here["actions"][:count]))


def test_what_no_other_process_can_make_is_not_checked() -> None:
    found = processes.determinism(lambda: toys.Sum(), episodes=1, seed=0)
    assert found.outcome == "not checked" and "register it" in found.found


class Leaky(toys.Sum):
    """Each episode opens what nobody closes."""

    what: ClassVar[str] = ""
    kept: ClassVar[list[Any]] = []

    def setup(self, task: Task, rng: np.random.Generator) -> Any:
        match self.what:
            case "open file /dev/null":
                self.kept.append(open(os.devnull))  # noqa: SIM115
            case "child process sleep":
                child = subprocess.Popen(["sleep", "60"])
                self.kept.append(child)
                # For a moment it still bears its parent's name.
                while Path(f"/proc/{child.pid}/comm").read_text() != "sleep\n":
                    time.sleep(0.001)
            case "temporary file leak...":
                os.close(tempfile.mkstemp(prefix="leak_")[0])
            case "open file in the temporary folder, leak...":
                self.kept.append(open(f"{tempfile.gettempdir()}/leaked", "a"))  # noqa: SIM115
            case "thread waits":
                event = threading.Event()
                self.kept.append(event)
                threading.Thread(target=event.wait, name="waits", daemon=True).start()
            case _:
                pass
        return super().setup(task, rng)


@pytest.fixture
def cleared(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(leaks, "_SETTLE_S", 0.0)
    yield
    for kept in Leaky.kept:
        if isinstance(kept, subprocess.Popen):
            kept.kill()
            kept.wait()
        elif isinstance(kept, threading.Event):
            kept.set()
        else:
            kept.close()
    Leaky.kept.clear()


@pytest.mark.skipif(sys.platform != "linux", reason="counts in /proc")
@pytest.mark.parametrize(
    "what",
    [
        "",
        "open file /dev/null",
        "child process sleep",
        "temporary file leak...",
        "open file in the temporary folder, leak...",
        "thread waits",
    ],
)
def test_what_is_left_behind_is_named(
    cleared: None, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(Leaky, "what", what)
    before = tempfile.gettempdir(), os.environ.get("TMPDIR")
    found = leaks.leaks(Case(Leaky, 0, (ADD,)))
    assert (tempfile.gettempdir(), os.environ.get("TMPDIR")) == before
    if what:
        assert found.outcome == "fails" and f"{leaks.ROUNDS} x {what}" in found.found
    else:
        assert found.outcome == "holds"


@pytest.mark.skipif(sys.platform != "linux", reason="counts in /proc")
def test_a_new_child_is_named_though_an_older_one_has_a_higher_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        while Path(f"/proc/{child.pid}/comm").read_text() != "sleep\n":
            time.sleep(0.001)
        monkeypatch.setattr(leaks, "_children", lambda: {child.pid, 10**9})
        named = leaks._with_names(Counter({"child process": 1}), {10**9})
        child.kill()
    assert named == {"child process sleep": 1}


def test_without_proc_leaks_are_not_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(leaks, "_PROC", tmp_path / "none")
    assert leaks.leaks(Case(toys.Sum, 0, ())).outcome == "not checked"


def test_cost_is_measured_at_every_step() -> None:
    results = named(cost([Case(toys.Sum, 0, (ADD, ADD))], seconds=0))
    assert list(results) == ["snapshot cost", "restore cost", "snapshot size"]
    assert results["snapshot cost"].found.endswith(" ms, 21 times")
    middle, high = (part.split()[1] for part in results["snapshot size"].found.split(", p95"))
    assert 0 < int(middle.replace(",", "")) <= int(high.replace(",", "")) if high.isdigit() else 1


def test_all_checks_of_a_sound_environment(registered: None) -> None:
    make = functools.partial(gymnasium.make, "tests/Sum-v7")
    results = list(run_checks(make, seconds=1, random_episodes=3))
    assert [result for result in results if result.outcome not in ("holds", "measured")] == []
    laws = [result.name.split()[0] for result in results if result.name[1].isdigit()]
    assert laws == [f"S{number}" for number in range(1, 13)]
    assert len(named(results)) == len(results) == 22


def test_nothing_else_is_tried_where_episodes_raise() -> None:
    class Torn(toys.Sum):
        def score(self, state: Any, transcript: Any, task: Task) -> float:
            return float("nan")

    first, rest = run_checks(Torn, seconds=5, random_episodes=3)
    assert (first.outcome, rest.outcome) == ("fails", "not checked")
    assert "GraderFailed" in first.found and "not finite" in first.found


def test_an_oracle_that_raises_is_a_failed_check() -> None:
    class Lost(toys.Sum):
        def oracle(self) -> str:
            raise RuntimeError("no idea")

    last = list(run_checks(Lost, seconds=5, random_episodes=3))[-1]
    assert (last.name, last.outcome) == ("oracle", "fails")
    assert last.found.startswith("RuntimeError at test_measured.py:")
    assert last.found.endswith("no idea")


def test_an_unknown_environment_is_bad_input() -> None:
    with pytest.raises(UnknownEnv, match="treegrpo/Non-v0"):
        list(run_checks("treegrpo/Non-v0"))
