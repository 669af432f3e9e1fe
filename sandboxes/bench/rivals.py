"""Other ways to come by another copy of a state, on the same host in the same run.

None of them forks memory and files together; what each leaves out stands in its `what`.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from treegrpo.sandboxes.bench.forks import FILES, timed
from treegrpo.sandboxes.bench.report import Counts, Measurement, latencies
from treegrpo.sandboxes.errors import SandboxError

_COPY = (
    f"copytree of {FILES} files of 4 KiB and a fresh interpreter until it speaks; not sandboxed, "
    "nothing imported, its memory is empty"
)
_DOCKER = (
    f"commit of a container with {FILES} files, and run of a new one from that image until its "
    "fresh interpreter speaks; nothing imported, its memory is empty, its network is none"
)
_SANDLOCK = (
    "time between two clones' first words (each reads an array of the template) within "
    "Sandbox.fork(100) of an interpreter with numpy: memory alone, no files forked; a clone runs "
    "one function to its end and cannot be forked again"
)
_SANDLOCK_CALL = (
    "Sandbox.fork(1) of an interpreter with numpy until the clone's first word, the template's "
    "start included"
)
_SPEAK = "import sys; sys.stdout.write('ready'); sys.stdout.flush(); sys.stdin.read()"
_CONTAINER = "import time; print('ready', flush=True); time.sleep(600)"
_FIRST_WORD_S, _CLONES_S = 30, 60
_CLONES = """
import json, sys, time
import numpy as np
from sandlock import Sandbox
x = np.arange(10_000.0)
paths = ["/usr", "/lib", "/lib64", "/bin", "/etc", "/proc", "/dev", sys.prefix, sys.base_prefix]
def work(number):
    print(time.monotonic_ns() if x[7] == 7 else "wrong", flush=True)
def clones(count):
    began = time.monotonic_ns()
    box = Sandbox(fs_readable=paths, init_fn=lambda: None, work_fn=work)
    made = box.fork(count)
    told = Sandbox(fs_readable=paths).reduce(["cat"], made).stdout.split()
    if len(told) != count:
        sys.exit(f"{count} clones were asked for, {len(told)} spoke")
    return [(at - began) / 1e9 for at in sorted(map(int, told))]
batches, calls = int(sys.argv[1]), int(sys.argv[2])
for _ in range(5):
    clones(1)
between = [b - a for _ in range(batches) for many in [clones(100)] for a, b in zip(many, many[1:])]
print(json.dumps([between, [clones(1)[0] for _ in range(calls)]]))
"""


def copies(counts: Counts) -> tuple[Measurement, ...]:
    """Measure a copy of the files and a new interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        source.mkdir()
        for number in range(FILES):
            (source / f"file{number}").write_bytes(os.urandom(4096))

        def copy() -> Callable[[], object]:
            target = Path(folder) / "copy"
            shutil.copytree(source, target)
            process = subprocess.Popen(
                [sys.executable, "-I", "-c", _SPEAK],
                cwd=target,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            assert process.stdout is not None
            process.stdout.read(5)

            def undo() -> None:
                process.communicate()
                shutil.rmtree(target)

            return undo

        (seconds,) = timed(counts, copy, repeats=counts.copies, warm=2)
    return (latencies("copytree", _COPY, seconds),)


def docker_commits(counts: Counts, image: str) -> tuple[Measurement, ...]:
    """Measure a container frozen to an image, and a new one started from it."""
    from treegrpo.sandboxes.docker import engine  # its SDK takes long to load

    try:
        client = engine.connect()
        try:
            with engine.refusals(f"A container of {image} was asked for", image):
                seconds = _commits(client, image, counts.containers)
        finally:
            client.close()
    except SandboxError as error:
        return (Measurement("docker_commit_run", _DOCKER, missing=str(error)),)
    return (latencies("docker_commit_run", _DOCKER, seconds),)


def _commits(client: Any, image: str, repeats: int) -> list[float]:
    from treegrpo.sandboxes.docker import owner

    client.images.get(image)  # to run one that is missing would fetch it
    options: dict[str, Any] = {"network_mode": "none", "labels": owner.labels()}
    command = ["python3", "-I", "-c", _CONTAINER]
    first = client.containers.run(image, command, detach=True, **options)
    seconds: list[float] = []
    try:
        first.put_archive("/", _files())
        for _ in range(repeats + 1):
            began = time.perf_counter()
            made = first.commit()
            second = client.containers.run(made.id, command, detach=True, **options)
            try:
                _hear(second)
                seconds.append(time.perf_counter() - began)
            finally:
                owner.remove(second)
                client.images.remove(made.id)
    finally:
        owner.remove(first)
    return seconds[1:]  # the first one was to warm up


def _hear(container: Any) -> None:
    """Wait for a container's first word, asking for it about every 3 ms.

    The SDK's stream would tell it at once, but does not close all that it opens.
    """
    until = time.monotonic() + _FIRST_WORD_S
    while b"ready" not in (said := container.logs()):
        if time.monotonic() > until:
            raise SandboxError(f"The Python of a container was not ready in time: {said!r}.")
        time.sleep(0.002)


def _files() -> bytes:
    """Return the files as the archive that the engine takes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(FILES):
            member = tarfile.TarInfo(f"workspace/file{number}")
            member.size = 4096
            archive.addfile(member, io.BytesIO(os.urandom(4096)))
    return buffer.getvalue()


def sandlock_forks(counts: Counts) -> tuple[Measurement, ...]:
    """Measure the clones of Sandlock, in an interpreter of their own."""
    if importlib.util.find_spec("sandlock") is None:
        missing = "not installed: pip install sandlock"
        return (Measurement("sandlock_fork", _SANDLOCK, missing=missing),)
    words = [sys.executable, "-c", _CLONES, str(counts.clones), str(counts.copies)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_CLONES_S, check=True)
    except subprocess.CalledProcessError as error:
        missing = f"it failed: {''.join(error.stderr.strip().splitlines()[-1:])}"
        return (Measurement("sandlock_fork", _SANDLOCK, missing=missing),)
    except subprocess.TimeoutExpired:
        missing = f"it did not end within {_CLONES_S} s"
        return (Measurement("sandlock_fork", _SANDLOCK, missing=missing),)
    between, calls = json.loads(done.stdout)
    return (
        latencies("sandlock_fork", _SANDLOCK, between),
        latencies("sandlock_call", _SANDLOCK_CALL, calls),
    )
