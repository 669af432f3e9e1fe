"""Laws of expansion policies, on trees that a small simulation grows by them."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treegrpo.envs.digest import stable_seed
from treegrpo.rollout.expansion import (
    EXPANSIONS,
    Expansion,
    Reached,
    forks_at_node,
    forks_at_rest,
    get_expansion,
)
from treegrpo.tree import Tree

DRAWN: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "random": st.fixed_dictionaries(
        {"include_root": st.booleans(), "with_replacement": st.booleans()}
    ),
    "uniform_depth": st.fixed_dictionaries({"max_depth": st.integers(1, 5)}),
    "entropy": st.fixed_dictionaries({"base": st.floats(0, 1), "scale": st.floats(0, 1)}),
    "spread": st.fixed_dictionaries({"explore": st.floats(0, 1)}),
    "full": st.fixed_dictionaries({"branching": st.integers(2, 3), "max_depth": st.integers(1, 3)}),
}
NAMES = sorted(DRAWN)
AT_NODE = ["entropy", "full", "uniform_depth"]
AT_REST = ["random", "spread"]
policies = st.one_of([DRAWN[name].map(lambda o, name=name: (name, o)) for name in NAMES])
seeds = st.integers(0, 2**32)


@dataclass
class Growth:
    """A tree as a policy grows it; lengths, rewards and entropies are the seed's."""

    policy: Expansion
    forks: int
    rounds: int
    seed: int
    longest: int

    def grow(self) -> tuple[Tree, int, list[Reached]]:
        """Return the tree, its number of branches, and every node that was reached."""
        self.tree, self.branches, self.seen = Tree("q"), 0, list[Reached]()
        self.tree.add(None, observation_ids=[1])
        self.forked: dict[int, int] = {0: 0}
        self.waiting = [(0, True)]
        self._fork_here(0, is_trunk=True)
        self._run()
        for number in range(1, self.rounds + 1):
            rng = np.random.default_rng([self.seed, number])
            nodes = forks_at_rest(self.policy, self.tree, number, self.forks, rng)
            self.waiting = [(node, False) for node in nodes]
            self._run()
        return self.tree, self.branches, self.seen

    def _run(self) -> None:
        while self.waiting:
            node, is_trunk = self.waiting.pop(0)
            self.branches += 1
            while not self.tree.nodes[node].terminated:
                node = self._step(node)
                if not self.tree.nodes[node].terminated:
                    self._fork_here(node, is_trunk=is_trunk)

    def _step(self, parent: int) -> int:
        rng = np.random.default_rng(stable_seed("step", self.seed, len(self.tree.nodes)))
        is_end = self.tree.nodes[parent].depth + 1 >= self.longest or rng.random() < 0.2
        reward = float(rng.integers(3)) / 2 if is_end else 0.0
        node = self.tree.add(parent, terminated=bool(is_end), reward=reward)
        self.forked[node.id] = 0
        return node.id

    def _fork_here(self, node: int, *, is_trunk: bool) -> None:
        path = self.tree.path(node)
        reached = Reached(
            path=tuple(self.tree.nodes[step] for step in path),
            is_trunk=is_trunk,
            forked=sum(self.forked[step] for step in path[:-1]),
            forks=self.forks,
            entropies=tuple(self._entropy(step) for step in path),
            rng=np.random.default_rng(stable_seed("node", self.seed, node)),
            tree_seed=self.seed,
        )
        self.forked[node] = forks_at_node(self.policy, reached)
        self.waiting += [(node, False)] * self.forked[node]
        self.seen.append(reached)

    def _entropy(self, node: int) -> float:
        return float(np.random.default_rng([self.seed, node]).uniform(0, 3))


def growth(policy: tuple[str, dict[str, Any]], forks: int, rounds: int, seed: int) -> Growth:
    name, options = policy
    return Growth(get_expansion(name, options), forks, rounds, seed, longest=4)


def test_every_policy_is_under_these_laws() -> None:
    assert EXPANSIONS.names() == NAMES


@given(policy=policies, forks=st.integers(1, 4), rounds=st.integers(1, 3), seed=seeds)
@settings(max_examples=150)
def test_a_tree_never_has_more_branches_than_was_said(
    policy: tuple[str, dict[str, Any]], forks: int, rounds: int, seed: int
) -> None:
    one = growth(policy, forks, rounds, seed)
    tree, branches, _ = one.grow()
    most = one.policy.max_branches(forks, rounds)
    assert most is not None and 1 <= len(tree.leaves()) == branches <= most


