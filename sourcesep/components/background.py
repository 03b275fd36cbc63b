"""What of an artefact's component is the artefact: all but what is there at quiet times."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import convolve1d
from scipy.signal import windows

from sourcesep.ivae.model import Array

__all__ = ["artefact_share"]

WINDOW = 0.5
"""Seconds over which power is followed: a blink lasts .2 to .4 s."""
QUIET = 25
"""Percentile of power that is taken for the background: artefacts are away as long at least."""


def artefact_share(z: Array, sfreq: float, stretch: int) -> Array:
    """Share of each sample that belongs to what comes and goes, from 0 to 1.

    The component is a sum of an artefact whose power changes and of a background (brain, the
    electrodes' noise) whose power does not, both Gaussian given the time, so that the best
    estimate of the artefact is the component times

        (power now - power of the background) / power now.

    Parameters
    ----------
    z : ndarray of shape (n_components, n_times)
        Components.
    sfreq : float
        Samples a second.
    stretch : int
        Samples between two gaps in time, over which no power is averaged.

    Returns
    -------
    ndarray of shape (n_components, n_times)

    References
    ----------
    J. S. Lim & A. V. Oppenheim, "Enhancement and bandwidth compression of noisy speech", Proc.
    IEEE 67(12), 1979: the Wiener filter for what is not stationary. To leave in the recording
    what an artefact's component has of the brain: N. P. Castellanos & V. A. Makarov, "Recovering
    EEG brain signals", J. Neurosci. Methods 158(2), 2006.
    """
    pieces = np.square(z).reshape(len(z), -1, stretch)
    window = windows.hann(2 * int(WINDOW * sfreq / 2) + 1)
    power = convolve1d(pieces, window / window.sum(), axis=2, mode="nearest").reshape(z.shape)
    background = np.percentile(power, QUIET, axis=1, keepdims=True)
    share: Array = 1 - np.minimum(background / np.maximum(power, np.finfo(float).tiny), 1)
    return share
