"""The samples that a fit is judged by, and fits to halves of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.evidence import CrossFit, cross_fit, richness, richness_of_variances
from sourcesep.ivae.heldout import after_splices, draw_halves, excerpt, slowed
from sourcesep.ivae.matrices.sound import is_sound, short_spectra
from sourcesep.ivae.missing import fill
from sourcesep.ivae.model import Array, Model
from sourcesep.ivae.order import invariant_permutation, is_serially_dependent
from sourcesep.ivae.whitening import numerical_rank
from sourcesep.misfit import N_TAPS

__all__ = ["Judged", "fits_to_halves", "richness_of", "samples_to_judge"]


@dataclass(frozen=True)
class Judged:
    """The samples that a fit is judged by."""

    x: Array
    filled: Array  # x, with guesses in the place of what is missing
    u: Auxiliary
    z: Array  # components
    places: NDArray[np.int64]  # in the record
    spliced: NDArray[np.bool_]  # what follows a splice of a series
    rank: int  # components that halves must hold
    has_past: bool  # samples say something of the next ones that u does not

    @property
    def is_series(self) -> bool:
        """Whether the order of samples says anything."""
        return self.u.is_time or self.has_past


def samples_to_judge(
    model: Model,
    x: Array,
    u: Auxiliary,
    sfreq: float,
    at: NDArray[np.int64],
    rng: np.random.Generator,
) -> Judged:
    """Take the samples by which to judge; rows that are no series come in any order."""
    filled = fill(x)
    rank = min(model.n_components, numerical_rank(filled))
    has_past = model.memory > 1 or is_serially_dependent(filled, u)
    is_series = u.is_time or has_past
    if not is_series:
        order = invariant_permutation(filled, u, rng)
        x, filled, u = x[:, order], filled[:, order], u.take(order)
    keep = excerpt(u, model.memory, sfreq=sfreq)
    # a map that reaches over samples is at its best on the whole record
    whole = model.posterior(x, u).mean if model.memory > 1 else None
    x, u = x[:, keep], u.take(keep)
    z = model.posterior(x, u).mean if whole is None else whole[:, keep]
    spliced = after_splices(at[keep], N_TAPS) & is_series
    return Judged(x, filled[:, keep], u, z, at[keep], spliced, rank, has_past)


def fits_to_halves(model: Model, data: Judged, rng: np.random.Generator) -> list[CrossFit]:
    """Fit random halves as often as the model asks; those that hold all components."""
    halves = [
        draw_halves(data.filled, data.u, data.rank, rng, memory=model.memory)
        for _ in range(model.n_splits)
    ]
    if model.is_invertible and data.rank < model.n_components:
        return []  # of a source that a refitted model hears nothing of here
    tried = [cross_fit(model, data.x, data.u, half, rng) for half in halves if half is not None]
    return [fit for fit in tried if fit is not None]


def richness_of(
    model: Model, data: Judged, fits: list[CrossFit], sfreq: float, rng: np.random.Generator
) -> Array:
    """Evidence that tells every two components apart, as this model can, (n_components,).

    Of maps on the STFT below half of `ivae.heldout.BAND`: above it components of low
    instruments are what a map leaves of others, alike in all of them.
    """
    if model.only_variances:
        return richness_of_variances(data.u, fits)
    if model.representation == "time":
        in_cells = is_sound(data.u, sfreq) and model.memory == 1
        spectra = short_spectra(data.z, sfreq, data.places) if in_cells else None
        return richness(data.z, data.u, fits, rng, data.spliced, spectra)
    z, at, places = slowed(data.z, data.places, sfreq)
    slower = []
    for fit in fits:
        one, other = (slowed(out, data.places, sfreq).rows for out in fit.outputs)
        slower.append(replace(fit, half=fit.half[at], outputs=(one, other)))
    return richness(z, data.u.take(at), slower, rng, after_splices(places, N_TAPS))
