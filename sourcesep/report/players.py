"""What the report's players play: a listening copy within the page."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sourcesep.report.panels import data_uri

__all__ = ["MOST_CHANNELS", "Excerpt", "choose_excerpt", "flac", "listening_gain"]

Array = NDArray[np.float64]

PLAYED_BYTES = 12 * 2**20
"""16-bit samples of all players together; as FLAC in base64 they take about two thirds."""
MOST_CHANNELS = 2
"""Of more channels the first two are played: loudspeakers come in pairs."""
RATES = (3000, 384000)
"""Lowest and highest rate that browsers play, in hertz."""
SHORTEST_STEP = 0.1
"""Seconds between the beginnings among which an excerpt is chosen."""


@dataclass(frozen=True)
class Excerpt:
    """Which part of a recording is played.

    Parameters
    ----------
    start, stop : int
        Samples, the end excluded.
    sfreq : int
        Samples a second.
    is_whole : bool
        Whether it is all of the recording.
    """

    start: int
    stop: int
    sfreq: int
    is_whole: bool

    def of(self, x: Array) -> Array:
        """Return this part of a signal, shape (at most `MOST_CHANNELS`, samples)."""
        return x[:MOST_CHANNELS, self.start : self.stop].copy()


def choose_excerpt(x: Array, sfreq: float, n_players: int) -> Excerpt | None:
    """Choose the loudest stretch that `n_players` have room for; None if no browser plays it.

    Parameters
    ----------
    x : ndarray of shape (n_channels, n_times)
        The mixture.
    sfreq : float
        Samples a second.
    n_players : int
        How many share `PLAYED_BYTES`.
    """
    if sfreq != round(sfreq) or not RATES[0] <= sfreq <= RATES[1]:
        return None
    n_channels, n_times = min(len(x), MOST_CHANNELS), x.shape[1]
    length = PLAYED_BYTES // (2 * n_channels * n_players)
    if length >= n_times:
        return Excerpt(0, n_times, round(sfreq), True)
    total = np.concatenate([[0.0], np.cumsum(np.square(x[:n_channels]).sum(axis=0))])
    starts = np.arange(0, n_times - length + 1, max(1, round(SHORTEST_STEP * sfreq)))
    start = int(starts[np.argmax(total[starts + length] - total[starts])])
    return Excerpt(start, start + length, round(sfreq), False)


def listening_gain(peak: float) -> float:
    """The gain, a power of two, that brings a peak within full scale; at most 1."""
    return 1.0 if peak <= 1 else float(2.0 ** -np.ceil(np.log2(peak)))


def flac(x: Array, sfreq: int) -> str:
    """Data URI of a signal, (channels, samples) in [-1, 1], as 16-bit FLAC."""
    import soundfile

    buffer = io.BytesIO()
    samples = np.clip(np.rint(x.T * 2.0**15), -(2**15), 2**15 - 1).astype(np.int16)
    soundfile.write(buffer, samples, sfreq, format="FLAC", subtype="PCM_16")
    return data_uri("audio/flac", buffer.getvalue())
