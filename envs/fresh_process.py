"""Going on from snapshots in another process, with another PYTHONHASHSEED (law S7).

The snapshots and actions go in and what came of them comes out as JSON. A snapshot is
unpickled on the way: only one's own, as everywhere.
"""

from __future__ import annotations

import base64
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from treegrpo.envs.digest import digest
from treegrpo.envs.law_cases import Env, Factory, Moment, play
from treegrpo.envs.snapshot import Snapshot, core_of

TIMEOUT_S = 120
_CODE = "from treegrpo.envs.fresh_process import main; main()"

Course = tuple[Snapshot, Sequence[str]]


def recipe(make: Factory) -> dict[str, str] | None:
    """Return how another process makes the same environment; None if it cannot."""
    spec = core_of(make()).spec
    if spec is not None and isinstance(spec.entry_point, str):
        return None if spec.entry_point.startswith("__main__") else {"spec": spec.to_json()}
    module = str(getattr(make, "__module__", "__main__"))
    name = str(getattr(make, "__qualname__", "<unknown>"))
    return None if module == "__main__" or "<" in name else {"module": module, "name": name}


def play_elsewhere(made_by: dict[str, str], courses: Sequence[Course]) -> list[list[str]]:
    """Return, per course, the digests of its moments as another process found them.

    Raises:
        RuntimeError: the process failed; the message ends with its last words.
    """
    path = [os.path.abspath(entry) for entry in sys.path]
    job = {
        "recipe": made_by,
        "courses": [
            [base64.b64encode(snapshot.to_bytes()).decode(), list(actions)]
            for snapshot, actions in courses
        ],
    }
    hash_seed = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    done = subprocess.run(
        [sys.executable, "-P", "-c", _CODE],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={
            **os.environ,
            "PYTHONHASHSEED": hash_seed,
            "PYTHONPATH": os.pathsep.join(path),
        },
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip()[-1_000:])
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Read a job from standard input, write its courses' digests to standard output."""
    job = json.load(sys.stdin)
    results: list[list[str]] = []
    for data, actions in job["courses"]:
        env = core_of(_make(job["recipe"]))
        env.restore(Snapshot.from_bytes(base64.b64decode(data)))
        results.append([fingerprint(moment) for moment in play(env, actions)])
    sys.stdout.write("\n" + json.dumps(results) + "\n")


def fingerprint(moment: Moment) -> str:
    """Return a digest of all that a step gave."""
    return digest(moment)


def _make(made_by: dict[str, str]) -> Env:
    if "spec" in made_by:
        return gymnasium.make(EnvSpec.from_json(made_by["spec"]))
    found: Any = importlib.import_module(made_by["module"])
    for part in made_by["name"].split("."):
        found = getattr(found, part)
    return found()
