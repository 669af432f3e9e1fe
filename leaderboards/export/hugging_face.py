"""A bundle as an entry of `.eval_results/*.yaml` in a model's repository on the Hub.

    dataset.id        the environment's id; the Hub shows the result where a benchmark has that id
    dataset.task_id   the split, with the environment's options where there are some
    value             the success rate, from 0 to 1
    notes             tasks, trials, interval, failures, and the digest of the bundle

Format: huggingface/hub-docs, docs/hub/eval-results.md. There is no `verifyToken`: that one says
that the Hub itself ran the evaluation. There is no `source` either, for it must be a URL.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from treegrpo.leaderboards.bundle import Bundle
from treegrpo.leaderboards.export.content import dataset_id, text_of
from treegrpo.leaderboards.files import write_file
from treegrpo.leaderboards.schema import Manifest
from treegrpo.leaderboards.summary import EvaluationSummary, summarise

NAME = "hugging-face"


def write(bundle: Bundle, out: Path) -> None:
    """Write the file; its text is ASCII, whatever names the bundle holds."""
    text = yaml.safe_dump([entry(bundle)], sort_keys=False, allow_unicode=False, width=100)
    write_file(out, text.encode("ascii"))


def entry(bundle: Bundle) -> dict[str, Any]:
    """Return the one entry of the list that such a file holds."""
    manifest, summary = bundle.manifest, summarise(bundle)
    return {
        "dataset": {"id": dataset_id(manifest), "task_id": _task_id(manifest)},
        "value": summary.success.mean,
        "date": manifest.created,
        "evaluation_framework": "treegrpo",
        "notes": _notes(manifest, summary),
    }


def _task_id(manifest: Manifest) -> str:
    options = (f"{key}={text_of(value)}" for key, value in sorted(manifest.env_kwargs.items()))
    return " ".join([manifest.split, *options])


def _notes(manifest: Manifest, summary: EvaluationSummary) -> str:
    interval = summary.success
    parts = [f"With tools; {manifest.num_tasks} tasks x {manifest.trials} trials"]
    if interval.low is not None and interval.high is not None:
        parts.append(f"95 % interval over tasks {interval.low:.4f} to {interval.high:.4f}")
    failed = sum(summary.failures.values())
    if failed:
        parts.append(f"{failed} failed episodes count as 0")
    parts += [f"track {manifest.track}", f"agent {manifest.agent.name}"]
    if manifest.training is not None:
        parts.append(f"training {manifest.training}")
    return "; ".join([*parts, f"bundle sha256 {manifest.digest}"])
