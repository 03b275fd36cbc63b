"""x = A z + noise with Gaussian z given u: everything in closed form.

The `factor` family is this and nothing else; the `amortised` family starts here, and stays
here unless a network explains held-out samples better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sourcesep.ivae.model import ELBO, Array
from sourcesep.ivae.priors import LabelPrior

__all__ = ["CHUNK", "Inferred", "LinearGaussian"]

CHUNK = 4096
"""Samples that are worked on at once, which bounds the memory for their covariances."""


class Inferred(NamedTuple):
    """p(z|x) of every sample, and log p(x).

    Parameters
    ----------
    mean, scale : ndarray of shape (n_components, n_times)
        Of each source.
    entropy : ndarray of shape (n_times,)
        Of all sources together, nats.
    log_density : ndarray of shape (n_times,)
        Of the entries of x that are there, nats.
    """

    mean: Array
    scale: Array
    entropy: Array
    log_density: Array


@dataclass(frozen=True)
class LinearGaussian:
    """A mixing matrix, and white noise of a variance of its own in every channel.

    Parameters
    ----------
    mixing : ndarray of shape (n_channels, n_components)
        A above.
    noise : ndarray of shape (n_channels,)
        Variances, above 0.
    """

    mixing: Array
    noise: Array

    @property
    def n_components(self) -> int:
        """Number of sources."""
        return int(self.mixing.shape[1])

    def infer(self, x: Array, prior: LabelPrior, rows: NDArray[np.int64]) -> Inferred:
        """p(z|x) and log p(x), exactly, whichever entries are missing.

        Parameters
        ----------
        x : ndarray of shape (n_channels, n_times)
            Observations, less what they are where z is 0; NaN where missing.
        prior : LabelPrior
            Its means and variances are used.
        rows : ndarray of int, shape (n_times,)
            The prior's row for every sample.
        """
        mean, variance = prior.mean, prior.variance
        parts = [
            self._infer(x[:, begin : begin + CHUNK], mean, variance, rows[begin : begin + CHUNK])
            for begin in range(0, max(x.shape[1], 1), CHUNK)
        ]
        return Inferred(*(np.concatenate(part, axis=-1) for part in zip(*parts, strict=True)))

    def elbo(self, x: Array, prior: LabelPrior, rows: NDArray[np.int64]) -> ELBO:
        """Both terms of the bound, which is tight: their difference is log p(x)."""
        found = self.infer(x, prior, rows)
        expected = prior.expected_log_prob(found.mean, found.scale, rows).sum(axis=0)
        kl = -found.entropy - expected
        return ELBO(found.log_density + kl, kl)

    def _infer(
        self, x: Array, mean: Array, variance: Array, rows: NDArray[np.int64]
    ) -> tuple[Array, Array, Array, Array]:
        there = np.isfinite(x)
        # samples of one label with the same entries missing share their covariance
        marks = np.vstack([rows, np.packbits(there, axis=0)])
        _, first, kind = np.unique(marks, axis=1, return_index=True, return_inverse=True)
        kind = kind.ravel()
        covariance = self.covariance(there[:, first], variance[rows[first]])
        centre, spread = mean[rows].T, variance[rows].T
        error = np.where(there, np.where(there, x, 0.0) - self.mixing @ centre, 0.0)
        pulled = self.mixing.T @ (error / self.noise[:, None])
        found = np.einsum("nij,jn->in", covariance[kind], pulled)
        left = np.where(there, error - self.mixing @ found, 0.0)
        quadratic = (left**2 / self.noise[:, None]).sum(0) + (found**2 / spread).sum(0)
        log_det = np.linalg.slogdet(covariance)[1][kind]
        volume = np.log(spread).sum(0) - log_det
        volume += np.log(2 * np.pi * self.noise) @ there
        scale = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))[kind].T
        entropy = 0.5 * (log_det + len(found) * np.log(2 * np.pi * math.e))
        return centre + found, scale, entropy, -0.5 * (quadratic + volume)

    def covariance(self, there: NDArray[np.bool_], variance: Array) -> Array:
        """Posterior covariances, (n, n_components, n_components).

        Parameters
        ----------
        there : ndarray of bool, shape (n_channels, n)
            Which channels are seen.
        variance : ndarray of shape (n, n_components)
            Prior variance of z.
        """
        products = self.mixing[:, :, None] * self.mixing[:, None] / self.noise[:, None, None]
        precision = np.tensordot(there.T.astype(float), products, 1) + diagonals(1 / variance)
        covariance: Array = np.asarray(np.linalg.inv(precision), np.float64)
        return covariance


def diagonals(rows: Array) -> Array:
    """Diagonal matrices (n, d, d) of rows (n, d)."""
    out = np.zeros((*rows.shape, rows.shape[1]))
    at = np.arange(rows.shape[1])
    out[:, at, at] = rows
    return out
