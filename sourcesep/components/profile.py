"""p(z|u) at a glance: each component's power in every condition and frequency band."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from scipy.ndimage import uniform_filter1d
from scipy.optimize import linear_sum_assignment

from sourcesep.auxiliary import Scale
from sourcesep.ivae.model import Array

__all__ = ["BANDS", "Profile", "correlations", "follow_alike", "likenesses", "profile"]

BANDS = (1.0, 4.0, 8.0, 13.0, 30.0, 48.0)
"""Edges of delta, theta, alpha, beta and low gamma in Hz; below mains hum."""
SHORTEST = 2.0
"""Seconds of a condition, below which its slow bands have no power to speak of."""
WINDOW = 0.5
"""Seconds over which power is averaged before its logarithm is: a few bursts would decide
the mean power of a condition, and say little of it."""
SILENCE = 1e-12
N_SHUFFLES = 200
"""Orders of the conditions that the right one is compared with."""
AT_MOST_BETTER = 1
"""Of these: so many in one of a hundred pairs of recordings that have nothing in common."""


@dataclass(frozen=True)
class Profile:
    """How the power of components changes with the conditions.

    Parameters
    ----------
    conditions : tuple of str
        Labels of u that are not stretches of time.
    bands : tuple of float
        Edges of the bands in Hz.
    log_power : ndarray of shape (n_components, n_conditions, n_bands)
        Mean log power of each component.
    """

    conditions: tuple[str, ...]
    bands: tuple[float, ...]
    log_power: Array


def profile(z: Array, conditions: Scale, sfreq: float) -> Profile | None:
    """Measure the profile of components.

    Parameters
    ----------
    z : ndarray of shape (n_components, n_times)
        Components.
    conditions : Scale
        The condition of every sample.
    sfreq : float
        Samples a second.

    Returns
    -------
    Profile or None
        None if fewer than two conditions last long enough.
    """
    counts = np.bincount(conditions.labels, minlength=conditions.n_labels)
    long_enough = np.flatnonzero(counts >= SHORTEST * sfreq)
    if len(long_enough) < 2:
        return None
    size = max(1, round(WINDOW * sfreq))
    edges = [edge for edge in BANDS if edge < sfreq / 2]
    n_fft = next_fast_len(z.shape[1], real=True)
    frequency = np.fft.rfftfreq(n_fft, 1 / sfreq)
    log_power = np.empty((len(z), len(long_enough), len(edges) - 1))
    for k, row in enumerate(z):
        transform = np.fft.rfft(row, n_fft)
        for band, (low, high) in enumerate(pairwise(edges)):
            inside = (frequency >= low) & (frequency < high)
            power = np.fft.irfft(transform * inside, n_fft)[: len(row)] ** 2
            logs = np.log(np.maximum(uniform_filter1d(power, size), SILENCE))
            sums = np.bincount(conditions.labels, logs, conditions.n_labels)
            log_power[k, :, band] = sums[long_enough] / counts[long_enough]
    names = tuple(conditions.names[label] for label in long_enough)
    return Profile(names, tuple(edges), log_power)


def likenesses(one: Array, other: Array) -> tuple[Array, Array]:
    """Correlate the profiles of two recordings, and their changes with the conditions.

    Parameters
    ----------
    one, other : ndarray of shape (n_components, n_conditions, n_bands)
        Log power, in the same conditions and bands.

    Returns
    -------
    whole, changes : ndarray of shape (n_components of one, n_components of the other)
        Spectra count in the first only.
    """
    both = (one, other)
    whole = [p - p.mean(axis=(1, 2), keepdims=True) for p in both]
    changes = [p - p.mean(axis=1, keepdims=True) for p in both]
    return correlations(*whole), correlations(*changes)


def follow_alike(one: Array, other: Array) -> bool:
    """Whether the components of two recordings follow the conditions alike, beyond chance.

    A permutation test whose statistic is the mean correlation of the changes of partners: of
    single components a weak effect does not stand out of chance, of all together it does.

    Parameters
    ----------
    one, other : ndarray of shape (n_components, n_conditions, n_bands)
        Log power, in the same conditions and bands.
    """
    if not len(one) or not len(other):
        return False
    rng = np.random.default_rng(0)  # the same orders whenever the same fits are compared

    def alike(order: NDArray[np.int64]) -> float:
        whole, changes = likenesses(one, other[:, order])
        return float(changes[linear_sum_assignment(-whole)].mean())

    n_conditions = one.shape[1]
    found = alike(np.arange(n_conditions))
    better = sum(alike(rng.permutation(n_conditions)) >= found for _ in range(N_SHUFFLES))
    return better <= AT_MOST_BETTER


def correlations(a: Array, b: Array) -> Array:
    """Correlate each row (what follows the first axis) of a with each of b, about 0."""
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    norms = np.outer(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1))
    correlation: Array = a @ b.T / np.where(norms > 0, norms, 1)
    return correlation
