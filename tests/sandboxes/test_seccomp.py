"""The filters hold in a real process: what code needs works, what it must not do is refused."""

from __future__ import annotations

import ctypes.util
import errno
import json
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyseccomp
import pytest

from treegrpo.sandboxes import syscalls
from treegrpo.sandboxes.errors import SandboxUnavailable
from treegrpo.sandboxes.seccomp import compile_filter, docker_profile

SECCOMP_NUMBER = {"x86_64": 317, "aarch64": 277}[platform.machine()]
# `install(listen)` puts this thread, and what it starts, under the filter in the file argv[1].
PRELUDE = f"""
import ctypes, errno, json, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *words)
    return -ctypes.get_errno() if result == -1 else result
def install(listen=False):
    with open(sys.argv[1], "rb") as file: program = file.read()
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    result = call({SECCOMP_NUMBER}, 1, 8 if listen else 0, header)
    assert result >= 0, os.strerror(-result)
    return result
"""


def run(code: str, *, gate: bool = False, cwd: Path, install: bool = True) -> Any:
    """Return what `code` prints as JSON in a process under the filter."""
    program = cwd / "filter"
    program.write_bytes(compile_filter(gate=gate))
    code = PRELUDE + ("install()\n" if install else "") + code
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(program)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def number(name: str) -> int:
    found: int = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
    return found


WORKS = {
    "numpy": "import numpy as np; a = np.eye(300) * 2; print(int((a @ a).sum()))",
    "subprocess": (
        "import subprocess; print(subprocess.run(['/bin/sh', '-c', 'echo $((600 * 2)) | cat'],"
        " capture_output=True, text=True, check=True).stdout)"
    ),
    "threads": (
        "import threading; got = []\n"
        "ts = [threading.Thread(target=got.append, args=(300,)) for _ in range(4)]\n"
        "[t.start() for t in ts]; [t.join() for t in ts]; print(sum(got))"
    ),
    "multiprocessing": (
        "import multiprocessing as mp\n"
        "with mp.get_context('fork').Pool(2) as pool: print(sum(pool.map(abs, [-1100, 100])))"
    ),
    "executor": (
        "import concurrent.futures as cf, multiprocessing as mp\n"
        "with cf.ProcessPoolExecutor(2, mp.get_context('fork')) as pool:\n"
        "    print(pool.submit(sum, [1000, 200]).result())"
    ),
    "asyncio": (
        "import asyncio, sys\n"
        "async def main():\n"
        "    await asyncio.sleep(0.01)\n"
        "    p = await asyncio.create_subprocess_exec(sys.executable, '-I', '-c', 'print(1200)',"
        " stdout=-1)\n"
        "    return (await p.communicate())[0].decode()\n"
        "print(asyncio.run(main()))"
    ),
    "sqlite": (
        "import sqlite3; db = sqlite3.connect('a.db'); db.execute('pragma journal_mode=wal')\n"
        "db.execute('create table t(x)'); db.execute('insert into t values (1200)'); db.commit()\n"
        "print(db.execute('select x from t').fetchone()[0])"
    ),
    "files": (
        "import mmap, os, pathlib, shutil, tempfile\n"
        "with tempfile.TemporaryDirectory(dir='.') as d:\n"
        "    p = pathlib.Path(d, 'a'); p.write_bytes(b'x' * 1200); p.chmod(0o600)\n"
        "    shutil.copy2(p, p.with_name('b')); shutil.copytree(d, 'copy'); os.mkfifo('pipe')\n"
        "    with open('copy/b', 'r+b') as f, mmap.mmap(f.fileno(), 0) as m: n = len(m)\n"
        "print(n)"
    ),
    "locks": (
        "import fcntl\n"
        "with open('lock', 'w') as f: fcntl.flock(f, 2); fcntl.lockf(f, 2)\n"
        "print(1200)"
    ),
    "time and signals": (
        "import signal, time, resource\n"
        "got = []; signal.signal(signal.SIGALRM, lambda *a: got.append(1200))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.01); time.sleep(0.1); time.process_time()\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); print(got[0])"
    ),
    "descriptors": (
        "import select, signal, socket\n"
        "a, b = socket.socketpair(); socket.send_fds(a, [b'12'], [0])\n"
        "x, fds, _, _ = socket.recv_fds(b, 10, 1); e = os.eventfd(0)\n"
        "p = select.epoll(); p.register(b); a.setblocking(False)\n"
        "print(x.decode() + '00' if len(fds) == 1 else fds)"
    ),
    "own signals": "os.kill(os.getpid(), 0); import signal\nprint(signal.raise_signal(28) or 1200)",
}


@pytest.mark.parametrize("what", WORKS)
def test_what_code_needs_works(what: str, tmp_path: Path) -> None:
    assert run(WORKS[what], cwd=tmp_path) == 1200


