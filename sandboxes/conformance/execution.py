"""Function: what a step of code gives back, and what it finds around it."""

from __future__ import annotations

import time

from treegrpo.sandboxes.base import Level
from treegrpo.sandboxes.conformance.case import (
    PATIENCE_S,
    Bench,
    Case,
    Checks,
    brief,
    case_of,
    first_fork,
)
from treegrpo.sandboxes.conformance.leaks import commands_with, new_nonce
from treegrpo.sandboxes.errors import SandboxDead

SNOWMAN = "\u2603\U0001f600\u6f22"
# Time enough to print a line first, also where the host is busy.
SHORT_S = 1.5


def last_expression_is_the_value(bench: Bench, check: Checks) -> None:
    """The value is the repr of the last expression statement, and None where there is none."""
    with bench.sandbox() as box:
        check.value("2", box, "1 + 1")
        check.value(None, box, "x = 5")
        check.value(None, box, "None")
        check.value("7", box, "y = 2\nx + y")
        check.value("'a\\n'", box, "'a' + chr(10)")
        check.value("[1, 2]", box, "z = 1; [z, 2]  # a comment")
        check.value(None, box, "")
        check.value(None, box, "for i in range(3):\n    i\n")
        check.same(b"", check.runs(box, "1 + 1").stdout, "stdout of an expression")


def names_live_from_step_to_step(bench: Bench, check: Checks) -> None:
    """Variables, functions, classes, imports and generators live on from one exec to the next."""
    with bench.sandbox() as box:
        check.runs(box, "import json as j\nx = [1]\ndef add(n):\n    x.append(n)\n    return x")
        check.runs(box, "class Point:\n    def __init__(self): self.at = 3\np = Point()")
        check.runs(box, "g = (i * i for i in range(9)); next(g); next(g)")
        check.value("'[1, 2]'", box, "j.dumps(add(2))")
        check.value("(3, 4)", box, "p.at, next(g)")
        check.value("'__main__'", box, "__name__")
        check.value("'__main__'", box, "Point.__module__")


def an_exception_is_a_result(bench: Bench, check: Checks) -> None:
    """An exception is a result with type and the code's own traceback; the sandbox lives on."""
    with bench.sandbox() as box:
        check.runs(box, "x = 41\ndef inner():\n    return 1 / 0")
        result = box.exec("print('before')\nx += 1\ninner()")
        check.same("exception", result.kind, "kind")
        check.same("ZeroDivisionError", result.exception, "type")
        check.same((b"before\n", True), (result.stdout, result.alive), "stdout and alive")
        trace = result.traceback or ""
        check.that("inner" in trace and "ZeroDivisionError" in trace, f"traceback: {trace}")
        check.that("worker" not in trace and "site-packages" not in trace, f"our frames: {trace}")
        for code, name in (
            ("def (", "SyntaxError"),
            ("'\\0'.encode().decode('nope')", "LookupError"),
            ("raise KeyboardInterrupt", "KeyboardInterrupt"),
            ("class Mine(BaseException): pass\nraise Mine(1)", "Mine"),
            ("import no_such_module", "ModuleNotFoundError"),
        ):
            got = box.exec(code)
            check.same(("exception", name, True), (got.kind, got.exception, got.alive), code)
        check.value("42", box, "x")


def sys_exit_ends_the_step_only(bench: Bench, check: Checks) -> None:
    """sys.exit ends the step with its code; the sandbox lives on with its variables."""
    with bench.sandbox() as box:
        for code, number in (("sys.exit(3)", 3), ("sys.exit()", 0), ("raise SystemExit(1)", 1)):
            result = box.exec(f"import sys; x = {number}\n{code}")
            found = (result.kind, result.exit_code, result.alive)
            check.same(("exit", number, True), found, code)
            check.value(str(number), box, "x")
        worded = box.exec("sys.exit('gone')")
        check.same(("exit", 1), (worded.kind, worded.exit_code), "sys.exit with a text")


