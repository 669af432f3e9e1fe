"""The peers of env_overhead: a venv for each, and one process of each that answers requests."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
VENVS = ROOT / ".venv-peers"
FAILED = "not_installed.txt"
"""In a peer's venv: what pip said where the peer could not be installed."""

REQUIREMENTS: Mapping[str, Sequence[str]] = {
    "gem_llm": ("gem-llm==0.1.0",),
    # Its Sokoban needs numpy, which it does not ask for.
    "textarena": ("textarena==0.7.4", "numpy==2.4.2"),
    "skyrl_gym": ("skyrl-gym==0.4.0",),
    # The last release in which an environment can be stepped without a model's server.
    "verifiers": ("verifiers==0.2.1",),
}
ANSWER_S = 120.0
"""How long one answer may take before the peer is given up."""


class PeerFailed(Exception):
    """A peer that is not installed, or does not answer; the text says why."""


def install(peer: str, venvs: Path = VENVS) -> None:
    """Make the peer's venv with what it needs in pinned versions; pip's refusal is kept there."""
    folder = venvs / peer
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(_python(folder)), "-m", "pip", "install", "--disable-pip-version-check"]
    done = subprocess.run([*pip, *REQUIREMENTS[peer]], capture_output=True, text=True)
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        (folder / FAILED).write_text("\n".join(errors or ["pip failed without a word"]) + "\n")


def state_of(peer: str, venvs: Path = VENVS) -> str | None:
    """Return why a peer cannot run; None if it is installed."""
    failed = venvs / peer / FAILED
    if failed.exists():
        return f"pip refused: {failed.read_text().strip()[:500]}"
    if not _python(venvs / peer).exists():
        return f"no {venvs.name}/{peer}; --install-peers makes it"
    return None


class Peer:
    """A running peer; close it, or use it in a with statement.

    Attributes:
        version: of the peer's package.
        entries: the environments that it can run.
        missing: why it cannot run others.
    """

    def __init__(self, name: str, given: Mapping[str, Any], venvs: Path = VENVS) -> None:
        """Start the peer and give it the games that both sides play.

        Raises:
            PeerFailed: not installed, or it ended at once.
        """
        reason = state_of(name, venvs)
        if reason is not None:
            raise PeerFailed(reason)
        self.name = name
        self._process = subprocess.Popen(
            [str(_python(venvs / name)), "-m", "benchmarks._overhead_peer_side", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=ROOT,
        )
        first = self.ask(given)
        self.version: str = first["version"]
        self.entries: list[str] = first["entries"]
        self.missing: dict[str, str] = first["missing"]

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to one request.

        Raises:
            PeerFailed: it ended, or took longer than ANSWER_S.
        """
        to, back = self._process.stdin, self._process.stdout
        assert to is not None
        assert back is not None
        watch = threading.Timer(ANSWER_S, self._process.kill)
        watch.start()
        try:
            to.write(json.dumps(request) + "\n")
            to.flush()
            line = back.readline()
        except BrokenPipeError:
            line = ""
        finally:
            watch.cancel()
        if not line:
            self.close()
            raise PeerFailed(f"{self.name} ended with status {self._process.returncode}")
        return json.loads(line)

    def close(self) -> None:
        """End the process; may be called twice."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None and not stream.closed:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue  # it ended before it had read all
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        self.close()


def _python(venv: Path) -> Path:
    return venv / "bin" / "python"
