"""TRL's trainer, in a Python environment of its own, as one more way to train the same rows."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from treegrpo.pack import Weighted

SCRIPT = Path(__file__).with_name("_trl_step.py")


@dataclass(frozen=True)
class TrlTrainer:
    """A running process that trains the rows it is sent."""

    process: subprocess.Popen[str]
    versions: dict[str, str]

    def train(self, rows: Sequence[dict[str, Any]], max_tokens: int) -> dict[str, Any]:
        """Return the seconds of one forward and backward over the rows, loss and grad_norm."""
        request = json.dumps({"rows": rows, "max_tokens": max_tokens, "runs": 1})
        assert self.process.stdin is not None
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        answer = _read(self.process)
        return {**answer, "seconds": answer["seconds"][0]}


@contextmanager
def trl_trainer(python: Path, model: Any, folder: Path) -> Generator[TrlTrainer]:
    """Yield TRL's trainer with a copy of the model's weights, which are left in `folder`.

    Args:
        python: the interpreter of an environment with trl installed.
        model: a causal language model of the transformers library.
        folder: empty; what the process says beside its answers goes to its file trl.log.

    Raises:
        RuntimeError: the process ended; shows the last it said.
    """
    model.save_pretrained(folder)
    log = folder / "trl.log"
    with (
        log.open("w", encoding="utf-8") as said,
        subprocess.Popen(
            [str(python), str(SCRIPT), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            cwd=folder,
        ) as process,
    ):
        try:
            yield TrlTrainer(process, _read(process, log)["versions"])
        finally:
            process.kill()


def trl_rows(trees: Sequence[Weighted]) -> list[dict[str, Any]]:
    """Return every leaf as a prompt and a completion in which observations are masked."""
    rows: list[dict[str, Any]] = []
    for one in trees:
        for leaf, advantages in one.credit.items():
            root, *steps = (one.tree.nodes[node] for node in one.tree.path(leaf))
            row: dict[str, Any] = {"prompt": root.observation_ids, "advantage": advantages[0]}
            completion, trained, old_logps = list[int](), list[int](), list[float]()
            for node in steps:
                completion += node.action_ids + node.observation_ids
                trained += [1] * len(node.action_ids) + [0] * len(node.observation_ids)
                old_logps += node.action_logps + [0.0] * len(node.observation_ids)
            rows.append(
                {**row, "completion": completion, "trained": trained, "old_logps": old_logps}
            )
    return rows


def _read(process: subprocess.Popen[str], log: Path | None = None) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.wait()
        end = "" if log is None else log.read_text(encoding="utf-8")[-2000:]
        raise RuntimeError(f"TRL's process ended with code {process.returncode}. {end}")
    return json.loads(line)
