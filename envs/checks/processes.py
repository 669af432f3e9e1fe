"""Does the seed decide everything? The same episodes in other processes, with other hash seeds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from treegrpo.envs import fresh_process
from treegrpo.envs.checks.result import Counterexample, Result
from treegrpo.envs.digest import digest
from treegrpo.envs.law_cases import Factory, play, record_cases
from treegrpo.envs.snapshot import core_of

DETERMINISM = "determinism"
HASH_SEEDS = ("1", "2")
_CODE = "from treegrpo.envs.checks.processes import main; main()"

Course = dict[str, Any]
"""One episode: its seed, its actions, and a digest of what each step gave, the reset first."""


def determinism(make: Factory, *, episodes: int, seed: int) -> Result:
    """Return whether two processes with other hash seeds play the same episodes as this one."""
    made_by = fresh_process.recipe(make)
    if made_by is None or "spec" not in made_by:
        reason = "another process cannot make this environment; register it"
        return Result(DETERMINISM, "not checked", reason)
    job = json.dumps({"spec": made_by["spec"], "episodes": episodes, "seed": seed})
    running = [_start(hash_seed) for hash_seed in HASH_SEEDS]
    here = courses(make, episodes=episodes, seed=seed)
    answers = [_answer(process, job) for process in running]
    for (code, out, err), hash_seed in zip(answers, HASH_SEEDS, strict=True):
        if code != 0:
            return Result(DETERMINISM, "fails", f"a fresh process failed: {err.strip()[-500:]}")
        fault = _difference(here, json.loads(out.splitlines()[-1]), hash_seed)
        if fault is not None:
            return fault
    steps = sum(len(course["actions"]) for course in here)
    return Result(
        DETERMINISM,
        "holds",
        f"{len(here)} episodes, {steps} steps, the same in {1 + len(HASH_SEEDS)} processes",
    )


def courses(make: Factory, *, episodes: int, seed: int) -> list[Course]:
    """Return recorded episodes of the scripted agents, as digests."""
    found: list[Course] = []
    for case in record_cases(make, episodes=episodes, seed=seed, actions=None):
        env = case.bare()
        opening = digest([env.reset(seed=case.seed), env.state_hash()])
        moments = [fresh_process.fingerprint(moment) for moment in play(env, case.actions)]
        found.append(
            {"seed": case.seed, "actions": list(case.actions), "digests": [opening, *moments]}
        )
    return found


def main() -> None:
    """Read a job from standard input, write its courses to standard output."""
    job = json.load(sys.stdin)
    spec = EnvSpec.from_json(job["spec"])
    core_of(gymnasium.make(spec))  # a failure is told before the work begins
    found = courses(lambda: gymnasium.make(spec), episodes=job["episodes"], seed=job["seed"])
    sys.stdout.write("\n" + json.dumps(found) + "\n")


def _start(hash_seed: str) -> subprocess.Popen[str]:
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _CODE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": path},
    )


def _answer(process: subprocess.Popen[str], job: str) -> tuple[int, str, str]:
    """Return the exit code, output and error text of a process that is given its job."""
    with process:
        try:
            out, err = process.communicate(job, timeout=fresh_process.TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return 1, "", f"no answer within {fresh_process.TIMEOUT_S} s"
    return process.returncode, out, err


def _difference(here: Sequence[Course], there: Sequence[Course], hash_seed: str) -> Result | None:
    for one, other in zip(here, there, strict=True):
        pairs = zip(one["digests"], other["digests"], strict=False)
        step = next((n for n, (a, b) in enumerate(pairs) if a != b), None)
        if step is None and one["actions"] == other["actions"]:
            continue
        both = zip(one["actions"], other["actions"], strict=False)
        choice = next((n for n, (a, b) in enumerate(both) if a != b), len(one["actions"]))
        agents = step is None or choice < step
        place = choice if agents else step
        what = "an agent's next action" if agents else "the reset" if not step else f"step {step}"
        return Result(
            DETERMINISM,
            "fails",
            f"{what} is another one in a process with PYTHONHASHSEED={hash_seed}. Take all "
            "randomness from the rng given, and sort what comes out of a set",
            Counterexample(one["seed"], tuple(one["actions"][:place])),
        )
    return None
