"""What crashed runs leave on disk, and its removal at the next start.

Only hosts without user namespaces need folders; elsewhere all that a tree makes lives in its
mount namespace and goes with it.
"""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from treegrpo.sandboxes.guest.views import remove_folder

_PREFIX = "treegrpo-sandboxes-"
_NAME = re.compile(rf"{_PREFIX}(\d+)-(\d+)-")


def claim_folder(parent: Path) -> Path:
    """Return a new folder whose name tells which process it belongs to."""
    owner = os.getpid()
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{owner}-{_start_of(owner)}-", dir=parent))


def sweep_folders(parent: Path | None = None) -> list[Path]:
    """Remove the folders of processes that have ended; return them."""
    removed: list[Path] = []
    for folder in Path(parent or tempfile.gettempdir()).glob(_PREFIX + "*"):
        found = _NAME.match(folder.name)
        if found and _start_of(int(found[1])) != int(found[2]):
            remove_folder(str(folder))
            removed.append(folder)
    return removed


def _start_of(pid: int) -> int:
    """Return when a process started, in ticks since boot; -1 if there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return -1
    return int(text.rpartition(")")[2].split()[19])
