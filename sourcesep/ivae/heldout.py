"""Which samples to hold out: blocks inside every label, so that each part knows each label."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary

__all__ = ["block_folds", "excerpt", "random_halves"]

SHORTEST_BLOCK = 8
"""Samples; shorter blocks would hold out what their neighbours already tell."""
EXCERPT = 200_000
"""Samples that suffice to choose between fits and to judge one; fits use all there are."""
MOST_ROUNDS = 10
"""How often the folds take turns within one label, at most."""


def _blocks(labels: NDArray[np.int64], n_labels: int, n_parts: int) -> NDArray[np.int64]:
    """Number each sample's block within its label; a multiple of n_parts blocks a label."""
    counts = np.bincount(labels[labels >= 0], minlength=n_labels)
    order = np.argsort(labels, kind="stable")
    ordered = labels[order]
    first = np.searchsorted(ordered, np.arange(n_labels))
    position = np.empty(len(labels), np.int64)
    position[order] = np.arange(len(labels)) - np.where(ordered >= 0, first[ordered], 0)
    rounds = np.clip(counts // (n_parts * SHORTEST_BLOCK), 1, MOST_ROUNDS)
    n_blocks = n_parts * rounds
    blocks: NDArray[np.int64] = position * n_blocks[labels] // np.maximum(counts[labels], 1)
    return blocks


def block_folds(labels: NDArray[np.int64], n_labels: int, n_folds: int) -> NDArray[np.int64]:
    """Assign every sample to one of ``n_folds`` folds, in blocks inside every label.

    Returns
    -------
    ndarray of int, shape (n_times,)
        The fold, -1 where the label is negative.
    """
    folds = _blocks(labels, n_labels, n_folds) % n_folds
    return np.where(labels >= 0, folds, -1)


def random_halves(
    labels: NDArray[np.int64], n_labels: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Assign every sample to half 0 or 1, at random in blocks inside every label.

    Of each two neighbouring blocks one goes to either half.

    Returns
    -------
    ndarray of int, shape (n_times,)
        The half, -1 where the label is negative.
    """
    blocks = _blocks(labels, n_labels, 2)
    flips = rng.integers(0, 2, (n_labels, MOST_ROUNDS))
    return np.where(labels >= 0, (blocks + flips[labels, blocks // 2]) % 2, -1)


def excerpt(u: Auxiliary) -> slice:
    """Return which samples to compare or judge fits on: all, or the middle of a long record."""
    spare = max(0, u.n_times - EXCERPT)
    return slice(spare // 2, u.n_times - (spare - spare // 2))
