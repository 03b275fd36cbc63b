"""One channel: what is steady apart from what strikes, by spectrum alone.

A chord is a line along time, a drum a line along frequency. With u = (f, t) that is a prior:
the variance of a steady source is that of its neighbours in time, of a percussive one that of
its neighbours in frequency (Fitzgerald 2010, "Harmonic/percussive separation using median
filtering", as a prior whose posterior is fitted in turn).
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import median_filter

from sourcesep.ivae.model import Array
from sourcesep.ivae.stft.cells import Cells, power
from sourcesep.ivae.stft.factorised import LEAST
from sourcesep.ivae.stft.wiener import wiener

__all__ = ["WINDOW", "infer"]

WINDOW = 0.256
"""Seconds: notes are lines only in long windows."""
STEADY = 31
"""Frames that a steady source's variance is the median of: 2 s."""
PERCUSSIVE = 11
"""Bins that a percussive source's variance is the median of: 40 Hz."""
N_ITERATIONS = 3


def infer(cells: Cells, mixing: Array) -> Cells:
    """Fit the variances of a steady and of a percussive source.

    Parameters
    ----------
    cells : ndarray of complex64, shape (1, n_frames, n_bins)
        The channel, of a mean power near 1.
    mixing : ndarray of shape (1, 2)
        Gain of the steady and of the percussive source.

    Returns
    -------
    ndarray of float32, shape (2, n_frames, n_bins)
        The prior's variances.
    """
    share: Cells = (0.5 / np.square(mixing[0])).astype(np.float32)
    powers = power(cells) * share[:, None, None]
    for _ in range(N_ITERATIONS):
        variances = np.stack(
            [median_filter(powers[0], (STEADY, 1)), median_filter(powers[1], (1, PERCUSSIVE))]
        )
        variances += np.float32(LEAST)
        powers = wiener(cells, mixing, variances).power
    return variances
