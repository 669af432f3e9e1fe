"""Flat GRPO: each leaf against all leaves of its question, whatever tree they grew in.

    A_i = (R_i - mean(R)) / (std(R) + 1e-6)        R: scored leaves of all trees of the question

Source: GRPO (arXiv 2402.03300), outcome supervision; the "inter" term of Tree-GRPO (arXiv
2509.21240, section 3). The standard deviation is unbiased (n - 1), as in the released code.

Differences from the source: (1) a question with one scored leaf gives 0, where the released
code takes mean 0 and std 1 and so returns the raw reward. One outcome holds no comparison; the
raw reward would be a REINFORCE term without baseline, whose size depends on where the rewards'
zero lies. (2) Leaves where the environment, a tool, the sandbox or the grader failed are left
out of mean and deviation and get 0. (3) A constant group gives exactly 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from treegrpo.credit.base import Credit, along_paths, credit, outcomes, standardise
from treegrpo.tree import Tree


@credit("group")
def group(question: Sequence[Tree]) -> list[Credit]:
    """Return each leaf's standardised reward within its question, on all its steps."""
    return [along_paths(tree, z) for tree, z in zip(question, group_scores(question), strict=True)]


def group_scores(question: Sequence[Tree]) -> list[dict[int, float]]:
    """Return, by tree and scored leaf, the reward standardised over the whole question."""
    rewards = [outcomes(tree) for tree in question]
    keys = [(i, leaf) for i, by_leaf in enumerate(rewards) for leaf in by_leaf]
    z = standardise({n: rewards[i][leaf] for n, (i, leaf) in enumerate(keys)})
    scores: list[dict[int, float]] = [{} for _ in question]
    for n, (i, leaf) in enumerate(keys):
        scores[i][leaf] = z[n]
    return scores
