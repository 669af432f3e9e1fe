"""Tool environments that can be forked after every step (no torch here)."""

from treegrpo.envs import suite
from treegrpo.envs.core import Message, Task, ToolEnv
from treegrpo.envs.errors import TreegrpoError
from treegrpo.envs.functional import make_tool_env
from treegrpo.envs.laws import check_env_laws
from treegrpo.envs.registry import list_envs, make, register
from treegrpo.envs.schema_tools import schema_tool
from treegrpo.envs.snapshot import Snapshot, fork, restore, snapshot
from treegrpo.envs.tools import tool
from treegrpo.envs.vector import make_vec

__all__ = [
    "Message",
    "Snapshot",
    "Task",
    "ToolEnv",
    "TreegrpoError",
    "check_env_laws",
    "fork",
    "list_envs",
    "make",
    "make_tool_env",
    "make_vec",
    "register",
    "restore",
    "schema_tool",
    "snapshot",
    "suite",
    "tool",
]