def os_exit_kills_the_sandbox(bench: Bench, check: Checks) -> None:
    """os._exit gives kind exit with the code and ends the sandbox: later calls say so."""
    with bench.sandbox() as box:
        result = box.exec("import os, sys; print('last', flush=True); os._exit(7)")
        check.same(("exit", 7, False), (result.kind, result.exit_code, result.alive), "os._exit")
        check.same(b"last\n", result.stdout, "what was printed before")
        check.same(False, box.alive, "alive of the sandbox")
        check.raises(SandboxDead, lambda: box.exec("1"))
        check.raises(SandboxDead, box.fork)


def a_fast_crash_is_a_signal(bench: Bench, check: Checks) -> None:
    """A crash is a signal with its number, at once, never a timeout."""
    for code, number in (("ctypes.string_at(0)", 11), ("os.abort()", 6)):
        with bench.sandbox() as box:
            result = box.exec(f"import ctypes, os; {code}", timeout_s=2 * PATIENCE_S)
            found = (result.kind, result.signal, result.alive)
            check.same(("signal", number, False), found, code)
            check.that(result.wall_s < PATIENCE_S, f"{code}: took {result.wall_s} s")
            check.raises(SandboxDead, lambda box=box: box.exec("1"))


def stdin_is_what_was_given(bench: Bench, check: Checks) -> None:
    """A step reads exactly the bytes given as stdin, then the end; the next has its own."""
    with bench.sandbox() as box:
        check.value("'ab'", box, "import sys\nsys.stdin.read()", stdin=b"ab")
        check.value("('x', 'y')", box, "input(), input()", stdin=b"x\ny\nz\n")
        check.value("''", box, "sys.stdin.read()")
        check.same("EOFError", box.exec("input()").exception, "input() without stdin")
        code = "data = sys.stdin.buffer.read(); (len(data), data[:3], sum(data[-512:]))"
        large = bytes(range(256)) * (4 * 5 * 1024)
        check.value("(5242880, b'\\x00\\x01\\x02', 65280)", box, code, stdin=large)


def a_sequence_is_a_command(bench: Bench, check: Checks) -> None:
    """A sequence of strings runs as a subprocess in the workspace; its exit code is given."""
    with bench.sandbox() as box:
        check.runs(box, "x = 1")
        result = box.exec(["sh", "-c", "echo out; echo err >&2; exit 3"])
        check.same(("exit", 3, True), (result.kind, result.exit_code, result.alive), "sh")
        check.same((b"out\n", b"err\n"), (result.stdout, result.stderr), "output")
        check.same("ok", box.exec(["true"]).kind, "true")
        check.same(b"a b$(c)", box.exec(["printf", "%s", "a b$(c)"]).stdout, "no shell between")
        check.same(b"abc", box.exec(["cat"], stdin=b"abc").stdout, "stdin of cat")
        wide = "w" * 100_000
        check.same(100_000, len(box.exec(["printf", "%s", wide]).stdout), "a long argument")
        killed = box.exec(["sh", "-c", "kill -9 $$"])
        found = (killed.kind, killed.exit_code, killed.alive)
        check.same(("exit", 128 + 9, True), found, "a killed command")
        missing = box.exec(["no-such-command"])
        check.that(missing.kind in ("exit", "exception"), f"no such command: {missing}")
        check.value("1", box, "x")


def a_command_that_hangs_is_killed(bench: Bench, check: Checks) -> None:
    """A command that outlives its time gives timeout with what it had printed."""
    with bench.sandbox() as box:
        result = box.exec(["sh", "-c", "echo begun; sleep 600"], timeout_s=SHORT_S)
        check.same(("timeout", b"begun\n"), (result.kind, result.stdout), "kind and output")


