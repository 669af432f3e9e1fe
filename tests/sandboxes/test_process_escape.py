"""A worker whose own code was replaced: no way into siblings' files, nor out at level L1."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandboxes.hostile import FIND_WORKER, answers, backend_at, fork_of, runs, within
from treegrpo.sandboxes import (
    Level,
    Sandbox,
    SandboxError,
    SandboxSpec,
)

# Looks for what siblings keep, by every number that a state's folder could have.
SEARCH = """
loot, errors = [], set()
def search(**at):
    for n in range(40):
        for flags in (os.O_RDONLY, os.O_WRONLY | os.O_TRUNC):
            try: f = os.open(f'../{n}/workspace/secret', flags, **at)
            except OSError as error: errors.add(error.errno)
            else:
                loot.append((n, flags, os.read(f, 99) if not flags else b'emptied'))
                os.close(f)
    if at: return
    for path in ('..', '../..', '../../layers', '../../proc'):
        try: loot.extend((path, name) for name in os.listdir(path))
        except OSError as error: errors.add(error.errno)
"""
# Each hook is called at another moment of the child's way into its own root.
HOOKS = {
    "before-fchdir": "real = code['_fchdir']\ndef evil(fd): search(dir_fd=fd); real(fd)\n"
    "code['_fchdir'] = evil",
    "after-fchdir": "real = code['_fchdir']\ndef evil(fd): real(fd); search()\n"
    "code['_fchdir'] = evil",
    "before-chroot": "real = code['_chroot']\ndef evil(p): search(); real(p)\n"
    "code['_chroot'] = evil",
    "after-chroot": "real = code['_chroot']\nkept = []\nfchdir = code['_fchdir']\n"
    "def keep(fd): kept.append(fd); fchdir(fd)\n"
    "def evil(p): real(p); search(dir_fd=kept[0])\n"
    "code['_fchdir'] = keep; code['_chroot'] = evil",
}


@pytest.fixture
def seed() -> Iterator[Sandbox]:
    with backend_at(Level.L2) as backend:
        yield backend.create()


@pytest.fixture
def sibling(seed: Sandbox) -> Sandbox:
    made = fork_of(seed)
    made.write("secret", b"of the sibling")
    return made


def _untouched(sibling: Sandbox) -> None:
    assert sibling.read("secret") == b"of the sibling"
    assert [entry.name for entry in sibling.list()] == ["secret"]
    assert runs(sibling, "open('secret').read()") == "'of the sibling'"


@pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)
def test_a_fork_on_its_way_in_reaches_no_sibling(
    seed: Sandbox, sibling: Sandbox, hook: str
) -> None:
    bad = fork_of(seed)
    runs(bad, FIND_WORKER + SEARCH + hook)
    made = fork_of(bad)
    _untouched(sibling)
    assert runs(made, "loot") == "[]"
    expected = "{2}" if hook is HOOKS["after-chroot"] else "{13}"  # no such name, or no entry
    assert runs(made, "errors") == expected
    runs(made, "search()")
    assert runs(made, "[found for found in loot if found[0] in range(40)]") == "[]"


@pytest.mark.parametrize("honest", [True, False], ids=["forks", "refuses"])
def test_a_parent_keeps_no_way_into_its_forks_root(
    seed: Sandbox, sibling: Sandbox, honest: bool
) -> None:
    bad = fork_of(seed)
    hook = """
real, kept = code['_receive'], []
def use(fd):
    search(dir_fd=fd)
    try: os.close(os.open('workspace/own', os.O_WRONLY | os.O_TRUNC, dir_fd=fd))
    except OSError: return
    loot.append(fd)
def evil(channel):
    data, descriptors = real(channel)
    if b'fork' in data[:40]:
        for fd in kept: use(fd)
        kept.extend(os.dup(d) for d in descriptors)
    return data, descriptors
code['_receive'] = evil
setsid = code['_setsid']
def clean():
    for fd in kept: os.close(fd)
    kept.clear(); setsid()
