"""Durable snapshots: a state's files as an image, and a tree that starts with them."""

import hashlib
import io
import json
import os
import tarfile
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.containers import IMAGE
from treegrpo.sandboxes.base import Entry
from treegrpo.sandboxes.docker import durable, engine, owner
from treegrpo.sandboxes.errors import FileRefused, SandboxUnavailable

FILES: durable.Files = {
    "a.txt": b"first",
    "deep": None,
    "deep/er": None,
    "deep/er/b.bin": bytes(range(256)) * 1000,
    "empty": None,
    "nothing": b"",
    "na\u00efve \u2603 name": b"unicode",
}
pytestmark = pytest.mark.docker


class Shelf:
    """A workspace in a dictionary; what `durable` needs of a sandbox."""

    def __init__(self, files: durable.Files, odd: str = "") -> None:
        self.files = files
        self.odd = odd

    def list(self, path: str = ".") -> list[Entry]:
        above = "" if path == "." else f"{path}/"
        here = [p for p in self.files if p.startswith(above) and "/" not in p[len(above) :]]
        found = [
            Entry(p[len(above) :], "directory" if self.files[p] is None else "file", 0)
            for p in here
        ]
        return [*found, Entry(self.odd, "symlink", 0)] if self.odd and path == "." else found

    def read(self, path: str, *, max_bytes: int) -> bytes:
        data = self.files[path]
        assert data is not None and len(data) <= max_bytes
        return data


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    client = engine.connect()
    yield client
    client.close()


@pytest.fixture
def name(client: Any) -> Iterator[str]:
    """A repository of our own, whose images are gone after the test."""
    name = f"treegrpo-test-{uuid.uuid4().hex[:12]}"
    yield name
    for image in client.images.list(name):
        for tag in image.tags:
            client.images.remove(tag)


def containers(client: Any) -> int:
    return len(client.containers.list(all=True, filters={"label": f"treegrpo.pid={os.getpid()}"}))


def test_files_come_back_from_an_image_as_they_were(client: Any, name: str) -> None:
    image_id = durable.save(client, IMAGE, durable.collect(Shelf(FILES)), name, "one")
    assert client.images.get(f"{name}:one").id == image_id
    assert durable.load(client, f"{name}:one") == FILES
    assert containers(client) == 0


def test_an_image_shows_the_files_to_whoever_runs_it(client: Any, name: str) -> None:
    durable.save(client, IMAGE, {"a.txt": b"first"}, name, "one")
    command = ["python3", "-c", "print(open('/workspace/a.txt').read())"]
    said = client.containers.run(f"{name}:one", command, network_mode="none", remove=True)
    assert said == b"first\n"


def test_what_was_deleted_is_not_in_the_next_image(client: Any, name: str) -> None:
    durable.save(client, IMAGE, {"old": b"1", "kept": b"1"}, name, "one")
    durable.save(client, f"{name}:one", {"kept": b"2"}, name, "two")
    assert durable.load(client, f"{name}:two") == {"kept": b"2"}


def test_images_of_images_do_not_pile_up_layers(client: Any, name: str) -> None:
    base = len(client.images.get(IMAGE).attrs["RootFS"]["Layers"])
    last = IMAGE
    for tag in ("one", "two", "three"):
        durable.save(client, last, {"tag": tag.encode()}, name, tag)
        last = f"{name}:{tag}"
    assert len(client.images.get(last).attrs["RootFS"]["Layers"]) == base + 1


def image_of_layers(reference: str, count: int) -> bytes:
    """Return what `docker load` takes: an image of so many layers, each the same small file."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("file"))
    diff = "sha256:" + hashlib.sha256(layer.getvalue()).hexdigest()
    facts = {"os": "linux", "architecture": "amd64", "config": {}}
    config = facts | {"rootfs": {"type": "layers", "diff_ids": [diff] * count}}
    manifest = {"Config": "c.json", "RepoTags": [reference], "Layers": ["layer.tar"] * count}
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode="w") as archive:
        for path, data in (
            ("layer.tar", layer.getvalue()),
            ("c.json", json.dumps(config).encode()),
            ("manifest.json", json.dumps([manifest]).encode()),
        ):
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return found.getvalue()


def test_an_image_with_every_layer_it_can_have_is_refused(client: Any, name: str) -> None:
    client.images.load(image_of_layers(f"{name}:full", 125))
    with pytest.raises(SandboxUnavailable) as caught:
        durable.save(client, f"{name}:full", {"a": b"1"}, name, "more")
    assert str(caught.value) == (
        f"An image {name}:more of a workspace was asked for: the engine refused (max depth "
        f"exceeded). {name}:full has all the layers that an engine stacks. Flatten it: docker "
        "export of a container of it, then docker import. The process backend works without "
        "Docker: open_backend('process')."
    )
    assert containers(client) == 0


def test_an_image_of_anyone_else_brings_no_files(client: Any) -> None:
    assert durable.load(client, IMAGE) == {}


def test_running_such_an_image_by_hand_is_no_leftover_of_ours(client: Any, name: str) -> None:
    durable.save(client, IMAGE, {"a": b"1"}, name, "one")
    theirs = client.containers.create(f"{name}:one", ["-"], labels={"treegrpo.pid": ""})
    try:
        owner.remove_leftovers(client)
        assert client.containers.get(theirs.id).status == "created"
    finally:
        theirs.remove(force=True)


def test_a_link_is_refused_by_name() -> None:
    with pytest.raises(FileRefused, match=r"'link' in the workspace is no file or directory"):
        durable.collect(Shelf(FILES, odd="link"))


def test_a_missing_image_is_named(client: Any, name: str) -> None:
    with pytest.raises(SandboxUnavailable) as caught:
        durable.load(client, f"{name}:none")
    assert str(caught.value) == (
        f"A container of {name}:none was asked for: the engine does not have the "
        f"image '{name}:none'. Get it: docker pull {name}:none. Without a registry: make "
        "docker-image, and the option image='treegrpo-sandbox:test'. The process backend works "
        "without Docker: open_backend('process')."
    )
