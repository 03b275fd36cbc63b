"""What of an artefact's component is the artefact: all but what is there at quiet times."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import make_interp_spline
from scipy.ndimage import convolve1d
from scipy.signal import windows

from sourcesep.ivae.model import Array

__all__ = ["artefact_part"]

WINDOW = 0.5
"""Seconds over which power is followed: a blink lasts .2 to .4 s."""
QUIET = 25
"""Percentile of power that is taken for the background: artefacts are away as long at least."""
SLOW = 2.0
"""Seconds over which a median follows drifts; blinks are shorter."""


def artefact_part(
    z: Array, sfreq: float, stretch: int, *, drifts: bool = False
) -> tuple[Array, Array]:
    """Return what of components comes and goes, and what it is of: them without drifts.

    A component is a sum of drifts, of an artefact whose power changes and of a background (brain,
    the electrodes' noise) whose power does not. The two are Gaussian given the time, so that the
    best estimate of the artefact is the component, less drifts, times

        (power now - power of the background) / power now.

    Parameters
    ----------
    z : ndarray of shape (n_components, n_times)
        Components.
    sfreq : float
        Samples a second.
    stretch : int
        Samples between two gaps in time, over which no power is averaged.
    drifts : bool
        Whether there are any: whether the data were not high-passed.

    Returns
    -------
    part, fast : ndarray of shape (n_components, n_times)

    References
    ----------
    J. S. Lim & A. V. Oppenheim, "Enhancement and bandwidth compression of noisy speech", Proc.
    IEEE 67(12), 1979: the Wiener filter for what is not stationary. To leave in the recording
    what an artefact's component has of the brain: N. P. Castellanos & V. A. Makarov, "Recovering
    EEG brain signals", J. Neurosci. Methods 158(2), 2006.
    """
    pieces = z.reshape(len(z), -1, stretch)
    fast = pieces - _drift(pieces, sfreq) if drifts else pieces
    window = windows.hann(2 * int(WINDOW * sfreq / 2) + 3)
    power = convolve1d(np.square(fast), window / window.sum(), axis=2, mode="nearest")
    background = np.percentile(power, QUIET, axis=(1, 2), keepdims=True)
    share = 1 - np.minimum(background / np.maximum(power, np.finfo(float).tiny), 1)
    return (share * fast).reshape(z.shape), fast.reshape(z.shape)


def _drift(pieces: Array, sfreq: float) -> Array:
    """Medians of each few seconds of every stretch, and straight lines between their middles."""
    times = np.arange(pieces.shape[2])
    blocks = np.array_split(times, max(1, round(len(times) / (SLOW * sfreq))))
    medians = np.stack([np.median(pieces[:, :, block], axis=2) for block in blocks], axis=2)
    if len(blocks) == 1:
        return medians
    middles = np.array([block.mean() for block in blocks])
    lines = make_interp_spline(middles, medians, k=1, axis=2)
    drift: Array = lines(times)
    return drift
