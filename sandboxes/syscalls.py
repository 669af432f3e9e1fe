"""Which system calls the code in a sandbox may make; everything else is EPERM.

Data only; `seccomp.py` turns it into filters. Left out on purpose: sockets (a socketpair is
enough for asyncio), System V IPC and POSIX queues, mounts and namespaces, anything that names
another process, keys, BPF, io_uring, clocks, identities. Where a call is allowed for some
arguments only, the arguments are listed, never the forbidden ones: the kernel reads 32 bits of
most of them and a filter compares 64, so "not TIOCSTI" is passed by TIOCSTI with a high bit.

The constants are those of x86-64 and aarch64, which agree in all that is used here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Condition:
    """An argument that equals `value`, in the bits of `mask` if there is one."""

    argument: int
    value: int
    mask: int | None = None


@dataclass(frozen=True)
class Rule:
    """Calls that are allowed when every condition holds."""

    names: tuple[str, ...]
    conditions: tuple[Condition, ...]


def _one_of(name: str, argument: int, values: tuple[int, ...]) -> tuple[Rule, ...]:
    return tuple(Rule((name,), (Condition(argument, value),)) for value in values)


_FILES = """
    access faccessat faccessat2 open openat openat2 creat close close_range read readv pread64
    preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek stat fstat lstat newfstatat statx
    statfs fstatfs getdents getdents64 mkdir mkdirat rmdir unlink unlinkat rename renameat renameat2
    link linkat symlink symlinkat readlink readlinkat chmod fchmod fchmodat fchmodat2 chown fchown
    lchown fchownat utime utimes futimesat utimensat truncate ftruncate fallocate fadvise64 fsync
    fdatasync sync_file_range readahead flock dup dup2 dup3 umask chdir fchdir getcwd
    copy_file_range sendfile splice tee vmsplice getxattr lgetxattr fgetxattr listxattr llistxattr
    flistxattr inotify_init inotify_init1 inotify_add_watch inotify_rm_watch pipe pipe2
"""
_MEMORY = """
    brk mmap munmap mremap mprotect madvise mincore msync mlock mlock2 munlock mlockall munlockall
    pkey_alloc pkey_free pkey_mprotect get_mempolicy membarrier
"""
_WAITING = """
    poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait
    epoll_pwait2 eventfd eventfd2 timerfd_create timerfd_settime timerfd_gettime futex futex_waitv
    nanosleep clock_nanosleep pause restart_syscall
"""
_PROCESSES = """
    fork vfork execve execveat exit exit_group wait4 waitid getpid getppid gettid getuid geteuid
    getgid getegid getresuid getresgid getgroups getpgid getpgrp getsid setpgid setsid capget
    getrlimit getpriority ioprio_get sched_yield sched_getaffinity sched_getparam
    sched_getscheduler sched_getattr sched_get_priority_max sched_get_priority_min
    sched_rr_get_interval set_tid_address set_robust_list rseq arch_prctl get_thread_area
    set_thread_area
"""
_SIGNALS = """
    rt_sigaction rt_sigprocmask rt_sigpending rt_sigsuspend rt_sigtimedwait rt_sigreturn sigaltstack
    signalfd signalfd4 alarm getitimer setitimer
"""
_SOCKETPAIRS = """
    sendto sendmsg sendmmsg recvfrom recvmsg recvmmsg shutdown getsockname getpeername getsockopt
"""
_HOST = """
    clock_gettime clock_getres gettimeofday time times getrusage sysinfo uname getrandom getcpu
