"""Laws of the losses: what is shared counts as if every leaf were a row of its own.

`naive` is every loss as its paper prints it, over flat rows, one leaf, step and token after
the other, in tensors of no dimension. The packed losses must give its value and its gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st
from torch import Tensor

from treegrpo.edges import Branches, Edges, Preferences
from treegrpo.losses import LossOptions, get_loss, grpo, loss_names, step_dpo, summarise

BRANCH_LOSSES = [name for name in loss_names() if name != "step_dpo"]
CLIPPED = ("grpo", "dr_grpo", "dapo", "gspo", "step_ratio")


def assert_same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def vector(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


@dataclass(frozen=True)
class Bush:
    """Steps with their tokens, and what each leaf thinks of each step of its path."""

    parents: list[int]
    """Step above each step, -1 for a first step; the parent comes first."""
    tokens: list[list[int]]
    """Numbers of each step's trained tokens, in a shuffled order of all T."""
    old_T: Tensor
    ref_T: Tensor
    sampler_T: Tensor
    logp_T: Tensor
    weight: dict[tuple[int, int], float]
    adv: dict[tuple[int, int], float]

    def leaves(self) -> list[int]:
        return [step for step in range(len(self.parents)) if step not in self.parents]

    def path(self, leaf: int) -> list[int]:
        steps = [leaf]
        while self.parents[steps[0]] >= 0:
            steps.insert(0, self.parents[steps[0]])
        return steps

    def packed(self, leaves: Sequence[int]) -> tuple[Edges, Tensor]:
        """The steps above some leaves, each once; and which token each edge is."""
        pairs = [(i, step) for i, leaf in enumerate(leaves) for step in self.path(leaf)]
        steps = sorted({step for _, step in pairs})
        placed = sorted((t, n) for n, step in enumerate(steps) for t in self.tokens[step])
        token_E = torch.tensor([t for t, _ in placed], dtype=torch.long)
        step_E = torch.tensor([n for _, n in placed], dtype=torch.long)
        branches = Branches(
            torch.tensor([i for i, _ in pairs], dtype=torch.long),
            torch.tensor([steps.index(step) for _, step in pairs], dtype=torch.long),
            vector(*[self.weight[leaves[i], step] for i, step in pairs]),
            vector(*[self.adv[leaves[i], step] for i, step in pairs]),
            len(leaves),
            len(steps),
        )
        old_E, ref_E, sampler_E = (x[token_E] for x in (self.old_T, self.ref_T, self.sampler_T))
        return Edges(old_E, step_E, branches, ref_E, sampler_E), token_E


@st.composite
def bushes(draw: st.DrawFn) -> Bush:
    """Forests of up to 8 steps; a step has 0 to 3 tokens, many steps are shared."""
    size = draw(st.integers(1, 8))
    parents = [draw(st.integers(-1, step - 1)) for step in range(size)]
    counts = draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    noise = draw(st.sampled_from([1e-3, 0.3, 1.0]))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    order = torch.randperm(sum(counts), generator=random).tolist()
    tokens = [[order.pop() for _ in range(count)] for count in counts]
    old_T, gap_T, ref_T, sampler_T = torch.randn(
        4, sum(counts), generator=random, dtype=torch.float64
    )
    logp_T = (old_T + noise * gap_T).requires_grad_()
    bush = Bush(parents, tokens, old_T, ref_T, old_T + sampler_T, logp_T, {}, {})
    for leaf in bush.leaves():
        for step in bush.path(leaf):
            weight, adv, fate = torch.randn(3, generator=random, dtype=torch.float64).tolist()
            bush.weight[leaf, step] = abs(weight) if fate < 1.5 else 0.0
            bush.adv[leaf, step] = adv if fate > -1.5 else 0.0
    return bush


