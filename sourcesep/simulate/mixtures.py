"""Mixtures of given sources: instantaneous, through saturating microphones, in a room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sourcesep.checks import one_of, whole
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.recording import Recording
from sourcesep.simulate._checks import RandomState, generator, positive
from sourcesep.simulate.rooms import impulse_responses

__all__ = ["Mixture", "MixtureKind", "from_recordings", "instantaneous", "room", "saturated"]

MixtureKind = Literal["instantaneous", "saturated", "room"]

PEAK = 0.9
"""Largest sample of a mixture and of its images, so that all can be written as audio."""

LARGEST_CONDITION = 5.0
"""Bound on the condition number of random mixing matrices."""

N_MATRICES = 16
"""How many random matrices are drawn to choose from."""

LOWEST = 20.0
"""The lowest frequency, in Hz, that microphones hear. Raw image sources (`rooms`) are up to 40 dB
louder below 10 Hz than above, where they would make most of a mixture of a voice's faint noise."""

SMALLEST_ANGLE = 40.0
"""Degrees between two talkers as the microphones see them."""


@dataclass(frozen=True)
class Mixture:
    """A mixture and the truth about it.

    Parameters
    ----------
    data : ndarray of shape (n_channels, n_times)
        What the channels record, at most 0.9 in size.
    images : ndarray of shape (n_sources, n_channels, n_times)
        Each source as the channels hear it. They sum to `data`; for a saturated mixture
        to what reaches the microphones, before they saturate.
    sources : ndarray of shape (n_sources, n_times)
        The sources, as given.
    sfreq : float
        Samples a second.
    kind : {"instantaneous", "saturated", "room"}
        How they were mixed.
    mixing : ndarray of shape (n_channels, n_sources), or None
        ``images[k] = mixing[:, k, None] * sources[k]``; None in a room.
    """

    data: NDArray[np.float64]
    images: NDArray[np.float64]
    sources: NDArray[np.float64]
    sfreq: float
    kind: MixtureKind
    mixing: NDArray[np.float64] | None = None


def instantaneous(
    sources: ArrayLike,
    *,
    sfreq: float,
    n_channels: int | None = None,
    random_state: RandomState = 0,
) -> Mixture:
    """Mix sources by one random matrix, with a condition number of at most 5.

    Of 16 such matrices the one whose smallest entry is largest is taken, so that few
    channels hear a source alone.

    Parameters
    ----------
    sources : array-like of shape (n_sources, n_times)
        The sources.
    sfreq : float
        Samples a second.
    n_channels : int or None
        None for as many as sources.
    random_state : int or numpy.random.Generator
        Seed.

    Returns
    -------
    Mixture
        With ``data == mixing @ sources``.

    Raises
    ------
    InputError
        If the sources are not finite or one is silent.
    """
    signals = _sources(sources)
    rng = generator(random_state)
    n_channels = len(signals) if n_channels is None else n_channels
    whole(1, n_channels=n_channels)
    positive(sfreq=sfreq)
    matrix = _random_matrix(n_channels, len(signals), rng)
    images = matrix.T[:, :, None] * signals[:, None, :]
    gain = _gain(images)
    images *= gain
    return Mixture(images.sum(0), images, signals, float(sfreq), "instantaneous", matrix * gain)


def saturated(
    sources: ArrayLike,
    *,
    sfreq: float,
    n_channels: int | None = None,
    strength: float = 4.0,
    random_state: RandomState = 0,
) -> Mixture:
    """Mix instantaneously and record by microphones that saturate.

    Channel c records ``p tanh(strength x_c / p) / strength``, p being the peak of x_c:
    soft sounds pass as they are, the loudest are pressed down to ``tanh(strength) /
    strength`` of their size (0.25 for 4).

    Parameters
    ----------
    sources, sfreq, n_channels, random_state
        As for `instantaneous`.
    strength : float
        Each channel's peak as a multiple of the level where its microphone bends. Two
        talkers are separated by the best matrix to about 12 dB at 4 and 7 dB at 8.

    Returns
    -------
    Mixture
        Its images are those before the microphones, and sum to the mixture that
        undistorted microphones would have recorded.

    Raises
    ------
    InputError
        If the sources are not finite or one is silent.
    """
    positive(strength=strength)
    linear = instantaneous(sources, sfreq=sfreq, n_channels=n_channels, random_state=random_state)
    peak = np.abs(linear.data).max(1, keepdims=True)
    recorded = peak * np.tanh(strength * linear.data / peak) / strength
    return replace(linear, data=recorded, kind="saturated")


