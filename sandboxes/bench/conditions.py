"""The host's conditions that decide speed, as text."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def conditions() -> dict[str, str]:
    """Return load, kernel, huge pages, cgroup version and free memory, as they are now."""
    version = 2 if Path("/sys/fs/cgroup/cgroup.controllers").exists() else 1
    return {
        "load": " ".join(f"{one:.2f}" for one in os.getloadavg()),
        "kernel": platform.release(),
        "huge_pages": _text("/sys/kernel/mm/transparent_hugepage/enabled"),
        "cgroups": f"version {version}",
        "available_mb": f"{available_bytes() >> 20}",
    }


def available_bytes() -> int:
    """Return the memory that could still be had without swapping."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("/proc/meminfo has no line MemAvailable.")


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return "unknown"
