"""One batch: prefill what is pending, decode until every row ends, hand the KV back.

Columns of the buffer, the same for all rows:

    [ KV of earlier turns, right-aligned | pending, right-aligned | decoded ]

A row's padding columns are masked out for ever. Rows whose contexts share a prefix that is not
computed yet (forks of one prompt, siblings of one node) are prefilled once and then copied.

Shapes: B rows, P pending columns, C all columns, V vocabulary, N tokens to sample at most.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from treegrpo.engine.base import EngineStats, NotFinite, Sampled, SamplingParams
from treegrpo.engine.kv import BufferCache, KVShape, Segment


class Forward(Protocol):
    """The model, as the decoder calls it."""

    def __call__(
        self, ids_BT: Tensor, mask_B1TC: Tensor, positions_BT: Tensor, cache: BufferCache
    ) -> Tensor:
        """Return the logits [B, V] after the last token of each row."""
        ...


@dataclass(eq=False, slots=True)
class Prefix:
    """A sequence that contexts share: what is computed, and what is to be computed next."""

    segment: Segment | None
    pending: tuple[int, ...]
    """Ids behind the segment; never empty, since sampling needs the last token's output."""

    @property
    def kept(self) -> int:
        """Tokens whose KV is there."""
        return 0 if self.segment is None else self.segment.length

    @property
    def length(self) -> int:
        """All tokens."""
        return self.kept + len(self.pending)


@dataclass(frozen=True)
class Row:
    """What comes out of one row."""

    sampled: Sampled
    prefix: Prefix


def entropy(logits_BV: Tensor, temperature: float) -> Tensor:
    """Return the entropy in nats of what `draw` draws from, float32 [B]."""
    logps_BV = torch.log_softmax(logits_BV.float() / (temperature or 1.0), dim=-1)
    return -(logps_BV.exp() * logps_BV.clamp(min=torch.finfo().min)).sum(dim=-1)


