"""What do a step, a snapshot, a restore and a fork cost per environment, beside other gyms?

    python -m benchmarks.env_overhead [--quick] [--json FILE] [--install-peers]

Every environment of the registry, and those of other gyms that come nearest, take turns in one
run. Two games are played on both sides in the same action texts. The other gyms live in venvs
of their own under .venv-peers, which --install-peers makes; one that is missing is named.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks._overhead_games import Game, difference, games
from benchmarks._overhead_ours import Subject, subject
from benchmarks._overhead_peers import REQUIREMENTS, VENVS, Peer, PeerFailed, install, state_of
from benchmarks._overhead_rows import OURS, Line, Row, Spread, lines, metrics, ratios
from treegrpo.envs import list_envs
from treegrpo.envs.errors import SandboxFailed, TreegrpoError
from treegrpo.sandboxes.errors import SandboxError

QUESTION = (
    "What do a step, a snapshot, a restore and a fork cost per environment, beside other gyms?"
)


@dataclass(frozen=True)
class Effort:
    """How often everything is measured, for how many seconds each time, on how many episodes."""

    rounds: int
    seconds: float
    episodes: int


FULL = Effort(rounds=5, seconds=0.6, episodes=3)
QUICK = Effort(rounds=1, seconds=0.1, episodes=1)


@dataclass
class Report:
    """What was measured.

    copies: for "PEER/ENV", what the peer offers of its own, and whether a deepcopy goes on as
        the original does.
    missing: what was not measured, and why.
    """

    rows: list[Row] = field(default_factory=list[Row])
    versions: dict[str, str] = field(default_factory=dict[str, str])
    copies: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    missing: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def missed(self) -> list[Line]:
        """The environments of ours whose snapshot misses its target."""
        return [line for line in lines(self.rows) if line.is_reached is False]


def main(words: Sequence[str] | None = None) -> None:
    """Measure everything, print the tables, write the record and the picture."""
    options = _parse(words)
    console = Console(width=130)
    if options.install_peers:
        for peer in options.peers:
            if state_of(peer) is not None:
                console.print(f"[dim]installing {peer} into {VENVS.name}/{peer}[/dim]")
                install(peer)
    report = measure(QUICK if options.quick else FULL, options.envs, options.peers, console)
    show(report, console)
    if options.json is not None:
        write(report, options.json, quick=options.quick)


def measure(effort: Effort, envs: Sequence[str], peers: Sequence[str], console: Console) -> Report:
    """Return everything measured: in each round each environment once, ours and others' in turn.

    Args:
        effort: how often and how long.
        envs: ids of ours.
        peers: names of other gyms.
        console: told what is being measured.
    """
    report = Report()
    played = games()
    subjects = _subjects(envs, effort.episodes, report)
    given = {name: game.given for name, game in played.items()}
    with ExitStack() as stack:
        running: list[Peer] = []
        for name in peers:
            try:
                running.append(stack.enter_context(Peer(name, given)))
                _judge(running[-1], played, report)
            except PeerFailed as error:
                report.missing[name] = str(error)
        for number in range(effort.rounds):
            console.print(f"[dim]round {number + 1} of {effort.rounds}[/dim]")
            for one in [*subjects, *(game.subject for game in played.values())]:
                report.rows.append(one.measure(number, effort.seconds))
            for peer in running:
                _measure_peer(peer, number, effort.seconds, report)
    return report


def _subjects(envs: Sequence[str], episodes: int, report: Report) -> list[Subject]:
    found: list[Subject] = []
    for env in envs:
        try:
            found.append(subject(env, episodes))
        except (TreegrpoError, SandboxError, SandboxFailed) as error:
            report.missing[env] = str(error)
    return found


def _judge(peer: Peer, played: dict[str, Game], report: Report) -> None:
    """Note what the peer's environments can copy, and whether shared games are the same."""
    report.versions[peer.name] = peer.version
    report.missing |= {f"{peer.name}/{name}": why for name, why in peer.missing.items()}
    for env in list(peer.entries):
        found = peer.ask({"judge": env})
        if "failed" in found:
            report.missing[f"{peer.name}/{env}"] = found["failed"]
            peer.entries.remove(env)
            continue
        report.copies[f"{peer.name}/{env}"] = {"deepcopy": found["verdict"], "own": found["own"]}
        game = played.get(env.lower())
        if game is None:
            continue
        theirs = [game.plain(text) for text, _, _ in found["moments"]]
        parted = difference(game.replies(), theirs)
        if parted is not None:
            report.missing[f"{peer.name}/{env}"] = f"not the same game: {parted}"
            peer.entries.remove(env)


