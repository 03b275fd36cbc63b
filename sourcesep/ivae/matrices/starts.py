"""Ways to find a linear unmixing matrix, each from another sign of independence.

Every start takes whitened signals, u, what draws numbers, and samples a second, and returns
a matrix that unmixes them. Which of them is right depends on what makes the sources differ;
`LinearModel` tries several and keeps the likeliest.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from sourcesep.auxiliary import Auxiliary
from sourcesep.exceptions import InputError
from sourcesep.ivae.alignment import signed_match
from sourcesep.ivae.label_means import remove_label_means
from sourcesep.ivae.matrices.jointdiag import (
    MANY_CHANNELS,
    coarse_to_fine,
    joint_diagonalise,
    label_covariances,
    removes_means,
    tolerance,
    with_bands,
)
from sourcesep.ivae.matrices.shape_likelihood import by_skewness, entropy, likeliest_nearby
from sourcesep.ivae.matrices.sound import covariances_of_cells, is_sound
from sourcesep.ivae.model import Array
from sourcesep.ivae.whitening import numerical_rank

__all__ = ["N_BANDS", "OF_SERIES", "OF_SOUND", "STARTS", "Start", "band_gains", "band_signals"]
__all__ += ["segments_of", "turned"]

Start = Callable[..., Array]

SILENCE = 1e-10
"""Labels with less than this share of the mean power hold rounding, not signal."""
SILENT = 0.1
"""Of the deviation of the others: a component below that adds no rank is not in this recording,
and what the older map shows of it is a trace of others."""
REGULARISATION = 1e-13
"""Added to covariances: a source that is exactly silent in a label has variance 0 there."""
N_BANDS = 8
LOWEST = 1 / 64
"""Of half the rate: where the lowest band ends."""
BAND_WEIGHT = 0.3
"""Total weight of the bands against 1 for the segments."""
CLEARLY = 0.04
"""Nats by which shapes that are read off the components have to be less random than Picard's."""


def segments(y: Array, u: Auxiliary, rng: np.random.Generator, sfreq: float = 1.0) -> Array:
    """Variances that change with u, at all its scales."""
    found = coarse_to_fine(_label_groups(y, u), tol=tolerance(len(y)))
    return np.asarray(found.matrix, np.float64)


def bands(y: Array, u: Auxiliary, rng: np.random.Generator, sfreq: float = 1.0) -> Array:
    """Variances that change with u in each frequency band, and with u alone."""
    groups, coarsest, tol = _label_groups(y, u), u.scales[-1], tolerance(len(y))
    y = _signal(y, u)
    banded = np.concatenate(
        [label_covariances(z, coarsest.labels, coarsest.n_labels)[0] for z in band_signals(y)]
    ).astype(groups[0].dtype)
    power = np.einsum("kii->", banded) / (len(banded) * len(y))
    found = with_bands(groups, banded / power, BAND_WEIGHT, tol=tol, first_tol=tol)
    return np.asarray(found.matrix, np.float64)


def spectrum(y: Array, u: Auxiliary, rng: np.random.Generator, sfreq: float = 1.0) -> Array:
    """Spectra that differ, whether or not anything changes with u (as SOBI's lags do)."""
    whole = np.where(u.used, 0, -1)
    y = _signal(y, u)
    covariances = np.concatenate(
        [label_covariances(z, whole, 1)[0] for z in band_signals(y, 2 * N_BANDS)]
    )
    covariances += 1e-9 * np.eye(len(y))
    return np.asarray(joint_diagonalise(covariances).matrix, np.float64)


def cells(y: Array, u: Auxiliary, rng: np.random.Generator, sfreq: float = 1.0) -> Array:
    """Powers that differ in cells of time and frequency, which tell lines of sound apart."""
    covariances = covariances_of_cells(y, sfreq) if is_sound(u, sfreq) else np.empty(0)
    if not len(covariances):
        return spectrum(y, u, rng)
    return np.asarray(joint_diagonalise(covariances, tol=tolerance(len(y))).matrix, np.float64)


def non_gaussian(y: Array, u: Auxiliary, rng: np.random.Generator, sfreq: float = 1.0) -> Array:
    """Distributions that are not Gaussian: Picard's, or clearly less random ones of any shape.

    What knows all shapes also finds some where there are none, behind a bend; so Picard's stay
    unless they are clearly beaten, as by counts and skewed sources.
    """
    used = y[:, u.used]
    if used.shape[1] < len(y):
        return np.eye(len(y))
    usual = _picard(used, rng)
    others = [likeliest_nearby(used, guess) for guess in (usual, by_skewness(used))]
    entropies = [entropy(used, matrix) for matrix in (usual, *others)]
    best = int(np.argmin(entropies[1:]))
    return others[best] if entropies[1 + best] < entropies[0] - CLEARLY else usual


def _picard(y: Array, rng: np.random.Generator) -> Array:
    """Peaked and flat distributions: Picard in its extended form.

    References
    ----------
    P. Ablin, J.-F. Cardoso & A. Gramfort, "Faster ICA under orthogonal constraint",
    ICASSP 2018; python-picard.
    """
    from picard import picard

    with warnings.catch_warnings(), np.errstate(over="ignore", invalid="ignore"):
        # an unfinished Picard is one guess among several
        warnings.filterwarnings("ignore", message="Picard did not converge")
        _, unmixing, _ = picard(
            y,
            ortho=False,
            extended=True,
            whiten=False,
            centering=False,
            w_init=np.eye(len(y)),
            max_iter=300,
            tol=1e-6,
            random_state=int(rng.integers(2**31)),
        )
    # of a few spikes it can step beyond all bounds
    return np.asarray(unmixing if np.isfinite(unmixing).all() else np.eye(len(y)), np.float64)


