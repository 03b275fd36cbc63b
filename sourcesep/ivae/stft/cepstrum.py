"""Variances of time-frequency cells whose logarithm is sparse in the cepstrum.

The log-spectrum of a voice or an instrument in one frame is an envelope (a few low
quefrencies) and, where it has a pitch, a comb (few high ones). All else in its cepstrum
is the chance of one frame, and is shrunk away.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct

__all__ = ["cepstral_variances", "sparse_cepstrum"]

N_ENVELOPE = 12
"""Lowest quefrencies, which are kept as they are."""
THRESHOLD = 2.5
"""Shrinkage begins here, in standard deviations of a frame's cepstrum."""
N_MEDIAN = 120
"""Quefrencies, evenly spaced, whose median is as good as that of all, and cheaper."""
TINY = 1e-30
"""Least square of a threshold."""
SILENCE = 1e-8
"""Power below this share of the mean does not count: its logarithm would be everything."""


def sparse_cepstrum(power: NDArray[Any]) -> NDArray[Any]:
    """Smooth the power of every frame over frequency, up to a constant factor.

    Quefrencies from `N_ENVELOPE` on pass a non-negative garrotte, c max(0, 1 - (t/c)^2)
    with t at `THRESHOLD` standard deviations, which are read off the median (Gao 1998,
    "Wavelet shrinkage denoising using the non-negative garrote").

    Parameters
    ----------
    power : ndarray of shape (..., n_frames, n_bins)
        From frequency 0 to half the rate.

    Returns
    -------
    ndarray of the same shape and type
        Above 0, also where the power is 0 throughout.
    """
    floor = SILENCE * float(power.mean()) or 1.0
    logarithm = power + power.dtype.type(floor)
    np.log(logarithm, out=logarithm)
    # the log-spectrum is even in frequency: its inverse FFT is a cosine transform
    cepstrum = dct(logarithm, type=1, axis=-1, overwrite_x=True)
    cepstrum /= 2 * (power.shape[-1] - 1)
    # the median of a half-normal variable is .674 of its deviation, near sqrt(1/2)
    stride = max(3, power.shape[-1] // N_MEDIAN)
    median = np.median(np.abs(cepstrum[..., ::stride]), axis=-1, keepdims=True)
    squared = np.square(THRESHOLD * np.sqrt(2) * median).astype(power.dtype)
    squared += squared.dtype.type(TINY)
    detail = cepstrum[..., N_ENVELOPE:]
    keep = np.square(detail)
    np.maximum(keep, squared, out=keep)
    np.divide(squared, keep, out=keep)
    np.subtract(1, keep, out=keep)
    detail *= keep
    smooth = dct(cepstrum, type=1, axis=-1, overwrite_x=True)
    variances: NDArray[Any] = np.exp(smooth, out=smooth)
    return variances


def cepstral_variances(power: NDArray[Any], floor: float) -> NDArray[Any]:
    """Variances lambda(f, t) of sources, fitted to the power of their estimates.

    Parameters
    ----------
    power : ndarray of shape (n_sources, n_frames, n_bins)
        |y(f, t)|^2.
    floor : float
        What every frame keeps of a bin's mean power: smaller variances are a chance that
        a fit would take for certainty.

    Returns
    -------
    ndarray of the same shape and type
        Above 0; on average power / lambda is 1, and less by what the floor adds.
    """
    variances = sparse_cepstrum(power)
    by_bin = power.mean(axis=1, keepdims=True)
    # the exponential of a mean logarithm lies below the mean
    variances *= (power / variances).mean(axis=(1, 2), keepdims=True)
    variances += floor * by_bin + (1e-6 * by_bin.mean(axis=2, keepdims=True) + SILENCE)
    return variances