"""

ALLOWED: tuple[str, ...] = tuple(
    " ".join((_FILES, _MEMORY, _WAITING, _PROCESSES, _SIGNALS, _SOCKETPAIRS, _HOST)).split()
)
"""Allowed whatever the arguments."""

# CLONE_NEW* (all seven that clone knows), CLONE_PIDFD, and CLONE_PARENT: only the plain fork of
# a sibling, by which a worker forks a state, has it.
_CLONE_PARENT, _SIGCHLD = 0x8000, 17
_CLONE_VM, _CLONE_VFORK, _CLONE_THREAD = 0x100, 0x4000, 0x10000
_CLONE_REFUSED = 0x7E02_0000 | 0x1000 | _CLONE_PARENT
_AF_UNIX, _SOCK_STREAM, _SOCK_SEQPACKET, _SOCK_TYPE = 1, 1, 5, 0xF
# RCVBUF, SNDBUF, KEEPALIVE, REUSEADDR, PASSCRED, RCVTIMEO, SNDTIMEO: no filters, which are BPF.
_SOL_SOCKET, _SOCKET_OPTIONS = 1, (2, 7, 8, 9, 16, 20, 21)
# DUPFD, GETFD, SETFD, GETFL, SETFL, GETLK, SETLK, SETLKW, GETOWN, GETSIG, OFD_GETLK, OFD_SETLK,
# OFD_SETLKW, DUPFD_QUERY, CREATED_QUERY, DUPFD_CLOEXEC, pipe sizes, seals, write hints. SETOWN
# and SETSIG are out: together they send any signal to any process of the same user.
_FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 36, 37, 38, *range(1027, 1039))
# TCGETS, TCSETS*, TIOCGPGRP, TIOCSPGRP, TIOCGWINSZ, TIOCSWINSZ, FIONREAD, FIONBIO, FIONCLEX,
# FIOCLEX, TCGETS2, FICLONE.
_IOCTL = (
    *(0x5401, 0x5402, 0x5403, 0x5404, 0x540F, 0x5410, 0x5413, 0x5414),
    *(0x541B, 0x5421, 0x5450, 0x5451, 0x802C_542A, 0x4004_9409),
)
# GET_PDEATHSIG, GET_DUMPABLE, SET_NAME, GET_NAME, GET_SECCOMP, CAPBSET_READ, SET_TIMERSLACK,
# GET_TIMERSLACK, GET_CHILD_SUBREAPER, SET_NO_NEW_PRIVS, GET_NO_NEW_PRIVS, GET_TID_ADDRESS,
# SET_THP_DISABLE, GET_THP_DISABLE, SET_VMA.
_PRCTL = (2, 3, 15, 16, 21, 23, 29, 30, 37, 38, 39, 40, 41, 42, 0x5356_4D41)
# What guards a worker may be switched on and never off: its death with its parent (SIGKILL),
# being the reaper of its orphans. Not dumpable would mean out of the supervisor's sight.
_PRCTL_SET = ((1, 9), (36, 1))
# Every limit of a process but RLIMIT_NPROC.
_FREE_LIMITS = tuple(kind for kind in range(16) if kind != 6)
_S_IFMT, _S_IFIFO, _S_IFREG = 0o170000, 0o010000, 0o100000

CONDITIONAL: tuple[Rule, ...] = (
    # Memory is shared by threads, or while a vfork waits, not between two that run.
    Rule(("clone",), (Condition(0, 0, _CLONE_REFUSED | _CLONE_VM),)),
    *(
        Rule(("clone",), (Condition(0, _CLONE_VM | kind, _CLONE_REFUSED | _CLONE_VM | kind),))
        for kind in (_CLONE_VFORK, _CLONE_THREAD)
    ),
    Rule(("clone",), (Condition(0, _CLONE_PARENT | _SIGCHLD),)),
    # Not SOCK_DGRAM: such a pair can be pointed at any other Unix socket, also by sendmsg.
    *(
        Rule(("socketpair",), (Condition(0, _AF_UNIX), Condition(1, kind, _SOCK_TYPE)))
        for kind in (_SOCK_STREAM, _SOCK_SEQPACKET)
    ),
    *(
        Rule(("setsockopt",), (Condition(1, _SOL_SOCKET), Condition(2, option)))
        for option in _SOCKET_OPTIONS
    ),
    *_one_of("fcntl", 1, _FCNTL),
    *_one_of("ioctl", 1, _IOCTL),
    *_one_of("prctl", 0, _PRCTL),
    *(Rule(("prctl",), (Condition(0, option), Condition(1, on))) for option, on in _PRCTL_SET),
    *_one_of("personality", 0, (0xFFFF_FFFF,)),  # what it is now
    # Pipes with a name and files; devices are out at every level.
    *(Rule(("mknod",), (Condition(1, kind, _S_IFMT),)) for kind in (0, _S_IFIFO, _S_IFREG)),
    *(Rule(("mknodat",), (Condition(2, kind, _S_IFMT),)) for kind in (0, _S_IFIFO, _S_IFREG)),
    # Of oneself only; siblings have the same user. The limit on processes is the supervisor's
    # to move: the kernel counts those of a whole tree together.
    Rule(("prlimit64",), (Condition(0, 0), Condition(2, 0))),
    *(Rule(("prlimit64",), (Condition(0, 0), Condition(1, kind))) for kind in _FREE_LIMITS),
    *_one_of("setrlimit", 0, _FREE_LIMITS),
    Rule(("setpriority",), (Condition(0, 0), Condition(1, 0))),
    Rule(("ioprio_set",), (Condition(0, 1), Condition(1, 0))),
    Rule(
        ("sched_setaffinity", "sched_setparam", "sched_setscheduler", "sched_setattr"),
        (Condition(0, 0),),
    ),
)
"""Allowed for these arguments; several rules for one call are alternatives."""

GATED: tuple[str, ...] = ("chroot", "kill", "tkill", "tgkill")
"""What a supervisor decides call by call, where it is told of them."""

SIGNALS: tuple[str, ...] = ("kill", "tkill", "tgkill")
"""Allowed where nobody decides: a filter cannot tell whose process a number is."""

NOT_IMPLEMENTED: tuple[str, ...] = ("clone3", "timer_create", "memfd_create")
"""Refused with ENOSYS, on which libc falls back: clone3 has its flags in memory, where no filter
sees them; a POSIX timer is not forked, and nothing shows from outside that there is one; memory
behind a memfd is no process's, so no limit of a step would count it."""

NOT_SUPPORTED: tuple[str, ...] = (
    *("setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr"),
)
"""Refused with EOPNOTSUPP, as by a file system without them: a quota does not count them."""

NUMBERS: dict[str, int] = {"futex_waitv": 449, "fchmodat2": 452}
"""Of allowed calls that an older libseccomp does not know by name; the same on every machine."""

NEWER = range(453, 512)
"""Calls that came after this list; ENOSYS makes libc fall back on those before them."""

SUPERVISOR: tuple[str, ...] = (
    *("clone", "unshare", "mount", "umount2", "fsopen", "fsconfig", "fsmount", "fspick"),
    *("open_tree", "move_mount", "mount_setattr", "pivot_root", "chroot", "seccomp", "prctl"),
    *(
        "memfd_create",
        "capset",
        "landlock_create_ruleset",
        "landlock_add_rule",
        "landlock_restrict_self",
    ),
    *("pidfd_open", "pidfd_send_signal", "prlimit64", "setpriority", "sched_setaffinity"),
    *("kill", "tkill", "tgkill", "setxattr", "lsetxattr", "fsetxattr", "removexattr"),
    *("lremovexattr", "fremovexattr", "ioctl", "fcntl", "mknod", "mknodat"),
)
"""What our supervisor needs besides, in a container of its own, whatever the arguments. The
workers in it get the filter above on top."""
