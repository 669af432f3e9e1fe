"""How much each trained token of a flat batch counts.

All normalisers are folded into one weight per edge, taken over the global batch: the weights
sum to 1, so the losses of micro-batches (or ranks) simply add.

Leaf weighting: every leaf is one row, a token shared by n leaves counts n times. A shared edge
of a packed tree has the sum of its rows' weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from treegrpo.envs.errors import TreegrpoError, UnknownOption, suggest

NORMALISERS = ("token_mean", "sequence_mean")
"""token_mean: every trained token of the batch counts the same.
sequence_mean: every leaf counts the same, its tokens share (Tree-GRPO, equation 8)."""


def edge_weights(trained_tokens: Sequence[int], normaliser: str) -> list[float]:
    """Return, by row of the global batch, the weight of each of its trained tokens.

    Weights times token counts sum to 1, or to 0 if nothing is trained.

    Args:
        trained_tokens: sampled tokens of each row; 0 drops a row from the mean (a leaf whose
            environment failed).
        normaliser: one of NORMALISERS.

    Raises:
        UnknownOption: no such normaliser; suggests the closest name.
        TreegrpoError: a count below 0.
    """
    if normaliser not in NORMALISERS:
        raise UnknownOption(
            f"Unknown normaliser '{normaliser}'.{suggest(normaliser, NORMALISERS)} "
            f"Known: {', '.join(NORMALISERS)}."
        )
    if min(trained_tokens, default=0) < 0:
        raise TreegrpoError(
            f"Edge weights asked for, but a row has {min(trained_tokens)} trained tokens. "
            "Give counts of 0 or more."
        )
    num_tokens = sum(trained_tokens)
    if normaliser == "token_mean":
        return [1.0 / num_tokens if count else 0.0 for count in trained_tokens]
    num_rows = sum(count > 0 for count in trained_tokens)
    return [1.0 / (num_rows * count) if count else 0.0 for count in trained_tokens]
