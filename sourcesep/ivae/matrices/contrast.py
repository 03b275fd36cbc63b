"""The yardstick for unmixing matrices: how likely their outputs are as separate sources.

One likelihood knows every sign of independence that the starts use: each output is
predicted from its own past (its spectrum), and what is left is a generalised Gaussian
(its shape) with a scale a label (its modulation by u), which may lean to one side (its skew).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_toeplitz
from scipy.signal import lfilter

from sourcesep.ivae.model import Array
from sourcesep.ivae.priors import PSEUDO_COUNT, SHAPES, LabelPrior

__all__ = ["ORDER", "heldout_log_likelihood", "innovations", "prediction_filter"]

ORDER = 16
"""Taps of the linear prediction."""
RIDGE = 1e-6
"""White noise assumed in every output, as a share of its power: bounds what a pure tone,
which its past predicts exactly, can gain."""
SURE = 3.0
"""Standard errors by which values of a size have to lean to one side: less is chance, and would
only make likelihoods noisier."""
SIZE, N_SIZES = 0.5, 8
"""Standard deviations of a bin of sizes, and the number of bins, the last without an end."""


def innovations(z: Array, order: int = ORDER, ridge: float = RIDGE) -> Array:
    """Remove from each signal what its own past predicts linearly.

    The map is unit lower triangular, so it keeps densities: log p(z) is the
    log-likelihood of the innovations.

    Parameters
    ----------
    z : ndarray of shape (n_signals, n_times)
        Signals.
    order : int
        How many samples of the past are used.
    ridge : float
        Share of white noise that the prediction allows for.

    Returns
    -------
    ndarray of shape (n_signals, n_times)
        The prediction errors.
    """
    errors = np.empty_like(z)
    for row, out in zip(z, errors, strict=True):
        out[:] = lfilter(prediction_filter(row, order, ridge), [1.0], row - row.mean())
    return errors


def prediction_filter(y: Array, order: int = ORDER, ridge: float = RIDGE) -> Array:
    """Taps of the filter that leaves of y what its past does not predict, (order + 1,)."""
    order = min(order, len(y) // 8)
    y = y - y.mean()
    lags = np.array([y[: len(y) - k] @ y[k:] for k in range(order + 1)])
    if order == 0 or lags[0] <= 0:
        return np.ones(1)
    lags[0] *= 1 + ridge
    return np.concatenate([[1.0], -solve_toeplitz(lags[:-1], lags[1:])])


def heldout_log_likelihood(
    errors: Array,
    labels: NDArray[np.int64],
    n_labels: int,
    held: NDArray[np.bool_],
    *,
    with_mean: bool,
    shapes: tuple[float, ...] = SHAPES,
) -> Array:
    """Log-likelihood of held-out innovations under a prior fitted to the others.

    Parameters
    ----------
    errors : ndarray of shape (n_signals, n_times)
        Innovations of the signals.
    labels : ndarray of int, shape (n_times,)
        Label of every sample.
    n_labels : int
        Number of labels.
    held : ndarray of bool, shape (n_times,)
        Which samples are held out.
    with_mean : bool
        Whether each label has a mean of its own.

    Returns
    -------
    ndarray of shape (n_signals, n_held)
        Nats.
    """
    prior = LabelPrior.fit(
        errors[:, ~held], labels[~held], n_labels, with_mean=with_mean, shapes=shapes
    )
    ratios = (errors - prior.mean[labels].T) / np.sqrt(prior.variance)[labels].T
    return prior.log_prob(errors[:, held], labels[held]) + _skew(ratios, held)


def _skew(ratios: Array, held: NDArray[np.bool_]) -> Array:
    """What a held-out value's sign adds to its size: p(z) = p(|z|) p(sign | |z|), in nats.

    Shapes that are the same to both sides do not tell exponential sources from mixtures of them.
    """
    sizes, signs = np.minimum(np.abs(ratios) / SIZE, N_SIZES - 1).astype(int), np.sign(ratios)
    gains = np.empty((len(ratios), np.count_nonzero(held)))
    for size, sign, gain in zip(sizes, signs, gains, strict=True):
        counts, sums = (np.bincount(size[~held], w, N_SIZES) for w in (None, sign[~held]))
        lean = np.where(np.abs(sums) > SURE * np.sqrt(counts), sums / (counts + PSEUDO_COUNT), 0)
        gain[:] = np.log1p(sign[held] * lean[size[held]])
    return gains
