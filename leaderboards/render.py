"""Tables for the terminal; text that comes from bundles is shown literally, never as markup."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from treegrpo.leaderboards.stats import Interval
from treegrpo.leaderboards.store import Row
from treegrpo.leaderboards.summary import EvaluationSummary

_NUMBERS = ("success", "interval", "turns", "tool_calls", "sampled_tokens")


def leaderboard_table(rows: Sequence[Row]) -> Table:
    """Return the leaderboard, with the word of each number in the last column."""
    table = Table(title="Leaderboard")
    for name in ("rank", "agent", "environment", "split", "success", "95 % interval"):
        table.add_column(name, justify="right" if name in ("rank", "success") else "left")
    for name in ("tasks x trials", "turns", "tool calls", "tokens"):
        table.add_column(name, justify="right")
    table.add_column("verification")
    for row in rows:
        interval = "-"
        if row.success_low is not None and row.success_high is not None:
            interval = f"[{row.success_low:.3f}, {row.success_high:.3f}]"
        cells = [
            str(row.rank), row.agent, row.env_id, row.split, f"{row.success:.3f}", interval,
            f"{row.num_tasks} x {row.trials}", f"{row.turns:.2f}", f"{row.tool_calls:.2f}",
            count(row.sampled_tokens), _words(row.words),
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


def _words(words: dict[str, str]) -> str:
    """Return "replayed: success, turns; declared: ..." in a fixed order."""
    groups: dict[str, list[str]] = {}
    for name in _NUMBERS:
        if name in words:
            groups.setdefault(words[name], []).append(name.replace("_", " "))
    return "; ".join(f"{word}: {', '.join(names)}" for word, names in groups.items())