# All arguments are -1: a call that gets through fails of itself, with another errno than EPERM.
_REFUSED = """
    socket connect bind listen accept accept4
    ptrace process_vm_readv process_vm_writev process_madvise process_mrelease kcmp
    mount umount2 pivot_root fsopen fsconfig fsmount fspick open_tree move_mount mount_setattr
    setns unshare chroot bpf keyctl add_key request_key perf_event_open userfaultfd
    io_uring_setup io_uring_enter io_uring_register io_setup kexec_load kexec_file_load
    init_module finit_module delete_module reboot clock_settime settimeofday clock_adjtime adjtimex
    sethostname setdomainname semget semop semctl mq_open mq_unlink shmctl msgctl
    pidfd_open pidfd_getfd pidfd_send_signal rt_sigqueueinfo rt_tgsigqueueinfo
    name_to_handle_at open_by_handle_at quotactl acct swapon swapoff syslog
    setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups
    capset seccomp fanotify_init memfd_secret landlock_create_ruleset migrate_pages
    iopl ioperm modify_ldt personality prlimit64 setpriority sched_setaffinity
"""
REFUSED = _REFUSED.split()


@pytest.mark.parametrize("gate", [False, True])
def test_what_code_must_not_do_is_refused(gate: bool, tmp_path: Path) -> None:
    gated = syscalls.GATED if gate else ()
    numbers = {n: number(n) for n in REFUSED if n not in gated and number(n) >= 0}
    code = (
        f"numbers = {numbers!r}\n"
        "print(json.dumps({n: call(x, *[-1] * 6) for n, x in numbers.items()}))"
    )
    got = run(code, gate=gate, cwd=tmp_path)
    assert {name: errno.errorcode[-value] for name, value in got.items()} == dict.fromkeys(
        numbers, "EPERM"
    )
    assert len(got) > 80


def test_sockets_and_signals_give_permission_error(tmp_path: Path) -> None:
    code = """
import socket
failed = []
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK,
               socket.AF_PACKET, socket.AF_VSOCK):
    try:
        socket.socket(family, socket.SOCK_DGRAM)
    except PermissionError:
        failed.append(family)
try:
    socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
except PermissionError:
    failed.append("dgram")
print(len(failed))
"""
    assert run(code, cwd=tmp_path) == 7


# name -> (call, arguments in Python, errno or 0)
ARGUMENTS = {
    "new user namespace": ("clone", "0x10000000 | 17, 0, 0, 0, 0", errno.EPERM),
    "new mount namespace": ("clone", "0x00020000 | 17, 0, 0, 0, 0", errno.EPERM),
    "new net namespace": ("clone", "0x40000000 | 17, 0, 0, 0, 0", errno.EPERM),
    "new cgroup namespace": ("clone", "0x02000000 | 17, 0, 0, 0, 0", errno.EPERM),
    "a sibling that shares our files": ("clone", "0x8400 | 17, 0, 0, 0, 0", errno.EPERM),
    "a plain sibling": ("clone", "0x8000 | 17, 0, 0, 0, 0", 0),
    "a child with a pidfd": ("clone", "0x1000 | 17, 0, slot, 0, 0", errno.EPERM),
    "a plain child": ("clone", "17, 0, 0, 0, 0", 0),
    "clone3": ("clone3", "slot, 64", errno.ENOSYS),
    "a POSIX timer": ("timer_create", "0, 0, slot", errno.ENOSYS),
    "a terminal's input": ("ioctl", "0, 0x5412, slot", errno.EPERM),
    "a terminal's input, with a high bit": ("ioctl", "0, 0x5412 | 1 << 32, slot", errno.EPERM),
    "a console": ("ioctl", "0, 0x541C, slot", errno.EPERM),
    "the owner of a descriptor by ioctl": ("ioctl", "pair, 0x8901, slot", errno.EPERM),
    "bytes to read": ("ioctl", "pair, 0x541B, slot", 0),
    "whom a descriptor signals": ("fcntl", "pair, 8, os.getpid()", errno.EPERM),
    "whom a descriptor signals, extended": ("fcntl", "pair, 15, slot", errno.EPERM),
    "with what a descriptor signals": ("fcntl", "pair, 10, 9", errno.EPERM),
    "flags of a descriptor": ("fcntl", "pair, 3, 0", 0),
    "a filter of one's own": ("prctl", "22, 2, slot", errno.EPERM),
    "not to die with the parent": ("prctl", "1, 0, 0, 0, 0", errno.EPERM),
    "to die with the parent": ("prctl", "1, 9, 0, 0, 0", 0),
    "to be looked into": ("prctl", "4, 1, 0, 0, 0", errno.EPERM),
    "to be out of the supervisor's sight": ("prctl", "4, 0, 0, 0, 0", errno.EPERM),
    "to be traced by anyone": ("prctl", "0x59616D61, -1, 0, 0, 0", errno.EPERM),
    "not to reap orphans": ("prctl", "36, 0, 0, 0, 0", errno.EPERM),
    "to reap orphans": ("prctl", "36, 1, 0, 0, 0", 0),
    "another personality": ("personality", "0x0040000", errno.EPERM),
    "the personality": ("personality", "0xFFFFFFFF", 0),
    "limits of another": ("prlimit64", "os.getppid(), 7, 0, slot", errno.EPERM),
    "one's own limits": ("prlimit64", "0, 7, 0, slot", 0),
    "one's own lower limit": ("prlimit64", "0, 7, limit, 0", 0),
    "the limit on processes": ("prlimit64", "0, 6, limit, 0", errno.EPERM),
    "the limit on processes, read": ("prlimit64", "0, 6, 0, slot", 0),
    "the limit on processes, the old way": ("setrlimit", "6, limit", errno.EPERM),
    "the priority of another": ("setpriority", "0, os.getppid(), 0", errno.EPERM),
    "one's own priority": ("setpriority", "0, 0, 19", 0),
    "the cores of another": ("sched_setaffinity", "os.getppid(), 8, slot", errno.EPERM),
    "a socket filter": ("setsockopt", "pair, 1, 26, slot, 16", errno.EPERM),
    "the credentials of who sends": ("setsockopt", "pair, 1, 16, one, 4", 0),
    "a device": ("mknodat", "-100, b'device', 0o020600, 0x103", errno.EPERM),
    "a device, the old way": ("mknod", "b'device', 0o020600, 0x103", errno.EPERM),
    "a block device": ("mknodat", "-100, b'block', 0o060600, 0x103", errno.EPERM),
    "a pipe with a name": ("mknodat", "-100, b'named', 0o010600, 0", 0),
    "an attribute": ("setxattr", "b'.', b'user.a', b'1', 1, 0", errno.EOPNOTSUPP),
    "the same by file": ("fsetxattr", "pair, b'user.a', b'1', 1, 0", errno.EOPNOTSUPP),
}


