"""A history in the manner of git: commits, branches, diffs, and ways back.

Ids are digests of content, message and parent, so the same work gives the same ids everywhere.
There are no remotes, merges or rebases.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from treegrpo.envs.digest import digest
from treegrpo.envs.suite.terminal.disk import (
    CommandError,
    Commit,
    Entry,
    File,
    Folder,
    Repo,
    Texts,
    joined,
    parent_of,
)
from treegrpo.envs.suite.terminal.machine import (
    Machine,
    Output,
    Program,
    need,
    options,
)
from treegrpo.envs.suite.terminal.pattern_commands import differences
from treegrpo.envs.suite.terminal.patterns import Spend

MAX_COMMITS, MAX_BRANCHES = 64, 32
_FATAL = 128


def fatal(text: str) -> CommandError:
    """Return the error of a git command."""
    return CommandError(f"fatal: {text}", _FATAL)


def committed(repo: Repo, message: str, files: Mapping[str, str]) -> Repo:
    """Return the repository with one more commit on what is checked out; the index is its files.

    Raises:
        CommandError: the history is full.
    """
    texts: Texts = tuple(sorted(files.items()))
    parent = head_id(repo)
    name = digest([parent, message, texts])[:40]
    commits = tuple(c for c in repo.commits if c.id != name)
    if len(commits) >= MAX_COMMITS:
        raise fatal(f"a history has at most {MAX_COMMITS} commits")
    branches = dict(repo.branches)
    on_branch = repo.head in branches or parent is None
    if on_branch:
        branches[repo.head] = name
    return replace(
        repo,
        commits=(*commits, Commit(name, parent, message, texts)),
        branches=tuple(sorted(branches.items())),
        head=repo.head if on_branch else name,
        index=texts,
    )


def head_id(repo: Repo) -> str | None:
    """Return the id of the commit that is checked out, None before the first."""
    branches = dict(repo.branches)
    return branches.get(repo.head, repo.head if commit_of(repo, repo.head) else None)


def commit_of(repo: Repo, name: str | None) -> Commit | None:
    """Return the commit of a full id."""
    return next((commit for commit in repo.commits if commit.id == name), None)


def history(repo: Repo, name: str | None) -> list[Commit]:
    """Return a commit and all before it, the newest first."""
    found: list[Commit] = []
    commit = commit_of(repo, name)
    while commit is not None and len(found) < MAX_COMMITS:
        found.append(commit)
        commit = commit_of(repo, commit.parent)
    return found


def revision(repo: Repo, text: str) -> Commit:
    """Return the commit that `HEAD`, a branch or the begin of an id (with `~N`, `^`) means.

    Raises:
        CommandError: none, or more than one.
    """
    found = re.fullmatch(r"([^~^:]{1,80}?)(?:~([0-9]{1,3})|(\^))?", text)
    if not found:
        raise fatal(f"bad revision '{text[:60]}'")
    base = found[1]
    name = head_id(repo) if base in ("HEAD", "@") else dict(repo.branches).get(base)
    if name is None and re.fullmatch("[0-9a-f]{4,40}", base):
        ids = [commit.id for commit in repo.commits if commit.id.startswith(base)]
        name = ids[0] if len(ids) == 1 else None
    line = history(repo, name)
    back = 1 if found[3] else int(found[2] or 0)
    if back >= len(line):
        raise fatal(f"bad revision '{text[:60]}'")
    return line[back]


class _Session:
    """One call of git inside a repository."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.root = machine.cwd
        while not isinstance(machine.disk.get(joined(self.root, ".git")), Repo):
            if self.root == "/":
                raise fatal("not a git repository (or any of the parent directories): .git")
            self.root = parent_of(self.root)

    @property
    def repo(self) -> Repo:
        entry = self.machine.disk.get(joined(self.root, ".git"))
        if not isinstance(entry, Repo):
            raise fatal("not a git repository")
        return entry

    def save(self, repo: Repo, changes: Mapping[str, Entry | None] | None = None) -> None:
        """Keep the repository and change the working tree with it."""
        path = joined(self.root, ".git")
        repo = replace(repo, mtime=self.machine.clock)
        self.machine.change({**(changes or {}), path: repo})
        for gone in [path for path, entry in (changes or {}).items() if entry is None]:
            folder = parent_of(gone)
            while folder != self.root and not self.machine.disk.children(folder):
                self.machine.change({folder: None})
                folder = parent_of(folder)

    def tree(self) -> dict[str, str]:
        """Return the texts of the working tree by their paths below the root."""
        files = self.machine.disk.files()
        prefix = f"{self.root.rstrip('/')}/"
        return {p[len(prefix) :]: text for p, text in files.items() if p.startswith(prefix)}

    def head_files(self) -> dict[str, str]:
        commit = commit_of(self.repo, head_id(self.repo))
        return dict(commit.files) if commit else {}

    def inner(self, text: str) -> str:
        """Return the path below the root that a text means; empty for the root itself."""
        path = self.machine.path(text)
        if path != self.root and not path.startswith(f"{self.root.rstrip('/')}/"):
            raise fatal(f"'{text[:60]}' is outside repository")
        return path[len(self.root.rstrip("/")) + 1 :]

    def laid_out(self, files: Mapping[str, str | None]) -> dict[str, Entry | None]:
        """Return the changes of the disk that set these files of the working tree."""
        changes: dict[str, Entry | None] = {}
        for name, text in files.items():
            path = joined(self.root, name)
            there = self.machine.disk.get(path)
            if text is None:
                changes[path] = None
                continue
            if there is not None and not isinstance(there, File):
                raise fatal(f"cannot write '{name}': a directory is there")
            changes[path] = File(
                text, there.mode if there is not None else 0o644, self.machine.clock
            )
            above = parent_of(path)
            while self.machine.disk.get(above) is None:
                changes[above] = Folder(mtime=self.machine.clock)
                above = parent_of(above)
        return changes


