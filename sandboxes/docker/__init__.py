"""A hardened container per tree; inside, the same supervisor and workers as on the host."""

from treegrpo.sandboxes.docker.backend import DockerBackend
from treegrpo.sandboxes.docker.config import DockerConfig

__all__ = ["DockerBackend", "DockerConfig"]
