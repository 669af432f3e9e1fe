"""Agents: what an evaluation asks of one, and one kind a file."""

from __future__ import annotations

from treegrpo.leaderboards.agents.base import Acted, Agent, EpisodeView
from treegrpo.leaderboards.agents.scripted import SCRIPTED, ScriptedAgent, scripted_agent

__all__ = ["SCRIPTED", "Acted", "Agent", "EpisodeView", "ScriptedAgent", "scripted_agent"]
