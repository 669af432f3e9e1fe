"""Histories: equal ones have equal hashes, and no other two do."""

from hypothesis import given
from hypothesis import strategies as st

from treegrpo.sandboxes import Action, Limits, Result, SandboxSpec
from treegrpo.sandboxes.history import History, outcome_digest

actions = st.builds(
    Action,
    kind=st.sampled_from(["code", "argv", "write", "remove", "branch"]),
    payload=st.binary(max_size=6),
    path=st.text(max_size=4),
    stdin=st.binary(max_size=4),
)
steps = st.lists(st.tuples(actions, st.binary(max_size=4)), max_size=4)


def _history(done: list[tuple[Action, bytes]]) -> History:
    history = History.start(SandboxSpec())
    for action, outcome in done:
        history = history.then(action, outcome)
    return history


@given(steps, steps)
def test_hashes_are_equal_exactly_for_equal_histories(
    left: list[tuple[Action, bytes]], right: list[tuple[Action, bytes]]
) -> None:
    assert (_history(left).hash == _history(right).hash) == (left == right)
    assert _history(left).actions() == tuple(action for action, _ in left)


def test_what_a_tree_is_made_with_is_part_of_its_hash() -> None:
    specs = (
        SandboxSpec(),
        SandboxSpec(seed=1),
        SandboxSpec(zygote="numpy"),
        SandboxSpec(rng="branch"),
        SandboxSpec(limits=Limits(workspace_mb=1)),
    )
    assert len({History.start(spec).hash for spec in specs}) == len(specs)


def test_an_outcome_is_what_the_code_could_be_seen_to_do() -> None:
    plain = Result("ok", stdout=b"a", wall_s=1.0, cpu_s=0.5)
    assert outcome_digest(plain) == outcome_digest(Result("ok", stdout=b"a", wall_s=9.0))
    different = (
        Result("ok", stderr=b"a"),
        Result("ok", stdout=b"a", value="1"),
        Result("exception", stdout=b"a", exception="ValueError"),
        Result("exit", stdout=b"a", exit_code=1),
        Result("signal", stdout=b"a", signal=1),
    )
    digests = {outcome_digest(result) for result in (plain, *different)}
    assert len(digests) == 1 + len(different)
