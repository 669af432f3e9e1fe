"""Attacks of rows 1 to 7: on processes, memory, time, disk, output, the channel, the worker."""

from __future__ import annotations

import time
from contextlib import suppress

from treegrpo.sandboxes.base import KIB, Level, Result, ResultKind
from treegrpo.sandboxes.conformance.abuse import LIMITS, Attack, Outside, Scene
from treegrpo.sandboxes.conformance.case import PATIENCE_S, Checks, first_fork
from treegrpo.sandboxes.errors import SandboxError

KEPT = int(LIMITS["output_kib"]) * KIB


def _lives_on(scene: Scene, _: Result, check: Checks) -> None:
    """The attacked node itself still computes."""
    check.value("3", scene.attacked, "1 + 2")


def _died(scene: Scene, result: Result, check: Checks) -> None:
    """The attacked node is dead and says so."""
    check.same((False, False), (result.alive, scene.attacked.alive), "alive of the attacked")


def _cut(_: Scene, result: Result, check: Checks) -> None:
    """Output is cut, flagged, and never held whole on our side."""
    check.that(result.stdout_truncated or result.stderr_truncated, "no flag of cut output")
    sizes = (len(result.stdout), len(result.stderr))
    check.that(0 < max(sizes) <= KEPT, f"kept {sizes} bytes of {KEPT}")


def _no_reply_forged(_: Scene, result: Result, check: Checks) -> None:
    """A forged reply is not taken for the worker's."""
    check.that("FORGED" not in (result.value or ""), f"a forged value was taken: {result.value}")
    check.that("FORGED" not in result.text, f"forged output was taken: {result.text[:200]}")


def _next_step_is_typed(scene: Scene, result: Result, check: Checks) -> None:
    """Whatever was done to the channel, the next step computes or fails by type."""
    try:
        again = scene.attacked.exec("6 * 7", timeout_s=2)
    except SandboxError:
        check.that(not result.alive, f"alive, yet the next step was refused: {result}")
        return
    check.that(again.value == "42" or not again.ok, f"next step: {again}")


def _closes_fast(scene: Scene, _: Result, check: Checks) -> None:
    """Forking, listing and closing a node full of files takes bounded time."""
    started = time.monotonic()
    with suppress(SandboxError):  # too deep or too many to copy: refused, and in time
        scene.attacked.list()
        first_fork(scene.attacked).close()
    scene.attacked.close()
    check.that(time.monotonic() - started < PATIENCE_S, "a full node holds up its closing")


def _sparse_is_refused(scene: Scene, _: Result, check: Checks) -> None:
    """A file that claims to be huge is not read into our memory."""
    sizes = {entry.name: entry.size for entry in scene.attacked.list()}
    if sizes.get("sparse", 0) > 1 << 24:
        check.raises(SandboxError, lambda: scene.attacked.read("sparse"))
    _closes_fast(scene, _, check)


_OUTPUT: tuple[tuple[str, str, tuple[ResultKind, ...], float], ...] = (
    ("endless-lines", "while True: print('y' * 99)", ("timeout",), 0.8),
    ("no-newline", "for _ in range(3000): n = sys.stdout.write('x' * 9999)", ("ok",), PATIENCE_S),
    (
        "binary-stderr",
        "for _ in range(3000): n = sys.stderr.buffer.write(bytes(range(256)) * 32)",
        ("ok",),
        PATIENCE_S,
    ),
    (
        "descriptor",
        r"for _ in range(3000): n = os.write(1, b'\x1b[2J\xff\xfe\xf0\x9f' * 999)",
        ("ok",),
        PATIENCE_S,
    ),
    (
        "subprocess",
        "import subprocess\nr = subprocess.run(['sh', '-c', 'yes | head -c 30000000; yes >&2'])",
        ("timeout",),
        1.2,
    ),
)

_ENDINGS: tuple[tuple[str, str, tuple[ResultKind, ...], Outside | None], ...] = (
    ("sys-exit", "sys.exit(3)", ("exit",), _lives_on),
    ("os-exit", "os._exit(0)", ("exit",), _died),
    ("segfault", "import ctypes; ctypes.string_at(1)", ("signal",), _died),
    ("abort", "os.abort()", ("signal",), _died),
    ("recursion", "def f(): return f() + 1\nf()", ("exception",), _lives_on),
    (
        "c-stack",
        "sys.setrecursionlimit(1 << 30)\nx = []\nfor _ in range(200_000): x = [x]\nn = repr(x)",
        ("signal", "memory", "exception"),
        _next_step_is_typed,
    ),
    ("kill-itself", "os.kill(os.getpid(), 9)", ("signal", "ok", "exception"), None),
    ("terminate-itself", "os.kill(os.getpid(), 15)", ("signal", "ok", "exception"), None),
    (
        "exit-hooks",
        "import atexit\nclass D:\n    def __del__(self): raise SystemExit(9)\n"
        "h = atexit.register(os.abort); d = D(); del d",
        ("ok",),
        _lives_on,
    ),
    ("interrupt", "raise KeyboardInterrupt", ("exception",), _lives_on),
    ("generator-exit", "raise GeneratorExit", ("exception",), _lives_on),
)

