"""treegrpo sandbox bench: the targets with the numbers found, and refusals in one sentence."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from treegrpo import sandboxes
from treegrpo.cli.sandbox import sandbox_app
from treegrpo.envs.errors import TreegrpoError
from treegrpo.sandboxes import SandboxUnavailable, bench
from treegrpo.sandboxes.bench import BenchReport
from treegrpo.sandboxes.bench.report import latencies


class FakeBackend:
    name = "process"

    def __enter__(self) -> FakeBackend:
        return self

    def __exit__(self, *error: object) -> None:
        pass


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandboxes, "open_backend", lambda name: FakeBackend())


def test_the_table_holds_each_target_with_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def run(backend: FakeBackend, quick: bool, *, progress: Any) -> BenchReport:
        asked.append((backend.name, quick))
        progress("forks")
        found = (latencies("node_fork", "", [0.002]), latencies("memory_fork", "", [0.004]))
        return BenchReport("process", 2, found, {}, {})

    monkeypatch.setattr(bench, "run_bench", run)
    done = CliRunner().invoke(sandbox_app, ["bench", "--quick"], env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    assert asked == [("process", True)]
    lines = {
        line.split()[1]: line for line in done.output.splitlines() if line.startswith("\u2502")
    }
    assert "2.00" in lines["node_fork_p50_ms"] and "yes" in lines["node_fork_p50_ms"]
    assert "4.00" in lines["memory_fork_p50_ms"] and " no " in lines["memory_fork_p50_ms"]
    assert "not measured" in lines["live2000_mb"] and ">= 300" in lines["forks_per_s"]
    assert "level L2" in done.output


def test_a_host_without_sandboxes_gets_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object, **__: object) -> BenchReport:
        raise SandboxUnavailable("no user namespaces; use the backend 'docker'")

    monkeypatch.setattr(bench, "run_bench", run)
    done = CliRunner().invoke(sandbox_app, ["bench"])
    assert isinstance(done.exception, TreegrpoError)
    assert "no user namespaces" in str(done.exception)


def test_an_unknown_backend_is_refused_with_those_there_are() -> None:
    done = CliRunner().invoke(sandbox_app, ["bench", "--backend", "vm"])
    assert isinstance(done.exception, TreegrpoError)
    assert "'vm'" in str(done.exception) and "process and docker" in str(done.exception)