clip_options = st.fixed_dictionaries(
    {
        "clip_low": st.sampled_from([3e-4, 0.1, 0.9]),
        "clip_high": st.sampled_from([4e-4, 0.2, 2.0]),
    }
)
kl_options = st.just({}) | st.fixed_dictionaries(
    {"kl_beta": st.just(0.3), "kl_estimator": st.sampled_from([None, "k1", "k3"])}
)
correction_options = st.sampled_from(
    [
        {},
        {"correction": "tis"},
        {"correction": "tis", "correction_high": 1.3},
        {"correction": "icepop"},
        {"correction": "icepop", "correction_low": 0.8, "correction_high": 1.5},
        {"correction": "sequence_mask"},
        {"correction": "sequence_mask", "correction_low": 0.5, "correction_high": 2.0},
    ]
)
dual_clips = st.fixed_dictionaries({"dual_clip": st.sampled_from([None, 1.1, 3.0])})


def options_of(name: str) -> st.SearchStrategy[LossOptions]:
    parts: list[st.SearchStrategy[dict]] = []
    if name != "sft":
        parts += [kl_options, correction_options]
    if name in (*CLIPPED, "cispo"):
        parts.append(st.just({}) | clip_options)
    if name in CLIPPED:
        parts.append(dual_clips)
    merged = st.tuples(*parts).map(lambda some: {k: v for part in some for k, v in part.items()})
    return merged.map(LossOptions.model_validate)


DEFAULT_CLIP = {
    "grpo": (0.2, 0.2),
    "dr_grpo": (0.2, 0.2),
    "dapo": (0.2, 0.28),
    "cispo": (1.0, 4.0),
    "gspo": (3e-4, 4e-4),
    "step_ratio": (3e-3, 4e-3),
    "reinforce": (1.0, math.inf),
    "sft": (1.0, math.inf),
}
DEFAULT_BAND = {"none": (0, 0), "tis": (0, 2), "icepop": (0.5, 5), "sequence_mask": (0.9, 1.1)}


@dataclass
class Naive:
    """A loss over flat rows, with the sums its metrics are made of."""

    name: str
    options: LossOptions
    loss: Tensor
    mass: float = 0.0
    clipped: float = 0.0
    weight: float = 0.0
    ratio: float = 0.0

    def __post_init__(self) -> None:
        o = self.options
        low, high = DEFAULT_CLIP[self.name]
        self.low = 1 - (low if o.clip_low is None else o.clip_low)
        self.high = 1 + (high if o.clip_high is None else o.clip_high)
        low, high = DEFAULT_BAND[o.correction]
        self.band = (
            low if o.correction_low is None else o.correction_low,
            high if o.correction_high is None else o.correction_high,
        )

    def objective(self, ratio: Tensor, adv: float, logp: Tensor) -> tuple[Tensor, bool]:
        """What the paper's sum has for one token of one leaf; and whether the clip acts."""
        if self.name == "reinforce":
            return adv * logp, False
        held = torch.minimum(torch.maximum(ratio, vector(self.low)[0]), vector(self.high)[0])
        if self.name == "cispo":
            return held.detach() * adv * logp, bool(held != ratio)
        gain, dual = torch.minimum(ratio * adv, held * adv), self.options.dual_clip
        is_clipped = bool(ratio > self.high) if adv > 0 else bool(ratio < self.low)
        if adv < 0 and dual is not None:
            gain = torch.maximum(gain, vector(dual * adv)[0])
            is_clipped = is_clipped or bool(ratio > dual)
        return gain, is_clipped

    def factor(self, gap: float) -> float:
        rho, (low, high) = math.exp(gap), self.band
        if self.options.correction == "tis":
            return min(rho, high)
        if self.options.correction == "icepop":
            return rho if low <= rho <= high else 0.0
        return 1.0

    def add_leaf(self, bush: Bush, leaf: int) -> None:
        path = bush.path(leaf)
        row = [token for step in path for token in bush.tokens[step]]
        gaps = {t: float(bush.old_T[t] - bush.sampler_T[t]) for t in row}
        if self.options.correction == "sequence_mask" and row:
            rho = math.exp(sum(gaps.values()) / len(row))
            if not self.band[0] <= rho <= self.band[1]:
                return
        for step in path:
            scope = {"gspo": row, "step_ratio": bush.tokens[step]}
            for t in bush.tokens[step]:
                some = scope.get(self.name, [t])
                logs = [bush.logp_T[s] - bush.old_T[s] for s in some]
                ratio = torch.exp(torch.stack(logs).sum() / len(logs))
                self._add(bush, t, ratio, bush.weight[leaf, step], bush.adv[leaf, step], gaps[t])

    def _add(
        self, bush: Bush, t: int, ratio: Tensor, weight: float, adv: float, gap: float
    ) -> None:
        logp = bush.logp_T[t]
        if self.name == "sft":
            self.loss = self.loss - weight * logp
            return
        gain, is_clipped = self.objective(ratio, adv, logp)
        weighted = weight * self.factor(gap)
        self.loss = self.loss - weighted * gain
        self.mass += weighted * abs(adv)
        self.clipped += weighted * abs(adv) * is_clipped
        self.weight, self.ratio = self.weight + weight, self.ratio + weight * float(ratio.detach())
        if self.options.kl_beta:
            to_ref = bush.ref_T[t] - logp
            kl = torch.exp(to_ref) - to_ref - 1
            if self.options.kl_estimator == "k1":
                kl = torch.exp(logp - bush.old_T[t]) * -to_ref.detach()
            self.loss = self.loss + self.options.kl_beta * weight * kl


