"""Draws docs/images/tree_viewer.png: the viewer on the last trees of a training run.

    python -m tests.viewer_screenshot runs/demo

It shows the question whose leaves differ most, with the step of largest credit selected.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.browser import look, start_browser
from treegrpo.cli.view_trees import by_question, question_tree
from treegrpo.leaderboards.site.viewer import ViewerPage, render_viewer
from treegrpo.leaderboards.site.viewer_model import Link, ViewerTree
from treegrpo.tree import read_trees

IMAGE = Path(__file__).parents[1] / "docs" / "images" / "tree_viewer.png"
MAX_BYTES = 150_000


def main(run: Path) -> None:
    """Write the image of a run's trees."""
    questions = by_question(read_trees(run / "trees.jsonl"))
    last = max(question[0].step for question in questions)
    trees = [question_tree(question) for question in questions if question[0].step == last]
    chosen = max(trees, key=_variety)
    step = max(chosen.nodes, key=lambda node: (node.credit or 0.0, not node.outcome))
    page = render_viewer(
        ViewerPage(
            title=f"{run.resolve().name}, step {last + 1}",
            trees=tuple(trees),
            source="trees.jsonl",
            links=(Link("All steps", "../index.html"),),
        )
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "page.html"
        path.write_text(page, encoding="utf-8")
        browser = start_browser()
        try:
            look(browser, width=1180, height=690)
            browser.get(f"{path.as_uri()}#tree={trees.index(chosen) + 1}&node={step.id}")
            time.sleep(0.5)  # the drawing is planned for the next frame
            browser.save_screenshot(str(IMAGE))
        finally:
            browser.quit()
    size = IMAGE.stat().st_size
    if size > MAX_BYTES:
        sys.exit(f"'{IMAGE}' has {size:,} bytes, more than {MAX_BYTES:,}: choose a smaller tree.")


def _variety(tree: ViewerTree) -> float:
    """Return how evenly a tree's leaves are correct and not, and then how many steps it has."""
    outcomes = list(tree.outcomes())
    correct = outcomes.count("correct") / max(1, len(outcomes))
    return correct * (1 - correct) + len(tree.nodes) / 10_000


if __name__ == "__main__":
    main(Path(sys.argv[1]))
