"""Function: the files of a sandbox, written, read, listed and removed from outside."""

from __future__ import annotations

import time
import zlib

from treegrpo.sandboxes.base import MIB
from treegrpo.sandboxes.conformance.case import PATIENCE_S, Bench, Case, Checks, case_of
from treegrpo.sandboxes.errors import FileRefused, SandboxError

UNICODE_PATH = "d\u00e9p\u00f4t/\u6f22 \u2603/\U0001f600.txt"
OUTSIDE = ("../x", "a/../../x", "/etc/passwd", "/root/x", "/workspace/../etc/passwd", "..")


def bytes_come_back(bench: Bench, check: Checks) -> None:
    """Binary, UTF-8, zero-length and 5 MB files come back byte for byte, and code sees them."""
    contents = {
        "binary.dat": bytes(range(256)) * 3,
        "text.txt": "gr\u00fc\u00df \u2603\r\n".encode(),
        "empty": b"",
        "large.bin": bytes(range(251)) * (5 * MIB // 251),
    }
    with bench.sandbox() as box:
        for name, data in contents.items():
            box.write(name, data)
            check.that(box.read(name) == data, f"{name}: other bytes came back")
            code = f"import zlib; d = open({name!r}, 'rb').read(); (len(d), zlib.crc32(d))"
            check.value(repr((len(data), zlib.crc32(data))), box, code)
        box.write("text.txt", b"short")
        check.same(b"short", box.read("text.txt"), "an overwritten file")


def code_and_host_see_the_same_files(bench: Bench, check: Checks) -> None:
    """What code writes the host reads, flushed or closed; what the host writes code reads."""
    with bench.sandbox() as box:
        check.runs(box, "open('a.txt', 'w').write('from code'); f = open('b.txt', 'w', 1)")
        check.same(b"from code", box.read("a.txt"), "a closed file")
        check.runs(box, "n = f.write('line\\n'); f.flush()")
        check.same(b"line\n", box.read("b.txt"), "a flushed file that is still open")
        box.write("deep/er/c.txt", b"c")
        check.value("'c'", box, "f.close(); open('deep/er/c.txt').read()")
        check.value("True", box, "import os; os.access('deep/er/c.txt', os.W_OK)")
        check.runs(box, "import os; os.remove('deep/er/c.txt'); os.rmdir('deep/er')")
        check.raises(FileRefused, lambda: box.read("deep/er/c.txt"))


def names_of_every_kind(bench: Bench, check: Checks) -> None:
    """Unicode, spaces, dots, dashes and quotes in paths are served."""
    with bench.sandbox() as box:
        for path in (UNICODE_PATH, " lead", "-rf", "a'b\"c", "...", ".hidden", "x" * 200, "a\nb"):
            box.write(path, path.encode())
            check.same(path.encode(), box.read(path), f"content of {path!r}")
            check.value("True", box, f"open({path!r}, newline='').read() == {path!r}")
        check.same(["\u6f22 \u2603"], [e.name for e in box.list("d\u00e9p\u00f4t")], "names")


def a_list_tells_kinds(bench: Bench, check: Checks) -> None:
    """A list gives name, kind and size of each entry, and never follows a link."""
    with bench.sandbox() as box:
        check.same([], box.list(), "a new workspace")
        box.write("file", b"12345")
        box.write("folder/inner", b"")
        check.runs(
            box, "import os; os.symlink('folder', 'link'); os.symlink('nowhere', 'dangling')"
        )
        check.runs(box, "os.mkfifo('queue')")
        found = {entry.name: (entry.kind, entry.size) for entry in box.list()}
        expected = {
            "file": ("file", 5),
            "folder": ("directory", 0),
            "link": ("symlink", 0),
            "dangling": ("symlink", 0),
            "queue": ("other", 0),
        }
        check.same(expected, found, "entries")
        check.same(["inner"], [entry.name for entry in box.list("folder")], "a folder's")
        check.same(sorted(expected), [entry.name for entry in box.list(".")], "sorted names")


def remove_removes(bench: Bench, check: Checks) -> None:
    """A file or link is removed, never what a link points at; a second time it is refused."""
    with bench.sandbox() as box:
        box.write("a", b"1")
        check.runs(box, "import os; os.symlink('a', 'link')")
        box.remove("link")
        check.same(["a"], [entry.name for entry in box.list()], "after the link")
        box.remove("a")
        check.same([], box.list(), "after the file")
        check.raises(FileRefused, lambda: box.remove("a"))


def what_is_not_served_is_refused(bench: Bench, check: Checks) -> None:
    """Missing, directory, outside, odd and oversized paths raise FileRefused, with the path."""
    with bench.sandbox() as box:
        box.write("folder/file", b"123456")
        for path in ("missing", "folder/missing", "file/x", "folder/file/x", *OUTSIDE):
            error = check.raises(FileRefused, lambda path=path: box.read(path))
            check.that(path in str(error), f"the message does not name {path!r}: {error}")
            check.raises(FileRefused, lambda path=path: box.list(path))
            check.raises(FileRefused, lambda path=path: box.remove(path))
        check.raises(FileRefused, lambda: box.read("folder"))
        check.raises(FileRefused, lambda: box.list("folder/file"))
        check.raises(FileRefused, lambda: box.read("folder/file", max_bytes=5))
        check.same(b"123456", box.read("folder/file", max_bytes=6), "a file of the size allowed")
        for path in ("folder", "folder/file/x", ".", "", "a\0b", "n" * 300, *OUTSIDE):
            check.raises(FileRefused, lambda path=path: box.write(path, b"x"))
        check.value("'123456'", box, "open('folder/file').read()")


def unreadable_files_are_typed(bench: Bench, check: Checks) -> None:
    """A file without permissions is read, or refused: never another error, and never a hang."""
    with bench.sandbox() as box:
        check.runs(box, "import os; n = open('s', 'w').write('x'); os.chmod('s', 0)")
        try:
            check.same(b"x", box.read("s"), "a file of mode 0")
        except FileRefused as error:
            check.that("s" in str(error), f"message: {error}")
        check.value("1", box, "os.chmod('s', 0o600); len(open('s').read())")


def special_files_never_block(bench: Bench, check: Checks) -> None:
    """Reading or writing a FIFO, a socket or a link out of the workspace is refused at once."""
    with bench.sandbox() as box:
        check.runs(box, "import os; os.mkfifo('queue'); os.symlink('/etc', 'etc')")
        check.runs(box, "os.symlink('/etc/passwd', 'passwd'); os.symlink('loop', 'loop')")
        started = time.monotonic()
        for path in ("queue", "passwd", "etc/passwd", "loop"):
            check.raises(FileRefused, lambda path=path: box.read(path))
            check.raises(FileRefused, lambda path=path: box.list(path))
        check.raises(FileRefused, lambda: box.write("queue", b"x"))
        check.raises(FileRefused, lambda: box.write("etc/x", b"x"))
        check.that(time.monotonic() - started < PATIENCE_S, "special files held us up")


def a_full_workspace_is_told(bench: Bench, check: Checks) -> None:
    """Writing beyond the workspace's limit is a typed error outside and kind disk inside."""
    with bench.sandbox(workspace_mb=4) as box:
        check.raises(SandboxError, lambda: box.write("big", bytes(8 * MIB)))
        result = box.exec("f = open('fill', 'wb')\nfor _ in range(64): n = f.write(bytes(1 << 18))")
        check.same("disk", result.kind, "kind of a write beyond the limit")
        if result.alive:
            check.value("2", box, "f.close() if 0 else 1 + 1")


CASES: tuple[Case, ...] = tuple(
    case_of(check, "function")
    for check in (
        bytes_come_back,
        code_and_host_see_the_same_files,
        names_of_every_kind,
        a_list_tells_kinds,
        remove_removes,
        what_is_not_served_is_refused,
        unreadable_files_are_typed,
        special_files_never_block,
        a_full_workspace_is_told,
    )
)
