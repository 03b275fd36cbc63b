"""What the `amortised` family chooses between: a map with its prior, and how likely it is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.flows.seen_noise import seen_noise
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.matrices.contrast import heldout_log_likelihood, innovations
from sourcesep.ivae.matrices.factor_em import LEAST_NOISE, Factors, Fitted, Observed, maximise
from sourcesep.ivae.missing import impute
from sourcesep.ivae.model import Array
from sourcesep.ivae.prior_tables import Prior, gaussian_prior, pooled, table_for
from sourcesep.ivae.priors import LabelPrior, label_sums
from sourcesep.ivae.settings import GAUSSIAN
from sourcesep.ivae.training import History
from sourcesep.ivae.vae.latent_start import LatentStart
from sourcesep.ivae.vae.maps import FlowMap, MatrixMap, NetworkMap
from sourcesep.ivae.vae.prior_network import NetworkPrior

__all__ = ["COST", "Candidate", "Noisy", "choose_noise", "fit_matrix", "score"]

NO_HISTORY = History(
    np.zeros(0, np.int64), np.zeros((0, 1)), np.zeros((0, 1)), np.zeros(1, np.int64)
)
"""Of what is fitted in closed form."""
NOISES = (0.005, 0.3)
"""Least and largest standard deviation that noise on the inverse of a flow may have, a channel's
own being 1."""
FAINTEST = 0.0005
"""The least where the flow itself says how likely x is without any: a map may be so steep that
.5 % hides much of a component, and the data leave no room even for that."""
N_HALVINGS = 7
"""Of the range in which it lies, on a logarithmic scale: 5 % are left."""
COST = 0.015
"""Nats a sample and component that noise costs where it is there: a map that was fitted without
it has taken some of it in. 5 % and 20 % were found by this in development."""
SOME = 1000
"""Samples by which one of them is chosen."""
LEAST_SHARE = 0.05
"""Of a component's variance given u that is not noise."""


@dataclass(frozen=True)
class Candidate:
    """A map with the prior that it was fitted with, and how."""

    map: MatrixMap | FlowMap | NetworkMap
    prior: Prior
    history: History


def fit_matrix(
    x: Array,
    u: Auxiliary,
    free: NDArray[np.bool_],
    rng: np.random.Generator,
    n_components: int | None,
    starts: tuple[str, ...],
) -> Candidate:
    """Fit the linear candidate.

    Parameters
    ----------
    x : ndarray of shape (n_channels, n_times)
        Each channel of mean 0 and variance 1: noise is every channel's own, so that
        their scales say nothing of what to keep. NaN where missing.
    u : Auxiliary
        Every sample has a label.
    free : ndarray of bool, shape (n_times,)
        Samples to be fitted on.
    rng : numpy.random.Generator
        For every random choice.
    n_components : int or None
        Number of sources; the rank by default.
    starts : tuple of str
        Of `LinearModel`.
    """
    part, with_mean = u.take(free), not u.is_time
    linear = LinearModel(n_components, starts=starts).fit(impute(x)[:, free], part, rng)
    found, _ = maximise(
        _with_noise(linear.mixing, u.n_labels),
        Observed.of(x[:, free], part.labels, u.n_labels),
        # with as many sources as channels noise and sources can hardly be told apart
        Fitted(mixing=False, noise=linear.n_components < len(x), mean=with_mean),
    )
    counts = np.bincount(part.labels, minlength=u.n_labels)
    start = LatentStart(found.gaussian, pooled(found.mean, found.variance, counts))
    prior: Prior = gaussian_prior(found.mean, found.variance)
    if u.covariates is not None:
        prior = NetworkPrior.fit(start(x[:, free]), part, rng, shapes=GAUSSIAN)
    return Candidate(MatrixMap(start), prior, NO_HISTORY)


@dataclass(frozen=True)
class Noisy(Candidate):
    """The inverse of a flow with noise on it.

    Parameters
    ----------
    map : FlowMap
        With its noise.
    density : float
        Of held-out samples without that noise, nats a sample.
    hidden : ndarray of shape (n_components,)
        Share of each component's variance that is not known once x is.
    """

    map: FlowMap
    density: float
    hidden: Array


