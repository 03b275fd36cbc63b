"""How much noise is seen in what an invertible map was fitted to.

If x = f(s) + n, the map's components are z = s + J n to first order, J the slope of f^-1 at x.
Noise on the channels is in all components at once: within a label z_i z_j is (J J')_ij times its
variance on the mean, the same for every label at that x. A map that was fitted without noise
hides what it can of that. But all it can do is to bend one component along another, and then
z_i z_j goes with the variance of either. So what can be explained in this way is left out, and
what is left over all labels is noise: the score test of a variance of 0 (Rao 1948), freed of
what the map may change.

Where (J J')_ij is 0 everywhere, as that of rotations and of conformal maps, nothing is seen.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.coupling import CouplingModel
from sourcesep.ivae.model import Array
from sourcesep.ivae.priors import LabelPrior, label_sums

__all__ = ["seen_noise"]

MOST = 20_000
"""Samples looked at: 1 to 2 s of CPU for five components."""
SURE = 3.0
"""Standard errors from which on noise is sure. In development 22 clean fits had -2.8 to 1.4, and
three of the iVAE paper's data with 5 % of noise 7.7 to 12.5."""
STEP = 1e-5
"""By which slopes are measured, where channels have a deviation of 1."""


class _Pairs(NamedTuple):
    """Of every two components and sample, (n_pairs, n_times): what is to be explained, by what."""

    product: Array  # of both, each in units of its deviation
    shared: Array  # what noise of variance 1 adds to that, but for the label's deviations
    bounded: Array  # the same, less where noise would drown either


def seen_noise(flow: CouplingModel, x: Array, u: Auxiliary, room: float) -> float:
    """Estimate the variance of noise on every channel; 0 if none is sure.

    Parameters
    ----------
    flow : CouplingModel
        With as many components as channels, fitted to x given u.
    x : ndarray of shape (n_channels, n_times)
        Each channel of mean 0 and variance 1.
    u : Auxiliary
        Every sample has a label.
    room : float
        Variance of noise that there may be. Places where it would drown a component count
        less, or the steepest few would decide.
    """
    at = np.arange(0, u.n_times, -(-u.n_times // MOST))
    rows, prior = u.labels[at], flow.prior
    # products go with J where there is no noise, too: as they do in what the map itself gives
    drawn = flow.decode(prior.sample(rows, np.random.default_rng(0)))
    found, without = (_pairs(flow, part, prior, rows, room) for part in (x[:, at], drawn))
    say = found.shared * found.bounded
    weight = _freed(prior.variance, label_sums(say, rows, prior.n_labels))[rows].T
    information = (say * np.square(weight)).sum(axis=0).mean()
    with np.errstate(over="ignore", invalid="ignore"):  # wild where no source has been
        scores = [(weight * one.bounded * one.product).sum(axis=0) for one in (found, without)]
    scores[1] = scores[1][np.isfinite(scores[1])]
    error = np.sqrt(sum(score.var() / max(len(score), 1) for score in scores))
    gain = scores[0].mean() - scores[1].mean()
    return float(gain / information) if gain > SURE * error and information > 0 else 0.0


def _pairs(
    flow: CouplingModel, x: Array, prior: LabelPrior, rows: NDArray[np.int64], room: float
) -> _Pairs:
    z = flow.latents(x)
    steps = STEP * np.eye(len(x))[..., None]
    slopes = np.stack([(flow.latents(x + step) - z) / STEP for step in steps])
    variance = prior.variance[rows].T
    i, j = np.triu_indices(len(z), 1)
    with np.errstate(over="ignore", invalid="ignore"):
        noise = np.square(slopes).sum(axis=0)
        free = 1 / np.sqrt(1 + room * noise / variance)
        scaled = (z - prior.mean[rows].T) / np.sqrt(variance)
        shared = (slopes[:, i] * slopes[:, j]).sum(axis=0)
        return _Pairs(scaled[i] * scaled[j], shared, shared * free[i] * free[j])


def _freed(variance: Array, say: Array) -> Array:
    """How noise in products goes with labels, less what the map may put there.

    Parameters
    ----------
    variance : ndarray of shape (n_labels, n_components)
        Of the components.
    say : ndarray of shape (n_labels, n_pairs)
        Of each label.

    Returns
    -------
    ndarray of shape (n_labels, n_pairs)
    """
    freed = np.empty_like(say)
    deviation = np.sqrt(variance)
    for pair, (i, j) in enumerate(zip(*np.triu_indices(variance.shape[1], 1), strict=True)):
        noise = 1 / (deviation[:, i] * deviation[:, j])
        ratio = deviation[:, i] / deviation[:, j]
        bends = np.stack([ratio, 1 / ratio, np.ones_like(ratio)], axis=1)
        root = np.sqrt(say[:, pair])
        part = np.linalg.lstsq(root[:, None] * bends, root * noise, rcond=None)[0]
        freed[:, pair] = noise - bends @ part
    return freed
