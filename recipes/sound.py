"""What the recipes of sound share: scores of separated sources, and pyroomacoustics as a peer."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sourcesep.metrics import si_sdr
from sourcesep.metrics.separation import pair_by_ratio

__all__ = ["Gains", "gains", "peers"]

Array = NDArray[np.float64]
WINDOW = 0.256
"""Seconds of the peers' short-time Fourier transform."""


class Gains(NamedTuple):
    """SI-SDR in dB of each true source's best estimate, and of the mixture in its place."""

    estimate: Array
    mixture: Array

    @property
    def improvement(self) -> Array:
        """How much better than the mixture, dB."""
        return self.estimate - self.mixture


def gains(true: Array, mixture: Array, found: Array) -> Gains:
    """Match estimates to true sources one to one, by the largest total SI-SDR.

    A true source that is silent has no SI-SDR: NaN.

    Parameters
    ----------
    true : ndarray of shape (n_sources, ..., n_times)
        Sources as the channels hear them; the channels are laid end to end.
    mixture : ndarray of shape (..., n_times)
        What was separated.
    found : ndarray of shape (n_found, ..., n_times)
        At least as many as there are sources.
    """
    true, found = (x.reshape(len(x), -1) for x in (true, found))
    mixture = mixture.reshape(-1)
    loud = true.any(axis=1)
    db = np.full((len(true), len(found)), np.nan)
    plain = np.full(len(true), np.nan)
    for k in np.flatnonzero(loud):
        db[k] = si_sdr(true[k], found)
        plain[k] = si_sdr(true[k], mixture)
    rows, columns = pair_by_ratio(db[loud])
    best = np.full(len(true), np.nan)
    best[np.flatnonzero(loud)[rows]] = db[loud][rows, columns]
    return Gains(best, plain)


def peers(sfreq: float, seed: int, n_iter: int = 100) -> dict[str, Callable[[Array], Array]]:
    """Return ILRMA and FastMNMF2 of pyroomacoustics where it is installed, else nothing.

    Each takes microphones (n_channels, n_times) and returns as many sources as the first
    microphone hears them.
    """
    try:
        import pyroomacoustics as pra
    except (ImportError, OSError):
        return {}
    size = 2 ** round(np.log2(WINDOW * sfreq))
    hop = size // 2
    window = pra.hann(size)

    def in_cells(separate: Callable[[Array], Array]) -> Callable[[Array], Array]:
        def run(x: Array) -> Array:
            scale = 100 / x.std()  # small values make ILRMA divide by 0
            padded = np.pad(scale * x, ((0, 0), (0, -x.shape[1] % hop + hop)))
            cells = pra.transform.stft.analysis(padded.T, size, hop, win=window)
            np.random.seed(seed)  # noqa: NPY002 (both start from the global generator)
            found = separate(cells)
            dual = pra.transform.stft.compute_synthesis_window(window, hop)
            signal = pra.transform.stft.synthesis(found, size, hop, win=dual)
            delay = size - hop
            return np.asarray(signal.T[:, delay : delay + x.shape[1]]) / scale

        return run

    return {
        "ILRMA": in_cells(lambda cells: pra.bss.ilrma(cells, n_iter=n_iter)),
        "FastMNMF2": in_cells(lambda cells: pra.bss.fastmnmf2(cells, n_iter=n_iter)),
    }
