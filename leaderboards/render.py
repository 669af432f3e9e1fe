"""Tables for the terminal; text that comes from bundles is shown literally, never as markup."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from treegrpo.leaderboards.stats import Interval
from treegrpo.leaderboards.store import Row
from treegrpo.leaderboards.summary import EvaluationSummary

_LETTERS = {"replayed": "r", "recomputed": "c", "declared": "d"}
_LEGEND = "r replayed, c recomputed, d declared; tokens in all, turns and calls per episode"


def leaderboard_table(rows: Sequence[Row]) -> Group:
    """Return one table per environment and split; a letter says how far each number is proved."""
    boards: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        boards.setdefault((row.env_id, row.split), []).append(row)
    tables = [_board(f"{env_id} ({split})", group) for (env_id, split), group in boards.items()]
    return Group(*tables, plain(_LEGEND if tables else "No rows."))


def _board(title: str, rows: Sequence[Row]) -> Table:
    table = Table(title=plain(title), title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    table.add_column("rank", justify="right")
    table.add_column("agent", overflow="fold", min_width=8)
    for name in ("success", "95 % interval", "tasks x trials", "turns", "calls", "tokens"):
        table.add_column(name, justify="right", no_wrap=name != "tasks x trials", min_width=6)
    for row in rows:
        letters = {name: _LETTERS.get(word, "?") for name, word in row.words.items()}
        interval = "-"
        if row.success_low is not None and row.success_high is not None:
            interval = f"[{row.success_low:.3f}, {row.success_high:.3f}] {letters['interval']}"
        tokens = count(row.sampled_tokens)
        cells = [
            str(row.rank), row.agent, f"{row.success:.3f} {letters['success']}", interval,
            f"{row.num_tasks} x {row.trials}", f"{row.turns:.2f} {letters['turns']}",
            f"{row.tool_calls:.2f} {letters['tool_calls']}",
            tokens if tokens == "-" else f"{tokens} {letters['sampled_tokens']}",
        ]  # fmt: skip
        table.add_row(*(plain(cell) for cell in cells))
    return table


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
    table.add_row("sampled tokens", count(summary.sampled_tokens), "")
    for who, number in summary.failures.items():
        table.add_row(f"failed by {who}", str(number), "")
    if summary.first_failure is not None:
        table.caption = plain(f"First failure: {summary.first_failure}")
    return table


def plain(text: str) -> Text:
    """Return text without markup, control characters or terminal escapes."""
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))


def count(number: int | None) -> str:
    """Return "12,345", or "-" where nobody counted."""
    return "-" if number is None else f"{number:,}"
