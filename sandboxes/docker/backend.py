"""The docker backend: a hardened container per tree, with the usual supervisor inside."""

from __future__ import annotations

import threading
from typing import Any, ClassVar

from pydantic import ValidationError

from treegrpo.sandboxes.backend import Backend
from treegrpo.sandboxes.base import Capabilities, Level, SandboxSpec
from treegrpo.sandboxes.connection import Connection
from treegrpo.sandboxes.docker import durable, engine, footing, launch, owner, probe
from treegrpo.sandboxes.docker.config import DockerConfig
from treegrpo.sandboxes.docker.footing import Footing
from treegrpo.sandboxes.errors import SandboxError
from treegrpo.sandboxes.sandbox import Sandbox
from treegrpo.sandboxes.tree import State, Tree


class DockerBackend(Backend):
    """Trees in containers of one image.

    Options are the fields of DockerConfig: image, python, runtime, cpus, memory_mb, apparmor,
    timeout_s, level. A tree stands at the highest level that its container can have; where that
    is L1, because namespaces are refused in it or libseccomp is missing on this side, only a
    specification that accepts L1 gets one. The engine is the one that DOCKER_HOST names, or the
    one at the usual socket. An image that `commit` made gives every tree its files.
    """

    name: ClassVar[str] = probe.NAME

    def __init__(self, **options: Any) -> None:
        """Check the options; the engine is not asked before the first tree.

        Raises:
            SandboxError: an option that does not exist, or a value that cannot be.
        """
        super().__init__(options)
        try:
            self.config = DockerConfig(**options)
        except ValidationError as error:
            first = error.errors()[0]
            raise SandboxError(
                f"The docker backend was given {'.'.join(map(str, first['loc']))}="
                f"{first['input']!r}: {first['msg']}. Its options are "
                f"{', '.join(DockerConfig.model_fields)}."
            ) from error
        self._lock = threading.Lock()
        self._client: Any = None
        self._info: dict[str, Any] = {}
        self._files: durable.Files = {}
        self._footing: Footing | None = None  # a lower one, once the highest was refused

    def probe(self) -> Capabilities:
        """Return what holds with these options; starts a container, which takes 0.3 s."""
        return probe.probe(self.config)

    def commit(self, sandbox: Sandbox, repository: str, tag: str = "latest") -> str:
        """Return the id of a new image that holds the workspace of a state, durably.

        Files and directories only: the interpreter's memory is not in it, nor modes or links.
        DockerBackend(image="repository:tag") starts trees with these files. Takes about 0.2 s
        and a layer of the engine's disk; for forks use `fork`.

        Raises:
            FileRefused: the workspace holds something else than files and directories.
            SandboxUnavailable: the engine refused.
        """
        files = durable.collect(sandbox)
        return durable.save(self._connected(), self.config.image, files, repository, tag)

    def close(self) -> None:
        """End every tree, and the connection to the engine; may be called twice."""
        super().close()
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _plant(self, spec: SandboxSpec) -> Tree:
        client = self._connected()
        stand = self._footing or footing.choose(self.config, self._info)
        footing.refuse_below(stand, self.config, spec)
        try:
            connection, first = self._open(client, spec, stand)
        except launch.LevelRefused as error:
            stand = Footing(Level.L1, error.found, error.remedy)
            footing.refuse_below(stand, self.config, spec)
            connection, first = self._open(client, spec, stand)
            self._footing = stand  # the next tree need not try in vain
        tree = Tree(connection, spec, stand.level, on_close=connection.close)
        tree.plant(first)
        return tree

    def _open(self, client: Any, spec: SandboxSpec, stand: Footing) -> tuple[Connection, int]:
        started = launch.start(client, self.config, spec, self._info, stand)
        return launch.plant(started, self.config, spec)

    def _new_tree(self, spec: SandboxSpec) -> tuple[Tree, State]:
        tree, seed = super()._new_tree(spec)
        if not self._files:
            return tree, seed
        try:
            return tree, durable.furnish(tree, self._files)
        except BaseException:
            tree.close()
            raise

    def _connected(self) -> Any:
        """Return the client; the first call removes what crashed runs left behind."""
        with self._lock:
            if self._client is None:
                client = engine.connect(self.config.timeout_s)
                try:
                    image = self.config.image
                    with engine.refusals(f"A container of {image} was asked for", image):
                        self._info = client.info()
                        owner.remove_leftovers(client)
                        self._files = durable.load(client, image)
                except BaseException:
                    client.close()
                    raise
                self._client = client
            return self._client
