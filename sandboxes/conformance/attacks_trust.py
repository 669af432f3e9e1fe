"""Attacks of rows 16 to 21: outliving a step, raising limits, sharing, tampering, cheating."""

from __future__ import annotations

import fcntl
import os
import sysconfig
from pathlib import Path

from treegrpo.sandboxes.base import Result
from treegrpo.sandboxes.conformance.abuse import Attack, Outside, Scene
from treegrpo.sandboxes.conformance.case import Checks, brief, first_fork
from treegrpo.sandboxes.errors import SandboxDead, SandboxError, SnapshotUnsupported

FLOCKED = Path(sysconfig.get_path("stdlib"), "os.py")


def _told_as(kind: str, *also: str) -> Outside:
    """What still runs is named as `kind` and stops a fork; closing the node ends it."""

    def told(scene: Scene, _: Result, check: Checks) -> None:
        kinds = {reason.kind for reason in scene.attacked.check()}
        check.that(kind in kinds, f"{kind} is not among the reasons: {kinds}")
        check.that(kinds <= {kind, *also}, f"reasons beside {kind}: {kinds}")
        error = check.raises(SnapshotUnsupported, lambda: first_fork(scene.attacked))
        check.that(kind in str(error), f"the refusal of a fork does not name {kind}: {error}")
        scene.attacked.close()

    return told


def _unseen_by_sibling(scene: Scene, _: Result, check: Checks) -> None:
    """What was shared under a well-known name is not there for others."""
    code = (
        "import ctypes, os\n"
        f"libc = ctypes.CDLL(None); seen = os.path.exists('/dev/shm/{scene.nonce}')\n"
        "(seen, libc.shmget(0x7e57, 64, 0) >= 0)"
    )
    for box in (scene.sibling, scene.bench.other):
        check.value("(False, False)", box, code)
    check.that(not os.path.exists(f"/dev/shm/{scene.nonce}"), "it is in the host's /dev/shm")


def _lock_is_free(_: Scene, __: Result, check: Checks) -> None:
    """A lock taken in the node does not hold up the host."""
    with FLOCKED.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            check.that(False, f"BROKE: {FLOCKED} is locked on the host")
        check.count += 1


def _next_and_fork(scene: Scene, result: Result, check: Checks) -> None:
    """The next step and a fork of the tampered state compute, or fail by a typed error."""
    for make in (lambda: scene.attacked, lambda: first_fork(scene.attacked)):
        try:
            box = make()
            again = box.exec("6 * 7", timeout_s=2)
        except SandboxDead:
            check.that(not scene.attacked.alive, f"dead, yet alive: {result}")
        except SandboxError as error:
            check.that(bool(str(error)), "an error without a message")
        else:
            right = (
                again.value == "42"
                if again.ok
                else again.kind in ("exception", "protocol", "timeout", "exit", "signal")
            )
            check.that(right, f"after tampering: {brief(again)}")


def _still_right(scene: Scene, _: Result, check: Checks) -> None:
    """After a change that our side does not rest on, step and fork compute as before."""
    check.value("42", scene.attacked, "6 * 7")
    check.value("42", first_fork(scene.attacked), "6 * 7")


def _returns_unpoisoned(scene: Scene, _: Result, check: Checks) -> None:
    """Forks, returns after eviction and new trees load none of what was planted."""
    probe = "import sys; ('pwned' in sys.modules, getattr(sys, 'pwned', None))"
    check.value("(False, None)", scene.attacked, probe)
    check.value("(False, None)", first_fork(scene.attacked), probe)
    scene.attacked.evict()
    check.value("(False, None)", scene.attacked, probe)
    check.value("(False, None)", scene.sibling, probe)
    with scene.bench.sandbox() as fresh:
        check.value("(False, None)", fresh, probe)
    check.same(False, "pwned" in {e.name for e in scene.attacked.list()}, "a file made by it")