def _under(files: Mapping[str, str], inner: str) -> list[str]:
    """Return the files that a path names: itself, or those below it."""
    return [n for n in files if n == inner or not inner or n.startswith(f"{inner}/")]


def _init(machine: Machine, args: list[str]) -> str:
    need(args, 0, 0)
    if isinstance(machine.disk.get(joined(machine.cwd, ".git")), Repo):
        return f"Reinitialized existing Git repository in {joined(machine.cwd, '.git')}/\n"
    machine.change({joined(machine.cwd, ".git"): Repo(mtime=machine.clock)})
    return f"Initialized empty Git repository in {joined(machine.cwd, '.git')}/\n"


def _status(machine: Machine, args: list[str]) -> str:
    options(args, "s")
    session = _Session(machine)
    head, index, tree = session.head_files(), dict(session.repo.index), session.tree()
    lines = [f"On {_where(session.repo)}\n"]
    for name in sorted({*head, *index, *tree}):
        if name not in head and name not in index:
            lines.append(f"?? {name}\n")
            continue
        staged, changed = _mark(head, index, name), _mark(index, tree, name)
        if staged + changed != "  ":
            lines.append(f"{staged}{changed} {name}\n")
    return (
        "".join(lines) if len(lines) > 1 else f"{lines[0]}nothing to commit, working tree clean\n"
    )


def _mark(old: Mapping[str, str], new: Mapping[str, str], name: str) -> str:
    if old.get(name) == new.get(name):
        return " "
    return "A" if name not in old else "D" if name not in new else "M"


def _where(repo: Repo) -> str:
    commit = commit_of(repo, repo.head)
    return f"commit {commit.id[:7]}" if commit else f"branch {repo.head}"


def _add(machine: Machine, args: list[str]) -> str:
    given = options(args, "A")
    session = _Session(machine)
    tree, index = session.tree(), dict(session.repo.index)
    names = [""] if "A" in given else [session.inner(text) for text in need(given.operands, 1)]
    for inner in names:
        found = _under({**index, **tree}, inner)
        if not found and inner:
            raise fatal(f"pathspec '{inner}' did not match any files")
        for name in found:
            index.pop(name, None)
            if name in tree:
                index[name] = tree[name]
    session.save(replace(session.repo, index=tuple(sorted(index.items()))))
    return ""


def _commit(machine: Machine, args: list[str]) -> str:
    given = options(args, "a", "m")
    need(given.operands, 0, 0)
    session = _Session(machine)
    message = given.values.get("m", "").strip()
    if not message or len(message) > 200 or not message.isprintable():
        raise fatal("give a message of one line with -m, at most 200 characters")
    files = dict(session.repo.index)
    if "a" in given:
        tree = session.tree()
        files = {name: tree[name] for name in files if name in tree}
    if files == session.head_files():
        raise CommandError("nothing to commit, working tree clean or not added")
    session.save(committed(session.repo, message, files))
    return f"[{_where(session.repo)} {(head_id(session.repo) or '')[:7]}] {message}\n"


