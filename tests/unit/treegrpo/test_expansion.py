"""treegrpo.rollout.expansion: what each policy forks, by hand-made trees."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, cast

import numpy as np
import pytest

from treegrpo.envs.errors import TreegrpoError, UnknownOption
from treegrpo.rollout.expansion import (
    EXPANSIONS,
    Expansion,
    Reached,
    expansion,
    forks_at_node,
    forks_at_rest,
    get_expansion,
)
from treegrpo.tree import Tree

Options = dict[str, Any]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def tree_of(*parents: int, rewards: dict[int, float] | None = None) -> Tree:
    """A root and a node for each parent; nodes that are nobody's parent end their episodes."""
    tree = Tree("q")
    tree.add(None, observation_ids=[1])
    for node, parent in enumerate(parents, start=1):
        reward = (rewards or {}).get(node, 0.0)
        tree.add(parent, reward=reward, terminated=node not in parents)
    return tree


def chain(steps: int) -> Tree:
    return tree_of(*range(steps))


def reached(depth: int, **changes: Any) -> Reached:
    fields: dict[str, Any] = {
        "path": tuple(chain(depth).nodes), "is_trunk": True, "forked": 0, "forks": 2,
        "entropies": (), "rng": rng(), "tree_seed": 0,
    }  # fmt: skip
    return Reached(**{**fields, **changes})


# ------------------------------------------------------------------------------- the table


def test_all_policies_are_there_by_name() -> None:
    assert EXPANSIONS.names() == ["entropy", "full", "random", "spread", "uniform_depth"]
    for name in EXPANSIONS.names():
        assert isinstance(get_expansion(name, {}), EXPANSIONS.get(name))


def test_an_expansion_of_its_own_forks_nowhere() -> None:
    nothing = Expansion()
    assert nothing.at_node(reached(1)) == 0
    assert nothing.at_rest(chain(3), 1, 2, rng()) == []
    assert nothing.max_branches(2, 1) == 1 and not nothing.needs_entropy


def test_only_entropy_needs_entropy() -> None:
    assert [n for n in EXPANSIONS.names() if EXPANSIONS.get(n).needs_entropy] == ["entropy"]


def test_an_unknown_name_is_told_with_the_closest() -> None:
    with pytest.raises(UnknownOption, match=r"Unknown expansion 'sprad'. Did you mean 'spread'\?"):
        get_expansion("sprad", {})


def test_an_unknown_option_is_told_with_the_closest() -> None:
    with pytest.raises(UnknownOption) as caught:
        get_expansion("random", {"with_replacment": False})
    assert str(caught.value) == (
        "Unknown option 'expansion_options.with_replacment' of expansion 'random'. Did you mean "
        "'with_replacement'? Its options: include_root, with_replacement."
    )


def test_every_wrong_value_has_its_line() -> None:
    with pytest.raises(UnknownOption) as caught:
        get_expansion("full", {"branching": 1, "max_depth": "3"})
    first, second = str(caught.value).splitlines()
    assert first == (
        "expansion_options.branching of expansion 'full': got 1; allowed: greater than or equal "
        "to 2. Children of each node above max_depth."
    )
    assert second.startswith("expansion_options.max_depth of expansion 'full': got '3'; allowed: ")
    with pytest.raises(UnknownOption, match="got nan; allowed: a finite number"):
        get_expansion("entropy", {"base": float("nan")})


def test_options_never_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        setattr(get_expansion("full", {}), "branching", 5)  # noqa: B010


def test_only_a_policy_can_be_registered() -> None:
    with pytest.raises(TreegrpoError, match="is no subclass of Expansion"):
        expansion("tests_function")(cast(Any, lambda: 0))
    assert "tests_function" not in EXPANSIONS.names()


# ------------------------------------------------------------------------- a user's own policy


class Wrong(Expansion):
    """Returns what it was made with."""

    answer: Any

    def at_node(self, reached: Reached) -> int:
        return self.answer

    def at_rest(self, tree: Tree, round: int, forks: int, rng: np.random.Generator) -> list[int]:
        return [self.answer]


@pytest.mark.parametrize("answer", [-1, 0.5, None])
def test_what_is_no_count_is_told(answer: Any) -> None:
    with pytest.raises(TreegrpoError, match=r"Wrong.at_node\(\) must return how many"):
        forks_at_node(Wrong(answer=answer), reached(1))


