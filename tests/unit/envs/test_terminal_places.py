"""Absolute paths of a task and where they lie in a sandbox."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treegrpo.envs.suite.terminal.places import (
    path_in_binary,
    placed,
    renaming,
    rewritten,
    rewritten_file,
)

NAMES = {"/logs": "/workspace/logs", "/app": "/workspace/app"}


def test_first_folders_move_below_the_workspace_and_temporary_ones_stay() -> None:
    assert renaming(["/app/data/x", "/app", "/", "/tmp/y", "/workspace/z", "/b.csv"]) == {
        "/logs": "/workspace/logs",
        "/app": "/workspace/app",
        "/b.csv": "/workspace/b.csv",
    }


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("/", "/workspace"),
        ("/app", "/workspace/app"),
        ("/app/a b/c", "/workspace/app/a b/c"),
        ("/tmp/x", "/tmp/x"),
        ("/workspace/x", "/workspace/x"),
    ],
)
def test_a_path_is_placed(path: str, there: str) -> None:
    assert placed(path, NAMES) == there


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("/app", "/workspace/app"),
        ("cd /app/x", "cd /workspace/app/x"),
        ('open("/app")', 'open("/workspace/app")'),
        ("Write to /app.", "Write to /workspace/app."),
        ("`/app`, (/app) /app\n", "`/workspace/app`, (/workspace/app) /workspace/app\n"),
        ("A=/bin:/app/bin", "A=/bin:/workspace/app/bin"),
        ("/logs/x and /app", "/workspace/logs/x and /workspace/app"),
        ("/apple /app-2 /app_x /app.py", "/apple /app-2 /app_x /app.py"),
        ("./app lib/app ~/app $HOME/app", "./app lib/app ~/app $HOME/app"),
        ("${X}/app $(pwd)/app */app //app", "${X}/app $(pwd)/app */app //app"),
        ("app \\/app", "app \\/workspace/app"),
    ],
)
def test_a_name_counts_as_a_whole_only(text: str, there: str) -> None:
    assert rewritten(text, NAMES) == there


def test_the_longest_name_wins() -> None:
    names = {"/logs": "/workspace/logs", "/logs/verifier": "/hidden"}
    assert rewritten("/logs/verifier/r /logs/verifiers /logs", names) == (
        "/hidden/r /workspace/logs/verifiers /workspace/logs"
    )


@given(st.text())
def test_what_was_rewritten_is_not_rewritten_again(text: str) -> None:
    once = rewritten(text, NAMES)
    assert rewritten(once, NAMES) == once


def test_files_that_are_no_texts_stay_and_their_paths_are_found() -> None:
    binary = b"\x7fELF\x00/app/bin\x00"
    assert rewritten_file(binary, NAMES) == binary
    assert path_in_binary(binary, NAMES) == "/app"
    assert path_in_binary(b"\xff/apple", NAMES) is None
    assert rewritten_file("\u00e9 /app".encode(), NAMES) == "\u00e9 /workspace/app".encode()
    assert path_in_binary(b"/app", NAMES) is None
