"""Machines reached by replay: which one is taken, what is compared, what is closed."""

from __future__ import annotations

import copy

import pytest

from treegrpo.envs.adapters.replay import Done, History, Machines, ReplayDiverged
from treegrpo.envs.errors import SandboxFailed, SnapshotUnsupported


class Adder:
    """Adds what it is told to; counts all that is alive and all that was done."""

    started = 0
    alive = 0
    calls = 0

    def __init__(self, drift: int = 0) -> None:
        Adder.started += 1
        Adder.alive += 1
        self.total, self.is_open = drift * Adder.started, True

    def do(self, call: str) -> str:
        Adder.calls += 1
        if call == "break":
            raise RuntimeError("broken")
        self.total += int(call)
        return str(self.total)

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            Adder.alive -= 1


@pytest.fixture(autouse=True)
def _fresh() -> None:
    Adder.started = Adder.alive = Adder.calls = 0


def run(machines: Machines, *calls: str) -> History:
    history: History = ()
    for call in calls:
        _, history = machines.do(history, call)
    return history


def test_a_chain_needs_one_machine_and_no_replay() -> None:
    machines = Machines(Adder)
    history = run(machines, "1", "2", "3")
    assert history == (Done("1", "1"), Done("2", "3"), Done("3", "6"))
    assert (Adder.started, Adder.calls, machines.num_idle) == (1, 3, 1)


def test_siblings_do_not_see_each_other() -> None:
    machines = Machines(Adder)
    history = run(machines, "1", "2")
    for amount in ("10", "20", "30"):
        output, _ = machines.do(history, amount)
        assert output == str(3 + int(amount))
    assert Adder.started == 3  # the parent's own, and one for each other child


def test_a_machine_that_is_behind_replays_the_rest_only() -> None:
    machines = Machines(Adder)
    history = run(machines, "1", "2")
    machines.do(history, "0", writes=False)
    machines.prove(history)
    assert (Adder.started, Adder.calls) == (2, 5)
    further = machines.do(history, "5")[1]
    machines.prove(further)  # by the machine that proved the history before
    assert (Adder.started, Adder.calls) == (2, 7)


def test_a_proof_is_made_once() -> None:
    machines = Machines(Adder)
    history = run(machines, "1", "2")
    machines.prove(history)
    calls = Adder.calls
    machines.prove(history)
    machines.prove(copy.deepcopy(history))
    machines.prove(())
    assert Adder.calls == calls


def test_a_read_is_not_replayed() -> None:
    machines = Machines(Adder)
    output, history = machines.do((), "0", writes=False)
    assert (output, history, machines.num_idle) == ("0", (), 1)


def test_another_answer_is_refused_and_named() -> None:
    machines = Machines(lambda: Adder(drift=1))
    history = run(machines, "1")
    with pytest.raises(ReplayDiverged, match="call 1 of the history, '1', gave '2' at first and"):
        machines.prove(history)
    assert Adder.alive == 1  # the one that diverged is closed
    assert issubclass(ReplayDiverged, SnapshotUnsupported)
    assert issubclass(ReplayDiverged, SandboxFailed)  # so a tool does not tell it to the agent


def test_a_call_that_raises_costs_the_machine_and_leaves_the_history() -> None:
    machines = Machines(Adder)
    history = run(machines, "4")
    with pytest.raises(RuntimeError, match="broken"):
        machines.do(history, "break")
    assert (Adder.alive, machines.num_idle) == (0, 0)
    assert machines.do(history, "1")[0] == "5"


def test_idle_machines_are_few_and_closed_with_the_last_user() -> None:
    machines = Machines(Adder, max_idle=2)
    history = run(machines, "1")
    for amount in "23456":
        machines.do(history, amount)
    assert (machines.num_idle, Adder.alive) == (2, 2)
    one, other = Adder(), Adder()
    machines.join(one)
    machines.join(other)
    machines.leave(one)
    assert machines.num_idle == 2
    machines.leave(other)
    assert (machines.num_idle, Adder.alive) == (0, 2)  # the users themselves


def test_a_pool_that_is_dropped_closes_its_machines() -> None:
    machines = Machines(Adder)
    run(machines, "1")
    del machines
    assert Adder.alive == 0
