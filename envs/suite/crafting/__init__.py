"""Crafting: recipes to follow with limited resources, where a wrong craft is a lasting loss."""

from treegrpo.envs.suite.crafting.env import CraftingEnv

__all__ = ["CraftingEnv"]