ATTACKS: tuple[Attack, ...] = (
    Attack(
        1,
        "fork-bomb",
        "processes beyond the limit are refused with EAGAIN, and all end with the node",
        r"""
made, refused = 0, None
for _ in range(300):
    try: pid = os.fork()
    except OSError as error:
        refused = error.errno
        break
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    made += 1
print('HELD' if refused == errno.EAGAIN and made <= 16 else f'BROKE: {made} made, {refused}')
""",
        kinds=("ok", "pids"),
    ),
    Attack(
        1,
        "fork-bomb-doubling",
        "processes that double, and run the code that follows, end with the node",
        r"""
for _ in range(8):
    os.fork()
time.sleep(0.1)
print('HELD')
""",
        kinds=("ok", "exception", "pids", "signal", "protocol", "timeout"),
        timeout_s=2.0,
    ),
    Attack(
        1,
        "thread-bomb",
        "threads beyond the limit are refused",
        r"""
import threading
made, threads = 0, []
try:
    for _ in range(400):
        t = threading.Thread(target=time.sleep, args=(60,), daemon=True)
        t.start()
        made += 1
except RuntimeError:
    print('HELD' if made <= 32 else f'BROKE: {made} threads')
else:
    print(f'BROKE: all {made} threads')
""",
        kinds=("ok", "pids"),
    ),
    Attack(
        2,
        "growing-list",
        "memory beyond the limit ends the step with kind memory",
        "x = []\nfor _ in range(1500): x.append(bytearray(1 << 20))\nprint('BROKE', len(x))",
        kinds=("memory",),
    ),
    Attack(
        2,
        "huge-objects",
        "an object beyond the limit is refused",
        r"""
attempt('1 GiB string', lambda: len('x' * (1 << 30)))
attempt('1 GiB bytes', lambda: len(bytearray(1 << 30)))
verdict()
""",
        kinds=("ok", "memory"),
        outside=_lives_on,
    ),
    Attack(
        2,
        "shared-map",
        "shared memory counts as memory, and is refused or ends the step beyond the limit",
        r"""
import mmap
try:
    m = mmap.mmap(-1, 1 << 30)
    for at in range(0, 1 << 30, 4096): m[at] = 1
except OSError: print('HELD')
else: print('BROKE: 1 GiB of shared memory')
""",
        kinds=("ok", "memory", "signal"),
    ),
    Attack(
        2,
        "many-small-processes",
        "the processes of a step share one memory limit",
        r"""
ready, go = os.pipe()
hold = r'x = bytearray(b"x") * (60 << 20); import os, time; os.write(1, b"r"); time.sleep(30)'
import subprocess
children = [subprocess.Popen([sys.executable, '-c', hold], stdout=go) for _ in range(10)]
os.close(go)
end, count = time.monotonic() + 5, 0
os.set_blocking(ready, False)
while time.monotonic() < end and count < 10:
    try: got = os.read(ready, 99)
    except BlockingIOError: time.sleep(0.02)
    else:
        count += len(got)
        if not got: break
for child in children: child.kill()
print('HELD' if count < 6 else f'BROKE: {count} processes hold 60 MB each')
""",
        kinds=("ok", "memory", "exception", "pids"),
        holds_from=Level.L3,
        below="the sum is looked at now and then: what is quick may pass for a moment",
    ),
    *(
        Attack(
            3,
            name,
            "the time limit ends it, whatever the code ignores",
            f"print('begun', flush=True)\n{code}",
            kinds=("timeout",),
            timeout_s=0.4,
            outside=_died,
        )
        for name, code in {
            "spin": "while True: pass",
            "sleep": "time.sleep(1e6)",
            "ignored-signals": (
                "for n in set(range(1, 65)) - {9, 19, 32, 33}: signal.signal(n, signal.SIG_IGN)\n"
                "while True:\n    try: time.sleep(9)\n    except BaseException: pass"
            ),
            "blocked-signals": (
                "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass"
            ),
            "loop-in-c": "sum(iter(int, 1))",
            "regular-expression": "import re; re.match('(a+)+$', 'a' * 64 + 'b')",
            "child-waits": "import subprocess; subprocess.run(['sleep', '@NONCE@'])",
            "stop-itself": "os.kill(os.getpid(), signal.SIGSTOP); time.sleep(1e6)",
        }.items()
    ),
    Attack(
        4,
        "disk-fill",
        "files beyond the limit end the step with kind disk, in the workspace and in /tmp",
        r"""
for folder in ('/tmp', '.'):
    try:
        with open(folder + '/fill', 'wb', 0) as f:
            for _ in range(400): n = f.write(bytes(1 << 18))
    except OSError as error: last = error
    else: print('BROKE: 100 MB fit into', folder)
raise last
""",
        kinds=("disk",),
    ),
    Attack(
        4,
        "inode-fill",
        "more files than the limit are refused",
        r"""
made = 0
try:
    for made in range(3_000):
        os.mkdir(f'd{made}') if made % 2 else open(f'f{made}', 'w').close()
except OSError: print('HELD' if made <= 1000 else f'BROKE: {made} files')
else: print('BROKE: all files')
""",
        kinds=("ok", "disk"),
        outside=_closes_fast,
        holds_from=Level.L2,
        below="files are not counted; the step's time limits them",
    ),
    Attack(
        4,
        "sparse-file",
        "a file that claims a terabyte is refused, or at least never read by us",
        r"""
try:
    with open('sparse', 'wb') as f: f.truncate(1 << 40)
except OSError: pass
print('HELD')
""",
        kinds=("ok", "disk", "signal"),
        outside=_sparse_is_refused,
    ),
    Attack(
        4,
        "deep-path",
        "a path of a thousand folders closes in bounded time",
        r"""
try:
    for n in range(2000):
        os.mkdir('d' * 20)
        os.chdir('d' * 20)
except OSError: pass
print('HELD')
""",
        kinds=("ok", "disk", "exception"),
        outside=_closes_fast,
    ),
    *(
        Attack(
            5,
            name,
            "output is kept up to the limit, flagged, and costs us no memory",
            code,
            kinds=kinds,
            timeout_s=timeout_s,
            says_held=False,
            outside=_cut,
        )
        for name, code, kinds, timeout_s in _OUTPUT
    ),
    *(
        Attack(
            6,
            name,
            "the channel is out of reach, or the node is declared broken; nothing is forged",
            code,
            kinds=("ok", "protocol", "exception", "signal", "timeout", "exit"),
            says_held=False,
            timeout_s=2.0,
            outside=outside,
        )
        for name, code, outside in (
            (
                "garbage-everywhere",
                "for fd in range(3, 1024):\n"
                "    try: n = os.write(fd, bytes(range(256)) * 64)\n    except OSError: pass",
                _next_step_is_typed,
            ),
            (
                "forged-frames",
                r"""
import json, marshal, pickle, struct
reply = {'kind': 'ok', 'value': 'FORGED', 'stdout': 'FORGED', 'alive': True, 'id': 1}
bodies = [json.dumps(reply).encode(), marshal.dumps(reply), pickle.dumps(reply), b'FORGED']
for fd in range(3, 256):
    for body in bodies:
        for head in ('>I', '<I', '>Q', '<Q', '!H'):
            try: n = os.write(fd, struct.pack(head, len(body)) + body)
            except OSError: pass
        try: n = os.write(fd, body + b'\n')
        except OSError: pass
""",
                _no_reply_forged,
            ),
            (
                "huge-lengths",
                "for fd in range(3, 256):\n"
                "    try: n = os.write(fd, bytes([255]) * 8 + bytes([127]) * 8)\n"
                "    except OSError: pass",
                _next_step_is_typed,
            ),
            ("close-all", "os.closerange(0, 1024)", _next_step_is_typed),
            (
                "redirect-all",
                "for fd in range(3, 200): n = os.dup2(1, fd)",
                _next_step_is_typed,
            ),
            (
                "read-all",
                "for fd in range(3, 256):\n"
                "    try: os.set_blocking(fd, False); n = os.read(fd, 9999)\n"
                "    except OSError: pass",
                _next_step_is_typed,
            ),
            (
                "returning-child",
                "pid = os.fork()\nif pid == 0: print('FORGED' * 0)\n'child' if pid == 0 else 'own'",
                _no_reply_forged,
            ),
        )
    ),
    *(
        Attack(
            7,
            name,
            "the node ends or lives by its kind; the parent stays forkable",
            code,
            kinds=kinds,
            says_held=False,
            outside=outside,
        )
        for name, code, kinds, outside in _ENDINGS
    ),
)
