"""The commands on files and text, each against what the real one prints."""

import pytest

from treegrpo.envs.suite.terminal.disk import (
    MAX_BYTES,
    MAX_ENTRIES,
    CommandError,
    Disk,
    File,
    Folder,
    disk_of,
    resolved,
)
from treegrpo.envs.suite.terminal.machine import Machine
from treegrpo.envs.suite.terminal.shell import run

FILES = {
    "/w/a.txt": "one two\nthree\nfour five six\n",
    "/w/b.txt": "x=1\ny=2\nx=10\n",
    "/w/n.csv": "b,2,z\na,10,y\nc,1,x\n",
    "/w/sub/c.log": "ERROR a\nINFO b\nERROR c\n",
    "/w/sub/d.log": "INFO q\n",
    "/w/sub/deep/e.md": "# t\n\nfoo\nfoo\nbar\n",
}


def fresh() -> Machine:
    return Machine(disk_of(FILES), cwd="/w")


@pytest.mark.parametrize(
    ("line", "out"),
    [
        ("ls", "a.txt\nb.txt\nn.csv\nsub\n"),
        ("touch .h; ls -a sub/deep; ls -A", ".\n..\ne.md\n.h\na.txt\nb.txt\nn.csv\nsub\n"),
        ("ls -R sub", "sub:\nc.log\nd.log\ndeep\n\nsub/deep:\ne.md\n"),
        ("ls -d sub; ls sub/*.log", "sub\nsub/c.log\nsub/d.log\n"),
        ("cat -n b.txt", "     1\tx=1\n     2\ty=2\n     3\tx=10\n"),
        ("echo -n hi; echo -e 'a\\tb'", "hia\tb\n"),
        ("printf '%s-%d\\n' a 1 b 2", "a-1\nb-2\n"),
        ("printf '100%%'", "100%"),
        ("grep -n x b.txt", "1:x=1\n3:x=10\n"),
        ("grep -c ERROR sub/*.log", "sub/c.log:2\nsub/d.log:0\n"),
        ("grep -rl ERROR .", "./sub/c.log\n"),
        ("grep -rn --include='*.md' foo .", "./sub/deep/e.md:3:foo\n./sub/deep/e.md:4:foo\n"),
        ("grep -v x b.txt", "y=2\n"),
        ("grep -i error sub/c.log", "ERROR a\nERROR c\n"),
        ("grep -E 'x=1$|y' b.txt", "x=1\ny=2\n"),
        ("grep 'x=1*$' b.txt", "x=1\n"),
        ("grep -o 'x=[0-9]*' b.txt", "x=1\nx=10\n"),
        ("grep -F 'x=1' b.txt", "x=1\nx=10\n"),
        ("grep -x 'x=1' b.txt", "x=1\n"),
        ("grep -w x b.txt | wc -l", "2\n"),
        ("grep 'a\\|b' n.csv", "b,2,z\na,10,y\n"),
        ('grep "[[:digit:]]\\{2\\}" n.csv', "a,10,y\n"),
        ("sed 's/x/z/' b.txt", "z=1\ny=2\nz=10\n"),
        ("sed -n '2,3p' b.txt", "y=2\nx=10\n"),
        ("sed -n '$p' b.txt; sed '2q' b.txt", "x=10\nx=1\ny=2\n"),
        ("sed '/y/d' b.txt", "x=1\nx=10\n"),
        ("sed 's/\\(x\\)=\\([0-9]*\\)/\\2=\\1/' b.txt", "1=x\ny=2\n10=x\n"),
        ("sed -E 's/(x)=([0-9]+)/[&]/' b.txt", "[x=1]\ny=2\n[x=10]\n"),
        ("sed 's/o/0/g;s/e/3/2' a.txt", "0ne tw0\nthre3\nf0ur five six\n"),
        ("sed 's|b|x/y|' n.csv | head -n 1", "x/y,2,z\n"),
        ("sed -n '/three/,/four/p' a.txt", "three\nfour five six\n"),
        ("sed -n 's/x/[&]/p' b.txt", "[x]=1\n[x]=10\n"),
        ("sed -i 's/^x=1$/x=7/' b.txt && cat b.txt", "x=7\ny=2\nx=10\n"),
        ("head -n 1 a.txt b.txt", "==> a.txt <==\none two\n\n==> b.txt <==\nx=1\n"),
        ("head -2 b.txt; head -n -1 b.txt", "x=1\ny=2\nx=1\ny=2\n"),
        ("tail -n +2 b.txt; tail -n 1 b.txt", "y=2\nx=10\nx=10\n"),
        ("head -c 3 a.txt; tail -c 4 a.txt", "onesix\n"),
        ("wc a.txt; wc -l *.txt", "3 6 28 a.txt\n3 a.txt\n3 b.txt\n6 total\n"),
        ("sort -r b.txt", "y=2\nx=10\nx=1\n"),
        ("sort -t , -k 2 -n n.csv", "c,1,x\nb,2,z\na,10,y\n"),
        ("sort -t , -k 2,2nr n.csv", "a,10,y\nb,2,z\nc,1,x\n"),
        ("sort -u sub/deep/e.md", "\n# t\nbar\nfoo\n"),
        ("uniq -c sub/deep/e.md | tail -n 2", "      2 foo\n      1 bar\n"),
        ("uniq -d sub/deep/e.md; uniq -u sub/deep/e.md | wc -l", "foo\n3\n"),
        ("cut -d , -f 1,3 n.csv", "b,z\na,y\nc,x\n"),
        ("cut -d , -f 2- n.csv; cut -c 1-3 b.txt", "2,z\n10,y\n1,x\nx=1\ny=2\nx=1\n"),
        ("tr a-z A-Z < b.txt; tr -d '=\\n' < b.txt", "X=1\nY=2\nX=10\nx1y2x10"),
        ("echo aabbcc | tr -s a-c; echo hello | tr el ip", "abc\nhippo\n"),
        ("echo a | tee t u | cat; cat t u; echo b | tee -a t; cat t", "a\na\na\nb\na\nb\n"),
        ("find . -type d", ".\n./sub\n./sub/deep\n"),
        ("find sub -name '*.log'; find /w -iname 'A*'", "sub/c.log\nsub/d.log\n/w/a.txt\n"),
        ("find . -maxdepth 1 -type f ! -name '*.txt'", "./n.csv\n"),
        ("find . -name '*.log' -delete; find sub", "sub\nsub/deep\nsub/deep/e.md\n"),
        ("mkdir -p q/w/e; mkdir q/x; find q -empty", "q/w/e\nq/x\n"),
        ("mv a.txt sub; ls sub", "a.txt\nc.log\nd.log\ndeep\n"),
        ("mv sub/*.log .; ls sub; cat d.log", "deep\nINFO q\n"),
        ("mv a.txt b.txt; cat b.txt | head -n 1; ls", "one two\nb.txt\nn.csv\nsub\n"),
        ("mv -n a.txt b.txt; head -n 1 b.txt", "x=1\n"),
        ("cp -r sub s2; rm -r sub; find s2 -type f", "s2/c.log\ns2/d.log\ns2/deep/e.md\n"),
        ("rm -f nope; rm -v a.txt; ls *.txt", "removed 'a.txt'\nb.txt\n"),
        ("rm -r sub/deep; mkdir sub/z; rmdir sub/z; ls sub", "c.log\nd.log\n"),
        ("chmod 400 a.txt; ls -l a.txt", "-r-------- agent     28 00:00 a.txt\n"),
        ("chmod u+x a.txt; ls -l a.txt | cut -c 1-10", "-rwxr--r--\n"),
        ("diff a.txt a.txt; diff -q a.txt b.txt", "Files a.txt and b.txt differ\n"),
        (
            "echo y=3 > z; diff b.txt z | tail -n 5",
            "@@ -1,3 +1 @@\n-x=1\n-y=2\n-x=10\n+y=3\n",
        ),
        ("cp -r sub s2; rm s2/d.log; diff -r sub s2", "Only in sub: d.log\n"),
    ],
)
def test_a_command_prints_what_the_real_one_prints(line: str, out: str) -> None:
    assert run(fresh(), line).out == out