@pytest.mark.parametrize("answer", [-1, 3, 2, "0"])
def test_what_is_no_node_that_goes_on_is_told(answer: Any) -> None:
    with pytest.raises(TreegrpoError, match=r"Wrong.at_rest\(\) must return ids"):
        forks_at_rest(Wrong(answer=answer), chain(2), 1, 1, rng())


def test_right_answers_pass_as_plain_numbers() -> None:
    fine = Wrong(answer=np.int64(1))
    assert type(forks_at_node(fine, reached(1))) is int and forks_at_node(fine, reached(1)) == 1
    assert forks_at_rest(fine, chain(2), 1, 1, rng()) == [1]


# ---------------------------------------------------------------------------------- random


@pytest.mark.parametrize("seed", range(5))
def test_random_draws_nodes_that_went_on_with_replacement(seed: int) -> None:
    tree = tree_of(0, 1, 2, 1, 4)
    drawn = get_expansion("random", {}).at_rest(tree, 1, 60, rng(seed))
    assert len(drawn) == 60 and set(drawn) == {0, 1, 2, 4}


def test_random_may_leave_out_the_root() -> None:
    counts = Counter(
        get_expansion("random", {"include_root": False}).at_rest(chain(3), 1, 900, rng())
    )
    assert set(counts) == {1, 2} and abs(counts[1] - 450) < 60


def test_random_without_replacement_takes_each_node_once() -> None:
    policy = get_expansion("random", {"with_replacement": False})
    assert sorted(policy.at_rest(chain(4), 1, 9, rng())) == [0, 1, 2, 3]
    pairs = Counter(frozenset(policy.at_rest(chain(3), 1, 2, rng(seed))) for seed in range(300))
    assert set(pairs) == {frozenset(pair) for pair in itertools.combinations(range(3), 2)}
    assert all(count > 70 for count in pairs.values())


@pytest.mark.parametrize("name", ["random", "spread"])
def test_a_bare_tree_has_nothing_to_fork(name: str) -> None:
    assert get_expansion(name, {}).at_rest(chain(0), 1, 3, rng()) == []


# --------------------------------------------------------------------------- uniform_depth


def at_depths(policy: Expansion, depths: int, **changes: Any) -> list[int]:
    return [policy.at_node(reached(depth, **changes)) for depth in range(depths)]


def test_uniform_depth_places_all_forks_along_the_trunk() -> None:
    policy = get_expansion("uniform_depth", {"max_depth": 4})
    counts = np.array([at_depths(policy, 6, forks=3, tree_seed=seed) for seed in range(300)])
    assert set(counts.sum(axis=1)) == {3} and not counts[:, 4:].any()
    assert np.all(np.abs(counts[:, :4].sum(axis=0) - 225) < 45)


def test_uniform_depth_is_decided_before_the_tree_grows() -> None:
    policy = get_expansion("uniform_depth", {"max_depth": 3})
    same = [at_depths(policy, 3, forks=5, tree_seed=9, rng=rng(seed)) for seed in range(3)]
    assert same[0] == same[1] == same[2]
    other = tuple(tree_of(0, 1, 1, rewards={2: 1.0, 3: 7.0}).nodes[:2])
    assert policy.at_node(reached(1, forks=5, tree_seed=9, path=other)) == same[0][1]


def test_uniform_depth_leaves_branches_alone() -> None:
    policy = get_expansion("uniform_depth", {"max_depth": 1})
    assert policy.at_node(reached(0)) == 2 and policy.at_node(reached(0, is_trunk=False)) == 0


# --------------------------------------------------------------------------------- entropy


def share_of_forks(options: Options, *entropies: float) -> float:
    policy = get_expansion("entropy", options)
    depth = len(entropies) - 1
    drawn = [
        policy.at_node(reached(depth, entropies=entropies, rng=rng(seed))) for seed in range(400)
    ]
    assert set(drawn) <= {0, 1}
    return sum(drawn) / len(drawn)


@pytest.mark.parametrize(
    ("options", "entropies", "chance"),
    [
        ({}, (1.0, 1.0), 0.5),
        ({}, (1.0, 9.0, 2.0), 0.7),
        ({}, (2.0, 0.5), 0.2),
        ({}, (0.0, 9.0), 1.0),
        ({"base": 0.1}, (5.0, 1.0), 0.0),
        ({"base": 0.0, "scale": 2.0}, (1.0, 1.25), 0.5),
        ({"base": 0.25, "scale": 0.0}, (0.0, 9.0), 0.25),
    ],
)
def test_a_fork_is_likelier_where_entropy_rose(
    options: Options, entropies: tuple[float, ...], chance: float
) -> None:
    assert share_of_forks(options, *entropies) == pytest.approx(chance, abs=0.07)


