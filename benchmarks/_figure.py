"""The picture of tree_vs_chain: held-out success against sampled tokens, one panel a setting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._summary import Row, curve, select
from treegrpo.leaderboards.stats import UNIT, clustered_interval

# Two colours of the Okabe-Ito set, told apart by all common kinds of colour vision; the line
# styles tell them apart without colour.
_STYLES = {
    "chain": {"color": "#0072B2", "linestyle": "--", "marker": "s", "label": "chains (group)"},
    "tree": {"color": "#D55E00", "linestyle": "-", "marker": "o", "label": "trees (intra + inter)"},
}


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write the picture: thin lines are seeds, thick ones means, bands 95 % t intervals.

    Needs matplotlib: pip install 'treegrpo[plot]'.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = sorted({row["setting"] for row in rows})
    figure, axes = plt.subplots(
        1, len(names), figsize=(5.2 * len(names), 3.8), sharey=True, squeeze=False, dpi=130
    )
    for panel, name in zip(axes[0], names, strict=True):
        for algorithm, style in _STYLES.items():
            _draw_runs(panel, select(rows, name, algorithm), style)
        seeds = len(select(rows, name, "tree"))
        panel.set_title(f"{name} ({seeds} seed{'s' if seeds > 1 else ''})", fontsize=11)
        panel.set_xlabel("sampled tokens (thousands)")
        panel.set_ylim(0, 1)
        panel.set_xlim(left=0)
        panel.grid(color="#dddddd", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("success on held-out tasks")
    axes[0][0].legend(loc="upper left", frameon=False, fontsize=9)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def _draw_runs(panel: Any, runs: Sequence[Row], style: dict[str, str]) -> None:
    curves = [curve(run, "sampled_tokens") for run in runs]
    for tokens, success in curves:
        panel.plot(
            np.array(tokens) / 1e3,
            success,
            color=style["color"],
            linestyle=style["linestyle"],
            linewidth=0.7,
            alpha=0.4,
        )
    grid = np.linspace(0, min(tokens[-1] for tokens, _ in curves), len(curves[0][0]))
    values = np.array([np.interp(grid, *one) for one in curves])
    panel.plot(grid / 1e3, values.mean(axis=0), linewidth=2.2, markersize=5, **style)
    if len(runs) > 1:
        names = [str(run["seed"]) for run in runs]
        intervals = [
            clustered_interval(
                {name: [value] for name, value in zip(names, column, strict=True)}, bounds=UNIT
            )
            for column in values.T
        ]
        low = [i.mean if i.low is None else i.low for i in intervals]
        high = [i.mean if i.high is None else i.high for i in intervals]
        panel.fill_between(grid / 1e3, low, high, color=style["color"], alpha=0.15, linewidth=0)
