"""The native engine: a paged KV pool, forks that share it, and rows that join what runs.

    engine = NativeEngine(model, kv_tokens=65_536)

Every step computes, in one forward pass, one token of each running row and the pending tokens of
the rows that join. What contexts share is computed once: a stem (see `paged`) is the unit that is
prefilled, and every row that grows from it reads the same blocks.

Shapes: G outputs of a forward pass, V words.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from treegrpo.engine.base import (
    Capabilities,
    Context,
    ContextTooLong,
    Engine,
    EngineStats,
    NotFinite,
    ReleasedContext,
    Sampled,
    SamplingParams,
    StaleKV,
)
from treegrpo.engine.batch import draw, entropy
from treegrpo.engine.hf import kv_shape, sampling_mode, uniform
from treegrpo.engine.kernels import pick_kernel
from treegrpo.engine.kv import KVShape
from treegrpo.engine.memory import pool_tokens
from treegrpo.engine.paged import BlockPool, Stem
from treegrpo.engine.paged_attention import forward_of, kv_attention
from treegrpo.engine.rows import Backend, Job, Row
from treegrpo.engine.tables import Tables
from treegrpo.engine.windows import Windows
from treegrpo.envs.errors import TreegrpoError

PREFILL_TOKENS = 4096
"""Most tokens of one forward pass beside those of running rows."""


class NativeContext(Context):
    """A context of `NativeEngine`: the stem that holds its last token."""

    __slots__ = ("owner", "stem")

    def __init__(self, owner: "NativeEngine", stem: Stem) -> None:
        self.owner: NativeEngine | None = owner
        self.stem = stem

    @property
    def length(self) -> int:
        """Tokens so far, those not computed yet included."""
        return self.stem.length

    @property
    def version(self) -> int | None:
        """Weight version of its keys and values; None while nothing is computed."""
        found = (stem.version for stem in self.stem.chain())
        return next((version for version in found if version is not None), None)


class NativeEngine(Engine):
    """Samples from a Hugging Face model in place, with KV in blocks that forks share.

    Args:
        model: borrowed; put into eval mode while sampling, and back.
        version: weight version that the model holds now.
        max_rows: most rows that run at once; others wait.
        kv_tokens: tokens that the pool holds KV for; without it, what fits into a share of
            the free memory (`memory.MEMORY_SHARE`), at most `max_rows` contexts.
        block_size: tokens a block.
        max_context_tokens: most tokens of a context; without it, the positions of the model.
        poison: fill released blocks with NaN, for tests.
        backend: "auto" takes windows on a CPU and block tables elsewhere; "tables" asks for the
            latter on a CPU as well, slowly and without bit-equality.

    Raises:
        EngineRefused: the model keeps state that is not the KV of plain full attention, or the
            pool cannot hold one context.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        version: int = 0,
        max_rows: int = 256,
        kv_tokens: int | None = None,
        block_size: int = 16,
        max_context_tokens: int | None = None,
        poison: bool = False,
        backend: Literal["auto", "tables"] = "auto",
    ) -> None:
        for name, value in (("max_rows", max_rows), ("block_size", block_size)):
            if value < 1:
                raise TreegrpoError(f"Asked for {name}={value}; give at least 1.")
        self.stats = EngineStats()
        self.version = version
        self.live_contexts = 0
        self._model, self._max_rows = model, max_rows
        self._waiting: dict[NativeContext, tuple[SamplingParams, int]] = {}
        self._rows: dict[NativeContext, Row] = {}
        with sampling_mode(model):
            shape = kv_shape(model)
        config = cast(Any, model.config.get_text_config(decoder=True))
        self._vocab = int(config.vocab_size)
        positions = int(config.max_position_embeddings)
        self.max_length = min(max_context_tokens or positions, positions)
        tokens = pool_tokens(shape, self.max_length, kv_tokens, max_rows)
        self._pool = BlockPool(shape, -(-tokens // block_size), block_size, poison=poison)
        grouped = int(config.num_attention_heads) // shape.heads
        self._backend = _backend(model, shape, self._pool, grouped, backend)
        self.capabilities = Capabilities(
            keeps_kv=True,
            forks_kv=True,
            same_weights=True,
            joins_running=True,
            batch_invariant=self._is_batch_invariant(),
        )

    @property
    def num_blocks(self) -> int:
        """Blocks of the pool."""
        return self._pool.num_blocks

    @property
    def free_blocks(self) -> int:
        """Blocks that hold no KV: all of them once every context is released."""
        return self._pool.free_blocks

    def start(self, ids: Sequence[int]) -> NativeContext:
        """Return a new context that begins with `ids` (at least one); computes nothing yet."""
        if not ids:
            raise TreegrpoError("A context was asked for with no token; give at least one id.")
        self._require_ids(ids)
        self.live_contexts += 1
        return NativeContext(self, Stem(ids=list(ids)))

    def prefill(self, context: Context, ids: Sequence[int]) -> None:
        """Append `ids` to the context; they are computed with the next batch it is part of."""
        own = self._resting(context)
        self._require_ids(ids)
        if own.stem.holders > 1 and ids:
            own.stem = Stem(own.stem, own.stem.length)
        own.stem.ids += ids

    def fork(self, context: Context, k: int) -> list[Context]:
        """Return `k` new contexts equal to this one, which stays usable; computes nothing."""
        own = self._resting(context)
        self.live_contexts += k
        own.stem.holders += k
        return [NativeContext(self, own.stem) for _ in range(k)]

    def release(self, context: Context) -> None:
        """Give up a context; forks of it live on. Using it afterwards is an error."""
        own = self._own(context)
        self._waiting.pop(own, None)
        if row := self._rows.pop(own, None):
            self._part(row, keep=False)
        own.owner = None
        self._pool.drop(own.stem)
        own.stem = Stem()
        self.live_contexts -= 1
        if row:
            self._admit_waiting()

    def set_weights(self, version: int) -> None:
        """Declare that the model now holds the weights of `version`; older KV becomes stale."""
        if version < self.version:
            raise TreegrpoError(
                f"Asked to go back to weight version {version}, found {self.version}: KV of "
                "different weights would look alike. Give every set of weights a new number."
            )
        if version > self.version and self.submitted:
            raise TreegrpoError(
                f"Asked for weight version {version}, found {self.submitted} contexts submitted "
                f"at {self.version}: a row cannot change weights on its way. Step until they "
                "have ended, or release them."
            )
        self.version = version

    def submit(self, context: Context, params: SamplingParams, seed: int) -> None:
        """Let the next `step` take up one continuation of the context."""
        own = self._resting(context)
        self._require_sampleable(own, params)
        self._waiting[own] = (params, seed)
        self._admit_waiting()

    @property
    def submitted(self) -> int:
        """Contexts submitted that have not ended yet."""
        return len(self._waiting) + len(self._rows)

    def admits(self, context: Context, max_tokens: int) -> bool:
        """Return whether a row and blocks for its worst case are free beside what runs."""
        return not self._waiting and self._fits(self._own(context), max_tokens)

    def step(self) -> list[tuple[Context, Sampled]]:
        """Move every row by one token, those that join by their first; return what ended."""
        if not self._rows:
            return []
        try:
            with sampling_mode(self._model), kv_attention(self._model):
                self._advance()
        except BaseException:
            self._abandon()
            raise
        ended = [(context, row) for context, row in self._rows.items() if row.has_ended]
        for context, row in ended:
            del self._rows[context]
            self._part(row, keep=True)
            self.stats.sampled_tokens += len(row.ids)
        self._admit_waiting()
        return [(context, row.sampled()) for context, row in ended]

    def _advance(self) -> None:
        """Run one pass: the rest of the rows that join, and a token of each that runs."""
        joining = [row for row in self._rows.values() if not row.ids]
        running = [row for row in self._rows.values() if row.ids]
        self.stats.sample_calls += bool(joining)
        while early := self._early_jobs(joining):
            self._run(early, ())
        jobs: dict[Stem, Job] = {}
        for row in joining:
            if row.last not in jobs:
                jobs[row.last] = self._last_job(row)
        logits_GV = self._run(list(jobs.values()), running)
        for row in joining:
            self._pool.open(row.stem)
            self._backend.ready(row)
        number = {stem: output for output, stem in enumerate(jobs)}
        outputs = [number[row.last] for row in joining]
        outputs += range(len(jobs), len(jobs) + len(running))
        self.stats.decode_steps += bool(running)
        self.stats.decode_tokens += len(running)
        self._draw(logits_GV, outputs, joining + running)

    def _early_jobs(self, joining: Sequence[Row]) -> list[Job]:
        """Return what must be computed before the pass that gives outputs, or nothing.

        That is what lies before a row's last stem, and whatever exceeds one pass.
        """
        pending: dict[Stem, Row] = {}
        for row in joining:
            lacking = [stem for stem in row.last.chain() if not stem.is_computed]
            # What one row ends with may lie before another's last: then that row decides.
            if lacking and (lacking[-1] not in pending or lacking[-1] is not row.last):
                pending[lacking[-1]] = row
        before = {stem: row for stem, row in pending.items() if stem is not row.last}
        total = sum(len(stem.ids) - stem.computed for stem in pending)
        if not before and (total <= PREFILL_TOKENS or total == len(pending)):
            return []
        jobs: list[Job] = []
        room = PREFILL_TOKENS
        for stem, row in (before or pending).items():
            left = len(stem.ids) - stem.computed - (stem is row.last)
            count = min(left, room)
            room -= count
            if count:
                ids = stem.ids[stem.computed : stem.computed + count]
                jobs.append(Job(row, stem, stem.kept, ids, is_new=True))
        return jobs

    def _last_job(self, row: Row) -> Job:
        """Return the job whose output the row's first id is drawn from."""
        stem = row.last
        if not stem.is_computed:
            return Job(row, stem, stem.kept, stem.ids[stem.computed :], is_new=True)
        last = next(one.ids[-1] for one in stem.chain() if one.ids)
        return Job(row, stem, stem.length - 1, [last], is_new=False)

    def _run(self, jobs: Sequence[Job], running: Sequence[Row]) -> Tensor:
        """Run the model once; return the logits [G, V] behind the jobs and then the rows."""
        for job in jobs:
            self._pool.open(job.stem)
        logits_GV, padding = self._backend.forward(jobs, running)
        self.stats.padding_tokens += padding
        for job in jobs:
            self.stats.prefill_tokens += len(job.ids)
            if job.is_new:
                job.stem.computed += len(job.ids)
                job.stem.version = self.version
        return logits_GV

    def _draw(self, logits_GV: Tensor, outputs: Sequence[int], rows: Sequence[Row]) -> None:
        """Append to each row an id drawn from its output, with its log-probability."""
        for temperature in dict.fromkeys(row.params.temperature for row in rows):
            alike = [n for n, row in enumerate(rows) if row.params.temperature == temperature]
            # Padding: the last few numbers of a tensor are computed otherwise than the rest.
            padded = alike + alike[:1] * (-len(alike) % 8)
            wanted = torch.tensor([outputs[n] for n in padded], device=logits_GV.device)
            uniform = [rows[n].uniforms[len(rows[n].ids)] for n in padded]
            logits = logits_GV.index_select(0, wanted)
            uniform_G = torch.tensor(uniform, dtype=torch.float64, device=logits.device)
            ids_G, logps_G = draw(logits, temperature, uniform_G)
            ids, logps = cast(list[int], ids_G.tolist()), cast(list[float], logps_G.tolist())
            if not all(map(math.isfinite, logps)):
                raise NotFinite(_NOT_FINITE)
            if any(not rows[n].ids for n in alike):
                entropies = cast(list[float], entropy(logits, temperature).tolist())
                for n, first in zip(alike, entropies, strict=False):
                    if not rows[n].ids:
                        rows[n].first_entropy = first
            for n, token, logp in zip(alike, ids, logps, strict=False):
                rows[n].ids.append(token)
                rows[n].logps.append(logp)

    def _admit_waiting(self) -> None:
        """Let those that wait join, in order, as far as rows and blocks are free."""
        while self._waiting:
            context, (params, seed) = next(iter(self._waiting.items()))
            if not self._fits(context, params.max_tokens):
                return
            del self._waiting[context]
            self._rows[context] = self._join(context, params, seed)

    def _fits(self, context: NativeContext, max_tokens: int) -> bool:
        """Return whether a row and its blocks are free beside what runs."""
        if len(self._rows) >= self._max_rows:
            return False
        held = self._pool.idle_in_chain(context.stem)
        return self._shortage(context.stem, max_tokens) <= self._pool.available_blocks - held

    def _join(self, context: NativeContext, params: SamplingParams, seed: int) -> Row:
        """Return a row for the context, with all the blocks that it may need."""
        last = context.stem
        if last.holders > 1:  # others go on from there as well
            context.stem = Stem(last, last.length)
        uniforms = cast(list[float], uniform([seed], params)[0].tolist())
        row = Row(context.stem, last, params, uniforms, last.length)
        self._pool.pin(row.stem)
        for stem in row.last.chain():
            self._pool.grow(stem, stem.length)
        self._pool.grow(row.stem, row.columns)
        self._backend.join(row)
        return row

    def _part(self, row: Row, *, keep: bool) -> None:
        """Take a row out; `keep` what it sampled in its stem."""
        self._backend.leave(row, keep=keep)
        stem = row.stem
        if keep:
            stem.ids += row.ids
            stem.computed = len(stem.ids) - 1
            if stem.computed:
                stem.version = self.version
        self._pool.trim(stem)
        self._pool.unpin(stem)

    def _abandon(self) -> None:
        """Withdraw everything: what was being computed is not to be relied on."""
        self._waiting.clear()
        for row in self._rows.values():
            self._part(row, keep=False)
        self._rows.clear()
        self._backend.clear()

    def _shortage(self, stem: Stem, max_tokens: int) -> int:
        """Return the blocks to be taken before one may sample behind the stem."""
        end = stem.length + max_tokens - 1
        lacking = self._pool.shortage(stem)
        if stem.holders > 1:
            return lacking + self._pool.size_for(Stem(stem, stem.length), end)
        have = max(len(stem.blocks), self._pool.size_for(stem, stem.length))
        return lacking + max(0, self._pool.size_for(stem, end) - have)

    def _own(self, context: Context) -> NativeContext:
        if not isinstance(context, NativeContext) or context.owner is not self:
            raise ReleasedContext("a context that was released, or belongs to another engine")
        return context

    def _resting(self, context: Context) -> NativeContext:
        own = self._own(context)
        if own in self._rows or own in self._waiting:
            raise ReleasedContext("a context that is submitted already; fork it to sample it twice")
        return own

    def _require_ids(self, ids: Sequence[int]) -> None:
        if ids and (min(ids) < 0 or max(ids) >= self._vocab):
            raise TreegrpoError(
                f"Token ids from {min(ids)} to {max(ids)} were given, the model has "
                f"{self._vocab}. Use the tokenizer the model was trained with."
            )

    def _require_sampleable(self, context: NativeContext, params: SamplingParams) -> None:
        self._require_version(context)
        if context.length + params.max_tokens > self.max_length:
            raise ContextTooLong(
                f"Asked for {params.max_tokens} more tokens behind {context.length}, the engine "
                f"takes {self.max_length} (max_context_tokens, at most the positions of the "
                "model). End the episode earlier."
            )
        held = sum(len(stem.blocks) for stem in context.stem.chain())
        if held + self._shortage(context.stem, params.max_tokens) > self._pool.num_blocks:
            self._lay_anew(context)

    def _lay_anew(self, context: NativeContext) -> None:
        """Let a context have blocks of its own alone: each fork on its way left one part-filled.

        Its tokens are computed again, in a pool that holds the longest context at least.
        """
        stems = reversed(list(context.stem.chain()))
        shared, context.stem = (
            context.stem,
            Stem(ids=[token for stem in stems for token in stem.ids]),
        )
        self._pool.drop(shared)

    def _require_version(self, context: NativeContext) -> None:
        if context.version not in (None, self.version):
            raise StaleKV(f"KV of weight version {context.version}, sampled at {self.version}")

    def _is_batch_invariant(self) -> bool:
        """Return whether a few tokens have the same bits decoded alone and prefilled together."""
        if not isinstance(self._backend, Windows):
            return False
        ids = [n * 7 % self._vocab for n in range(min(21, self.max_length // 2))]
        greedy = SamplingParams(max_tokens=3, temperature=0)
        alone = self.start(ids)
        (decoded,) = self.sample([alone], greedy, [0])
        again = [self.start(ids + decoded.ids[:2]), self.start(ids[:5])]
        prefilled = self.sample(again, SamplingParams(max_tokens=1, temperature=0), [0, 0])[0]
        for context in (alone, *again):
            self.release(context)
        self.stats = EngineStats()
        return (prefilled.ids, prefilled.logps) == (decoded.ids[2:], decoded.logps[2:])


def _backend(
    model: PreTrainedModel, shape: KVShape, pool: BlockPool, grouped: int, name: str
) -> Backend:
    is_cuda = shape.device.type == "cuda"
    if name == "auto" and shape.device.type == "cpu":
        return Windows(forward_of(model), shape, pool, grouped)
    _, kernel = pick_kernel(shape, grouped, pool.block_size)
    return Tables(forward_of(model), pool, kernel, use_graphs=is_cuda)


_NOT_FINITE = (
    "Sampling asked the model for probabilities and found some that are not finite: the weights "
    "hold NaN or infinity. Go back to an earlier checkpoint and lower the learning rate."
)
