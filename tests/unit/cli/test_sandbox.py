"""treegrpo sandbox probe prints what each backend says, as tables and as JSON."""

from __future__ import annotations

import json
from typing import ClassVar

import pytest
from typer.testing import CliRunner

from treegrpo import sandboxes
from treegrpo.cli.sandbox import sandbox_app
from treegrpo.envs.errors import TreegrpoError
from treegrpo.sandboxes.base import Capabilities, Feature, Level
from treegrpo.sandboxes.errors import SandboxError

FOUND = {
    "process": Capabilities(
        "process",
        Level.L2,
        (
            Feature("landlock", True, "ABI 7"),
            Feature("cgroups", False, "not [delegated]", "use Delegate=yes"),
        ),
    ),
    "docker": Capabilities(
        "docker", Level.L0, (Feature("engine", False, "no engine answers", "start it"),)
    ),
}


class FakeBackend:
    closed: ClassVar[list[str]] = []
    options: ClassVar[dict[str, dict[str, str]]] = {}

    def __init__(self, name: str, **options: str) -> None:
        if options.get("image") == "":
            raise SandboxError("The docker backend was given image=''.")
        self.name = name
        self.options[name] = options

    def __enter__(self) -> FakeBackend:
        return self

    def __exit__(self, *error: object) -> None:
        self.closed.append(self.name)

    def probe(self) -> Capabilities:
        return FOUND[self.name]


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeBackend, "closed", [])
    monkeypatch.setattr(FakeBackend, "options", {})
    monkeypatch.setattr(sandboxes, "open_backend", FakeBackend, raising=False)


def test_the_tables_name_level_reason_and_remedy() -> None:
    done = CliRunner().invoke(sandbox_app, ["probe"], env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    for said in (
        "process: level L2 (namespaces",
        "docker: level L0",
        "ABI 7",
        "not [delegated]",
        "use Delegate=yes",
        "no engine answers",
    ):
        assert said in done.output
    assert FakeBackend.closed == ["process", "docker"]


def test_json_is_the_same_in_data() -> None:
    done = CliRunner().invoke(sandbox_app, ["probe", "--json"])
    process, docker = json.loads(done.output)
    assert (process["backend"], process["level"]) == ("process", 2)
    assert process["features"][1] == {
        "name": "cgroups",
        "present": False,
        "reason": "not [delegated]",
        "remedy": "use Delegate=yes",
    }
    assert docker["level"] == 0


def test_docker_is_probed_with_the_image_that_is_named() -> None:
    done = CliRunner().invoke(sandbox_app, ["probe", "--image", "mine:1"])
    assert done.exit_code == 0, done.output
    assert FakeBackend.options == {"process": {}, "docker": {"image": "mine:1"}}
    assert CliRunner().invoke(sandbox_app, ["probe"]).exit_code == 0
    assert FakeBackend.options == {"process": {}, "docker": {}}


def test_an_image_that_cannot_be_is_refused_in_one_sentence() -> None:
    done = CliRunner().invoke(sandbox_app, ["probe", "--image", ""])
    assert isinstance(done.exception, TreegrpoError)
    assert str(done.exception) == "The docker backend was given image=''."
