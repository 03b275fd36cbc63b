"""The rows that make sources of whitened EEG, and how much of what they make is a source's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import brentq

from sourcesep.ivae.matrices.brain_covariances import Group, Seen
from sourcesep.ivae.matrices.jointdiag import coarse_to_fine, tolerance, with_bands
from sourcesep.ivae.model import Array

__all__ = ["find_rows", "loudest_noise", "signal_shares", "under_noise"]

BAND_WEIGHT = 3.0
"""Total weight of the bands against 1 for the segments."""
REGULARISATION = 1e-3
"""White noise added to segments where bands are used."""

POWER_FLOOR = 0.3
"""Added to the power of components, 1 on average, in every segment: in quiet ones it is mostly
chance and noise, and would count most."""
LARGEST_SHARE = 0.5
"""Bounds what one component may take from another."""
FEWEST_LABELS = 20
"""Segments from which what does not change with them can be told from what does."""
QUIET_SHARE = 0.1
"""Of the segments: in so many what a component holds may be the electrodes' noise alone. The
very quietest are chance, or a gap in the recording."""


def find_rows(seen: Seen) -> Array:
    """Find the rows that make sources of whitened signals, of unit length."""
    fine = seen.groups[0].covariances
    d = fine.shape[1]
    if d == 1:
        return np.eye(1)
    floor = POWER_FLOOR if seen.rhythms is None else REGULARISATION
    tol = tolerance(d)
    segments = [g.covariances + floor * np.eye(d, dtype=fine.dtype) for g in seen.groups]
    if seen.rhythms is not None:
        rhythms = seen.rhythms.covariances
        rhythms = rhythms * (rhythms[:, 0].size / np.einsum("kii->", rhythms))
        # the start need not be exact
        joint = with_bands(segments, rhythms, BAND_WEIGHT, tol=tol, first_tol=3 * tol)
        found = np.asarray(joint.matrix, np.float64)
    else:
        found = np.asarray(coarse_to_fine(segments, tol=tol).matrix, np.float64)
        if seen.is_time and len(fine) >= FEWEST_LABELS:
            found = under_noise(found, seen.groups)
    rows: Array = found / np.linalg.norm(found, axis=1, keepdims=True)
    return rows


def under_noise(matrix: Array, groups: Sequence[Group]) -> Array:
    """Turn a joint diagonaliser into rows that estimate sources best under sensor noise.

    Covariances of labels are ``C_k = B D_k B' + N``: the noise N is the same in all, and
    what is diagonal changes. Seen by a joint diagonaliser that is almost right, B is
    ``I + A`` with a small A, so an entry of the covariance between two components is

        C_k,ij = A_ij D_k,j + A_ji D_k,i + N_ij,

    a weighted regression for each pair, on the two powers and a constant. Where N_ij is 0 a
    joint diagonaliser leaves no A, so each pair's A is trusted as far as its N_ij is: by
    the share of what is found that chance does not explain (empirical Bayes), the variance
    of N over all pairs being such that it and chance together explain what is found. Pairs
    whose powers hardly change, and recordings without such noise, are left as they are.

    Whitened signals have unit covariance, so the least-squares estimate of a source is its
    own column of B times the signals; a joint diagonaliser alone makes components that hardly
    correlate, though best estimates of sources do, by the noise that they share.

    Parameters
    ----------
    matrix : ndarray of shape (d, d)
        A joint diagonaliser of whitened signals.
    groups : sequence of Group
        Of every scale. Scales count alike.

    Returns
    -------
    ndarray of shape (d, d)
        Rows of unit length.

    References
    ----------
    P. Tichavsky & A. Yeredor, "Fast approximate joint diagonalization incorporating weight
    matrices", IEEE Trans. Signal Processing 57(3), 2009, whose pairwise regression this is,
    with a constant for the noise. The variance over pairs: R. C. Paule & J. Mandel,
    "Consensus values and weighting factors", J. Res. NBS 87(5), 1982.
    """
    rows = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    d = len(rows)
    moments = [_moments(rows, group.covariances) for group in groups]
    normal = np.mean([m[0] for m in moments], axis=0) + 1e-9 * np.eye(3)
    right = np.mean([m[1] for m in moments], axis=0)
    inverse = np.linalg.inv(normal)
    shares = np.einsum("ijab,ijb->ija", inverse, right)
    # residuals of a scale over its number of labels: what chance does to any of them alike
    chance = np.zeros((d, d))
    for (own, product, square), group in zip(moments, groups, strict=True):
        left = square + np.einsum(
            "ija,ija->ij", shares, np.einsum("ijab,ijb->ija", own, shares) - 2 * product
        )
        chance += np.maximum(left, 0) / (len(group.counts) * len(groups))
    others = ~np.eye(d, dtype=bool)
    variance = np.maximum(chance * inverse[..., 2, 2], 1e-30)
    spread = _excess(np.square(shares[others, 2]), variance[others])
    trust = spread / (spread + variance)
    leak = np.where(others, np.clip(trust * shares[..., 0], -LARGEST_SHARE, LARGEST_SHARE), 0)
    columns = np.linalg.solve(rows, np.eye(d) + leak)
    best: Array = (columns / np.linalg.norm(columns, axis=0)).T
    return best


def signal_shares(unmixing: Array, correlation: Array, noise: float) -> Array:
    """Return how much of each component's power is its source's own.

    Channels are ``x = sum_j b_j s_j + n`` with sources of unit variance and white noise n. Where
    row w_i estimates s_i by least squares, ``z_i = w_i x`` at unit variance, what channels and
    component have in common is ``m_i = b_i / |r_i|``, where r_i is the correlation of z_i with
    s_i. So the least-squares estimate of what the source adds to the channels is ``m_i r_i^2
    z_i``: the component's own map and course, times the share of its power that is the source's.
    A regression on z_i, ``m_i z_i``, would also take out what noise does in its place.

    The channels' covariance, ``sum_j r_j^2 m_j m_j' + noise``, seen by w_i is

        1 = sum_j r_j^2 c_ij^2 + noise |w_i|^2

    with correlations c_ij of components. Those that correlate are taken to be equally good,
    which gives shares that are positive and at most 1, and of two that are the same, half to each.

    Parameters
    ----------
    unmixing : ndarray of shape (n_components, n_channels)
        Rows w_i that make components of unit variance.
    correlation : ndarray of shape (n_components, n_components)
        Of the components.
    noise : float
        Variance of the noise in every channel (`loudest_noise`).

    Returns
    -------
    ndarray of shape (n_components,)
    """
    of_noise = noise * np.square(unmixing).sum(axis=1)
    shares = (1 - of_noise) / np.square(correlation).sum(axis=1)
    return np.asarray(np.clip(shares, 0, 1))  # but for rounding they are


def loudest_noise(quietest: float, powers: Array, unmixing: Array) -> float:
    """Return the largest variance that noise can have that is the same in all channels, always.

    No more than the quietest direction has, nor than is left in any component at its quiet
    times. The second counts where all directions hold sources, as in few channels.

    Parameters
    ----------
    quietest : float
        Variance of the channels' quietest direction.
    powers : ndarray of shape (n_labels, n_components)
        Of components of unit variance, in each label.
    unmixing : ndarray of shape (n_components, n_channels)
        Rows that make them.
    """
    quiet = np.quantile(powers, QUIET_SHARE, axis=0) / np.square(unmixing).sum(axis=1)
    return min(quietest, float(quiet.min()))


def _moments(rows: Array, covariances: Array) -> tuple[Array, Array, Array]:
    """Moments of the regressions of `under_noise`, of every pair of components.

    Of the three regressors with each other, of these with the covariance, and of that with
    itself.

    Returns
    -------
    normal : ndarray of shape (d, d, 3, 3)
    right : ndarray of shape (d, d, 3)
    square : ndarray of shape (d, d)
    """
    n, d, _ = covariances.shape
    half = covariances.reshape(n * d, d) @ rows.T.astype(covariances.dtype)
    seen = rows.astype(covariances.dtype) @ half.reshape(n, d, d)
    power = np.einsum("kii->ki", seen).astype(np.float64)
    weight = 1 / (power + POWER_FLOOR)
    root = np.sqrt(weight).astype(seen.dtype)
    half_weight = root[:, :, None] * root[:, None, :]
    seen *= half_weight
    square = np.einsum("kij,kij->ij", seen, seen).astype(np.float64) / n
    seen *= half_weight
    one, two = weight * power, weight * power**2
    by_own = one.T @ weight
    normal = np.empty((d, d, 3, 3))
    normal[..., 0, 0] = weight.T @ two
    normal[..., 1, 1] = two.T @ weight
    normal[..., 0, 1] = normal[..., 1, 0] = one.T @ one
    normal[..., 0, 2] = normal[..., 2, 0] = by_own.T
    normal[..., 1, 2] = normal[..., 2, 1] = by_own
    normal[..., 2, 2] = weight.T @ weight
    by_other = np.einsum("kij,kj->ij", seen, power)
    right = np.stack([by_other, by_other.T, seen.sum(axis=0)], axis=2)
    return normal / n, right.astype(np.float64) / n, square


def _excess(squares: Array, variances: Array) -> float:
    """The variance t for which squares over t + variances are 1 in the mean, 0 at least."""

    def off(t: float) -> float:
        return float((squares / (t + variances)).mean()) - 1

    most = float(squares.max())
    return float(brentq(off, 0.0, most)) if off(0.0) > 0 else 0.0
