"""Cgroups bound memory and processes, go when they are empty, and are swept by name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from treegrpo.sandboxes.base import Feature
from treegrpo.sandboxes.process import cgroups
from treegrpo.sandboxes.process.cgroups import Cgroup, CgroupHome, find, own_name, sweep

FOUND = find()
HOME = FOUND if isinstance(FOUND, CgroupHome) else CgroupHome(Path(), Path(), 0)
needs_cgroups = pytest.mark.skipif(
    isinstance(FOUND, Feature), reason=f"no cgroups here: {getattr(FOUND, 'reason', '')}"
)
GO = "import os, sys; sys.stdin.readline()\n"  # first it is put into the cgroup


WRITABLE = all(os.access(f"/sys/fs/cgroup/{name}", os.W_OK) for name in cgroups.CONTROLLERS)


@pytest.mark.skipif(not WRITABLE, reason="the hierarchies of version 1 are not writable")
def test_writable_hierarchies_are_found() -> None:
    assert isinstance(FOUND, CgroupHome), FOUND


@contextmanager
def cgroup(number: int, memory_mb: int = 64, processes: int = 8) -> Iterator[Cgroup]:
    made = HOME.create(own_name(number), memory_mb, processes)
    try:
        yield made
    finally:
        assert made.close()


@contextmanager
def started(code: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-I", "-c", GO + code]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def folders(made: Cgroup) -> set[Path]:
    return {made.memory, made.pids}


@needs_cgroups
def test_memory_is_bounded_and_the_kill_is_counted() -> None:
    code = "data = bytearray(200 << 20); print('had it all')"
    with cgroup(1) as made, started(code) as process:
        made.add(process.pid)
        out, _ = process.communicate("go\n", timeout=60)
        assert (process.returncode, out) == (-signal.SIGKILL, "")
        assert made.oom_kills() >= 1
        limit = "memory.max" if made.version == 2 else "memory.limit_in_bytes"
        assert int((made.memory / limit).read_text()) == 64 << 20


@needs_cgroups
def test_memory_within_the_bound_is_seen_and_not_killed() -> None:
    code = "data = bytearray(20 << 20); print('ready', flush=True); sys.stdin.readline()"
    with cgroup(2) as made, started(code) as process:
        assert process.stdin and process.stdout
        made.add(process.pid)
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ready\n"
        assert 20 << 20 <= made.memory_bytes() <= 64 << 20
        process.communicate("end\n", timeout=60)
        assert (process.returncode, made.oom_kills()) == (0, 0)


@needs_cgroups
def test_processes_are_bounded() -> None:
    code = """
started = 0
try:
    for _ in range(20):
        if os.fork() == 0:
            sys.stdin.readline()
            os._exit(0)
        started += 1
except BlockingIOError:
    pass
