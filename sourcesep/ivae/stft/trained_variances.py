"""The variances that a trained prior gives to sources, and its evidence for them.

All that a fit with such a prior knows of it stands here: `Trained`, and functions from the
power of sources, as a channel hears them, to variances of their cells or to nats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sourcesep.ivae.stft.cepstrum import cepstral_variances
from sourcesep.ivae.stft.level import FLOOR, Level
from sourcesep.ivae.stft.projection import Complex

__all__ = [
    "Numbers",
    "Trained",
    "Variances",
    "best_lift",
    "cepstral",
    "evidence_of",
    "is_like",
    "joint",
    "lift",
    "scores_of",
    "trained",
]

Numbers = tuple[int, ...]
"""The label of every source."""
Variances = Callable[[NDArray[Any]], NDArray[Any]]
"""From the power of sources as they are heard to the variances of their cells."""

UNLIKELY = 4.0
"""Deviations below what is usual of sounds like the training's."""


class Trained(Protocol):
    """A prior of sources, each of one label (see `source_prior.SourcePrior`)."""

    @property
    def sfreq(self) -> float:
        """Samples a second of the sounds it knows."""
        ...

    @property
    def size(self) -> int:
        """Samples in the windows whose cells it knows."""
        ...

    @property
    def labels(self) -> tuple[str, ...]:
        """What a source can be."""
        ...

    @property
    def likeness(self) -> tuple[float, float]:
        """`lift` of sources that the prior knows: mean and deviation."""
        ...

    def explain(self, power: NDArray[Any], labels: NDArray[np.int64]) -> Any:
        """Variances (n, n_frames, n_bins) and penalties (n,) of sources of these labels."""
        ...


def trained(prior: Trained, numbers: Numbers) -> Variances:
    """Variances by the trained prior, with a floor: no cell is certain to be empty."""

    def variances(heard: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = prior.explain(heard, np.array(numbers)).variances
        by_bin = heard.mean(axis=1, keepdims=True)
        found += FLOOR * by_bin + 1e-6 * by_bin.mean(axis=2, keepdims=True) + 1e-12
        return found

    return variances


def cepstral(heard: NDArray[Any]) -> NDArray[Any]:
    """Variances by a sparse cepstrum: those of sources of which nothing is known."""
    return cepstral_variances(heard, FLOOR)


def joint(prior: Trained, numbers: Numbers) -> Variances:
    """The geometric mean of both: the trained ones alone are too smooth."""
    known = trained(prior, numbers)
    return lambda heard: np.sqrt(known(heard) * cepstral(heard))


def evidence_of(prior: Trained, level: Level, rows: Complex, numbers: Numbers) -> float:
    """Log-density of the mixture under the prior, nats a cell and source, up to a constant.

    Every source has its best gain in every bin: the filter by which it arrives is unknown.
    Latents are at the mean of q, their prior counts.
    """
    heard = level.heard(rows)
    values = _log_densities(prior, heard, np.array(numbers))
    # the filters' part of the volume cancels with that of the gains
    k, _, n_bins = heard.shape
    filters = np.log(np.maximum(level.responses(rows), 1e-30)).sum()
    volume = 2 * np.linalg.slogdet(rows.transpose(2, 0, 1))[1].sum() + filters
    return float(values.mean() + volume / (k * n_bins))


def _log_densities(
    prior: Trained, heard: NDArray[Any], numbers: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Of every source, nats a cell."""
    variances, penalty = prior.explain(heard, numbers)
    gain = (heard / variances).mean(axis=1, keepdims=True)
    logarithm = np.log(variances).mean(axis=1) + np.log(np.maximum(gain, 1e-30))[:, 0]
    values: NDArray[np.float64] = -logarithm.mean(axis=1) - 1 - penalty / heard[0].size
    return values


def scores_of(prior: Trained, heard: NDArray[Any]) -> NDArray[np.float64]:
    """Log-density of every source given every label, (n_labels, k), nats a cell."""
    k = len(heard)
    return np.stack(
        [_log_densities(prior, heard, np.full(k, label)) for label in range(len(prior.labels))]
    )


def lift(prior: Trained, heard: NDArray[Any], numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """How much better the prior explains sources than a spectrum that only gets louder.

    Parameters
    ----------
    heard : ndarray of shape (n, n_frames, n_bins)
        Power of the sources.
    numbers : ndarray of int, shape (n,)
        Their labels.

    Returns
    -------
    ndarray of shape (n,)
        Nats a cell.
    """
    explained = _log_densities(prior, heard, numbers)
    spectrum = heard.mean(axis=1, keepdims=True) + 1e-12
    loudness = (heard / spectrum).mean(axis=2, keepdims=True) + 1e-6
    gain = (heard / loudness).mean(axis=1)
    plain = np.log(loudness).mean(axis=(1, 2)) + np.log(np.maximum(gain, 1e-30)).mean(axis=1)
    lifted: NDArray[np.float64] = explained + plain + 1
    return lifted


def best_lift(prior: Trained, heard: NDArray[Any]) -> NDArray[np.float64]:
    """`lift` of every source by the label that lifts it most."""
    n = len(heard)
    lifts = [lift(prior, heard, np.full(n, label)) for label in range(len(prior.labels))]
    best: NDArray[np.float64] = np.max(lifts, axis=0)
    return best


def is_like(prior: Trained, heard: NDArray[Any]) -> bool:
    """Whether sources are explained about as well as what the prior was trained on."""
    mean, deviation = prior.likeness
    return bool((best_lift(prior, heard) > mean - UNLIKELY * deviation).all())
