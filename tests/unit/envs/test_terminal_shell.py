"""The shell subset: words, pipes, redirection, conditions, what is refused, what it may cost."""

import copy
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treegrpo.envs.digest import digest
from treegrpo.envs.suite.terminal import machine as machine_module
from treegrpo.envs.suite.terminal.disk import disk_of
from treegrpo.envs.suite.terminal.machine import MAX_OUTPUT, Machine
from treegrpo.envs.suite.terminal.patterns import name_matches
from treegrpo.envs.suite.terminal.shell import PROGRAMS, run
from treegrpo.envs.suite.terminal.syntax import MAX_COMMANDS

FILES = {
    "/w/a.txt": "one two\nthree\nfour five six\n",
    "/w/b.txt": "x=1\ny=2\nx=10\n",
    "/w/.hid": "h\n",
    "/w/sub/c.log": "ERROR a\nINFO b\nERROR c\n",
    "/w/sub/d.log": "INFO q\n",
}


def fresh() -> Machine:
    return Machine(disk_of(FILES, ("/home/agent",)), cwd="/w")


def shown(line: str) -> tuple[str, int]:
    output = run(fresh(), line)
    return output.out, output.code


@pytest.mark.parametrize(
    ("line", "out", "code"),
    [
        ("", "", 0),
        ("pwd", "/w\n", 0),
        ("echo a   b \"c  d\" 'e $x' \\$y", "a b c  d e $x $y\n", 0),
        ("X=5; echo $X ${X}y \"$X\" '$X'", "5 5y 5 $X\n", 0),
        ('X="a  b"; echo $X; echo "$X"', "a b\na  b\n", 0),
        ("echo *.txt [ab].txt ?.txt", "a.txt b.txt a.txt b.txt a.txt b.txt\n", 0),
        ("echo '*.txt' \\* nomatch*", "*.txt * nomatch*\n", 0),
        ("echo s*/*.log", "sub/c.log sub/d.log\n", 0),
        ("echo /w/*/[!c].log", "/w/sub/d.log\n", 0),
        ("echo ~ $HOME $PWD $USER", "/home/agent /home/agent /w agent\n", 0),
        ("echo 'it'\"'\"'s' # comment", "it's\n", 0),
        ("echo a#b", "a#b\n", 0),
        ("false && echo a || echo b", "b\n", 0),
        ("true || echo a; echo b", "b\n", 0),
        ("false || false || echo c && echo d", "c\nd\n", 0),
        ("true &&\necho next", "next\n", 0),
        ("false; echo $?", "1\n", 0),
        ("cat a.txt | grep o | wc -l", "2\n", 0),
        ("echo a > o; echo b >> o; cat o", "a\nb\n", 0),
        ("sort b.txt > b.txt; cat b.txt; wc -c b.txt", "0 b.txt\n", 0),
        ("cat nope 2> err; cat err", "cat: nope: No such file or directory\n", 0),
        ("cat nope 2>/dev/null", "", 1),
        ("cat nope a.txt 2>&1 | wc -l", "4\n", 0),
        ("cat nope a.txt > both 2>&1; wc -l both", "4 both\n", 0),
        ("cat nope a.txt &> both; wc -l < both", "4\n", 0),
        ("echo oops 1>&2 2>/dev/null", "oops\n", 0),
        ("cat < a.txt | head -n 1", "one two\n", 0),
        ("cd sub && pwd; cd ..; pwd", "/w/sub\n/w\n", 0),
        ("cd sub | true; pwd", "/w\n", 0),
        ("cd ../../../w/./sub/ && ls", "c.log\nd.log\n", 0),
        ("find . -name '*.log' | sort | xargs wc -l", "3 ./sub/c.log\n1 ./sub/d.log\n4 total\n", 0),
        ("[ 3 -gt 2 ] && [ a = a ] && test -f a.txt && echo yes", "yes\n", 0),
        ("test ! -d a.txt && test -d sub && [ -z '' ] && [ -s a.txt ] && echo yes", "yes\n", 0),
        ("export Q=1; echo $Q", "1\n", 0),
    ],
)
def test_a_line_prints_what_a_shell_prints(line: str, out: str, code: int) -> None:
    assert shown(line) == (out, code)


