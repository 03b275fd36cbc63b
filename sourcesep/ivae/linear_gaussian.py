"""x = A z + offset + noise with Gaussian z given u: everything in closed form.

The `amortised` family starts here, and stays here unless a network explains held-out
samples better.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sourcesep.ivae.model import Array

__all__ = ["LEAST_NOISE", "LinearGaussian"]

LEAST_NOISE = 1e-8
"""Of a channel of variance 1: at -80 dB it changes no source."""
N_ROUNDS = 100
"""Of expectation and maximisation."""
LEAST_VARIANCE = 1e-8
CHUNK = 4096
"""Samples at once: the memory that covariances take is bounded."""


@dataclass(frozen=True)
class LinearGaussian:
    """A mixing matrix, and white noise of a variance of its own in every channel.

    Parameters
    ----------
    mixing : ndarray of shape (n_channels, n_components)
        A above.
    noise : ndarray of shape (n_channels,)
        Variances. The channels have mean 0 and variance 1.
    """

    mixing: Array
    noise: Array

    @property
    def n_components(self) -> int:
        """Number of sources."""
        return int(self.mixing.shape[1])

    @classmethod
    def fit(
        cls, x: Array, mixing: Array, labels: NDArray[np.int64], n_labels: int, with_mean: bool
    ) -> tuple[Self, Array, Array]:
        """Fit noise and prior by expectation and maximisation, the matrix given.

        With as many sources as channels noise and sources' variances can hardly be told
        apart: the noise is then the least.

        Parameters
        ----------
        x : ndarray of shape (n_channels, n_times)
            Complete, each channel of mean 0 and variance 1.
        mixing : ndarray of shape (n_channels, n_components)
            A above.
        labels : ndarray of int, shape (n_times,)
            One for each sample, all of them 0 or above.
        n_labels : int
            Number of labels.
        with_mean : bool
            Whether the prior has a mean for each label.

        Returns
        -------
        model : LinearGaussian
        mean, variance : ndarray of shape (n_labels, n_components)
            Of z given each label.
        """
        n, d = mixing.shape
        counts = np.bincount(labels, minlength=n_labels).astype(float)
        share = counts / counts.sum()
        order = np.argsort(labels, kind="stable")
        parts = np.split(x[:, order], np.cumsum(counts[:-1]).astype(int), axis=1)
        first = np.stack([p.sum(axis=1) for p in parts]) / np.maximum(counts, 1)[:, None]
        second = np.stack([p @ p.T for p in parts]) / np.maximum(counts, 1)[:, None, None]
        inverse = np.linalg.pinv(mixing)
        rest = np.eye(n) - mixing @ inverse
        overall = np.tensordot(share, second, 1)
        noise = np.maximum(np.diag(rest @ overall @ rest.T) * n / max(n - d, 1), LEAST_NOISE)
        mean = first @ inverse.T * with_mean
        variance = np.einsum("ij,kjl,il->ki", inverse, second, inverse) - mean**2
        pooled = np.maximum(share @ variance, LEAST_VARIANCE)
        empty = counts == 0
        for _ in range(N_ROUNDS if d < n and noise.max() > LEAST_NOISE else 1):
            variance = np.maximum(variance, LEAST_VARIANCE * pooled)
            variance[empty] = pooled
            spread, gain = cls(mixing, noise)._gains(variance)
            aside = np.einsum("kij,kj->ki", spread, mean / variance)
            found = np.einsum("kij,kj->ki", gain, first) + aside
            cross = second @ gain.swapaxes(1, 2) + first[:, :, None] * aside[:, None]
            both = aside[:, :, None] * np.einsum("kij,kj->ki", gain, first)[:, None]
            square = spread + gain @ second @ gain.swapaxes(1, 2) + both + both.swapaxes(1, 2)
            square += aside[:, :, None] * aside[:, None]
            if d < n:
                left = np.diag(overall) - 2 * (np.tensordot(share, cross, 1) * mixing).sum(axis=1)
                left += np.diag(mixing @ np.tensordot(share, square, 1) @ mixing.T)
                noise = np.maximum(left, LEAST_NOISE)
            mean = found * with_mean
            variance = np.diagonal(square, axis1=1, axis2=2) - mean**2
        variance = np.maximum(variance, LEAST_VARIANCE * pooled)
        variance[empty], mean[empty] = pooled, 0.0
        return cls(mixing, noise), mean, variance

    def _gains(self, variance: Array) -> tuple[Array, Array]:
        """Posterior covariances (n, d, d) and gains (n, d, n_channels), by rows of variances."""
        weighted = self.mixing.T / self.noise
        precision = weighted @ self.mixing + _diagonals(1 / variance)
        covariance: Array = np.asarray(np.linalg.inv(precision), np.float64)
        return covariance, covariance @ weighted

    def posterior(self, x: Array, mean: Array, variance: Array) -> tuple[Array, Array, Array]:
        """p(z|x), and log p(x), given the prior's moments of every sample.

        Parameters
        ----------
        x : ndarray of shape (n_channels, n_times)
            NaN where missing.
        mean, variance : ndarray of shape (n_components, n_times)
            Of z, before x is seen.

        Returns
        -------
        mean : ndarray of shape (n_components, n_times)
        covariance : ndarray of shape (n_times, n_components, n_components)
        log_density : ndarray of shape (n_times,)
            Of the entries of x that are there, nats.
        """
        ends = range(0, x.shape[1], CHUNK)
        parts = [
            self._posterior(*(v[:, begin : begin + CHUNK] for v in (x, mean, variance)))
            for begin in ends
        ]
        means, covariances, densities = zip(*parts, strict=True)
        return np.concatenate(means, 1), np.concatenate(covariances), np.concatenate(densities)

    def _posterior(self, x: Array, mean: Array, variance: Array) -> tuple[Array, Array, Array]:
        there = np.isfinite(x)
        error = np.where(there, x, 0.0) - np.where(there, self.mixing @ mean, 0.0)
        products = self.mixing[:, :, None] * self.mixing[:, None] / self.noise[:, None, None]
        precision = np.tensordot(there.T.astype(float), products, 1) + _diagonals(1 / variance.T)
        covariance: Array = np.asarray(np.linalg.inv(precision), np.float64)
        pulled = self.mixing.T @ (error / self.noise[:, None])
        found = np.einsum("nij,jn->in", covariance, pulled)
        left = np.where(there, error - self.mixing @ found, 0.0)
        quadratic = (left**2 / self.noise[:, None]).sum(0) + (found**2 / variance).sum(0)
        volume = np.linalg.slogdet(precision)[1] + np.log(variance).sum(0)
        volume += (there * np.log(2 * np.pi * self.noise)[:, None]).sum(0)
        return mean + found, covariance, -0.5 * (quadratic + volume)


def _diagonals(rows: Array) -> Array:
    """Diagonal matrices (n, d, d) of rows (n, d)."""
    out = np.zeros((*rows.shape, rows.shape[1]))
    at = np.arange(rows.shape[1])
    out[:, at, at] = rows
    return out
