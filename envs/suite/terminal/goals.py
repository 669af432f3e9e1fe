"""What is asked for: each goal adds its files to a project, and knows how it is reached."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from treegrpo.envs.suite.terminal.disk import Disk, File, Repo, name_of, parent_of
from treegrpo.envs.suite.terminal.git_commands import committed
from treegrpo.envs.suite.terminal.worlds import NAMES, World

KEYS = ("port", "timeout", "retries", "workers", "limit", "window", "batch", "interval")


@dataclass(frozen=True)
class Goal:
    """One thing to do.

    `looks` are the commands by which the expert finds out what to do, `does` those that do it.
    `wanted` are the files it changes, as they must be at the end; None is a file that is gone.
    `answer` is what has to be submitted, None where nothing is asked.
    """

    ask: str
    looks: tuple[str, ...] = ()
    does: tuple[str, ...] = ()
    wanted: tuple[tuple[str, str | None], ...] = ()
    answer: str | None = None

    def is_reached(self, disk: Disk) -> bool:
        """Return whether the files are as wanted; what is to be submitted is not looked at."""
        for path, text in self.wanted:
            entry = disk.get(path)
            if (entry.text if isinstance(entry, File) else entry) != text:
                return False
        return True


# ------------------------------------------------------------------------- with an answer


def find_text(world: World) -> Goal:
    """Which file holds a text, among others that hold nearly the same."""
    base, folders = world.area()
    paths = world.fill(folders, ".txt")
    word, digits = world.pick(NAMES), world.number(1000, 8999)
    text = f"{word}-{digits}"
    near = (f"{word}-{digits + 1}", f"{word}_{digits}", f"{word.title()}-{digits}")
    where, *others = world.some(paths, len(paths))
    world.files[where] += f"see {text} for more\n"
    for path, other in zip(others, near, strict=False):
        world.files[path] += f"see {other} for more\n"
    ask = f"Which file under {base} contains the text '{text}'? Submit its absolute path."
    return Goal(ask, (f"grep -rl '{text}' {base}",), answer=where)


def count_lines(world: World) -> Goal:
    """How many lines of all logs contain a word; other files contain it, too."""
    base, folders = world.area()
    paths = world.fill(folders, ".log")
    paths += world.fill(folders[:2], ".log.old")
    total = 0
    for path in paths:
        levels = [world.pick(("INFO", "WARN", "ERROR", "DEBUG")) for _ in range(world.number(3, 9))]
        lines = [f"{level} {' '.join(world.text().split()[:4])}" for level in levels]
        world.files[path] = "".join(f"{line}\n" for line in lines)
        total += levels.count("ERROR") if path.endswith(".log") else 0
    ask = (
        f"How many lines contain the word ERROR in all files under {base} whose names end in "
        ".log, taken together? Submit the number."
    )
    return Goal(ask, (f"grep -rh --include='*.log' ERROR {base} | wc -l",), answer=str(total))


def busiest(world: World) -> Goal:
    """Which name begins the most lines."""
    base, _ = world.area()
    hosts = _visits(world, base)
    ((first, most), (_, second)) = Counter(hosts).most_common(2)
    if most == second:
        path = next(p for p in sorted(world.files) if parent_of(p) == base and p.endswith(".log"))
        world.files[path] += f"{first} opened\n"
    ask = (
        f"Each line of the .log files directly in {base} begins with a host's name. Which host "
        "has the most lines in all of them together? Submit its name."
    )
    look = f"cat {base}/*.log | cut -d ' ' -f 1 | sort | uniq -c | sort -rn | head -n 2"
    return Goal(ask, (look,), answer=first)


def _visits(world: World, base: str) -> list[str]:
    """Add logs whose lines begin with host names, decoys beside them; return the names."""
    hosts = world.some(NAMES, 5)
    paths = world.fill([base], ".log") + world.fill([f"{base}/{world.pick(NAMES)}"], ".log")
    seen: list[str] = []
    for path in paths:
        drawn = [world.pick(hosts) for _ in range(world.number(6, 12))]
        lines = [f"{host} {world.pick(('opened', 'closed', 'failed'))}\n" for host in drawn]
        world.files[path] = "".join(lines)
        seen += drawn if parent_of(path) == base else []
    return seen


# --------------------------------------------------------------------------- with a change


def edit_key(world: World) -> Goal:
    """One value of a configuration to be set; other keys and files look alike."""
    base, folders = world.area()
    services = _configs(world, folders)
    service, key = world.pick(sorted(services)), world.pick(KEYS)
    path = services[service]
    value = str(world.number(1000, 9999))
    ask = (
        f"Under {base}, one .conf file has the line 'service = {service}'. In that file set "
        f"{key} to {value} and leave all other lines as they are."
    )
    return Goal(
        ask,
        (f"grep -rl 'service = {service}' {base}", f"cat {path}"),
        (f"sed -i 's/^{key} = .*/{key} = {value}/' {path}",),
        ((path, _with_value(world.files[path], key, value)),),
    )


def _configs(world: World, folders: list[str]) -> dict[str, str]:
    """Add configurations, and return the path of each by its service."""
    paths = world.fill(folders, ".conf")
    services = dict(zip(world.names(len(paths)), paths, strict=True))
    for service, path in services.items():
        lines = [f"service = {service}"]
        for key in world.some(KEYS, len(KEYS)):
            lines.append(f"{key} = {world.number(1, 99)}")
            lines.append(f"max_{key} = {world.number(100, 999)}")
        world.files[path] = "".join(f"{line}\n" for line in lines)
    return services


def _with_value(text: str, key: str, value: str) -> str:
    lines = (
        f"{key} = {value}" if line.startswith(f"{key} = ") else line for line in text.splitlines()
    )
    return "".join(f"{line}\n" for line in lines)


def fix_config(world: World) -> Goal:
    """A value that a log complains about; older complaints in it are settled."""
    base, folders = world.area()
    services = _configs(world, folders)
    service, (key, *older) = world.pick(sorted(services)), world.some(KEYS, 3)
    path, value = services[service], str(world.number(100, 999))
    world.files[path] = _with_value(world.files[path], key, f"{value[:-1]}O")
    log = f"{base}/{service}.log"
    lines = [f"INFO {service} starting"]
    for other in older:
        lines.append(f"ERROR {path}: {other} has a bad value, must be {world.number(100, 999)}")
        lines.append(f"INFO {path}: {other} was corrected by hand and is now accepted")
    lines.append(f"ERROR {path}: {key} is '{value[:-1]}O', must be {value}")
    lines.append(f"INFO {service} stopped")
    world.files[log] = "".join(f"{line}\n" for line in lines)
    ask = (
        f"The service {service} does not start; its log is {log}. In its configuration correct "
        "the one value that the last error complains of, and nothing else."
    )
    return Goal(
        ask,
        (f"grep ERROR {log} | tail -n 1", f"grep -n '^{key} = ' {path}"),
        (f"sed -i 's/^{key} = .*/{key} = {value}/' {path}",),
        ((path, _with_value(world.files[path], key, value)),),
    )


def rename(world: World) -> Goal:
    """All files of one ending to get another one; some names only look alike."""
    base, folders = world.area()
    old, new = world.some((".txt", ".tmp", ".dat", ".md", ".out"), 2)
    paths = world.fill(folders[-2:], old)
    world.fill(folders[:2], f"{old}.bak")
    world.fill(folders[:1], f"-{old[1:]}")
    pairs = [(path, path.removesuffix(old) + new) for path in paths]
    ask = (
        f"Rename every file under {base} whose name ends in {old} so that it ends in {new} "
        f"instead: its name without {old}, then {new}. It stays in its folder."
    )
    return _moved(world, ask, f"find {base} -name '*{old}'", pairs, ())


def move(world: World) -> Goal:
    """All files of one ending to go into one folder that does not exist yet."""
    base, folders = world.area()
    ending = world.pick((".tmp", ".csv", ".pic", ".dat"))
    paths = world.fill(folders[-2:], ending)
    world.fill(folders[:2], ".txt")
    target = f"{base}/{world.pick(('gathered', 'sorted', 'ready'))}"
    pairs = [(path, f"{target}/{name_of(path)}") for path in paths]
    ask = (
        f"Move every file under {base} whose name ends in {ending} into the new folder {target}; "
        "names stay as they are."
    )
    return _moved(world, ask, f"find {base} -name '*{ending}'", pairs, (f"mkdir -p {target}",))


def _moved(
    world: World, ask: str, look: str, pairs: list[tuple[str, str]], first: tuple[str, ...]
) -> Goal:
    does = " ; ".join([*first, *(f"mv {old} {new}" for old, new in pairs)])
    wanted = [(new, world.files[old]) for old, new in pairs]
    return Goal(ask, (look,), (does,), (*wanted, *((old, None) for old, _ in pairs)))


def clean_up(world: World) -> Goal:
    """Files to be removed for good, except some that can only be told by what is in them."""
    base, folders = world.area()
    ending = world.pick((".bak", ".old", ".tmp"))
    paths = world.fill(folders, ending)
    world.fill(folders[:1], f"{ending}.txt")
    kept = world.some(paths, max(1, len(paths) // 3))
    for path in paths:
        world.files[path] += "keep this file\n" if path in kept else "nobody keeps this\n"
    gone = [path for path in paths if path not in kept]
    ask = (
        f"Remove every file under {base} whose name ends in {ending}, except those that contain "
        "the line 'keep this file'. What is removed cannot be brought back."
    )
    looks = (f"find {base} -name '*{ending}'", f"grep -rl '^keep this file$' {base}")
    return Goal(ask, looks, (f"rm -f {' '.join(gone)}",), tuple((path, None) for path in gone))


def report(world: World) -> Goal:
    """A sorted list of names to be written to a file."""
    base, _ = world.area()
    hosts = sorted(set(_visits(world, base)))
    path = f"{base}/{world.pick(('hosts', 'names', 'seen'))}.out"
    ask = (
        f"Each line of the .log files directly in {base} begins with a host's name. Write the "
        f"names to {path}, sorted, each once, one a line."
    )
    do = f"cat {base}/*.log | cut -d ' ' -f 1 | sort -u > {path}"
    look = f"head -n 2 {base}/*.log"
    return Goal(ask, (look,), (do,), ((path, "".join(f"{host}\n" for host in hosts)),))


def restore(world: World) -> Goal:
    """A file to be brought back from a history, while another has work that is not committed."""
    base, _ = world.area()
    name, other, *more = (f"{stem}.txt" for stem in world.names(4))
    texts = {one: world.text() for one in (name, other, *more)}
    repo, good = Repo(), ("", "", "")
    titles = world.some(("draft", "review", "release", "cleanup", "update", "import"), 5)
    for number, title in enumerate(titles):
        message = f"{title} {world.number(1, 9)}"
        if number == len(titles) - 1 and world.rng.random() < 0.5:
            del texts[name]
        else:
            texts[name] = world.text()
        texts[world.pick(more)] = world.text()
        repo = committed(repo, message, texts)
        if number == len(titles) - 3 + world.number(0, 1) or not good[0]:
            good = (repo.commits[-1].id[:7], message, texts[name])
    texts[other] += "not committed yet\n"
    world.files |= {f"{base}/{one}": text for one, text in texts.items()}
    world.repos[base] = repo
    ask = (
        f"{base} is a git repository. Bring its file {name} back as it was in the commit "
        f"'{good[1]}'; leave its other files as they are."
    )
    return Goal(
        ask,
        (f"cd {base} && git log --oneline",),
        (f"cd {base} && git checkout {good[0]} -- {name}",),
        ((f"{base}/{name}", good[2]),),
    )


Draw = Callable[[World], Goal]
QUESTIONS: Mapping[str, Draw] = {
    "find_text": find_text,
    "count_lines": count_lines,
    "busiest": busiest,
}
"""Goals with an answer to be submitted."""
CHANGES: Mapping[str, Draw] = {
    "edit_key": edit_key,
    "fix_config": fix_config,
    "rename": rename,
    "move": move,
    "clean_up": clean_up,
    "report": report,
    "restore": restore,
}
"""Goals that change files."""
