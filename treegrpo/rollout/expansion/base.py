"""What an expansion policy is, what it may see, and the table of their names.

    @expansion("late")
    class Late(Expansion):
        from_depth: int = 2
        def at_node(self, reached):
            return int(reached.is_trunk and len(reached.path) > self.from_depth)
        def max_branches(self, forks, rounds):
            return None

A policy is asked at two moments. `at_node`: a branch has reached a node and goes on there; the
forks start at once, beside the branch. `at_rest`: nothing of the tree is in flight, once for
each round. A policy that adds nothing at one of them leaves that method out.

What a policy may see decides what may be estimated from its trees. A choice made from the path
to a node alone, before any child of it is sampled, leaves the policy gradient unbiased under
`path` weights, wherever the forks are. Each file says what its policy sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import ClassVar, TypeVar, cast

import numpy as np
from pydantic import BaseModel, JsonValue

from treegrpo.envs.errors import TreegrpoError
from treegrpo.names import Names
from treegrpo.rollout.expansion.options import STRICT, read_options
from treegrpo.tree import Node, Tree


@dataclass(frozen=True, slots=True)
class Reached:
    """A node whose episode goes on, before any child of it is answered."""

    path: tuple[Node, ...]
    """The root, and on to the node itself; all that may be seen, without their `children`."""
    is_trunk: bool
    """Whether the tree's first branch reached it."""
    forked: int
    """Branches that were forked by `at_node` at the nodes above it."""
    forks: int
    """The setting `forks` (N)."""
    entropies: tuple[float, ...]
    """Entropy in nats of the first token's distribution after each node of the path, the root
    first; empty unless the policy needs them."""
    rng: np.random.Generator
    """A stream of this node's own, so that the order of completion never matters."""
    tree_seed: int
    """The same number at every node of a tree and another for every tree: what is drawn from it
    is decided before the tree is grown."""


class Expansion(BaseModel):
    """Where a tree is forked; by default nowhere. Fields are the options that a user sets."""

    model_config = STRICT

    needs_entropy: ClassVar[bool] = False
    """Whether `at_node` reads the entropies: it is called when the first child of the node was
    sampled, but not yet answered."""

    def at_node(self, reached: Reached) -> int:
        """Return how many branches to fork at this node at once.

        Called once for each node whose episode goes on, the root included.
        """
        return 0

    def at_rest(self, tree: Tree, round: int, forks: int, rng: np.random.Generator) -> list[int]:
        """Return the nodes to fork, each as often as it is named; nothing of `tree` is in flight.

        Args:
            tree: in canonical order, so that ids do not tell who finished first.
            round: 1, 2, ... up to the setting `rounds` (L).
            forks: the setting `forks` (N).
            rng: a stream of this tree's and round's own.
        """
        return []

    def max_branches(self, forks: int, rounds: int) -> int | None:
        """Return the most branches that one tree can have, the trunk included; None: unknown."""
        return 1


E = TypeVar("E", bound=Expansion)

EXPANSIONS: Names[type[Expansion]] = Names("expansion")


def expansion(name: str) -> Callable[[type[E]], type[E]]:
    """Return a decorator that registers an expansion policy.

    Raises:
        TreegrpoError: the name is taken; or what is decorated is no Expansion.
    """

    def register(policy: type[E]) -> type[E]:
        found = cast("object", policy)
        if not (isinstance(found, type) and issubclass(found, Expansion)):
            raise TreegrpoError(
                f"Expansion '{name}' asked to be registered, but {found!r} is no subclass of "
                "Expansion. Write class Mine(Expansion): with at_node() or at_rest()."
            )
        EXPANSIONS.add(name)(policy)
        return policy

    return register


def get_expansion(name: str, options: Mapping[str, JsonValue]) -> Expansion:
    """Return the policy of that name with these options.

    Raises:
        UnknownOption: no such policy, with the closest name; or a wrong option.
    """
    return read_options(EXPANSIONS.get(name), options, "expansion_options", f"expansion '{name}'")


def forks_at_node(policy: Expansion, reached: Reached) -> int:
    """Return what `at_node` says, checked: a policy may be a user's own.

    Raises:
        TreegrpoError: not a count.
    """
    count = cast("object", policy.at_node(reached))
    if not isinstance(count, Integral) or int(count) < 0:
        raise TreegrpoError(
            f"{type(policy).__name__}.at_node() must return how many branches to fork, 0 or more, "
            f"but returned {count!r} at node {reached.path[-1].id}. Correct it."
        )
    return int(count)


def forks_at_rest(
    policy: Expansion, tree: Tree, round: int, forks: int, rng: np.random.Generator
) -> list[int]:
    """Return what `at_rest` says, checked: a policy may be a user's own.

    Raises:
        TreegrpoError: something that is no node of the tree, or a node where the episode ended.
    """
    nodes = list(cast("list[object]", policy.at_rest(tree, round, forks, rng)))
    for node in nodes:
        is_known = isinstance(node, Integral) and 0 <= int(node) < len(tree.nodes)
        if not is_known or not goes_on(tree.nodes[int(cast("int", node))]):
            raise TreegrpoError(
                f"{type(policy).__name__}.at_rest() must return ids of nodes at which the episode "
                f"goes on, but returned {node!r} for a tree of {len(tree.nodes)} nodes. Correct it."
            )
    return [int(cast("int", node)) for node in nodes]


def goes_on(node: Node) -> bool:
    """Return whether the episode goes on after the node."""
    return not (node.terminated or node.truncated)


def forkable(tree: Tree, *, include_root: bool = True) -> list[int]:
    """Return the nodes that have a child, ascending: the episode went on there."""
    return [node.id for node in tree.nodes[0 if include_root else 1 :] if node.children]
