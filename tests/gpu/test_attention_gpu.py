"""The attention kernels of a GPU: right forward and backward, whatever the shape."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.fakes_models import tiny_model
from tests.tree_layouts import (
    BUSH,
    NO_LIMIT,
    Forest,
    Grown,
    grow,
    inputs_of,
    is_token,
    parts_of,
    worst,
)
from treegrpo.attention import Backend, TreeLayout
from treegrpo.attention.dense import dense
from treegrpo.attention.flex import flex
from treegrpo.attention.segments import segments
from treegrpo.attention.varlen import varlen
from treegrpo.envs.errors import TreegrpoError
from treegrpo.logprobs import FLAT, token_logps
from treegrpo.pack import PackedBatch, pack
from treegrpo.selfcheck import supported

pytestmark = pytest.mark.gpu

FORESTS: dict[str, Forest] = {
    "bush": [BUSH],
    "several": [BUSH, [Grown(0, 4)], BUSH[:7]],
    "chain of 127": [[Grown(0, 126)]],
    "chain of 128": [[Grown(0, 127)]],
    "chain of 129": [[Grown(0, 128)]],
    "single tokens": [[Grown(0, 1), Grown(0, 1), Grown(1, 1), Grown(3, 1), Grown(3, 1)]],
    "wide": [[Grown(0, 300), *(Grown(1, 5 + n % 40, n % 3) for n in range(64))]],
}
SHAPES = pytest.mark.parametrize("forest", FORESTS.values(), ids=list(FORESTS))
HEADS = pytest.mark.parametrize("heads", [(4, 4), (14, 2)], ids=["equal", "7 to 1"])


def on_gpu(forest: Forest, num_rows: int = 1) -> PackedBatch:
    parts = parts_of(grow(forest))
    longest = max(part.tokens for part in parts)
    total = sum(part.tokens for part in parts)
    row_tokens = max(longest, -(-total // num_rows))
    return pack(parts, max_tokens=NO_LIMIT, row_tokens=row_tokens, device=torch.device("cuda"))[0]


def layout_of(forest: Forest, num_rows: int = 1) -> TreeLayout:
    return on_gpu(forest, num_rows).layout


def distance(found: list[Tensor], expected: list[Tensor]) -> float:
    """Return the norm of the difference over that of what is expected."""
    pairs = list(zip(found, expected, strict=True))
    gap = sum(float((one.double() - true.double()).square().sum()) for one, true in pairs)
    whole = sum(float(true.double().square().sum()) for _, true in pairs)
    return (gap / whole) ** 0.5 if whole else gap**0.5


@SHAPES
@HEADS
@pytest.mark.parametrize("num_rows", [1, 2])
def test_flex_equals_dense_in_float32(
    forest: Forest, heads: tuple[int, int], num_rows: int
) -> None:
    layout = layout_of(forest, num_rows)
    inputs = inputs_of(layout, heads=heads[0], key_heads=heads[1], size=64)
    expected = inputs.attend(dense, layout)
    found = inputs.to(torch.float32).attend(flex, layout)
    assert worst(found, expected, layout) <= 1e-5


@SHAPES
@HEADS
@pytest.mark.parametrize("num_rows", [1, 2])
@pytest.mark.parametrize("backend", [flex, varlen, segments])
def test_rounding_is_no_worse_than_that_of_dense(
    backend: Backend, forest: Forest, heads: tuple[int, int], num_rows: int
) -> None:
    layout = layout_of(forest, num_rows)
    inputs = inputs_of(layout, heads=heads[0], key_heads=heads[1], size=64)
    rounded = inputs.to(torch.bfloat16)
    exact = rounded.to(torch.float64).attend(dense, layout)
    own = rounded.attend(dense, layout)
    found = rounded.attend(backend, layout)
    token_B1U1 = is_token(layout)[:, None, :, None]
    for one, of_dense, true in zip(found, own, exact, strict=True):
        one, of_dense, true = one * token_B1U1, of_dense * token_B1U1, true * token_B1U1
        assert distance([one], [true]) <= 1.5 * distance([of_dense], [true]) + 1e-4


def test_varlen_gradients_of_keys_shared_by_many_leaves() -> None:
    """A prompt of 300 tokens with 64 leaves: sums in bfloat16 would lose them one by one."""
    layout = layout_of(FORESTS["wide"])
    rounded = inputs_of(layout, size=64).to(torch.bfloat16)
    exact = rounded.to(torch.float64).attend(dense, layout)
    found = rounded.attend(varlen, layout)
    assert worst(found, exact, layout) <= 2e-2


def test_flex_takes_many_lengths() -> None:
    """More lengths than torch would compile for, one after the other, and each is right."""
    for num_tokens in (*range(100, 2000, 97), 130, 131, 257):
        layout = layout_of([[Grown(0, num_tokens), Grown(1, 40), Grown(1, 50)]])
        inputs = inputs_of(layout, size=64)
        expected = inputs.attend(dense, layout)
        assert worst(inputs.to(torch.float32).attend(flex, layout), expected, layout) <= 1e-5


def test_varlen_says_which_formats_it_takes() -> None:
    layout = layout_of([BUSH])
    with pytest.raises(TreegrpoError, match=r"float32.*bfloat16.*attention=segments"):
        inputs_of(layout, size=64, dtype=torch.float32).attend(varlen, layout)


def model_of(dtype: torch.dtype) -> Any:
    """A model of head size 32, small weights: bfloat16 is to be the only source of error."""
    model: Any = tiny_model("qwen3", vocab_size=1024, hidden_size=128, heads=4, kv_heads=2)
    return model.to("cuda", dtype).eval()


def test_models_in_bfloat16_are_trained_with_all_backends() -> None:
    found = supported(model_of(torch.bfloat16), ["varlen", "flex", "segments"], 256)
    assert found.backends == ["varlen", "flex", "segments"] and found.flat == FLAT, found.reasons


def test_models_in_float32_are_trained_with_all_but_varlen() -> None:
    found = supported(model_of(torch.float32), ["varlen", "flex", "segments"], 256)
    assert found.backends == ["flex", "segments"] and found.flat == FLAT, found.reasons


def gradients(model: Any, batch: PackedBatch, backend: str) -> list[Tensor]:
    logp_E = token_logps(model, batch, 1.0, backend)
    factors_E = torch.linspace(-1, 1, len(logp_E), device=logp_E.device)
    return list(torch.autograd.grad((logp_E * factors_E).sum(), list(model.parameters())))


@pytest.mark.parametrize("backend", ["varlen", "flex"])
def test_bfloat16_gradients_are_as_near_the_truth_as_those_of_dense(backend: str) -> None:
    model = model_of(torch.bfloat16)
    batch = on_gpu([BUSH], 1)
    exact = gradients(model_of(torch.bfloat16).double(), batch, "dense")
    own = distance(gradients(model, batch, "dense"), exact)
    assert distance(gradients(model, batch, backend), exact) <= 1.5 * own


@pytest.mark.parametrize("backend", ["varlen", "flex"])
def test_a_compiled_model_has_the_same_gradients(backend: str) -> None:
    plain, fast = model_of(torch.bfloat16), model_of(torch.bfloat16)
    fast.base_model.compile(dynamic=True)
    exact = model_of(torch.bfloat16).double()
    for forest in ([BUSH], [BUSH[:7]], [BUSH, BUSH[:5]]):
        batch = on_gpu(forest)
        truth = gradients(exact, batch, "dense")
        own = distance(gradients(plain, batch, backend), truth)
        assert distance(gradients(fast, batch, backend), truth) <= 1.5 * own
