"""Trains in child processes that are killed, until one gets to the end; run as a script.

    python killed_runs.py CONFIG.json PHASE... [-- CONFIG.json PHASE...]

A phase is "owner.function:count:before|after" (the child kills itself there), or a number of
seconds after which it is killed from outside. Prints how each child ended, run by run.
"""

import importlib
import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import tests.toy_game  # registers the game
from treegrpo.checkpoint import has_checkpoint
from treegrpo.config import TrainConfig
from treegrpo.runfolder import recorded_settings
from treegrpo.trainer import Trainer

assert tests.toy_game.ID


def die_at(phase: str) -> None:
    """Let this process kill itself before or after the n-th call of a function."""
    dotted, count, when = phase.split(":")
    module, _, path = dotted.partition("/")
    *above, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for part in above:
        owner = getattr(owner, part)
    original: Callable[..., Any] = getattr(owner, name)
    calls = [0]

    def mortal(*args: Any, **keywords: Any) -> Any:
        calls[0] += 1
        if calls[0] == int(count) and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*args, **keywords)
        if calls[0] == int(count):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, mortal)


def train(config: TrainConfig) -> None:
    out = Path(config.out)
    resume = has_checkpoint(out / "checkpoint") or recorded_settings(out) is not None
    Trainer(config, resume=resume).run()


def child(config: TrainConfig, phase: str | None) -> str:
    """Return how a child that trains ended; an exception of it ends this process, too."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            if phase is not None and ":" in phase:
                die_at(phase)
            train(config)
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    if phase is not None and ":" not in phase:
        time.sleep(float(phase))
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return "killed" if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"


def main() -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    runs: list[list[str]] = [[]]
    for word in sys.argv[1:]:
        if word == "--":
            runs.append([])
        else:
            runs[-1].append(word)
    ends: list[list[str]] = []
    for path, *phases in runs:
        config = TrainConfig.model_validate(json.loads(Path(path).read_text()))
        os.chdir(Path(path).parent)
        ends.append([child(config, phase) for phase in [*phases, None]])
    sys.stdout.write(json.dumps(ends))


if __name__ == "__main__":
    main()