def test_entropy_never_forks_the_root_nor_more_than_n_along_a_path() -> None:
    always = get_expansion("entropy", {"base": 1.0})
    assert always.at_node(reached(0, entropies=(1.0,))) == 0
    assert always.at_node(reached(1, entropies=(1.0, 1.0), forked=1)) == 1
    assert always.at_node(reached(1, entropies=(1.0, 1.0), forked=2)) == 0


# ---------------------------------------------------------------------------------- spread

FORKED = tree_of(0, 1, 2, 1, 4, 0, 6, rewards={3: 1.0, 5: 0.0, 7: 0.5})
"""Node 1 has children worth 1 and 0, the root children worth 1/2 and 1/2; 2, 4, 6 have one."""


def spread_counts(tree: Tree, draws: int, **options: Any) -> Counter[int]:
    return Counter(get_expansion("spread", options).at_rest(tree, 2, draws, rng()))


def test_spread_forks_where_siblings_differ() -> None:
    assert spread_counts(FORKED, 50, explore=0.0) == {1: 50}


def test_spread_explores_all_nodes_with_its_share() -> None:
    counts = spread_counts(FORKED, 2_000, explore=0.5)
    assert set(counts) == {0, 1, 2, 4, 6}
    assert all(abs(counts[node] - 200) < 50 for node in (0, 2, 4, 6))


def test_spread_weighs_by_the_variance_of_the_values() -> None:
    # At the root 1 and 0, variance 1/4; at node 1 1 and 1/2 and 3/2, variance 1/6.
    tree = tree_of(0, 1, 1, 1, 0, rewards={2: 1.0, 3: 0.5, 4: 1.5, 5: 0.0})
    counts = spread_counts(tree, 2_000, explore=0.0)
    assert counts[0] / counts[1] == pytest.approx(1.5, abs=0.2) and set(counts) == {0, 1}


@pytest.mark.parametrize("tree", [chain(4), tree_of(0, 1, 2, 1, 4, rewards={3: 0.1, 5: 0.1})])
def test_spread_is_uniform_where_nothing_differs(tree: Tree) -> None:
    counts = spread_counts(tree, 2_000, explore=0.0)
    assert set(counts) == {node.id for node in tree.nodes if node.children}
    assert all(abs(count - 500) < 80 for count in counts.values())


def test_spread_does_not_count_leaves_without_an_outcome() -> None:
    tree = Tree("q")
    tree.add(None, observation_ids=[1])
    for parent in (0, 1):
        tree.add(parent, observation_ids=[2])
    tree.add(1, reward=1.0, truncated=True, failure="sandbox")
    tree.add(2, reward=0.25, terminated=True)
    tree.add(0, reward=0.5, terminated=True)
    assert spread_counts(tree, 40, explore=0.0) == {0: 40}


def outcomes(worth: Fraction, number: int) -> Iterator[tuple[Fraction, tuple[int, ...]]]:
    """Every outcome of so many children worth 0 or 1, with its chance."""
    for values in itertools.product((0, 1), repeat=number):
        chance = Fraction(1)
        for value in values:
            chance *= worth if value else 1 - worth
        yield chance, values


def test_the_bias_of_a_third_child_where_two_differ_is_the_one_told() -> None:
    mean = Fraction(0)
    for chance, values in outcomes(Fraction(1, 4), 3):
        seen = values if values[0] != values[1] else values[:2]
        mean += chance * Fraction(sum(seen), len(seen))
    assert mean == Fraction(7, 32)


# ------------------------------------------------------------------------------------ full


def test_full_fills_every_node_above_its_depth() -> None:
    policy = get_expansion("full", {"branching": 3, "max_depth": 2})
    assert at_depths(policy, 4) == at_depths(policy, 4, is_trunk=False, forked=9) == [2, 2, 0, 0]


@pytest.mark.parametrize(
    ("name", "options", "most"),
    [
        ("random", {}, 7),
        ("uniform_depth", {}, 4),
        ("entropy", {}, 8),
        ("spread", {}, 7),
        ("full", {"branching": 3, "max_depth": 4}, 81),
    ],
)
def test_the_most_branches_of_a_tree(name: str, options: Options, most: int) -> None:
    assert get_expansion(name, options).max_branches(forks=3, rounds=2) == most
