"""Questions of any shape for the tests of credit: a tree is a list of steps, each with parent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import strategies as st

from treegrpo.tree import Failure, Tree


class Drawn(NamedTuple):
    """A step of a tree to be built."""

    parent: int
    eighths: int = 0
    """Its reward."""
    failure: Failure | None = None
    """Counts at leaves only."""
    state: str = ""
    """Hash of the state after the step."""


FAILURES: list[Failure | None] = [None, None, None, None, "policy", "tool", "grader"]


def build(steps: Sequence[Drawn], start: str = "s", tree_id: int = 0) -> Tree:
    """Return the tree of the steps, numbered from 1 as they come; 0 is the root."""
    tree = Tree("q", tree_id)
    tree.add(None, observation_ids=[1], state_hash=start)
    for step in steps:
        tree.add(step.parent, reward=step.eighths / 8, failure=step.failure, state_hash=step.state)
    return tree


@st.composite
def drawn_steps(draw: st.DrawFn, max_steps: int = 9) -> list[Drawn]:
    """Draw steps that hang under any earlier one: chains, stars and all between."""
    return [
        Drawn(
            parent=draw(st.integers(0, n)),
            eighths=draw(st.integers(-8, 8)),
            failure=draw(st.sampled_from(FAILURES)),
            state=draw(st.sampled_from(["", "s", "t"])),
        )
        for n in range(draw(st.integers(0, max_steps)))
    ]


@st.composite
def questions(draw: st.DrawFn, max_trees: int = 3) -> list[Tree]:
    """Draw the trees of a question, all from one start; some may have no step."""
    start = draw(st.sampled_from(["s", "s", ""]))
    drawn = draw(st.lists(drawn_steps(), min_size=1, max_size=max_trees))
    return [build(steps, start, i) for i, steps in enumerate(drawn)]
