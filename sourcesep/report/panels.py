"""Panels of the report: a curve or a picture in a frame with ticks, whatever the source.

Curves are SVG paths and pictures PNG data URIs; frame, ticks and colours are the page's, so
that they follow its fonts and its light or dark scheme, and stay legible on a narrow screen.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Axis",
    "Panel",
    "band",
    "binned",
    "curve",
    "data_uri",
    "linear_axis",
    "log_axis",
    "mel_axis",
    "mel_powers",
    "number",
    "picture",
    "seconds_axis",
]

Array = NDArray[np.float64]

N_COLUMNS = 720
"""Points of a curve and columns of a picture, at most: about the pixels they are shown on."""
N_BANDS = 160
"""Rows of a spectrogram."""
FRAMES_A_COLUMN = 4
"""Frames that are averaged into one column: the cost does not grow with the recording."""
COLOURS = "magma"
N_COLOURS = 48
"""Steps of a colour map: fewer than one sees, and PNG packs them well."""
CLOCK_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
"""Steps between ticks of time, in seconds."""


@dataclass(frozen=True)
class Axis:
    """An axis with its ticks.

    Parameters
    ----------
    label : str
        What is along it, with its unit.
    ticks : tuple of (float, str)
        Places in percent of its length, and what to write there.
    """

    label: str
    ticks: tuple[tuple[float, str], ...]


@dataclass(frozen=True)
class Panel:
    """A curve or a picture with its axes.

    Parameters
    ----------
    title : str
        What it shows.
    alt : str
        What one sees, for who does not.
    x : Axis or None
        Along; None where the panel below has the same.
    y : Axis
        Upwards.
    path : str
        SVG path in a box of 1000 x 100, y from above; empty for a picture.
    picture : str
        Data URI; empty for a curve.
    filled : bool
        Whether the path is an outline to fill.
    """

    title: str
    alt: str
    x: Axis | None
    y: Axis
    path: str = ""
    picture: str = ""
    filled: bool = False


def linear_axis(low: float, high: float, label: str, *, most: int = 5) -> Axis:
    """An axis from `low` to `high` with ticks at round numbers, at most `most` steps."""
    span = high - low
    magnitude = 10.0 ** math.floor(math.log10(span / most))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude * most >= span * (1 - 1e-9))
    return Axis(label, _ticks(low, high, step, lambda value: number(value, _decimals(step))))


def seconds_axis(seconds: float) -> Axis:
    """Time from 0: in seconds up to two minutes, else in minutes and seconds."""
    step = next((s for s in CLOCK_STEPS if 8 * s >= seconds), seconds / 6)
    if seconds < 8 * CLOCK_STEPS[0]:
        return linear_axis(0, seconds, "seconds", most=8)
    if seconds <= 120:
        return Axis(
            "seconds", _ticks(0, seconds, step, lambda value: number(value, _decimals(step)))
        )
    return Axis(
        "minutes : seconds",
        _ticks(0, seconds, step, lambda value: f"{int(value) // 60}:{int(value) % 60:02d}"),
    )


def mel_axis(sfreq: float) -> Axis:
    """Frequencies up to half the rate, spaced as the ear does (O'Shaughnessy's mel)."""
    top = _mel(sfreq / 2)
    marks = [f for f in (500, 1000, 2000, 5000, 10000, 20000) if f < 0.95 * sfreq / 2]
    ticks = [(100 * float(_mel(f) / top), f"{f / 1000:g}") for f in marks]
    return Axis("kHz", ((0.0, "0"), *ticks))


def log_axis(low: float, high: float, label: str) -> Axis:
    """A logarithmic axis with ticks at 1, 2 and 5 of every decade."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    marks = [m * 10.0**e for e in exponents for m in (1, 2, 5)]
    span = math.log(high / low)
    return Axis(
        label,
        tuple(
            (100 * math.log(f / low) / span, f"{f:g}")
            for f in marks
            if low * (1 - 1e-9) <= f <= high
        ),
    )


def _ticks(
    low: float, high: float, step: float, name: Callable[[float], str]
) -> tuple[tuple[float, str], ...]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    places = [i * step for i in range(first, last + 1)]
    return tuple((100 * (place - low) / (high - low), name(place)) for place in places)


def number(value: float, decimals: int) -> str:
    """Write a number with a true minus sign, and none before zeros."""
    text = f"{value:.{decimals}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "\N{MINUS SIGN}")


