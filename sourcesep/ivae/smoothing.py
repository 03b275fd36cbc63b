"""The posterior of z where an invertible map's x = f(z) has noise on it.

What a noiseless map answers, f^-1(x), has the noise in it, and often more of it than x had.
With f, the noise and p(z|u) given, E[z|x,u] leaves it out: the likeliest z of every sample
by damped Gauss-Newton steps, then draws around it, weighted by how well they explain x.
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

N_STEPS = 3
"""Of Gauss and Newton: they start at f^-1(x), which is near."""
N_DRAWS = 16
"""For weights: a power of 2, for which Sobol points are balanced."""
WIDER = 1.2
"""Draws for weights are from a Gaussian this much wider: narrow ones miss the tails."""
FARTHEST = 4.0
"""Prior standard deviations beyond which no search begins."""
DIFFERENCE = 1e-4
"""Of z in prior standard deviations, for slopes."""
LEAST_DAMPING, MOST_DAMPING = 1e-6, 1e6


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
    decode: Callable[[Array], Array],
    x: Array,
    start: Array,
    mean: Array,
    scale: Array,
    noise: Array,
    *,
    seed: int = 0,
    n_draws: int = N_DRAWS,
) -> Smoothed:
    """Infer z from x = decode(z) + noise.

    Parameters
    ----------
    decode : callable
        f, from (n_components, n_times) to (n_channels, n_times), one sample by itself.
    x : ndarray of shape (n_channels, n_times)
        Observations; NaN where missing.
    start : ndarray of shape (n_components, n_times)
        First guess of z, such as f^-1(x).
    mean, scale : ndarray of shape (n_components, n_times)
        Of p(z|u) for each sample, a Gaussian.
    noise : ndarray of shape (n_channels,)
        Standard deviation of the noise.
    seed : int
        Of the draws, which are the same for every sample.
    n_draws : int
        Draws, a power of 2.
    """
    there = np.isfinite(x)
    constant = (np.log(noise) + 0.5 * math.log(2 * math.pi)) @ there

    def errors(e: Array) -> Array:
        # many points of every sample at once: (n_points, d, n_times) to (n_points, n_channels, ..)
        found = decode(np.concatenate(list(mean + scale * e), axis=1))
        found = found.reshape(len(x), *e.shape[::2]).swapaxes(0, 1)
        return np.where(there, (x - found) / noise[:, None], 0.0)

    d = len(start)
    peak, root = _likeliest(errors, np.clip((start - mean) / scale, -FARTHEST, FARTHEST))
    normal = WIDER * normal_points(d, n_draws, seed)
    spread = np.linalg.inv(root).swapaxes(1, 2)  # (n_times, d, d)
    drawn = np.stack([peak + (spread @ one).T for one in normal])
    power = 0.5 * np.square(errors(drawn)).sum(axis=1)
    log_weight = -power - 0.5 * np.square(drawn).sum(axis=1)
    length = np.square(normal).sum(axis=1)
    log_weight += 0.5 * length[:, None] / WIDER**2
    total = logsumexp(log_weight, axis=0)
    weight = np.exp(log_weight - total)
    centre = sum(w * e for w, e in zip(weight, drawn, strict=True))
    square = sum(w * np.square(e) for w, e in zip(weight, drawn, strict=True))
    variance = np.maximum(square - np.square(centre), 0.0)
    # the fewer draws have a say, the less they know of the width
    decided = np.square(weight).sum(axis=0)
    variance += decided * (np.square(spread).sum(axis=2).T - variance)
    # weights of a Gaussian would be these, and its density is known
    log_gaussian = logsumexp(0.5 * length * (WIDER**-2 - 1))
    volume = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
    density = total - log_gaussian - volume - constant
    explained = -(weight * power).sum(axis=0) - constant
    return Smoothed(mean + scale * centre, scale * np.sqrt(variance), explained, density)


def _energy(errors: Array, e: Array) -> Array:
    """Minus the log of likelihood and prior, but for a constant, (n_times,)."""
    value: Array = 0.5 * (np.square(errors).sum(axis=0) + np.square(e).sum(axis=0))
    return value


def _likeliest(errors: Callable[[Array], Array], e: Array) -> tuple[Array, Array]:
    """Levenberg-Marquardt for each sample: the end, and the Cholesky factor of the curvature."""
    unit = np.eye(len(e))

    def slopes(e: Array, left: Array) -> Array:
        columns = (errors(e + DIFFERENCE * unit[:, :, None]) - left) / DIFFERENCE
        return columns.transpose(2, 1, 0)  # (n_times, n_channels, d)

    left = errors(e[None])[0]
    energy, damping = _energy(left, e), np.full(e.shape[1], 1e-2)
    for _ in range(N_STEPS):
        slope = slopes(e, left)
        gradient = (slope.swapaxes(1, 2) @ left.T[..., None])[..., 0] + e.T
        curvature = slope.swapaxes(1, 2) @ slope + unit
        damped = curvature + damping[:, None, None] * curvature * unit
        tried = e - np.linalg.solve(damped, gradient[..., None])[..., 0].T
        after = errors(tried[None])[0]
        value = _energy(after, tried)
        better = value < energy
        e, left = np.where(better, tried, e), np.where(better, after, left)
        energy = np.where(better, value, energy)
        damping = np.clip(damping * np.where(better, 0.3, 8.0), LEAST_DAMPING, MOST_DAMPING)
    slope = slopes(e, left)
    return e, np.asarray(np.linalg.cholesky(slope.swapaxes(1, 2) @ slope + unit), np.float64)
