"""Ways to cheat with a bundle, each with the reason it is refused for.

A cheat changes a copy of an honest bundle (tests/Toy-v0, three tasks, two trials, the second
task failed). Three kinds: `raw` edits a file and leaves every hash, `sealed` edits a file and
makes root and digest right again, `forged` rebuilds the bundle with every hash right. The
reason is a pattern of the refusal's message.
"""

# One cheat a line reads as the table that it is.
# ruff: noqa: E501

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.unit.leaderboards.toy import forge
from treegrpo.envs.digest import digest, digest_bytes
from treegrpo.leaderboards.bundle import read_bundle
from treegrpo.leaderboards.chain import leaf_hash, root_of, spelled
from treegrpo.leaderboards.files import packed
from treegrpo.leaderboards.schema import EpisodeRecord
from treegrpo.leaderboards.trajectories import MAX_UNPACKED_BYTES

RUN, EPISODES, LOGS = "run.json", "episodes.jsonl", "trajectories"
Log = list[dict[str, Any]]
Apply = Callable[[Path, Path], None]
"""Writes the cheat at the second path; the first is the honest bundle."""


@dataclass(frozen=True)
class Cheat:
    """One cheat: its name, the reason it must be refused for, and who notices it.

    `by` is "reading" (the files contradict themselves; the standalone check sees it, too),
    "names" (reading, but the standalone check knows no Unicode tricks), or "replay".
    """

    name: str
    reason: str
    apply: Apply
    by: str = "reading"


def copied(source: Path, target: Path) -> None:
    """Copy a bundle file by file, so that each copy is its own."""
    (target / LOGS).mkdir(parents=True)
    for path in sorted(source.rglob("*")):
        if path.is_file():
            (target / path.relative_to(source)).write_bytes(path.read_bytes())


def raw(name: str, change: Callable[[bytes], bytes]) -> Apply:
    """Edit a file and leave every hash as it is."""

    def apply(source: Path, target: Path) -> None:
        copied(source, target)
        before = (target / name).read_bytes()
        after = change(before)
        assert after != before
        (target / name).write_bytes(after)

    return apply


def swap(old: str, new: str) -> Callable[[bytes], bytes]:
    """Replace the first place of a text that must be there."""

    def change(data: bytes) -> bytes:
        assert old.encode() in data, old
        return data.replace(old.encode(), new.encode(), 1)

    return change


def place(change: Callable[[Path], None]) -> Apply:
    """Change the folder itself."""

    def apply(source: Path, target: Path) -> None:
        copied(source, target)
        change(target)

    return apply


def reseal(folder: Path, change: Callable[[dict[str, Any]], None] = lambda _: None) -> None:
    """Make root and digest of a changed bundle right again, as anybody can."""
    fields = json.loads((folder / RUN).read_text())
    rows = (folder / EPISODES).read_bytes().splitlines(keepends=True)
    fields["root"] = root_of([leaf_hash(row) for row in rows])
    change(fields)
    del fields["digest"]
    fields["digest"] = digest(fields)
    (folder / RUN).write_bytes(spelled(fields, indent=2))


def sealed(
    head: Callable[[dict[str, Any]], None] = lambda _: None,
    rows: Callable[[list[dict[str, Any]]], None] = lambda _: None,
) -> Apply:
    """Edit manifest and episode lines, root and digest right; the logs stay."""

    def apply(source: Path, target: Path) -> None:
        copied(source, target)
        episodes = [json.loads(row) for row in (target / EPISODES).read_text().splitlines()]
        rows(episodes)
        (target / EPISODES).write_bytes(b"".join(map(spelled, episodes)))
        reseal(target, head)

    return apply


def packed_log(change: Callable[[bytes], bytes]) -> Apply:
    """Change the packed bytes of the first log; the digests above are right."""

    def apply(source: Path, target: Path) -> None:
        copied(source, target)
        log = target / LOGS / f"{read_bundle(source).episodes[0].chain}.jsonl.gz"
        before = log.read_bytes()
        log.write_bytes(change(before))
        text = (target / EPISODES).read_text()
        (target / EPISODES).write_text(
            text.replace(digest_bytes(before), digest_bytes(log.read_bytes()))
        )
        reseal(target)

    return apply


