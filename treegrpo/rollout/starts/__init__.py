"""Start states: where the trees of a question begin.

Importing the package registers the built-in ones; `get_start_state("reset", {})` returns one by
name. A new one is one file with a class under `@start_state("name")`; one in a user's own module
is named `module:name`.

| start state | trees begin |
|---|---|
| reset | at the environment's reset |
| oracle_prefix | for a share of questions along the oracle's trajectory, while success is rare |
| archive | for a share of questions at states that the policy reached in good episodes |
"""

from treegrpo.rollout.starts import archive, oracle_prefix, reset
from treegrpo.rollout.starts.base import (
    STARTS,
    StartState,
    Turn,
    get_start_state,
    start_state,
)

__all__ = [
    "STARTS",
    "StartState",
    "Turn",
    "archive",
    "get_start_state",
    "oracle_prefix",
    "reset",
    "start_state",
]
