"""Random trees of forks, releases and continuations: the native engine against the reference.

The native pool is small, so KV is given up and computed again all the time, and released blocks
are poisoned: reading one would make the log-probabilities NaN.
"""

from dataclasses import dataclass

import numpy as np
from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.fakes_models import tiny_model
from treegrpo.engine.base import Context, Sampled, SamplingParams
from treegrpo.engine.hf import HFEngine
from treegrpo.engine.native import NativeEngine

VOCAB = 61
LONGEST = 96
ROWS = strategies.lists(strategies.integers(0, 30), min_size=1, max_size=4, unique=True)
IDS = strategies.lists(strategies.integers(0, VOCAB - 1), min_size=1, max_size=20)
MODEL = tiny_model()


@dataclass
class Pair:
    """The same sequence in both engines, and its ids."""

    native: Context
    reference: Context
    ids: list[int]


class Trees(RuleBasedStateMachine):
    """Both engines do the same; a third, that never forks, samples from scratch."""

    def __init__(self) -> None:
        super().__init__()
        self.native = NativeEngine(
            MODEL, max_context_tokens=LONGEST, kv_tokens=14 * 16, max_rows=3, poison=True
        )
        self.reference = HFEngine(MODEL)
        self.scratch = NativeEngine(MODEL)
        self.live: list[Pair] = []
        self.seed = 0

    @rule(ids=IDS)
    def start(self, ids: list[int]) -> None:
        self.live.append(Pair(self.native.start(ids), self.reference.start(ids), ids))

    @precondition(lambda self: self.live)
    @rule(which=strategies.integers(0, 30), k=strategies.integers(1, 2))
    def fork(self, which: int, k: int) -> None:
        pair = self.live[which % len(self.live)]
        natives, references = (
            self.native.fork(pair.native, k),
            self.reference.fork(pair.reference, k),
        )
        self.live += [
            Pair(one, other, list(pair.ids)) for one, other in zip(natives, references, strict=True)
        ]

    @precondition(lambda self: self.live)
    @rule(which=strategies.integers(0, 30), ids=IDS)
    def observe(self, which: int, ids: list[int]) -> None:
        pair = self.live[which % len(self.live)]
        if len(pair.ids) + len(ids) < LONGEST - 40:
            self.native.prefill(pair.native, ids)
            self.reference.prefill(pair.reference, ids)
            pair.ids = pair.ids + ids

    @precondition(lambda self: self.live)
    @rule(which=strategies.integers(0, 30))
    def release(self, which: int) -> None:
        pair = self.live.pop(which % len(self.live))
        self.native.release(pair.native)
        self.reference.release(pair.reference)

    @precondition(lambda self: self.live)
    @rule(rows=ROWS, count=strategies.integers(1, 6), temperature=strategies.sampled_from([0.0, 1]))
    def sample(self, rows: list[int], count: int, temperature: float) -> None:
        chosen = {row % len(self.live): self.live[row % len(self.live)] for row in rows}
        pairs = [pair for pair in chosen.values() if len(pair.ids) + count < LONGEST - 40]
        params = SamplingParams(count, temperature, frozenset({0, 1, 2}))
        seeds = [self.seed + n for n in range(len(pairs))]
        self.seed += len(pairs)
        outs = self.native.sample([pair.native for pair in pairs], params, seeds)
        expected = self.reference.sample([pair.reference for pair in pairs], params, seeds)
        for pair, seed, out, other in zip(pairs, seeds, outs, expected, strict=True):
            assert out.ids == other.ids
            np.testing.assert_allclose(out.logps, other.logps, atol=1e-5)
            assert out == self.from_scratch(pair.ids, params, seed)
            pair.ids = pair.ids + out.ids

    def from_scratch(self, ids: list[int], params: SamplingParams, seed: int) -> Sampled:
        """Return what a context without any history samples: the same, bit for bit."""
        context = self.scratch.start(ids)
        (out,) = self.scratch.sample([context], params, [seed])
        self.scratch.release(context)
        return out

    @invariant()
    def lengths_agree(self) -> None:
        assert [pair.native.length for pair in self.live] == [len(pair.ids) for pair in self.live]

    def teardown(self) -> None:
        for pair in self.live:
            self.native.release(pair.native)
        assert self.native.free_blocks == self.native.num_blocks
        assert self.native.live_contexts == 0


Trees.TestCase.settings = settings(max_examples=25, stateful_step_count=14, deadline=None)
TestTrees = Trees.TestCase
