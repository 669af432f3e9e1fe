"""A vLLM server on this machine's CPU, in a Python environment of its own, for rollout."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks._record import ROOT
from treegrpo.engine.vllm import VLLMEngine
from treegrpo.tiny import build_tokenizer, save_model

PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
START_SECONDS = 300
_SETTINGS = {
    "VLLM_SERVER_DEV_MODE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_V1_OUTPUT_PROC_CHUNK_SIZE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "TORCH_COMPILE_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
}


def why_not() -> str | None:
    """Return why no server can be started here; None where one can."""
    return None if PYTHON.exists() else f"no {PYTHON.relative_to(ROOT)}: make test-vllm installs it"


@contextmanager
def vllm_engine(model: Any, folder: Path, rows: int, longest: int) -> Generator[VLLMEngine]:
    """Yield an engine whose server samples from a copy of the model, as docs/vllm.md says.

    Args:
        model: borrowed.
        folder: empty; holds the copy and what the server says (server.log).
        rows: sampled together.
        longest: most tokens of a row.

    Raises:
        RuntimeError: the server did not start; shows the last it said.
    """
    tokenizer = build_tokenizer([f"word{n}" for n in range(int(model.config.vocab_size) // 2)])
    save_model(model, tokenizer, folder / "model")
    port = _free_port()
    log = folder / "server.log"
    # Threads are the server's own to choose.
    inherited = {name: text for name, text in os.environ.items() if "_NUM_THREADS" not in name}
    with (
        log.open("wb") as said,
        subprocess.Popen(
            _command(folder / "model", port, rows, longest),
            env=inherited | _SETTINGS,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            _wait(process, f"http://127.0.0.1:{port}", log)
            with VLLMEngine(f"http://127.0.0.1:{port}", model, weights_folder=folder) as engine:
                yield engine
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _command(folder: Path, port: int, rows: int, longest: int) -> list[str]:
    return [
        *(str(PYTHON), "-m", "vllm.entrypoints.launchers.api_server.entry", "--model", str(folder)),
        *("--host", "127.0.0.1", "--port", str(port), "--tokens-only", "--dtype", "float32"),
        *("--logprobs-mode", "processed_logprobs", "--enforce-eager", "--block-size", "32"),
        *("--max-num-seqs", str(rows), "--max-model-len", str(longest)),
        "--no-enable-chunked-prefill",
        *("--hf-overrides", '{"tie_word_embeddings": false}'),
    ]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Return when the server is healthy."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{url}/health", timeout=5).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.25)
    ended = process.poll()
    found = f"was not healthy within {START_SECONDS} s" if ended is None else f"ended with {ended}"
    said = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line for line in said if "Error" in line][:10]
    raise RuntimeError(
        f"A vLLM server for tokens_per_s_vllm was started, but it {found}. Start it by hand as "
        f"docs/vllm.md says. It said: {' | '.join(errors or said[-10:])}"
    )
