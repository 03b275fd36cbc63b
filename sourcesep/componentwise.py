"""The verdict where components are read one by one, as those of EEG are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sourcesep.misfit import Misfit
from sourcesep.verdict import Verdict
from sourcesep.wording import in_one_sentence, misfits

__all__ = ["AGAIN", "come_again", "componentwise", "reliability_in_words"]

AGAIN = 0.95
"""Least reliability of a component that comes out again. Of simulated EEG nearly all above it
are one source, and of those below half or less."""
MOST_NAMED = 12
"""Components whose numbers are said; of more it is said how many there are."""
DEPENDENT = (
    "they still depend on each other (electrodes have noise of their own, which no matrix keeps "
    "out of the components, or areas of the brain act on each other): each may hold a little of "
    "others"
)
"""Why components that all come out again are doubtful. No echo or room is looked for here."""


def come_again(reliability: NDArray[np.float64]) -> list[int]:
    """Return the numbers of the components that fits on halves of the data find again."""
    return np.flatnonzero(np.asarray(reliability) >= AGAIN).tolist()


def reliability_in_words(reliability: NDArray[np.float64]) -> str:
    """Say how many come out again and which: ``"2 of 9 components come out again: numbers 0, 4"``.

    Numbers begin at 0, as in the names of components.
    """
    again, n = come_again(reliability), len(reliability)
    text = f"{len(again)} of {n} components {'comes' if len(again) == 1 else 'come'} out again"
    if not 0 < len(again) < min(n, MOST_NAMED + 1):
        return text
    return f"{text}: number{'s' * (len(again) > 1)} {', '.join(map(str, again))}"


def componentwise(verdict: Verdict, reliability: NDArray[np.float64] | None = None) -> Verdict:
    """Turn a verdict on all components together into one that says which of them to trust.

    EEG has as many components as channels, and only some of them are sources: the others hold
    what is left of many weak sources, and the electrodes' noise. A verdict on all together says
    nothing about the good ones. Even good ones depend on each other, because every matrix
    shares the electrodes' noise out among them. That is said only where all components come
    out again, as the reason why they are still doubtful.

    Parameters
    ----------
    verdict : Verdict
        On all components together.
    reliability : ndarray of shape (n_components,), optional
        How well fits on random halves of the data find each component again; by default the
        verdict's own agreement.

    Returns
    -------
    Verdict
        "not identifiable" if none comes out again, and never better than doubtful if one
        does not.
    """
    if reliability is None:
        reliability = np.array(verdict.agreement)
    again, n = come_again(reliability), len(reliability)
    if n == 1 or (verdict.label == "trusted" and len(again) == n):
        return verdict
    found = f"from random halves of the data {reliability_in_words(reliability)}"
    if verdict.sentence.startswith(found):  # a joint model's verdict, which has said it
        return verdict
    if not again:
        return replace(
            verdict,
            label="not identifiable",
            sentence=f"{found}: do not read any as a source; record longer, or ask for fewer",
        )
    others = "; do not read the others as sources"
    rest = f", but {_why(verdict)}" if len(again) == n else others
    return replace(verdict, label="doubtful", sentence=found + rest)


def _why(verdict: Verdict) -> str:
    """Why all components together are not trusted, in words that fit electrodes."""
    most = verdict.bounds.misfit
    found = misfits(Misfit(*(v / m for v, m in zip(verdict.misfit, most, strict=True))))
    only_dependent = bool(found) and verdict.sentence == in_one_sentence(found)
    return DEPENDENT if only_dependent else verdict.sentence
