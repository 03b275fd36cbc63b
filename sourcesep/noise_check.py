"""Whether the sensors are too noisy for an invertible map.

An invertible map takes everything in x for a function of the sources, noise too: it is
rich and reproducible, and the noise is in every component. A model with noise in every
channel, trained for a short while from where the map has arrived, has the last word: only a
bound on its likelihood is known, while that of the map is exact, and where the sensors are
clean a short training leaves the bound far below. Where it ties, noise is what the map has
fitted.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.heldout import excerpt
from sourcesep.ivae.model import Array, Model

__all__ = ["SENTENCE", "TIE", "gain_of_noise"]

TIE = -0.005
"""Nats a sample and component. The bound of a short training is loose by about as much; on
simulations it was above this where noise was 20 % of the channels, and below where there was
none."""
SENTENCE = (
    "the sensors' noise is too large for an invertible map and is in every component (the model "
    "of mixing=amortised has noise)"
)
N_STEPS = 200
"""Minibatches for every component: seconds in all."""
FARTHEST = 6.0
"""Standard deviations beyond which a map may only have lost its way."""
MOST = 20.0
"""Nats that a single sample may count: a wild one must not decide."""
MOST_UNSEEN = 2000
"""Samples on which likelihoods are compared."""


def gain_of_noise(model: Model, x: Array, u: Auxiliary, held: NDArray[np.bool_]) -> float | None:
    """How much better a model with noise explains samples that neither has seen.

    Parameters
    ----------
    model : Model
        Invertible, without memory, fitted to x given u but for the samples held out.
    x : ndarray of shape (n_channels, n_times)
        The data of the fit.
    u : Auxiliary
        Every sample has a label.
    held : ndarray of bool, shape (n_times,)
        Samples that the fit kept aside.

    Returns
    -------
    float or None
        At least so many nats a sample and component, negative where noise explains nothing.
        None where components are fewer than channels: what such a map leaves aside is
        noise already.
    """
    if model.n_components < model.n_channels:
        return None
    from sourcesep.ivae.amortised_fit import train_networks
    from sourcesep.ivae.bound import Observed
    from sourcesep.ivae.inference import Inference
    from sourcesep.ivae.networks import Architecture
    from sourcesep.ivae.prior_tables import GAUSSIAN
    from sourcesep.ivae.priors import LabelPrior

    keep = excerpt(u)
    x, u, held = x[:, keep], u.take(keep), held[keep]
    centre, width = x.mean(axis=1, keepdims=True), x.std(axis=1, keepdims=True)
    z = np.clip(model.posterior(x).mean, -FARTHEST, FARTHEST)
    standard, with_mean, rng = (x - centre) / width, not u.is_time, np.random.default_rng(0)
    prior = LabelPrior.fit(
        z[:, ~held], u.labels[~held], u.n_labels, with_mean=with_mean, shapes=GAUSSIAN
    )
    net, found, _ = train_networks(
        standard,
        z,
        u.labels,
        prior,
        held,
        rng,
        architecture=Architecture(len(x), len(z), n_labels=u.n_labels, with_mean=with_mean),
        n_steps=N_STEPS * len(z),
        device="cpu",
    )
    unseen = np.flatnonzero(held)
    unseen = unseen[:: max(1, len(unseen) // MOST_UNSEEN)]
    observed = Observed(standard[:, unseen], z[:, unseen], u.labels[unseen], net)
    bound = Inference(net, observed, found.shape, seed=0).weighted()[2]
    exact = model.log_density(x[:, unseen], u.take(unseen)) + np.log(width).sum()
    return float(np.clip(bound - exact, -MOST, MOST).mean() / len(z))
