"""Which image the container tests use, and whether a missing engine fails them."""

import functools
import os

IMAGE = os.environ.get("TREEGRPO_DOCKER_IMAGE") or "treegrpo-sandbox:test"
IS_REQUIRED = os.environ.get("TREEGRPO_REQUIRE_DOCKER") == "1"
"""Nothing is left out: what is missing fails the test."""


@functools.cache
def missing() -> str:
    """Return why container tests cannot run here, "" if they can."""
    # Imported only for marked tests, not at every start of pytest.
    from treegrpo.sandboxes.docker import engine
    from treegrpo.sandboxes.errors import SandboxUnavailable

    try:
        client = engine.connect()
        try:
            with engine.refusals("A container for tests was asked for", IMAGE):
                client.images.get(IMAGE)
        finally:
            client.close()
    except SandboxUnavailable as error:
        return str(error)
    return ""