@pytest.mark.parametrize(
    ("line", "text", "code"),
    [
        ("foo", "sh: foo: command not found", 127),
        ("echo 'a", "sh: a ' is not closed", 2),
        ('echo "a', 'sh: a " is not closed', 2),
        ("echo a;; echo b", "sh: syntax error near unexpected token ';'", 2),
        ("echo a |", "sh: syntax error near unexpected token 'newline'", 2),
        ("| echo a", "sh: syntax error near unexpected token '|'", 2),
        ("echo a && && b", "sh: syntax error near unexpected token '&&'", 2),
        ("echo a >", "sh: syntax error near unexpected token 'newline'", 2),
        ("echo > | cat", "sh: syntax error near unexpected token '|'", 2),
        ("while true; do echo a; done", "sh: while: not supported; run plain commands", 2),
        ("for i in a; do echo a; done", "sh: for: not supported; run plain commands", 2),
        ("echo $(ls)", "sh: command substitution is not supported; run it by itself", 2),
        ("echo `ls`", "sh: command substitution is not supported; run it by itself", 2),
        ("sleep 1 &", "sh: background jobs (&) are not supported", 2),
        ("(ls)", "sh: subshells (() are not supported", 2),
        ("cat << EOF", "sh: here-documents (<<) are not supported", 2),
        ("echo ${x:-1}", "sh: only ${NAME} is supported", 2),
        ("X=1 ls", "sh: NAME=value before a command is not supported", 2),
        ("echo a > sub", "sh: sub: Is a directory", 1),
        ("echo a > no/b", "sh: /w/no: No such file or directory", 1),
        ("cat < no", "sh: no: No such file or directory", 1),
        ("echo a > *.txt", "sh: ambiguous redirect", 1),
        ("cd nope", "cd: nope: No such file or directory", 1),
        ("cd a.txt", "cd: a.txt: Not a directory", 1),
        ("ls -Z", "ls: invalid option -- 'Z'", 2),
        ("sort --what", "sort: unrecognized option '--what'", 2),
        ("head -n", "head: option requires an argument -- 'n'", 2),
        ("[ 1 -eq 1", "[: missing ']'", 2),
        ("[ a -gt 1 ]", "[: a: integer expected", 2),
    ],
)
def test_what_cannot_be_run_is_told_with_its_exit_code(line: str, text: str, code: int) -> None:
    assert shown(line) == (f"{text}\n", code)


def test_a_file_is_changed_only_where_it_was_asked() -> None:
    machine = fresh()
    before = machine.disk
    run(machine, "echo new >> a.txt")
    assert machine.disk.files() == {**FILES, "/w/a.txt": FILES["/w/a.txt"] + "new\n"}
    assert before.files() == FILES
    shared = [path for path in FILES if machine.disk.get(path) is before.get(path)]
    assert shared == [path for path in FILES if path != "/w/a.txt"]


def test_copies_of_a_machine_never_see_each_other() -> None:
    machine = fresh()
    twin = copy.deepcopy(machine)
    assert twin.disk is machine.disk
    run(machine, "rm -r sub; X=1; cd /")
    assert (twin.cwd, twin.variables, twin.disk.files()) == ("/w", {}, FILES)
    assert digest(twin) == digest(fresh()) != digest(machine)


def test_the_clock_counts_lines_and_nothing_else() -> None:
    machine = fresh()
    run(machine, "true; true; true")
    run(machine, "touch late")
    assert machine.clock == 2
    assert run(machine, "ls -l late").out == "-rw-r--r-- agent      0 00:02 late\n"


@pytest.mark.parametrize(
    "line",
    [
        "; ".join(["true"] * (MAX_COMMANDS + 1)),
        "X=aaaaaaaaaaaaaaaa" + "; X=$X$X$X$X$X$X$X$X" * 8 + "; echo $X",
        "; ".join(f"X{number}=1" for number in range(70)),
        "cat " + "big " * 200,
        "echo " + "* " * 1_000,
    ],
)
def test_what_would_grow_without_bound_is_cut(line: str) -> None:
    machine = fresh()
    run(machine, "printf '%s' " + "x" * 8_000 + " > big")
    output = run(machine, line)
    assert len(output.out) <= MAX_OUTPUT + 200
    assert any(word in output.out for word in ("more than", "too long", "output cut"))
    assert len(machine.variables) <= 64


@pytest.mark.parametrize(
    "line",
    [
        "grep -E 'a*a*a*a*a*b' evil",
        "grep -E 'a*b' evil evil evil evil evil",
        "grep -E '(a|a)(a|a)(a|a)(a|a)(a|a)b' evil",
        "sed -E 's/a*a*c/x/g' evil",
        "; ".join(["find / -name '" + "*a" * 100 + "'"] * 60),
        "; ".join(["grep -E 'a.*b' evil"] * 60),
    ],
)
def test_a_costly_pattern_is_refused_before_it_runs(line: str) -> None:
    machine = fresh()
    run(machine, "printf '%s' " + "a" * 7_900 + " > evil")
    run(machine, "mkdir -p many; cd many; touch " + " ".join("a" * 60 + str(n) for n in range(90)))
    run(machine, "cd ..")
    started = time.perf_counter()
    output = run(machine, line)
    assert "this takes too long here; ask for less at once" in output.out
    # A search that is not refused would take minutes.
    assert time.perf_counter() - started < 10
    assert run(machine, "grep -c a evil").out == "1\n"  # the next line starts anew


