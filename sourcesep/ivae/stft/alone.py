"""One channel, and it is known who is heard when: spectra learned where a source is alone.

u names the sources that may sound, so that p(z|u) has no variance where one is silent. Where
several sound, the variance of each is a sum of its own spectra: non-negative matrix
factorisation given the spectra (Smaragdis, Raj & Shashanka 2007, "Supervised and semi-supervised
separation of sounds from single-channel mixtures"), here as the prior of a Gaussian posterior.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sourcesep import auxiliary
from sourcesep.auxiliary import TOGETHER, UNLABELLED, Auxiliary
from sourcesep.exceptions import SettingsError
from sourcesep.ivae.model import Array
from sourcesep.ivae.stft.cells import OVERLAP, Cells, power
from sourcesep.ivae.stft.cepstrum import sparse_cepstrum
from sourcesep.ivae.stft.factorised import LEAST, Factorised, blended, lasting
from sourcesep.ivae.stft.wiener import wiener

__all__ = ["WINDOW", "check", "heard", "infer", "learn", "names_in", "rehearsed_gain"]

Mask = NDArray[np.bool_]

WINDOW = 0.128
"""Seconds."""
RANK = 40
"""Spectra of each source."""
FEWEST_FRAMES = 16
"""In which a source is alone, for spectra to be learned from: half a second."""
N_ALONE, N_TOGETHER = 50, 20
"""Updates of spectra where sources are alone, and then of all of them on all that is heard:
notes that are never played alone are learned too, but what is shared is not shuffled about."""
N_ACTIVATIONS = 60
N_ROUNDS = 5
"""In turn with the posterior."""
MOST_FRAMES = 1024
"""Inferred at a time, so that long records need no more memory."""
QUIET = 1e-4
"""Share of the mean power below which a frame is silent: nothing is learned from it."""
KEPT_ASIDE = 3
"""One part in so many of what is heard alone is not learned from in a rehearsal."""
TELLING = ("annotations", "file")
"""Terms of a SPEC whose labels may name sources; arrays may too."""


def names_in(u: Auxiliary | None) -> tuple[str, ...]:
    """Names of the sources that u tells of, sorted; none where it is about something else.

    Labels name sources where each is an annotation, a row of a file or of an array. Whole
    numbers in an array name nobody.
    """
    return tuple(sorted({name for names in _by_label(u) for name in names}))


def _by_label(u: Auxiliary | None) -> list[list[str]]:
    """Who may be heard in each label: nobody named means anybody."""
    if u is None or u.is_time or u.covariates is not None:
        return []
    terms = [] if u.spec == "array" else auxiliary.parse(u.spec)
    if u.spec != "array" and not (len(terms) == 1 and terms[0].name in TELLING):
        return []
    texts = u.scales[0].names
    columns = {text.partition("=")[0] if "=" in text else None for text in texts}
    if len(columns) == 1 and None not in columns:  # rows of a column: NAME=VALUE
        texts = tuple(text.partition("=")[2] for text in texts)
    if u.spec == "array" and all(t.lstrip("-").isdecimal() for t in texts):
        return []  # whole numbers are conditions, such as clusters or trials
    return [[] if t in ("", UNLABELLED) else t.split(TOGETHER) for t in texts]


def check(u: Auxiliary | None) -> None:
    """Refuse labels that name sources, but leave nothing to separate.

    Raises
    ------
    SettingsError
        If there is one name only, or one in every label.
    """
    names = names_in(u)
    if len(names) == 1:
        raise SettingsError(
            f"aux: where anything is heard the labels name one source, {names[0]!r}, and two or "
            "more are wanted: label where each is alone"
        )
    if all(len(who) == 1 for who in _by_label(u)):
        raise SettingsError(
            "aux: one source at a time is heard in all labels, so that nothing is left to "
            "separate: leave stretches where several sound without a label"
        )


def heard(u: Auxiliary | None, names: tuple[str, ...], size: int, n_frames: int) -> Mask:
    """Say which sources may sound in which frame.

    Parameters
    ----------
    u : Auxiliary, optional
        Of the samples; without it, or where it has a name that is not known, all may.
    names : tuple of str
        Of the sources.
    size : int
        Samples in a frame.
    n_frames : int
        As many as `to_spectrum` makes of the samples.

    Returns
    -------
    ndarray of bool, shape (n_sources, n_frames)
    """
    by_label = _by_label(u)
    if u is None or not by_label or not names:
        return np.ones((len(names), n_frames), bool)
    table = np.array(
        [
            [not set(who) <= set(names) or not who or name in who for name in names]
            for who in by_label
        ]
        + [[True] * len(names)]  # what is left out may be anything
    )
    # frame t lies over the hops t - OVERLAP + 1 to t
    hop = size // OVERLAP
    in_hops = np.zeros((len(names), n_frames + OVERLAP - 1), bool)
    for k in range(len(names)):
        sounds = table[u.labels, k]
        starts = np.arange(0, len(sounds), hop)
        in_hops[k, OVERLAP - 1 :][: len(starts)] = np.logical_or.reduceat(sounds, starts)
    around = np.lib.stride_tricks.sliding_window_view(in_hops, OVERLAP, axis=1)
    frames: Mask = np.any(around, axis=2)
    return frames


def _alone(powers: Cells, sounds: Mask) -> Mask:
    """Say in which frames each source is heard, and no other may be."""
    by_frame = powers.mean(axis=1)
    alone: Mask = sounds & (sounds.sum(axis=0) == 1) & (by_frame > QUIET * by_frame.mean())
    return alone


def learn(powers: Cells, sounds: Mask, names: tuple[str, ...]) -> Cells:
    """Learn the spectra of each source.

    Parameters
    ----------
    powers : ndarray of float32, shape (n_frames, n_bins)
        Of the channel, on average near 1.
    sounds : ndarray of bool, shape (n_sources, n_frames)
        Which sources may sound.
    names : tuple of str
        Of the sources, for errors.

    Returns
    -------
    ndarray of float32, shape (n_sources, rank, n_bins)

    Raises
    ------
    SettingsError
        If a source is hardly ever alone.
    """
    alone = _alone(powers, sounds)
    counts = alone.sum(axis=1)
    if counts.min() < FEWEST_FRAMES:
        raise SettingsError(
            f"aux: {names[counts.argmin()]!r} is alone for less than half a second: one channel "
            "is told apart by what each source sounds like alone: label a stretch where it is"
        )
    rank = min(RANK, int(counts.min()))
    spectra = np.concatenate(
        [Factorised.of(powers[None, frames], rank, N_ALONE).spectra for frames in alone]
    )
    return _fitted(powers, sounds, spectra, N_TOGETHER).spectra


def _fitted(powers: Cells, sounds: Mask, spectra: Cells, n_more: int = 0) -> Factorised:
    """Share the channel's power out among the sources' spectra, which may be fitted too."""
    n_sources, rank, n_bins = spectra.shape
    level = powers.mean(axis=1) / (n_sources * rank) + np.float32(LEAST)
    # products never leave 0: who is silent stays so
    begin = (sounds * level).T[:, :, None].repeat(rank, axis=2).reshape(1, len(powers), -1)
    together = Factorised(begin.astype(np.float32), spectra.reshape(1, -1, n_bins).copy())
    together.update(powers[None], N_ACTIVATIONS, learn_spectra=False)
    together.update(powers[None], n_more)
    activations = together.activations.reshape(len(powers), n_sources, rank).transpose(1, 0, 2)
    return Factorised(activations.copy(), together.spectra.reshape(spectra.shape))


def infer(cells: Cells, mixing: Array, spectra: Cells, sounds: Mask) -> Cells:
    """Fit the variances of sources whose spectra are known, in turn with the posterior.

    Parameters
    ----------
    cells : ndarray of complex64, shape (1, n_frames, n_bins)
        The channel, of a mean power near 1.
    mixing : ndarray of shape (1, n_sources)
        Gains.
    spectra : ndarray of float32, shape (n_sources, rank, n_bins)
        As `learn` finds them.
    sounds : ndarray of bool, shape (n_sources, n_frames)
        Which sources may sound.

    Returns
    -------
    ndarray of float32, shape (n_sources, n_frames, n_bins)
        The prior's variances.
    """
    n_frames = cells.shape[1]
    bounds = np.linspace(0, n_frames, -(-n_frames // MOST_FRAMES) + 1).astype(int)
    parts = [_infer(cells[:, a:b], spectra, sounds[:, a:b]) for a, b in pairwise(bounds)]
    gains = np.square(mixing[0]).astype(np.float32)
    variances: Cells = np.concatenate(parts, axis=1) / gains[:, None, None]
    return variances


def _infer(cells: Cells, spectra: Cells, sounds: Mask) -> Cells:
    gains = np.ones((1, len(spectra)))
    factors = _fitted(power(cells)[0], sounds, spectra)
    variances: Cells = factors.variances + np.float32(LEAST)
    for _ in range(N_ROUNDS):
        powers = wiener(cells, gains, variances).power
        factors.update(powers, 2, learn_spectra=False)
        views = [factors.variances, sparse_cepstrum(powers), lasting(powers)]
        variances = blended(views, powers)
        variances *= sounds[:, :, None]
        variances += np.float32(LEAST)
    return variances


def rehearsed_gain(cells: Cells, sounds: Mask, names: tuple[str, ...]) -> float:
    """Rehearse: how far sources come apart in a mixture whose truth is known, in dB.

    The last third of what is heard of each source alone is laid over that of the others, and
    separated by what is learned from the rest. What is not heard alone, such as other notes, is
    not rehearsed.

    Parameters
    ----------
    cells : ndarray of complex64, shape (1, n_frames, n_bins)
        The channel, of a mean power near 1.
    sounds : ndarray of bool, shape (n_sources, n_frames)
        Which sources may sound.
    names : tuple of str
        Of the sources.

    Returns
    -------
    float
        Gain in the ratio of signal to distortion over the mixture, mean over the sources; NaN
        where too little is heard alone to try.
    """
    alone = [np.flatnonzero(row) for row in _alone(power(cells)[0], sounds)]
    n_test = min(map(len, alone)) // KEPT_ASIDE
    if n_test * (KEPT_ASIDE - 1) < FEWEST_FRAMES:
        return float("nan")
    truth = np.stack([cells[0, frames[-n_test:]] for frames in alone])
    mixed = truth.sum(axis=0, keepdims=True)
    known = [frames[:-n_test] for frames in alone]
    told = np.concatenate([*(sounds[:, f] for f in known), np.ones((len(names), n_test), bool)], 1)
    seen = np.concatenate([*(cells[:, f] for f in known), mixed], axis=1)
    spectra = learn(power(seen)[0], told, names)
    gains = np.ones((1, len(names)))
    variances = infer(mixed, gains, spectra, told[:, -n_test:])
    found = wiener(mixed, gains, variances).mean
    before, after = (power(x - truth).sum(axis=(1, 2)) for x in (mixed, found))
    return float(10 * np.log10((before + LEAST) / (after + LEAST)).mean())
