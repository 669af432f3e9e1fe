"""Notes: facts told early and asked late, with little room to write them down."""

from treegrpo.envs.suite.notes.env import NotesEnv

__all__ = ["NotesEnv"]