def _measure_peer(peer: Peer, number: int, seconds: float, report: Report) -> None:
    """Add a row for each environment of a peer; one that fails is named and left out from then."""
    for env in list(peer.entries):
        try:
            found = peer.ask({"measure": env, "seconds": seconds})
        except PeerFailed as error:
            report.missing[f"{peer.name}/{env}"] = str(error)
            peer.entries.clear()
            return
        if "failed" in found:
            # The next round tries again; what is there stands for what it was measured on.
            report.missing[f"{peer.name}/{env}, round {number}"] = found["failed"]
            continue
        report.rows.append(_row(peer.name, env, number, found))


def _row(peer: str, env: str, number: int, found: dict[str, Any]) -> Row:
    return Row(
        who=peer,
        env=env,
        kind="peer",
        round=number,
        steps=found["steps"],
        step_s=found["step_s"],
        passes=found["passes"],
        snapshot=Spread.of(found["copy_ms"]),
        game=env.lower() if env in ("Mastermind", "Sokoban") else None,
    )


def show(report: Report, console: Console) -> None:
    """Print ours with their targets, the peers with what their copies are worth, the ratios."""
    found = lines(report.rows)
    console.print(_our_table([line for line in found if line.who == OURS]))
    others = Table("", "steps/s", "deepcopy p50 ms", "its copy", "own snapshot", title="peers")
    for line in found:
        if line.who != OURS:
            name = f"{line.who}/{line.env}"
            copies = report.copies[name]
            cells = (f"{line.steps_per_s:,.0f}", _ms(line.snapshot_p50))
            others.add_row(name, *cells, copies["deepcopy"], copies["own"])
    console.print(others)
    shared = Table("the same game, the same texts: ours / theirs", "ratio")
    for name, ratio in ratios(report.rows).items():
        shared.add_row(name, f"{ratio:.3g}")
    console.print(shared)
    for name, why in report.missing.items():
        console.print(f"  {name} was not measured: {why}", highlight=False, markup=False)


def _our_table(found: Sequence[Line]) -> Table:
    headings = ("steps/s", "snapshot p50", "p95", "restore p50", "fork p50", "fork and step")
    table = Table("", "state", *headings, "bytes", "target", title="ours, in milliseconds")
    for line in found:
        times = (
            line.snapshot_p50,
            line.snapshot_p95,
            line.restore_p50,
            line.fork_p50,
            line.forked_step_p50,
        )
        reached = {None: "none", True: "reached", False: "MISSED"}[line.is_reached]
        limit = "" if line.target_ms is None else f"< {line.target_ms:g} "
        table.add_row(
            f"the game {line.game}" if line.game else line.env.rpartition("/")[2],
            line.kind,
            f"{line.steps_per_s:,.0f}",
            *(_ms(value) for value in times),
            f"{line.nbytes:,}" if line.nbytes else "not portable",
            f"{limit}{reached}",
        )
    return table


def write(report: Report, path: Path, *, quick: bool) -> None:
    """Write the record, and of a full run the picture beside it."""
    # They load torch and matplotlib, whose threads and memory are kept out of what is measured.
    from benchmarks._overhead_figure import draw
    from benchmarks._record import write_record

    write_record(
        path,
        question=QUESTION,
        seeds=[0],
        rows=[dataclasses.asdict(row) for row in report.rows],
        metrics=metrics(report.rows),
        notes={
            "effort": dataclasses.asdict(QUICK if quick else FULL),
            "peers": report.versions,
            "copies": report.copies,
            "missed": [line.env for line in report.missed],
            "not_measured": report.missing,
        },
    )
    if not quick:
        draw(lines(report.rows), report.copies, path.with_suffix(".png"))


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.3f}"


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument("--quick", action="store_true", help="every measure, one short round")
    parser.add_argument("--json", type=Path, help="write the record here, the picture beside it")
    parser.add_argument("--envs", nargs="*", default=list_envs(), help="ids of ours; default: all")
    parser.add_argument(
        "--peers", nargs="*", choices=list(REQUIREMENTS), default=list(REQUIREMENTS)
    )
    parser.add_argument(
        "--install-peers",
        action="store_true",
        help="first install those that are missing, from the package index (1.4 GB)",
    )
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
