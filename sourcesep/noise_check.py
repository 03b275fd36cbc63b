"""Whether the sensors are too noisy for an invertible map.

An invertible map takes everything in x for a function of the sources, noise too: it is
rich and reproducible, and the noise is in every component. How much noise there is cannot be
read off it, but how much there may be: noise put on the map's own x costs likelihood where
the inverse is steep and there was none, and none where there was some before, as the map
has taken in less than all of it. What counts is not how large that noise is but what it hides
of the components.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.heldout import excerpt
from sourcesep.ivae.model import Array, Model

__all__ = ["HIDDEN", "SENTENCE", "share_hidden_by_noise"]

FREE = 0.001
"""Nats a sample and component that noise may cost and still count as none: chance."""
HIDDEN = 0.05
"""Share of a component's variance. In development the worst component had .013 to .043 in 10 of
14 clean fits, .051 to .068 in four, and .060 to .206 with 5 or 20 % of noise."""
SENTENCE = (
    "the data leave room for noise in the sensors, too large for an invertible map, which is in "
    "every component (the model of mixing=amortised has noise)"
)


def share_hidden_by_noise(
    model: Model, x: Array, u: Auxiliary, held: NDArray[np.bool_]
) -> float | None:
    """Return what noise that the data leave room for would hide of the worst component.

    Parameters
    ----------
    model : Model
        Fitted to x given u but for the samples held out.
    x : ndarray of shape (n_channels, n_times)
        The data of the fit.
    u : Auxiliary
        Every sample has a label.
    held : ndarray of bool, shape (n_times,)
        Samples that the fit kept aside.

    Returns
    -------
    float or None
        Share of the component's variance that is not known once x is: 0 to about 1. None of a
        map that is no flow, where components are fewer than independent channels, as what such a
        map leaves aside is noise already, and where the map is not bent.
    """
    from sourcesep.ivae.ranges import medians_where_wild
    from sourcesep.ivae.vae.candidates import choose_noise
    from sourcesep.ivae.vae.latent_start import MARGIN, LatentStart, without_repeats

    model, x = without_repeats(model, medians_where_wild(x))
    centre, width = x.mean(axis=1), x.std(axis=1)
    start = LatentStart.by_fit(model, centre, width)
    if start is None:
        return None
    keep = excerpt(u)
    x, u, held = x[:, keep], u.take(keep), held[keep]
    standard = (x - centre[:, None]) / width[:, None]
    if start.bend(standard[:, held], u.take(held)) <= MARGIN:
        return None  # a matrix is nowhere steep, and leaves room for any noise
    return float(choose_noise(start, standard, u, held, cost=FREE).hidden.max())
