"""Credit estimators: from the rewards at the leaves to an advantage for every step.

Importing the package registers the built-in ones; `get_credit("group")` returns one by name.
A new estimator is one file with a function under `@credit("name")`.
"""

from treegrpo.credit import group, intra_inter
from treegrpo.credit.base import (
    Credit,
    Estimator,
    credit,
    credit_names,
    drop_credit,
    get_credit,
    node_advantage,
)

__all__ = [
    "Credit",
    "Estimator",
    "credit",
    "credit_names",
    "drop_credit",
    "get_credit",
    "group",
    "intra_inter",
    "node_advantage",
]