@pytest.mark.parametrize(
    "line",
    [
        "find " + "/ " * 150 + "-type f " * 200 + "-name zz",
        "find " + "/ " * 150 + "-empty " * 200 + "-name zz",
        "cat n.txt n.txt | sed '" + "s/a/b/;" * 120 + "'",
        "cat n.txt n.txt | sed -n '" + "p;" * 120 + "'",
        "cat" + " n.txt" * 9 + " | sort" * 60,
        "cat n.txt n.txt" + " | grep -v x" * 60,
    ],
)
def test_many_cheap_steps_are_bounded_too(line: str) -> None:
    machine = fresh()
    run(machine, "mkdir -p /tmp")
    for folder in range(4):
        names = " ".join(f"/tmp/f{folder}{n}" for n in range(100))
        run(machine, f"touch {names}")
    run(machine, "printf '\\n" + "\\n" * 2_500 + "' > n.txt; cat n.txt n.txt n.txt n.txt > m.txt")
    run(machine, "mv m.txt n.txt")
    assert run(machine, "ls /tmp | wc -l; cat n.txt | wc -l").out == "400\n10004\n"
    output = run(machine, line)  # unbounded, some took 20 seconds
    assert "this takes too long here; ask for less at once" in output.out


@pytest.mark.parametrize(
    ("line", "out", "code"),
    [
        ("mkdir -p q/{r,s}", "sh: {A,B} and {1..N} are not supported; write the words out\n", 2),
        ("echo {1..9}", "sh: {A,B} and {1..N} are not supported; write the words out\n", 2),
        ("echo '{r,s}' \\{a", "{r,s} {a\n", 0),
        ("echo $1", "sh: $1 is not supported\n", 2),
        ('echo "$@"', "sh: $@ is not supported\n", 2),
        ("echo a$ 'b$1'", "a$ b$1\n", 0),
        (r"x='a\b'; echo $x", "a\\b\n", 0),
        ("x=' b '; echo a$x", "a b\n", 0),
        ("x=' b'; echo $x", "b\n", 0),
        ("x='b '; echo ${x}c", "b c\n", 0),
        ("echo a\\\nb", "ab\n", 0),
        ("sort -k1,1 -k2,2n a.txt", "sort: option '-k' is supported once only\n", 2),
        ("chmod 0600 a.txt && ls a.txt", "a.txt\n", 0),
    ],
)
def test_what_a_shell_would_read_otherwise_is_refused_or_the_same(
    line: str, out: str, code: int
) -> None:
    assert shown(line) == (out, code)


@pytest.mark.parametrize("pattern", [r"\(a*\)*b", r"(a+)+b"])
def test_a_repeated_group_is_refused(pattern: str) -> None:
    flag = "-E " if pattern.startswith("(") else ""
    assert shown(f"grep {flag}'{pattern}' a.txt") == (
        "grep: a repeated group is not supported\n",
        2,
    )


def test_no_command_reaches_the_host() -> None:
    out, code = shown("cat /etc/passwd; ls /proc; find / -type f")
    assert code == 0
    assert out.splitlines() == [
        "cat: /etc/passwd: No such file or directory",
        "ls: cannot access '/proc': No such file or directory",
        *sorted(FILES, key=lambda path: path.split("/")),
    ]
    assert machine_module.NULL not in fresh().disk.entries


def test_help_lists_every_command() -> None:
    assert shown("help")[0].split() == sorted(PROGRAMS)


SIGNS = st.text("ab*.?'\"\\$|&;<>()[]{}\n #-=/~!0\x00\x1b\u00e9", max_size=40)
OPERANDS = ("-r", "-n", "-e", "-f", "-i", "-m", "a.txt", "sub", "*", "/", "..", "init", "commit")
SYNTAX = ("|", ">", ">>", "&&", "||", ";", "s/a*/b/g", "1,2p")
WORDS = st.lists(st.sampled_from([*sorted(PROGRAMS), *OPERANDS, *SYNTAX]), max_size=8).map(" ".join)


@settings(max_examples=300, deadline=None)
@given(st.lists(SIGNS | WORDS, max_size=4))
def test_no_line_whatever_raises_and_none_touches_the_disk_before(lines: list[str]) -> None:
    machine = fresh()
    before = machine.disk
    for line in lines:
        output = run(machine, line)
        assert output.code == machine.status and output.err == ""
    assert before.files() == FILES
    twin = fresh()
    for line in lines:
        run(twin, line)
    assert digest(twin) == digest(machine)


@given(st.text("ab-", max_size=6), st.text("ab-", max_size=8))
def test_a_star_fits_any_text_around_a_name(inner: str, name: str) -> None:
    paid: list[int] = []
    assert name_matches(f"*{inner}*", name, paid.append) == (inner in name)
    assert name_matches(f"{inner}*", name, paid.append) == name.startswith(inner)
    assert name_matches("?" * len(name), name, paid.append)
    assert not name_matches("?" * (len(name) + 1), name, paid.append)
    assert len(paid) == 4