def room(
    sources: ArrayLike,
    *,
    sfreq: float,
    n_mics: int | None = None,
    rt60: float = 0.3,
    random_state: RandomState = 0,
) -> Mixture:
    """Record talkers in a random shoebox room by a row of microphones.

    The room is 5-8 m by 4-6 m by 2.5-3.2 m; the microphones stand in a row, 5-20 cm
    apart, before a wall; the talkers 0.8-1.8 m away on the row's open side, at least 40
    degrees apart. The sound travels from the moment it is made: images start with the
    direct path's delay, and end with the sources. What no microphone hears, below 20 Hz, is
    left out (Butterworth, second order).

    Parameters
    ----------
    sources, sfreq, random_state
        As for `instantaneous`.
    n_mics : int or None
        None for as many as sources.
    rt60 : float
        Reverberation time in seconds.

    Returns
    -------
    Mixture
        With ``data == images.sum(0)`` and no mixing matrix.

    Raises
    ------
    SettingsError
        If there is no place for so many talkers.
    InputError
        If the sources are not finite or one is silent.
    """
    from scipy.signal import butter, oaconvolve, sosfilt

    signals = _sources(sources)
    rng = generator(random_state)
    n_mics = len(signals) if n_mics is None else n_mics
    whole(1, n_mics=n_mics)
    positive(sfreq=sfreq, rt60=rt60)
    size, talkers, microphones = _scene(len(signals), n_mics, rng)
    responses = impulse_responses(size, talkers, microphones, rt60=rt60, sfreq=sfreq)
    images = oaconvolve(signals[:, None], responses.transpose(1, 0, 2), axes=-1)
    high_pass = butter(2, min(LOWEST, sfreq / 4), "high", fs=sfreq, output="sos")
    images = sosfilt(high_pass, images[..., : signals.shape[1]])
    images *= _gain(images)
    return Mixture(images.sum(0), images, signals, float(sfreq), "room")


def from_recordings(
    recordings: Sequence[Recording],
    kind: MixtureKind = "instantaneous",
    n_channels: int | None = None,
    *,
    strength: float = 4.0,
    rt60: float = 0.3,
    random_state: RandomState = 0,
) -> Mixture:
    """Mix recordings of single sources.

    Each is averaged over its channels, cut to the shortest, freed of its mean and scaled
    to unit power.

    Parameters
    ----------
    recordings : sequence of Recording
        One a source, all of one sampling rate.
    kind : {"instantaneous", "saturated", "room"}
        How to mix them.
    n_channels : int or None
        Channels (microphones) of the mixture; None for as many as recordings.
    strength, rt60
        See `saturated` and `room`.
    random_state : int or numpy.random.Generator
        Seed.

    Returns
    -------
    Mixture
        The mixture, with the sources as they were mixed.

    Raises
    ------
    InputError
        If there is none, their rates differ, or one is silent.
    """
    one_of(get_args(MixtureKind), kind=kind)
    if not recordings:
        raise InputError("recordings=(): nothing to mix; give one recording a source")
    rates = [r.sfreq for r in recordings]
    if len(set(rates)) > 1:
        raise InputError(
            f"sfreq={', '.join(f'{rate:g}' for rate in rates)}: the recordings must have one "
            "sampling rate; resample them first"
        )
    n_times = min(r.n_times for r in recordings)
    sources = np.stack([r.data[:, :n_times].mean(0) for r in recordings])
    sources -= sources.mean(1, keepdims=True)
    power = _sources(sources).std(1, keepdims=True)
    sources /= power
    if kind == "room":
        return room(
            sources, sfreq=rates[0], n_mics=n_channels, rt60=rt60, random_state=random_state
        )
    if kind == "saturated":
        return saturated(
            sources,
            sfreq=rates[0],
            n_channels=n_channels,
            strength=strength,
            random_state=random_state,
        )
    return instantaneous(sources, sfreq=rates[0], n_channels=n_channels, random_state=random_state)


