"""The picture of benchmarks.suite: success by environment and level, one panel an agent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._suite_rows import AGENTS, LevelRow, by_level, percent


def draw(rows: Sequence[LevelRow], path: Path) -> None:
    """Write the picture: three heat maps side by side, success in percent in each cell.

    Needs matplotlib: pip install 'treegrpo[plot]'.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    envs = list(by_level(rows, "oracle"))
    levels = sorted({row.level for row in rows})
    figure, axes = plt.subplots(
        1, len(AGENTS), figsize=(9.6, 0.32 * len(envs) + 1.2), sharey=True, dpi=130
    )
    for panel, agent in zip(axes, AGENTS, strict=True):
        found = by_level(rows, agent)
        grid = np.array([[found[env].get(level, np.nan) for level in levels] for env in envs])
        panel.imshow(grid, cmap="Blues", vmin=0, vmax=1.15, aspect="auto")
        _write_cells(panel, grid)
        panel.set_title(f"{agent} agent" if agent != "oracle" else "oracle", fontsize=11)
        panel.set_xticks(range(len(levels)), [str(level) for level in levels])
        panel.set_xlabel("level")
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
    axes[0].set_yticks(range(len(envs)), [env.removeprefix("treegrpo/") for env in envs])
    count = sum(row.tasks for row in rows if row.agent == "oracle" and row.env == envs[0])
    figure.suptitle(f"Success in % on {count} test tasks of each environment", fontsize=11)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def _write_cells(panel: Any, grid: np.ndarray[Any, Any]) -> None:
    for (row, column), success in np.ndenumerate(grid):
        if np.isnan(success):
            text, colour = "", "black"
        else:
            text, colour = percent(float(success)), "white" if success > 0.6 else "black"
        panel.text(column, row, text, ha="center", va="center", color=colour, fontsize=8)
