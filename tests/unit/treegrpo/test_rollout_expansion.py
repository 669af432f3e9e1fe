"""treegrpo.rollout.expansion: which nodes are forked."""

from collections import Counter

import numpy as np

from treegrpo.rollout import random_forks
from treegrpo.tree import Tree


def chain(steps: int) -> Tree:
    tree = Tree("q")
    tree.add(None, observation_ids=[1])
    for node in range(steps):
        tree.add(node, action_ids=[2], action_logps=[-1.0], observation_ids=[3])
    return tree


def test_forks_are_drawn_uniformly_from_the_nodes_that_went_on() -> None:
    counts = Counter(random_forks(chain(3), 3000, np.random.default_rng(0)))
    assert set(counts) == {0, 1, 2}, "the root is a candidate, the leaf is none"
    assert all(900 < count < 1100 for count in counts.values())


def test_the_draw_is_the_seeds() -> None:
    draws = [random_forks(chain(5), 4, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2] and len(draws[0]) == 4


def test_a_bare_tree_has_nothing_to_fork() -> None:
    assert random_forks(chain(0), 3, np.random.default_rng(0)) == []
