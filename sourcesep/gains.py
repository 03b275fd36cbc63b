"""How much better one model explains data than another: likelihood held out inside every label."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.heldout import block_folds, excerpt
from sourcesep.ivae.label_means import present_label_means
from sourcesep.ivae.model import Array, Model
from sourcesep.samples import unchanged

__all__ = ["FITTED_NOISE", "FOLDS", "heldout_gain"]

FOLDS = 5
"""One of which is held out."""
FITTED_NOISE = "fitted noise"
"""What a model mends (`Model.mends`) that has noise where an invertible map has fitted it."""


def heldout_gain(
    simple: Model, rich: Model, x: Array, u: Auxiliary, rng: np.random.Generator
) -> tuple[float, float]:
    """Gain of one model over another on held-out blocks: mean and standard error, nats.

    What the rich model has kept aside in its fit saves another fit of it. If it mends what
    the simple one has made of noise, both have kept the same samples aside.
    """
    x, u = u.in_use(x)
    if FITTED_NOISE in rich.mends and (aside := simple.held_out(u)) is not None:
        test = u.take(aside)
        gain = rich.gain_over(simple, x[:, aside], test)
        return float(gain.mean()), float(gain.std() / np.sqrt(len(gain)))
    keep, held = excerpt(u, rich.memory), rich.held_out(u)
    if not isinstance(keep, slice) and (telling := rich.telling(x, u, rng)) is not None:
        keep = telling
    x, u = x[:, keep], u.take(keep)
    if held is None:
        held = _held(x, u, rich.memory)
        rich = rich.blank().fit(x[:, ~held], u.take(~held), rng)
    else:
        held = held[keep]
        rich = rich.refit_prior(x[:, ~held], u.take(~held))
    simple = simple.blank().fit(x[:, ~held], u.take(~held), rng)
    simple = rich.rival(simple, x[:, ~held])
    test = u.take(held)
    gain = rich.gain_over(simple, x[:, held], test)
    by_label = present_label_means(gain, test.labels)
    return float(gain.mean()), float(by_label.std() / np.sqrt(len(by_label)))


def _held(x: Array, u: Auxiliary, memory: int) -> NDArray[np.bool_]:
    """Which samples to hold out: blocks of every label; where maps reach over them, the end.

    That is the last fifth of what is heard: digital silence stands still, and tells nothing.
    """
    if memory > 1:
        heard = np.cumsum(~unchanged(x))
        held: NDArray[np.bool_] = heard > heard[-1] * (1 - 1 / FOLDS)
    else:
        held = block_folds(u.labels, u.n_labels, FOLDS) == 0
    return held
