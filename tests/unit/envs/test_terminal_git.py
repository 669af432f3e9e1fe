"""The history: what is committed can be seen, compared and brought back."""

import re

import pytest

from treegrpo.envs.suite.terminal.disk import disk_of
from treegrpo.envs.suite.terminal.git_commands import MAX_COMMITS
from treegrpo.envs.suite.terminal.machine import Machine
from treegrpo.envs.suite.terminal.shell import run


def say(machine: Machine, line: str) -> str:
    output = run(machine, line)
    assert output.code == 0, output.out
    return output.out


def fails(machine: Machine, line: str) -> str:
    output = run(machine, line)
    assert output.code != 0, output.out
    return output.out


@pytest.fixture
def machine() -> Machine:
    """A repository with two commits: a changed, b added."""
    machine = Machine(disk_of({"/r/a": "1\n", "/r/d/b": "b\n"}), cwd="/r")
    say(machine, "git init && git add a && git commit -m first")
    say(machine, "echo 2 > a && git add . && git commit -m second")
    return machine


def ids(machine: Machine) -> list[str]:
    return [line.split()[0] for line in say(machine, "git log --oneline").splitlines()]


def test_a_log_shows_the_newest_first_and_ids_are_those_of_the_content(machine: Machine) -> None:
    lines = say(machine, "git log --oneline").splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["second", "first"]
    other = Machine(disk_of({"/elsewhere/a": "1\n", "/elsewhere/d/b": "b\n"}), cwd="/elsewhere")
    say(other, "true; true")
    say(other, "git init; git add a; git commit -m first; echo 2 > a; git add -A")
    say(other, "git commit -m second")
    assert ids(other) == ids(machine)
    assert re.match(r"commit [0-9a-f]{40}\n\n    second\n\ncommit ", say(machine, "git log"))
    assert say(machine, "git log -1 --oneline") == f"{lines[0]}\n"
    assert say(machine, "git log --oneline -- d") == f"{lines[0]}\n"
    assert say(machine, "git log --oneline HEAD~1") == f"{lines[1]}\n"


def test_status_tells_what_is_staged_changed_and_unknown(machine: Machine) -> None:
    assert say(machine, "git status") == "On branch main\nnothing to commit, working tree clean\n"
    say(machine, "echo 3 > a; echo n > new; rm d/b; echo s > staged; git add staged")
    assert say(machine, "git status -s") == ("On branch main\n M a\n D d/b\n?? new\nA  staged\n")


def test_diff_and_show(machine: Machine) -> None:
    say(machine, "echo 3 > a")
    change = "diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1 +1 @@\n-{}\n+{}\n"
    assert say(machine, "git diff") == change.format(2, 3)
    assert say(machine, "git diff HEAD~1 -- a") == change.format(1, 3)
    assert say(machine, "git diff HEAD~1 HEAD -- a") == change.format(1, 2)
    assert say(machine, "git diff --staged") == ""
    assert say(machine, "git add a; git diff --staged") == change.format(2, 3)
    assert say(machine, "git show HEAD~1:a") == "1\n"
    shown = say(machine, "git show")
    assert "    second\n" in shown and "+++ b/d/b\n@@ -0,0 +1 @@\n+b\n" in shown
    assert "--- /dev/null" in shown


def test_files_come_back_and_others_stay(machine: Machine) -> None:
    say(machine, "echo mine > d/b; rm a")
    assert say(machine, "git checkout -- a; cat a") == "Updated 1 path\n2\n"
    first = ids(machine)[-1]
    assert say(machine, f"git checkout {first} -- a; cat a d/b") == "Updated 1 path\n1\nmine\n"
    say(machine, "rm -r d; git checkout HEAD d")
    assert say(machine, "cat d/b") == "b\n"


def test_branches_switch_the_working_tree(machine: Machine) -> None:
    say(machine, "git checkout -b side; echo 9 > a; git commit -a -m ninth")
    assert say(machine, "git branch") == "  main\n* side\n"
    assert say(machine, "git checkout main; cat a") == "Switched to branch main\n2\n"
    assert say(machine, "git checkout side; cat a") == "Switched to branch side\n9\n"
    say(machine, "git checkout HEAD~2")
    assert say(machine, "cat a; ls") == "1\na\n"
    assert "On commit " in say(machine, "git status")
    say(machine, "git checkout main; git branch -d side")
    assert say(machine, "git branch") == "* main\n"


def test_a_revert_is_a_new_commit(machine: Machine) -> None:
    out = say(machine, "git revert --no-edit HEAD")
    assert 'Revert "second"' in out and say(machine, "cat a; ls") == "1\na\n"
    assert len(ids(machine)) == 3
    assert say(machine, "git status").endswith("clean\n")
    assert "was changed since" in fails(machine, f"git revert {ids(machine)[1]}")


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("git", "git: '' is not a git command"),
        ("git push", "git: 'push' is not a git command; there are init, status, add"),
        ("git commit -m again", "nothing to commit"),
        ("git commit", "fatal: give a message"),
        ("git add nope", "fatal: pathspec 'nope' did not match any files"),
        ("git add /etc", "fatal: '/etc' is outside repository"),
        ("git show nope", "fatal: bad revision 'nope'"),
        ("git show HEAD~9", "fatal: bad revision 'HEAD~9'"),
        ("git show HEAD:nope", "fatal: path 'nope' does not exist in 'HEAD'"),
        ("git checkout nope", "error: pathspec 'nope' did not match"),
        ("git checkout HEAD -- nope", "error: pathspec 'nope' did not match"),
        ("git checkout -b main", "fatal: a branch 'main' cannot be made"),
        ("git checkout -b abcdef", "fatal: 'abcdef' is not a valid branch name"),
        ("git branch -d main", "error: branch 'main' is checked out"),
        ("cd /; git status", "fatal: not a git repository"),
    ],
)
def test_what_fails_says_why(machine: Machine, line: str, text: str) -> None:
    before = machine.disk.files()
    assert fails(machine, line).startswith(text)
    assert machine.disk.files() == before


def test_work_that_is_not_committed_is_never_overwritten_by_a_switch(machine: Machine) -> None:
    say(machine, "git branch side; echo mine > a")
    text = fails(machine, "git checkout side")
    assert text.startswith("error: your local changes would be overwritten by checkout:\n\ta\n")
    assert say(machine, "cat a") == "mine\n"


def test_a_history_is_moved_copied_and_lost_with_its_folder(machine: Machine) -> None:
    first = ids(machine)
    say(machine, "cp -r /r /s; cd /s")
    assert ids(machine) == first
    say(machine, "echo 5 > a; git commit -a -m fifth; cd /r")
    assert ids(machine) == first
    say(machine, "rm -rf .git")
    assert fails(machine, "git log").startswith("fatal: not a git repository")
    assert fails(machine, "cat /s/.git") == "cat: /s/.git: Is a directory\n"


def test_a_history_has_a_cap(machine: Machine) -> None:
    lines = [f"echo {number + 5} > a; git commit -a -m c{number}" for number in range(MAX_COMMITS)]
    outputs = [run(machine, line) for line in lines]
    assert outputs[MAX_COMMITS - 3].code == 0
    assert outputs[-1].out == f"fatal: a history has at most {MAX_COMMITS} commits\n"
