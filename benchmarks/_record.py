"""What every benchmark leaves behind: one JSON file with the question, the machine, the numbers."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import treegrpo
from treegrpo.runfolder import write_text

ROOT = Path(__file__).resolve().parents[1]


def write_record(
    path: Path,
    *,
    question: str,
    seeds: Sequence[int],
    rows: Sequence[Mapping[str, Any]],
    metrics: Mapping[str, float],
    notes: Mapping[str, Any],
) -> None:
    """Write the record of one benchmark, whole or not at all.

    Args:
        path: the file; its folder is created.
        question: what the benchmark asks, in one sentence.
        seeds: every seed that was run.
        rows: raw results, one per run.
        metrics: flat map from names, with units, to numbers.
        notes: settings and whatever else is needed to read the rows.
    """
    record = {
        "question": question,
        "command": shlex.join(["python", "-m", _module(), *sys.argv[1:]]),
        "commit": commit(),
        "versions": versions(),
        "host": host(),
        "seeds": list(seeds),
        "metrics": dict(metrics),
        **notes,
        "rows": list(rows),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(record, indent=1) + "\n")


def commit() -> str:
    """Return the checkout's commit, with "+changes" if files differ; "unknown" outside git."""
    try:
        head = _git("rev-parse", "HEAD")
        # Results are what a benchmark writes: they do not change what it measured.
        changed = _git("status", "--porcelain", "--", ".", ":!benchmarks/results")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}+changes" if changed else head


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide speed or results."""
    names = ("torch", "transformers", "tokenizers", "numpy", "gymnasium")
    found = {name: version(name) for name in names}
    return {"treegrpo": treegrpo.__version__, "python": platform.python_version(), **found}


def host() -> dict[str, Any]:
    """Return the machine: cores that this process may use, processor, GPU name or None."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cores": cores,
        "machine": platform.machine(),
        "system": platform.system(),
        "cpu": _cpu_name(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _git(*words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _module() -> str:
    spec = sys.modules["__main__"].__spec__
    return spec.name if spec is not None else Path(sys.argv[0]).stem
