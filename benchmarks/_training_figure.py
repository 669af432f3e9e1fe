"""The pictures of tree_training: speed-up reached against its limit, and the limit itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._training_measure import CellSummary
from benchmarks._training_model import CONFIGS
from treegrpo.bound import Bound, ModelSizes

_COLOURS = ("#D55E00", "#0072B2", "#009E73")  # Okabe-Ito; markers and dashes tell apart without
_MARKERS = {"group": "o", "trunk": "^", "balanced": "s"}
LEAVES = 16
ANSWERS_OF = (2_048, 32_768)
"""Lengths of a path, prompt and answer together."""


def draw(summaries: Sequence[CellSummary], path: Path) -> None:
    """Write the picture: speed-up against limit, and efficiency against unique tokens.

    Needs matplotlib: pip install 'treegrpo[plot]'.
    """
    pyplot = _pyplot()
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9.6, 4.4), dpi=130)
    top = 1.1 * max(one.limit for one in summaries)
    for share, style, label in ((1.0, "-", "the limit"), (0.8, "--", "0.8 of it")):
        left.plot([1, top], [share, share * top], style, color="black", linewidth=1, label=label)
    for shape, marker in _MARKERS.items():
        found = [one for one in summaries if one.cell.shape == shape]
        xs, ys = [one.limit for one in found], [one.speedup for one in found]
        left.scatter(xs, ys, marker=marker, s=36, facecolors="none", edgecolors="C0", label=shape)
    left.set(xlabel="limit S*", ylabel="speed-up over the faster flat path")
    left.legend(frameon=False, fontsize=8)
    sharings = sorted({one.cell.sharing for one in summaries if one.cell.sharing >= 2})
    for sharing, colour in zip(sharings, _COLOURS, strict=False):
        found = [one for one in summaries if one.cell.sharing == sharing]
        xs, ys = [one.cell.unique_tokens for one in found], [one.efficiency for one in found]
        right.plot(xs, ys, "o-", color=colour, label=f"sharing {sharing:g}")
    right.axhline(0.8, linestyle="--", color="black", linewidth=1)
    right.set_xscale("log", base=2)
    sizes = sorted({one.cell.unique_tokens for one in summaries})
    right.set_xticks(sizes, [f"{size:,}" for size in sizes])
    right.minorticks_off()
    right.set(xlabel="unique tokens", ylabel="efficiency: speed-up / S*", ylim=(0, 1.1))
    right.legend(frameon=False, fontsize=8)
    _save(pyplot, figure, [left, right], path)


def draw_limits(path: Path) -> None:
    """Write the picture: S* against the sharing ratio for three sizes of model."""
    pyplot = _pyplot()
    figure, panel = pyplot.subplots(figsize=(6.4, 4.4), dpi=130)
    for (name, config), colour in zip(CONFIGS.items(), _COLOURS, strict=True):
        sizes = ModelSizes.of_config(config)
        for length, style in zip(ANSWERS_OF, ("-", "--"), strict=True):
            bounds = [
                group_bound(sizes, LEAVES, length, share) for share in np.linspace(0, 0.97, 60)
            ]
            xs, ys = [one.sharing_ratio for one in bounds], [one.limit for one in bounds]
            panel.plot(xs, ys, style, color=colour, label=f"{name}, paths of {length:,} tokens")
    top = panel.get_xlim()[1]
    panel.plot([1, top], [1, top], ":", color="black", linewidth=1, label="S* = sharing ratio")
    panel.set(xlabel="sharing ratio T / U", ylabel="limit of the speed-up S*")
    panel.legend(frameon=False, fontsize=8)
    _save(pyplot, figure, [panel], path)


def group_bound(sizes: ModelSizes, leaves: int, length: int, share: float) -> Bound:
    """Return the bound of one prompt and `leaves` answers, every token of which is sampled.

    Args:
        sizes: of the model.
        leaves: number of answers.
        length: tokens of prompt and answer together.
        share: part of the length that is prompt.
    """
    prompt = round(share * length)
    answer = length - prompt
    flat_pairs = leaves * length * (length + 1) // 2
    prompt_pairs = prompt * (prompt + 1) // 2
    return Bound(
        sizes,
        unique_tokens=prompt + leaves * answer,
        flat_tokens=leaves * length,
        tree_pairs=flat_pairs - (leaves - 1) * prompt_pairs,
        flat_pairs=flat_pairs,
        tree_predictions=leaves * answer,
        flat_predictions=leaves * answer,
    )


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(pyplot: Any, figure: Any, panels: Sequence[Any], path: Path) -> None:
    for panel in panels:
        panel.grid(color="#dddddd", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    pyplot.close(figure)