print(started, flush=True)
"""
    with cgroup(3, processes=5) as made, started(code) as process:
        made.add(process.pid)
        out, _ = process.communicate("go\n", timeout=60)
        assert out == "4\n"


@needs_cgroups
def test_close_kills_nothing_and_says_whether_it_is_gone() -> None:
    with cgroup(4) as made, started("") as process:
        made.add(process.pid)
        assert not made.close()
        assert process.poll() is None
        process.communicate("go\n", timeout=60)
        assert process.returncode == 0
        assert made.close()
        assert not any(folder.exists() for folder in folders(made))
        assert made.close()


@needs_cgroups
def test_a_name_that_is_taken_stays_as_it_is() -> None:
    with cgroup(5) as made:
        with pytest.raises(FileExistsError):
            HOME.create(own_name(5), 64, 8)
        assert all(folder.is_dir() for folder in folders(made))


@needs_cgroups
def test_a_limit_that_is_refused_leaves_nothing() -> None:
    with pytest.raises(OSError, match=r"pids\.max"):
        HOME.create(own_name(6), 64, -5)
    assert not (HOME.memory / own_name(6)).exists()
    assert not (HOME.pids / own_name(6)).exists()


@needs_cgroups
def test_finding_leaves_nothing() -> None:
    before = set(os.listdir(HOME.memory)) | set(os.listdir(HOME.pids))
    assert find() == HOME
    after = set(os.listdir(HOME.memory)) | set(os.listdir(HOME.pids))
    # other tests may make cgroups beside us; those that only try are named so
    assert not [name for name in after - before if f"-{os.getpid()}-" in name]


@needs_cgroups
def test_sweeping_removes_what_dead_owners_left_and_nothing_else() -> None:
    with started("") as process:
        stat = Path(f"/proc/{process.pid}/stat").read_text()
        start = stat.rpartition(")")[2].split()[19]
        process.communicate("go\n", timeout=60)
    names = {
        "dead": f"treegrpo-{process.pid}-{start}-1",
        "reused": f"treegrpo-{os.getpid()}-1-1",  # our pid, another start time
        "foreign": f"treegrpo-of-{own_name(7)}",
        "ours": own_name(7),
    }
    made = {what: HOME.create(name, 64, 8) for what, name in names.items()}
    try:
        assert sweep(HOME) >= 2
        left = {what for what, one in made.items() if any(f.exists() for f in folders(one))}
        assert left == {"foreign", "ours"}
        assert all(folder.is_dir() for what in left for folder in folders(made[what]))
    finally:
        assert all([one.close() for one in made.values()])


@needs_cgroups
def test_sweeping_leaves_a_dead_owners_cgroup_in_which_a_process_lives() -> None:
    name = f"treegrpo-4194305-{os.getpid()}-1"  # of a pid that there cannot be
    made = HOME.create(name, 64, 8)
    try:
        with started("") as process:
            made.add(process.pid)
            sweep(HOME)
            assert all(folder.is_dir() for folder in folders(made))
            process.communicate("go\n", timeout=60)
    finally:
        assert made.close()


def fake_host(tmp_path: Path, mounts: str, own: str) -> Path:
    """Return a /proc in which this process has these mounts and is in these cgroups."""
    proc = tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self/mountinfo").write_text(mounts.replace("TOP", str(tmp_path)))
    (proc / "self/cgroup").write_text(own)
    return proc


def test_a_host_without_controllers_names_the_reason_and_the_remedy(tmp_path: Path) -> None:
    mounts = "1 0 0:1 / /sys rw - sysfs sysfs rw\n2 1 0:2 / TOP/v2 rw - cgroup2 none rw\n"
    (tmp_path / "v2/app").mkdir(parents=True)
    (tmp_path / "v2/app/cgroup.subtree_control").write_text("cpu memory\n")
    found = find(fake_host(tmp_path, mounts, "0::/app\n"))
    assert isinstance(found, Feature)
    assert (found.name, found.present) == ("cgroups", False)
    assert "memory and pids" in found.reason
    assert "Delegate=yes" in found.remedy


def test_a_place_that_cannot_hold_a_cgroup_is_said(tmp_path: Path) -> None:
    mounts = "2 1 0:2 / TOP/v2 rw - cgroup2 none rw\n"
    (tmp_path / "v2/app").mkdir(parents=True)
    (tmp_path / "v2/app/cgroup.procs").touch()
    (tmp_path / "v2/app/cgroup.subtree_control").write_text("cpu memory pids\n")
    found = find(fake_host(tmp_path, mounts, "0::/app\n"))
    assert isinstance(found, Feature)
    # an ordinary folder: the kernel puts no limits into what is made there
    assert "memory.max: No such file" in found.reason
    assert [p.name for p in (tmp_path / "v2/app").iterdir() if p.is_dir()] == []


def test_without_proc_the_reason_is_said(tmp_path: Path) -> None:
    found = find(tmp_path)
    assert isinstance(found, Feature)
    assert "mountinfo cannot be read" in found.reason


def test_the_nearest_cgroup_that_passes_the_controllers_on_comes_first(tmp_path: Path) -> None:
    for folder, passed in (("", "memory pids"), ("user", "cpu memory pids"), ("user/me", "")):
        (tmp_path / "v2" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "v2" / folder / "cgroup.subtree_control").write_text(passed)
    mounts = {"": (tmp_path / "v2", "/")}
    homes = list(cgroups._version_2(mounts, {"": "/user/me"}))
    assert homes == [
        CgroupHome(tmp_path / "v2/user", tmp_path / "v2/user", 2),
        CgroupHome(tmp_path / "v2", tmp_path / "v2", 2),
    ]


def test_version_1_takes_the_own_cgroup_of_each_controller(tmp_path: Path) -> None:
    (tmp_path / "m/app").mkdir(parents=True)
    (tmp_path / "p").mkdir()
    mounts = {"memory": (tmp_path / "m", "/"), "pids": (tmp_path / "p", "/")}
    homes = list(cgroups._version_1(mounts, {"memory": "/app", "pids": "/"}))
    assert homes[0] == CgroupHome(tmp_path / "m/app", tmp_path / "p", 1)


def test_mounts_of_a_container_start_at_its_own_cgroup() -> None:
    text = (
        "30 25 0:26 /docker/ab /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"
        "31 25 0:27 /docker/ab /sys/fs/cgroup\\040x ro - cgroup cgroup rw,pids,cpu\n"
    )
    mounts = cgroups._mounts(text)
    assert mounts == {
        "memory": (Path("/sys/fs/cgroup/memory"), "/docker/ab"),
        "pids": (Path("/sys/fs/cgroup x"), "/docker/ab"),
    }


def test_version_2_is_read_from_its_own_files(tmp_path: Path) -> None:
    (tmp_path / "memory.current").write_text("4096\n")
    (tmp_path / "memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    made = Cgroup(tmp_path, tmp_path, 2)
    assert (made.memory_bytes(), made.oom_kills()) == (4096, 2)
