"""Shoebox rooms by the image-source method, and reverberation times measured from responses.

The responses are raw: all reflection coefficients are positive, so the late tail gathers
energy below about 50 Hz that no real room has. Allen & Berkley filter it away; here
`simulate.room` does, and `reverberation_time` looks above it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sourcesep.checks import one_of, whole
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.simulate._checks import positive

__all__ = ["absorption", "impulse_responses", "reverberation_time"]

SPEED_OF_SOUND = 343.0
"""In metres a second."""

HALF_WIDTH = 40
"""Samples on either side of the windowed sinc that delays an image by a fraction."""

MOST_IMAGES = 2e7
"""Beyond this many image sources memory and patience end."""

CHUNK = 32768
"""Images at a time, so that memory stays bounded."""


def absorption(
    size: Sequence[float], rt60: float, formula: Literal["shoebox", "eyring", "sabine"] = "shoebox"
) -> float:
    """Return the walls' energy absorption that gives a shoebox its reverberation time.

    Parameters
    ----------
    size : sequence of 3 floats
        Length, width and height in metres.
    rt60 : float
        Seconds in which the energy falls by 60 dB, at the rate from -5 to -35 dB.
    formula : {"shoebox", "eyring", "sabine"}
        ``"shoebox"``: what image sources give, where sound along the longest axis meets
        the fewest walls and outlives the rest (after Lehmann & Johansson). The others
        assume a diffuse field: by Eyring's, ``1 - exp(-k V / (S rt60))``, image sources
        last a quarter to a third longer than asked; Sabine's is ``k V / (S rt60)``;
        ``k = 24 ln 10 / c``.

    Returns
    -------
    float
        Between 0 (hard) and 1 (open).

    Raises
    ------
    SettingsError
        If by this formula no wall can absorb enough.

    References
    ----------
    Lehmann & Johansson (2008), Prediction of energy decay in room impulse responses
    simulated with an image-source model.
    """
    one_of(("shoebox", "eyring", "sabine"), formula=formula)
    room = _room(size)
    positive(rt60=rt60)
    if formula == "shoebox":
        return float(-np.expm1(-_wall_loss_for_60_db(room) / (SPEED_OF_SOUND * rt60)))
    volume = room.prod()
    surface = 2 * volume * (1 / room).sum()
    ratio = 24 * np.log(10) / SPEED_OF_SOUND * volume / (surface * rt60)
    if formula == "eyring":
        return float(-np.expm1(-ratio))
    if ratio > 1:
        raise SettingsError(
            f"rt60={rt60}: Sabine's formula has no absorption for it in a room of this size; "
            f"ask for {ratio * rt60:.2g} s or more, or use formula='eyring'"
        )
    return float(ratio)


def impulse_responses(
    size: Sequence[float],
    sources: ArrayLike,
    microphones: ArrayLike,
    *,
    rt60: float | None = None,
    wall_absorption: float | None = None,
    sfreq: float = 16000.0,
    n_taps: int | None = None,
) -> NDArray[np.float64]:
    """Simulate how each source sounds at each microphone of a shoebox room.

    Image sources with one absorption for all walls; an image at distance r adds an
    impulse of amplitude ``reflection**bounces / (4 pi r)`` after ``r / c`` seconds,
    between the samples by a Hann-windowed sinc (81 taps).

    Parameters
    ----------
    size : sequence of 3 floats
        Length, width and height in metres, a corner at the origin.
    sources : array-like of shape (n_sources, 3)
        Positions in metres.
    microphones : array-like of shape (n_mics, 3)
        Positions in metres.
    rt60 : float or None
        Reverberation time, turned into an absorption by `absorption`.
    wall_absorption : float or None
        Or the energy absorption itself, above 0 and up to 1 (no reflections at all).
    sfreq : float
        Samples a second.
    n_taps : int or None
        Length of the responses; None for the direct path and `rt60` after it.

    Returns
    -------
    ndarray of shape (n_mics, n_sources, n_taps)
        Impulse responses.

    Raises
    ------
    SettingsError
        If not exactly one of `rt60` and `wall_absorption` is given, or it cannot be, or
        the reverberation is too long for the room.
    InputError
        If a position is outside the room, or a source is at a microphone.

    References
    ----------
    Allen & Berkley (1979), Image method for efficiently simulating small-room acoustics.
    """
    room = _room(size)
    positive(sfreq=sfreq)
    if rt60 is not None and wall_absorption is None:
        alpha = absorption(size, rt60)
    elif wall_absorption is not None and rt60 is None:
        alpha = wall_absorption
    else:
        raise SettingsError(
            f"rt60={rt60}, wall_absorption={wall_absorption}: give exactly one of them"
        )
    positive(wall_absorption=alpha)
    if alpha > 1:
        raise SettingsError(f"wall_absorption={alpha}: must be 1 at most")
    talkers = _positions("sources", sources, room)
    ears = _positions("microphones", microphones, room)
    nearest = np.linalg.norm(talkers[None] - ears[:, None], axis=-1)
    if (nearest < 0.01).any():
        raise InputError("a source is within 1 cm of a microphone: move them apart")
    if n_taps is None:
        if rt60 is None:
            raise SettingsError("n_taps=None: must be given together with wall_absorption")
        n_taps = int(np.ceil((nearest.max() / SPEED_OF_SOUND + rt60) * sfreq)) + HALF_WIDTH
    whole(1, n_taps=n_taps)
    reach = n_taps * SPEED_OF_SOUND / sfreq
    if (2 * reach) ** 3 / room.prod() > MOST_IMAGES:
        raise SettingsError(
            f"{n_taps / sfreq:.2g} s of reverberation in a room of {room.prod():.3g} m3 take more "
            f"than {MOST_IMAGES:.0e} images: ask for a shorter rt60 or n_taps, or a larger room"
        )
    reflection = np.sqrt(1 - alpha)
    return np.stack(
        [
            np.stack([_response(room, s, m, reflection, sfreq, n_taps) for s in talkers])
            for m in ears
        ]
    )


def reverberation_time(response: ArrayLike, sfreq: float, *, high_pass: float = 125.0) -> float:
    """Measure the reverberation time of an impulse response.

    Twice the time in which Schroeder's backward-integrated energy falls from -5 to
    -35 dB, along its least-squares line (T30 of ISO 3382).

    Parameters
    ----------
    response : array-like of shape (n_taps,)
        Impulse response.
    sfreq : float
        Samples a second.
    high_pass : float
        Hz below which energy does not count; 0 for none.

    Returns
    -------
    float
        Seconds per 60 dB.

    Raises
    ------
    InputError
        If the response is too short to fall by 35 dB.

    References
    ----------
    Schroeder (1965), New method of measuring reverberation time.
    """
    positive(sfreq=sfreq)
    h = np.asarray(response, dtype=np.float64)
    if high_pass > 0:
        from scipy.signal import butter, sosfilt

        h = np.asarray(sosfilt(butter(2, high_pass, "high", fs=sfreq, output="sos"), h))
    left = np.cumsum(h[::-1] ** 2)[::-1]
    if not left.size or not left[0] > 0:
        raise InputError("response: is empty or silent, so it has no reverberation time")
    level = 10 * np.log10(np.maximum(left / left[0], 1e-30))
    falling = np.flatnonzero((level <= -5) & (level >= -35))
    if falling.size < 10 or level[-1] > -35:
        raise InputError(
            f"response: {h.size} samples are too short for its energy to fall from -5 to -35 dB; "
            "simulate or record more of the tail"
        )
    slope = np.polyfit(falling / sfreq, level[falling], 1)[0]
    return float(-60 / slope)


def _wall_loss_for_60_db(room: NDArray[np.float64]) -> float:
    """Return -ln(1 - absorption) times the path in metres that costs a shoebox 60 dB.

    Sound in direction n meets ``sum |n_i| / size_i`` walls a metre, for ever in that
    direction or its mirror image, and directions are equally loud at the start.
    """
    n = 4000
    z = (np.arange(n) + 0.5) / n
    azimuth = np.arange(n) * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - z**2)
    directions = np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), z])
    walls = np.abs(directions).T @ (1 / room)
    loss = np.linspace(0, 60 / walls.mean(), 600)
    left = (np.exp(-loss[:, None] * walls) / walls).mean(1)
    level = 10 * np.log10(left / left[0])
    falling = (level <= -5) & (level >= -35)
    return float(-60 / np.polyfit(loss[falling], level[falling], 1)[0])


def _response(
    room: NDArray[np.float64],
    source: NDArray[np.float64],
    microphone: NDArray[np.float64],
    reflection: float,
    sfreq: float,
    n_taps: int,
) -> NDArray[np.float64]:
    """Sum the images of one source at one microphone."""
    whole(1, n_taps=n_taps)
    reach = n_taps * SPEED_OF_SOUND / sfreq
    distance2 = np.zeros((1, 1, 1))
    bounces = np.zeros((1, 1, 1), dtype=np.int64)
    for axis in range(3):
        cells = np.arange(-int(reach // (2 * room[axis])) - 1, int(reach // (2 * room[axis])) + 2)
        shape = [1, 1, 1]
        shape[axis] = -1
        # Images of a wall pair: at 2 n L + s after |2n| bounces, at 2 n L - s after |2n - 1|.
        offset = np.concatenate(
            [2 * cells * room[axis] + s for s in (source[axis], -source[axis])]
        )
        count = np.concatenate([np.abs(2 * cells), np.abs(2 * cells - 1)])
        distance2 = distance2 + ((offset - microphone[axis]) ** 2).reshape(shape)
        bounces = bounces + count.reshape(shape)
    audible = distance2 < reach**2
    distance = np.sqrt(distance2[audible])
    amplitude = reflection ** bounces[audible] / (4 * np.pi * distance)
    heard = amplitude > 0
    return _delayed_impulses(distance[heard] * sfreq / SPEED_OF_SOUND, amplitude[heard], n_taps)


def _delayed_impulses(
    delays: NDArray[np.float64], amplitudes: NDArray[np.float64], n_taps: int
) -> NDArray[np.float64]:
    """Sum impulses at fractional `delays` (in samples), band-limited by a windowed sinc."""
    total = np.zeros(n_taps + 2 * HALF_WIDTH + 1)
    for start in range(0, delays.size, CHUNK):
        delay = delays[start : start + CHUNK]
        nearest = np.rint(delay).astype(np.int64)
        fraction = delay - nearest
        fraction[np.abs(fraction) < 1e-12] = 1e-12
        # sin(pi t) of all taps is one sine an image, and so is the window, by addition.
        sine = -np.sin(np.pi * fraction) / np.pi * amplitudes[start : start + CHUNK] / 2
        angle = np.pi * fraction / (HALF_WIDTH + 1)
        cosine_part, sine_part = np.cos(angle), np.sin(angle)
        for tap in range(-HALF_WIDTH, HALF_WIDTH + 1):
            place = np.pi * tap / (HALF_WIDTH + 1)
            values = np.cos(place) * cosine_part + np.sin(place) * sine_part
            values += 1
            values *= sine
            values /= tap - fraction
            heard = np.bincount(nearest + (tap + HALF_WIDTH), values, total.size)
            total += -heard if tap % 2 else heard
    return total[HALF_WIDTH : HALF_WIDTH + n_taps]


def _room(size: Sequence[float]) -> NDArray[np.float64]:
    room = np.asarray(size, dtype=np.float64)
    if room.shape != (3,) or not (np.isfinite(room).all() and (room > 0).all()):
        raise SettingsError(f"size={size}: must be length, width and height, each above 0 m")
    return room


def _positions(name: str, values: ArrayLike, room: NDArray[np.float64]) -> NDArray[np.float64]:
    positions = np.asarray(values, dtype=np.float64)
    if positions.ndim != 2 or positions.shape[1] != 3:
        raise InputError(f"{name}.shape={positions.shape}: must be (n, 3), metres")
    if not ((positions > 0) & (positions < room)).all():
        raise InputError(f"{name}: a position is outside the room of size {room.tolist()} m")
    return positions
