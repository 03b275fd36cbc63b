"""Whether the order of rows says anything: a series has a past, a table's rows have none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.label_means import label_means, remove_label_means
from sourcesep.ivae.model import Array
from sourcesep.ivae.whitening import numerical_rank

__all__ = ["invariant_permutation", "is_serially_dependent", "is_series"]

MOST_LAGS = 8
"""Rows are compared with the next ones, up to this many rows away."""
BY_CHANCE = 5.0
"""Standard errors. Rows without an order stay below this."""
MOST_ROWS = 20_000
"""The most rows that are looked at."""
MOST_KEYS = 8
"""The most channels by which rows are sorted."""


def is_series(x: Array, u: Auxiliary) -> bool:
    """Whether rows follow each other in time.

    They do where u is time. Where it is labels, rows may stand in any order, and do so
    unless they are serially dependent (`is_serially_dependent`).
    """
    return u.is_time or is_serially_dependent(x, u)


def is_serially_dependent(x: Array, u: Auxiliary) -> bool:
    """Whether neighbouring rows say something of each other that labels don't.

    By a portmanteau test on all channels together, whitened within labels. An order that was
    made, by sorting rows by a channel, is none.

    Parameters
    ----------
    x : ndarray of shape (n_channels, n_times)
        Observations.
    u : Auxiliary
        Every sample has a label.

    References
    ----------
    J. R. M. Hosking, "The multivariate portmanteau statistic", J. Am. Stat. Assoc. 75 (1980).
    """
    n, labels = min(MOST_ROWS, x.shape[1]), u.scales[-1].labels
    shown = np.isin(np.arange(u.scales[-1].n_labels), labels[:n])[labels]
    x, labels = x[:, shown], labels[shown]  # others say nothing of the rows that are looked at
    grouped = np.argsort(labels, kind="stable")
    same = labels[grouped][1:] == labels[grouped][:-1]
    varying = x[np.ptp(x, axis=1) > 0]
    steps = np.diff(varying[:, grouped], axis=1)[:, same]
    if not steps.size or ((steps >= 0).all(axis=1) | (steps <= 0).all(axis=1)).any():
        return False
    rest = remove_label_means(varying, labels)
    scale = np.maximum(np.sqrt(label_means(rest**2, labels)), np.finfo(float).tiny)
    rest = rest / scale[:, labels]
    white = np.linalg.svd(rest[:, :n], full_matrices=False)[2][: numerical_rank(rest[:, :n])]
    lags = range(1, min(MOST_LAGS, n - 1) + 1)
    said = n * sum(np.square(white[:, k:] @ white[:, :-k].T).sum() for k in lags)
    by_chance = len(white) ** 2 * len(lags)
    return bool(said > by_chance + BY_CHANCE * np.sqrt(2 * by_chance))


def invariant_permutation(x: Array, u: Auxiliary, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return an order of the rows that does not depend on the one that they come in.

    At random, but the same for the same rows and state of `rng`, (n_times,).
    """
    first = np.lexsort([*x[:MOST_KEYS], *(scale.labels for scale in u.scales)])
    return np.asarray(first[rng.permutation(len(first))], np.int64)
