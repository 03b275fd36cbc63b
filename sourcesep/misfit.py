"""Misfit: what components that should be independent still say of each other."""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np

from sourcesep.ivae.contrast import prediction_filter
from sourcesep.ivae.model import Array

__all__ = ["Misfit", "misfit"]

SHORTEST = 256
"""Samples; fewer say nothing about misfit."""
MOST_PAIRS = 28
"""Pairs of components whose misfit is examined; the strongest components come first."""


class Misfit(NamedTuple):
    """How much one component still says of another, in standard errors.

    Parameters
    ----------
    delay : float
        Largest cross-correlation at any lag but 0.
    power : float
        Largest correlation with another's square or cube.
    """

    delay: float
    power: float


def misfit(z: Array, sfreq: float) -> Misfit:
    """How much one component still says of another, in standard errors.

    Each component is whitened by linear prediction and divided by its envelope, which
    makes it noise of unit variance. Independent components are then uncorrelated, about
    N(0, 1) in standard errors, (a) at every lag: a room or any filter that was not fitted
    shows here; and (b) with the squares and cubes of the others, seen through the same
    whitening: saturation shows here. Correlation without lag or power is left out, as
    every fit makes it 0.

    Parameters
    ----------
    z : ndarray of shape (n_components, n_times)
        Components; the strongest first, of which `MOST_PAIRS` pairs are examined.
    sfreq : float
        Samples a second. Lags go up to 50 ms, or 32 samples if that is more.

    Returns
    -------
    Misfit
        The largest of each.
    """
    if z.shape[1] < SHORTEST:
        return Misfit(0.0, 0.0)
    n_strongest = int((1 + np.sqrt(1 + 8 * MOST_PAIRS)) // 2)
    z = z[:n_strongest]
    z = z[np.ptp(z, axis=1) > 0]  # what is constant depends on nothing
    z = z - z.mean(axis=1, keepdims=True)
    z = z / z.std(axis=1, keepdims=True)
    flat = [_Flattening(row, min(max(16, round(0.02 * sfreq)), len(row))) for row in z]
    return Misfit(_lagged_dependence(flat, z, sfreq), _power_dependence(flat, z))


class _Flattening:
    """Whitening and division by the envelope, as one component calls for."""

    def __init__(self, y: Array, width: int) -> None:
        from scipy.ndimage import uniform_filter1d

        self.taps = prediction_filter(y, 32, 1e-4)
        errors = self._whiten(y)
        power = uniform_filter1d(errors**2, width, mode="constant")
        self.envelope = np.sqrt(np.maximum(power, 0)) + 1e-6 * errors.std()

    def _whiten(self, y: Array) -> Array:
        from scipy.signal import lfilter

        errors: Array = lfilter(self.taps, [1.0], y)
        return errors

    def __call__(self, y: Array) -> Array:
        flat: Array = self._whiten(y) / self.envelope
        return flat


def _lagged_dependence(flat: list[_Flattening], z: Array, sfreq: float) -> float:
    n_times = z.shape[1]
    n_lags = min(max(32, round(0.05 * sfreq)), max(4, n_times // 64))
    n_fft = 1 << (2 * n_times - 1).bit_length()
    spectra = [np.fft.rfft(f(row), n_fft) for f, row in zip(flat, z, strict=True)]
    worst = 0.0
    for a, b in combinations(spectra, 2):
        correlation = np.fft.irfft(a * b.conj(), n_fft)
        near = np.concatenate([correlation[1:n_lags], correlation[-n_lags + 1 :]])
        # the standard error is read off lags so far apart that nothing connects them
        far = np.concatenate(
            [correlation[10 * n_lags : 20 * n_lags], correlation[-20 * n_lags : -10 * n_lags]]
        )
        error = np.sqrt((far**2).mean())
        if error > 0:
            worst = max(worst, float(np.abs(near).max() / error))
    return worst


def _power_dependence(flat: list[_Flattening], z: Array) -> float:
    worst = 0.0
    for j, flatten in enumerate(flat):
        target = flatten(z[j])
        target = target / target.std()
        for i in range(len(z)):
            if i == j:
                continue
            powers = np.stack([flatten(z[i] ** p) for p in (1, 2, 3)], axis=1)
            basis = np.linalg.qr(powers)[0]
            worst = max(worst, float(np.abs(basis[:, 1:].T @ target).max()))
    return worst
