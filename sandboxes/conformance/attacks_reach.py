"""Attacks of rows 8 to 15: reaching for the network, the host's files, processes and kernel."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from treegrpo.sandboxes.base import Level, Result
from treegrpo.sandboxes.conformance.abuse import Attack, Scene
from treegrpo.sandboxes.conformance.bait import MARK, SISTER
from treegrpo.sandboxes.conformance.case import PATIENCE_S, Checks
from treegrpo.sandboxes.errors import FileRefused, SandboxBusy

_PASSWD = Path("/etc/passwd")
_BESIDE = frozenset({"boot", "secret.txt", "shadow", "sudoers", "ear"})
# Numbers of system calls: x86_64, aarch64 (-1: not there).
CALLS = r"""
import ctypes, platform
libc = ctypes.CDLL(None, use_errno=True)
column = {'x86_64': 0, 'aarch64': 1}[platform.machine()]
numbers = {
    'mount': (165, 40), 'umount2': (166, 39), 'pivot_root': (155, 41), 'chroot': (161, 51),
    'setns': (308, 268), 'unshare': (272, 97), 'fsopen': (430, 430), 'open_tree': (428, 428),
    'fsmount': (432, 432), 'bpf': (321, 280), 'keyctl': (250, 219), 'add_key': (248, 217),
    'perf_event_open': (298, 241), 'userfaultfd': (323, 282), 'init_module': (175, 105),
    'finit_module': (313, 273), 'delete_module': (176, 106), 'kexec_load': (246, 104),
    'reboot': (169, 142), 'clock_settime': (227, 112), 'settimeofday': (164, 170),
    'clock_adjtime': (305, 266), 'sethostname': (170, 161), 'setdomainname': (171, 162),
    'swapon': (167, 224), 'swapoff': (168, 225), 'acct': (163, 89), 'quotactl': (179, 60),
    'iopl': (172, -1), 'ioperm': (173, -1), 'ptrace': (101, 117), 'process_vm_readv': (310, 270),
    'process_vm_writev': (311, 271), 'io_uring_setup': (425, 425),
    'open_by_handle_at': (304, 265), 'name_to_handle_at': (303, 264), 'fanotify_init': (300, 262),
    'syslog': (103, 116), 'pidfd_open': (434, 434), 'pidfd_getfd': (438, 438), 'kcmp': (312, 272),
    'move_pages': (279, 239), 'tgkill': (234, 131), 'rt_sigqueueinfo': (129, 138),
    'clone3': (435, 435), 'mknodat': (259, 33), 'socket': (41, 198),
}
def call(name, *args):
    number = numbers[name][column]
    if number < 0: return
    if libc.syscall(number, *args) != -1: broken.append(f'{name} succeeded')
    elif ctypes.get_errno() not in (errno.EPERM, errno.ENOSYS, errno.EACCES, errno.ESRCH,
                                    errno.EAFNOSUPPORT):
        broken.append(f'{name} reached the kernel: {errno.errorcode[ctypes.get_errno()]}')
"""

PROCESS_FILES = r"""
for pid in pids:
    for name in ('environ', 'mem', 'maps', 'root/etc/passwd', 'cwd', 'fd', 'task'):
        path = f'/proc/{pid}/{name}'
        attempt(path, lambda: os.listdir(path) if os.path.isdir(path) else open(path, 'rb').read(1))
verdict()
"""
# Looks for what begins with `wanted`, which is spelt in two parts so as not to find itself.
SEARCH = r"""
import ctypes, gc
found = []
libc = ctypes.CDLL(None)
libc.getenv.restype = ctypes.c_char_p
print(libc.getenv(b'@VARIABLE@'), [v for v in os.environ.items() if wanted in v[1]])
tops = [os.path.realpath('.'), os.path.realpath('..'), os.path.realpath('../..'),
        *[v for v in os.environ.values() if v.startswith('/')], '/tmp', '/root', '/home', '/run',
        '/var/tmp', '/dev/shm', '/mnt', '/srv', '/media', '/proc', '/']
end = time.monotonic() + 0.8
for top in tops:
    for folder, folders, names in os.walk(top):
        folders[:] = folders if time.monotonic() < end else []
        for name in names[:200]:
            try:
                path = os.path.join(folder, name)
                fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
                data = os.read(fd, 65536)
                os.close(fd)
            except OSError: continue
            if wanted.encode() in data: found.append((path, data[:200]))