def output_comes_whole(bench: Bench, check: Checks) -> None:
    """Stdout and stderr come apart, as bytes, from Python, descriptors and subprocesses alike."""
    with bench.sandbox() as box:
        code = (
            "import os, sys, subprocess\nprint('one', end='')\nsys.stderr.write('two')\n"
            "sys.stdout.flush(); sys.stderr.flush(); os.write(1, b'\\xff\\x00')\n"
            "done = subprocess.run(['sh', '-c', 'echo three; echo four >&2'])\n"
            "sys.stdout.buffer.write(b'\\xfe')"
        )
        result = check.runs(box, code)
        check.same(b"one\xff\x00three\n\xfe", result.stdout, "stdout")
        check.same(b"twofour\n", result.stderr, "stderr")
        text = check.runs(box, f"print({SNOWMAN!r})\n{SNOWMAN!r}")
        check.same((f"{SNOWMAN}\n", repr(SNOWMAN)), (text.text, text.value), "unicode")
        check.same(b"", check.runs(box, "pass").stdout, "stdout of the next step")


def output_is_cut_and_flagged(bench: Bench, check: Checks) -> None:
    """Output beyond the limit is cut, flagged for each stream, and never flagged at the limit."""
    with bench.sandbox(output_kib=1) as box:
        full = check.runs(box, "import sys; n = sys.stdout.write('x' * 1024)")
        check.same((1024, False), (len(full.stdout), full.stdout_truncated), "at the limit")
        over = check.runs(box, "n = sys.stdout.write('y' * 1025); n = sys.stderr.write('e')")
        check.same((True, False), (over.stdout_truncated, over.stderr_truncated), "flags")
        check.that(0 < len(over.stdout) <= 1024, f"kept {len(over.stdout)} bytes")
        check.that(set(over.stdout) <= set(b"y"), f"kept {brief(over.stdout)}")
        other = check.runs(box, "n = sys.stderr.write('z' * 100_000)")
        check.same((False, True), (other.stdout_truncated, other.stderr_truncated), "flags")


def large_code_and_values(bench: Bench, check: Checks) -> None:
    """Code of 1 MB runs; a value of many MB comes back, whole or cut, as text."""
    with bench.sandbox() as box:
        check.value("1000000", box, f"x = '{'a' * 1_000_000}'\nlen(x)")
        lines = "\n".join(f"v{i % 100} = {i}" for i in range(20_000))
        check.value("19999", box, f"{lines}\nv99")
        value = check.runs(box, "'b' * 5_000_000").value or ""
        check.that(value.startswith("'bbb"), f"a large value: {brief(value)}")


def a_timeout_kills_it_all(bench: Bench, check: Checks) -> None:
    """A timeout keeps partial output, kills the code with all its children, and says so."""
    nonce = new_nonce()
    with bench.sandbox() as box:
        code = (
            "import subprocess, time\nprint('partial')\n"
            f"p = subprocess.Popen(['sleep', '{nonce}'])\n"
            f"q = subprocess.Popen(['sh', '-c', 'sleep {nonce}; true'], start_new_session=True)\n"
            "print('no newline', end='')\ntime.sleep(600)"
        )
        started = time.monotonic()
        result = box.exec(code, timeout_s=SHORT_S)
        took = time.monotonic() - started
        told, most = f"{took} s, {result.wall_s} s", SHORT_S + PATIENCE_S
        check.same(("timeout", False), (result.kind, result.alive), "kind and alive")
        check.that(result.stdout.startswith(b"partial\n"), f"partial output: {result.stdout!r}")
        check.that(SHORT_S <= took < most and 0.9 * SHORT_S <= result.wall_s < most, told)
        check.raises(SandboxDead, lambda: box.exec("1"))
        check.empties(lambda: commands_with(nonce), "children live on")


def the_spec_sets_the_timeout(bench: Bench, check: Checks) -> None:
    """The time limit of the specification holds where exec names none."""
    with bench.sandbox(timeout_s=0.3) as box:
        check.same("timeout", box.exec("while True: pass").kind, "kind")


