"""treegrpo.memory: what fits is loaded, what does not is told before."""

from pathlib import Path

import pytest
import torch

from tests.toy_game import save_tiny_model
from treegrpo import memory
from treegrpo.loading import load_model
from treegrpo.memory import NotEnoughMemory, free_bytes, num_parameters, require_training_room

CPU = torch.device("cpu")


def test_free_memory_is_between_nothing_and_all() -> None:
    assert 2**20 < free_bytes(CPU) < 2**45


def test_parameters_are_counted_without_loading(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model")
    model, _ = load_model(folder, device="cpu")
    assert num_parameters(tmp_path / "model") == sum(p.numel() for p in model.parameters())
    assert num_parameters(tmp_path) is None and num_parameters(tmp_path / "none") is None
    (tmp_path / "model" / "model.safetensors").write_bytes(b"torn")
    assert num_parameters(tmp_path / "model") is None, "whoever loads it says so"


def test_a_model_that_does_not_fit_is_told_with_the_sum_and_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny_model(tmp_path / "model")
    count = num_parameters(tmp_path / "model")
    assert count is not None
    needed = 4 * 4 * count
    monkeypatch.setattr(memory, "free_bytes", lambda device: needed)  # pyright: ignore
    require_training_room(folder, torch.float32, CPU, keeps_reference=False)
    with pytest.raises(NotEnoughMemory, match=r"dtype=bfloat16.*leave out loss_options.kl_beta"):
        require_training_room(folder, torch.float32, CPU, keeps_reference=True)
    require_training_room(folder, torch.bfloat16, CPU, keeps_reference=True)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 3 * 2 * count)  # pyright: ignore
    with pytest.raises(NotEnoughMemory) as caught:
        require_training_room(folder, torch.bfloat16, CPU, keeps_reference=False)
    assert f"its {count:,} parameters in torch.bfloat16 take" in str(caught.value)
    assert "Either use a smaller model or a larger machine." in str(caught.value)
    require_training_room("some/hub-id", torch.float32, CPU, keeps_reference=True)