@pytest.mark.parametrize(
    ("line", "text", "code"),
    [
        ("cat sub", "cat: sub: Is a directory", 1),
        ("cat a.txt/", "cat: a.txt/: Not a directory", 1),
        ("ls nope", "ls: cannot access 'nope': No such file or directory", 2),
        ("grep zzz b.txt", "", 1),
        ("grep a sub", "grep: sub: Is a directory", 2),
        ("grep '[' b.txt", "grep: unmatched [ in pattern", 2),
        ("grep '[z-a]' b.txt", "grep: invalid pattern: bad character range z-a at position 1", 2),
        ("grep '\\(a\\)\\1' b.txt", "grep: back-references in a pattern are not supported", 2),
        ("grep -E 'a{99}' b.txt", "grep: invalid repeat; counts go up to 32", 2),
        ("sed 'y/a/b/' b.txt", "sed: unknown or unsupported command: 'y'; use s, p, d or q", 1),
        ("sed 's/a/b' b.txt", "sed: a '/' is missing", 1),
        ("mkdir sub", "mkdir: cannot create directory 'sub': File exists", 1),
        ("mkdir x/y", "mkdir: cannot create directory 'x/y': No such file or directory", 1),
        ("mkdir a.txt/y", "mkdir: cannot create directory 'a.txt/y': /w/a.txt: Not a directory", 1),
        ("rm sub", "rm: cannot remove 'sub': Is a directory", 1),
        ("rm nope", "rm: cannot remove 'nope': No such file or directory", 1),
        ("rm -rf /", "rm: refusing to remove '/'", 1),
        ("rm -rf ..", "rm: refusing to remove '..'", 1),
        ("rm", "rm: missing operand", 1),
        ("rmdir sub", "rmdir: failed to remove 'sub': Directory not empty", 1),
        ("mv sub sub/deep", "mv: cannot put 'sub' into itself, 'sub/deep'", 1),
        ("mv a.txt a.txt", "mv: 'a.txt' and 'a.txt' are the same file", 1),
        ("mv a.txt b.txt n.csv", "mv: target 'n.csv' is not a directory", 1),
        ("mv sub a.txt", "mv: cannot overwrite '/w/a.txt' with directory 'sub'", 1),
        ("cp sub x", "cp: -r not specified; omitting directory 'sub'", 1),
        ("chmod 9 a.txt", "chmod: invalid mode: '9'", 1),
        ("find . -exec rm {} +", "find: unknown or unsupported predicate '-exec'", 1),
        ("cut -f 1 -c 1 a.txt", "cut: give either a list of fields (-f) or of characters (-c)", 1),
        ("cut -f 0 a.txt", "cut: invalid list '0'", 1),
        ("printf %x 1", "printf: only %s, %d and %% are supported", 1),
        ("head -n x a.txt", "head: invalid number: 'x'", 1),
        ("tr a", "tr: give two sets, or one with -d or -s", 1),
    ],
)
def test_what_fails_says_why_and_changes_nothing(line: str, text: str, code: int) -> None:
    machine = fresh()
    output = run(machine, line)
    assert output.out.startswith(text) and output.code == code
    assert bool(output.out) == bool(text)
    assert machine.disk.files() == FILES