def times_are_told(bench: Bench, check: Checks) -> None:
    """A result tells wall and processor seconds; sleeping costs only the first."""
    with bench.sandbox() as box:
        # By the code's own processor time: it stands still while others have the processor.
        spin = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass"
        busy, idle = check.runs(box, spin), check.runs(box, "time.sleep(0.2)")
        check.that(busy.wall_s >= 0.19 and idle.wall_s >= 0.19, f"{busy.wall_s}, {idle.wall_s}")
        check.that(busy.cpu_s >= 0.19, f"cpu {busy.cpu_s} of a step that spent 0.2")
        check.that(idle.cpu_s < busy.cpu_s - 0.05, f"cpu {busy.cpu_s} and {idle.cpu_s}")


def common_libraries_work(bench: Bench, check: Checks) -> None:
    """What programs commonly use works: threads, pools, asyncio, sqlite, temporary files."""
    with bench.sandbox() as box:
        check.value(
            "[0, 1, 4]",
            box,
            "from concurrent.futures import ThreadPoolExecutor\n"
            "with ThreadPoolExecutor(2) as pool: r = list(pool.map(lambda n: n * n, range(3)))\nr",
        )
        check.value(
            "5",
            box,
            "import asyncio\nasync def f(): return 5\nasyncio.run(asyncio.wait_for(f(), 5))",
        )
        check.value(
            "[(1,)]",
            box,
            "import sqlite3\nwith sqlite3.connect('t.db') as db: r = list(db.execute('select 1'))\n"
            "db.close(); r",
        )
        check.value(
            "b'x'",
            box,
            "import tempfile\nwith tempfile.TemporaryFile() as f:\n"
            "    n = f.write(b'x'); n = f.seek(0); r = f.read()\nr",
        )
        check.value(
            "'3\\n'",
            box,
            "import subprocess, sys\nsubprocess.run([sys.executable, '-c', "
            "'print(1 + 2)'], capture_output=True, text=True).stdout",
        )
        check.value("True", box, "import datetime, decimal, hashlib, re, random, zlib; True")
        check.value(
            "b'hi'",
            box,
            "import socket\na, b = socket.socketpair()\n"
            "n = a.send(b'hi'); r = b.recv(9); a.close(); b.close(); r",
        )


def the_workspace_has_its_place(bench: Bench, check: Checks) -> None:
    """The workspace is /workspace in every state, and /tmp is the state's own too."""
    with bench.sandbox() as root:
        check.value("'/workspace'", root, "import os; os.getcwd()")
        check.same(b"/workspace\n", root.exec(["pwd"]).stdout, "pwd")
        for box, name in ((first_fork(root), "one"), (first_fork(root), "two")):
            check.runs(box, f"n = open('/workspace/f', 'w').write({name!r})")
            check.runs(box, f"n = open('/tmp/f', 'w').write({name!r})")
            names = "(os.getcwd(), os.listdir('/workspace'), open('/tmp/f').read())"
            check.value(f"('/workspace', ['f'], {name!r})", first_fork(box), names)
        check.value("False", root, "os.path.exists('/tmp/f')")


CASES: tuple[Case, ...] = (
    case_of(
        the_workspace_has_its_place,
        "function",
        holds_from=Level.L2,
        below="the workspace is a folder of the host's, the current one when a step begins",
    ),
    *(
        case_of(check, "function")
        for check in (
            last_expression_is_the_value,
            names_live_from_step_to_step,
            an_exception_is_a_result,
            sys_exit_ends_the_step_only,
            os_exit_kills_the_sandbox,
            a_fast_crash_is_a_signal,
            stdin_is_what_was_given,
            a_sequence_is_a_command,
            a_command_that_hangs_is_killed,
            output_comes_whole,
            output_is_cut_and_flagged,
            large_code_and_values,
            a_timeout_kills_it_all,
            the_spec_sets_the_timeout,
            times_are_told,
            common_libraries_work,
        )
    ),
)