def naive(name: str, options: LossOptions, bush: Bush, leaves: Iterable[int]) -> Naive:
    flat = Naive(name, options, 0 * bush.logp_T.sum())
    for leaf in leaves:
        flat.add_leaf(bush, leaf)
    return flat


def slope(loss: Tensor, bush: Bush) -> Tensor:
    return torch.autograd.grad(loss, bush.logp_T)[0]


@given(data=st.data(), bush=bushes())
@settings(max_examples=150, deadline=None)
def test_every_loss_is_its_papers_sum_over_flat_rows(data: st.DataObject, bush: Bush) -> None:
    edges, token_E = bush.packed(bush.leaves())
    assert len(token_E) == sum(map(len, bush.tokens)), "each token is one edge"
    for name in BRANCH_LOSSES:
        note(f"loss {name}")
        _require_papers_sum(name, data.draw(options_of(name)), bush, edges, token_E)


def _require_papers_sum(
    name: str, options: LossOptions, bush: Bush, edges: Edges, token_E: Tensor
) -> None:
    found = get_loss(name)(bush.logp_T[token_E], edges, options)
    expected = naive(name, options, bush, bush.leaves())
    assert_same(found.loss, expected.loss)
    assert_same(slope(found.loss, bush), slope(expected.loss, bush))
    if name != "sft":
        numbers = summarise([found.metrics])
        share = expected.clipped / expected.mass if expected.mass else 0.0
        assert numbers["clip_share"] == pytest.approx(share, rel=1e-9, abs=1e-12)
        ratio = expected.ratio / expected.weight if expected.weight else 0.0
        assert numbers["ratio_mean"] == pytest.approx(ratio, rel=1e-9, abs=1e-12)


@given(data=st.data(), bush=bushes())
@settings(deadline=None)
def test_batches_of_leaves_add_up(data: st.DataObject, bush: Bush) -> None:
    """However the leaves are dealt out, and although both parts hold what they share."""
    is_first = data.draw(
        st.lists(st.booleans(), min_size=len(bush.leaves()), max_size=len(bush.leaves()))
    )
    dealt = list(zip(bush.leaves(), is_first, strict=True))
    parts = [[leaf for leaf, first in dealt if first is part] for part in (True, False)]
    batches = [bush.packed(leaves) for leaves in (bush.leaves(), *parts)]
    for name in BRANCH_LOSSES:
        note(f"loss {name}")
        _require_sum(name, data.draw(options_of(name)), bush, batches)


def _require_sum(
    name: str, options: LossOptions, bush: Bush, batches: list[tuple[Edges, Tensor]]
) -> None:
    whole, first, second = (
        get_loss(name)(bush.logp_T[token_E], edges, options) for edges, token_E in batches
    )
    assert_same(first.loss + second.loss, whole.loss)
    assert_same(slope(first.loss + second.loss, bush), slope(whole.loss, bush))
    together = summarise([first.metrics, second.metrics])
    assert together == pytest.approx(summarise([whole.metrics]), rel=1e-9, abs=1e-9)