def draw(logits_BV: Tensor, temperature: float, uniform_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return the drawn ids and their log-probabilities (float32), both [B].

    Inverse transform: the first id whose cumulated probability, summed in float64, exceeds
    `uniform_B` in [0, 1). Temperature 0 takes the largest logit.
    """
    logps_BV = torch.log_softmax(logits_BV.float() / (temperature or 1.0), dim=-1)
    if temperature == 0:
        ids_B = logps_BV.argmax(dim=-1)
    else:
        cdf_BV = logps_BV.double().exp_().cumsum(dim=-1)
        target_B1 = (uniform_B * cdf_BV[:, -1])[:, None]
        ids_B = torch.searchsorted(cdf_BV, target_B1, right=True)[:, 0]
        ids_B.clamp_(max=logps_BV.shape[-1] - 1)  # NaN compares false and would run off the end
    return ids_B, logps_BV.gather(-1, ids_B[:, None])[:, 0]


class Batch:
    """Rows that are decoded together; used once, under `torch.inference_mode`.

    Args:
        forward: the model.
        shape: of its KV.
        prefixes: one per row; the same object where rows share it. Advanced in place to the
            state after the prefill, so later forks reuse it.
        params: sampling settings.
        uniform_BN: float64 in [0, 1), one row of draws per row of the batch.
        version: stamped on new KV.
        stats: counted into.
    """

    def __init__(
        self,
        forward: Forward,
        shape: KVShape,
        prefixes: Sequence[Prefix],
        params: SamplingParams,
        uniform_BN: Tensor,
        version: int,
        stats: EngineStats,
    ) -> None:
        self._forward, self._shape, self._params = forward, shape, params
        self._version, self._stats = version, stats
        self._prefixes = list(prefixes)
        self._unique = list({id(prefix): prefix for prefix in prefixes}.values())
        self._kept = max(prefix.kept for prefix in prefixes)
        self._prompt = self._kept + max(len(prefix.pending) for prefix in prefixes)
        self._columns = self._prompt + params.max_tokens - 1  # the last sample is not computed
        self._uniform_BN = uniform_BN.to(shape.device)
        self._ids_BN = torch.full_like(self._uniform_BN, -1, dtype=torch.long)
        self._logps_BN = torch.zeros_like(self._uniform_BN, dtype=torch.float32)
        self._stops = torch.tensor(sorted(params.stop_ids), device=shape.device, dtype=torch.long)
        self._rows: dict[int, Row] = {}
        self._advanced: dict[int, Prefix] = {}
        self._entropy: list[float] = []

    def run(self) -> list[Row]:
        """Return what each row sampled and the prefix it has now, in order."""
        buffer, logits = self._prefill()
        buffer, logits, mask, position = self._expand(buffer, logits)
        self._entropy = cast(list[float], entropy(logits, self._params.temperature).tolist())
        cache = BufferCache(buffer, used=self._prompt)
        # Row of the batch that each physical row of the buffer holds, and whether it ended.
        live_B = torch.arange(len(self._prefixes), device=self._shape.device)
        done_B = torch.zeros_like(live_B, dtype=torch.bool)
        width = 0
        while True:
            ids, logps = draw(logits, self._params.temperature, self._uniform_BN[live_B, width])
            self._ids_BN[live_B, width] = ids
            self._logps_BN[live_B, width] = logps
            width += 1
            done_B |= torch.isin(ids, self._stops)
            left = len(done_B) - int(done_B.sum())
            if left == 0 or width == self._params.max_tokens:
                break
            if 2 * left < len(done_B):
                self._harvest(buffer, live_B, done_B, width)
                keep = (~done_B).nonzero()[:, 0]
                buffer = buffer.index_select(2, keep)
                mask, position, ids = mask[keep], position[keep], ids[keep]
                live_B, done_B = live_B[keep], done_B[keep]
                cache = BufferCache(buffer, used=self._prompt + width - 1)
            visible = mask[..., : self._prompt + width]
            logits = self._forward(ids[:, None], visible, position + (width - 1), cache)
            self._stats.decode_steps += 1
            self._stats.padding_tokens += len(done_B) - left
        self._harvest(buffer, live_B, torch.ones_like(done_B), width)
        for prefix in self._unique:  # forks of it reuse what was computed here
            advanced = self._advanced[id(prefix)]
            prefix.segment, prefix.pending = advanced.segment, advanced.pending
        return [self._rows[row] for row in range(len(self._prefixes))]

    def _prefill(self) -> tuple[Tensor, Tensor]:
        """Compute the pending tokens of each unique prefix; return buffer and logits."""
        unique, kept, width = self._unique, self._kept, self._prompt - self._kept
        buffer = self._shape.empty(len(unique), self._columns)
        buffer[..., :kept, :] = 0.0  # padding is masked out, but NaN times zero is NaN
        for row, prefix in enumerate(unique):
            end = kept - prefix.kept
            for segment in prefix.segment.chain() if prefix.segment else ():
                start, end = end, end + segment.tensor_L2HTD.shape[3]
                buffer[:, :, row, :, start:end] = segment.tensor_L2HTD
        ids = torch.tensor([(0,) * (width - len(p.pending)) + p.pending for p in unique])
        column = torch.arange(width)
        pads = torch.tensor([width - len(p.pending) for p in unique])[:, None]
        position = (column - pads + torch.tensor([p.kept for p in unique])[:, None]).clamp_(min=0)
        is_real = column >= pads
        # Padding attends to itself: a row of the softmax with nothing in it would be NaN.
        causal = (column <= column[:, None]) & is_real[:, None, :] | torch.eye(width).bool()
        old = self._is_real(unique)[:, None, :kept].expand(-1, width, -1)
        visible = self._additive(torch.cat([old, causal], dim=-1)[:, None])
        device = self._shape.device
        cache = BufferCache(buffer, used=kept)
        logits = self._forward(ids.to(device), visible, position.to(device), cache)
        real = sum(len(prefix.pending) for prefix in unique)
        self._stats.prefill_tokens += real
        self._stats.padding_tokens += ids.numel() - real
        return buffer, logits

    def _expand(self, buffer: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return buffer, logits, mask and next position, with one row per row of the batch."""
        prefixes, device = self._prefixes, self._shape.device
        if len(prefixes) > len(self._unique):
            number = {id(prefix): row for row, prefix in enumerate(self._unique)}
            source = torch.tensor([number[id(prefix)] for prefix in prefixes], device=device)
            wide = self._shape.empty(len(prefixes), self._columns)
            wide[..., : self._prompt, :] = buffer[..., : self._prompt, :].index_select(2, source)
            buffer, logits = wide, logits[source]
        mask = self._additive(self._is_real(prefixes)[:, None, None, :])
        position = torch.tensor([[prefix.length] for prefix in prefixes], device=device)
        return buffer, logits, mask, position

    def _is_real(self, prefixes: Sequence[Prefix]) -> Tensor:
        """Return which columns hold a token of the row, bool [B, C]; decoded ones all do."""
        column = torch.arange(self._columns)
        kept_start = torch.tensor([self._kept - p.kept for p in prefixes])[:, None]
        pending_start = torch.tensor([self._prompt - len(p.pending) for p in prefixes])[:, None]
        return (column >= kept_start) & (column < self._kept) | (column >= pending_start)

    def _additive(self, visible: Tensor) -> Tensor:
        """Return the mask that eager and SDPA attention both take: 0 or minus infinity."""
        hidden = torch.full((), float("-inf"), dtype=self._shape.dtype)
        return torch.where(visible, torch.zeros_like(hidden), hidden).to(self._shape.device)

    def _harvest(self, buffer: Tensor, live_B: Tensor, ended_B: Tensor, width: int) -> None:
        """Take results and KV of the physical rows that ended out of the buffer."""
        if not bool(torch.isfinite(self._logps_BN).all()):
            raise NotFinite(
                "Sampling asked the model for probabilities and found some that are not finite: "
                "the weights hold NaN or infinity. Go back to an earlier checkpoint and lower "
                "the learning rate."
            )
        physical = cast(list[int], ended_B.nonzero()[:, 0].tolist())
        rows_B = live_B[ended_B]
        rows = cast(list[int], rows_B.tolist())
        ids = cast(list[list[int]], self._ids_BN[rows_B, :width].tolist())
        logps = cast(list[list[float]], self._logps_BN[rows_B, :width].tolist())
        for n, row in enumerate(rows):
            sampled = self._cut(ids[n], logps[n], self._entropy[row])
            prefix = self._advance(buffer[:, :, physical[n]], row, sampled)
            self._rows[row] = Row(sampled, prefix)

    def _cut(self, ids: list[int], logps: list[float], first_entropy: float) -> Sampled:
        """Return the row up to its first stop token."""
        stops = self._params.stop_ids
        count = next((n for n, token in enumerate(ids, 1) if token in stops), None)
        return Sampled(ids[:count], logps[:count], count is not None, first_entropy)

    def _advance(self, row_L2HCD: Tensor, row: int, sampled: Sampled) -> Prefix:
        """Return the row's prefix behind what it sampled; share the prompt's KV with its forks.

        All tokens but the last of the prompt go to the shared prefix, which keeps that one
        pending (a fork needs its output again); the rest is this row's own.
        """
        shared = self._prefixes[row]
        advanced = self._advanced.get(id(shared))
        count, pending = len(sampled.ids), len(shared.pending)
        self._stats.decode_tokens += count - 1
        self._stats.sampled_tokens += count
        if advanced is None:
            start = self._prompt - pending
            fresh = row_L2HCD[..., start : self._prompt + count - 1, :].clone()
            segment = shared.segment
            if pending > 1:
                segment = self._segment(fresh[..., : pending - 1, :], segment)
            advanced = Prefix(segment, shared.pending[-1:])
            self._advanced[id(shared)] = advanced
            own = fresh[..., pending - 1 :, :]
        else:
            own = row_L2HCD[..., self._prompt - 1 : self._prompt + count - 1, :].clone()
        return Prefix(self._segment(own, advanced.segment), (sampled.ids[-1],))

    def _segment(self, tensor_L2HTD: Tensor, parent: Segment | None) -> Segment:
        """Return a segment behind `parent`."""
        length = tensor_L2HTD.shape[3] + (0 if parent is None else parent.length)
        return Segment(tensor_L2HTD, parent, length, self._version)
