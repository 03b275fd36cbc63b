"""What the report's players play: a listening copy within the page.

The copies are MP3: small, played everywhere, and found again exactly where a listener jumps to.
(Chromium fails to jump within FLAC that has no seek table, which libsndfile does not write, and
misses the place in Vorbis.) Whoever wants every bit has the files.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray

from sourcesep.exceptions import OutputError
from sourcesep.report.panels import data_uri

__all__ = ["MOST_CHANNELS", "Excerpt", "choose_excerpt", "listening_gain", "mp3"]

Array = NDArray[np.float64]

PLAYED_SECONDS = 600.0
"""Seconds of sound that all players together may hold: at most 24 kB each in base64."""
MOST_CHANNELS = 2
"""If there are more channels, the first two are played: loudspeakers come in pairs."""
RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
"""Rates that MP3 knows."""
STEP = 0.1
"""Seconds between the places where an excerpt may begin."""


@dataclass(frozen=True)
class Excerpt:
    """Which part of a recording is played.

    Parameters
    ----------
    start, stop : int
        Samples, the end excluded.
    is_whole : bool
        Whether it is all of the recording.
    """

    start: int
    stop: int
    is_whole: bool

    def of(self, x: Array) -> Array:
        """Return this part of a signal, shape (at most `MOST_CHANNELS`, samples)."""
        return x[:MOST_CHANNELS, self.start : self.stop].copy()


def choose_excerpt(x: Array, sfreq: float, n_players: int) -> Excerpt:
    """Choose the loudest stretch that `n_players` have room for.

    Parameters
    ----------
    x : ndarray of shape (n_channels, n_times)
        The mixture.
    sfreq : float
        Samples a second.
    n_players : int
        How many share `PLAYED_SECONDS`.
    """
    n_times = x.shape[1]
    length = max(1, int(PLAYED_SECONDS / n_players * sfreq))
    if length >= n_times:
        return Excerpt(0, n_times, True)
    total = np.concatenate([[0.0], np.cumsum(np.square(x[:MOST_CHANNELS]).sum(axis=0))])
    starts = np.arange(0, n_times - length + 1, max(1, round(STEP * sfreq)))
    start = int(starts[np.argmax(total[starts + length] - total[starts])])
    return Excerpt(start, start + length, False)


def listening_gain(peak: float) -> float:
    """Return the gain, a power of two and at most 1, that brings a peak within full scale."""
    return 1.0 if peak <= 1 else float(2.0 ** -np.ceil(np.log2(peak)))


def mp3(x: Array, sfreq: float) -> str:
    """Return a signal, (channels, samples) in [-1, 1], as a data URI of an MP3 file.

    Raises
    ------
    OutputError
        If libsndfile was built without MP3.
    """
    import soundfile
    from scipy.signal import resample_poly

    given = round(sfreq)
    rate = next((r for r in RATES if r >= given), RATES[-1])
    if rate != given:
        shared = gcd(rate, given)
        x = resample_poly(x, rate // shared, given // shared, axis=1)
    buffer = io.BytesIO()
    try:
        soundfile.write(buffer, x.T, rate, format="MP3", subtype="MPEG_LAYER_III")
    except (soundfile.SoundFileError, ValueError) as error:
        raise OutputError(
            f"report: its listening copies cannot be written as MP3 ({error}); install a "
            "libsndfile of version 1.1 or newer, or leave the report out"
        ) from error
    return data_uri("audio/mpeg", buffer.getvalue())
