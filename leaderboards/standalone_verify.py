"""Check a bundle with nothing but Python.

    python standalone_verify.py BUNDLE

This file needs no other file and no package, so that anybody can read it whole and run it
(python -I -S works). It checks that a bundle is well-formed, complete and unaltered: sizes,
spellings, fields, hash chains, digests, the Merkle root, and that nobody picked the seeds.
It cannot tell whether the rewards are real: for that, replay it with
treegrpo leaderboard verify BUNDLE.

Prints the bundle's digest and exits with 0, or says what is wrong and exits with 1.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Never, cast

MAX_MANIFEST_BYTES, MAX_EPISODES_BYTES, MAX_SIGNATURE_BYTES = 64 * 2**20, 256 * 2**20, 2**14
MAX_PACKED_BYTES, MAX_UNPACKED_BYTES = 16 * 2**20, 64 * 2**20
MAX_EPISODES, MAX_EVENTS = 200_000, 100_000
MAX_OBSERVATION_CHARS = 2_000
TAG = "treegrpo episode 2"
Check = Callable[[Any], bool]


class Refused(Exception):
    """What is wrong with the bundle: file, line and field."""


# ---------------------------------------------------------------------------- files and spelling


def content(path: Path, limit: int) -> bytes:
    """Return the bytes of a regular file of at most `limit` bytes; follows no link."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Refused(f"{path.name}: no file that can be read ({error.strerror})") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Refused(f"{path.name}: no regular file")
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise Refused(f"{path.name}: more than {limit} bytes")
    return data


def unpacked(data: bytes, where: str) -> bytes:
    """Return what one gzip member holds; stops at the cap, refuses bytes after its end."""
    unpack = zlib.decompressobj(wbits=31)
    try:
        found = unpack.decompress(data, MAX_UNPACKED_BYTES + 1)
    except zlib.error as error:
        raise Refused(f"{where}: no gzip data ({error})") from None
    if len(found) > MAX_UNPACKED_BYTES:
        raise Refused(f"{where}: unpacks to more than {MAX_UNPACKED_BYTES} bytes")
    if not unpack.eof:
        raise Refused(f"{where}: cut short")
    if unpack.unused_data:
        raise Refused(f"{where}: bytes after the end of its gzip data")
    return found


def spelled(value: Any, indent: int | None = None) -> bytes:
    """Return the one spelling of JSON data in a bundle."""
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(value, sort_keys=True, separators=separators, indent=indent, allow_nan=False)
    return text.encode("ascii") + b"\n"


def parsed(line: bytes, where: str, indent: int | None = None) -> Any:
    """Return the JSON data of a text, which must be spelled as `spelled` does."""

    def refuse(word: str) -> Never:
        raise ValueError(f"{word} is no number")

    try:
        value = json.loads(line.decode("ascii"), parse_constant=refuse)
        same = spelled(value, indent) == line
    except (ValueError, RecursionError) as error:
        raise Refused(f"{where}: no ASCII JSON ({ascii(str(error))[:100]})") from None
    if not same:
        raise Refused(f"{where}: not the one spelling of its value")
    return value


def rows(data: bytes, where: str) -> Iterator[tuple[str, Any]]:
    """Yield every line's place and value."""
    for number, line in enumerate(data.splitlines(keepends=True), start=1):
        place = f"{where}, line {number}"
        yield place, parsed(line, place)


# ------------------------------------------------------------------------------------- hashes