def forged(**changes: Any) -> Apply:
    """Rebuild the bundle with every hash right; see `forge`."""
    return lambda source, target: void(forge(source, target, **changes))


def void(_: object) -> None:
    """Drop a result."""


def head(**fields: Any) -> Callable[[dict[str, Any]], None]:
    """Set fields of the manifest."""
    return lambda found: found.update(fields)


def agent(**fields: Any) -> Callable[[dict[str, Any]], None]:
    """Set fields of the manifest's agent."""
    return lambda found: found["agent"].update(fields)


def row(number: int, **fields: Any) -> Callable[[list[dict[str, Any]]], None]:
    """Set fields of one episode's line."""
    return lambda found: found[number].update(fields)


def at(index: int, change: Callable[[Log], None]) -> Callable[[EpisodeRecord, Log], None]:
    """Change the log of the first trial of a task."""
    return lambda record, log: change(log) if (record.index, record.trial) == (index, 0) else None


def record(index: int, **fields: Any) -> Callable[[EpisodeRecord], dict[str, Any]]:
    """Set fields of the record of the first trial of a task."""
    return lambda found: fields if (found.index, found.trial) == (index, 0) else {}


def event(number: int, **fields: Any) -> Callable[[Log], None]:
    """Set fields of one event."""
    return lambda log: log[number].update(fields)


def observed(text: str) -> dict[str, str]:
    """Return the fields of an event that was observed as `text`."""
    return {"observation": text, "observation_digest": digest(text)}


def reordered(log: Log) -> None:
    """Swap the first two steps and number them anew."""
    log[1], log[2] = log[2] | {"step": 1}, log[1] | {"step": 2}


def lucky(source: Path, target: Path) -> None:
    """Give the failed episode (1, 0) the log of the solved (0, 0), every hash right."""
    bundle = read_bundle(source)
    log = [event.model_dump() for event in bundle.events(bundle.episodes[0])]
    won = bundle.episodes[0].model_dump()
    kept = {n: won[n] for n in ("reward", "reward_components", "success", "end_reason", "turns")}

    def take(found: EpisodeRecord, events: Log) -> None:
        if (found.index, found.trial) == (1, 0):
            events[:] = [dict(event) for event in log]
            events[0] |= {
                "seed": found.seed,
                "task_id": found.task_id,
                "options": {"split": "test", "index": 1},
            }

    forge(source, target, events=take, episode=record(1, **kept))


def link(name: str) -> Callable[[Path], None]:
    """Put a link in a file's place."""

    def change(folder: Path) -> None:
        outside = folder.with_name(folder.name + ".outside")
        (folder / name).rename(outside)
        (folder / name).symlink_to(outside)

    return change


def a_log(folder: Path) -> Path:
    """Return the first log by name."""
    return min((folder / LOGS).iterdir())


def pipe(folder: Path) -> None:
    """Put a pipe in the place of the episodes."""
    (folder / EPISODES).unlink()
    os.mkfifo(folder / EPISODES)


def sparse(name: str, size: int) -> Callable[[Path], None]:
    """Blow a file up without writing it."""
    return lambda folder: os.truncate(folder / name, size)


def instead(folder: Path) -> None:
    """Put a folder in a file's place."""
    (folder / EPISODES).unlink()
    (folder / EPISODES).mkdir()


def bomb(_: bytes) -> bytes:
    """Return gzip data of some 64 kB that unpacks to more than the cap."""
    return packed(bytes(MAX_UNPACKED_BYTES + 1))


def crlf(data: bytes) -> bytes:
    """End lines as another system does."""
    return data.replace(b"\n", b"\r\n")


def other_order(data: bytes) -> bytes:
    """Spell the first line with its keys the other way round."""
    first, rest = data.split(b"\n", 1)
    pairs = list(reversed(json.loads(first).items()))
    return json.dumps(dict(pairs), separators=(",", ":")).encode() + b"\n" + rest


