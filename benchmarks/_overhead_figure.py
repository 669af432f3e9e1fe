"""The picture of env_overhead: steps a second and milliseconds a snapshot, ours and others'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks._overhead_rows import OURS, TARGET_MS, Line

_OURS, _OTHERS = "#D55E00", "#0072B2"  # Okabe-Ito; filled and open marks tell them apart without


def draw(found: Sequence[Line], copies: Mapping[str, Mapping[str, str]], path: Path) -> None:
    """Write the picture: one line an environment; a cross is a copy that goes on wrongly.

    Needs matplotlib: pip install 'treegrpo[plot]'.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = [_label(line) for line in found]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10.5, 0.27 * len(found) + 1.4), sharey=True, dpi=130
    )
    for height, line in enumerate(found):
        _mark(left, height, line.steps_per_s, line, is_wrong=False)
        if line.snapshot_p50 is not None:
            verdict = copies.get(f"{line.who}/{line.env}", {}).get("deepcopy", "")
            _mark(right, height, line.snapshot_p50, line, is_wrong=verdict.startswith("wrong"))
        else:
            right.text(0.02, height, "cannot be copied", transform=right.get_yaxis_transform(),
                       va="center", fontsize=8, color=_OTHERS)  # fmt: skip
        if line.fork_p50 is not None:
            right.plot(line.fork_p50, height, marker="|", markersize=9, color="black")
    left.set_yticks(range(len(names)), names, fontsize=8)
    left.set_ylim(len(names) - 0.4, -0.6)
    left.set_xlabel("steps a second", fontsize=9)
    right.set_xlabel(
        "milliseconds a snapshot, median (others: deepcopy)\n"
        "bar: fork; cross: the copy goes on wrongly; lines: targets",
        fontsize=9,
    )
    for limit, style in zip(sorted(set(TARGET_MS.values())), (":", "--"), strict=True):
        right.axvline(limit, color="#888888", linestyle=style, linewidth=0.9)
    for panel in (left, right):
        panel.set_xscale("log")
        panel.grid(axis="both", color="#e4e4e4", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def _mark(panel: Any, height: int, value: float, line: Line, *, is_wrong: bool) -> None:
    colour = _OURS if line.who == OURS else _OTHERS
    face = colour if line.who == OURS else "none"
    marker = "x" if is_wrong else "o"
    panel.plot(value, height, marker=marker, markersize=6, color=colour, markerfacecolor=face)


def _label(line: Line) -> str:
    if line.who != OURS:
        return f"{line.who} {line.env}"
    name = line.env.rpartition("/")[2]
    return f"{name}, the game of the peers" if line.game else name
