"""Terminal: a shell over an in-memory file system, where what is removed stays removed."""

from treegrpo.envs.suite.terminal.env import TerminalEnv

__all__ = ["TerminalEnv"]