OF_SERIES = ("bands", "spectrum")
"""Starts that need rows to follow each other in time."""
OF_SOUND = ("cells",)
"""Those that need samples of sound."""
STARTS: dict[str, Start] = {
    "segments": segments,
    "bands": bands,
    "spectrum": spectrum,
    "cells": cells,
    "non-gaussian": non_gaussian,
}
"""The starts by name, the cheapest and most exact first."""


def turned(
    z: Array, u: Auxiliary, rng: np.random.Generator, start: str, sfreq: float = 1.0
) -> Array:
    """Turn the outputs of an older map into sources of this recording.

    Every start begins at the identity, and so at the older map. Component k stays
    component k: what comes out is put into the order and sign of what went in.

    Parameters
    ----------
    z : ndarray of shape (n_components, n_times)
        What the older map makes of the recording, means removed.
    u : Auxiliary
        Its auxiliary variable.
    rng : numpy.random.Generator
        For starts that draw numbers.
    start : str
        One of `STARTS`.
    sfreq : float
        Samples a second.

    Returns
    -------
    ndarray of shape (n_components, n_components)
        Applied to z it gives sources of unit variance; a component that is silent here
        is left as it is.

    Raises
    ------
    InputError
        If what is heard of z has not the rank of as many sources.
    """
    used = z[:, u.used]
    scale = used.std(axis=1)
    loudest = np.argsort(-scale, kind="stable")
    rank = numerical_rank(used)
    if rank < len(z) and scale[loudest[rank]] > SILENT * scale[loudest[rank - 1]]:
        raise InputError(
            f"refit=True: the recording holds {rank} linearly independent signals and the model "
            f"has {len(z)} components; use the model as it is, or fit this recording anew"
        )
    heard = np.sort(loudest[:rank])
    matrix = np.eye(len(z))
    if len(heard) > 1:
        y = z[heard] / scale[heard, None]
        found = STARTS[start](y, u, rng, sfreq)
        found = signed_match(y[:, u.used], (found @ y)[:, u.used]) @ found
        matrix[np.ix_(heard, heard)] = found / scale[heard]
    deviation = (matrix @ used).std(axis=1)
    matrix[heard] /= deviation[heard, None]
    return matrix


def segments_of(groups: list[tuple[Array, NDArray[np.int64]]]) -> Array:
    """Find the matrix that `segments` finds, from covariances and counts of every scale."""
    kept = [_heard(covariances, counts) for covariances, counts in groups]
    found = coarse_to_fine(kept, tol=tolerance(kept[0].shape[1]))
    return np.asarray(found.matrix, np.float64)


def _signal(y: Array, u: Auxiliary) -> Array:
    """The signals to take spectra of: where u is labels, less the mean of each label."""
    return y if u.is_time else remove_label_means(y, u.scales[-1].labels + 1)


def _label_groups(y: Array, u: Auxiliary) -> list[NDArray[Any]]:
    """Covariances per label of every scale, without silence."""
    if len(y) >= MANY_CHANNELS:
        y = y.astype(np.float32)
    finest = u.scales[0].labels
    centre = removes_means(np.bincount(finest[finest >= 0]), u.is_time)
    return [
        _heard(*label_covariances(y, scale.labels, scale.n_labels, centre=centre))
        for scale in u.scales
    ]


def _heard(covariances: NDArray[Any], counts: NDArray[np.int64]) -> NDArray[Any]:
    """Covariances of labels in which something is heard, regularised."""
    many = covariances.shape[1] >= MANY_CHANNELS
    power = np.einsum("kii->k", covariances)
    heard = (power > SILENCE * (power @ counts) / counts.sum()) & (counts > 1)
    covariances = covariances[heard] if heard.any() else covariances
    identity = np.eye(covariances.shape[1])
    covariances = covariances + (1e-3 if many else REGULARISATION) * identity
    return covariances.astype(np.float32) if many else covariances


def band_signals(y: Array, n_bands: int = N_BANDS) -> Iterator[Array]:
    """Yield y filtered to each of n_bands bands, equally wide in log frequency.

    The bands overlap as raised cosines whose squares add up to 1, so each has a short
    impulse response.
    """
    n_times = y.shape[1]
    n_fft = next_fast_len(n_times, real=True)
    transform = np.fft.rfft(y, n_fft, axis=1)
    for gains in band_gains(transform.shape[1], n_bands):
        yield np.fft.irfft(transform * gains, n_fft, axis=1)[:, :n_times]


def band_gains(n_bins: int, n_bands: int = N_BANDS) -> Iterator[Array]:
    """Yield what each band leaves of n_bins frequencies, from 0 to half the rate."""
    frequency = np.linspace(0, 1, n_bins)
    position = (np.log(np.maximum(frequency, LOWEST) / LOWEST) / -np.log(LOWEST)) * (n_bands - 1)
    for band in range(n_bands):
        yield np.cos(0.5 * np.pi * np.minimum(np.abs(position - band), 1))