def choose_noise(
    start: LatentStart,
    x: Array,
    u: Auxiliary,
    held: NDArray[np.bool_],
    *,
    cost: float = COST,
) -> Noisy:
    """Choose the noise on the inverse of the start's flow.

    The flow was fitted as though there were no noise. Noise is as large as may be for its cost:
    where there is some, x is spread out so far that as much again is no great loss, and where
    there is none, folds of f^-1 are. Where it shows in what components share it is at least as
    large as that tells.

    Parameters
    ----------
    start, x, u, held
        As for `fit_networks`; the start has a flow.
    cost : float
        Nats a sample and component that noise may cost.
    """
    flow = FlowMap(start, 0.0).flow
    free, unseen = _some(~held), _some(held)
    chosen, rows, every = list(start.chosen), u.labels[free], flow.prior
    z = flow.latents(x[:, free])[chosen]
    prior = LabelPrior(every.mean[:, chosen], every.scale[:, chosen], every.shape[chosen])
    plain = np.square(z - prior.mean[rows].T)

    def tried(noise: float) -> tuple[Noisy, float]:
        noisy = FlowMap(start, noise**2)
        mean, scale = noisy.encode(x[:, free], prior, rows)
        true = np.square(mean - prior.mean[rows].T) + scale**2
        known, whole = (label_sums(part, rows, u.n_labels) for part in (true, plain))
        share = np.clip(known / np.maximum(whole, 1e-12), LEAST_SHARE, 1.0)
        smaller = LabelPrior(prior.mean, prior.scale * np.sqrt(share), prior.shape)
        hidden = np.square(scale).mean(axis=1) / z.var(axis=1)
        found = noisy.log_density(x[:, unseen], smaller, u.labels[unseen]).mean()
        return Noisy(noisy, smaller, flow.history_, np.nan, hidden), float(found)

    is_full = flow.n_components == flow.n_channels
    low, high = FAINTEST if is_full else NOISES[0], NOISES[1]
    best, least = tried(low)
    density, part = least, least
    if is_full:  # elsewhere the flow has seen more noise than x has
        density = float(flow.log_density(x[:, held], u.take(held)).mean())
        part = float(flow.log_density(x[:, unseen], u.take(unseen)).mean())
    for _ in range(N_HALVINGS):
        middle = float(np.sqrt(low * high))
        candidate, found = tried(middle)
        if found < part - cost * len(z):
            high = middle
        else:
            low, best = middle, candidate
    if is_full:
        seen = np.sqrt(seen_noise(flow, x, u, best.map.variance))
        if seen > np.sqrt(best.map.variance):
            best, _ = tried(float(min(seen, NOISES[1])))
    return replace(best, density=density)


def _some(which: NDArray[np.bool_]) -> NDArray[np.int64]:
    index = np.flatnonzero(which)
    return index[:: max(1, len(index) // SOME)]


def _with_noise(mixing: Array, n_labels: int) -> Factors:
    """A matrix for x of variance 1, with the noise that it leaves room for."""
    n, d = mixing.shape
    left = np.maximum(1 - np.square(mixing).sum(axis=1), LEAST_NOISE)
    noise = left if d < n else np.full(n, LEAST_NOISE)
    return Factors(mixing, np.zeros(n), noise, np.zeros((n_labels, d)), np.ones((n_labels, d)))


def score(
    candidate: Candidate,
    x: Array,
    u: Auxiliary,
    held: NDArray[np.bool_],
    *,
    with_spectra: bool = False,
) -> float:
    """Log density of held-out samples, nats a sample of standardised x.

    Networks that see neighbours know the sources' spectra. A matrix does not, and is
    given what its sources' own past tells of them where it is compared with such networks
    (`with_spectra`).
    """
    if isinstance(candidate.map, NetworkMap) and candidate.map.sees_neighbours:
        density = candidate.map.log_density(x, *table_for(candidate.prior, u))[held].mean()
    else:
        unseen = table_for(candidate.prior, u.take(held))
        density = candidate.map.log_density(x[:, held], *unseen).mean()
    if with_spectra:
        z = candidate.map.start.by_matrix(x)
        past, white = (
            heldout_log_likelihood(
                v, u.labels, u.n_labels, held, with_mean=not u.is_time, shapes=GAUSSIAN
            )
            for v in (innovations(z), z)
        )
        density += (past - white).sum(axis=0).mean()
    return float(density)