code['_setsid'] = clean
"""
    refuse = "def no(): raise OSError('no')\ncode['_fork_sibling'] = no"
    runs(bad, FIND_WORKER + SEARCH + hook + ("" if honest else refuse))
    made = answers(bad.fork)
    forks = made if isinstance(made, list) else []
    for fork in forks:
        if isinstance(fork, Sandbox):
            fork.write("own", b"of the fork")
    answers(bad.fork)  # which gives the parent a turn
    used = answers(lambda: bad.exec("for fd in kept: use(fd)\nloot"))
    if not isinstance(used, SandboxError):
        assert not used.alive or (used.ok and used.value == "[]"), used
    for fork in forks:
        if isinstance(fork, Sandbox):
            assert fork.read("own") == b"of the fork"
    _untouched(sibling)


def test_a_parent_that_goes_on_after_its_fork_changes_nothing_the_fork_sees(seed: Sandbox) -> None:
    bad = fork_of(seed)
    bad.write("f", b"old")
    hook = """
real = code['_send']
def evil(channel, data):
    real(channel, data)
    if os.getpid() == me and b'forked' in data:
        time.sleep(0.2)
        open('/workspace/f', 'w').write('CHANGED'); open('/workspace/g', 'w').write('NEW')
code['_send'] = evil
"""
    runs(bad, FIND_WORKER + hook)
    fork = fork_of(bad)
    assert runs(fork, "time.sleep(0.5); open('f').read(), os.listdir('.')") == "('old', ['f'])"
    assert fork.read("f") == b"old"
    assert [entry.name for entry in fork.list()] == ["f"]


@pytest.mark.parametrize("held", ["", "f = open('/workspace/f', 'r+')"], ids=["path", "open-file"])
def test_a_parent_that_is_forked_again_changes_nothing_the_first_fork_sees(
    seed: Sandbox, held: str
) -> None:
    bad = fork_of(seed)
    bad.write("f", b"old")
    hook = """
real, asked = code['_receive'], []
def spoil():
    if 'f' in globals(): f.seek(0); f.write('CHANGED'); f.flush()
    else: open('/workspace/f', 'w').write('CHANGED'); open('/workspace/g', 'w').close()
def evil(channel):
    data, descriptors = real(channel)
    if b'fork' in data[:40]:
        asked.append(1)
        if len(asked) > 1:
            try: spoil()
            except OSError: pass
    return data, descriptors
code['_receive'] = evil
"""
    runs(bad, FIND_WORKER + held + hook)
    first = fork_of(bad)
    answers(bad.fork)
    assert runs(first, "open('/workspace/f').read(), os.listdir('.')") == "('old', ['f'])"
    assert first.read("f") == b"old"


# ------------------------------------------------------------------------------------ level L1


@pytest.fixture
def lower() -> Iterator[Sandbox]:
    with backend_at(Level.L1, level=Level.L1) as backend:
        yield backend.create(SandboxSpec(min_level=Level.L1))


@pytest.mark.parametrize("what", ["folder", "link"])
def test_a_link_planted_beside_the_states_leads_no_fork_outside(
    lower: Sandbox, tmp_path: Path, what: str
) -> None:
    bad = fork_of(lower)
    target, plain = tmp_path / "target", tmp_path / "plain"
    target.mkdir()
    plain.mkdir()
    (plain / "secret").write_text("of the host")
    plant = f"""
import os
here = os.getcwd(); top, name = os.path.split(here)
open('planted', 'w').write('from inside')
base = int(name) if name.isdigit() else 0
for n in range(base + 1, base + 60):
    for path in (f'{{top}}/{{n}}', f'{{here}}/sub{{n}}', f'{{os.path.dirname(top)}}/{{n}}'):
        try: os.symlink({str(target)!r}, path)
        except OSError: pass
"""
    link = f"os.symlink({str(plain)!r}, 'way'); os.symlink({str(plain)!r} + '/secret', 'file')"
    runs(bad, plant if what == "folder" else "import os\n" + link)
    made = within(lambda: bad.fork(3))
    for one in made:
        if isinstance(one, Sandbox):
            one.exec("open('later', 'w').write('x')")
            for path in ("later", "way/secret", "file"):
                got = answers(lambda one=one, path=path: one.read(path))
                assert isinstance(got, SandboxError) or got == b"x", got
    assert list(target.iterdir()) == []
    assert [path.name for path in plain.iterdir()] == ["secret"]
    assert runs(fork_of(lower), "1 + 1") == "2"
