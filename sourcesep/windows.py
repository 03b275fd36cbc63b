"""Cutting signals into pieces: segments, change points, windows and the STFT.

Everything here is exact: segments partition the samples, and `overlap_add` and
`istft` invert `frames` and `stft` to rounding for every length, window and hop.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import fft

__all__ = [
    "change_points",
    "edges",
    "frames",
    "istft",
    "labels_between",
    "overlap_add",
    "segments",
    "stft",
]

Array = NDArray[np.float64]
Real = TypeVar("Real", np.float32, np.float64)

MIN_FRAMES = 8
"""The shortest stretch between two change points, in frames."""
MAX_FEATURES = 8
"""How many principal directions of the features `change_points` looks at."""
VARIANCE_FLOOR = 0.01
"""Added to a stretch's variance (1 overall), so that a flat stretch is no infinite gain."""


def edges(n_times: int, length: int) -> NDArray[np.int64]:
    """Return where segments of `length` samples begin, and where the last one ends.

    A last segment shorter than half of `length` is joined to the one before it.

    Parameters
    ----------
    n_times : int
        Number of samples, at least 1.
    length : int
        Samples in a segment, at least 1.

    Returns
    -------
    ndarray of int, shape (n_segments + 1,)
        Increasing from 0 to `n_times`.
    """
    n_segments = max(1, (n_times + length // 2) // length)
    return np.append(np.arange(n_segments, dtype=np.int64) * length, n_times)


def segments(n_times: int, length: int) -> NDArray[np.int64]:
    """Label each sample with its segment, 0 .. n_segments - 1; see `edges`."""
    return labels_between(edges(n_times, length))


def labels_between(bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Label the samples between each two of `bounds`, 0 .. len(bounds) - 2."""
    return np.repeat(np.arange(len(bounds) - 1, dtype=np.int64), np.diff(bounds))


def change_points(features: Array) -> NDArray[np.int64]:
    """Find where the mean or the variance of features changes.

    Binary segmentation: a stretch is cut where two Gaussians, each with its own mean
    and variances, fit best, as long as the likelihood pays for the parameters they add
    (BIC). Features that move together are decorrelated first, so as to count once.

    Parameters
    ----------
    features : ndarray of shape (n_frames, n_features)
        Finite values, e.g. the log power of each channel.

    Returns
    -------
    ndarray of int
        The first frame of every stretch but the first, increasing.

    References
    ----------
    Schwarz (1978), "Estimating the dimension of a model"; Scott & Knott (1974), "A
    cluster analysis method for grouping means in the analysis of variance".
    """
    scores = _principal_scores(features)
    n_frames, n_scores = scores.shape
    if n_scores == 0:
        return np.empty(0, dtype=np.int64)
    zero = np.zeros((1, n_scores))
    sums = np.concatenate([zero, np.cumsum(scores, axis=0)])
    squares = np.concatenate([zero, np.cumsum(scores**2, axis=0)])

    def cost(start: Any, stop: Any) -> Any:
        """Minus twice the log-likelihood of frames [start, stop), up to a constant."""
        size = np.asarray(stop - start)[..., None]
        mean = (sums[stop] - sums[start]) / size
        variance = np.maximum((squares[stop] - squares[start]) / size - mean**2, 0)
        return (size * np.log(variance + VARIANCE_FLOOR)).sum(axis=-1)

    penalty = (2 * n_scores + 1) * np.log(n_frames)
    found: list[int] = []
    stretches = [(0, n_frames)]
    while stretches:
        start, stop = stretches.pop()
        cuts = np.arange(start + MIN_FRAMES, stop - MIN_FRAMES + 1)
        if cuts.size == 0:
            continue
        gain = cost(start, stop) - cost(start, cuts) - cost(cuts, stop)
        best = int(gain.argmax())
        if gain[best] > penalty:
            cut = int(cuts[best])
            found.append(cut)
            stretches += [(start, cut), (cut, stop)]
    return np.array(sorted(found), dtype=np.int64)


def _principal_scores(features: Array) -> Array:
    """Uncorrelated combinations of the features with unit variance, strongest first."""
    centred = features - features.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(features))
    values, vectors = values[::-1][:MAX_FEATURES], vectors[:, ::-1][:, :MAX_FEATURES]
    # Directions with less than a tenth of the power are noise around the strong ones.
    keep = values > max(0.1 * values[0], 1e-12)
    scores: Array = centred @ (vectors[:, keep] / np.sqrt(values[keep]))
    return scores


def frames(x: NDArray[Real], size: int, hop: int) -> NDArray[Real]:
    """Cut a signal into overlapping frames, each multiplied by a square-root Hann window.

    The signal is padded with zeros so that each of its samples lies in as many frames as
    any other. The window is sampled between the zeros of the Hann window: no weight is 0.

    Parameters
    ----------
    x : ndarray of shape (n_channels, n_times)
        The signal, float64 or float32.
    size : int
        Samples in a frame.
    hop : int
        Samples from one frame to the next, at most `size`. Up to ``size / 2`` the
        inverse is well conditioned; near `size` it divides by the window's ends.

    Returns
    -------
    ndarray of shape (n_frames, n_channels, size)
        Frame ``i`` begins at sample ``i * hop - (size - hop)``.
    """
    n_channels, n_times = x.shape
    n_frames = (n_times - 1 + size - hop) // hop + 1  # every one that holds a sample
    padded = np.zeros((n_channels, (n_frames - 1) * hop + size), dtype=x.dtype)
    padded[:, size - hop : size - hop + n_times] = x
    views = np.lib.stride_tricks.sliding_window_view(padded, size, axis=1)[:, ::hop]
    window = _window(size).astype(x.dtype)
    framed: NDArray[Real] = np.multiply(views.transpose(1, 0, 2), window, order="C")
    return framed


def overlap_add(framed: NDArray[Real], hop: int, n_times: int) -> NDArray[Real]:
    """Put frames together again: the exact inverse of `frames`.

    Each frame is multiplied by the dual window (the window over the summed square of
    all windows at that sample), which makes the sum the signal nearest in least squares
    when the frames were changed in between.

    Parameters
    ----------
    framed : ndarray of shape (n_frames, n_channels, size)
        Frames as `frames` returns them.
    hop : int
        Samples from one frame to the next.
    n_times : int
        Samples in the signal.

    Returns
    -------
    ndarray of shape (n_channels, n_times)
    """
    n_frames, n_channels, size = framed.shape
    dual = _dual_window(size, hop).astype(framed.dtype)
    n_blocks = -(-size // hop)
    out = np.zeros((n_channels, n_frames + n_blocks - 1, hop), dtype=framed.dtype)
    for block in range(n_blocks):
        part = slice(block * hop, min((block + 1) * hop, size))
        width = part.stop - part.start
        out[:, block : block + n_frames, :width] += (
            framed[:, :, part].transpose(1, 0, 2) * dual[part]
        )
    return out.reshape(n_channels, -1)[:, size - hop : size - hop + n_times].copy()


def stft(x: NDArray[Real], size: int, hop: int) -> NDArray[Any]:
    """Short-time Fourier transform: the real FFT of `frames`.

    Parameters
    ----------
    x : ndarray of shape (n_channels, n_times)
        The signal, float64 or float32.
    size, hop : int
        Samples in a frame, and from one frame to the next; see `frames`.

    Returns
    -------
    ndarray of complex, shape (n_channels, size // 2 + 1, n_frames)
        Bin ``f`` is the frequency ``f * sfreq / size`` Hz.
    """
    spectrum: NDArray[Any] = fft.rfft(frames(x, size, hop), axis=-1).transpose(1, 2, 0)
    return spectrum


def istft(spectrum: NDArray[Any], size: int, hop: int, n_times: int) -> NDArray[Any]:
    """Inverse of `stft`: exact for its result, else the nearest signal in least squares.

    Parameters
    ----------
    spectrum : ndarray of complex, shape (n_channels, size // 2 + 1, n_frames)
        A transform as `stft` returns it.
    size, hop, n_times : int
        As given to `stft`, and the length of the signal.

    Returns
    -------
    ndarray of shape (n_channels, n_times)
    """
    framed: NDArray[Any] = fft.irfft(spectrum.transpose(2, 0, 1), n=size, axis=-1)
    return overlap_add(framed, hop, n_times)


def _window(size: int) -> Array:
    """The square root of a Hann window, sampled at half-integers."""
    window: Array = np.sin(np.pi * (np.arange(size) + 0.5) / size)
    return window


def _dual_window(size: int, hop: int) -> Array:
    """The window whose overlap-added products with `_window` sum to 1 at every sample."""
    window = _window(size)
    squares = np.zeros(-(-size // hop) * hop)
    squares[:size] = window**2
    total = squares.reshape(-1, hop).sum(axis=0)
    dual: Array = window / total[np.arange(size) % hop]
    return dual
