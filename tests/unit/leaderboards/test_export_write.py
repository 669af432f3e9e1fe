"""Where an export appears: whole or not at all, over nothing, with hostile text as data."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic_core import from_json
from typer.testing import CliRunner

from tests.unit.leaderboards.exported import toy_bundle
from tests.unit.leaderboards.toy import forge
from treegrpo.cli.leaderboard import leaderboard_app
from treegrpo.envs.errors import TreegrpoError, UnknownOption
from treegrpo.leaderboards.bundle import Bundle, read_bundle
from treegrpo.leaderboards.errors import BundleError
from treegrpo.leaderboards.export import write as exports
from treegrpo.leaderboards.export.write import FORMATS, Format, export

NAMES = {"every-eval-ever": "eee", "hugging-face": "toy.yaml", "inspect": "log.json"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_bundle(tmp_path_factory.mktemp("toy") / "bundle", num_tasks=2, trials=1).path


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("name", "out"), NAMES.items())
def test_the_command_writes_each_format(name: str, out: str, bundle: Path, tmp_path: Path) -> None:
    words = ["export", str(bundle), "--format", name, "--out", str(tmp_path / out)]
    result = CliRunner().invoke(leaderboard_app, words)
    assert result.exit_code == 0, result.output
    digest = read_bundle(bundle).digest[:12]
    said = f"Bundle {digest} written to {tmp_path / out} as {name}"
    # Lines may break within the path, wherever the folder of the test makes it long.
    assert "".join(result.output.split()) == "".join(said.split())
    assert left(tmp_path) == [out]


def test_every_format_has_a_name() -> None:
    assert list(FORMATS) == list(NAMES)


def test_an_unknown_format_is_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownOption) as caught:
        export(bundle, "inspekt", tmp_path / "x.json")
    assert str(caught.value) == (
        "Format 'inspekt' asked for, found every-eval-ever, hugging-face, inspect. "
        "Did you mean 'inspect'? Give one of these."
    )


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_nothing_is_overwritten(kind: str, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "log.json"
    if kind == "file":
        out.write_text("mine")
    elif kind == "folder":
        out.mkdir()
    else:
        out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(TreegrpoError) as caught:
        export(bundle, "inspect", out)
    assert str(caught.value) == (
        f"An export to '{out}' asked for, but that path exists already. Give another path, or "
        "move away what is there; nothing is overwritten."
    )
    assert left(tmp_path) == ["log.json"]
    assert kind != "file" or out.read_text() == "mine"


def test_another_suffix_is_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(TreegrpoError) as caught:
        export(bundle, "hugging-face", tmp_path / "toy.yml")
    assert str(caught.value) == (
        f"An export to '{tmp_path / 'toy.yml'}' asked for, but hugging-face is one file whose "
        "name ends in .yaml. Give such a name."
    )


def test_a_place_in_the_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    before = left(bundle)
    (tmp_path / "link").symlink_to(bundle)
    with pytest.raises(TreegrpoError, match="lies in the bundle"):
        export(bundle, "inspect", tmp_path / "link" / "log.json")
    with pytest.raises(TreegrpoError, match=r"lies in the bundle .*, where nothing else may lie"):
        export(bundle, "inspect", bundle / "trajectories" / ".." / "log.json")
    assert left(bundle) == before


def test_a_folder_that_is_not_there_is_named(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "no" / "log.json"
    with pytest.raises(TreegrpoError) as caught:
        export(bundle, "inspect", out)
    assert str(caught.value) == (
        f"An export to '{out}' asked for, but it cannot be written: No such file or directory. "
        "Give a path in an existing folder with space and write permission."
    )


def test_what_breaks_half_way_leaves_nothing(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(_: Bundle, out: Path) -> None:
        out.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exports, "FORMATS", {"half": Format(half, None)})
    with pytest.raises(TreegrpoError, match="cannot be written: No space left on device"):
        export(bundle, "half", tmp_path / "out")
    assert left(tmp_path) == []


def test_what_appears_meanwhile_is_kept(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(_: Bundle, out: Path) -> None:
        out.write_text("new")
        (tmp_path / "out").write_text("of another")

    monkeypatch.setattr(exports, "FORMATS", {"slow": Format(slow, None)})
    with pytest.raises(TreegrpoError, match="that path exists already"):
        export(bundle, "slow", tmp_path / "out")
    assert left(tmp_path) == ["out"]
    assert (tmp_path / "out").read_text() == "of another"


def test_a_damaged_bundle_is_refused(bundle: Path, tmp_path: Path) -> None:
    forge(bundle, tmp_path / "forged", rechain=False, events=edit_observation)
    with pytest.raises(BundleError, match="field chain: the event was altered"):
        export(tmp_path / "forged", "inspect", tmp_path / "log.json")
    assert left(tmp_path) == ["forged"]


def edit_observation(_: Any, log: list[dict[str, Any]]) -> None:
    log[0]["observation"] = "Another question?"


def test_numbers_beyond_a_format_are_one_message(bundle: Path, tmp_path: Path) -> None:
    forge(bundle, tmp_path / "forged", episode=lambda _: {"reward": "1.7e+308"})
    with pytest.raises(TreegrpoError) as caught:
        export(tmp_path / "forged", "every-eval-ever", tmp_path / "out")
    assert str(caught.value).startswith(
        f"An export of '{tmp_path / 'forged'}' asked for, but it holds a number that "
        "every-eval-ever cannot hold: "
    )
    assert left(tmp_path) == ["forged"]


HOSTILE = [
    '<tool_call>{"name": "guess", "arguments": {"number": "\\ud800"}}</tool_call>',
    '<tool_call>{"name": "guess", "arguments": {"number": NaN}}</tool_call>',
    '<tool_call>{"name": "g", "arguments": {"n": ' + "[" * 195 + "]" * 195 + "}}</tool_call>",
    "<script>alert(1)</script> \x1b[31m \u202e \" ' \\ {{7*7}} attachment://0"
    '<tool_call>{"name": "</script>", "arguments": {"a": [1, {"b": null}]}}</tool_call>'
    '<tool_call>{"name": "x"}</tool_call>',
]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("toy") / "bundle"
    return toy_bundle(
        out,
        action=lambda view: HOSTILE[view.env.episode.turns],
        name="</script>: *x",
        num_tasks=1,
        trials=1,
    ).path


Texts = Callable[[Path], list[str]]


def inspect_texts(out: Path) -> list[str]:
    # The reader of these logs stops at 200 levels and at half a character.
    log = from_json((out / "log.json").read_bytes(), allow_inf_nan=False)
    return [m["content"] for m in log["samples"][0]["messages"] if m["role"] == "assistant"]


def every_eval_ever_texts(out: Path) -> list[str]:
    (samples,) = (out / "eee").rglob("*.jsonl")
    row = from_json(samples.read_bytes(), allow_inf_nan=False)
    return [m["content"] for m in row["messages"] if m["role"] == "assistant"]


@pytest.mark.parametrize(
    ("name", "texts"),
    [("inspect", inspect_texts), ("every-eval-ever", every_eval_ever_texts)],
    ids=["inspect", "every-eval-ever"],
)
def test_hostile_text_stays_data(name: str, texts: Texts, hostile: Path, tmp_path: Path) -> None:
    export(hostile, name, tmp_path / NAMES[name])
    played = [event.action for event in _steps(read_bundle(hostile))]
    assert texts(tmp_path) == played
    assert played[3].startswith("<script>")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    for path in files:
        data = path.read_bytes()
        assert data.isascii()
        assert b"\x1b" not in data


def test_only_calls_that_readers_take_are_read_out(hostile: Path, tmp_path: Path) -> None:
    export(hostile, "inspect", tmp_path / "log.json")
    log = json.loads((tmp_path / "log.json").read_text(encoding="ascii"))
    said = [m for m in log["samples"][0]["messages"] if m["role"] == "assistant"]
    assert ["tool_calls" in message for message in said] == [False, False, False, True]
    assert said[3]["tool_calls"] == [
        {"id": "4.1", "function": "</script>", "arguments": {"a": [1, {"b": None}]}},
        {"id": "4.2", "function": "x", "arguments": {}},
    ]


def test_hostile_names_in_yaml(hostile: Path, tmp_path: Path) -> None:
    export(hostile, "hugging-face", tmp_path / "toy.yaml")
    (entry,) = yaml.safe_load((tmp_path / "toy.yaml").read_text(encoding="ascii"))
    assert "agent </script>: *x; " in entry["notes"]
    assert math.isfinite(entry["value"])


def _steps(bundle: Bundle) -> list[Any]:
    return [event for event in bundle.events(bundle.episodes[0]) if event.kind == "step"]