def drop_task(fields: dict[str, Any]) -> None:
    """Forget the failed task."""
    fields["tasks"] = [task for task in fields["tasks"] if task["index"] != 1]
    fields["num_tasks"] = 2


TEXT = "[" * 200_000
SPELLING = "one spelling of this value"
CHEATS: tuple[Cheat, ...] = (
    # Edited numbers, hashes left as they were.
    Cheat("reward edited in its line", "not give the root", raw(EPISODES, swap('"reward":"0.1"', '"reward":"1.1"'))),
    Cheat("success flag edited in its line", "not give the root", raw(EPISODES, swap('"success":false', '"success":true'))),
    Cheat("agent renamed", "run.json .* was altered", raw(RUN, swap('"name": "toy"', '"name": "gpt"'))),
    Cheat("date moved", "run.json .* was altered", raw(RUN, swap('"created": "2', '"created": "1'))),
    Cheat("root overwritten", "not give the root", sealed(head(root="0" * 64))),
    Cheat("a line swapped with the next", "not give the root", raw(EPISODES, lambda d: b"".join([*(r := d.splitlines(True))[1::-1], *r[2:]]))),
    # Spellings: the same value, other bytes.
    Cheat("integer spelled 4.0", "field turns: .*integer", raw(EPISODES, swap('"turns":4', '"turns":4.0'))),
    Cheat("integer spelled 4e0", SPELLING, raw(EPISODES, swap('"turns":4', '"turns":4e0'))),
    Cheat("integer spelled \"4\"", "field turns: .*integer", raw(EPISODES, swap('"turns":4', '"turns":"4"'))),
    Cheat("reward spelled 1.10", "spelling of this number", sealed(rows=row(0, reward="1.10"))),
    Cheat("reward spelled 11e-1", "spelling of this number", sealed(rows=row(0, reward="11e-1"))),
    Cheat("reward a bare float", "field reward: .*string", sealed(rows=row(0, reward=1.1))),
    Cheat("reward nan", "field reward", sealed(rows=row(0, reward="nan"))),
    Cheat("reward beyond every float", "field reward: .*finite", sealed(rows=row(0, reward="1e999"))),
    Cheat("NaN for a count", "NaN is no number", raw(EPISODES, swap('"turns":4', '"turns":NaN'))),
    Cheat("Infinity for a count", "Infinity is no number", raw(EPISODES, swap('"turns":4', '"turns":Infinity'))),
    Cheat("key doubled", "none doubled", raw(EPISODES, swap('"turns":4', '"turns":4,"turns":4'))),
    Cheat("keys in another order", SPELLING, raw(EPISODES, other_order)),
    Cheat("spaces added", SPELLING, raw(EPISODES, swap('"turns":4', '"turns": 4'))),
    Cheat("byte order mark", "not the ASCII JSON", raw(RUN, lambda d: b"\xef\xbb\xbf" + d)),
    Cheat("line ends of another system", SPELLING, raw(EPISODES, crlf)),
    Cheat("last line's end cut off", "has no end", raw(EPISODES, lambda d: d[:-1])),
    Cheat("blank line at the end", "not the ASCII JSON", raw(EPISODES, lambda d: d + b"\n")),
    Cheat("nested a hundred thousand deep", "not the ASCII JSON", raw(RUN, lambda _: TEXT.encode())),
    # Fields.
    Cheat("field unknown", "field bonus: .*not permitted", sealed(rows=row(0, bonus=1))),
    Cheat("field missing", "field failure: .*required", sealed(rows=lambda r: void(r[0].pop("failure")))),
    Cheat("dollars negative", "field dollars", sealed(rows=row(0, dollars="-1"))),
    Cheat("dollars with zeros at the end", "field dollars", sealed(rows=row(0, dollars="1.50"))),
    Cheat("tokens negative", "field tokens.output", sealed(rows=lambda r: r[0]["tokens"].update(output=-1))),
    Cheat("a million episodes claimed", "field num_tasks", sealed(head(num_tasks=1_000_000))),
    Cheat("a million episodes' bytes", "at most .* are read", place(sparse(EPISODES, 2**29))),
    Cheat("manifest of a gigabyte", "at most .* are read", place(sparse(RUN, 2**30))),
    Cheat("format 1", "format 1 found.*Evaluate again", sealed(head(format_version=1))),
    Cheat("format of tomorrow", "format 3 found", sealed(head(format_version=3))),
    # Names that look like others.
    Cheat("name written right to left", "hidden character U.202E", sealed(agent(name="to\u202ey")), "names"),
    Cheat("name with a zero-width space", "hidden character U.200B", sealed(agent(name="to\u200by")), "names"),
    Cheat("name in composed characters", "normal form", sealed(agent(name="e\u0301toile")), "names"),
    Cheat("name in full-width letters", "normal form", sealed(agent(name="\uff54oy")), "names"),
    Cheat("name with a terminal escape", "hidden character U.001B", sealed(agent(name="toy\x1b[2J")), "names"),
    Cheat("environment spelled with a Cyrillic o", "field env_id", sealed(head(env_id="tests/T\u043ey-v0"))),
    # The folder.
    Cheat("path traversal in a log's name", "field chain", sealed(rows=row(0, chain="../../../etc/passwd"))),
    Cheat("episodes a link", "found a link", place(link(EPISODES))),
    Cheat("a log a link", "found a link", place(lambda f: link(f"{LOGS}/{a_log(f).name}")(f))),
    Cheat("logs a link", "no such folder", place(link(LOGS))),
    Cheat("episodes a pipe", "no regular file", place(pipe)),
    Cheat("episodes a folder", "no regular file", place(instead)),
    Cheat("file too many", "which no bundle has", place(lambda f: void((f / "cache.bin").write_text("")))),
    Cheat("log too many", "which no bundle has", place(lambda f: void((f / LOGS / "x.jsonl.gz").write_text("")))),
    Cheat("log missing", "found nothing", place(lambda f: a_log(f).unlink())),
    Cheat("two logs swapped", "was altered", place(lambda f: void((x := sorted((f / LOGS).iterdir()))[0].write_bytes(x[1].read_bytes())))),
    # Packed data, digests right.
    Cheat("bytes after the gzip data", "bytes after the end", packed_log(lambda d: d + b"\0")),
    Cheat("second gzip member", "bytes after the end", packed_log(lambda d: d + packed(b"{}\n"))),
    Cheat("gzip data cut short", "ends within", packed_log(lambda d: d[:-9])),
    Cheat("no gzip data", "is no gzip data", packed_log(lambda d: b"{}\n")),
    Cheat("decompression bomb", "unpacks to more than", packed_log(bomb)),
    Cheat("time put into the gzip header", "was altered", place(lambda f: void(a_log(f).write_bytes((d := a_log(f).read_bytes())[:4] + b"1" + d[5:])))),
    # Episodes and seeds.
    Cheat("failed episodes dropped", "was expected", sealed(rows=lambda r: void(r.__delitem__(slice(2, 4))))),
    Cheat("failed task dropped", "field tasks", sealed(drop_task, lambda r: void(r.__delitem__(slice(2, 4))))),
    Cheat("lucky episode doubled", "was expected", sealed(rows=lambda r: r.insert(1, dict(r[0])))),
    Cheat("lucky episode under another trial", "field seed", sealed(rows=lambda r: r[1].update(r[0] | {"trial": 1}))),
    Cheat("lucky log under another trial", "field chain|which no bundle", sealed(rows=lambda r: r[1].update(chain=r[0]["chain"], trajectory=r[0]["trajectory"]))),
    Cheat("episode seed picked", "Seeds cannot be picked", forged(episode=record(1, seed=7))),
    Cheat("other seed than the run's", "Seeds cannot be picked", forged(head=head(seed=2))),
    Cheat("other split", "Seeds cannot be picked", forged(head=head(split="train"))),
    Cheat("other version of the environment", "Seeds cannot be picked", forged(head=head(env_id="tests/Toy-v1"))),
    Cheat("log began with another seed", "line 1, field seed", forged(events=at(1, event(0, seed=7)))),
    Cheat("log began with another task", "line 1, field options", forged(events=at(1, event(0, options={"split": "test", "index": 0})))),
    Cheat("steps reordered", "field step", forged(events=at(1, lambda log: log.insert(1, log.pop(2))))),
    Cheat("observation edited", "field observation", forged(events=at(1, event(1, observation="Right!")))),
    Cheat("easier task claimed", "field task_id/difficulty", forged(episode=record(1, difficulty=9))),
    # Every hash right: only replay finds it.
    Cheat("reward edited everywhere", "field reward: recorded 1.1, replayed 0.1", forged(events=at(1, event(-1, reward="1.1")), episode=record(1, reward="1.1", success=True)), "replay"),
    Cheat("reward edited in the record", "field reward: recorded 1.1, replayed 0.1", forged(episode=record(1, reward="1.1")), "replay"),
    Cheat("success flag forged", "field success: recorded True, replayed False", forged(episode=record(1, success=True)), "replay"),
    Cheat("reward components forged", "field reward_components", forged(episode=record(1, reward_components={"right": "1.0"})), "replay"),
    Cheat("observation edited with its digest", "field observation", forged(events=at(1, event(1, **observed("Right!")))), "replay"),
    Cheat("steps reordered and renumbered", "at step 1, field", forged(events=at(0, reordered)), "replay"),
    Cheat("transcript trimmed", "field end", forged(events=at(1, lambda log: void(log.pop()))), "replay"),
    Cheat("step added after the end", "the episode had ended", forged(events=at(1, lambda log: log.append(log[-1] | {"step": len(log)}))), "replay"),
    Cheat("action replaced", "at step 1, field", forged(events=at(1, event(1, action="I know it."))), "replay"),
    Cheat("log emptied", "field event|field end", forged(events=at(1, lambda log: log.clear())), "replay"),
    Cheat("fewer turns claimed", "field turns", forged(episode=record(1, turns=1)), "replay"),
    Cheat("fewer tool calls claimed", "field tool_calls", forged(episode=record(0, tool_calls=1)), "replay"),
    Cheat("end reason forged", "field end_reason", forged(episode=record(1, end_reason="answered")), "replay"),
    Cheat("final state forged", "field state_hash", forged(episode=record(1, state_hash="0" * 64)), "replay"),
    Cheat("failure that scores", "field reward", forged(episode=record(0, failure="environment")), "replay"),
    Cheat("foreign episode replayed", "diverged at", lucky, "replay"),
    Cheat("task swapped", "environment-mismatch at reset, field task", forged(head=lambda h: h["tasks"][0].update(digest="0" * 64)), "replay"),
    Cheat("options of the environment hidden", "field env_kwargs", forged(head=head(env_kwargs={"format": "xml"})), "replay"),
    Cheat("other source of the environment", "env_digest of the environment", forged(head=head(env_digest="0" * 64)), "replay"),
    Cheat("other grader", "scorer_digest of the environment", forged(head=head(scorer_digest="0" * 64)), "replay"),
    Cheat("other budget claimed", "budgets of the environment", forged(head=lambda h: h["budgets"].update(max_turns=2)), "replay"),
)  # fmt: skip


def table() -> str:
    """Return the cheats as the rows of docs/bundles_cheats.md."""
    names = {"reading": "reading, standalone", "names": "reading", "replay": "replay only"}
    lines = ["| # | cheat | refused by | the message says |", "|---|---|---|---|"]
    for number, cheat in enumerate(CHEATS, start=1):
        says = re.sub(r"[\\?]", "", cheat.reason).replace(".*", "...").replace("|", " or ")
        lines.append(f"| {number} | {cheat.name} | {names[cheat.by]} | {says} |")
    return "\n".join(lines) + "\n"
