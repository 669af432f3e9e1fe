"""What is known of a question while its trees grow: branches, places and their order.

Nothing here depends on the clock. A branch is named by where it forked, and every step has a
key (tick, tree, branch), so the same trees come out whatever answers first.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import gymnasium
import numpy as np

from treegrpo.engine.base import Context
from treegrpo.envs.digest import stable_seed
from treegrpo.envs.snapshot import Snapshot
from treegrpo.rollout.budget import Budget, Key
from treegrpo.rollout.expansion.base import Reached
from treegrpo.tree import Node, Tree

Name: TypeAlias = tuple[int, ...]
"""Of a branch: () for the trunk, else the name of the branch it left, the depth where it did,
and its number among those that left there."""


@dataclass(frozen=True)
class Question:
    """A question to grow trees for: the reset that poses it, and the seed of its streams."""

    seed: int
    options: dict[str, Any]


@dataclass
class Place:
    """What forks need to know of a node."""

    branch: Name
    """The branch that made it."""
    tick: int
    seconds: float = 0.0
    """What the environment took along the path."""
    forks: int = 0
    """Branches forked here so far."""
    entropy: float | None = None
    """Of the first token behind it, once that is known."""
    snapshot: Snapshot | None = None
    context: Context | None = None


@dataclass(eq=False)
class Branch:
    """One rollout in flight: the node it continues, and its own environment and context."""

    growth: TreeGrowth
    name: Name
    node: int
    tick: int
    """Of its next step."""
    origin: Snapshot
    context: Context
    env: gymnasium.Env[str, str] | None = None
    has_sampled: bool = False
    seconds: float = 0.0
    """What the environment took along the path."""

    @property
    def key(self) -> Key:
        """The place of its next step in the order of all steps of the question."""
        return self.tick, self.growth.tree.tree_id, self.name

    @property
    def place(self) -> tuple[int, Key]:
        """Its place among the branches of all questions."""
        return self.growth.question.question.seed, self.key

    @property
    def depth(self) -> int:
        """Steps from the root to where it stands."""
        return self.growth.tree.nodes[self.node].depth

    def seconds_left(self, limit_s: float | None) -> float | None:
        """Return what its environment may still take of an episode's limit."""
        return None if limit_s is None else max(0.0, limit_s - self.seconds)

    def seed(self, what: str) -> int:
        """Return the seed of its next step's draws, whatever else is in flight."""
        growth = self.growth
        where = (growth.question.question.seed, growth.tree.tree_id, list(self.name), self.depth)
        return stable_seed(what, *where)


@dataclass(eq=False)
class TreeGrowth:
    """One tree being grown."""

    tree: Tree
    question: QuestionGrowth
    places: dict[int, Place]
    live: dict[Name, Branch] = field(default_factory=dict[Name, Branch])
    born: int = 0
    round: int = 0
    clock: int = 1
    """The tick at which the next round of forks begins: past all steps that there were."""
    is_done: bool = False
    """Whether it will never be forked again and nothing is in flight."""

    def branch(self, node: int, tick: int, context: Context) -> Branch:
        """Return a new branch at a node, the trunk if it is the first; it is live from now on."""
        place = self.places[node]
        assert place.snapshot is not None, "a node is forked while its snapshot is kept"
        name: Name = ()
        if self.born:
            name = (*place.branch, self.tree.nodes[node].depth, place.forks)
            place.forks += 1
        self.born += 1
        branch = Branch(self, name, node, tick, place.snapshot, context, seconds=place.seconds)
        self.live[name] = branch
        return branch

    def reached(self, node: int, forks: int, *, needs_entropy: bool) -> Reached:
        """Return what an expansion policy may know of a node."""
        path = self.tree.path(node)
        places = [self.places[step] for step in path]
        entropies = [place.entropy for place in places] if needs_entropy else []
        seed = self.question.question.seed
        where = (seed, self.tree.tree_id, list(places[-1].branch), len(path) - 1)
        return Reached(
            path=tuple(self.tree.nodes[step] for step in path),
            is_trunk=not places[-1].branch,
            forked=sum(place.forks for place in places[:-1]),
            forks=forks,
            entropies=tuple(one for one in entropies if one is not None),
            rng=np.random.default_rng(stable_seed("at node", *where)),
            tree_seed=stable_seed("at node", seed, self.tree.tree_id),
        )

    def put_in_order(self) -> None:
        """Number the nodes by their keys; nothing may be in flight."""

        def order(node: Node) -> tuple[int, Name]:
            return self.places[node.id].tick, self.places[node.id].branch

        new = self.tree.reorder([node.id for node in sorted(self.tree.nodes, key=order)])
        self.places = {new[old]: place for old, place in self.places.items()}

    def end(self, branch: Branch, *, is_refused: bool) -> None:
        """Take a branch off; one that was refused its next step ends at that step's tick."""
        del self.live[branch.name]
        self.clock = max(self.clock, branch.tick + is_refused)

    @property
    def first_tick(self) -> int:
        """The smallest tick that anything may still happen at; every fork to come is later."""
        return min((branch.tick for branch in self.live.values()), default=self.clock - 1)


@dataclass(eq=False)
class QuestionGrowth:
    """One question: its budget, and the trees that share it."""

    question: Question
    budget: Budget
    max_branches: int | None
    """Of one tree; None where the expansion policy does not say."""
    trees: list[TreeGrowth] = field(default_factory=list[TreeGrowth])

    def steps_before(self, branch: Branch) -> float:
        """Return how many steps with a smaller key may still be open, at most.

        Those are the steps that live branches have up to that tick, one a tick, and those of
        branches that may yet be forked.
        """
        tick, *mine = branch.key
        open_steps: float = 0
        for growth in self.trees:
            for other in growth.live.values():
                other_tick, *theirs = other.key
                if other_tick <= tick:
                    open_steps += tick - other_tick + (theirs < mine)
            if not growth.is_done and growth.first_tick < tick:
                most = float("inf") if self.max_branches is None else self.max_branches
                open_steps += max(0, most - growth.born) * (tick - growth.first_tick)
        return open_steps