def _log(machine: Machine, args: list[str]) -> str:
    short = "--oneline" in args
    before, _, after = _split([arg for arg in args if arg != "--oneline"])
    before = [f"-n{arg[1:]}" if re.fullmatch("-[0-9]+", arg) else arg for arg in before]
    given = options(before, "", "n")
    session = _Session(machine)
    repo = session.repo
    start = revision(repo, given.operands[0]) if given.operands else None
    commits = history(repo, start.id if start else head_id(repo))
    if not commits:
        raise fatal(f"your current branch '{repo.head}' does not have any commits yet")
    for text in after:
        inner = session.inner(text)
        commits = [commit for commit in commits if _touches(repo, commit, inner)]
    lines = (
        f"{c.id[:7]} {c.message}\n" if short else f"commit {c.id}\n\n    {c.message}\n\n"
        for c in commits[: given.number("n", MAX_COMMITS)]
    )
    return "".join(lines)


def _touches(repo: Repo, commit: Commit, inner: str) -> bool:
    new, parent = dict(commit.files), commit_of(repo, commit.parent)
    old = dict(parent.files) if parent else {}
    return any(old.get(name) != new.get(name) for name in _under({**old, **new}, inner))


def _split(args: list[str]) -> tuple[list[str], bool, list[str]]:
    """Return the words before `--`, whether it is there, and those after it."""
    if "--" not in args:
        return args, False, []
    at = args.index("--")
    return args[:at], True, args[at + 1 :]


def _compared(
    old: Mapping[str, str], new: Mapping[str, str], names: list[str], spend: Spend
) -> str:
    out: list[str] = []
    for name in sorted(names):
        if old.get(name) != new.get(name):
            left = f"a/{name}" if name in old else "/dev/null"
            right = f"b/{name}" if name in new else "/dev/null"
            text = differences(old.get(name, ""), new.get(name, ""), left, right, spend)
            out.append(f"diff --git a/{name} b/{name}\n{text}")
    return "".join(out)


def _diff(machine: Machine, args: list[str]) -> str:
    is_staged = "--staged" in args or "--cached" in args
    before, _, after = _split([a for a in args if a not in ("--staged", "--cached")])
    session = _Session(machine)
    repo = session.repo
    revisions = [dict(revision(repo, text).files) for text in need(before, 0, 2)]
    index, tree = dict(repo.index), session.tree()
    if len(revisions) == 2:
        old, new = revisions
    elif is_staged:
        old, new = (revisions or [session.head_files()])[0], index
    else:
        old = (revisions or [index])[0]
        new = {name: text for name, text in tree.items() if name in index or name in old}
    names = {n for text in (after or ["."]) for n in _under({**old, **new}, session.inner(text))}
    if not after:
        names = {*old, *new}
    return _compared(old, new, list(names), machine.spend)


def _show(machine: Machine, args: list[str]) -> str:
    text = (need(args, 0, 1) or ["HEAD"])[0]
    session = _Session(machine)
    repo = session.repo
    name, colon, path = text.partition(":")
    commit = revision(repo, name)
    files = dict(commit.files)
    if colon:
        inner = path.removeprefix("./") if path not in files else path
        if inner not in files:
            raise fatal(f"path '{path[:80]}' does not exist in '{name}'")
        return files[inner]
    parent = commit_of(repo, commit.parent)
    old = dict(parent.files) if parent else {}
    return f"commit {commit.id}\n\n    {commit.message}\n\n" + _compared(
        old, files, [*{*old, *files}], machine.spend
    )


def _checkout(machine: Machine, args: list[str]) -> str:
    session = _Session(machine)
    before, is_split, after = _split(args)
    if is_split:
        return _checkout_files(session, need(before, 0, 1), need(after, 1))
    if args[:1] == ["-b"]:
        name = need(args[1:], 1, 1)[0]
        _make_branch(session, name)
        session.save(replace(session.repo, head=name))
        return f"Switched to a new branch '{name}'\n"
    target = need(args, 1)[0]
    repo = session.repo
    is_known = target in dict(repo.branches) or re.fullmatch("(HEAD|@|[0-9a-f]{4,40}).*", target)
    if not is_known or len(args) > 1:
        return _checkout_files(session, args[:1] if is_known else [], args[bool(is_known) :])
    commit = revision(repo, target)
    tree, index, head = session.tree(), dict(repo.index), session.head_files()
    dirty = [
        n for n in {*head, *index} if head.get(n) != index.get(n) or head.get(n) != tree.get(n)
    ]
    new = dict(commit.files)
    dirty += [name for name in new if name not in index and name in tree]
    if dirty:
        raise CommandError(
            "error: your local changes would be overwritten by checkout:\n"
            + "".join(f"\t{name}\n" for name in sorted(dirty)[:20])
            + "Commit them, or take them back with git checkout -- FILE."
        )
    gone = {name: None for name in index if name not in new}
    session.save(
        replace(
            repo,
            head=target if target in dict(repo.branches) else commit.id,
            index=commit.files,
        ),
        session.laid_out({**gone, **new}),
    )
    return f"Switched to {_where(session.repo)}\n"


