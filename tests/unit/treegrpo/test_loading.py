"""Loading a model folder: what is found, and one message for everything that is wrong with it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from treegrpo import loading
from treegrpo.envs.errors import TreegrpoError
from treegrpo.loading import ModelNotFound, NotWritten, load_model, pick_device, save_model
from treegrpo.tiny import build_model, build_tokenizer


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "whole"
    tokenizer = build_tokenizer(["one two three"])
    save_model(build_model(len(tokenizer), layers=1, width=32), tokenizer, folder)
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved, tmp_path / "model")


def test_a_saved_model_comes_back(saved: Path) -> None:
    model, tokenizer = load_model(str(saved))
    assert not model.training
    assert model.dtype == torch.float32
    assert model.config._attn_implementation == "sdpa"
    assert tokenizer.encode("two") == build_tokenizer(["one two three"]).encode("two")
    assert load_model(str(saved), dtype="bfloat16")[0].dtype == torch.bfloat16


def _cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:2000])


def _spoil_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"not a weight file at all")


def _drop_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _drop_one_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _spoil_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _strange_kind(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "abacus"}))


def _spoil_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0", "model": 7}')


def _drop_config(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    "spoil",
    [
        _cut_weights, _spoil_weights, _drop_weights, _drop_one_tensor, _spoil_config,
        _strange_kind, _spoil_tokenizer, _drop_config,
    ],
)  # fmt: skip
def test_a_damaged_folder_is_one_message(spoil: Callable[[Path], None], copy: Path) -> None:
    spoil(copy)
    with pytest.raises(ModelNotFound) as caught:
        load_model(str(copy))
    message = str(caught.value)
    assert message.startswith(f"Model '{copy}' asked for, but ")
    assert "Give a" in message or "Get the folder" in message
    assert "\n" not in message


def test_the_missing_tensor_is_named(copy: Path) -> None:
    _drop_one_tensor(copy)
    with pytest.raises(ModelNotFound, match=r"lack 1 tensors.*up_proj"):
        load_model(str(copy))


@pytest.mark.parametrize(
    ("name", "found"),
    [("/no/such", "no such folder"), ("./none", "no such folder"), ("a/b/c", "no such folder")],
)
def test_a_path_is_never_taken_for_a_hub_id(
    name: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "_hub_has", lambda name: pytest.fail("the hub was asked"))
    with pytest.raises(ModelNotFound, match=found):
        load_model(name)


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ModelNotFound, match="that is a file"):
        load_model(str(tmp_path / "file"))


@pytest.mark.parametrize("name", ["nobody/nothing-at-all", "nothing-at-all"])
def test_a_hub_id_without_network_is_a_quick_message(name: str) -> None:
    started = time.perf_counter()
    with pytest.raises(ModelNotFound, match="hub cannot be reached"):
        load_model(name)
    assert time.perf_counter() - started < 30


def test_without_network_the_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def unreachable(name: str, **options: Any) -> None:
        asked.append((name, options["timeout"]))
        raise ConnectionError("Name or service not known")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.model_info", unreachable)
    with pytest.raises(ModelNotFound, match="hub cannot be reached"):
        load_model("nobody/nothing-at-all")
    assert asked == [("nobody/nothing-at-all", 5.0)]


def test_an_id_that_cannot_be_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(ModelNotFound, match="no such model that you may read"):
        load_model("not an id")


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    with pytest.raises(TreegrpoError, match=r"'cuda:1' asked for.*no GPU.*device=cpu"):
        pick_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert pick_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(TreegrpoError, match="sees 1 GPU"):
        pick_device("cuda:1")


def test_saving_replaces_a_folder_whole(copy: Path) -> None:
    (copy / "left.txt").write_text("over")
    model, tokenizer = load_model(str(copy))
    save_model(model, tokenizer, copy)
    assert not (copy / "left.txt").exists()
    assert [path.name for path in copy.parent.iterdir()] == ["model"]


def test_a_failed_save_leaves_the_old_folder(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = load_model(str(copy))

    def full(folder: str) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tokenizer, "save_pretrained", full)
    with pytest.raises(NotWritten, match=r"asked for, but: No space left on device\. Free some"):
        save_model(model, tokenizer, copy)
    assert [path.name for path in copy.parent.iterdir()] == ["model"]
    assert load_model(str(copy))[0].num_parameters() == model.num_parameters()
