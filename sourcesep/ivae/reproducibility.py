"""Which components a linear fit finds again in random halves of its data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.heldout import draw_halves
from sourcesep.ivae.matrices.starts import STARTS, Start
from sourcesep.ivae.model import Array
from sourcesep.ivae.whitening import whiten

__all__ = ["counterparts", "first_steady", "split_half_correlations"]

N_HALVINGS = 2
"""Through which a start has to be steady."""
STEADY = 0.95
"""Least correlation between the counterparts of a component that comes out again."""


def split_half_correlations(
    x: Array, z: Array, u: Auxiliary, find: Start, rng: np.random.Generator, *, n_splits: int
) -> Array:
    """Correlate the components that fits on random halves of the data find.

    Only the rotation is fitted anew: both halves share the whitening of all the data, in
    whose coordinates correlations can be read off the matrices, so that this costs little
    more than the fits.

    Parameters
    ----------
    x : ndarray of shape (n_channels, n_times)
        The mixture, where the components are linear in it.
    z : ndarray of shape (n_components, n_times)
        The components of the whole fit, of unit variance.
    u : Auxiliary
        The auxiliary variable; every sample has a label.
    find : callable
        What finds the components, as one of `STARTS` does: of whitened signals, u and a
        generator makes a matrix that unmixes them.
    rng : numpy.random.Generator
        Draws the halves, and what `find` draws.
    n_splits : int
        Number of random halvings.

    Returns
    -------
    ndarray of shape (n_components,)
        For each component of the whole fit the mean absolute correlation of its two
        counterparts; 0 if no halves of the data hold all components.
    """
    white = whiten(x, len(z))
    y = white.matrix @ (x - white.mean[:, None])
    whole = z @ y.T / y.shape[1]
    correlations = []
    for _ in range(n_splits):
        half = draw_halves(y, u, len(y), rng)
        if half is None:
            return np.zeros(len(z))
        found = []
        for which in (0, 1):
            chosen = half == which
            rotation = find(y[:, chosen], u.take(chosen), rng)
            found.append(rotation / np.linalg.norm(rotation, axis=1, keepdims=True))
        correlations.append(counterparts(whole, *found))
    mean: Array = np.mean(correlations, axis=0)
    return mean


def counterparts(whole: Array, one: Array, other: Array) -> Array:
    """Absolute correlation of what two fits have in place of each row of the whole fit.

    All are rows of unit length that make sources of the same whitened signals; (n_components,).
    """
    found = [rows[linear_sum_assignment(-np.abs(whole @ rows.T))[1]] for rows in (one, other)]
    alike: Array = np.abs((found[0] * found[1]).sum(axis=1))
    return alike


def first_steady(
    z: Array, u: Auxiliary, starts: Sequence[str], rng: np.random.Generator
) -> str | None:
    """Return the first of some starts all of whose components come out of halves again, if any.

    Each half is turned at random before, or halves of data that tell nothing would agree on
    where they began. z are the components of another fit, (n_components, n_times), of unit
    variance.
    """
    z = z - z.mean(axis=1, keepdims=True)

    def found(start: str, chosen: NDArray[np.bool_]) -> Array:
        turn = np.linalg.qr(rng.standard_normal((len(z), len(z))))[0]
        matrix: Array = STARTS[start](turn @ z[:, chosen], u.take(chosen), rng) @ turn
        matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
        return matrix

    def is_steady(start: str) -> bool:
        half = draw_halves(z, u, len(z), rng)
        if half is None:
            return False
        alike = np.abs(found(start, half == 0) @ found(start, half == 1).T)
        return bool(alike[linear_sum_assignment(-alike)].min() >= STEADY)

    return next((s for s in starts if all(is_steady(s) for _ in range(N_HALVINGS))), None)
