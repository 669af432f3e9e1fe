"""Which models may be trained packed: by their configuration, and by the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor

from tests.fakes_models import tiny_model
from treegrpo.attention import TreeLayout
from treegrpo.attention.base import _BACKENDS as BACKENDS
from treegrpo.attention.base import PREFIX, attention, get_attention
from treegrpo.attention.dense import dense
from treegrpo.envs.errors import TreegrpoError
from treegrpo.logprobs import FLAT, WHOLE, token_logps
from treegrpo.pack import Weighted, pack, split
from treegrpo.selfcheck import Support, supported
from treegrpo.tree import Tree

CONTEXT = 256
ON_CPU = ["segments", "dense"]
SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


def tiny(family: Any, dtype: torch.dtype) -> Any:
    model: Any = tiny_model(family)
    return model.to(dtype).eval()


def made(architecture: Any, config: Any) -> Any:
    """A model with random weights, the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return architecture(config).eval()


def mamba() -> Any:
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "initializer_range", "bos_token_id",
             "eos_token_id", "pad_token_id")  # fmt: skip
    config = hf.MambaConfig(**{name: SIZES[name] for name in names}, state_size=8)
    return made(hf.MambaForCausalLM, config)


def qwen2(window: int | None) -> Any:
    with_window: dict[str, Any] = {
        "use_sliding_window": True,
        "sliding_window": window,
        "max_window_layers": 1,
    }
    return made(hf.Qwen2ForCausalLM, hf.Qwen2Config(**SIZES, **(with_window if window else {})))


def mistral(window: int | None) -> Any:
    """A model whose window stands in its configuration without kinds of layers."""
    return made(hf.MistralForCausalLM, hf.MistralConfig(**SIZES, sliding_window=window))


def gemma2(**settings: Any) -> Any:
    sizes: dict[str, Any] = {
        **SIZES,
        "pad_token_id": 0,
        "head_dim": 8,
        "layer_types": ["full_attention"] * 2,
    }
    return made(hf.Gemma2ForCausalLM, hf.Gemma2Config(**sizes, **settings))


def cohere(logit_scale: float) -> Any:
    sizes: dict[str, Any] = {**SIZES, "pad_token_id": 0, "logit_scale": logit_scale}
    return made(hf.CohereForCausalLM, hf.CohereConfig(**sizes))


TURNING = {"rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [2.0, 3.0, 4.0, 5.0]}
LONG_ROPE: dict[str, Any] = {
    **TURNING, "rope_type": "longrope", "factor": 8.0, "original_max_position_embeddings": 64
}  # fmt: skip
DYNAMIC: dict[str, Any] = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}


def phi3() -> Any:
    sizes: dict[str, Any] = {**SIZES, "pad_token_id": 0, "original_max_position_embeddings": 64}
    return made(hf.Phi3ForCausalLM, hf.Phi3Config(**sizes, rope_parameters=LONG_ROPE))


def llama(rope: dict[str, Any], positions: int) -> Any:
    sizes: dict[str, Any] = {**SIZES, "max_position_embeddings": positions}
    return made(hf.LlamaForCausalLM, hf.LlamaConfig(**sizes, rope_parameters=rope))


TURNED: dict[str, tuple[Callable[[], Any], str]] = {
    "phi3": (phi3, "longrope"),
    "longrope": (lambda: llama(LONG_ROPE, 512), "longrope"),
    "dynamic": (lambda: llama(DYNAMIC, 64), "dynamic"),
}


@pytest.mark.parametrize(("build", "kind"), TURNED.values(), ids=list(TURNED))
def test_positions_that_turn_with_the_longest_path_are_refused(
    build: Callable[[], Any], kind: str
) -> None:
    model = build()
    assert supported(model, ON_CPU, 64) == Support(ON_CPU, FLAT, {})
    found = supported(model, ON_CPU, 65)
    reason = (
        "episodes may have 65 tokens (max_context_tokens), and a path of more than 64 changes "
        f"the positions ({kind}) of all others in its batch"
    )
    assert found == Support([], FLAT, dict.fromkeys(ON_CPU, reason), reason)
    with pytest.raises(TreegrpoError) as caught:
        found.require_flat("a/model")
    assert str(caught.value) == (
        f"Training 'a/model' asked for, but {reason}. Lower max_context_tokens to that, or use "
        "another model."
    )


