"""The best that can be done on noisy data: the sources' posterior mean by the true model.

What noise has drowned no method brings back. Network, noise and the sources' scales are
known here, and E[z|x,u] is worked out by brute force: from several starts the most likely
sources (Levenberg-Marquardt), around them draws from heavy-tailed mixtures, weighted by
the true posterior.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import gammaln, logsumexp

from sourcesep.ivae.model import Array

__all__ = ["posterior"]

N_STARTS = 6
"""Of so many draws from the prior, those whose observations are nearest to x."""
N_PRIOR_DRAWS = 400
N_ITERATIONS = 25
N_DRAWS = 300
FREEDOM = 6.0
"""Of the Student-t around each of the likeliest sources."""
STEP = 1e-5
CHUNK = 500
"""Samples at once."""


def posterior(
    network: Callable[[Array], Array],
    x: Array,
    scales: Array,
    noise: Array,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """E[z|x,u] and log p(x|u) of Gaussian sources with these scales, x = network(z) + noise.

    Parameters
    ----------
    network : callable
        From (n_samples, n_sources) to (n_samples, n_channels).
    x : ndarray of shape (n_samples, n_channels)
        Observations.
    scales : ndarray of shape (n_samples, n_sources)
        The sources' standard deviation, sample by sample.
    noise : ndarray of shape (n_channels,)
        The noise's standard deviation.
    rng : numpy.random.Generator
        For starts and draws.

    Returns
    -------
    mean : ndarray of shape (n_samples, n_sources)
    log_density : ndarray of shape (n_samples,)
        In nats.
    """
    means, densities = [], []
    for begin in range(0, len(x), CHUNK):
        where = slice(begin, begin + CHUNK)
        model = _Model(network, x[where], scales[where], noise)
        mean, density = _weighted(model, *_likeliest(model, _starts(model, rng)), rng)
        means.append(mean * scales[where])
        densities.append(density)
    return np.concatenate(means), np.concatenate(densities)


class _Model:
    """Errors of x, in units of the noise, for sources in units of their scales.

    Sources are (n_samples, n_each, n_sources): several guesses for every sample.
    """

    def __init__(
        self, network: Callable[[Array], Array], x: Array, scales: Array, noise: Array
    ) -> None:
        self.network, self.x, self.scales, self.noise = network, x, scales, noise

    def errors(self, e: Array) -> Array:
        z = e * self.scales[:, None]
        decoded = self.network(z.reshape(-1, z.shape[2])).reshape(*z.shape[:2], -1)
        return (self.x[:, None] - decoded) / self.noise

    def energy(self, e: Array) -> Array:
        """Minus the log posterior, but for a constant."""
        value: Array = 0.5 * (np.square(self.errors(e)).sum(axis=2) + np.square(e).sum(axis=2))
        return value

    def slopes(self, e: Array) -> Array:
        """Of the errors, (n_samples, n_each, n_channels, n_sources)."""
        steps = STEP * np.eye(e.shape[2])
        columns = [(self.errors(e + h) - self.errors(e - h)) / (2 * STEP) for h in steps]
        return np.stack(columns, axis=3)


def _starts(model: _Model, rng: np.random.Generator) -> Array:
    drawn = rng.standard_normal((1, N_PRIOR_DRAWS, model.scales.shape[1]))
    nearest = []
    for k in range(len(model.x)):
        one = _Model(model.network, model.x[[k]], model.scales[[k]], model.noise)
        distance = np.square(one.errors(drawn)).sum(axis=2)[0]
        nearest.append(drawn[0, np.argpartition(distance, N_STARTS)[:N_STARTS]])
    return np.stack(nearest)


def _likeliest(model: _Model, e: Array) -> tuple[Array, Array]:
    """Levenberg-Marquardt from every start: sources, and the curvature there."""
    unit = np.eye(e.shape[2])
    damping, energy = np.ones(e.shape[:2]), model.energy(e)
    for _ in range(N_ITERATIONS):
        slopes = model.slopes(e)
        gradient = np.einsum("nkcd,nkc->nkd", slopes, model.errors(e)) + e
        curvature = np.einsum("nkcd,nkce->nkde", slopes, slopes) + unit
        diagonal = curvature * unit
        damped = curvature + damping[..., None, None] * diagonal
        tried = e - np.linalg.solve(damped, gradient[..., None])[..., 0]
        after = model.energy(tried)
        better = after < energy
        e = np.where(better[..., None], tried, e)
        energy = np.where(better, after, energy)
        damping = np.clip(damping * np.where(better, 0.3, 5.0), 1e-6, 1e8)
    slopes = model.slopes(e)
    return e, np.einsum("nkcd,nkce->nkde", slopes, slopes) + unit


def _weighted(
    model: _Model, modes: Array, curvature: Array, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Posterior mean and log density by draws from a mixture of Student-t's around the modes."""
    n, n_modes, d = modes.shape
    root = np.linalg.cholesky(curvature)
    log_det = np.log(np.diagonal(root, axis1=2, axis2=3)).sum(axis=2)
    mass = -model.energy(modes) - log_det
    share = np.exp(mass - logsumexp(mass, axis=1, keepdims=True))
    share = 0.9 * share + 0.1 / n_modes
    which = (rng.random((n, N_DRAWS, 1)) > share.cumsum(axis=1)[:, None, :-1]).sum(axis=2)
    rows = np.arange(n)[:, None]
    normal = rng.standard_normal((n, N_DRAWS, d, 1))
    stretched = normal / np.sqrt(rng.chisquare(FREEDOM, (n, N_DRAWS, 1, 1)) / FREEDOM)
    back = np.linalg.inv(root).swapaxes(2, 3)
    e = modes[rows, which] + (back[rows, which] @ stretched)[..., 0]
    proposal = []
    for k in range(n_modes):
        away = np.square((e - modes[:, [k]]) @ root[:, k]).sum(axis=2)
        density = -0.5 * (FREEDOM + d) * np.log1p(away / FREEDOM)
        proposal.append(np.log(share[:, [k]]) + log_det[:, [k]] + density)
    log_weight = -model.energy(e) - logsumexp(proposal, axis=0)
    total = logsumexp(log_weight, axis=1, keepdims=True)
    mean = np.einsum("nk,nkd->nd", np.exp(log_weight - total), e)
    # what energy and proposal leave out
    tails = gammaln((FREEDOM + d) / 2) - gammaln(FREEDOM / 2) - d / 2 * np.log(np.pi * FREEDOM)
    gauss = -0.5 * (d + len(model.noise)) * np.log(2 * np.pi) - np.log(model.noise).sum()
    return mean, total[:, 0] - np.log(N_DRAWS) - tails + gauss
