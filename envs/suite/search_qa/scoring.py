"""Exact match and F1 of an answer against the gold answers, the way the public sets score it.

Answers are compared after SQuAD normalisation (arXiv 1606.05250): lower case, no ASCII
punctuation, no English articles, single spaces.

Difference: an answer of which nothing is left ("The The", "?") is compared unnormalised, so
that an empty prediction never earns anything and such a gold answer can still be met.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_WHOLE = frozenset({"yes", "no", "noanswer", "unknown"})
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Return the text in lower case, without punctuation and articles, single-spaced."""
    bare = text.lower().translate(_NO_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def exact_match(prediction: str, answers: Sequence[str]) -> bool:
    """Tell whether the prediction equals one of the answers after normalisation.

    Raises:
        TypeError: if `answers` is one string: its letters are not answers.
    """
    return any(_same(prediction, answer) for answer in _checked(answers))


def f1(prediction: str, answers: Sequence[str]) -> float:
    """Return the F1 of words in common with the best of the answers, after normalisation.

    A prediction or an answer that says yes, no, unknown or the like is right or wrong as a
    whole (HotpotQA's rule): words in common with it mean nothing.

    Raises:
        TypeError: if `answers` is one string.
    """
    return max((_f1(prediction, answer) for answer in _checked(answers)), default=0.0)


def _f1(prediction: str, answer: str) -> float:
    if _same(prediction, answer):
        return 1.0
    left, right = normalise(prediction), normalise(answer)
    if left in _WHOLE or right in _WHOLE:
        return 0.0
    given, gold = Counter(left.split()), Counter(right.split())
    common = (given & gold).total()
    return 2 * common / (given.total() + gold.total()) if common else 0.0


def _checked(answers: Sequence[str]) -> Sequence[str]:
    if isinstance(answers, str):
        raise TypeError(
            f"Answers asked as a sequence, found one string {answers!r}. Pass [answer]."
        )
    return answers


def _same(prediction: str, answer: str) -> bool:
    left, right = normalise(prediction), normalise(answer)
    if left or right:
        return left == right
    return prediction.strip().lower() == answer.strip().lower() != ""