def preferred(bush: Bush) -> Iterator[tuple[int, int, float]]:
    """Every step against each later sibling."""
    for better, parent in enumerate(bush.parents):
        for worse in range(better + 1, len(bush.parents)):
            if bush.parents[worse] == parent:
                yield better, worse, 1 / (2 + better + worse)


@given(bush=bushes(), beta=st.sampled_from([None, 0.05, 2.0]), has_reference=st.booleans())
@settings(deadline=None)
def test_step_dpo_is_the_printed_likelihood(
    bush: Bush, beta: float | None, has_reference: bool
) -> None:
    pairs = list(preferred(bush))
    edges, token_E = bush.packed(bush.leaves())
    ref_T = bush.ref_T if has_reference else bush.old_T
    edges = edges.replace(ref_logp_E=bush.ref_T[token_E] if has_reference else None)

    def result(some: list[tuple[int, int, float]]) -> Tensor:
        better, worse = ([pair[side] for pair in some] for side in (0, 1))
        found = Preferences(
            torch.tensor(better, dtype=torch.long),
            torch.tensor(worse, dtype=torch.long),
            vector(*[weight for *_, weight in some]),
        )
        options = LossOptions(dpo_beta=beta)
        return step_dpo(bush.logp_T[token_E], edges.replace(preferences=found), options).loss

    def reward(step: int) -> Tensor:
        terms = [bush.logp_T[t] - ref_T[t] for t in bush.tokens[step]]
        return (0.1 if beta is None else beta) * sum(terms, vector(0.0)[0])

    expected = 0 * bush.logp_T.sum()
    for better, worse, weight in pairs:
        odds = torch.exp(reward(better)) / (torch.exp(reward(better)) + torch.exp(reward(worse)))
        expected = expected - weight * torch.log(odds)
    assert_same(result(pairs), expected)
    assert_same(slope(result(pairs), bush), slope(expected, bush))
    halves = result(pairs[::2]) + result(pairs[1::2])
    assert_same(halves, expected)


log_ratios = st.floats(-3, 3)
branches = st.lists(st.tuples(st.floats(0, 1), st.floats(-4, 4)), min_size=1, max_size=6)
options = st.builds(
    LossOptions,
    clip_low=st.floats(0, 0.9),
    clip_high=st.floats(0, 2),
    dual_clip=st.none() | st.floats(1.01, 8),
    kl_beta=st.just(0.3),
)


def shared(old_U: Tensor, ref_U: Tensor | None, rows: Sequence[tuple[int, float, float]]) -> Edges:
    """Edges of one token a step, and a leaf for each (token, weight, advantage)."""
    step_P = torch.tensor([token for token, _, _ in rows])
    weight_P, adv_P = vector(*[w for _, w, _ in rows]), vector(*[a for *_, a in rows])
    leaf_P = torch.arange(len(rows))
    pairs = Branches(leaf_P, step_P, weight_P, adv_P, len(rows), len(old_U))
    return Edges(old_U, torch.arange(len(old_U)), pairs, ref_U)


@given(tokens=st.lists(st.tuples(log_ratios, branches), min_size=1, max_size=5), chosen=options)
def test_a_shared_edge_equals_its_branches(
    tokens: list[tuple[float, list[tuple[float, float]]]], chosen: LossOptions
) -> None:
    """Two numbers per unique token give the loss, gradient and metrics of the flat batch."""
    rows = [(t, w, a) for t, (_, of_token) in enumerate(tokens) for w, a in of_token]
    token_E = torch.tensor([t for t, _, _ in rows])
    flat_weight_E, flat_adv_E = vector(*[w for _, w, _ in rows]), vector(*[a for *_, a in rows])
    old_U, ref_U = torch.full_like(vector(*[d for d, _ in tokens]), -1.5), vector(-2.0)
    ref_U = ref_U.expand_as(old_U)
    logp_U = (old_U + vector(*[d for d, _ in tokens])).requires_grad_()

    flat = Edges.flat(old_U[token_E], flat_adv_E, flat_weight_E, ref_U[token_E])
    by_row = grpo(logp_U[token_E], flat, chosen)
    by_token = grpo(logp_U, shared(old_U, ref_U, rows), chosen)
    assert_same(by_token.loss, by_row.loss)
    (by_token_U,) = torch.autograd.grad(by_token.loss, logp_U)
    assert_same(by_token_U, torch.autograd.grad(by_row.loss, logp_U)[0])
    flat_numbers = summarise([by_row.metrics])
    assert summarise([by_token.metrics]) == pytest.approx(flat_numbers, rel=1e-9, abs=1e-9)