@given(policy=policies, forks=st.integers(1, 4), rounds=st.integers(1, 3), seed=seeds)
@settings(max_examples=60)
def test_the_same_seed_grows_the_same_tree(
    policy: tuple[str, dict[str, Any]], forks: int, rounds: int, seed: int
) -> None:
    one, other = (growth(policy, forks, rounds, seed).grow()[0] for _ in range(2))
    assert one.to_json() == other.to_json()


@given(seed=seeds, forks=st.integers(1, 4), rounds=st.integers(1, 3))
@settings(max_examples=40)
def test_random_and_spread_make_exactly_l_n_forks(seed: int, forks: int, rounds: int) -> None:
    for name in AT_REST:
        assert growth((name, {}), forks, rounds, seed).grow()[1] == 1 + forks * rounds


@given(seed=seeds, branching=st.integers(2, 3), max_depth=st.integers(1, 3))
@settings(max_examples=40)
def test_full_gives_every_node_above_its_depth_as_many_children(
    seed: int, branching: int, max_depth: int
) -> None:
    options = {"branching": branching, "max_depth": max_depth}
    tree, _, _ = growth(("full", options), 1, 1, seed).grow()
    for node in tree.nodes:
        wanted = branching if node.depth < max_depth else 1
        assert len(node.children) == (0 if node.terminated else wanted)


@given(seed=seeds, forks=st.integers(1, 4))
@settings(max_examples=40)
def test_entropy_forks_at_most_n_times_along_a_path(seed: int, forks: int) -> None:
    tree, _, _ = growth(("entropy", {"base": 0.8}), forks, 1, seed).grow()
    for leaf in tree.leaves():
        forked = [len(tree.nodes[step].children) - 1 for step in tree.path(leaf)[:-1]]
        assert sum(forked) <= forks and max(forked) <= 1 and forked[0] == 0


@pytest.mark.parametrize("name", AT_NODE)
@given(data=st.data(), seed=seeds, forks=st.integers(1, 4))
@settings(max_examples=30)
def test_at_a_node_nothing_but_the_path_is_seen(
    name: str, data: st.DataObject, seed: int, forks: int
) -> None:
    one = growth((name, data.draw(DRAWN[name])), forks, 1, seed)
    _, _, seen = one.grow()
    for reached in seen:
        path = copy.deepcopy(reached.path)
        for node in path:
            node.children, node.advantage = [7, 8, 9], 3.0
        rng = np.random.default_rng(stable_seed("node", seed, path[-1].id))
        again = one.policy.at_node(replace(reached, path=path, rng=rng))
        assert again == one.forked[path[-1].id]


@given(seed=seeds, forks=st.integers(1, 4), shift=st.floats(-3, 3))
@settings(max_examples=40)
def test_random_does_not_see_rewards(seed: int, forks: int, shift: float) -> None:
    one = growth(("random", {}), forks, 2, seed)
    tree, _, _ = one.grow()
    before = one.policy.at_rest(tree, 3, forks, np.random.default_rng(seed))
    for node in tree.nodes:
        node.reward += shift * node.id
    assert one.policy.at_rest(tree, 3, forks, np.random.default_rng(seed)) == before


@given(seed=seeds, forks=st.integers(1, 4), explore=st.floats(0, 1))
@settings(max_examples=40)
def test_spread_sees_differences_only(seed: int, forks: int, explore: float) -> None:
    one = growth(("spread", {"explore": explore}), forks, 2, seed)
    tree, _, _ = one.grow()
    before = one.policy.at_rest(tree, 3, forks, np.random.default_rng(seed))
    tree.nodes[0].reward += 0.5  # raises every value alike
    assert one.policy.at_rest(tree, 3, forks, np.random.default_rng(seed)) == before


@given(policy=policies, forks=st.integers(1, 4), seed=seeds)
@settings(max_examples=40)
def test_a_policy_changes_no_tree(
    policy: tuple[str, dict[str, Any]], forks: int, seed: int
) -> None:
    one = growth(policy, forks, 1, seed)
    tree, _, seen = one.grow()
    before = tree.to_json()
    one.policy.at_rest(tree, 2, forks, np.random.default_rng(seed))
    for reached in seen:
        one.policy.at_node(reached)
    assert tree.to_json() == before