def test_arguments_decide(tmp_path: Path) -> None:
    here = {what: one for what, one in ARGUMENTS.items() if number(one[0]) >= 0}
    calls = {what: f"({number(name)}, {words})" for what, (name, words, _) in here.items()}
    code = (
        "import socket\n"
        "left, right = socket.socketpair(); pair = left.fileno(); got = {}\n"
        "slot = ctypes.create_string_buffer(256); one = struct.pack('i', 1)\n"
        "limit = struct.pack('QQ', 100, 100)\n"
        f"for what, text in {calls!r}.items():\n"
        "    result = call(*eval(text))\n"
        "    if result == 0 and os.getpid() != me: os._exit(0)\n"
        "    got[what] = min(result, 0)\n"
        "print(json.dumps(got))"
    )
    got = run("me = os.getpid()\n" + code, cwd=tmp_path)
    assert got == {what: -expected for what, (_, _, expected) in here.items()}


def test_calls_newer_than_the_list_are_not_implemented(tmp_path: Path) -> None:
    code = "print(json.dumps([call(n, *[-1] * 6) for n in (453, 462, 500, 511)]))"
    assert run(code, cwd=tmp_path) == [-errno.ENOSYS] * 4


@pytest.mark.skipif(platform.machine() != "x86_64", reason="x32 is an interface of x86-64")
def test_calls_of_another_architecture_are_not_implemented(tmp_path: Path) -> None:
    x32_getpid = 0x4000_0000 + number("getpid")
    code = f"print(json.dumps([call({x32_getpid}), call({number('getpid')}) == os.getpid()]))"
    assert run(code, cwd=tmp_path) == [-errno.ENOSYS, True]


def test_the_gate_sends_signals_and_chroot_to_the_supervisor(tmp_path: Path) -> None:
    code = """
import fcntl, socket, threading
ours, theirs = socket.socketpair()
supervisor = os.getpid()
if os.fork() == 0:
    listener = install(listen=True)
    socket.send_fds(theirs, [b"listener"], [listener])
    os.close(listener)
    got = []
    for attempt in (
        lambda: os.kill(os.getpid(), 0),
        lambda: os.kill(supervisor, 0),
        lambda: call(TGKILL, os.getpid(), threading.get_native_id(), 0),
        lambda: call(TKILL, threading.get_native_id(), 0),
        lambda: os.chroot("."),
    ):
        try:
            got.append(attempt())
        except OSError as error:
            got.append(errno.errorcode[error.errno])
    theirs.sendall(json.dumps(got).encode())
    os._exit(0)
theirs.close()
_, (listener,), _, _ = socket.recv_fds(ours, 100, 1)
told = []
for answer in (0, -errno.EPERM, 0, 0, -errno.ESRCH):
    notice = bytearray(80)
    fcntl.ioctl(listener, 0xC0502100, notice)
    key, pid, flags, number, arch, ip, *arguments = struct.unpack("QIIiIQ6Q", notice)
    told.append(number)
    fcntl.ioctl(listener, 0xC0182101, struct.pack("QqiI", key, 0, answer, 0 if answer else 1))
print(json.dumps([told, json.loads(ours.recv(1000))]))
os.wait()
"""
    for name in ("tgkill", "tkill"):
        code = code.replace(name.upper(), str(number(name)))
    told, got = run(code, gate=True, cwd=tmp_path, install=False)
    assert told == [number(n) for n in ("kill", "kill", "tgkill", "tkill", "chroot")]
    assert got == [None, "EPERM", 0, 0, "ESRCH"]