def digest(value: Any) -> str:
    """Return the sha256 of a value's canonical JSON, in which every type has its own form."""
    text = json.dumps(_typed(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _typed(value: Any) -> Any:
    if isinstance(value, dict):
        named = cast("dict[str, Any]", value)
        return {"m": {name: _typed(item) for name, item in named.items()}}
    if isinstance(value, list):
        return [_typed(item) for item in cast("list[Any]", value)]
    if isinstance(value, float):
        return {"f": value.hex()}
    if type(value) is int and abs(value) >= 2**64:
        return {"i": hex(value)}
    return value


def merkle_root(lines: list[bytes]) -> str:
    """Return the root over the lines of episodes.jsonl."""
    level = [hashlib.sha256(b"\0" + TAG.encode() + line).digest() for line in lines]
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        above = [hashlib.sha256(b"\1" + left + right).digest() for left, right in pairs]
        level = above + level[len(level) - len(level) % 2 :]
    return level[0].hex()


# ------------------------------------------------------------------------------------- fields


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 2**53


def _text(most: int, least: int = 0) -> Check:
    return lambda value: type(value) is str and least <= len(value) <= most


def _like(pattern: str) -> Check:
    return lambda value: type(value) is str and re.fullmatch(pattern, value, re.ASCII) is not None


def _one_of(*values: Any) -> Check:
    return lambda value: type(value) in map(type, values) and value in values


def _maybe(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _map(check: Check) -> Check:
    def every(value: Any) -> bool:
        if type(value) is not dict:
            return False
        found = cast("dict[str, Any]", value)
        return all(map(_label, found)) and all(map(check, found.values()))

    return every


def _model(fields: dict[str, Check]) -> Check:
    return lambda value: type(value) is dict and _fault(value, fields) is None


def _number(value: Any) -> bool:
    if not _like(r"-?\d{1,330}(\.\d{1,350})?(e[+-]?\d{1,3})?")(value):
        return False
    return math.isfinite(float(value)) and repr(float(value)) == value


def _seconds(value: Any) -> bool:
    return _number(value) and _like(r"\d{1,9}(\.\d{1,30})?(e-\d{1,3})?")(value)


def _any(value: Any) -> bool:
    return True


def _fault(value: Any, fields: dict[str, Check]) -> str | None:
    """Return the first field that is missing, unknown or wrong."""
    if type(value) is not dict:
        return "(whole)"
    found = cast("dict[str, Any]", value)
    optional = OPTIONAL if fields is EPISODE else {}
    for name in sorted(
        fields.keys() - found.keys() | found.keys() - fields.keys() - optional.keys()
    ):
        return ascii(name)[1:-1][:100]
    known = fields | {name: optional[name] for name in optional.keys() & found.keys()}
    return next((name for name, check in known.items() if not check(found[name])), None)


_label, _digest, _flag = _text(200, 1), _like("[0-9a-f]{64}"), _one_of(True, False)
_amount = _like(r"(0|[1-9]\d{0,11})(\.\d{0,11}[1-9])?")
_difficulty: Check = lambda value: type(value) is int and abs(value) <= 2**53  # noqa: E731
_seed: Check = lambda value: type(value) is int and 0 <= value < 2**63  # noqa: E731
_positive: Check = lambda value: type(value) is int and 1 <= value <= MAX_EPISODES  # noqa: E731
_list: Check = lambda value: type(value) is list  # noqa: E731
TASK = {
    "index": _count, "id": _maybe(_label), "difficulty": _maybe(_difficulty),
    "digest": _maybe(_digest),
}  # fmt: skip
AGENT = {
    "name": _label, "digest": _label, "model": _maybe(_label), "provider": _maybe(_label),
    "settings": _map(_any), "prompt_digest": _maybe(_digest),
}  # fmt: skip
BUDGETS = {
    "max_turns": _count, "max_tool_calls": _count, "max_seconds": _maybe(_number),
    "max_observation_chars": _count, "max_action_chars": _count,
}  # fmt: skip
MANIFEST = {
    "format": _one_of("treegrpo-bundle"), "format_version": _one_of(2),
    "env_id": _like("[A-Za-z0-9_.:/-]{1,200}"), "env_kwargs": _map(_any),
    "env_digest": _maybe(_digest), "scorer_digest": _maybe(_digest), "budgets": _model(BUDGETS),
    "suite": _maybe(_model({"name": _label, "digest": _digest})), "split": _label,
    "first_index": _count, "num_tasks": _positive, "trials": _positive, "seed": _seed,
    "tasks": _list, "agent": _model(AGENT), "track": _one_of("single-pass", "search"),
    "training": _maybe(_one_of("zero-shot", "trained-in-suite", "tuned-on-benchmark")),
    "registration": _maybe(_digest), "prices": _maybe(_label), "versions": _map(_label),
    "command": _text(2_000), "created": _like(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"),
    "machine": _model({"cores": _count, "system": _label}), "root": _digest, "digest": _digest,
}  # fmt: skip
TOKENS = {name: _maybe(_count) for name in ("input", "cached", "output", "reasoning")}
EPISODE = {
    "index": _count, "trial": _count, "task_id": _maybe(_label), "difficulty": _maybe(_difficulty),
    "seed": _seed, "reward": _number, "reward_components": _map(_number), "success": _flag,
    "end_reason": _maybe(_label),
    "failure": _maybe(
        _one_of("policy", "provider", "tool", "sandbox", "environment", "grader")
    ),
    "failure_detail": _maybe(_text(2_000)), "turns": _count, "tool_calls": _count,
    "tokens": _model(TOKENS), "dollars": _maybe(_amount), "requests": _maybe(_count),
    "wall_seconds": _seconds, "chain": _maybe(_digest), "trajectory": _maybe(_digest),
    "state_hash": _maybe(_digest),
}  # fmt: skip
OPTIONAL = {
    "search": _model({"branches": _count, "turns": _count, "tool_calls": _count}),
    "reruns": _positive,
}  # fmt: skip
_SEEN = {
    "observation": _text(MAX_OBSERVATION_CHARS), "observation_digest": _digest,
    "state_hash": _digest, "chain": _digest,
}  # fmt: skip
RESET = _SEEN | {
    "kind": _one_of("reset"), "env_id": _like("[A-Za-z0-9_./-]{1,200}"), "env_kwargs": _map(_any),
    "seed": _seed, "options": _map(_any), "task_id": _text(200),
}  # fmt: skip
STEP = _SEEN | {
    "kind": _one_of("step"), "step": _count, "action": _text(200_000),
    "reward": _like(r"-?\d{1,330}(\.\d{1,350})?(e[+-]?\d{1,3})?"), "terminated": _flag,
    "truncated": _flag, "end_reason": _maybe(_text(200)),
}  # fmt: skip


def require(value: Any, fields: dict[str, Check], where: str) -> dict[str, Any]:
    """Return an object whose fields are all there, known and of the right kind."""
    fault = _fault(value, fields)
    if fault is not None:
        raise Refused(f"{where}, field {fault}: missing, unknown or out of bounds")
    return value


# --------------------------------------------------------------------------------- the bundle


def check(bundle: Path) -> str:
    """Return the digest of a bundle that is well-formed, complete and unaltered.

    Raises:
        Refused: what is wrong with it.
    """
    if bundle.is_symlink() or not bundle.is_dir():
        raise Refused(f"{bundle}: no folder")
    names = {"run.json", "episodes.jsonl", "trajectories", "run.sig"}
    _check_names(bundle, names)
    data = content(bundle / "run.json", MAX_MANIFEST_BYTES)
    manifest = require(parsed(data, "run.json", 2), MANIFEST, "run.json")
    if digest({k: v for k, v in manifest.items() if k != "digest"}) != manifest["digest"]:
        raise Refused("run.json, field digest: the content has another digest")
    text = content(bundle / "episodes.jsonl", MAX_EPISODES_BYTES)
    lines = text.splitlines(keepends=True)
    if not lines or merkle_root(lines) != manifest["root"]:
        raise Refused("episodes.jsonl: its lines do not give the root in run.json")
    found = list(rows(text, "episodes.jsonl"))
    tasks = _check_complete(manifest, found)
    folder = bundle / "trajectories"
    if folder.is_symlink() or not folder.is_dir():
        raise Refused("trajectories: no folder")
    for place, episode in found:
        _check_episode(manifest, tasks, episode, place)
        if episode["chain"] is not None:
            _check_log(folder, manifest, episode)
    _check_names(folder, {f"{episode['chain']}.jsonl.gz" for _, episode in found})
    if (bundle / "run.sig").exists():
        _check_signature(content(bundle / "run.sig", MAX_SIGNATURE_BYTES))
    return str(manifest["digest"])


def _check_names(folder: Path, known: set[str]) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name not in known:
                raise Refused(f"{ascii(entry.name)[:100]}: does not belong in {folder.name}")


def _check_complete(
    manifest: dict[str, Any], found: list[tuple[str, Any]]
) -> dict[int, dict[str, Any]]:
    """Return the tasks by index; every task has every trial, once, in order."""
    first, trials = manifest["first_index"], manifest["trials"]
    tasks = [require(task, TASK, "run.json, field tasks") for task in manifest["tasks"]]
    if [task["index"] for task in tasks] != list(range(first, first + manifest["num_tasks"])):
        raise Refused("run.json, field tasks: not those that were asked for")
    if len(found) != len(tasks) * trials:
        raise Refused(f"episodes.jsonl: {len(found)} lines for {len(tasks)} x {trials} episodes")
    for line, (place, episode) in enumerate(found):
        require(episode, EPISODE, place)
        if (episode["index"], episode["trial"]) != (first + line // trials, line % trials):
            raise Refused(f"{place}, field index/trial: out of order, dropped or doubled")
    return {task["index"]: task for task in tasks}


def _check_episode(
    manifest: dict[str, Any], tasks: dict[int, dict[str, Any]], episode: dict[str, Any], place: str
) -> None:
    facts = [manifest["env_id"], manifest["split"], episode["index"], episode["trial"]]
    if episode["seed"] != int(digest(["eval", *facts, manifest["seed"]])[:16], 16) >> 1:
        raise Refused(f"{place}, field seed: not the one that run.json gives")
    task = tasks[episode["index"]]
    same = (episode["task_id"], episode["difficulty"]) == (task["id"], task["difficulty"])
    if episode["failure"] is None and not same:
        raise Refused(f"{place}, field task_id/difficulty: not those in run.json")
    if (episode["chain"] is None) != (episode["trajectory"] is None):
        raise Refused(f"{place}, field trajectory: a chain and its file come together")


def _check_log(folder: Path, manifest: dict[str, Any], episode: dict[str, Any]) -> None:
    """Check that an episode's log is unaltered, whole, and of this very episode."""
    where = f"trajectories/{episode['chain']}.jsonl.gz"
    data = content(folder / f"{episode['chain']}.jsonl.gz", MAX_PACKED_BYTES)
    if hashlib.sha256(data).hexdigest() != episode["trajectory"]:
        raise Refused(f"{where}: altered, its digest is not the recorded one")
    facts = [manifest["env_id"], manifest["env_digest"], manifest["split"]]
    chain = digest([TAG, *facts, episode["index"], episode["seed"]])
    number = -1
    for number, (place, event) in enumerate(rows(unpacked(data, where), where)):
        if number > MAX_EVENTS:
            raise Refused(f"{place}: too many events")
        require(event, RESET if number == 0 else STEP, place)
        _check_event(event, number, manifest, episode, place)
        chain = digest([chain, {k: v for k, v in event.items() if k != "chain"}])
        if event["chain"] != chain:
            raise Refused(f"{place}, field chain: the log was altered or is of another episode")
    if number < 0 or chain != episode["chain"]:
        raise Refused(f"{where}: its chain does not end as recorded")


def _check_event(
    event: dict[str, Any],
    number: int,
    manifest: dict[str, Any],
    episode: dict[str, Any],
    place: str,
) -> None:
    seen = event["observation"]
    if len(seen) < MAX_OBSERVATION_CHARS and digest(seen) != event["observation_digest"]:
        raise Refused(f"{place}, field observation: the text does not match its digest")
    if number > 0:
        if event["step"] != number:
            raise Refused(f"{place}, field step: out of order")
        return
    options = {"split": manifest["split"], "index": episode["index"]}
    wanted = (manifest["env_id"].rpartition(":")[2], episode["seed"], options)
    if (event["env_id"], event["seed"], event["options"]) != wanted:
        raise Refused(f"{place}, field env_id/seed/options: the log is of another episode")


def _check_signature(data: bytes) -> None:
    begin, end = "-----BEGIN SSH SIGNATURE-----\n", "-----END SSH SIGNATURE-----\n"
    text = data.decode("ascii", errors="replace")
    try:
        middle = text.removeprefix(begin).removesuffix(end).replace("\n", "")
        body = base64.b64encode(base64.b64decode(middle, validate=True)).decode("ascii")
    except ValueError:
        body = ""
    folded = "".join(f"{body[at : at + 70]}\n" for at in range(0, len(body), 70))
    if not body or text != begin + folded + end:
        raise Refused("run.sig: not what ssh-keygen -Y sign writes")


def main(words: list[str]) -> int:
    """Check the bundle that the command line names; return the exit status."""
    if len(words) != 1:
        sys.stderr.write("usage: python standalone_verify.py BUNDLE\n")
        return 2
    try:
        found = check(Path(words[0]))
    except Refused as refused:
        sys.stderr.write(f"refused: {refused}\n")
        return 1
    sys.stdout.write(
        f"{found}: well-formed, complete, unaltered. Replay it to know that its rewards are real.\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
