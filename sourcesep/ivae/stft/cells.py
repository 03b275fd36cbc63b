"""The short-time Fourier transform as its models see it: cells, and back to signals."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len

from sourcesep import windows
from sourcesep.ivae.model import Array

__all__ = [
    "FAINT",
    "OVERLAP",
    "SHORTEST_WINDOW",
    "WINDOW",
    "Cells",
    "bin_weights",
    "in_every_bin",
    "power",
    "share_out",
    "to_signal",
    "to_spectrum",
    "window_size",
]

Cells = NDArray[Any]
"""Time-frequency cells, axes (..., frames, bins): complex64, or float32 for their powers."""

WINDOW = 0.512
"""Seconds of the window: the longest filter from a source to a channel."""
SHORTEST_WINDOW = 64
"""Samples."""
OVERLAP = 4
"""Windows that every sample lies in."""
FAINT = 1e-8
"""Power of a cell, of channels of unit variance, below which it holds rounding and no sound."""


def window_size(seconds: float, sfreq: float, n_times: int) -> int:
    """Return the samples of a window that lasts this long, or a little longer.

    A multiple of 32, so that it can be halved and its hop be whole, with small prime
    factors. Halved until the record holds two windows.
    """
    size = 32 * int(next_fast_len(max(2, int(np.ceil(seconds * sfreq / 32 - 1e-6)))))
    while size > SHORTEST_WINDOW and 2 * size > n_times:
        size = 32 * -(-size // 64)
    return size


def in_every_bin(matrix: Array, size: int) -> Cells:
    """The same matrix (m, n) in all bins of a window of so many samples, (m, n, n_bins)."""
    return np.repeat(matrix.astype(np.complex64)[:, :, None], size // 2 + 1, axis=2)


def to_spectrum(x: NDArray[Any], size: int, overlap: int = OVERLAP) -> Cells:
    """STFT of signals (n, n_times) as (n, n_frames, n_bins), complex64.

    Every sample lies in `overlap` windows. Scaled so that white noise of unit variance has cells
    of unit power.
    """
    cells = windows.stft(x.astype(np.float32), size, size // overlap)
    cells *= np.float32(np.sqrt(2 / size))
    return cells.transpose(0, 2, 1)


def to_signal(cells: Cells, n_times: int, overlap: int = OVERLAP) -> Array:
    """Signals (n, n_times) of cells (n, n_frames, n_bins): inverts `to_spectrum`."""
    size = 2 * (cells.shape[2] - 1)
    signals = np.empty((len(cells), n_times))
    for signal, own in zip(signals, cells, strict=True):  # frames of one at a time in memory
        signal[:] = windows.istft(own.T[None], size, size // overlap, n_times)[0]
    signals *= np.sqrt(size / 2)
    return signals


def power(cells: Cells) -> Cells:
    """Return |cells|^2."""
    squares: Cells = cells.real**2
    squares += cells.imag**2
    return squares


def share_out(values: Cells, size: int, n_times: int) -> Array:
    """Give every sample the mean over the frames it lies in.

    Parameters
    ----------
    values : ndarray of shape (..., n_frames)
        One for each frame.
    size, n_times : int
        Samples in a frame and in the signal.

    Returns
    -------
    ndarray of shape (..., n_times)
    """
    # samples of hop b lie in the frames b to b + OVERLAP - 1
    of_hops = np.lib.stride_tricks.sliding_window_view(values, OVERLAP, axis=-1).mean(axis=-1)
    return np.repeat(of_hops.astype(np.float64), size // OVERLAP, axis=-1)[..., :n_times]


def bin_weights(size: int) -> NDArray[np.float32]:
    """How many complex coefficients a bin is: 1, but 1/2 at 0 and at half the rate."""
    weights = np.ones(size // 2 + 1, np.float32)
    weights[[0, -1]] = 0.5
    return weights
