"""Checks that play: what raises, what cannot be solved and what the grader changes is shown."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from tests.unit.envs import toys
from treegrpo.envs import Task, ToolEnv, tool
from treegrpo.envs.checks import episodes
from treegrpo.envs.errors import SandboxFailed
from treegrpo.envs.law_cases import Case, record_cases


class Doors(ToolEnv):
    """Two doors; whoever opened both meets a fault in score()."""

    max_turns = 12
    fault: ClassVar[type[Exception]] = KeyError

    def make_task(self, rng: np.random.Generator, difficulty: int) -> Task:
        return Task(f"doors-{rng.integers(1000)}", "Open a door.", "left", difficulty)

    def setup(self, task: Task, rng: np.random.Generator) -> Any:
        return {"open": []}

    @tool
    def left(self) -> str:
        """Open the left door."""
        self.state["open"].append("left")
        return "Open."

    @tool
    def right(self) -> str:
        """Open the right door."""
        self.state["open"].append("right")
        return "Open."

    @tool
    def leave(self) -> str:
        """End."""
        self.finish()
        return "Bye."

    def score(self, state: Any, transcript: Any, task: Task) -> float:
        if {"left", "right"} <= set(state["open"]):
            raise self.fault("no such room")
        return float("left" in state["open"])

    def oracle(self) -> str:
        return self.encode_call("leave" if self.state["open"] else "left")


LEFT, RIGHT, LEAVE = (Doors().encode_call(name) for name in ("left", "right", "leave"))


def test_random_episodes_without_an_exception_are_counted() -> None:
    found = episodes.reachability(toys.Sum, episodes=4, seconds=60, seed=0)
    assert found.outcome == "holds"
    assert found.found == "4 episodes, no exception; 0 solved"


def test_what_the_time_did_not_allow_is_told() -> None:
    found = episodes.reachability(toys.Sum, episodes=9, seconds=0, seed=0)
    assert found.found == "0 of 9 episodes in 0 s, no exception; 0 solved"


def test_an_exception_that_escapes_is_shown_by_the_shortest_episode() -> None:
    found = episodes.reachability(Doors, episodes=50, seconds=60, seed=0)
    assert found.outcome == "fails"
    assert found.found.startswith("GraderFailed at test_episodes.py:")
    shown = found.shown_by
    assert shown is not None and shown.minimal and len(shown.actions) == 3
    assert sorted(shown.actions[:2]) == [LEFT, RIGHT] and shown.actions[2] == LEAVE


def test_an_exception_of_setup_needs_no_action() -> None:
    class NoSetup(Doors):
        def setup(self, task: Task, rng: np.random.Generator) -> Any:
            return self.nothing  # type: ignore[attr-defined]

    shown = episodes.reachability(NoSetup, episodes=5, seconds=60, seed=3).shown_by
    assert shown is not None and (shown.seed, shown.actions) == (3, ())


def test_a_sandbox_that_fails_is_the_hosts_fault() -> None:
    class Broken(Doors):
        fault = SandboxFailed

    with pytest.raises(SandboxFailed, match="no such room"):
        episodes.reachability(Broken, episodes=50, seconds=60, seed=0)


def test_the_oracles_tasks_and_steps_per_level() -> None:
    oracle, null = episodes.oracle_solves(toys.Sum, seconds=60, seed=0)
    assert oracle.found == "20 tasks, all solved; steps: level 1 2, level 2 2"
    assert (null.outcome, null.found) == ("holds", "0 of 20 tasks solved")


def test_a_null_agent_that_solves_is_a_fault() -> None:
    class Free(toys.Sum):
        def score(self, state: Any, transcript: Any, task: Task) -> float:
            return 1.0

    oracle, null = episodes.oracle_solves(Free, seconds=0, seed=0)
    assert oracle.found.startswith("1 of 20 tasks in 0 s, all solved")
    assert (null.outcome, null.found) == ("fails", "1 of 1 tasks solved")


def test_a_task_that_the_oracle_cannot_solve_is_shown() -> None:
    class Odd(toys.Sum):
        def oracle(self) -> str:
            return self.encode_call("answer") if self.task.difficulty == 2 else super().oracle()

    (result,) = episodes.oracle_solves(Odd, seconds=60, seed=0)
    assert result.outcome == "fails" and "of level 2 ended 'answered' with a return of 0" in (
        result.found
    )
    shown = result.shown_by
    assert shown is not None
    assert shown.options == {"split": "train", "difficulty": 2} and len(shown.actions) == 1


def test_a_task_lost_by_chance_is_tried_again() -> None:
    class Slippery(toys.Sum):
        def oracle(self) -> str:
            slips = self.np_random_seed == 0
            return self.encode_call("answer") if slips else super().oracle()

    oracle, _ = episodes.oracle_solves(Slippery, seconds=60, seed=0)
    assert oracle.outcome == "holds" and ", all solved, 1 of them at a second try" in oracle.found


def test_without_an_oracle_nothing_is_claimed() -> None:
    class Mute(toys.Sum):
        def oracle(self) -> str:
            return ToolEnv.oracle(self)

    (result,) = episodes.oracle_solves(Mute, seconds=60, seed=0)
    assert result.outcome == "not checked" and "Write oracle()" in result.found


class Eager(toys.Sum):
    """A scorer that writes into the state that it is given."""

    def score(self, state: Any, transcript: Any, task: Task) -> float:
        state["total"] += 1
        return float(state["total"] == task.answer + 1)


class Marking(toys.Sum):
    """A scorer that leaves a mark in the state, which does not change what it gives."""

    def score(self, state: Any, transcript: Any, task: Task) -> float:
        state["seen"] = True
        return float(state["total"] == task.answer)


class Moody(toys.Sum):
    """A scorer that depends on how often it was asked."""

    shared = ("asked",)
    asked: ClassVar[list[int]] = []

    def score(self, state: Any, transcript: Any, task: Task) -> float:
        self.asked.append(1)
        return float(len(self.asked) % 4 == 0)


class Dicing(toys.Sum):
    """A scorer that draws from the process's global generator."""

    def score(self, state: Any, transcript: Any, task: Task) -> float:
        return 0.0 * np.random.random()


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (Eager, "score() changed the state that it was given. Let it only read"),
        (Marking, "score() changed the state that it was given. Let it only read"),
        (Dicing, "score() changed the generator of module numpy.random"),
        (toys.BreaksS3Score, "score() changed the episode"),
    ],
)
def test_a_grader_that_is_not_pure_is_shown(env: type[ToolEnv], words: str) -> None:
    cases = record_cases(env, episodes=1, seed=0, actions=None)
    found = episodes.grader_purity(cases, seconds=30)
    assert found.outcome == "fails" and words in found.found
    assert found.shown_by is not None and len(found.shown_by.actions) <= 2


def test_a_grader_that_depends_on_something_else_is_told() -> None:
    case = record_cases(Moody, episodes=1, seed=0, actions=None)[0]
    Moody.asked.clear()
    fault = episodes._impurity(case)
    assert fault is not None and "it depends on something else" in fault


def test_a_pure_grader_holds() -> None:
    cases = record_cases(toys.Sum, episodes=3, seed=0, actions=None)
    found = episodes.grader_purity(cases, seconds=1)
    assert (found.outcome, found.found) == ("holds", "3 final states, each scored three times")


def test_without_an_end_there_is_nothing_to_score() -> None:
    found = episodes.grader_purity([Case(toys.Sum, 0, ())], seconds=1)
    assert found.outcome == "not checked"
