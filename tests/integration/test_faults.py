"""Environments that raise, hang, answer garbage, die or dawdle cost their own episodes only."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from tests.toy_game import Game, RestlessEngine, random_words, scheduler
from treegrpo.envs.registry import make, register
from treegrpo.rollout import EnvironmentPool, Grown, Question, environments
from treegrpo.sandboxes.process import backend as process_backend
from treegrpo.tree import Node

FAULT_SHARE = 0.2
PATIENCE_S = 60.0
USUAL_S = 0.002


class FaultyGame(Game):
    """The game, whose every fifth step goes wrong in one of the ways of `kinds`."""

    kinds: ClassVar[tuple[str, ...]] = ()
    made: ClassVar[Counter[str]] = Counter()
    counting: ClassVar[threading.Lock] = threading.Lock()

    def step(self, action: str) -> Any:
        draw = self.np_random.random()
        time.sleep(USUAL_S)
        if draw >= FAULT_SHARE:
            return super().step(action)
        kind = self.kinds[int(draw / FAULT_SHARE * len(self.kinds))]
        with self.counting:
            self.made[kind] += 1
        return getattr(self, f"_{kind}")(action)

    def _raises(self, action: str) -> Any:
        raise OSError("the cable is loose")

    def _hangs(self, action: str) -> Any:
        while True:
            time.sleep(0.002)

    def _dawdles(self, action: str) -> Any:
        time.sleep(10 * USUAL_S)
        return super().step(action)

    def _three_values(self, action: str) -> Any:
        return "hello", 0.0, {}

    def _no_number(self, action: str) -> Any:
        observation, _, *rest = super().step(action)
        return observation, "much", *rest

    def _no_text(self, action: str) -> Any:
        *rest, info = super().step(action)
        return *rest, {**info, "messages": [{"role": "tool", "content": b"\xff"}]}

    def _no_info(self, action: str) -> Any:
        *rest, _ = super().step(action)
        return *rest, None

    def _half_a_character(self, action: str) -> Any:
        *rest, info = super().step(action)
        return *rest, {**info, "messages": [{"role": "tool", "content": "\ud800"}]}

    def _odd_reason(self, action: str) -> Any:
        *rest, info = super().step(action)
        return *rest, {**info, "end_reason": {"odd"}}

    def _exits(self, action: str) -> Any:
        sys.exit("the environment has had enough")


ID = "tests/FaultyGame-v0"
register(ID, "tests.integration.test_faults:FaultyGame")
GARBAGE = ("three_values", "no_number", "no_text", "no_info", "half_a_character", "odd_reason")


def grow(kinds: tuple[str, ...], **changes: Any) -> tuple[Grown, Counter[str]]:
    """Grow trees while environments fail; whatever was lent comes back."""
    FaultyGame.kinds, FaultyGame.made = kinds, Counter()
    engine = RestlessEngine(random_words(("red", "green", "call")), 0)
    env = make(ID, turns=5, disable_env_checker=True)
    made, pool = scheduler(engine, env, forks=3, trunks=3, episode_timeout_s=1.5, **changes)
    grown = made.grow([Question(seed, {"split": "train"}) for seed in range(6)])
    assert engine.live_contexts == 0 and engine.submitted == 0
    deadline = time.monotonic() + PATIENCE_S
    while pool.lent and time.monotonic() < deadline:
        time.sleep(0.01)  # what hung lets go
    assert pool.lent == 0
    pool.close()
    return grown, Counter(FaultyGame.made)


def environment_threads() -> set[str]:
    return {t.name for t in threading.enumerate() if t.name.startswith("environment")}


def leaves(grown: Grown) -> list[Node]:
    trees = [tree for question in grown.questions for tree in question]
    return [tree.nodes[leaf] for tree in trees for leaf in tree.leaves()]


@pytest.mark.parametrize(
    ("kinds", "told"),
    [
        (("raises",), "OSError: the cable is loose"),
        (GARBAGE, ""),
        (("hangs",), "TimeoutError: no answer within"),
        (("exits",), "SystemExit: the environment has had enough"),
        (("raises", "hangs", "exits", *GARBAGE, "dawdles"), ""),
    ],
    ids=["raise", "garbage", "hang", "exit", "all"],
)
def test_faults_at_a_fifth_of_the_steps_are_counted_and_the_run_goes_on(
    kinds: tuple[str, ...], told: str
) -> None:
    before = environment_threads()
    grown, made = grow(kinds)
    failed = [leaf for leaf in leaves(grown) if leaf.failure is not None]
    expected = sum(count for kind, count in made.items() if kind != "dawdles")
    assert len(failed) == expected == grown.failures["environment"] > 10
    assert set(grown.failures) == {"environment"}
    assert grown.timeouts == made["hangs"]
    assert all(told in leaf.observation_text for leaf in failed)
    assert all(leaf.end_reason == "environment_failed" for leaf in failed)
    sound = [leaf for leaf in leaves(grown) if leaf.failure is None]
    assert sound and {leaf.end_reason for leaf in sound} == {"turn_limit"}
    assert len(grown.questions) == 6 and all(len(trees) == 3 for trees in grown.questions)
    deadline = time.monotonic() + PATIENCE_S
    while (left := environment_threads() - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left, "no thread is left"


def test_an_environment_ten_times_as_slow_is_no_fault() -> None:
    grown, made = grow(("dawdles",))
    assert made["dawdles"] > 10 and not grown.failures and grown.timeouts == 0
    assert len(leaves(grown)) == 6 * 3 * 4


def test_the_same_faults_give_the_same_trees() -> None:
    """Faults that the seed decides leave a result that the seed decides."""
    kinds = ("raises", *GARBAGE)
    one, two = grow(kinds)[0], grow(kinds, threads=1)[0]
    trees = [[[tree.to_json() for tree in q] for q in each.questions] for each in (one, two)]
    assert trees[0] == trees[1]


class Balky(Game):
    """The game with resets and closes that misbehave for some tasks."""

    hold: ClassVar[threading.Event] = threading.Event()
    resets_hang: ClassVar[bool] = False
    together: ClassVar[threading.Barrier | None] = None
    begun: ClassVar[list[int]] = []
    closes: ClassVar[str] = ""
    closed: ClassVar[list[int]] = []
    alone: ClassVar[list[int]] = []
    """Closed while no others were being closed."""

    def setup(self, task: Any, rng: Any) -> Any:
        self.begun.append(id(self))
        if self.together is not None and len(self.begun) > 1:  # the template's stands alone
            self.together.wait(PATIENCE_S)
        if self.resets_hang and task.data["number"] % 4 == 0:
            self.hold.wait(PATIENCE_S)  # in one call of C code, which no exception interrupts
        return super().setup(task, rng)

    def close(self) -> None:
        self.closed.append(id(self))
        if self.closes == "raise":
            raise OSError("the door is jammed")
        if self.closes == "slow":
            if len(self.closed) >= 4:
                self.hold.set()
            if not self.hold.wait(PATIENCE_S):
                self.alone.append(id(self))
        super().close()


BALKY = "tests/Balky-v0"
register(BALKY, "tests.integration.test_faults:Balky")


@pytest.fixture
def balky(monkeypatch: pytest.MonkeyPatch) -> type[Balky]:
    monkeypatch.setattr(Balky, "hold", threading.Event())
    for name in ("begun", "closed", "alone"):
        monkeypatch.setattr(Balky, name, list[int]())
    for name, value in (("resets_hang", False), ("together", None), ("closes", "")):
        monkeypatch.setattr(Balky, name, value)
    return Balky


def balky_grow(script: Any, count: int, **changes: Any) -> tuple[Grown, EnvironmentPool]:
    engine = RestlessEngine(script, 0)
    made, pool = scheduler(engine, make(BALKY, turns=2, disable_env_checker=True), **changes)
    grown = made.grow([Question(seed, {"split": "train"}) for seed in range(count)])
    assert engine.live_contexts == 0
    return grown, pool


def test_a_reset_that_hangs_costs_its_own_question_only(balky: type[Balky]) -> None:
    balky.resets_hang = True
    grown, pool = balky_grow(random_words(("red",)), 12, threads=16, episode_timeout_s=1.5)
    balky.hold.set()
    missing = sum(not trees for trees in grown.questions)
    assert 0 < missing < 12 and grown.timeouts == missing == grown.failures["environment"]
    assert all(len(t.leaves()) == 3 for trees in grown.questions for t in trees)
    deadline = time.monotonic() + PATIENCE_S
    while pool.lent and time.monotonic() < deadline:
        time.sleep(0.01)
    assert pool.lent == 0


def test_resets_do_not_wait_for_each_other(balky: type[Balky]) -> None:
    """Each ends only when all have begun."""
    balky.together = threading.Barrier(12)
    grown, _ = balky_grow(random_words(("red",)), 12, threads=16)
    assert grown.timeouts == 0 and not grown.failures
    assert not balky.together.broken


def test_closes_that_raise_or_dawdle_hold_nobody_up(balky: type[Balky]) -> None:
    """A slow close ends only when three others have begun."""
    balky.closes = "slow"
    grown, pool = balky_grow(random_words(("red", "crash")), 8, threads=16)
    assert grown.failures["environment"] > 8 and pool.lent == 0
    assert len(balky.closed) > 8 and not balky.alone
    balky.closes = "raise"
    before = len(balky.closed)
    with pytest.raises(OSError, match="door is jammed"):
        pool.close()
    assert len(balky.closed) - before == len({*balky.closed[before:]}) >= 2, "all were closed"


def test_a_fork_that_cannot_be_made_closes_its_environment(
    balky: type[Balky], monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = environments.restore, [0]

    def sometimes(*args: Any, **keywords: Any) -> Any:
        calls[0] += 1
        if calls[0] % 3 == 0:
            raise OSError("no more processes")
        return real(*args, **keywords)

    monkeypatch.setattr(environments, "restore", sometimes)
    grown, pool = balky_grow(random_words(("red",)), 4)
    assert grown.failures["environment"] == calls[0] // 3 == len(balky.closed) > 0
    assert pool.lent == 0


@pytest.mark.parametrize("at", [3, 9, 20])
def test_an_interrupt_leaves_no_environment_behind(balky: type[Balky], at: int) -> None:
    """Also of answers that are there and were not collected yet."""
    said = [0]

    def script(text: str, seed: int) -> str:
        said[0] += 1
        if said[0] > at:
            time.sleep(0.05)  # by now whatever was asked has answered
            raise KeyboardInterrupt
        return "red"

    engine = RestlessEngine(script, 0)
    made, pool = scheduler(engine, make(BALKY, turns=3, disable_env_checker=True), threads=16)
    with pytest.raises(KeyboardInterrupt):
        made.grow([Question(seed, {"split": "train"}) for seed in range(6)])
    deadline = time.monotonic() + PATIENCE_S
    while pool.lent and time.monotonic() < deadline:
        time.sleep(0.01)
    assert pool.lent == 0 and engine.live_contexts == 0


def test_a_killed_sandbox_costs_its_question_only(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisors: list[int] = []
    waiter: Callable[[int], Callable[[], object]] = process_backend._waiter

    def noting(pid: int) -> Callable[[], object]:
        supervisors.append(pid)
        return waiter(pid)

    monkeypatch.setattr(process_backend, "_waiter", noting)
    env = make("treegrpo/PythonMath-v0", min_level=0, unsafe=True, disable_env_checker=True)
    call = env.unwrapped.encode_call("python", code="x = globals().get('x', 0) + 1\nprint(x)")  # type: ignore[attr-defined]
    said, killed = [0], list[int]()

    def script(text: str, seed: int) -> str:
        said[0] += 1
        if said[0] == 12 and supervisors:
            killed.append(supervisors[-1])
            os.kill(killed[0], signal.SIGKILL)
        return call

    engine = RestlessEngine(script, 1)
    made, pool = scheduler(
        engine, env, trunks=2, forks=2, max_action_tokens=200, max_context_tokens=10**6
    )
    grown = made.grow([Question(seed, {"split": "train"}) for seed in range(3)])
    assert len(killed) == 1
    by_question = [
        Counter(tree.nodes[leaf].failure for tree in trees for leaf in tree.leaves())
        for trees in grown.questions
    ]
    hit = [failures for failures in by_question if failures["sandbox"]]
    assert len(hit) == 1 and set(grown.failures) == {"sandbox"}
    assert grown.failures["sandbox"] >= 2, "both trunks lived in it; forks cannot be made either"
    others = [failures for failures in by_question if not failures["sandbox"]]
    assert len(others) == 2 and all(set(failures) == {None} for failures in others)
    assert engine.live_contexts == 0 and pool.lent == 0
    pool.close()
