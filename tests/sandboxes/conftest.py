"""One bench per module for each backend: process at the host's level and below, docker."""

import os
from collections.abc import Callable, Iterator

import pytest

from treegrpo.sandboxes import Backend, open_backend
from treegrpo.sandboxes.base import Level
from treegrpo.sandboxes.conformance import Bench, open_bench
from treegrpo.sandboxes.errors import SandboxUnavailable

IMAGE = os.environ.get("TREEGRPO_DOCKER_IMAGE", "treegrpo-sandbox:test")
REQUIRE_DOCKER = os.environ.get("TREEGRPO_REQUIRE_DOCKER") == "1"
BACKENDS = [
    "process",
    "process-L1",
    pytest.param("docker", marks=pytest.mark.docker),
]


def opener(name: str) -> Callable[[], Backend]:
    """Return what opens the backend of a name: process, process-L1, docker."""
    kind, _, level = name.partition("-")
    if kind == "docker":
        return lambda: open_backend("docker", image=IMAGE)
    if level:
        return lambda: open_backend("process", level=Level[level])
    return lambda: open_backend("process")


def no_docker(reason: str) -> None:
    """Skip, or fail where the environment says that an engine must be there."""
    if REQUIRE_DOCKER:
        pytest.fail(f"TREEGRPO_REQUIRE_DOCKER=1, yet {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="module", params=BACKENDS)
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    name = str(request.param)
    reopen = opener(name)
    with reopen() as backend:
        capabilities = backend.probe()
    wanted = Level.L1 if name != "process" else Level.L2
    if capabilities.level < wanted:
        missing = "; ".join(f"{f.name}: {f.reason}" for f in capabilities.missing())
        if name == "docker":
            no_docker(f"no usable Docker engine: {missing}")
        pytest.skip(f"{name} gives {capabilities.level.name} on this host: {missing}")
    try:
        with open_bench(reopen, rounds=1.0 if name == "process" else 0.1) as opened:
            yield opened
    except SandboxUnavailable as error:
        if name != "docker":
            raise
        no_docker(str(error))