@given(log_ratio=log_ratios, of_token=branches, chosen=options)
def test_the_two_number_form_is_the_printed_clip(
    log_ratio: float, of_token: list[tuple[float, float]], chosen: LossOptions
) -> None:
    """Sum over branches of w min(r A, clip(r) A), bounded by c A for A < 0, in plain floats."""
    assert chosen.clip_low is not None
    assert chosen.clip_high is not None
    ratio = math.exp(log_ratio)
    clipped = min(max(ratio, 1 - chosen.clip_low), 1 + chosen.clip_high)
    expected = 0.0
    for weight, advantage in of_token:
        gain = min(ratio * advantage, clipped * advantage)
        if advantage < 0 and chosen.dual_clip is not None:
            gain = max(gain, chosen.dual_clip * advantage)
        expected -= weight * gain
    edges = shared(vector(0.0), None, [(0, w, a) for w, a in of_token])
    found = grpo(vector(log_ratio), edges, chosen.model_copy(update={"kl_beta": 0.0}))
    assert float(found.loss) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@given(log_ratio=st.floats(-30, 30), weight=st.floats(0, 1))
def test_kl_is_never_negative(log_ratio: float, weight: float) -> None:
    zero = vector(0.0)
    edges = Edges.flat(zero, zero, vector(weight), zero)
    metrics = grpo(vector(log_ratio), edges, LossOptions(kl_beta=1.0)).metrics
    assert float(metrics["kl_reference"]) >= 0
    assert float(metrics["kl_sampler"]) >= 0
    if weight > 1e-3 and abs(log_ratio) > 1e-3:
        assert float(metrics["kl_reference"]) > 0
        assert float(metrics["kl_sampler"]) > 0


logits = st.tuples(*[st.floats(-2, 2)] * 4).map(lambda some: vector(*some))
Direction = Callable[[Tensor, Tensor], Tensor]


def divergence(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) of two log-distributions, by enumeration."""
    return (p.exp() * (p - q)).sum()


@pytest.mark.parametrize(
    ("estimator", "sampled_by_itself", "gradient_of"),
    [
        ("k1", True, lambda p, q: divergence(p, q)),
        ("k1", False, lambda p, q: divergence(p, q)),
        ("k3", True, lambda p, q: divergence(q, p)),
    ],
)
@given(now=logits, reference=logits, sampler=logits)
def test_kl_estimates_by_enumeration(
    estimator: str,
    sampled_by_itself: bool,
    gradient_of: Direction,
    now: Tensor,
    reference: Tensor,
    sampler: Tensor,
) -> None:
    """Each of 4 actions with the probability of being sampled: the expectation, exactly."""
    now = now.clone().requires_grad_()
    logp_E, ref_E = now.log_softmax(0), reference.log_softmax(0)
    old_E = (now.detach() if sampled_by_itself else sampler).log_softmax(0)
    edges = Edges.flat(old_E, torch.zeros_like(old_E), old_E.exp(), ref_E)
    chosen = LossOptions.model_validate({"kl_beta": 1.0, "kl_estimator": estimator})
    result = grpo(logp_E, edges, chosen)
    value = divergence(logp_E, ref_E)
    assert_same(result.loss, value)
    (found,) = torch.autograd.grad(result.loss, now, retain_graph=True)
    (expected,) = torch.autograd.grad(gradient_of(logp_E, ref_E), now)
    assert_same(found, expected)