def _decimals(step: float) -> int:
    """How many decimals multiples of a step have."""
    return max(0, -math.floor(math.log10(step) + 1e-9))


def binned(x: Array, n_bins: int = N_COLUMNS) -> Array:
    """Mean of the last axis in at most `n_bins` stretches of equal length."""
    n_times = x.shape[-1]
    edges = np.linspace(0, n_times, min(n_bins, n_times) + 1).astype(np.int64)
    means: Array = np.add.reduceat(x, edges[:-1], axis=-1) / np.diff(edges)
    return means


def curve(values: Array, low: float, high: float, at: Array | None = None) -> str:
    """SVG path of values between `low` and `high`; gaps where they are not finite.

    Parameters
    ----------
    values : ndarray of shape (n_points,)
        What is drawn.
    low, high : float
        Values at the lower and the upper edge; what is beyond is drawn on the edge.
    at : ndarray of shape (n_points,), optional
        Places along the axis from 0 to 1; evenly spaced stretches by default.
    """
    along = (np.arange(len(values)) + 0.5) / len(values) if at is None else at
    up = 100 * (1 - np.clip((values - low) / (high - low), 0, 1))
    parts, pen = [], "M"
    for x, y in zip(1000 * along, up, strict=True):
        if np.isfinite(y):
            parts.append(f"{pen}{x:.1f} {y:.1f}")
        pen = "L" if np.isfinite(y) else "M"
    return "".join(parts)


def band(x: Array, low: float, high: float) -> str:
    """SVG outline of what lies between the least and the largest sample of each column."""
    edges = np.linspace(0, len(x), N_COLUMNS + 1).astype(np.int64)[:-1]
    top, bottom = np.maximum.reduceat(x, edges), np.minimum.reduceat(x, edges)
    along = (np.arange(N_COLUMNS) + 0.5) / N_COLUMNS
    outline = np.concatenate([top, bottom[::-1]])
    return curve(outline, low, high, np.concatenate([along, along[::-1]])) + "Z"


def mel_powers(x: Array, sfreq: float) -> Array:
    """Power of a signal in bands of equal width in mel, averaged over channels.

    Frames are taken at evenly spaced places, as many for an hour as for a second.

    Parameters
    ----------
    x : ndarray of shape (n_channels, n_times)
        The signal.
    sfreq : float
        Samples a second.

    Returns
    -------
    ndarray of shape (N_BANDS, N_COLUMNS)
        Mean power density of each band and column; lowest band first.
    """
    n_times = x.shape[1]
    size = int(np.clip(2 ** round(math.log2(0.046 * sfreq)), 64, 4096))
    n_frames = FRAMES_A_COLUMN * N_COLUMNS
    starts = ((np.arange(n_frames) + 0.5) * n_times / n_frames).astype(np.int64)
    window = np.hanning(size)
    power = np.zeros((N_COLUMNS, size // 2 + 1))
    for row in x:
        padded = np.pad(row, size // 2)  # so that a frame lies about its place
        frames = np.lib.stride_tricks.sliding_window_view(padded, size)[starts]
        spectrum = np.square(np.abs(np.fft.rfft(frames * window)))
        power += spectrum.reshape(N_COLUMNS, FRAMES_A_COLUMN, -1).mean(axis=1) / len(x)
    # A band may be narrower than a bin or hold many: differences of the running sum suit both.
    total = np.concatenate([np.zeros((N_COLUMNS, 1)), np.cumsum(power, axis=1)], axis=1)
    edges = 700 * (10 ** (np.linspace(0, _mel(sfreq / 2), N_BANDS + 1) / 2595) - 1)
    place = edges / (sfreq / 2) * power.shape[1]
    below = np.minimum(place.astype(np.int64), power.shape[1] - 1)
    sums = total[:, below] + (place - below) * power[:, below]
    bands: Array = (np.diff(sums, axis=1) / np.diff(place)).T
    return bands


def _mel(frequency: float) -> float:
    return 2595 * math.log10(1 + frequency / 700)


def picture(values: Array, low: float, high: float) -> str:
    """Data URI of a matrix as colours, its first row at the bottom; gaps are transparent."""
    import matplotlib
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    imsave(
        buffer,
        np.ma.masked_invalid(values),
        format="png",
        cmap=matplotlib.colormaps[COLOURS].resampled(N_COLOURS),
        vmin=low,
        vmax=high,
        origin="lower",
    )
    return data_uri("image/png", buffer.getvalue())


def data_uri(kind: str, content: bytes) -> str:
    """Return content as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
