"""What an agent is shown of a step: bounded text that is the same whenever the step is."""

from __future__ import annotations

from collections.abc import Sequence

from treegrpo.sandboxes import Limits, Reason, Result

MAX_CHARS = 2_000
MAX_CHARS_OF_DEAD = 500
"""What is shown of a step that was stopped; how much it wrote by then depends on the machine."""
UNDONE = "Nothing of this step was kept: variables and files are as they were before it."
NOTHING = "(no output)"


def show(result: Result, limits: Limits, left_behind: Sequence[Reason] = ()) -> str:
    """Return a step's output, its value or traceback, and how it ended if not well.

    Args:
        result: of the step.
        limits: that it ran under.
        left_behind: why the state after it cannot be kept.
    """
    if not result.alive:
        head = _cut(result.text.rstrip("\n"), MAX_CHARS_OF_DEAD, keep_end=False)
        return _joined(head, f"[{_why(result, limits)}] {UNDONE}")
    parts = [result.text.rstrip("\n"), (result.traceback or "").rstrip("\n")]
    if result.kind == "exception" and not result.traceback:
        parts.append(result.exception or "an exception")
    if result.value is not None:
        parts.append(result.value)
    shown = _cut(_joined(*parts), MAX_CHARS, keep_end=True)
    if left_behind:
        kinds = ", ".join(sorted({reason.kind.replace("_", " ") for reason in left_behind}))
        return _joined(shown, f"[the step left behind: {kinds}; end these in the step] {UNDONE}")
    if result.kind not in ("ok", "exception"):
        return _joined(shown, f"[{_why(result, limits)}]")
    return shown or NOTHING


def _why(result: Result, limits: Limits) -> str:
    match result.kind:
        case "timeout":
            return f"stopped after {limits.timeout_s:g} seconds"
        case "memory":
            return f"stopped at the limit of {limits.memory_mb} MB of memory"
        case "pids":
            return f"stopped at the limit of {limits.processes} processes"
        case "disk":
            return f"stopped at the limit of {limits.workspace_mb} MB of files"
        case "exit" if result.alive:
            return f"exit code {result.exit_code}"
        case "exit":
            return "the interpreter was ended"
        case "signal":
            return "the interpreter crashed" if result.signal is None else _crash(result.signal)
        case _:
            return "the interpreter was tampered with"


def _crash(number: int) -> str:
    return f"the interpreter crashed with signal {number}"


def _joined(*parts: str) -> str:
    return "\n".join(part for part in parts if part)


def _cut(text: str, limit: int, *, keep_end: bool) -> str:
    """Return at most `limit` characters and a mark; of a long text its start, and its end."""
    if len(text) <= limit:
        return text
    tail = limit // 4 if keep_end else 0
    end = text[len(text) - tail :] if tail else ""
    return _joined(text[: limit - tail], "[... cut ...]", end)