def _verdict_is_outside(scene: Scene, result: Result, check: Checks) -> None:
    """Hidden inputs run in a fork, and their answers are compared on the host."""
    check.that(not (result.ok and result.value == "'25'"), "a marker was taken for an answer")
    hidden = {3: "9", 5: "25"}
    answers: dict[int, str | None] = {}
    for given in hidden:
        try:
            fork = first_fork(scene.attacked)
            answers[given] = fork.exec(f"solve({given})", timeout_s=1).value
        except SandboxError:
            answers[given] = None
    check.that(answers != hidden, f"a solution that solves nothing passed: {answers}")
    honest, _ = scene.parent.step("def solve(n): return n * n")
    right = {given: honest.exec(f"solve({given})").value for given in hidden}
    check.same(hidden, right, "answers of an honest solution beside it")


TAMPER_KINDS = ("ok", "exception", "exit", "signal", "timeout", "protocol", "memory")

ATTACKS: tuple[Attack, ...] = (
    *(
        Attack(
            16,
            name,
            "what outlives a step is named, stops a fork, and ends with its node",
            f"{code}\nprint('HELD')",
            outside=told,
        )
        for name, (told, code) in {
            "daemon": (
                _told_as("child_processes"),
                "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
                "        os.closerange(0, 3); os.execvp('sleep', ['sleep', '@NONCE@'])\n"
                "    os._exit(0)\nn = os.wait()",
            ),
            "nohup": (
                _told_as("child_processes"),
                "import subprocess\n"
                "r = subprocess.run(['sh', '-c', 'nohup sleep @NONCE@ >/dev/null 2>&1 &'])",
            ),
            "subprocess": (
                _told_as("child_processes"),
                "import subprocess; p = subprocess.Popen(['sleep', '@NONCE@'])",
            ),
            "thread": (
                _told_as("threads"),
                "import threading\n"
                "threading.Thread(target=time.sleep, args=(600,), daemon=True).start()",
            ),
            "multiprocessing": (
                _told_as("child_processes", "pipe"),
                "import multiprocessing\n"
                "p = multiprocessing.Process(target=time.sleep, args=(600,), daemon=True)\n"
                "p.start()",
            ),
            "stopped-child": (
                _told_as("child_processes"),
                "import subprocess; p = subprocess.Popen(['sleep', '@NONCE@'])\n"
                "p.send_signal(signal.SIGSTOP)",
            ),
        }.items()
    ),
    Attack(
        17,
        "raised-limits",
        "no limit, priority or out-of-memory score can be raised; there are no core dumps",
        r"""
import resource
for name in [n for n in dir(resource) if n.startswith('RLIMIT_')]:
    soft, hard = resource.getrlimit(getattr(resource, name))
    if hard == resource.RLIM_INFINITY: continue
    attempt(name, lambda: resource.setrlimit(getattr(resource, name), (hard + 1, hard + 1)) or 1)
    attempt(name, lambda: resource.setrlimit(getattr(resource, name), (-1, -1)) or 1)
if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0): broken.append('core dumps')
if {resource.getrlimit(n)[1] for n in (resource.RLIMIT_AS, resource.RLIMIT_DATA)} == {-1}:
    broken.append('memory without limit')
attempt('nice', lambda: os.nice(-1))
attempt('oom_score_adj', lambda: open('/proc/self/oom_score_adj', 'w').write('-999'))
for folder in ('/sys/fs/cgroup', '/sys/fs/cgroup/pids', '/sys/fs/cgroup/memory'):
    attempt(folder, lambda: os.mkdir(folder + '/@NONCE@') or 1)
    attempt(folder + '/procs', lambda: open(folder + '/cgroup.procs', 'w').write('0'))
attempt('core_pattern', lambda: open('/proc/sys/kernel/core_pattern', 'w').write('|/x'))
attempt('real time', lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)) or 1)
verdict()
""",
    ),
    Attack(
        17,
        "core-dump",
        "a crash leaves no core file",
        "os.abort()",
        kinds=("signal",),
        outside=lambda scene, result, check: check.same(
            [], [e.name for e in scene.parent.list() if "core" in e.name], "core files"
        ),
    ),
    Attack(
        18,
        "shared-memory",
        "shared memory of every kind is private to the node, or refused",
        r"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
try: open('/dev/shm/@NONCE@', 'w').write('x')
except OSError: pass
libc.shmget(0x7e57, 64, 0o1666)
try: mq = ctypes.CDLL('librt.so.1').mq_open(b'/@NONCE@', os.O_CREAT | os.O_RDWR, 0o666, None)
except (OSError, AttributeError): pass
print('HELD')
""",
        outside=_unseen_by_sibling,
    ),
    Attack(
        18,
        "locks-on-shared-files",
        "a lock on a file of the interpreter holds up nobody outside the node",
        f"""
import fcntl
try:
    held = open({str(FLOCKED)!r}, 'rb'); fcntl.flock(held, fcntl.LOCK_EX)
except OSError: pass
print('HELD')
""",
        outside=_lock_is_free,
        holds_from=None,
        below="such a lock holds up whoever else locks that file; nothing of ours does",
    ),
    *(
        Attack(
            19,
            name,
            "the runtime does not rest on what code can change",
            code,
            kinds=TAMPER_KINDS,
            says_held=False,
            outside=_still_right,
        )
        for name, code in {
            "builtins": (
                "import builtins\n"
                "for n in ('print', 'len', 'repr', 'open', 'exec', 'eval', 'compile', 'min',\n"
                "          'max', 'isinstance', 'getattr', 'type', 'sorted', 'bytes', 'str'):\n"
                "    setattr(builtins, n, None)"
            ),
            "patched-modules": (
                "import ast, io, json, linecache, marshal, pickle, random, select, struct\n"
                "import traceback\n"
                "def evil(*a, **k): raise ValueError('patched')\n"
                "for m in (ast, io, json, linecache, marshal, pickle, random, select, struct,\n"
                "          traceback, signal, time):\n"
                "    for n in list(vars(m)):\n"
                "        if n[:2] != '__' and callable(getattr(m, n)): setattr(m, n, evil)"
            ),
            "patched-os": (
                "def evil(*a, **k): raise ValueError('patched')\n"
                "for n in ('fork', 'read', 'write', '_exit', 'getpid', 'waitpid', 'dup2',\n"
                "          'close', 'pipe', 'kill', 'chdir', 'listdir', 'open', 'fstat'):\n"
                "    setattr(os, n, evil)"
            ),
            "no-modules": "sys.modules.clear()",
            "hooks": (
                "def evil(*a): raise ValueError('hook')\n"
                "sys.excepthook = sys.displayhook = sys.unraisablehook = evil\n"
                "sys.breakpointhook = evil; sys.meta_path.clear(); sys.path_hooks.clear()"
            ),
            "no-path": "sys.path.clear(); sys.path_importer_cache.clear(); sys.argv = None",
            "signal-handlers": (
                "def evil(*a): raise ValueError('signal')\n"
                "for n in set(range(1, 65)) - {9, 19, 32, 33}: h = signal.signal(n, evil)"
            ),
            "fork-hooks": (
                "def evil(): raise ValueError('hook')\n"
                "os.register_at_fork(before=evil, after_in_child=evil, after_in_parent=evil)"
            ),
            "evil-exception": (
                "class E(Exception):\n"
                "    def __str__(self): raise ValueError('no text')\n"
                "    __repr__ = __str__\nraise E()"
            ),
            "evil-repr": ("class R:\n    def __repr__(self): raise ValueError('no repr')\nR()"),
            "lying-class": (
                "class L:\n    __class__ = property(lambda self: 1 / 0)\n"
                "    def __getattribute__(self, n): raise ValueError(n)\n"
                "    def __repr__(self): return 7\nL()"
            ),
        }.items()
    ),
    *(
        Attack(
            19,
            name,
            "a broken worker gives a typed result; nobody waits for ever",
            code,
            kinds=TAMPER_KINDS,
            says_held=False,
            timeout_s=0.6,
            outside=_next_and_fork,
        )
        for name, code in {
            "no-streams": "sys.stdout = sys.stderr = sys.stdin = None",
            "closed-streams": "sys.stdout.close(); sys.stderr.close(); sys.stdin.close()",
            "evil-stream": (
                "class S:\n    def write(self, t): raise SystemExit(0)\n"
                "    def flush(self): os._exit(0)\nsys.stdout = sys.stderr = S()"
            ),
            "endless-repr": "class R:\n    def __repr__(self):\n        while True: pass\nR()",
            "exit-in-repr": "class R:\n    def __repr__(self): os._exit(0)\nR()",
            "huge-repr": "class R:\n    def __repr__(self): return 'r' * (100 << 20)\nR()",
            "endless-str-of-error": (
                "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E()"
            ),
            "trace": "sys.settrace(lambda *a: 1 / 0); sys.setprofile(lambda *a: 1 / 0)",
            "recursion-limit": "sys.setrecursionlimit(12)",
            "no-builtins": "globals().clear(); __builtins__ = {}",
            "audit-hook": ("def evil(*a): raise RuntimeError('hook')\nsys.addaudithook(evil)"),
            "frames": (
                "f = sys._getframe()\nwhile f:\n    for n in list(f.f_globals):\n"
                "        if n != '__builtins__' and f.f_globals is not globals():\n"
                "            f.f_globals[n] = None\n    f = f.f_back"
            ),
            "collector": (
                "import gc\nfor t in gc.get_objects():\n"
                "    if type(t) is dict and t.get('__name__', '').startswith('treegrpo'): t.clear()"
            ),
            "memory-of-python": ("import ctypes\nctypes.memset(id(None), 255, 16); x = None"),
        }.items()
    ),
    Attack(
        20,
        "planted-modules",
        "modules and path files left in the workspace are not loaded by a fork or a return",
        r"""
plant = "import sys; sys.pwned = 1; open('pwned', 'w').close()"
for name in ('sitecustomize', 'usercustomize', 'random', 'json', 'struct', 'marshal', 'site',
             'encodings', 'codecs', 'select', 'traceback', 'treegrpo', 'ctypes', 'numpy', 'gc'):
    open(f'{name}.py', 'w').write(plant)
open('x.pth', 'w').write(plant)
os.mkdir('lib'); open('lib/sitecustomize.py', 'w').write(plant)
print('HELD')
""",
        outside=_returns_unpoisoned,
    ),
    Attack(
        20,
        "poisoned-environment",
        "variables set by the code reach no process but the node's own",
        r"""
plant = "import sys; sys.pwned = 1; open('pwned', 'w').close()"
open('start.py', 'w').write(plant); open('sitecustomize.py', 'w').write(plant)
open('evil.so', 'wb').write(b'\x7fELF' + bytes(60))
os.environ.update(LD_PRELOAD='/workspace/evil.so', PYTHONSTARTUP='/workspace/start.py',
    PYTHONPATH='/workspace', PYTHONHOME='/workspace', LD_LIBRARY_PATH='/workspace',
    PYTHONINSPECT='1', PATH='/workspace', HOME='/workspace', TMPDIR='/nowhere', GCONV_PATH='.')
print('HELD')
""",
        outside=_returns_unpoisoned,
    ),
    *(
        Attack(
            21,
            name,
            "hidden tests are not in the node, and the verdict is computed outside",
            code,
            kinds=("ok", "exit", "exception"),
            says_held=False,
            outside=_verdict_is_outside,
        )
        for name, code in {
            "marker-and-exit": "print('ALL TESTS PASSED'); print('25'); sys.exit(0)",
            "equal-to-all": (
                "class Any(int):\n    def __eq__(self, other): return True\n"
                "    __hash__ = int.__hash__\n    def __repr__(self): return '9'\n"
                "def solve(n): return Any()"
            ),
            "patched-grader": (
                "import builtins, unittest\nbuiltins.AssertionError = Warning\n"
                "unittest.TestCase.assertEqual = lambda *a: None\n"
                "def solve(n): return None"
            ),
            "search-for-tests": (
                "import gc\nfound = []\n"
                "for t, _, names in os.walk('.'):\n"
                "    found += [n for n in names if 'test' in n or 'answer' in n]\n"
                "hidden = [o for o in gc.get_objects() if type(o) is dict and o.get(5) == '25']\n"
                "print('BROKE' if found or hidden else 'HELD', found, hidden)\n"
                "def solve(n): return found or hidden"
            ),
        }.items()
    ),
)
