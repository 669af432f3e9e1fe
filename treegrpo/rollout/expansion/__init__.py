"""Expansion policies: where trees are forked.

Importing the package registers the built-in ones; `get_expansion("random", {})` returns one by
name. A new policy is one file with a class under `@expansion("name")`; one in a user's own
module is named `module:name`.

| policy | forks | sees | unbiased under `path` weights |
|---|---|---|---|
| random | N nodes a round, uniformly | which nodes went on | mildly not |
| uniform_depth | the trunk at N depths drawn beforehand | the depth | yes |
| entropy | where entropy rose, at most N along a path | entropies along the path | yes |
| spread | N nodes a round, where sibling rewards differ | rewards | no |
| full | every node above a depth, b children each | the depth | yes |
"""

from treegrpo.rollout.expansion import entropy, full, random, spread, uniform_depth
from treegrpo.rollout.expansion.base import (
    EXPANSIONS,
    Expansion,
    Reached,
    expansion,
    forks_at_node,
    forks_at_rest,
    get_expansion,
)

__all__ = [
    "EXPANSIONS",
    "Expansion",
    "Reached",
    "entropy",
    "expansion",
    "forks_at_node",
    "forks_at_rest",
    "full",
    "get_expansion",
    "random",
    "spread",
    "uniform_depth",
]