@pytest.mark.parametrize(("build", "kind"), TURNED.values(), ids=list(TURNED))
def test_a_long_path_beside_a_short_one_changes_it_packed_and_flat(
    build: Callable[[], Any], kind: str
) -> None:
    """Why those models are refused: up to 64 tokens neither happens."""
    model = build()
    for length, is_changed in ((60, False), (100, True)):
        short, long = star(40), star(length)
        alone = logps_of([short], model, "dense")[0]
        for way in ("dense", FLAT):
            gap = float((logps_of([short, long], model, way)[0] - alone).abs().max())
            assert (gap > 0.1) is is_changed and (is_changed or gap < 1e-4), (kind, way)


def star(length: int) -> Weighted:
    """A prompt of one token and one answer, `length` tokens in all."""
    tree = Tree("q")
    tree.add(None, observation_ids=[1])
    ids = [(7 * n) % 61 for n in range(length - 1)]
    tree.add(0, action_ids=ids, action_logps=[0.0] * len(ids))
    return Weighted(tree, {1: [1.0]}, {1: [1.0]})


def logps_of(trees: list[Weighted], model: Any, way: str) -> list[Tensor]:
    """The log-probs of each tree, all computed in one batch."""
    parts = split(trees, 1000, share=way != FLAT)
    [batch] = pack(parts, max_tokens=1000, row_tokens=1 if way == FLAT else None)
    with torch.no_grad():
        logp_E = token_logps(model, batch, 1.0, way)
    of_tree = torch.tensor([batch.steps[step][0] for step in batch.edges.step_E.tolist()])
    return [logp_E[of_tree == number] for number in range(len(trees))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama"])
def test_ordinary_models_train_packed(family: Any, dtype: torch.dtype) -> None:
    model = tiny(family, dtype)
    found = supported(model, ON_CPU, CONTEXT)
    assert found == Support(ON_CPU, FLAT, {})
    found.require("segments", "a model")
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.config._attn_implementation == "sdpa"


def test_a_model_that_does_nothing_after_the_head_is_flat_below_it() -> None:
    assert supported(cohere(1.0), ON_CPU, CONTEXT) == Support(ON_CPU, FLAT, {})


REFUSED: dict[str, tuple[Callable[[], Any], str, str]] = {
    "state": (mamba, FLAT, "linear_attention layers keep state that siblings would share"),
    "window": (
        lambda: qwen2(64), FLAT,
        "its attention looks back 64 tokens, and episodes may have 256 (max_context_tokens)",
    ),
    "window of all layers": (
        lambda: mistral(64), FLAT,
        "its attention looks back 64 tokens, and episodes may have 256 (max_context_tokens)",
    ),
    "softcap of the logits": (
        lambda: gemma2(attn_logit_softcapping=None), WHOLE, "its packed log-probs differ by"
    ),
    "scale of the logits": (lambda: cohere(0.25), WHOLE, "its packed log-probs differ by"),
}  # fmt: skip


@pytest.mark.parametrize(("build", "flat", "reason"), REFUSED.values(), ids=list(REFUSED))
def test_other_models_train_flat_and_say_why(
    build: Callable[[], Any], flat: str, reason: str
) -> None:
    found = supported(build(), ON_CPU, CONTEXT)
    assert (found.backends, found.flat) == ([], flat)
    assert sorted(found.reasons) == sorted(ON_CPU)
    assert all(reason in one for one in found.reasons.values())
    with pytest.raises(TreegrpoError) as caught:
        found.require("segments", "a/model")
    for part in ("'a/model'", "attention=segments", reason, "attention=flat"):
        assert part in str(caught.value)


@pytest.mark.parametrize("build", [qwen2, mistral])
def test_a_window_longer_than_the_context_does_no_harm(build: Callable[[int], Any]) -> None:
    assert supported(build(CONTEXT), ON_CPU, CONTEXT) == Support(ON_CPU, FLAT, {})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("varlen", "its kernels run on CUDA devices, in bfloat16 and float16"),
        ("flex", "torch computes its gradients on CUDA devices only"),
    ],
)
def test_backends_of_a_gpu_are_refused_on_a_cpu(name: str, reason: str) -> None:
    found = supported(tiny_model().eval(), [name, "dense"], CONTEXT)
    assert found.backends == ["dense"]
    with pytest.raises(TreegrpoError) as refused:
        found.require(name, "a/model")
    assert str(refused.value) == (
        f"Training 'a/model' packed with attention={name} asked for, but {reason}. "
        "Use attention=flat, or attention=auto."
    )


