"""Which of several starts is right: how likely their components are, under one yardstick for all.

Of sound that is a Gaussian in cells of time and frequency, and where these tie, as of all other
data, a held-out likelihood of samples given the ones before (`contrast`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.heldout import after_splices, block_folds, excerpt
from sourcesep.ivae.label_means import finest_reliable_scale, remove_label_means
from sourcesep.ivae.matrices.contrast import ORDER, heldout_log_likelihood, innovations
from sourcesep.ivae.matrices.sound import FLOOR, log_likelihood, short_spectra
from sourcesep.ivae.matrices.starts import STARTS
from sourcesep.ivae.model import Array
from sourcesep.ivae.order import invariant_permutation

__all__ = ["TIE", "compare", "compare_sound"]

N_FOLDS = 5
TIE = 1e-3
"""Nats a sample; of starts whose scores differ by less the first one is taken: closer ones
told nothing, and a worse matrix was taken for a gain of .0001 nats (16 dB lost on talkers)."""
SURE = 2.0
"""Standard errors of their difference, over windows, by which cells tell starts apart."""
ENOUGH_HELD_OUT = 50_000
"""With fewer samples than this the comparison goes through more folds, to be less noisy."""


def compare(
    y: Array,
    u: Auxiliary,
    rng: np.random.Generator,
    starts: tuple[str, ...],
    *,
    series: bool,
    sfreq: float = 1.0,
) -> dict[str, float]:
    """Held-out log-likelihood of starts, each fitted to the samples that are not held out.

    Parameters
    ----------
    y : ndarray of shape (n_components, n_times)
        Whitened signals.
    u : Auxiliary
        The auxiliary variable.
    rng : numpy.random.Generator
        For starts that draw numbers.
    starts : tuple of str
        Names, of `STARTS`.
    series : bool
        Whether rows follow each other in time.
    sfreq : float
        Samples a second, or rows.

    Returns
    -------
    dict of str to float
        Nats a sample of y.
    """
    if not series:
        order = invariant_permutation(y, u, rng)
        y, u = y[:, order], u.take(order)
    keep = excerpt(u, sfreq=sfreq)
    told = ~(after_splices(np.arange(u.n_times)[keep], ORDER) & series)
    y, u = y[:, keep], u.take(keep)
    folds, rounds = _rounds(u)
    scores = dict.fromkeys(starts, 0.0)
    for fold in rounds:
        held = folds == fold
        train = u.take(~held)
        for name in starts:
            matrix = STARTS[name](y[:, ~held], train, rng)
            z = matrix @ y
            if series and not u.is_time:
                z = remove_label_means(z, finest_reliable_scale(u).labels)
            if series:
                z = innovations(z)
            density = heldout_log_likelihood(
                z[:, told], u.labels[told], u.n_labels, held[told], with_mean=not u.is_time
            )
            volume = np.linalg.slogdet(matrix)[1]
            scores[name] += float(density.sum(axis=0).mean() + volume) / len(rounds)
    return scores


def compare_sound(
    y: Array, u: Auxiliary, rng: np.random.Generator, starts: tuple[str, ...], sfreq: float
) -> dict[str, float]:
    """Log-likelihood of starts in cells of time and frequency.

    Of those that cells do not tell from the likeliest, the likelihood of samples decides, which
    knows the shapes of distributions: by as much as they are less likely so than the best of
    them, they score less than it.

    Parameters
    ----------
    y, u, rng, starts
        As for `compare`.
    sfreq : float
        Samples a second.

    Returns
    -------
    dict of str to float
        Nats a sample of y.
    """
    at = np.arange(u.n_times)[excerpt(u, sfreq=sfreq)]
    y, u = y[:, at], u.take(at)
    cells, samples = {}, {}
    for name in starts:
        matrix = STARTS[name](y, u, rng, sfreq)
        z = matrix @ y
        scale = np.maximum(z.std(axis=1, keepdims=True), np.finfo(float).tiny)
        volume = np.linalg.slogdet(matrix / scale)[1]
        cells[name] = log_likelihood(short_spectra(z, sfreq, at)) + volume
        samples[name] = _given_the_past(z / scale, u, at) + float(volume)
    scores = {name: float(values.sum() / max(len(values), 1)) for name, values in cells.items()}
    best = max(scores, key=scores.__getitem__)
    tied = []
    for name, values in cells.items():
        less = cells[best] - values
        error = less.std(ddof=1) / np.sqrt(len(less)) if len(less) > 1 else np.inf
        if scores[best] - scores[name] <= max(TIE, SURE * error):
            tied.append(name)
    likeliest = max(samples[name] for name in tied)
    return scores | {name: scores[best] + (samples[name] - likeliest) for name in tied}


def _given_the_past(z: Array, u: Auxiliary, at: NDArray[np.int64]) -> float:
    """Held-out log-likelihood of samples of sound given the ones before, nats a sample."""
    told, (folds, rounds) = ~after_splices(at, ORDER), _rounds(u)
    errors, labels = innovations(z, ridge=FLOOR)[:, told], u.labels[told]
    each = [
        heldout_log_likelihood(errors, labels, u.n_labels, (folds == k)[told], with_mean=False)
        for k in rounds
    ]
    return float(np.mean([density.sum(axis=0).mean() for density in each]))


def _rounds(u: Auxiliary) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Folds of the samples, and which of them are held out in turn."""
    folds = block_folds(u.labels, u.n_labels, N_FOLDS)
    n_rounds = int(np.clip(-(-ENOUGH_HELD_OUT // u.n_times), 1, N_FOLDS))
    return folds, np.unique(folds)[:n_rounds]  # of few samples some folds have none