def test_the_program_is_whole_instructions_and_the_kernel_takes_so_many() -> None:
    plain, gated = compile_filter(gate=False), compile_filter(gate=True)
    assert plain != gated
    assert plain == compile_filter(gate=False)
    for program in (plain, gated):
        assert len(program) % 8 == 0
        assert 200 < len(program) // 8 <= 4096


def test_without_libseccomp_the_message_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ctypes.util.find_library
    monkeypatch.delitem(sys.modules, "pyseccomp", raising=False)
    monkeypatch.setattr(
        ctypes.util, "find_library", lambda name: None if name == "seccomp" else real(name)
    )
    with pytest.raises(SandboxUnavailable, match=r"apt install libseccomp2.*'docker'"):
        compile_filter(gate=False)


def test_the_lists_do_not_contradict_each_other() -> None:
    conditional = {name for rule in syscalls.CONDITIONAL for name in rule.names}
    groups = [
        syscalls.ALLOWED,
        tuple(conditional),
        syscalls.GATED,
        syscalls.NOT_IMPLEMENTED,
        syscalls.NOT_SUPPORTED,
    ]
    names = [name for group in groups for name in group]
    assert sorted(names) == sorted(set(names))
    assert not {*syscalls.ALLOWED} & {*REFUSED}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="aarch64 has fewer of these calls")
def test_every_name_is_a_call_that_libseccomp_knows_or_that_has_a_number() -> None:
    names = {*syscalls.ALLOWED, *syscalls.GATED, *syscalls.NOT_IMPLEMENTED, *syscalls.SUPERVISOR}
    names |= {*syscalls.NOT_SUPPORTED, *(n for r in syscalls.CONDITIONAL for n in r.names)}
    assert [n for n in sorted(names) if number(n) < 0 and n not in syscalls.NUMBERS] == []
    assert {n: number(n) for n in syscalls.NUMBERS if number(n) >= 0}.items() <= (
        syscalls.NUMBERS.items()
    )


def _allowed(profile: dict[str, Any]) -> set[str]:
    return {
        name
        for entry in profile["syscalls"]
        if entry["action"] == "SCMP_ACT_ALLOW"
        for name in entry["names"]
    }


def test_dockers_profile_allows_the_supervisor_and_nothing_else_of_it() -> None:
    profile = docker_profile()
    allowed = _allowed(profile)
    conditional = {name for rule in syscalls.CONDITIONAL for name in rule.names}
    assert allowed == {*syscalls.ALLOWED, *conditional, *syscalls.SUPERVISOR}
    assert not allowed & {
        *("socket", "ptrace", "setns", "bpf", "keyctl", "setuid", "sethostname", "io_uring_setup"),
        *("process_vm_readv", "perf_event_open", "userfaultfd", "reboot", "init_module", "clone3"),
    }
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert json.loads(json.dumps(profile)) == profile


def test_dockers_profile_keeps_the_conditions_on_what_the_supervisor_does_not_widen() -> None:
    entries = docker_profile()["syscalls"]
    pairs = [entry for entry in entries if entry["names"] == ["socketpair"]]
    assert [entry["args"] for entry in pairs] == [
        [
            {"index": 0, "value": 1, "valueTwo": 0, "op": "SCMP_CMP_EQ"},
            {"index": 1, "value": 15, "valueTwo": kind, "op": "SCMP_CMP_MASKED_EQ"},
        ]
        for kind in (1, 5)
    ]
    plain = {name for entry in entries if "args" not in entry for name in entry["names"]}
    bound = {name for entry in entries if "args" in entry for name in entry["names"]}
    assert not plain & bound
    assert {"unshare", "clone", "mount", "chroot", "ioctl"} <= plain
    assert "personality" in bound


def test_the_page_of_calls_is_ascii_words() -> None:
    assert all(re.fullmatch(r"[a-z0-9_]+", name) for name in syscalls.ALLOWED)