def _sources(values: ArrayLike) -> NDArray[np.float64]:
    """Return a copy of the sources, checked."""
    sources = np.array(values, dtype=np.float64)
    if sources.ndim != 2 or len(sources) == 0 or sources.shape[1] < 2:
        raise InputError(
            f"sources.shape={sources.shape}: must be (n_sources, n_times), two samples or more"
        )
    if not np.isfinite(sources).all():
        raise InputError("sources have NaN or infinite samples: all must be finite")
    silent = np.flatnonzero(np.ptp(sources, axis=1) <= 1e-12 * np.abs(sources).max())
    if silent.size:
        raise InputError(
            f"source {silent[0]} is constant (silent): there is nothing to mix; leave it out"
        )
    return sources


def _gain(images: NDArray[np.float64]) -> float:
    """Return the factor that brings the images and their sum to `PEAK`."""
    return float(PEAK / max(np.abs(images).max(), np.abs(images.sum(0)).max()))


def _random_matrix(
    n_channels: int, n_sources: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw a matrix of bounded condition number and without negligible entries."""
    rank = min(n_channels, n_sources)
    drawn = []
    for _ in range(N_MATRICES):
        left, right = _orthogonal(n_channels, rng)[:, :rank], _orthogonal(n_sources, rng)[:rank]
        drawn.append((left * rng.uniform(1, LARGEST_CONDITION, rank)) @ right)
    return max(drawn, key=lambda matrix: float(np.abs(matrix).min()))


def _orthogonal(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


def _scene(
    n_talkers: int, n_mics: int, rng: np.random.Generator
) -> tuple[tuple[float, ...], NDArray[np.float64], NDArray[np.float64]]:
    """Draw a room's size and the positions in it of talkers and microphones."""
    # 10 to 170 degrees from the row: behind it, a row cannot tell front from back.
    slack = 160.0 - SMALLEST_ANGLE * (n_talkers - 1)
    if slack < 0:
        raise SettingsError(
            f"n_sources={n_talkers}: at most 5 talkers fit before the microphones, "
            f"{SMALLEST_ANGLE:g} degrees apart; mix fewer, or instantaneously"
        )
    size = tuple(rng.uniform([5.0, 4.0, 2.5], [8.0, 6.0, 3.2]).tolist())
    centre = np.array([size[0] / 2 + rng.uniform(-0.5, 0.5), *rng.uniform([0.8, 1.2], [1.2, 1.6])])
    tilt = rng.uniform(-0.15, 0.15)
    # The row must fit: spacing shrinks to 5 cm, then the row may not be longer than 3 m.
    spacing = rng.uniform(0.05, 0.2) if n_mics <= 16 else 0.05
    if (n_mics - 1) * spacing > 3:
        raise SettingsError(
            f"n_mics={n_mics}: at most 61 microphones fit in the row; ask for fewer"
        )
    along = (np.arange(n_mics) - (n_mics - 1) / 2) * spacing
    microphones = centre + along[:, None] * np.array([np.cos(tilt), np.sin(tilt), 0.0])
    angles = 10 + np.sort(rng.uniform(0, slack, n_talkers)) + SMALLEST_ANGLE * np.arange(n_talkers)
    bearing = np.deg2rad(rng.permutation(angles)) + tilt
    distance = rng.uniform(0.8, 1.8, n_talkers)
    height = rng.uniform(1.2, 1.8, n_talkers)
    talkers = np.stack(
        [
            centre[0] + distance * np.cos(bearing),
            centre[1] + distance * np.sin(bearing),
            height,
        ],
        axis=1,
    )
    return size, talkers, microphones
