"""The engines by name, and how one is made from a run's settings.

| engine | samples | where |
|---|---|---|
| native | from our own paged KV pool, rows joining at every token | any machine |
| hf | through the library's own forward pass, batch by batch: the reference | any machine |
| vllm | on a server over HTTP that holds a copy of the weights | any server |

A new engine is one file, and a function here under `@engine("name")`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, Field, JsonValue

from treegrpo.engine.base import Engine
from treegrpo.envs.errors import TreegrpoError
from treegrpo.names import Names
from treegrpo.rollout.expansion.options import STRICT, read_options

Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Asked:
    """What an engine is made for."""

    model: Any
    """Borrowed: the trainer's own."""
    version: int
    """Weight version that it holds."""
    max_context_tokens: int
    """Most tokens of one context."""
    needs_entropy: bool = False
    """Whether `Sampled.first_entropy` will be read."""


Maker: TypeAlias = Callable[[Asked, Any], Engine]
ENGINES: Names[tuple[type[BaseModel], Maker]] = Names("engine")


def engine(name: str, options: type[BaseModel]) -> Callable[[Maker], Maker]:
    """Return a decorator that registers a function which makes an engine from its options."""

    def register(make: Maker) -> Maker:
        ENGINES.add(name)((options, make))
        return make

    return register


def make_engine(name: str, options: Mapping[str, JsonValue], asked: Asked) -> Engine:
    """Return the engine of that name.

    Raises:
        TreegrpoError: no such engine or option; an engine that cannot serve this model, does
            not fit into memory, cannot be reached, or lacks what is needed.
    """
    model, make = ENGINES.get(name)
    return make(asked, read_options(model, options, "engine_options", f"engine '{name}'"))


def check_engine(name: str, options: Mapping[str, JsonValue]) -> None:
    """Refuse an unknown engine or option, before anything is loaded."""
    read_options(ENGINES.get(name)[0], options, "engine_options", f"engine '{name}'")


class HFOptions(BaseModel):
    """What the reference engine takes."""

    model_config = STRICT

    max_batch_rows: Count = 256
    """Most rows of one batch."""


@engine("hf", HFOptions)
def _hf(asked: Asked, options: HFOptions) -> Engine:
    from treegrpo.engine.hf import HFEngine

    return HFEngine(asked.model, version=asked.version, max_batch_rows=options.max_batch_rows)


class NativeOptions(BaseModel):
    """What the native engine takes."""

    model_config = STRICT

    max_rows: Count = 256
    """Most rows that are decoded together."""
    kv_tokens: Count | None = None
    """Tokens whose KV the pool holds; none takes a share of the free memory."""
    block_size: Count = 16
    """Tokens of a block, the unit of the pool."""


@engine("native", NativeOptions)
def _native(asked: Asked, options: NativeOptions) -> Engine:
    from treegrpo.engine.native import NativeEngine

    return NativeEngine(
        asked.model,
        version=asked.version,
        max_context_tokens=asked.max_context_tokens,
        **options.model_dump(),
    )


class VLLMOptions(BaseModel):
    """What the engine over HTTP takes."""

    model_config = STRICT

    url: Annotated[str, Field(min_length=1)] = "http://127.0.0.1:8000"
    """Where the server listens."""
    timeout_s: Annotated[float, Field(gt=0)] = 600.0
    """Seconds that one request may take."""
    entropy_ids: Annotated[int, Field(ge=0)] = 0
    """Most probable ids from which the entropy of the first token is estimated; 0 for none."""


@engine("vllm", VLLMOptions)
def _vllm(asked: Asked, options: VLLMOptions) -> Engine:
    from treegrpo.engine.vllm import VLLMEngine

    if asked.needs_entropy and not options.entropy_ids:
        raise TreegrpoError(
            "An expansion that reads entropies asked for with engine=vllm, which gives none by "
            "default. Set engine_options.entropy_ids=20, or use engine=native."
        )
    return VLLMEngine(
        options.url,
        asked.model,
        version=asked.version,
        timeout_s=options.timeout_s,
        entropy_ids=options.entropy_ids,
    )
