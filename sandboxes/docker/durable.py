"""A state's files as an image, and back. Files only: the memory is not in it.

An engine stacks at most 127 layers, its own two included, and each commit adds one. So an image
made here always lies on the image that the first tree was started from, never on another one
made here.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from treegrpo.sandboxes.base import Entry
from treegrpo.sandboxes.docker import engine, owner
from treegrpo.sandboxes.errors import FileRefused
from treegrpo.sandboxes.history import Action
from treegrpo.sandboxes.tree import State, Tree, drive

_BASE = "treegrpo.base"
_PLACE = "/workspace"
_MAX_FILE = 256 * 1024 * 1024


class Workspace(Protocol):
    """What of a sandbox is needed here."""

    def list(self, path: str = ".") -> Sequence[Entry]:
        """Return what is in a directory."""
        ...

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """Return a file's content."""
        ...


Files = dict[str, bytes | None]
"""Contents by path in the workspace; None for a directory."""


def collect(sandbox: Workspace) -> Files:
    """Return what is in the workspace of a state.

    Raises:
        FileRefused: something in it is neither a file nor a directory.
    """
    return dict(_walk(sandbox, "."))


def save(client: Any, image: str, files: Files, repository: str, tag: str) -> str:
    """Return the id of a new image: `image`, or what that was made from, with the files in it.

    Raises:
        EngineRefused: the image is missing, or has as many layers as an engine stacks.
    """
    asked = f"An image {repository}:{tag} of a workspace was asked for"
    with engine.refusals(asked, image):
        found = client.images.get(image)
        base = str(found.labels.get(_BASE) or found.id)
        helper = _helper(client, base)
        try:
            helper.put_archive("/", _pack(files))
            made = helper.commit(repository, tag, changes=f"LABEL {_BASE}={base} {owner.MARK}=")
        finally:
            owner.remove(helper)
    return str(made.id)


def load(client: Any, image: str) -> Files:
    """Return the files in an image that `save` made; none for any other image."""
    with engine.refusals(f"A container of {image} was asked for", image):
        labels = client.images.get(image).labels
        if _BASE not in labels:
            return {}
        helper = _helper(client, image)
        try:
            chunks, _ = helper.get_archive(_PLACE)
            return _unpack(b"".join(chunks))
        finally:
            owner.remove(helper)


def furnish(tree: Tree, files: Files) -> State:
    """Return a fork of the tree's first state with the files in its workspace.

    They are written by recorded actions, so they count in its hash and come back by replay.
    """
    state = drive(tree.fork_one(tree.seed))
    assert state.number is not None  # a new fork lives
    for action in _writes(files):
        _, outcome = drive(tree.perform(state.number, action))
        state.history = state.history.then(action, outcome)
    return state


def _writes(files: Files) -> Iterator[Action]:
    for path, data in files.items():
        if data is not None:
            yield Action("write", data, path)
        else:  # a directory is made for a file in it
            yield Action("write", b"", f"{path}/.keep")
            yield Action("remove", path=f"{path}/.keep")


def _helper(client: Any, image: str) -> Any:
    """Return a container that is never started; its layer is all we want."""
    return client.containers.create(image, ["-"], network_mode="none", labels=owner.labels())


def _walk(sandbox: Workspace, folder: str) -> Iterator[tuple[str, bytes | None]]:
    for entry in sandbox.list(folder):
        path = entry.name if folder == "." else f"{folder}/{entry.name}"
        if entry.kind == "directory":
            yield path, None
            yield from _walk(sandbox, path)
        elif entry.kind == "file":
            yield path, sandbox.read(path, max_bytes=_MAX_FILE)
        else:
            raise FileRefused(
                f"A durable snapshot was asked for, and {path!r} in the workspace is no file or "
                f"directory ({entry.kind}). Remove it, or put a file in its place."
            )


def _pack(files: Files) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, data in {"": None, **files}.items():
            member = tarfile.TarInfo(f"{_PLACE}/{path}".strip("/"))
            member.uid = member.gid = 1000
            member.mode = 0o755 if data is None else 0o644
            member.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            member.size = len(data or b"")
            archive.addfile(member, io.BytesIO(data or b""))
    return buffer.getvalue()


def _unpack(data: bytes) -> Files:
    files: Files = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            path = member.name.partition("/")[2]
            if path and member.isdir():
                files[path] = None
            elif member.isreg() and (content := archive.extractfile(member)) is not None:
                files[path] = content.read()
    return files
