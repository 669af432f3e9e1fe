"""The picture of sandbox_fork: how long each way to another copy of a state takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from treegrpo.sandboxes.bench import Measurement

_OURS, _OTHERS = "#D55E00", "#0072B2"  # Okabe-Ito; filled and open dots tell them apart without
_LINES: dict[str, tuple[str, str]] = {
    "memory_fork": ("fork: memory", _OURS),
    "node_fork": ("fork: memory, files, isolation", _OURS),
    "node_fork_ping": ("the same, child has answered", _OURS),
    "depth16_fork": ("fork at depth 16", _OURS),
    "tree_start": ("new tree", _OURS),
    "sandlock_fork": ("Sandlock clone: memory", _OTHERS),
    "sandlock_call": ("Sandlock fork(1): memory", _OTHERS),
    "replay_root": ("replay of 16 empty steps", _OTHERS),
    "copytree": ("copytree, fresh interpreter", _OTHERS),
    "docker_commit_run": ("docker commit and run", _OTHERS),
}


def draw(measurements: Sequence[Measurement], path: Path) -> None:
    """Write the picture: a dot per run, a thick bar at the median, a thin one at p99.

    Needs matplotlib: pip install 'treegrpo[plot]'.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    found = {one.name: one for one in measurements}
    figure, panel = plt.subplots(figsize=(8.4, 4.8), dpi=130)
    rng = np.random.default_rng(0)
    labels: list[str] = []
    for height, (name, (label, colour)) in enumerate(_LINES.items()):
        one = found.get(name)
        if one is not None and one.values:
            _draw_runs(panel, height, one, colour, rng)
            labels.append(label)
        else:
            labels.append(f"{label} (not measured)")
    panel.set_yticks(range(len(labels)), labels, fontsize=9)
    panel.set_ylim(len(labels) - 0.4, -0.6)
    panel.set_xscale("log")
    low, high = panel.get_xlim()
    panel.set_xlim(low, high * 3)  # room for the medians' figures
    panel.set_xlabel("milliseconds, one dot per run; bars: median (thick) and p99 (thin)")
    panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panel.grid(axis="x", color="#dddddd", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def _draw_runs(
    panel: Any, height: int, one: Measurement, colour: str, rng: np.random.Generator
) -> None:
    values = np.array(one.values)
    spread = height + rng.uniform(-0.3, 0.3, len(values))
    face = colour if colour == _OURS else "none"
    panel.scatter(
        values, spread, s=9, alpha=0.35, facecolors=face, edgecolors=colour, linewidth=0.6
    )
    median, p99 = one.metrics[f"{one.name}_p50_ms"], one.metrics[f"{one.name}_p99_ms"]
    panel.vlines(median, height - 0.4, height + 0.4, color="black", linewidth=2.4)
    panel.vlines(p99, height - 0.4, height + 0.4, color="black", linewidth=0.8)
    panel.text(float(values.max()) * 1.15, height, f"p50 {median:.3g} ms", va="center", fontsize=8)
