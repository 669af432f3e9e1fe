"""The docker backend against the whole suite, on a real engine."""

import pytest

from tests.containers import IMAGE, IS_REQUIRED
from treegrpo.sandboxes import Level, open_backend
from treegrpo.sandboxes.conformance import CASES, Bench, Case


@pytest.mark.docker
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_docker(docker: Bench, case: Case, put) -> None:
    put(docker, case)


@pytest.mark.skipif(
    not IS_REQUIRED,
    reason="TREEGRPO_REQUIRE_DOCKER=1 is not set: an engine may be missing",
)
def test_a_required_engine_answers() -> None:
    with open_backend("docker", image=IMAGE) as backend:
        capabilities = backend.probe()
    missing = {feature.name: feature.reason for feature in capabilities.missing()}
    assert capabilities.level >= Level.L2, f"no usable engine: {missing}"
