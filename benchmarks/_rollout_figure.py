"""The picture of rollout: seconds to grow trees and chains, and tokens a second by engine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

Row: TypeAlias = dict[str, Any]
_OURS, _OTHERS = "#D55E00", "#0072B2"  # Okabe-Ito; filled and open dots tell them apart without
_ARMS = {
    "chains": "chains",
    "trees_uniform_depth": "trees, forks beside the trunk",
    "trees": "trees, forks after the trunk",
    "trees_barriers": "the same with barriers",
    "chains_few_threads": "chains, 8 threads",
    "trees_few_threads": "trees, 8 threads",
}
_ENGINES = {
    "native": "native",
    "hf": "hf",
    "generate": "generate",
    "continuous_batching": "continuous batching",
    "vllm": "vLLM",
}
_MODELS = {"demo": ("o", "0.9M"), "10m": ("s", "10M")}


def draw(wall: Sequence[Row], rates: Sequence[Row], path: Path) -> None:
    """Write the picture: a dot per repeat, a bar at the median.

    Needs matplotlib: pip install 'treegrpo[plot]'.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11.2, 4.2), dpi=130)
    for height, arm in enumerate(_ARMS):
        found = [row for row in wall if row["arm"] == arm]
        _dots(left, height, [row["wall_s"] for row in found], _OTHERS if "chain" in arm else _OURS)
        if found:
            least = median(row["critical_s"] for row in found)
            left.plot(least, height, "k|", markersize=14, markeredgewidth=1)
    left.set_yticks(range(len(_ARMS)), list(_ARMS.values()), fontsize=9)
    left.set_xlim(left=0)
    left.set_xlabel("seconds for equally many leaves; thin bar: environments alone")
    _draw_rates(right, [row for row in rates if row["setting"] == "prompts"])
    for panel in (left, right):
        panel.invert_yaxis()
        panel.grid(axis="x", color="#dddddd", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def _draw_rates(panel: Any, rates: Sequence[Row]) -> None:
    labels: list[str] = []
    for height, (engine, label) in enumerate(_ENGINES.items()):
        found = [row for row in rates if row["engine"] == engine]
        labels.append(label if found else f"{label} (not measured)")
        for row in found:
            marker, _ = _MODELS[row["model"]]
            colour = _OURS if engine in ("native", "hf") else _OTHERS
            shift = 0.14 if row["model"] == "10m" else -0.14
            values = [row["tokens"] / seconds for seconds in row["seconds"]]
            _dots(panel, height + shift, values, colour, marker=marker, reach=0.12)
    panel.set_yticks(range(len(labels)), labels, fontsize=9)
    panel.set_ylim(-0.6, len(labels) - 0.4)
    panel.set_xscale("log")
    low, high = panel.get_xlim()
    ticks = [step * 10**power for power in range(7) for step in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    panel.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    panel.minorticks_off()
    panel.set_xlabel("sampled tokens a second")
    for marker, size in _MODELS.values():
        panel.plot([], [], marker, color="black", fillstyle="none", label=f"{size} parameters")
    panel.legend(frameon=False, fontsize=8, loc="lower right")


def _dots(
    panel: Any,
    height: float,
    values: Sequence[float],
    colour: str,
    *,
    marker: str = "o",
    reach: float = 0.3,
) -> None:
    if not values:
        return
    face = colour if colour == _OURS else "none"
    heights = [height] * len(values)
    panel.scatter(values, heights, s=22, marker=marker, facecolors=face, edgecolors=colour)
    panel.vlines(median(values), height - reach, height + reach, color=colour, linewidth=2.4)
