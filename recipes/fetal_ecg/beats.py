"""Heartbeats in a signal: where they are, how regular, how well they agree with a reference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["f1", "find", "locked_share", "rate", "regularity"]

Array = NDArray[np.float64]
QRS_BAND = (10.0, 40.0)
"""Hertz in which a QRS complex has most of its power."""
SHORTEST = 0.28
"""Seconds between two beats at least: 214 a minute."""
TOLERANCE = 0.05
"""Seconds by which a beat may be off and count as found; half of the usual 100 ms window."""


def find(x: Array, sfreq: float) -> Array:
    """Return the times of heartbeats in seconds: peaks of the power in the QRS band."""
    from scipy.ndimage import maximum_filter1d
    from scipy.signal import butter, find_peaks, sosfiltfilt

    band = butter(2, QRS_BAND, "bandpass", fs=sfreq, output="sos")
    power = sosfiltfilt(band, x) ** 2
    smooth = butter(2, 8.0, "lowpass", fs=sfreq, output="sos")
    power = np.maximum(sosfiltfilt(smooth, power), 0.0)
    # A beat is at least a quarter of the beats around it, so that one artefact hides few.
    height = np.median(maximum_filter1d(power, round(1.5 * sfreq)))
    peaks, _ = find_peaks(power, height=height / 4, distance=max(1, round(SHORTEST * sfreq)))
    return np.asarray(peaks / sfreq)


def rate(beats: Array) -> float:
    """Return beats a minute, from the median interval; NaN of fewer than three beats."""
    return 60.0 / float(np.median(np.diff(beats))) if len(beats) > 2 else float("nan")


def regularity(beats: Array) -> float:
    """Return the share of intervals within a tenth of the median one, 0 to 1."""
    if len(beats) < 5:
        return 0.0
    intervals = np.diff(beats)
    return float(np.mean(np.abs(intervals / np.median(intervals) - 1) < 0.1))


def f1(beats: Array, reference: Array) -> float:
    """Return the harmonic mean of sensitivity and predictivity, each beat matched once.

    The median delay between the two is taken out first: a scalp electrode and a belly
    electrode see the peak of the same beat some milliseconds apart.
    """
    if not len(beats) or not len(reference):
        return 0.0
    nearest = np.abs(beats[:, None] - reference).argmin(1)
    near = beats - reference[nearest]
    close = np.abs(near) < 2 * TOLERANCE
    shifted = beats - (np.median(near[close]) if close.any() else 0.0)
    free = np.ones(len(reference), bool)
    hits = 0
    for beat in shifted:
        distance = np.where(free, np.abs(reference - beat), np.inf)
        if distance.min() <= TOLERANCE:
            free[distance.argmin()] = False
            hits += 1
    return 2 * hits / (len(beats) + len(reference))


def locked_share(x: Array, beats: Array, sfreq: float) -> float:
    """Return the share of a signal's power that is the same after each of these beats.

    The signal is cut out around every beat (-50 to 150 ms); the power of the mean, less what
    a mean of noise would have, over the power of all. 0 if the beats are someone else's.
    """
    window = np.arange(round(-0.05 * sfreq), round(0.15 * sfreq))
    at = np.round(beats * sfreq).astype(int)
    at = at[(at + window[0] >= 0) & (at + window[-1] < len(x))]
    if len(at) < 5:
        return float("nan")
    cut = x[at[:, None] + window] - x.mean()
    total = np.mean(cut**2)
    mean = np.mean(cut.mean(0) ** 2)
    noise = (total - mean) / (len(at) - 1)
    return float(max(0.0, mean - noise) / total)