# Backends that are wrong.


@pytest.fixture
def broken() -> Iterator[Callable[[Any], str]]:
    """Return a function that registers a backend until the test ends, and gives its name."""
    name = "broken_for_a_test"

    def register(backend: Any) -> str:
        attention(name)(backend)
        return name

    yield register
    BACKENDS.drop(name)
    for table in (hf.AttentionInterface, hf.masking_utils.AttentionMaskInterface):
        table._global_mapping.pop(PREFIX + name)
    with pytest.raises(TreegrpoError):
        get_attention(name)


def causal(query: Tensor, key: Tensor, value: Tensor, layout: TreeLayout, scale: float) -> Tensor:
    """Siblings see each other."""
    length = query.shape[2]
    leave = torch.full_like(layout.leave_BU, length)
    return dense(query, key, value, TreeLayout(layout.position_BU, leave, layout.segments), scale)


def one_level(
    query: Tensor, key: Tensor, value: Tensor, layout: TreeLayout, scale: float
) -> Tensor:
    """Right for a prompt and its continuations, wrong below: the first column sees all."""
    leave = layout.leave_BU.clone()
    leave[:, :8] = query.shape[2]
    return dense(query, key, value, TreeLayout(layout.position_BU, leave, layout.segments), scale)


def unscaled(query: Tensor, key: Tensor, value: Tensor, layout: TreeLayout, scale: float) -> Tensor:
    return dense(query, key, value, layout, 1.0)


def detached_keys(
    query: Tensor, key: Tensor, value: Tensor, layout: TreeLayout, scale: float
) -> Tensor:
    """Right log-probs, but no gradient reaches the ancestors through their keys."""
    return dense(query, key.detach(), value, layout, scale)


def detached_values(
    query: Tensor, key: Tensor, value: Tensor, layout: TreeLayout, scale: float
) -> Tensor:
    return dense(query, key, value.detach(), layout, scale)


def not_a_number(
    query: Tensor, key: Tensor, value: Tensor, layout: TreeLayout, scale: float
) -> Tensor:
    return dense(query, key, value, layout, scale) * float("nan")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("backend", "reason"),
    [
        (causal, "its packed log-probs differ by"),
        (one_level, "its packed log-probs differ by"),
        (unscaled, "its packed log-probs differ by"),
        (not_a_number, "its packed log-probs differ by"),
        (detached_keys, "its packed gradient differs by"),
        (detached_values, "its packed gradient differs by"),
    ],
)
def test_a_wrong_backend_is_found_by_its_numbers(
    broken: Callable[[Any], str], backend: Any, reason: str, dtype: torch.dtype
) -> None:
    name = broken(backend)
    found = supported(tiny("qwen3", dtype), [name, "dense"], CONTEXT)
    assert found.backends == ["dense"] and found.flat == FLAT
    assert found.reasons[name].startswith(reason)


def test_a_backend_that_fails_is_a_reason(broken: Callable[[Any], str]) -> None:
    def failing(*_: Any) -> Tensor:
        raise RuntimeError("no kernel for this head size")

    name = broken(failing)
    found = supported(tiny_model().eval(), [name], CONTEXT)
    assert found.reasons == {
        name: "it cannot be run packed (RuntimeError: no kernel for this head size)"
    }


def test_wrong_positions_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions that count columns, as in a row of its own, give other log-probs."""
    from treegrpo import selfcheck

    pack = selfcheck.pack

    def by_column(*args: Any, **kwargs: Any) -> Any:
        batches = pack(*args, **kwargs)
        for batch in batches:
            width = batch.ids_BU.shape[1]
            batch.layout.position_BU.copy_(torch.arange(width))
        return batches

    monkeypatch.setattr(selfcheck, "pack", by_column)
    found = supported(tiny_model("llama").eval(), ["dense"], CONTEXT)
    assert found.backends == [] and found.flat == FLAT
    assert found.reasons["dense"].startswith("its packed log-probs differ by")


def test_the_small_tree_is_worth_checking_with() -> None:
    from treegrpo.selfcheck import _small_tree

    tree = _small_tree(61).tree
    nodes = tree.nodes[1:]
    assert max(node.depth for node in nodes) >= 3  # four levels, the prompt included
    assert any(not node.observation_ids for node in nodes if node.children)
    assert any(not node.action_ids for node in nodes)
    assert sum(len(node.children) > 1 for node in tree.nodes) >= 3
