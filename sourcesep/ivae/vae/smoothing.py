"""The posterior of z where an invertible map's x = f(z) has noise on it.

What a noiseless map answers, f^-1(x), has the noise in it, and often more of it than x had.
With the map, the noise and p(z|u) given, E[z|x,u] leaves it out: the noise is drawn, taken off
x, and f^-1 of what is left weighted by how likely that is without noise. So f itself is never
asked for, which may be wild where no source has been.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp, ndtri
from scipy.stats import qmc

from sourcesep.ivae.model import Array

__all__ = ["WIDER", "Smoothed", "normal_points", "smooth"]

N_DRAWS = 32
"""For weights: a power of 2, for which Sobol points are balanced."""
WIDER = 1.2
"""Draws for weights are from a Gaussian this much wider: narrow ones miss the tails."""


class Smoothed(NamedTuple):
    """Moments of p(z|x,u), E[log p(x|z)] under it, and a bound on log p(x|u), sample by sample."""

    mean: Array
    scale: Array
    reconstruction: Array
    log_density: Array


def normal_points(d: int, n_draws: int, seed: int) -> Array:
    """Return standard normal numbers by quasi Monte Carlo, (n_draws, d)."""
    points = qmc.Sobol(d, seed=seed).random(n_draws)
    return np.asarray(ndtri(np.clip(points, 1e-6, 1 - 1e-6)), np.float64)


def smooth(
    noiseless: Callable[[Array], tuple[Array, Array]],
    x: Array,
    noise: Array,
    likely: tuple[Array, Array] | None = None,
    *,
    seed: int = 0,
    n_draws: int = N_DRAWS,
) -> Smoothed:
    """Infer z from x = f(z) + noise.

    Parameters
    ----------
    noiseless : callable
        From f(z), (n_channels, n_times), to z, (n_components, n_times), and the log density of
        f(z) given u, (n_times,), one sample by itself.
    x : ndarray of shape (n_channels, n_times)
        Observations; NaN where missing.
    noise : ndarray of shape (n_channels,)
        Standard deviation of the noise.
    likely : tuple of ndarray, optional
        What missing entries may be: mean (n_channels, n_times) and deviation (n_channels,).
    seed : int
        Of the draws, which are the same for every sample.
    n_draws : int
        Draws, a power of 2.
    """
    there = np.isfinite(x)
    centre, reach = x, noise[:, None]
    if likely is not None:
        centre = np.where(there, x, likely[0])
        reach = np.where(there, reach, likely[1][:, None])
    constant = np.log(reach) + 0.5 * math.log(2 * math.pi)
    found, weights, explained = [], [], []
    for normal in normal_points(len(x), n_draws, seed)[..., None]:
        z, density = noiseless(centre - reach * normal)
        log_normal = -0.5 * np.square(normal) - constant
        found.append(z)
        weights.append(density - (log_normal * ~there).sum(axis=0))
        explained.append((log_normal * there).sum(axis=0))
    log_weight = np.stack(weights)
    total = logsumexp(log_weight, axis=0)
    weight = np.exp(log_weight - total)
    mean = sum(w * z for w, z in zip(weight, found, strict=True))
    variance = sum(w * np.square(z - mean) for w, z in zip(weight, found, strict=True))
    # the fewer draws have a say, the less they know of the width
    free = np.maximum(1 - np.square(weight).sum(axis=0), 1 / n_draws)
    reconstruction = sum(w * e for w, e in zip(weight, explained, strict=True))
    return Smoothed(mean, np.sqrt(variance / free), reconstruction, total - math.log(n_draws))
