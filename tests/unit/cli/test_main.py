"""The command line's shape, which is frozen here, and how it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import typer

from treegrpo.cli import errors, main
from treegrpo.cli.errors import Stopped, stopping
from treegrpo.envs.errors import TreegrpoError

# Adding or renaming an option is a change of the interface: it belongs into the changelog.
OPTIONS = {
    "demo": "--algo --fast --out --seed --threads",
    "train": "--config --env --model --out --resume overrides",
    "warmstart": ("--demonstrations --difficulty --env --layers --mistakes --out --seed --threads"),
    "eval": (
        "--agent --agent-arg --base-url --concurrency --env --env-arg --first-index --key-env "
        "--out --prices --registration --requests-per-minute --retries --retry-failed --seed "
        "--split --tasks --training --trials"
    ),
    "sandbox bench": "--backend --quick",
    "sandbox probe": "--image --json",
    "new": "--into name",
    "check": "--seconds env",
    "mcp": "--env-arg --index --log --seed --split env",
    "play": "--difficulty --log --seed --split env",
    "replay": "--module --show log",
    "view": "--open --out --serve --success-reward runs",
    "envs": "--suite",
    "leaderboard add": (
        "--accept-changed --allowed-signers --episode-seconds --objects --step-seconds --store "
        "--trust-module --who bundle"
    ),
    "leaderboard claim": "--objects --store --who file",
    "leaderboard epoch": "--objects --salt --store --who",
    "leaderboard export": "--format --out bundle",
    "leaderboard get": "--objects --store digest out",
    "leaderboard ledger": "--check --checkpoint --since --store",
    "leaderboard merge": "--objects --other-objects --store --who other",
    "leaderboard migrate": "--objects --store",
    "leaderboard register": "--like --objects --store --tasks --trials --who",
    "leaderboard remove": "--reason --store --who digest",
    "leaderboard rescore": "--accept-changed --objects --store --trust-module --who digest",
    "leaderboard serve": (
        "--env --host --inbox --objects --port --reads-per-minute --store --workers "
        "--writes-per-minute"
    ),
    "leaderboard sign": "--key bundle",
    "leaderboard site": "--objects --store out",
    "leaderboard submit": "--insecure --to --token-env --wait bundle",
    "leaderboard verify": (
        "--accept-changed --allowed-signers --episode-seconds --sample --step-seconds "
        "--trust-module bundle"
    ),
    "leaderboard table": "--env --store",
    "leaderboard token list": "--store",
    "leaderboard token new": "--scope --store owner",
    "leaderboard token revoke": "--store token_id",
    "leaderboard plan": "--correlation --difference --from --power --rate --task-share --trials",
}


def _commands(group: Any = None, path: str = "") -> dict[str, Any]:
    group = group or typer.main.get_command(main.app)
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        inner = hasattr(command, "commands")
        found |= _commands(command, f"{path}{name} ") if inner else {f"{path}{name}": command}
    return found


def test_the_options_are_frozen() -> None:
    shown = {
        name: " ".join(sorted(p.opts[-1] for p in command.params if p.name != "help"))
        for name, command in _commands().items()
    }
    assert shown == OPTIONS


def test_every_command_and_option_is_explained() -> None:
    for name, command in _commands().items():
        assert command.help, name
        for parameter in command.params:
            assert parameter.help, f"{name} {parameter.name}"


def _run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # what main() sets does not outlive a test
    monkeypatch.setattr(sys, "argv", ["treegrpo", *words])
    try:
        main.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_command_line_alone_imports_no_torch() -> None:
    """It starts quickly, and sets what torch's threads read when torch is imported."""
    code = (
        "import os, sys; from treegrpo.cli import main; main.run = lambda app: None; main.main(); "
        "print('torch' in sys.modules, os.environ['OMP_WAIT_POLICY'])"
    )
    env = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "PASSIVE"], done.stderr


def test_version_and_envs(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import treegrpo

    assert _run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out.strip() == treegrpo.__version__
    assert _run(monkeypatch, "envs") == 0
    assert "treegrpo/SearchQA-v0" in capsys.readouterr().out.split()


def test_a_command_line_without_a_command_shows_the_help(
    monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    assert _run(monkeypatch) == 2
    shown = capsys.readouterr()
    assert "demo" in shown.out + shown.err
    assert "Error" not in shown.out + shown.err


def _app(error: BaseException) -> typer.Typer:
    app = typer.Typer()

    @app.command()
    def fail() -> None:
        raise error

    return app


def _ending(error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> tuple[Any, str]:
    monkeypatch.setattr(sys, "argv", ["treegrpo"])
    with pytest.raises(SystemExit) as end:
        errors.run(_app(error))
    return end.value.code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (TreegrpoError("A [b]c[/b] asked for."), 2, "Error: A [b]c[/b] asked for.\n"),
        (PermissionError(13, "Permission denied", "/x/y"), 2, "'/x/y' was asked for, but: Perm"),
        (OSError(28, "No space left on device"), 2, "but: No space left on device. Check"),
        (Stopped("Stopped. Go on."), 130, "Stopped. Go on.\n"),
        (KeyboardInterrupt(), 130, "Stopped.\n"),
        (typer.Exit(3), 3, ""),
    ],
)
def test_each_way_to_end_has_its_code(
    error: BaseException, code: int, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    found, text = _ending(error, monkeypatch, capsys)
    assert found == code
    assert shown in text
    assert text.count("\n") <= 1


def test_our_own_bugs_are_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["treegrpo"])
    with pytest.raises(ZeroDivisionError):
        errors.run(_app(ZeroDivisionError("ours")))


def test_stopping_says_what_is_kept() -> None:
    with pytest.raises(Stopped, match="it goes on"), stopping("it goes on"):
        raise KeyboardInterrupt
    with pytest.raises(KeyError), stopping("it goes on"):
        raise KeyError
