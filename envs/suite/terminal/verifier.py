"""The tests of a task folder, run where the agent never was: in a fork, at a place it cannot know.

The fork holds what the agent left. The tests are written there, run once, and the reward is read
back; then the fork is dropped. The place's name depends on all that was done in the episode, so
nobody can have put anything there, or learn it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping

from treegrpo.envs.sandboxed import ours
from treegrpo.envs.suite.terminal.folder_tasks import Files, Job
from treegrpo.envs.suite.terminal.places import TESTS, VERDICT
from treegrpo.envs.suite.terminal.real import PLACE
from treegrpo.sandboxes import FileRefused, Result, Sandbox

REWARDS = ("reward.txt", "reward.json")
MAX_REWARD_BYTES = 4_096
_SHOWN_CHARS = 200
_RUN = (
    'mkdir -p -- "$3"; chmod +x -- "$2"; '
    f'cd -- "$1" 2>/dev/null || cd {PLACE}; PYTHONNOUSERSITE=1; export PYTHONNOUSERSITE; '
    '"$2" </dev/null'
)


class VerifierFailed(RuntimeError):
    """The tests gave no reward: they did not end, or wrote none that can be read."""


def put(sandbox: Sandbox, files: Files, place: str = "") -> None:
    """Write files into a sandbox, below a place if their paths are relative.

    Raises:
        FileRefused: the sandbox has no room for them.
        SandboxFailed: it failed.
    """
    below = f"{place}/" if place else ""
    with ours():
        for path, data in sorted(files.contents.items()):
            sandbox.write(below + path, data)
        for words, paths in (
            (("/bin/mkdir", "-p", "--"), files.folders),
            (("/bin/chmod", "+x", "--"), files.runnable),
        ):
            if paths:
                sandbox.exec([*words, *(below + path for path in paths)])


def reward_of(sandbox: Sandbox, job: Job) -> float:
    """Return the reward, from 0 to 1, that a task's tests give to a sandbox; it stays as it is.

    Raises:
        VerifierFailed: no reward; the message says what the tests did.
        SandboxFailed: the sandbox failed.
    """
    place = f"/tmp/{sandbox.state_hash[:32]}"
    names = {**job.names, TESTS: place + TESTS, VERDICT: place + VERDICT}
    with ours(), sandbox.snapshot() as room:
        put(room, job.tests.renamed(names), place + TESTS)
        paths = [job.root, f"{place}{TESTS}/test.sh", place + VERDICT]
        result = room.exec(["/bin/sh", "-c", _RUN, "sh", *paths], timeout_s=job.verifier_s)
        if not result.alive:
            raise VerifierFailed(f"tests/test.sh did not end: {_how(result, job)}")
        return _reward_in(room, place + VERDICT, result, job)


def _reward_in(room: Sandbox, folder: str, result: Result, job: Job) -> float:
    kinds: Mapping[str, str] = {}
    with contextlib.suppress(FileRefused):  # the tests may have removed the folder
        kinds = {entry.name: entry.kind for entry in room.list(folder)}
    name = next((name for name in REWARDS if name in kinds), None)
    if name is None:
        raise VerifierFailed(f"tests/test.sh wrote no {VERDICT}/reward: {_how(result, job)}")
    if kinds[name] != "file":
        raise VerifierFailed(f"{VERDICT}/{name} is a {kinds[name]}, no regular file")
    data = room.read(f"{folder}/{name}", max_bytes=MAX_REWARD_BYTES)
    reward = _number(data, is_json=name.endswith(".json"))
    if reward is None or not 0 <= reward <= 1:  # NaN is neither
        raise VerifierFailed(f"{VERDICT}/{name} holds {data[:80]!r}, no reward from 0 to 1")
    return float(reward)


def _number(data: bytes, *, is_json: bool) -> int | float | None:
    """Return the number in a file: of JSON the field "reward", or the only one there is."""
    try:
        value: object = json.loads(data) if is_json else float(data)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, dict):
        fields: dict[str, object] = value  # pyright: ignore[reportUnknownVariableType]
        value = fields.get("reward", next(iter(fields.values())) if len(fields) == 1 else None)
    return None if isinstance(value, bool) or not isinstance(value, (int, float)) else value


def _how(result: Result, job: Job) -> str:
    """Return how the tests ended, and the last of what they printed."""
    if result.kind == "timeout":
        return f"stopped after {job.verifier_s:g} seconds"
    last = result.text.strip()[-_SHOWN_CHARS:]
    code = "" if result.exit_code is None else f" {result.exit_code}"
    return f"ended with {result.kind}{code}, its last output {last!r}"