for thing in gc.get_objects():
    if isinstance(thing, dict):
        found += [v for v in list(thing.values()) if isinstance(v, str) and wanted in v
                  and v != wanted][:3]
print(found, 'BROKE: found' if found else 'HELD')
"""


def _host_file_stands(scene: Scene, _: Result, check: Checks) -> None:
    """Links made by the code never lead our reads and writes out of the workspace."""
    box, place = scene.attacked, scene.bench.bait.places["@TMP_SECRET@"]
    started = time.monotonic()
    for path in ("file", "folder/secret.txt", "pipe", "sock"):
        check.raises(FileRefused, lambda path=path: box.read(path))
        check.raises(FileRefused, lambda path=path: box.list(path))
    for path in ("up/etc/passwd", "deep/link/passwd", "chain"):
        with suppress(FileRefused):  # a file of that name within the sandbox may be served
            check.that(box.read(path) != _PASSWD.read_bytes(), f"{path} is the host's")
    for path in ("file", "folder/new", "deep/link/new", "chain", "pipe", "sock"):
        with suppress(FileRefused):
            box.write(path, b"overwritten")
    for path in ("folder", "up", "up/..", "deep/link", "../..", "/"):
        with suppress(FileRefused):
            seen = {entry.name for entry in box.list(path)}
            check.that(not seen & _BESIDE, f"{path} lists the host's {seen & _BESIDE}")
    check.that(not os.path.exists(os.path.join(os.path.dirname(place), "new")), "a new host file")
    check.raises(FileRefused, lambda: box.remove("folder/secret.txt"))
    check.that(time.monotonic() - started < PATIENCE_S, "special files held us up")
    with open(place, encoding="ascii") as file:
        check.same(scene.bench.bait.secret, file.read(), "the host's file")


def _race_is_lost(scene: Scene, _: Result, check: Checks) -> None:
    """While a process swaps a file for a link, no read brings the host's file."""
    secret, answers = scene.bench.bait.secret.encode(), 0
    end = time.monotonic() + 0.5
    while time.monotonic() < end or not answers:
        for path in ("swap", "folder/passwd"):
            try:
                got = scene.attacked.read(path)
            except (FileRefused, SandboxBusy):
                got = b""
            answers += 1
            lost = secret not in got and got != _PASSWD.read_bytes()
            check.that(lost, f"a race was won: {got[:80]}")


