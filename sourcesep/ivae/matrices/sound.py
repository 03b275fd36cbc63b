"""Sound in cells of time and frequency: what is likely there, and what tells components apart.

A likelihood of samples given the ones before is blind to steady tones: a mixture of tones is
predicted as well as the tones are. And it counts a band that holds a millionth of the power as
much as all others: there components are what a matrix leaves of each other, or noise. In cells
tones stand apart, and what is below a floor counts for nothing.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.model import Array

__all__ = ["FLOOR", "SOUND", "covariances_of_cells", "is_sound", "log_likelihood"]
__all__ += ["short_spectra", "told_by_spectrum"]

SOUND = 4000.0
"""Hz: what is sampled this often is taken for sound."""

WINDOW = 0.2
"""Seconds: lines of a chord lie further apart than its bins of 5 Hz. What is compared of a long
recording are stretches of that length."""
FLOOR = 1e-2
"""Of the mean power of all bins, added to every cell: below it lie the sensors' noise and what
a matrix leaves of others."""
FLOOR_OF_START = 0.1
"""The same where a matrix is looked for. In development .01 found matrices of 3 dB in noise 30 dB
below, where others had 16; and without noise .1 cost a dB or less in the mean, 10 more."""
IN_ONE = 2
"""Neighbouring windows, and bins, that share a variance."""
HEARD = 0.03
"""Of the floor: cells with less of it say nothing."""
HANGS_TOGETHER = 16
"""Bins that count as one where chance is reckoned: a line is half as wide, and what is heard in a
small part of a window is wider."""


def short_spectra(z: Array, sfreq: float, at: NDArray[np.int64]) -> NDArray[np.complex128]:
    """Spectra of windows that overlap by half, none of which lies across a splice.

    Parameters
    ----------
    z : ndarray of shape (n_signals, n_times)
        Signals.
    sfreq : float
        Samples a second.
    at : ndarray of int, shape (n_times,)
        Places of the samples; where one does not follow the last there is a splice.

    Returns
    -------
    ndarray of complex, shape (n_windows, n_signals, n_bins)
        Without the lowest and the highest bin. The mean power of each signal is 1, or 0 if it
        is silent.
    """
    size = round(min(WINDOW * sfreq, len(at) + 1))
    ends = np.r_[0, np.flatnonzero(np.diff(at) != 1) + 1, len(at)]
    begins = np.concatenate(
        [np.arange(a, b - size + 1, size // 2) for a, b in pairwise(ends)]
    ).astype(np.int64)
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
    windows = z[:, begins[:, None] + np.arange(size)].swapaxes(0, 1) * taper
    spectra = np.fft.rfft(windows, axis=2)[:, :, 1:-1]
    power = np.square(np.abs(spectra)).sum(axis=(0, 2)) / max(len(begins) * spectra.shape[2], 1)
    scaled: NDArray[np.complex128] = spectra / np.sqrt(np.where(power > 0, power, 1))[:, None]
    return scaled


def is_sound(u: Auxiliary, sfreq: float) -> bool:
    """Whether samples are sound: they follow each other in time, and closely."""
    return u.is_time and sfreq >= SOUND


def covariances_of_cells(y: Array, sfreq: float) -> Array:
    """Covariances of whitened signals in cells of time and frequency, with the floor.

    White noise of unit covariance as the floor changes no direction, since sources are
    uncorrelated in what is whitened.

    Returns
    -------
    ndarray of shape (n_cells, n_signals, n_signals)
        Of the cells in which something is heard.
    """
    spectra = short_spectra(y, sfreq, np.arange(y.shape[1]))
    cells = _in_cells(spectra)
    power = np.square(np.abs(cells)).mean(axis=(1, 3))
    heard = np.moveaxis(cells, 1, 2)[power > HEARD * FLOOR_OF_START]
    covariances: Array = (heard @ heard.conj().swapaxes(1, 2)).real / heard.shape[2]
    return covariances + FLOOR_OF_START * np.eye(len(y))


def _in_cells(spectra: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Neighbouring windows and bins together, (n_times, n_signals, n_bands, IN_ONE**2)."""
    n_windows, d, n_bins = spectra.shape
    n_times, n_bands = n_windows // IN_ONE, n_bins // IN_ONE
    kept = spectra[: n_times * IN_ONE, :, : n_bands * IN_ONE]
    split = kept.reshape(n_times, IN_ONE, d, n_bands, IN_ONE).transpose(0, 2, 3, 1, 4)
    return split.reshape(n_times, d, n_bands, IN_ONE**2)


def log_likelihood(spectra: NDArray[np.complex128]) -> Array:
    """Log-likelihood of Gaussians that have a variance in every cell, but for a constant.

    As many variances are fitted whatever the signals are, so that matrices that differ in little
    else can be compared on what they are fitted to.

    Parameters
    ----------
    spectra : ndarray of complex, shape (n_windows, n_signals, n_bins)
        As `short_spectra` gives them.

    Returns
    -------
    ndarray of shape (n_windows // 2,)
        Nats a sample, over all signals, for each two windows.

    References
    ----------
    D.-T. Pham & J.-F. Cardoso, "Blind separation of instantaneous mixtures of nonstationary
    sources", IEEE Trans. Signal Process. 49 (2001).
    """
    power = np.square(np.abs(_in_cells(spectra))).mean(axis=3)
    nats: Array = -0.5 * np.log(power + FLOOR).mean(axis=2).sum(axis=1)
    return nats


def told_by_spectrum(spectra: NDArray[np.complex128]) -> float:
    """How much likelier two signals are than the pair turned by 45 degrees, by their spectra.

    By their power in each bin, all windows together. Chance is reckoned as if they were one:
    a line that lasts is the same in all of them, and two lines of one frequency differ in their
    power by chance for good. As much as chance does to one bin of two Gaussians, a nat or two,
    it is taken to do to all of `HANGS_TOGETHER` neighbours at once.

    Parameters
    ----------
    spectra : ndarray of complex, shape (n_windows, 2, n_bins)
        As `short_spectra` gives them.

    Returns
    -------
    float
        In standard errors, or less than these: about 0 where spectra are the same.
    """
    one, other = spectra.swapaxes(0, 1)
    cross = (one * other.conj()).real.sum(axis=0)
    powers = np.square(np.abs(one)).sum(axis=0), np.square(np.abs(other)).sum(axis=0)
    n_windows = max(len(spectra), 1)
    mean, half = (powers[0] + powers[1]) / 2 / n_windows, (powers[0] - powers[1]) / 2 / n_windows
    # as they stand the variances are mean +- half, and those of the turned pair mean +- cross
    both = (mean + FLOOR) ** 2
    gain = np.log((both - (cross / n_windows) ** 2) / (both - half**2)).sum()
    heard = (mean / (mean + FLOOR)) ** 2
    groups = np.add.reduceat(heard, np.arange(0, len(heard), HANGS_TOGETHER))
    return float(gain / max(2 * np.linalg.norm(groups), 1.0))
