"""Tables for the terminal; text that comes from bundles is shown literally, never as markup."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from treegrpo.leaderboards.board import Board, BoardKey, BoardRow
from treegrpo.leaderboards.stats import Interval
from treegrpo.leaderboards.suite import SuiteSummary
from treegrpo.leaderboards.summary import EvaluationSummary

_LETTERS = {"replayed": "r", "recomputed": "c", "declared": "d"}
_LEGEND = (
    "r replayed, c recomputed, d declared; after the rank: its range in 95 % of the draws of "
    "tasks; tier: 2 fresh seeds, 1 replayed, 0 claimed; old: the environment has changed since"
)
_COLUMNS = ("success", "95 % interval", "tasks", "calls", "tokens", "dollars", "tier")
SHOWN_DIGITS = 8
"""Of a run's digest: the fewest by which a command finds the run."""


def leaderboard_table(boards: Sequence[Board]) -> Group:
    """Return one table per board; a letter says how far each number is proved."""
    parts = [part for board in boards for part in (_board(board), plain(""))]
    return Group(*parts, plain(_LEGEND if parts else "No rows."))


def board_title(key: BoardKey) -> str:
    """Return what all rows of a board share, in one line."""
    options = "".join(f" {name}={value}" for name, value in key.env_kwargs.items())
    kind, _, listed = key.tasks.rpartition(":")
    tasks = f"{kind} tasks {listed[:8]}" if len(listed) == 64 else f"{key.tasks} tasks"
    return f"{key.env_id}{options} ({key.split}, {key.track}, {tasks.strip()})  {key.id}"


def _board(board: Board) -> Table:
    title = plain(board_title(board.key))
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, padding=0
    )
    table.add_column("rank", justify="right", no_wrap=True)
    table.add_column("agent", overflow="fold", min_width=8)
    table.add_column("run", no_wrap=True, min_width=SHOWN_DIGITS)
    rows = [_cells(row) for row in board.rows]
    # A column in which nobody has a number takes no room from the others.
    shown = [name for name in _COLUMNS if any(cells[name] != "-" for cells in rows)]
    for name in shown:
        # Alone the interval takes a second line where the terminal is narrow: "[0.700," is 7 wide.
        is_interval = name == "95 % interval"
        least = 8 if is_interval else 4
        table.add_column(name, justify="right", no_wrap=not is_interval, min_width=least)
    for cells in rows:
        table.add_row(*(plain(cells[name]) for name in ("rank", "agent", "run", *shown)))
    return table


def _cells(row: BoardRow) -> dict[str, str]:
    letters = {name: _LETTERS.get(word, "?") for name, word in row.words.items()}
    interval = "-"
    if row.success_low is not None and row.success_high is not None:
        ends = f"[{row.success_low:.3f}, {row.success_high:.3f}]"
        interval = f"{ends} {letters.get('interval', '?')}"
    ranged = "" if row.rank_low is None else f" ({row.rank_low}-{row.rank_high})"
    calls = "-" if row.tool_calls is None else f"{row.tool_calls:.2f}"
    return {
        "rank": row.pinned or ("old" if row.outdated else f"{count(row.rank)}{ranged}"),
        "agent": row.agent,
        "run": row.digest[:SHOWN_DIGITS],
        "success": f"{row.success:.3f} {letters.get('success', '?')}",
        "95 % interval": interval,
        "tasks": "-" if row.trials is None else f"{row.num_tasks}x{row.trials}",
        "calls": _proved(calls, "tool_calls", letters),
        "tokens": _proved(count(row.sampled_tokens), "sampled_tokens", letters),
        "dollars": _proved(row.dollars or "-", "dollars", letters),
        "tier": str(row.tier),
    }


def _proved(number: str, name: str, letters: dict[str, str]) -> str:
    return number if number == "-" else f"{number} {letters.get(name, '?')}"


def summary_table(summary: EvaluationSummary) -> Table:
    """Return the scores of one evaluation, overall and by difficulty."""
    table = Table(title=plain(f"{summary.agent} on {summary.env_id} ({summary.split})"))
    table.add_column("what")
    table.add_column("value", justify="right")
    table.add_column("95 % interval")
    lines: list[tuple[str, Interval]] = [("success", summary.success)]
    lines += [(f"  difficulty {d}", i) for d, i in summary.success_by_difficulty.items()]
    lines.append(("reward", summary.reward))
    for name, interval in lines:
        span = "-"
        if interval.low is not None and interval.high is not None:
            span = f"[{interval.low:.3f}, {interval.high:.3f}]"
        table.add_row(name, f"{interval.mean:.3f}", plain(span))
    table.add_row("tasks x trials", f"{summary.num_tasks} x {summary.trials}", "")
    table.add_row("turns per episode", f"{summary.turns:.2f}", "")
    table.add_row("tool calls per episode", f"{summary.tool_calls:.2f}", "")
    if summary.search_turns is not None and summary.search_tool_calls is not None:
        table.add_row("  turns in forks", f"{summary.search_turns:.2f}", "")
        table.add_row("  tool calls in forks", f"{summary.search_tool_calls:.2f}", "")
    table.add_row("sampled tokens", count(summary.sampled_tokens), "")
    if summary.requests is not None:
        table.add_row("tokens read", count(summary.input_tokens), "")
        table.add_row("requests", count(summary.requests), "")
        table.add_row("dollars", "-" if summary.dollars is None else f"{summary.dollars:.4f}", "")
    for who, number in summary.failures.items():
        table.add_row(f"failed by {who}", str(number), "")
    if summary.first_failure is not None:
        table.caption = plain(f"First failure: {summary.first_failure}")
    return table


def suite_table(suite: SuiteSummary) -> Group:
    """Return the score of a suite, with each entry's success and what it counts for."""
    agent = next(iter(suite.entries.values())).agent
    table = Table(title=plain(f"{agent} on {suite.suite}"), box=box.SIMPLE_HEAD)
    table.add_column("entry", overflow="fold")
    for name in ("success", "normalised", "failed", "tokens", "dollars"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, summary in suite.entries.items():
        dollars = "-" if summary.dollars is None else f"{summary.dollars:.4f}"
        cells = [
            name, f"{summary.success.mean:.3f}", f"{suite.score.members[name].mean:.3f}",
            str(sum(summary.failures.values())), count(summary.sampled_tokens), dollars,
        ]  # fmt: skip
        table.add_row(*map(plain, cells))
    middle = f"mean of the middle half of the weight {suite.score.interquartile_mean:.3f}"
    return Group(table, plain(f"Score (null 0, oracle 1): {suite.score.score}; {middle}"))


def failures_line(summaries: Sequence[EvaluationSummary]) -> str | None:
    """Return how many episodes failed without the agent's doing, and what can be done."""
    counted: Counter[str] = Counter()
    for summary in summaries:
        counted.update(summary.infrastructure_failures)
    if not counted:
        return None
    episodes = sum(summary.num_tasks * summary.trials for summary in summaries)
    causes = ", ".join(f"{who} {number}" for who, number in sorted(counted.items()))
    line = (
        f"{counted.total()} of {episodes} episodes failed without the agent's doing ({causes}). "
        "They stay in the count and score 0."
    )
    if counted["provider"]:
        line += (
            " What is sealed is not changed: to have provider failures played again before "
            "that, evaluate to another --out with --retry-failed 2."
        )
    return line


def plain(text: str) -> Text:
    """Return text without markup, control characters or terminal escapes."""
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))


def count(number: int | None) -> str:
    """Return "12,345", or "-" where nobody counted."""
    return "-" if number is None else f"{number:,}"
