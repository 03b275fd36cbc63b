"""Matrices of two-sided FIR filters, circular over the record, with exact log-determinant.

Taps have shape (n_out, n_in, 2 half + 1); the middle one is lag 0. A single tap is an
ordinary matrix. Filters are two-sided because a causal one cannot undo a mixing whose
determinant has zeros outside the unit circle.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from sourcesep.ivae.model import Array

__all__ = [
    "GRID",
    "adjoint",
    "convolve",
    "convolve_gradient",
    "deconvolve",
    "frequency_demixing",
    "identity_taps",
    "impulse_response",
    "inverse_reach",
    "log_det_rate",
    "log_det_rate_gradient",
]

BLOCK = 1024
"""Least samples in a block of the overlap-save convolution."""
LONGEST_INVERSE = 2**15
"""Samples over which an inverse filter is followed."""
DIED_AWAY = 1e-9
"""Share of its peak at which it may be cut: -180 dB."""
GRID = 1024
"""Frequencies that stand for all while a filter is fitted: its response is smooth."""
LEAST_SHARE = 1e-6
"""Of a source's mean variance over labels, what every label has at least."""


def identity_taps(n_channels: int, half: int) -> Array:
    """Taps of the filter that changes nothing."""
    taps = np.zeros((n_channels, n_channels, 2 * half + 1))
    taps[:, :, half] = np.eye(n_channels)
    return taps


def _response(taps: Array, n_times: int) -> NDArray[np.complex128]:
    """Frequency response on the grid of n_times points, (n_out, n_in, n_frequencies)."""
    half = taps.shape[2] // 2
    circular = np.zeros((*taps.shape[:2], n_times))
    # added, since a record shorter than the filter meets several taps at one lag
    for k in range(taps.shape[2]):
        circular[:, :, (k - half) % n_times] += taps[:, :, k]
    response: NDArray[np.complex128] = fft.rfft(circular)
    return response


def _taps(response: NDArray[Any], n_times: int, half: int) -> Array:
    """Taps at lags of up to `half` of a frequency response: inverts `_response`."""
    taps: Array = fft.irfft(response, n_times)[:, :, np.arange(-half, half + 1) % n_times]
    return taps


