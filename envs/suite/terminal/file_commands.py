"""Commands on files and folders: ls, mkdir, rm, rmdir, mv, cp, touch, chmod, find."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from treegrpo.envs.suite.terminal.disk import (
    CommandError,
    Entry,
    File,
    Folder,
    joined,
    name_of,
    parent_of,
    resolved,
)
from treegrpo.envs.suite.terminal.machine import (
    Machine,
    Options,
    Output,
    Program,
    each,
    need,
    options,
    text_of,
    to_number,
)
from treegrpo.envs.suite.terminal.patterns import name_matches


def _ls(machine: Machine, args: list[str], stdin: str) -> Output:
    given = options(args, "aAl1Rdth")
    targets = given.operands or ["."]
    listed = [t for t in targets if "d" in given or not _is_folder(machine, t)]
    folders = [t for t in targets if t not in listed]
    single = each("ls", listed, lambda t: _ls_line(machine, machine.path(t), t, given))

    def show(target: str) -> str:
        return _ls_folder(machine, target, given, has_head=len(targets) > 1)

    several = each("ls", folders, show)
    gap = "\n" if single.out and several.out else ""
    code = 2 if single.code or several.code else 0
    return Output(single.out + gap + several.out, single.err + several.err, code)


def _is_folder(machine: Machine, text: str) -> bool:
    return bool(text) and machine.disk.is_folder(machine.path(text))


def _ls_folder(machine: Machine, target: str, given: Options, *, has_head: bool) -> str:
    folder = machine.path(target)
    is_all = "a" in given or "A" in given
    children = [c for c in machine.disk.children(folder) if is_all or name_of(c)[0] != "."]
    if "t" in given:
        children.sort(key=lambda c: -machine.entry(c).mtime)
    text = f"{target}:\n" if has_head or "R" in given else ""
    own = (".", "..") if "a" in given else ()
    text += "".join(_ls_line(machine, resolved(folder, name), name, given) for name in own)
    text += "".join(_ls_line(machine, c, name_of(c), given) for c in children)
    if "R" in given:
        for child in children:
            if machine.disk.is_folder(child):
                shown = joined(target, name_of(child))
                text += "\n" + _ls_folder(machine, shown, given, has_head=True)
    return text


def _ls_line(machine: Machine, path: str, shown: str, given: Options) -> str:
    entry = machine.disk.get(path)
    if entry is None:
        raise CommandError(f"cannot access '{shown}': No such file or directory", 2)
    if "l" not in given:
        return f"{shown}\n"
    is_file = isinstance(entry, File)
    bits = "".join(
        letter if entry.mode >> (8 - at) & 1 else "-" for at, letter in enumerate("rwxrwxrwx")
    )
    size = entry.size if isinstance(entry, File) else 0
    time = f"{entry.mtime // 60:02d}:{entry.mtime % 60:02d}"
    return f"{'-' if is_file else 'd'}{bits} agent {size:6d} {time} {shown}\n"


def _mkdir(machine: Machine, args: list[str], stdin: str) -> Output:
    given = options(args, "p")

    def make(target: str) -> str:
        path = machine.path(target)
        missing: list[str] = []
        while machine.disk.get(path) is None:
            missing.append(path)
            path = parent_of(path)
        if not missing and not ("p" in given and machine.disk.is_folder(path)):
            raise CommandError(f"cannot create directory '{target}': File exists")
        if len(missing) > 1 and "p" not in given:
            raise CommandError(f"cannot create directory '{target}': No such file or directory")
        _change(
            machine,
            f"cannot create directory '{target}'",
            {folder: Folder(mtime=machine.clock) for folder in missing},
        )
        return ""

    return each("mkdir", need(given.operands, 1), make)


def _change(machine: Machine, what: str, changes: Mapping[str, Entry | None]) -> None:
    try:
        machine.change(changes)
    except CommandError as error:
        raise CommandError(f"{what}: {error.text}") from None


def _rm(machine: Machine, args: list[str], stdin: str) -> Output:
    given = options(args, "rRfiv")

    def remove(target: str) -> str:
        path = machine.path(target)
        entry = machine.disk.get(path) if target else None
        if entry is None:
            if "f" in given:
                return ""
            raise CommandError(f"cannot remove '{target}': No such file or directory")
        if not isinstance(entry, File) and "r" not in given and "R" not in given:
            raise CommandError(f"cannot remove '{target}': Is a directory")
        if path == "/" or name_of(target.rstrip("/")) in (".", ".."):
            raise CommandError(f"refusing to remove '{target}'")
        machine.change(dict.fromkeys(machine.disk.walk(path)))
        return f"removed '{target}'\n" if "v" in given else ""

    operands = given.operands if "f" in given else need(given.operands, 1)
    return each("rm", operands, remove)


def _rmdir(machine: Machine, args: list[str], stdin: str) -> Output:
    def remove(target: str) -> str:
        path = machine.require_folder(target)
        if machine.disk.children(path) or path == "/":
            raise CommandError(f"failed to remove '{target}': Directory not empty")
        machine.change({path: None})
        return ""

    return each("rmdir", need(options(args, "").operands, 1), remove)


def _mv(machine: Machine, args: list[str], stdin: str) -> Output:
    given = options(args, "fn")
    *sources, target = need(given.operands, 2)

    def move(source: str) -> str:
        path, place = _places(machine, source, target, is_one=len(sources) == 1)
        if "n" in given and machine.disk.get(place) is not None:
            return ""
        entries = _tree(machine, source, path, place)
        if path == "/":
            raise CommandError(f"cannot move '{source}'")
        gone = dict[str, Entry | None].fromkeys(machine.disk.walk(path))
        _change(machine, f"cannot move '{source}' to '{target}'", {**gone, **entries})
        return ""

    return each("mv", sources, move)


def _cp(machine: Machine, args: list[str], stdin: str) -> Output:
    given = options(args, "rRafpn")
    *sources, target = need(given.operands, 2)

    def copy(source: str) -> str:
        if not isinstance(machine.entry(source), File) and not given.flags & {"r", "R", "a"}:
            raise CommandError(f"-r not specified; omitting directory '{source}'")
        path, place = _places(machine, source, target, is_one=len(sources) == 1)
        if "n" in given and machine.disk.get(place) is not None:
            return ""
        entries = _tree(machine, source, path, place)
        fresh = {p: replace(e, mtime=machine.clock) for p, e in entries.items()}
        _change(machine, f"cannot copy '{source}' to '{target}'", fresh)
        return ""

    return each("cp", sources, copy)


def _places(machine: Machine, source: str, target: str, *, is_one: bool) -> tuple[str, str]:
    """Return the path of a source, and the path it is to have."""
    path, place = machine.path(source), machine.path(target)
    machine.entry(source)
    if machine.disk.is_folder(place):
        place = joined(place, name_of(path))
    elif not is_one or target.endswith("/"):
        raise CommandError(f"target '{target}' is not a directory")
    if place == path:
        raise CommandError(f"'{source}' and '{target}' are the same file")
    if place.startswith(f"{path.rstrip('/')}/"):
        raise CommandError(f"cannot put '{source}' into itself, '{target}'")
    return path, place


def _tree(machine: Machine, source: str, path: str, place: str) -> dict[str, Entry]:
    """Return the entries of a path and all below it, by the paths they are to have."""
    there, entry = machine.disk.get(place), machine.entry(source)
    if there is not None and isinstance(there, File) != isinstance(entry, File):
        kind = "directory" if isinstance(there, File) else "non-directory"
        raise CommandError(f"cannot overwrite '{place}' with {kind} '{source}'")
    if machine.disk.children(place):
        raise CommandError(f"cannot overwrite '{place}': Directory not empty")
    return {place + inner[len(path) :]: machine.entry(inner) for inner in machine.disk.walk(path)}


def _touch(machine: Machine, args: list[str], stdin: str) -> Output:
    def touch(target: str) -> str:
        path = machine.path(target)
        entry = machine.disk.get(path)
        if entry is None:
            machine.write(target, "")
        else:
            machine.change({path: replace(entry, mtime=machine.clock)})
        return ""

    return each("touch", need(options(args, "").operands, 1), touch)


def _chmod(machine: Machine, args: list[str], stdin: str) -> Output:
    is_deep = args[:1] == ["-R"]
    mode, *targets = need(args[is_deep:], 2)
    found = re.fullmatch(r"0?[0-7]{3}|([ugoa]*)([+-])([rwx]+)", mode)
    if not found:
        raise CommandError(f"invalid mode: '{mode[:40]}'")

    def changed(entry: Entry) -> Entry:
        if found[2] is None:
            return replace(entry, mode=int(mode, 8))
        who = found[1].replace("a", "ugo") or "ugo"
        bits = sum({"r": 4, "w": 2, "x": 1}[letter] for letter in set(found[3]))
        mask = sum(bits << {"u": 6, "g": 3, "o": 0}[letter] for letter in set(who))
        return replace(entry, mode=entry.mode | mask if found[2] == "+" else entry.mode & ~mask)

    def change(target: str) -> str:
        path = machine.path(target)
        machine.entry(target)
        paths = machine.disk.walk(path) if is_deep else [path]
        machine.change({p: changed(machine.entry(p)) for p in paths})
        return ""

    return each("chmod", targets, change)


# ------------------------------------------------------------------------------------ find

CHECK_WORK = 100

_Check = Callable[[Machine, str, str], bool]


def _find(machine: Machine, args: list[str], stdin: str) -> Output:
    starts: list[str] = []
    while len(starts) < len(args) and args[len(starts)][:1] not in ("-", "!"):
        starts.append(args[len(starts)])
    checks, depths, is_deleting = _find_rules(args[len(starts) :])

    def show(start: str) -> str:
        path, found = machine.path(start), list[str]()
        machine.entry(start)
        for inner in machine.disk.walk(path):
            shown = start.rstrip("/") + inner[len(path.rstrip("/")) :] or "/"
            depth = inner[len(path.rstrip("/")) :].count("/")
            machine.spend(CHECK_WORK * (1 + len(checks)))
            if depths[0] <= depth <= depths[1] and all(c(machine, inner, shown) for c in checks):
                found.append(inner if is_deleting else shown)
        if not is_deleting:
            return text_of(found)
        for inner in reversed(found):  # what a folder holds before the folder
            if machine.disk.children(inner):
                raise CommandError(f"cannot delete '{inner}': Directory not empty")
            machine.change({inner: None})
        return ""

    return each("find", starts or ["."], show)


def _find_rules(args: list[str]) -> tuple[list[_Check], tuple[int, int], bool]:
    """Return the checks of an expression, the least and the most depth, whether it deletes."""
    checks: list[_Check] = []
    least, most, is_deleting, is_wanted = 0, 999, False, True
    left = iter(args)
    for word in left:
        if word in ("!", "-not"):
            is_wanted = not is_wanted
        elif word == "-delete":
            is_deleting = True
        elif word in ("-maxdepth", "-mindepth"):
            depth = to_number(next(left, ""))
            least, most = (least, depth) if word == "-maxdepth" else (depth, most)
        elif word != "-print":
            value = "" if word == "-empty" else next(left, None)
            checks.append(_find_check(word, value, is_wanted=is_wanted))
            is_wanted = True
    return checks, (least, most), is_deleting


def _find_check(word: str, value: str | None, *, is_wanted: bool) -> _Check:
    if word not in ("-name", "-iname", "-path", "-type", "-empty"):
        raise CommandError(
            f"unknown or unsupported predicate '{word[:40]}'; pipe the paths to xargs to run "
            "a command on them"
        )
    if value is None or len(value) > 240 or (word == "-type" and value not in ("f", "d")):
        raise CommandError(f"'{word}' needs a value that it knows")

    def check(machine: Machine, path: str, shown: str) -> bool:
        entry = machine.entry(path)
        if word == "-type":
            found = isinstance(entry, File) == (value == "f")
        elif word == "-empty":
            found = not (entry.text if isinstance(entry, File) else machine.disk.children(path))
        elif word == "-iname":
            found = name_matches(value.lower(), name_of(shown).lower(), machine.spend)
        else:
            found = name_matches(value, name_of(shown) if word == "-name" else shown, machine.spend)
        return found == is_wanted

    return check


PROGRAMS: Mapping[str, Program] = {
    "ls": _ls,
    "mkdir": _mkdir,
    "rm": _rm,
    "rmdir": _rmdir,
    "mv": _mv,
    "cp": _cp,
    "touch": _touch,
    "chmod": _chmod,
    "find": _find,
}
"""These commands by their names."""
