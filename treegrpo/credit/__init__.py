"""Credit estimators: from the rewards at the leaves to an advantage for every step.

Importing the package registers the built-in ones; `get_credit("group")` returns one by name.
A new estimator is one file with a function under `@credit("name")`; one in a user's own module
is named `module:name`.
"""

from treegrpo.credit import (
    gigpo,
    group,
    intra_inter,
    leave_one_out,
    rtpo,
    sibling,
    spo,
    treepo,
    treerl,
)
from treegrpo.credit.base import (
    MAX_ADVANTAGE,
    Credit,
    Estimator,
    StepAt,
    credit,
    credit_names,
    drop_credit,
    get_credit,
    node_advantage,
)
from treegrpo.credit.preferences import Preference, sibling_preferences

__all__ = [
    "MAX_ADVANTAGE",
    "Credit",
    "Estimator",
    "Preference",
    "StepAt",
    "credit",
    "credit_names",
    "drop_credit",
    "get_credit",
    "gigpo",
    "group",
    "intra_inter",
    "leave_one_out",
    "node_advantage",
    "rtpo",
    "sibling",
    "sibling_preferences",
    "spo",
    "treepo",
    "treerl",
]