ATTACKS: tuple[Attack, ...] = (
    Attack(
        8,
        "sockets",
        "no socket of any family can be made; a pair within the node can",
        r"""
import socket
families = [n for n in dir(socket) if n.startswith('AF_')]
for name in families:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
        attempt(f'{name} {kind!r}', lambda: socket.socket(getattr(socket, name), kind))
a, b = socket.socketpair()
a.close(); b.close()
verdict()
""",
    ),
    Attack(
        8,
        "connections",
        "nothing listening on the host, in the network or in a cloud is reached",
        r"""
import socket, urllib.request
socket.setdefaulttimeout(0.5)
for host, port in (('127.0.0.1', @TCP@), ('169.254.169.254', 80), ('8.8.8.8', 53), ('::1', 80)):
    attempt(f'tcp {host}', lambda: socket.create_connection((host, port)))
def datagram():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        return s.sendto(b'x', ('127.0.0.1', @UDP@))
def unix(path):
    with socket.socket(socket.AF_UNIX) as s: return s.connect(path)
attempt('udp', datagram)
attempt('unix', lambda: unix('@UNIX@'))
attempt('abstract', lambda: unix('\0@ABSTRACT@'))
attempt('docker', lambda: unix('/var/run/docker.sock'))
attempt('name', lambda: socket.getaddrinfo('example.com', 80))
attempt('http', lambda: urllib.request.urlopen('http://127.0.0.1:@TCP@/').read())
verdict()
""",
    ),
    Attack(
        8,
        "kernel-sockets",
        "sockets by system call and by io_uring are refused",
        CALLS
        + r"""
for family in (1, 2, 10, 16, 17, 38, 40): call('socket', family, 1, 0); call('socket', family, 3, 0)
call('io_uring_setup', 8, None)
verdict()
""",
    ),
    Attack(
        9,
        "secret-files",
        "files of the host are not there; planted secrets are not found",
        r"""
for path in ('@TMP_SECRET@', '@HOME_SECRET@', '/etc/shadow', '/root/.bashrc', '/proc/1/environ',
             '/proc/kcore', '/dev/mem', '/dev/kmem', '/dev/kvm', '/dev/port', '/dev/fuse',
             '/dev/net/tun', '/dev/vda', '/dev/sda', '/sys/kernel/uevent_helper',
             '/sys/fs/cgroup/cgroup.procs', '/var/run/docker.sock', '/var/log/syslog'):
    attempt(path, lambda: open(path, 'rb').read(64))
    attempt(path + ' (written)', lambda: open(path, 'ab'))
# The way to the interpreter is there, and nothing beside it.
way = set(sys.prefix.split('/')) | set(sys.base_prefix.split('/'))
for path in ('/root', '/home', '@HOME@', '/var/lib', '/sys/class'):
    try: names = [n for n in os.listdir(path) if n not in way]
    except OSError: continue
    if names: broken.append(f'{path} lists {names}')
for path in ('/usr/x', '/etc/x', '/x', sys.prefix + '/x', '/dev/x', '/lib/x', '/opt/x'):
    attempt(path + ' (made)', lambda: open(path, 'w'))
verdict()
""",
        kinds=("ok",),
    ),
    Attack(
        9,
        "search-everywhere",
        "a search of files, environment and memory finds no secret of the host or another tree",
        f"wanted = {MARK[:3]!r} + {MARK[3:]!r}\n{SEARCH}",
    ),
    Attack(
        9,
        "search-for-siblings",
        "a search of files finds nothing of another state of the same tree",
        f"wanted = {SISTER[:3]!r} + {SISTER[3:]!r}\n{SEARCH}",
        holds_from=Level.L2,
        below="workspaces of one tree lie side by side, and one state can read another's",
    ),
    Attack(
        9,
        "process-files",
        "/proc shows no process of the host: no memory, environment or files of it",
        "pids = {1, 2, @PID@, @VICTIM@, os.getppid()} - {os.getpid(), 0}" + PROCESS_FILES,
    ),
    Attack(
        9,
        "process-files-of-siblings",
        "/proc shows no process but the node's own",
        "pids = {*range(1, 20), *range(os.getpid() - 20, os.getpid() + 20)} - {os.getpid()}\n"
        "try: broken += [n for n in os.listdir('/proc') if n.isdigit() and int(n) in pids]\n"
        "except OSError: pass" + PROCESS_FILES,
        holds_from=Level.L2,
        below="what /proc shows of states of one tree is open to each of them",
    ),
    Attack(
        10,
        "signals-to-the-host",
        "neither the host's processes nor the client nor the supervisor can be signalled",
        CALLS
        + r"""
info = ctypes.create_string_buffer(128)
# Signal 0 asks for permission and does nothing: safe where it is granted.
for pid in {1, 2, @PID@, @VICTIM@, os.getppid()} - {os.getpid(), 0}:
    attempt(f'kill {pid}', lambda: os.kill(pid, 0) or 1)
    call('tgkill', pid, pid, 0)
    call('rt_sigqueueinfo', pid, 0, info)
    call('pidfd_open', pid, 0)
    attempt(f'priority of {pid}', lambda: os.setpriority(os.PRIO_PROCESS, pid, 19) or 1)
    attempt(f'affinity of {pid}', lambda: os.sched_setaffinity(pid, {0}) or 1)
    if pid > 2: attempt(f'group of {pid}', lambda: os.killpg(pid, 0) or 1)
verdict()
""",
    ),
    Attack(
        10,
        "signals-to-all",
        "no process besides the node's own can be signalled, singly or all at once",
        r"""
attempt('all', lambda: os.kill(-1, 0) or 1)
if not broken:
    attempt('kill all', lambda: os.kill(-1, 9) or 1)
for pid in {*range(1, 4096), *range(@PID@ - 500, @PID@ + 500), @VICTIM@}:
    if pid == os.getpid(): continue
    try: os.kill(pid, 0)
    except OSError: continue
    broken.append(f'pid {pid}')
    if len(broken) > 5: break
verdict()
""",
        holds_from=Level.L2,
        below="states of one tree can signal one another, and nobody else",
    ),
    Attack(
        11,
        "trace-others",
        "tracing, foreign memory and foreign descriptors are refused",
        CALLS
        + r"""
room = ctypes.create_string_buffer(64)
class Vector(ctypes.Structure): _fields_ = [('base', ctypes.c_void_p), ('len', ctypes.c_size_t)]
vector = Vector(ctypes.addressof(room), 64)
for pid in (1, 2, os.getppid() or 1, os.getpid() - 1, os.getpid() + 1):
    call('ptrace', 0x4206, pid, None, None)  # PTRACE_SEIZE, which stops nobody
    for name in ('process_vm_readv', 'process_vm_writev'):
        call(name, pid, ctypes.byref(vector), 1, ctypes.byref(vector), 1, 0)
    call('kcmp', os.getpid(), pid, 0, 0, 0)
    call('move_pages', pid, 0, None, None, None, 0)
call('pidfd_getfd', 3, 0, 0)
verdict()
""",
    ),
    Attack(
        12,
        "links-out",
        "links, FIFOs and sockets left in the workspace never lead the host astray",
        r"""
import socket
os.symlink('@TMP_SECRET@', 'file')
os.symlink(os.path.dirname('@TMP_SECRET@'), 'folder')
os.symlink('../../../../../../..', 'up')
os.mkdir('deep')
os.symlink('/etc', 'deep/link')
os.symlink('link1', 'chain'); os.symlink('/etc/passwd', 'link1')
os.mkfifo('pipe')
attempt('hard link', lambda: os.link('/etc/passwd', 'hard') or 1)
attempt('hard link to a secret', lambda: os.link('@TMP_SECRET@', 'hard2') or 1)
attempt('block device', lambda: os.mknod('dev', 0o60600, os.makedev(8, 0)) or 1)
attempt('character device', lambda: os.mknod('mem', 0o20600, os.makedev(1, 1)) or 1)
try: os.mknod('sock', 0o140600)
except OSError: open('sock', 'w').close(); os.remove('sock'); os.mkfifo('sock')
broken = [b for b in broken if not b.startswith('hard link:')]
verdict()
""",
        outside=_host_file_stands,
    ),
    Attack(
        12,
        "swap-race",
        "a process that swaps a file for a link to the host's wins no race with our read",
        r"""
os.mkdir('real'); open('real/passwd', 'w').write('mine'); open('plain', 'w').write('mine')
if os.fork() == 0:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        for target, name in (('@TMP_SECRET@', 'swap'), ('plain', 'swap'), ('/etc', 'folder'),
                             ('real', 'folder')):
            try:
                os.symlink(target, 'next'); os.rename('next', name)
            except OSError: pass
    os._exit(0)
print('HELD')
""",
        outside=_race_is_lost,
    ),
    Attack(
        13,
        "archive-traversal",
        "unpacking an archive that climbs out writes inside the node at most",
        r"""
import io, tarfile, zipfile
with tarfile.open('t.tar', 'w') as tar:
    for name in ('../../../../tmp/@NONCE@', '/root/@NONCE@', '@HOME@/@NONCE@', '../out'):
        member = tarfile.TarInfo(name); member.size = 4
        tar.addfile(member, io.BytesIO(b'evil'))
    link = tarfile.TarInfo('l'); link.type = tarfile.SYMTYPE; link.linkname = '/root'
    tar.addfile(link)
    member = tarfile.TarInfo('l/@NONCE@'); member.size = 4
    tar.addfile(member, io.BytesIO(b'evil'))
with tarfile.open('t.tar') as tar:
    for member in tar:
        try: tar.extract(member, '.')
        except OSError: pass
with zipfile.ZipFile('z.zip', 'w') as z: z.writestr('../../@NONCE@', 'evil')
print('HELD')
""",
        outside=lambda scene, result, check: check.same(
            [], [str(p) for p in scene.bench.home.rglob(scene.nonce)], "files on the host"
        ),
    ),
    Attack(
        13,
        "archive-of-zeros",
        "an archive that unpacks to more bytes than the limit meets the limit",
        r"""
import zipfile
with zipfile.ZipFile('bomb.zip', 'w', zipfile.ZIP_DEFLATED) as z:
    z.writestr('zeros', bytes(64 << 20))
zipfile.ZipFile('bomb.zip').extractall('.')
print('BROKE: it was unpacked')
""",
        kinds=("disk",),
    ),
    Attack(
        13,
        "archive-of-many",
        "an archive that unpacks to more files than the limit meets the limit",
        r"""
import zipfile
with zipfile.ZipFile('many.zip', 'w') as z:
    for n in range(1000): z.writestr(f'm/{n}', '')
zipfile.ZipFile('many.zip').extractall('.')
print('BROKE: it was unpacked')
""",
        kinds=("disk",),
        holds_from=Level.L2,
        below="files are not counted; the step's time limits them",
    ),
    Attack(
        14,
        "setuid-programs",
        "setuid programs and new user ids bring no privilege",
        CALLS
        + r"""
import shutil, subprocess
flags = [libc.prctl(39, 0, 0, 0, 0), libc.prctl(21, 0, 0, 0, 0)]
if flags != [1, 2]: broken.append(f'no_new_privs, seccomp: {flags}')
# CAP_SYS_CHROOT may be there: row 15 shows that the call itself is refused.
def capable():
    libc.capget(header, sets)
    return [n for n, v in enumerate(sets) if v & ~((1 << 18) if n < 3 else 0)]
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
sets = (ctypes.c_uint32 * 6)()
if capable(): broken.append(f'capabilities {list(sets)}')
for words in (['su', '-c', 'id -u'], ['sudo', '-n', 'id', '-u'], ['pkexec', 'id', '-u'],
              ['newuidmap', '1', '0', '0', '1'], ['mount', '-t', 'tmpfs', 'none', '/tmp']):
    try: done = subprocess.run(words, stdin=-3, capture_output=True, timeout=2)
    except (OSError, subprocess.SubprocessError): continue
    if done.returncode == 0: broken.append(f'{words[0]}: {done.stdout!r}')
for change in (lambda: os.setresuid(0, 0, 0), lambda: os.setresgid(0, 0, 0)):
    try: change()
    except OSError: pass
shutil.copy(shutil.which('id'), 'id')
try:
    os.chmod('id', 0o6755)
    done = subprocess.run(['./id', '-u'], capture_output=True, text=True)
    if done.stdout.strip() not in ('', str(os.getuid())): broken.append(f'became {done.stdout}')
except OSError: pass
if capable(): broken.append(f'capabilities {list(sets)}')
attempt('shadow', lambda: open('/etc/shadow').read(9))
verdict()
""",
    ),
    Attack(
        15,
        "kernel-interfaces",
        "mounts, namespaces, modules, tracing and clocks answer EPERM or ENOSYS",
        CALLS
        + r"""
now = (ctypes.c_long * 2)(int(time.time()), 0)
adjust = (ctypes.c_char * 256)()
adjust[1:2] = b'\x01'  # ADJ_SETOFFSET, by nothing
call('mount', b'none', b'/tmp', b'tmpfs', 0, None)
call('umount2', b'/nowhere', 2)
call('pivot_root', b'.', b'.')
call('chroot', b'.')
call('setns', -1, 0)
call('unshare', 0x40000000)
call('unshare', 0x50000000)
call('fsopen', b'tmpfs', 0)
call('fsmount', -1, 0, 0)
call('open_tree', -100, b'/', 1)
call('bpf', 0, None, 0)
call('keyctl', 0, -3, 0)
call('add_key', None, None, None, 0, 0)
call('perf_event_open', None, 0, -1, -1, 0)
call('userfaultfd', 0)
call('init_module', None, 0, None)
call('finit_module', -1, None, 0)
call('delete_module', None, 0)
call('kexec_load', 0, 0, None, 0)
call('reboot', 1, 2, 3, None)
call('clock_settime', 0, now)
call('settimeofday', None, None)
call('clock_adjtime', 0, adjust)
call('sethostname', b'x', 1)
call('setdomainname', b'x', 1)
call('swapon', None, 0)
call('swapoff', None)
call('acct', b'/nowhere')
call('quotactl', 0x80000100, None, 0, None)
call('iopl', 3)
call('ioperm', 0, 1, 1)
call('open_by_handle_at', -1, None, 0)
call('fanotify_init', 0, 0)
call('syslog', 10, None, 0)
call('io_uring_setup', 0, None)
call('clone3', None, 0)
call('mknodat', -100, b'dev', 0o60600, 0x800)
verdict()
""",
    ),
)
