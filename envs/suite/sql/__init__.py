"""SQL: a generated database, questions about it, and changes that cannot be undone."""

from treegrpo.envs.suite.sql.env import SQLEnv
from treegrpo.envs.suite.sql.tasks import vocabulary, words

__all__ = ["SQLEnv", "vocabulary", "words"]
