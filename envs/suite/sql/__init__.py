"""SQL: a database to question and to change, and changes that cannot be undone."""

from treegrpo.envs.suite.sql.env import SQLEnv
from treegrpo.envs.suite.sql.level_env import SQLLevelsEnv
from treegrpo.envs.suite.sql.tasks import vocabulary, words

__all__ = ["SQLEnv", "SQLLevelsEnv", "vocabulary", "words"]
