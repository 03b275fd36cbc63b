"""Moments as functions of u: a value for every label, or smooth in its covariates."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations_with_replacement
from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.model import Array

__all__ = [
    "CONVERGED",
    "LEFT",
    "N_STEPS",
    "bases",
    "log_variance_given_u",
    "mean_given_u",
    "regression",
]

SILENCE = 1e-12
"""Least square, where a component's overall power is near 1."""
MOST_TERMS, HIGHEST_DEGREE = 40, 15
"""Of polynomials in covariates: as many as labels at the most, and no finer in one of them."""
A_TERM = 20
"""Samples, at least, for each of them."""
DEPENDENT = 1e-8
"""Share of the largest singular value, squared, below which there is no further polynomial."""
LEFT = 0.1
"""Share of a sample's variance that a regression leaves, at least."""
MEAN_LOG_SQUARE = -1.27
"""Of a standard normal value."""
N_STEPS = 50
"""Of a regression, which mostly takes ten."""
CONVERGED = 1e-7
"""Gain in nats a sample that is worth no further step."""


def bases(u: Auxiliary, held: NDArray[np.bool_]) -> Iterator[Any]:
    """Functions of u in which moments may be linear, (n_times, n_terms).

    All are orthonormal over the seen samples. Those of labels are a sparse matrix.
    """
    from scipy.sparse import csr_array

    present, labels = np.unique(u.labels, return_inverse=True)
    if held.any() and not held.all():
        size = 1 / np.sqrt(np.bincount(labels[~held], minlength=len(present)))
        at = (np.arange(u.n_times), labels)
        yield csr_array((size[labels], at), shape=(u.n_times, len(present)))
        if u.covariates is not None:
            yield from _polynomials(u.covariates, held)


def _polynomials(covariates: Array, held: NDArray[np.bool_]) -> Iterator[Array]:
    """All of the highest degree up to which there are few of them; nothing of many covariates."""
    from numpy.polynomial.legendre import legvander
    from scipy.stats import rankdata

    n_times, k = covariates.shape
    most = min(MOST_TERMS, n_times // A_TERM)
    degrees = [n for n in range(1, HIGHEST_DEGREE + 1) if comb(k + n, n) <= most]
    if not degrees:
        return
    rank = (2 * rankdata(covariates, axis=0) - 1) / n_times - 1
    one, *rest = (legvander(column, degrees[-1]) for column in rank.T)
    exponents = combinations_with_replacement(range(k + 1), degrees[-1])
    columns = []
    for chosen in exponents:  # k stands for no covariate
        power = np.bincount(chosen, minlength=k + 1)
        column = one[:, power[0]]
        for polynomials, p in zip(rest, power[1:k], strict=True):
            column = column * polynomials[:, p]
        columns.append(column)
    terms = np.stack(columns, axis=1)
    size, turn = np.linalg.eigh(terms[~held].T @ terms[~held])
    kept = size > DEPENDENT * size[-1]
    yield terms @ (turn[:, kept] / np.sqrt(size[kept]))


def log_variance_given_u(basis: Any, squares: Array, held: NDArray[np.bool_]) -> Array:
    """Log-variance at every sample, no further out than where the fit has seen samples."""
    values: Array = basis @ regression(basis[~held], squares[~held])
    return np.clip(values, values[~held].min(), values[~held].max())


def mean_given_u(
    basis: Any, z: Array, weight: Array, held: NDArray[np.bool_]
) -> tuple[Array, Array]:
    """Mean at every sample by weighted least squares, and its variance over that of a sample."""
    from scipy.sparse import issparse

    seen, weights = basis[~held], weight[~held, None]
    gram, projected = seen.T @ (seen * weights), seen.T @ (weight * z)[~held]
    if issparse(gram):  # no sample has two labels
        inverse = 1 / gram.diagonal()
        mean, variance = basis @ (inverse * projected), (basis * basis) @ inverse
    else:
        inverse = np.linalg.inv(gram)
        mean, variance = basis @ (inverse @ projected), ((basis @ inverse) * basis).sum(axis=1)
    return np.clip(mean, mean[~held].min(), mean[~held].max()), weight * variance


def regression(a: Any, squares: Array, offset: Array | float = 0.0) -> Array:
    """Weights of the columns of a for which Gaussians of these squares are likeliest.

    Their log-variances are `offset` and the weighted sum. Columns are orthonormal, so that each
    step of Fisher's scoring is a product.
    """

    def cost(log_variance: Array) -> tuple[float, Array]:
        relative = squares * np.exp(-log_variance)
        return float((log_variance + relative).sum()), relative - 1

    weights: Array = a.T @ (np.log(squares + SILENCE) - MEAN_LOG_SQUARE - offset)
    now, left = cost(offset + a @ weights)
    for _ in range(N_STEPS):
        step = a.T @ left
        step /= max(1.0, np.abs(a @ step).max())
        before = now
        for _halved in range(N_STEPS):
            now, left = cost(offset + a @ (weights + step))
            if now <= before:
                break
            step /= 2
        weights = weights + step
        if before - now < CONVERGED * len(squares):
            break
    return weights
