"""How a `CouplingModel` comes about: what it may cost, how it goes on, and who is best."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.exceptions import SettingsError
from sourcesep.ivae.devices import resolve_device
from sourcesep.ivae.model import Array
from sourcesep.ivae.priors import LabelPrior
from sourcesep.ivae.training import Schedule

if TYPE_CHECKING:
    from sourcesep.ivae.flows.flow import Flow
    from sourcesep.ivae.flows.likelihood import Likelihood

__all__ = ["EFFORT", "PACE", "WARM", "Effort", "at_least_two", "restart_scores", "resumed"]


class Effort(NamedTuple):
    """What a fit may cost: restarts, and minibatches of each."""

    n_restarts: int
    n_steps: int


EFFORT = {"fast": Effort(2, 600), "normal": Effort(4, 1600), "best": Effort(8, 3600)}
"""By `Settings.quality`."""

PACE = Schedule(1, learning_rate=2e-2, betas=(0.9, 0.95), decay=0.03)
"""Of a fit's steps, however many."""
WARM = dataclasses.replace(PACE, n_steps=200, learning_rate=4e-3)
"""From a saved map, for another recording: short, and too slow to lose the way."""


def resumed(
    flow: Flow,
    y: Array,
    u: Auxiliary,
    held: NDArray[np.bool_],
    *,
    seed: int,
    dtype: str,
    device: str,
    shapes: tuple[float, ...],
) -> Likelihood:
    """Return what goes on from a trained flow, of which it trains a copy."""
    import torch

    from sourcesep.ivae.flows.likelihood import Likelihood

    place = {"dtype": getattr(torch, dtype), "device": resolve_device(device)}
    copied = flow.with_parameters(flow.parameters.to(**place, copy=True))
    objective = Likelihood(copied, y, u, held, torch.Generator().manual_seed(seed), shapes)
    objective.settle(flow)
    return objective


def restart_scores(
    z: Array, log_det: Array, u: Auxiliary, held: NDArray[np.bool_], shapes: tuple[float, ...]
) -> Array:
    """Held-out log-likelihood of every restart in coordinates of the start, nats a sample."""
    scores = np.empty(len(z))
    rest = u.take(~held)
    for r, latent in enumerate(z):
        prior = LabelPrior.fit(
            latent[:, ~held], rest.labels, u.n_labels, with_mean=not u.is_time, shapes=shapes
        )
        density = prior.log_prob(latent[:, held], u.labels[held]).sum(axis=0)
        scores[r] = (density + log_det[r, held]).mean()
    return scores


def at_least_two(n_components: int) -> None:
    """Refuse what no coupling can be made of."""
    if n_components < 2:
        raise SettingsError(
            f"n_components={n_components}: a nonlinear map needs at least 2 linearly independent "
            "signals; use mixing='linear' or 'post-nonlinear'"
        )