def _frames(x: Array, half: int) -> tuple[Array, int]:
    """Overlapping blocks of the circular record, (n_channels, n_blocks, size), and their step."""
    size = max(BLOCK, 1 << (16 * half).bit_length())
    step = size - 2 * half
    n_blocks = -(-x.shape[1] // step)
    at = np.arange(n_blocks)[:, None] * step + np.arange(-half, size - half)
    return np.take(x, at, axis=1, mode="wrap"), step


def convolve(taps: Array, x: Array) -> Array:
    """Filter x circularly, (n_out, n_times), by overlap-save."""
    half = taps.shape[2] // 2
    if half == 0:
        return taps[:, :, 0] @ x
    frames, step = _frames(x, half)
    size = frames.shape[2]
    spectra = np.einsum("ijf,jbf->ibf", _response(taps, size), fft.rfft(frames))
    blocks = fft.irfft(spectra, size)[:, :, half : half + step]
    filtered: Array = blocks.reshape(len(taps), -1)[:, : x.shape[1]]
    return filtered


def convolve_gradient(taps: Array, x: Array, by_output: Array) -> Array:
    """Pull a gradient by ``convolve(taps, x)`` back to the taps."""
    half = taps.shape[2] // 2
    if half == 0:
        return (by_output @ x.T)[:, :, None]
    frames, step = _frames(x, half)
    n_blocks, size = frames.shape[1:]
    surplus = n_blocks * step - x.shape[1]
    blocks = np.pad(by_output, ((0, 0), (0, surplus))).reshape(-1, n_blocks, step)
    # zeros around each block keep every lag of the circular correlation inside the frame
    outer = fft.rfft(np.pad(blocks, ((0, 0), (0, 0), (half, half))))
    cross = np.einsum("ibf,jbf->ijf", outer, fft.rfft(frames).conj())
    return _taps(cross, size, half)


def adjoint(taps: Array) -> Array:
    """Taps that pull a gradient by the output of `convolve` back to its input."""
    return taps.transpose(1, 0, 2)[:, :, ::-1]


def deconvolve(taps: Array, z: Array) -> Array:
    """Return the x for which ``convolve(taps, x)`` is z."""
    if taps.shape[2] == 1:
        return np.asarray(np.linalg.solve(taps[:, :, 0], z), np.float64)
    n = z.shape[1]
    response = _response(taps, n).transpose(2, 0, 1)
    x = np.linalg.solve(response, fft.rfft(z).T[:, :, None])[:, :, 0]
    result: Array = fft.irfft(x.T, n)
    return result


def _both_sides(n_times: int) -> Array:
    """Weights by which a sum over rfft's frequencies is the mean over all."""
    weights = np.full(n_times // 2 + 1, 2.0)
    weights[0] = 1
    if n_times % 2 == 0:
        weights[-1] = 1
    return weights / n_times


def log_det_rate(taps: Array, n_times: int) -> float:
    """log |det J| a sample of the circular filter over n_times samples, in nats.

    The Jacobian is block circulant, so that its log-determinant is the sum over
    frequencies of log |det W(f)|: exact.
    """
    if taps.shape[2] == 1:
        return float(np.linalg.slogdet(taps[:, :, 0])[1])
    response = _response(taps, n_times).transpose(2, 0, 1)
    return float(_both_sides(n_times) @ np.linalg.slogdet(response)[1])


def log_det_rate_gradient(taps: Array, n_times: int) -> tuple[float, Array]:
    """`log_det_rate` and its derivative by the taps."""
    if taps.shape[2] == 1:
        matrix = taps[:, :, 0]
        return float(np.linalg.slogdet(matrix)[1]), np.asarray(
            np.linalg.inv(matrix).T, np.float64
        )[:, :, None]
    half = taps.shape[2] // 2
    response = _response(taps, n_times).transpose(2, 0, 1)
    value = float(_both_sides(n_times) @ np.linalg.slogdet(response)[1])
    inverse = np.linalg.inv(response).conj().transpose(2, 1, 0)
    return value, _taps(inverse, n_times, half)


def frequency_demixing(
    x: Array,
    labels: NDArray[np.int64],
    start: Array,
    half: int,
    n_sweeps: int = 60,
) -> tuple[Array, float]:
    """Unmix a linear convolutive mixture: a matrix per frequency, one variance a label.

    Sources are white within a label, so that all frequencies of a source share one
    variance and cannot be permuted against each other. The rows are updated in turn by
    iterative projection (Ono 2011).

    Parameters
    ----------
    x : ndarray of shape (n_channels, n_times)
        Signals.
    labels : ndarray of int, shape (n_times,)
        Negative labels are left out.
    start : ndarray of shape (n_channels, n_channels)
        Unmixing matrix that every frequency starts from.
    half : int
        Taps on either side of the filters returned.
    n_sweeps : int
        Updates of every row.

    Returns
    -------
    taps : ndarray of shape (n_channels, n_channels, 2 half + 1)
    loss : float
        Negative log-likelihood in nats a sample, up to a constant.
    """
    n_fft = 1 << int(4 * half).bit_length()
    covariances, share = _frame_covariances(x, labels, n_fft)
    weights = _both_sides(n_fft)
    n_frequencies, n_labels, d, _ = covariances.shape
    unmixing = np.repeat(start[None].astype(complex), n_frequencies, axis=0)
    flat = covariances.reshape(n_frequencies, n_labels, d * d)
    for _ in range(n_sweeps):
        variance = _tied_variance(unmixing, flat, weights, share)
        for j in range(d):
            weighted = (share / variance[j] @ flat).reshape(n_frequencies, d, d)
            weighted += 1e-9 * np.trace(weighted, axis1=1, axis2=2)[:, None, None] * np.eye(d)
            unit = np.zeros((d, 1))
            unit[j] = 1
            row = np.linalg.solve(unmixing @ weighted, unit.astype(complex))[:, :, 0]
            norm = np.einsum("fa,fab,fb->f", row.conj(), weighted, row).real
            unmixing[:, j] = (row / np.sqrt(norm)[:, None]).conj()
    variance = _tied_variance(unmixing, flat, weights, share)
    loss = 0.5 * (share @ np.log(variance).sum(axis=0)) - weights @ np.linalg.slogdet(unmixing)[1]
    # a white Gaussian prior leaves each source's phase free: let its own channel hear it at 0
    direct = np.einsum("fjj->fj", np.linalg.inv(unmixing))
    unmixing *= (direct / np.maximum(np.abs(direct), 1e-12))[:, :, None]
    return _taps(unmixing.transpose(1, 2, 0), n_fft, half), float(loss)


def _frame_covariances(
    x: Array, labels: NDArray[np.int64], n_fft: int
) -> tuple[NDArray[np.complex128], Array]:
    """Covariance per frequency and label, (n_frequencies, n_labels, d, d), and labels' shares.

    Only frames that lie within one label count, where there are any.
    """
    hop = n_fft // 4
    starts = np.arange(0, max(x.shape[1] - n_fft, 0) + 1, hop)
    first, middle, last = (
        labels[np.minimum(starts + ahead, len(labels) - 1)] for ahead in (0, n_fft // 2, n_fft - 1)
    )
    whole = (first == last) & (first == middle) & (middle >= 0)
    if len(np.unique(middle[whole])) < 2:
        whole = middle >= 0
    starts, middle = starts[whole], middle[whole]
    window = np.hanning(n_fft + 1)[:-1]
    present = np.unique(middle)
    covariances = np.empty((n_fft // 2 + 1, len(present), len(x), len(x)), complex)
    counts = np.empty(len(present))
    padded = np.pad(x, ((0, 0), (0, max(n_fft - x.shape[1], 0))))
    for k, label in enumerate(present):
        begins = starts[middle == label]
        frames = padded[:, begins[:, None] + np.arange(n_fft)] * window
        spectra = fft.rfft(frames).transpose(2, 0, 1)
        counts[k] = len(begins)
        covariances[:, k] = spectra @ spectra.conj().transpose(0, 2, 1) / len(begins)
    return covariances / (window**2).sum(), counts / counts.sum()


def _tied_variance(
    unmixing: NDArray[np.complex128],
    flat: NDArray[np.complex128],
    weights: Array,
    share: Array,
) -> Array:
    """Variance of each source given each label, one for all frequencies, (d, n_labels).

    A label of one frame, or of silence, could be unmixed to nothing: it keeps `LEAST_SHARE`.
    """
    n_frequencies, d, _ = unmixing.shape
    outer = unmixing[:, :, :, None] * unmixing[:, :, None, :].conj()
    per_frequency = (outer.reshape(n_frequencies, d, d * d) @ flat.transpose(0, 2, 1)).real
    variance: Array = np.einsum("f,fjk->jk", weights, per_frequency)
    return np.maximum(variance, LEAST_SHARE * (variance @ share)[:, None])


def impulse_response(taps: Array, n_times: int = GRID) -> Array:
    """Impulse response of the inverse filter, (n_in, n_out, n_times), lag 0 first."""
    inverse = np.linalg.inv(_response(taps, n_times).transpose(2, 0, 1))
    response: Array = fft.irfft(inverse.transpose(1, 2, 0), n_times)
    return response


def inverse_reach(taps: Array) -> int:
    """Samples before or after which the inverse filter has died away; 0 for a matrix."""
    if taps.shape[2] == 1:
        return 0
    response = np.abs(impulse_response(taps, LONGEST_INVERSE)).max(axis=(0, 1))
    heard = np.flatnonzero(response > DIED_AWAY * response.max())
    # circular: what lies before lag 0 stands at the end
    return int(np.minimum(heard, LONGEST_INVERSE - heard).max())
