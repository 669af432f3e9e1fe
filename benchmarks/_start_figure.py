"""The picture of start_states: success from reset against sampled tokens, on two scales."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._start_summary import Row, curve, select

# Two colours of the Okabe-Ito set, told apart by all common kinds of colour vision; the line
# styles tell them apart without colour.
_STYLES = {
    "reset": {"color": "#0072B2", "linestyle": "--", "label": "reset"},
    "oracle_prefix": {"color": "#D55E00", "linestyle": "-", "label": "oracle_prefix, half share"},
}


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write the picture: thin lines are seeds, thick ones means, dots sampled success.

    Lines show the chance of the oracle's tokens: a little less than success, but not sampled, so
    that it is seen near zero, too.
    Needs matplotlib: pip install 'treegrpo[plot]'.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (linear, logarithmic) = plt.subplots(1, 2, figsize=(10.4, 3.8), dpi=130)
    for panel in (linear, logarithmic):
        for arm, style in _STYLES.items():
            _draw_runs(panel, select(rows, arm), style)
        panel.axhline(0.5, color="#888888", linewidth=0.8, linestyle=":")
        panel.set_xlabel("sampled tokens (thousands)")
        panel.set_xlim(left=0)
        panel.grid(color="#dddddd", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    linear.set_ylim(0, 1)
    linear.set_ylabel("success from reset")
    linear.legend(loc="upper left", frameon=False, fontsize=9)
    logarithmic.set_yscale("log")
    logarithmic.set_ylim(top=1)
    logarithmic.set_ylabel("the same, logarithmic")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def _draw_runs(panel: Any, runs: Sequence[Row], style: dict[str, str]) -> None:
    curves = [curve(run, "chance") for run in runs]
    color, linestyle = style["color"], style["linestyle"]
    for run, (tokens, chances) in zip(runs, curves, strict=True):
        x = np.array(tokens) / 1e3
        panel.plot(x, chances, color=color, linestyle=linestyle, linewidth=0.7, alpha=0.5)
        sampled = np.array(curve(run, "success")[1])
        panel.plot(x[sampled > 0], sampled[sampled > 0], ".", color=color, markersize=3, alpha=0.4)
    grid = np.linspace(0, min(tokens[-1] for tokens, _ in curves), 101)
    mean = np.mean([np.interp(grid, *one) for one in curves], axis=0)
    panel.plot(grid / 1e3, mean, linewidth=2.2, **style)