def test_one_operand_that_fails_does_not_stop_the_others() -> None:
    machine = fresh()
    output = run(machine, "rm nope a.txt")
    assert output.code == 1 and "/w/a.txt" not in machine.disk.files()


def test_permissions_hold() -> None:
    machine = fresh()
    run(machine, "chmod a-w a.txt; chmod u-r b.txt")
    assert run(machine, "echo x >> a.txt").out == "sh: a.txt: Permission denied\n"
    assert run(machine, "sed -i 's/one/1/' a.txt").out == "sed: a.txt: Permission denied\n"
    assert run(machine, "cat b.txt").out == "cat: b.txt: Permission denied\n"
    assert machine.disk.files() == FILES
    run(machine, "chmod u+rw a.txt b.txt; echo x > a.txt")
    assert machine.disk.files() == {**FILES, "/w/a.txt": "x\n"}


def test_hostile_texts_are_only_texts() -> None:
    machine = fresh()
    run(machine, "printf '\x1b[31m\x00\u00e9\\n' > bad; cat bad bad > worse")
    assert machine.disk.files()["/w/worse"] == "\x1b[31m\x00\u00e9\n" * 2
    assert run(machine, "wc -c bad").out == "9 bad\n"


def test_a_disk_has_caps() -> None:
    machine = fresh()
    names = " ".join(f"f{number}" for number in range(MAX_ENTRIES))
    assert run(machine, f"touch {names}").out.endswith("touch: No space left on device\n")
    assert len(machine.disk.entries) == MAX_ENTRIES
    machine = fresh()
    run(machine, "printf '%s' " + "x" * 8_000 + " > big")
    out = run(machine, "; ".join(["cat big big big big > b2"] + ["cat b2 b2 > b3"] * 2)).out
    assert out == ""
    assert run(machine, "cat b3 b2 > b4").out == "sh: File too large\n"
    assert run(machine, "cp b3 b5; cp b2 b6").out.count("No space left on device") >= 1
    assert sum(map(len, machine.disk.files().values())) <= MAX_BYTES
    assert run(machine, "touch " + "n" * 100).out == "touch: File name too long\n"


def test_a_disk_refuses_what_has_no_folder() -> None:
    disk = disk_of({"/a/b": "x"})
    with pytest.raises(CommandError, match="/c: No such file or directory"):
        disk.changed({"/c/d": File("")})
    with pytest.raises(CommandError, match="/a/b: Not a directory"):
        disk.changed({"/a/b/c": Folder()})
    assert list(disk.walk("/")) == ["/", "/a", "/a/b"]
    assert disk.changed({"/a/b": None}).files() == {}
    assert Disk().children("/") == []


@pytest.mark.parametrize(
    ("path", "absolute"),
    [("a", "/w/a"), ("../../..", "/"), ("/x//y/./../z/", "/x/z"), ("", "/w"), ("~", "/w/~")],
)
def test_paths_are_made_absolute(path: str, absolute: str) -> None:
    assert resolved("/w", path) == absolute
