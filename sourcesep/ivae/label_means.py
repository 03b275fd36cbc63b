"""Means within labels, and which scale of u has samples enough for them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary, Scale
from sourcesep.ivae.model import Array

__all__ = ["finest_reliable_scale", "label_means", "present_label_means", "remove_label_means"]

ROWS_A_LABEL = 8
"""Rows that labels must have on average, or their means and deviations are mostly chance."""


def label_means(x: Array, labels: NDArray[np.int64]) -> Array:
    """Mean of each row of x under every label, (n_rows, n_labels); 0 where it does not occur."""
    counts = np.maximum(np.bincount(labels), 1)
    return np.stack([np.bincount(labels, row) for row in x]) / counts


def present_label_means(values: Array, labels: NDArray[np.int64]) -> Array:
    """Mean of the values under each label that occurs, shape (n_present,)."""
    means: Array = label_means(values[None], labels)[0, np.bincount(labels) > 0]
    return means


def remove_label_means(x: Array, labels: NDArray[np.int64]) -> Array:
    """Rows of x, each less its mean under every label."""
    rest: Array = x - label_means(x, labels)[:, labels]
    return rest


def finest_reliable_scale(u: Auxiliary) -> Scale:
    """The finest scale of u whose labels have rows enough, or the coarsest."""
    for scale in u.scales:
        if u.n_times >= ROWS_A_LABEL * len(np.unique(scale.labels)):
            return scale
    return u.scales[-1]
