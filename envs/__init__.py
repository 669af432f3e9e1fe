"""Tool environments that can be forked after every step (no torch here)."""

from treegrpo.envs import suite
from treegrpo.envs.core import Message, Task, ToolEnv
from treegrpo.envs.errors import TreegrpoError
from treegrpo.envs.laws import check_env_laws
from treegrpo.envs.registry import list_envs, make, register
from treegrpo.envs.snapshot import Snapshot, fork, restore, snapshot
from treegrpo.envs.tools import tool

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
    "register",
    "restore",
    "snapshot",
    "suite",
    "tool",
]
