"""The manifest's beginning: all that is known before the first episode is played."""

from __future__ import annotations

import json
import os
import platform
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import gymnasium
import numpy as np
import pydantic
import scipy
from pydantic import ValidationError

import treegrpo
from treegrpo.envs.errors import TreegrpoError
from treegrpo.leaderboards.agents import Agent
from treegrpo.leaderboards.bundle import sealed_manifest
from treegrpo.leaderboards.environment import EnvFacts
from treegrpo.leaderboards.errors import first_fault
from treegrpo.leaderboards.play import Setting
from treegrpo.leaderboards.schema import (
    FORMAT,
    FORMAT_VERSION,
    SuiteRef,
    TaskEntry,
    Track,
    Training,
)


@dataclass(frozen=True)
class Terms:
    """Under which terms a result counts; declared by whoever evaluates.

    `track` says whether the agent searched over forks (an agent with an attribute `track` says
    it itself), `training` what its weights have seen of the environment, `registration` which
    registered attempt this is, `prices` which dated price table the dollars come from.
    `command` is the exact command line, where there is one.
    """

    suite: SuiteRef | None = None
    track: Track = "single-pass"
    training: Training | None = None
    registration: str | None = None
    prices: str | None = None
    command: str | None = None


def manifest_head(
    agent: Agent, setting: Setting, facts: EnvFacts, indices: range, trials: int, terms: Terms
) -> dict[str, Any]:
    """Return the manifest's fields without tasks, root and digest, as JSON data.

    Raises:
        TreegrpoError: a value that could not be written, found before any work is done.
    """
    fields = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **_environment(setting, facts),
        "first_index": indices.start,
        "num_tasks": len(indices),
        "trials": trials,
        **_terms(agent, terms),
        "versions": _versions(),
        "command": terms.command or _command(agent.name, setting, indices, trials),
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "machine": {
            "cores": os.cpu_count() or 0,
            "system": f"{platform.system()} {platform.machine()}",
        },
        "tasks": [TaskEntry(index=0, id=None, difficulty=None, digest=None)],
        "root": "0" * 64,
    }
    try:
        return sealed_manifest(fields).model_dump(mode="json", exclude={"tasks", "root", "digest"})
    except ValidationError as error:
        raise TreegrpoError(
            f"An evaluation of tasks {indices.start} to {indices.stop - 1} asked for, but its "
            f"bundle could not be written: {first_fault(error)}. Change that value."
        ) from error


def _environment(setting: Setting, facts: EnvFacts) -> dict[str, Any]:
    return {
        "env_id": setting.env_id,
        "env_kwargs": dict(setting.env_kwargs),
        "env_digest": facts.env_digest,
        "scorer_digest": facts.scorer_digest,
        "budgets": facts.budgets,
        "split": setting.split,
        "seed": setting.seed,
    }


def _terms(agent: Agent, terms: Terms) -> dict[str, Any]:
    """Return who acts and under which terms; an agent that searches is in the track for it."""
    return {
        "agent": _agent(agent),
        "suite": terms.suite,
        "track": getattr(agent, "track", terms.track),
        "training": terms.training,
        "registration": terms.registration,
        "prices": terms.prices,
    }


def _agent(agent: Agent) -> dict[str, Any]:
    """Return who acts; an agent says more of itself by optional attributes."""
    more = ("model", "provider", "prompt_digest")
    return {
        "name": agent.name,
        "digest": agent.digest,
        "settings": dict(agent.settings),
        **{name: getattr(agent, name, None) for name in more},
    }


def _versions() -> Mapping[str, str]:
    return {
        "treegrpo": treegrpo.__version__,
        "python": platform.python_version(),
        "gymnasium": gymnasium.__version__,
        "numpy": np.__version__,
        "pydantic": pydantic.VERSION,
        "scipy": str(scipy.__version__),
    }


def _command(agent: str, setting: Setting, indices: range, trials: int) -> str:
    words = ["treegrpo", "eval", "--agent", agent, "--env", setting.env_id]
    words += ["--split", setting.split, "--tasks", str(len(indices)), "--trials", str(trials)]
    words += ["--seed", str(setting.seed), "--first-index", str(indices.start)]
    for name, value in setting.env_kwargs.items():
        words += ["--env-arg", f"{name}={json.dumps(value, default=repr)}"]
    return shlex.join([*words, "--out", "DIR"])
