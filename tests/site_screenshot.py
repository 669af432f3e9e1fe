"""Draws docs/images/leaderboard.png: a board of invented agents, as the site's tests use it.

python -m tests.site_screenshot
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.board_fixture import KEY, make_board
from tests.browser import look, start_browser
from treegrpo.leaderboards.site.pages import ASSETS, STATIC, render_board

IMAGE = Path(__file__).parents[1] / "docs" / "images" / "leaderboard.png"
MAX_BYTES = 150_000


def main() -> None:
    """Draw the picture."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("boards", "static"):
            (root / name).mkdir()
        for name in ASSETS:
            (root / "static" / name).write_bytes((STATIC / name).read_bytes())
        page = root / "boards" / f"{KEY.id}.html"
        page.write_text(render_board(make_board()), encoding="utf-8")
        driver = start_browser()
        try:
            look(driver, width=1400, height=830)
            driver.get(page.as_uri())
            driver.save_screenshot(str(IMAGE))
        finally:
            driver.quit()
    size = IMAGE.stat().st_size
    if size > MAX_BYTES:
        sys.exit(f"'{IMAGE}' has {size:,} bytes, more than {MAX_BYTES:,}: choose a smaller window.")


if __name__ == "__main__":
    main()