def _checkout_files(session: _Session, revisions: list[str], paths: list[str]) -> str:
    repo = session.repo
    files = dict(revision(repo, revisions[0]).files if revisions else repo.index)
    chosen: dict[str, str] = {}
    for text in paths:
        found = _under(files, session.inner(text))
        if not found:
            raise CommandError(
                f"error: pathspec '{text[:80]}' did not match any file(s) known to git"
            )
        chosen |= {name: files[name] for name in found}
    index = tuple(sorted({**dict(repo.index), **chosen}.items()))
    session.save(replace(repo, index=index), session.laid_out(chosen))
    return f"Updated {len(chosen)} path{'s' * (len(chosen) != 1)}\n"


def _revert(machine: Machine, args: list[str]) -> str:
    session = _Session(machine)
    repo = session.repo
    commit = revision(repo, need([a for a in args if a != "--no-edit"], 1, 1)[0])
    parent = commit_of(repo, commit.parent)
    old, new = dict(parent.files) if parent else {}, dict(commit.files)
    tree, head = session.tree(), session.head_files()
    names = [name for name in {*old, *new} if old.get(name) != new.get(name)]
    blocked = [n for n in names if not new.get(n) == head.get(n) == tree.get(n)]
    if blocked:
        raise CommandError(
            f"error: could not revert {commit.id[:7]}: {sorted(blocked)[0]} was changed since"
        )
    changes = {name: old.get(name) for name in names}
    files = {n: t for n, t in {**head, **changes}.items() if t is not None}
    message = f'Revert "{commit.message}"'[:200]
    session.save(committed(repo, message, files), session.laid_out(changes))
    return f"[{_where(session.repo)} {(head_id(session.repo) or '')[:7]}] {message}\n"


def _branch(machine: Machine, args: list[str]) -> str:
    given = options(args, "", "dD")
    session = _Session(machine)
    repo = session.repo
    gone = given.values.get("d") or given.values.get("D")
    if gone:
        if gone == repo.head or gone not in dict(repo.branches):
            raise CommandError(f"error: branch '{gone[:60]}' is checked out or not found")
        left = tuple(pair for pair in repo.branches if pair[0] != gone)
        session.save(replace(repo, branches=left))
        return f"Deleted branch {gone}\n"
    if given.operands:
        _make_branch(session, need(given.operands, 1, 1)[0])
        return ""
    return "".join(f"{'*' if name == repo.head else ' '} {name}\n" for name, _ in repo.branches)


def _make_branch(session: _Session, name: str) -> None:
    repo, start = session.repo, head_id(session.repo)
    is_valid = re.fullmatch("[A-Za-z][A-Za-z0-9_./-]{0,59}", name)
    # A name that could be an id would make revisions ambiguous.
    if not is_valid or name == "HEAD" or re.fullmatch("[0-9a-f]{4,40}", name):
        raise fatal(f"'{name[:60]}' is not a valid branch name")
    if start is None or name in dict(repo.branches) or len(repo.branches) >= MAX_BRANCHES:
        raise fatal(f"a branch '{name}' cannot be made: it exists, or there is no commit yet")
    session.save(replace(repo, branches=tuple(sorted([*repo.branches, (name, start)]))))


_COMMANDS: Mapping[str, Callable[[Machine, list[str]], str]] = {
    "init": _init,
    "status": _status,
    "add": _add,
    "commit": _commit,
    "log": _log,
    "diff": _diff,
    "show": _show,
    "checkout": _checkout,
    "revert": _revert,
    "branch": _branch,
}


def _git(machine: Machine, args: list[str], stdin: str) -> Output:
    command = _COMMANDS.get(args[0]) if args else None
    if command is None:
        known = ", ".join(_COMMANDS)
        raise CommandError(
            f"'{args[0][:40] if args else ''}' is not a git command; there are {known}"
        )
    try:
        return Output(command(machine, args[1:]))
    except CommandError as error:
        return Output(err=f"{error.text}\n", code=error.code)


PROGRAMS: Mapping[str, Program] = {"git": _git}
"""These commands by their names."""
