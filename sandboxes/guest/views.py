"""Each state's own view of the files, and how a fork gets one.

OverlayViews   a root per state; its layer lies over its ancestors' layers, which are
frozen. The cost does not depend on how much they hold.
CopyViews      a directory per state, copied. For hosts without user namespaces: paths
differ between states, and nothing but the code's manners hides a sibling.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass, field

from treegrpo.sandboxes.guest import ground, kernel

_PARTS = (("workspace", "workspace"), ("tmp", "tmp"), ("shm", "dev/shm"))
_CHUNK = 1 << 20
_MOST_LAYERS = 32  # lookups slow down with layers; a deeper state gets a merged copy


@dataclass
class Layer:
    """What one state wrote; frozen as soon as another state's view lies on it."""

    path: str
    users: int = 0


@dataclass
class View:
    """One state's files: `root` as the supervisor sees it, `home` as the state does."""

    number: int
    root: str
    home: str
    descriptor: int  # of `root`, for lookups that cannot leave it
    layers: list[Layer] = field(default_factory=list[Layer])  # newest first
    frozen: bool = False
    overlay: int = -1  # kept open: closing waits for the kernel, and a fork should not

    def bytes(self) -> int:
        """Return what the state has written, as its own file system counts it."""
        if not self.layers:
            return 0
        usage = os.statvfs(self.layers[0].path)
        return (usage.f_blocks - usage.f_bfree) * usage.f_frsize


class OverlayViews:
    """Views by overlay mounts; needs our own mount namespace."""

    mode = "chroot"

    def __init__(self, *, workspace_mb: int, files: int) -> None:
        """Give each state's layer so much room; 0 MB: no files, one view for all."""
        self._room = f"size={workspace_mb}m,nr_inodes={files},mode=755"
        self._bare = workspace_mb == 0
        self._covered = ground.covered()
        if self._bare:
            self.mode = "none"

    def make(self, number: int, parent: View | None) -> View:
        """Return the view of a new state over its parent's files."""
        if self._bare and parent is not None:
            return View(number, parent.root, "/", os.dup(parent.descriptor))
        root = f"/nodes/{number}"
        os.mkdir(f"/making/{number}")
        copied = kernel.clone_mount("/base", recursive=True)
        kernel.attach_mount(copied, root)
        os.close(copied)
        layers: list[Layer] = []
        overlay = -1
        if not self._bare:
            below = list(parent.layers) if parent is not None else []
            if len(below) >= _MOST_LAYERS and parent is not None:
                below = [self._merged(number, parent)]
            layers = [self._new_layer(f"/layers/{number}"), *below]
            overlay = self._overlay(root, layers)
        for layer in layers:
            layer.users += 1
        descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return View(
            number, root, "/" if self._bare else "/workspace", descriptor, layers, overlay=overlay
        )

    def freeze(self, view: View) -> None:
        """Let the state write no more, as forks are about to lie on what it wrote.

        Its own process is stopped and never asked to; this holds also one that was taken over,
        unless it keeps a file open for writing, which the kernel then refuses to freeze.
        """
        if view.frozen or not view.layers:
            return
        view.frozen = True
        flags = kernel.MS_REMOUNT | kernel.MS_BIND | kernel.MS_RDONLY
        for _, place in _PARTS:
            with contextlib.suppress(OSError):
                kernel.mount(None, f"{view.root}/{place}", None, flags)

    def drop(self, view: View) -> None:
        """Give the view back; layers that nobody lies on any more go with it."""
        os.close(view.descriptor)
        if self._bare:
            return
        os.close(view.overlay)
        kernel.unmount(view.root)
        os.rmdir(f"/making/{view.number}")
        for layer in view.layers:
            layer.users -= 1
            if not layer.users:
                kernel.unmount(layer.path)
                os.rmdir(layer.path)

    def _new_layer(self, path: str) -> Layer:
        os.mkdir(path)
        kernel.mount("tmpfs", path, "tmpfs", 0, self._room)
        for name in ("up", "up/workspace", "up/tmp", "up/shm", "work"):
            os.mkdir(f"{path}/{name}")
        return Layer(path)

    def _merged(self, number: int, parent: View) -> Layer:
        layer = self._new_layer(f"/layers/{number}-merged")
        for part, place in _PARTS:
            copy_folder(f"{parent.root}/{place}", f"{layer.path}/up/{part}")
        return layer

    def _overlay(self, root: str, layers: list[Layer]) -> int:
        options: list[tuple[str, str | None]] = [("userxattr", None)]
        options += [("lowerdir+", layer.path + "/up") for layer in layers[1:]]
        options += [("lowerdir+", "/skeleton")]
        options += [("upperdir", layers[0].path + "/up"), ("workdir", layers[0].path + "/work")]
        overlay = kernel.new_mount("overlay", options)
        for part, place in _PARTS:
            piece = kernel.clone_mount(part, at=overlay)
            kernel.attach_mount(piece, f"{root}/{place}")
            os.close(piece)
        for path in self._covered:
            _bring_back(path, root)
        return overlay


class CopyViews:
    """Views by copying directories, under `top`."""

    mode = "copy"

    def __init__(self, top: str) -> None:
        """Keep the states' directories under `top`, which is ours."""
        self._top = top

    def make(self, number: int, parent: View | None) -> View:
        """Return the view of a new state with a copy of its parent's files."""
        # No state may guess, and so prepare, where the next one will be.
        root = f"{self._top}/{number}-{os.urandom(16).hex()}"
        if parent is None:
            os.mkdir(root)
        else:
            copy_folder(parent.root, root)
        return View(number, root, root, os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))

    def freeze(self, view: View) -> None:
        """Do nothing: forks have copies."""

    def drop(self, view: View) -> None:
        """Delete the state's directory."""
        os.close(view.descriptor)
        remove_folder(view.root)


def remove_folder(path: str) -> None:
    """Delete a directory however deep it is; shutil's way ends at Python's recursion limit."""
    arguments = ["rm", "-rf", "--", path]
    os.waitpid(os.posix_spawnp("rm", arguments, {"PATH": "/usr/bin:/bin"}), 0)


def _bring_back(path: str, root: str) -> None:
    """Put a part of the base over the state's own /tmp, where the interpreter lives."""
    piece = kernel.clone_mount("/base" + path, recursive=True)
    kernel.attach_mount(piece, root + path)
    os.close(piece)


def copy_folder(source: str, target: str) -> None:
    """Copy files, folders and symlinks; pipes, sockets and other mounts are left out.

    Not shutil's: its libraries would be mapped into, and so cost, every fork.
    """
    device = os.lstat(source).st_dev
    pending = [(source, target)]
    while pending:
        here, there = pending.pop()
        if there != target or not os.path.isdir(there):
            os.mkdir(there)
        with os.scandir(here) as entries:
            for entry in entries:
                info, copy = entry.stat(follow_symlinks=False), f"{there}/{entry.name}"
                if stat.S_ISLNK(info.st_mode):
                    os.symlink(os.readlink(entry.path), copy)
                elif stat.S_ISREG(info.st_mode):
                    _copy_file(entry.path, copy, info)
                elif stat.S_ISDIR(info.st_mode) and info.st_dev == device:
                    pending.append((entry.path, copy))
        os.chmod(there, stat.S_IMODE(os.lstat(here).st_mode))


def _copy_file(source: str, target: str, info: os.stat_result) -> None:
    with open(source, "rb") as reader, open(target, "wb") as writer:
        while chunk := reader.read(_CHUNK):
            writer.write(chunk)
    os.chmod(target, stat.S_IMODE(info.st_mode))
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))
