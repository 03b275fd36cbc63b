"""The posterior of Gaussian sources behind a real matrix: exact, for any number of sources."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sourcesep.ivae.model import Array
from sourcesep.ivae.stft.cells import Cells, power

__all__ = ["NOISE", "Wiener", "wiener"]

NOISE = 1e-7
"""Variance of e, of channels of unit variance, by rule: it cannot be told from faint sources.
At -70 dB the posterior means of all sources add up to x."""
BLOCK = 2**13
"""Cells at a time: so many fit into a processor's cache."""


class Wiener(NamedTuple):
    """q(z|x) in every cell.

    Parameters
    ----------
    mean : ndarray of complex64, shape (n_sources, n_frames, n_bins)
        The multichannel Wiener filter's output.
    variance : ndarray of float32, shape (n_sources, n_frames, n_bins)
        Of each source.
    spread : ndarray of float32, shape (n_frames, n_bins)
        E |A z - A mean|^2, summed over the channels.
    log_density : ndarray of float32, shape (n_frames, n_bins)
        log p(x), nats, of complex variables: -log(pi v) - |x|^2 / v.
    """

    mean: Cells
    variance: Cells
    spread: Cells
    log_density: Cells

    @property
    def power(self) -> Cells:
        """E |z|^2 of each source, (n_sources, n_frames, n_bins)."""
        return power(self.mean) + self.variance


def wiener(cells: Cells, mixing: Array, variances: Cells, noise: float = NOISE) -> Wiener:
    """Posterior of z in x = A z + e, z_n ~ N(0, variances_n), e ~ N(0, noise I).

    Channels are taken in one after another (as by a Kalman filter in its update step): there
    is no matrix to invert, and as many sources as one likes.

    Parameters
    ----------
    cells : ndarray of complex64, shape (n_channels, n_frames, n_bins)
        x.
    mixing : ndarray of shape (n_channels, n_sources)
        A.
    variances : ndarray of float32, shape (n_sources, n_frames, n_bins)
        Above 0.
    noise : float
        Variance of e, above 0.
    """
    shape = variances.shape
    x, prior = cells.reshape(len(cells), -1), variances.reshape(len(variances), -1)
    found = Wiener(
        np.empty(prior.shape, np.complex64),
        np.empty(prior.shape, np.float32),
        np.empty(prior.shape[1], np.float32),
        np.empty(prior.shape[1], np.float32),
    )
    for begin in range(0, prior.shape[1], BLOCK):
        part = slice(begin, begin + BLOCK)
        block = _condition(x[:, part], mixing, prior[:, part], noise)
        for whole, value in zip(found, block, strict=True):
            whole[..., part] = value
    return Wiener(*(whole.reshape(*whole.shape[:-1], *shape[1:]) for whole in found))


def _condition(
    x: Cells, mixing: Array, prior: Cells, noise: float
) -> tuple[NDArray[np.complex128], Array, Array, Array]:
    # covariance = diag(prior) - sum over the channels so far of cross cross^T / variance
    variances = prior.astype(np.float64)
    spread = np.square(mixing).sum(axis=0) @ variances
    mean = np.zeros(prior.shape, np.complex128)
    log_density = np.full(prior.shape[1], -len(x) * np.log(np.pi))
    known: list[tuple[Array, Array]] = []
    for channel, row in zip(x, mixing, strict=True):
        cross = row[:, None] * prior
        for other, variance in known:
            cross -= other * ((row @ other) / variance)
        variance = row @ cross + noise
        innovation = channel - row @ mean
        gain = cross / variance
        mean += gain * innovation
        variances -= gain * cross
        spread -= np.square(mixing @ cross).sum(axis=0) / variance
        log_density -= np.log(variance) + power(innovation) / variance
        known.append((cross, variance))
    return mean, np.maximum(variances, 0), np.maximum(spread, 0), log_density
