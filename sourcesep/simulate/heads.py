"""EEG-like signals: dipoles in a spherical head, with the artefacts of real recordings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sourcesep.checks import whole
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.simulate._checks import RandomState, at_least, generator, n_samples, positive

__all__ = ["EEGSimulation", "dipole_potentials", "eeg"]

HEAD_RADIUS = 0.09
"""In metres."""

CONDUCTIVITY = 0.33
"""Of brain and scalp, in siemens a metre."""

SHRINKING = 0.6
"""Depth factor by which a dipole in one sphere stands for one under a skull (Ary 1981)."""

_LEFT_AND_MIDLINE = {
    "Fp1": (-18, 92), "F3": (-39, 60), "F7": (-54, 92), "Fz": (0, 46), "C3": (-90, 46),
    "T7": (-90, 92), "Cz": (0, 0), "P3": (-141, 60), "P7": (-126, 92), "Pz": (180, 46),
    "O1": (-162, 92), "FC5": (-69, 71), "FC1": (-44, 31), "CP5": (-111, 71),
    "CP1": (-136, 31), "AF3": (-23, 74), "PO3": (-157, 74), "Oz": (180, 92),
}  # fmt: skip
"""10-20 names: degrees from the nose to the right, and from the vertex down."""

ARTEFACTS = ("blink", "muscle", "line", "heart")
"""Drawn after the brain's sources, in this order, as far as asked for."""


@dataclass(frozen=True)
class EEGSimulation:
    """Simulated EEG and the truth about it.

    Parameters
    ----------
    data : ndarray of shape (n_channels, n_times)
        ``mixing @ sources`` and sensor noise, in volts.
    sources : ndarray of shape (n_sources, n_times)
        Time courses, zero mean and unit power.
    mixing : ndarray of shape (n_channels, n_sources)
        Maps in volts, zero mean over the channels (average reference).
    names : tuple of str
        Channels: 10-20 names up to 32 channels, else ``E001`` and so on.
    source_names : tuple of str
        ``"alpha00"``, ``"beta01"``, ``"background02"``; then ``"blink"``, ``"muscle"``,
        ``"line"``, ``"heart"``.
    sfreq : float
        Samples a second.
    positions : ndarray of shape (n_channels, 3)
        Electrodes in metres: x to the right ear, y to the nose, z up.
    """

    data: NDArray[np.float64]
    sources: NDArray[np.float64]
    mixing: NDArray[np.float64]
    names: tuple[str, ...]
    source_names: tuple[str, ...]
    sfreq: float
    positions: NDArray[np.float64]


def eeg(
    n_sources: int = 20,
    seconds: float = 60.0,
    sfreq: float = 250.0,
    *,
    n_channels: int = 32,
    n_artefacts: int = 4,
    line_frequency: float = 50.0,
    noise: float = 1e-6,
    random_state: RandomState = 0,
) -> EEGSimulation:
    """Simulate EEG: brain sources and artefacts through a spherical head.

    A third of the brain's sources have bursts of alpha (8-12 Hz), a third of beta (15-25
    Hz), each over 1/f background that waxes and wanes over seconds, which the last third
    has alone. Each is a dipole of random direction in the cortex. Artefacts: blinks from
    above the eyes (about 15 a minute, 100 uV at the forehead), bursts of a temporal
    muscle, power line, and heartbeat.

    Parameters
    ----------
    n_sources : int
        All sources, artefacts included.
    seconds, sfreq : float
        Duration, and samples a second.
    n_channels : int
        Electrodes, 4 or more.
    n_artefacts : int
        From 0 to 4: so many of blink, muscle, line and heart.
    line_frequency : float
        In Hz, below half of `sfreq`.
    noise : float
        Standard deviation of each channel's own white noise, in volts.
    random_state : int or numpy.random.Generator
        Seed.

    Returns
    -------
    EEGSimulation
        Data, sources, mixing and names.

    Raises
    ------
    SettingsError
        If counts or rates cannot be.
    """
    n_times = n_samples(seconds, sfreq)
    whole(1, n_sources=n_sources)
    whole(4, n_channels=n_channels)
    whole(0, n_artefacts=n_artefacts)
    if n_artefacts > min(len(ARTEFACTS), n_sources):
        raise SettingsError(
            f"n_artefacts={n_artefacts}: must be {len(ARTEFACTS)} at most, and n_sources at most"
        )
    at_least(0, noise=noise)
    positive(line_frequency=line_frequency)
    if sfreq <= 60 or line_frequency >= sfreq / 2:
        raise SettingsError(
            f"sfreq={sfreq}, line_frequency={line_frequency}: EEG needs a rate above 60 Hz, and "
            "line noise below half of it"
        )
    rng = generator(random_state)
    names, positions = _electrodes(n_channels)
    n_brain = n_sources - n_artefacts
    rows, maps, source_names = [], [], []
    places = _cortex(n_brain, rng)
    for k in range(n_brain):
        rhythm = ("alpha", "beta", "background")[k % 3]
        rows.append(_brain_source(rhythm, n_times, sfreq, rng))
        moment = rng.standard_normal(3)
        field = dipole_potentials(positions, places[k : k + 1], moment[None])[:, 0]
        maps.append(_volts(field, rng.uniform(6e-6, 14e-6)))
        source_names.append(f"{rhythm}{k:02d}")
    for kind in ARTEFACTS[:n_artefacts]:
        row, volts = _artefact(kind, positions, n_times, sfreq, line_frequency, rng)
        rows.append(row)
        maps.append(volts)
        source_names.append(kind)
    sources = np.stack(rows)
    sources -= sources.mean(1, keepdims=True)
    power = sources.std(1, keepdims=True)
    sources /= np.where(power > 0, power, 1.0)
    mixing = np.stack(maps, axis=1)
    data = mixing @ sources + noise * rng.standard_normal((n_channels, n_times))
    return EEGSimulation(
        data, sources, mixing, names, tuple(source_names), float(sfreq), positions
    )


def dipole_potentials(
    electrodes: ArrayLike, positions: ArrayLike, moments: ArrayLike
) -> NDArray[np.float64]:
    """Return the potentials of current dipoles in a homogeneous conducting sphere.

    The gradient, in the source's position, of the Neumann function of the sphere whose
    surface the electrodes lie on.

    Parameters
    ----------
    electrodes : array-like of shape (n_channels, 3)
        Points on a sphere about the origin, in metres.
    positions, moments : array-like of shape (n_dipoles, 3)
        Dipoles inside it: metres, and ampere metres.

    Returns
    -------
    ndarray of shape (n_channels, n_dipoles)
        Volts, for a conductivity of 0.33 S/m.

    Raises
    ------
    InputError
        If the electrodes are not on one sphere or a dipole is not inside it.

    References
    ----------
    Brody, Terry & Ideker (1973), Eccentric dipole in a spherical medium: generalized
    expression for surface potentials.
    """
    r = np.asarray(electrodes, dtype=np.float64)[:, None]
    r0 = np.asarray(positions, dtype=np.float64)[None]
    radius = float(np.linalg.norm(r[0, 0]))
    if not np.allclose(np.linalg.norm(r, axis=-1), radius):
        raise InputError("electrodes: must lie on one sphere about the origin")
    if not (np.linalg.norm(r0, axis=-1) < radius).all():
        raise InputError("positions: every dipole must be inside the electrodes' sphere")
    away = r - r0
    d = np.linalg.norm(away, axis=-1, keepdims=True)
    depth = radius * (radius**2 - (r * r0).sum(-1, keepdims=True) + radius * d)
    lead = 2 * away / d**3 + (r + radius * away / d) / depth
    field = (lead * np.asarray(moments, dtype=np.float64)[None]).sum(-1)
    return np.asarray(field / (4 * np.pi * CONDUCTIVITY))


def _electrodes(n_channels: int) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Return names and positions of `n_channels` electrodes."""
    sites: dict[str, tuple[float, float]] = {}
    for name, (degrees, down) in _LEFT_AND_MIDLINE.items():
        sites[name] = (degrees, down)
        if not name.endswith("z"):
            sites[f"{name[:-1]}{int(name[-1]) + 1}"] = (-degrees, down)
    if n_channels <= len(sites):
        names = tuple(sites)[:n_channels]
        azimuth, inclination = np.deg2rad([sites[n] for n in names]).T
    else:
        names = tuple(f"E{k + 1:03d}" for k in range(n_channels))
        inclination = np.arccos(np.linspace(1, np.cos(np.deg2rad(105)), n_channels))
        azimuth = np.arange(n_channels) * np.pi * (3 - np.sqrt(5))
    ring = np.sin(inclination)
    unit = np.stack([ring * np.sin(azimuth), ring * np.cos(azimuth), np.cos(inclination)], axis=1)
    return names, HEAD_RADIUS * unit


def _cortex(n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw places in the upper cortex, each the most distant of a few from those before."""
    chosen = np.zeros((0, 3))
    for _ in range(n):
        direction = rng.standard_normal((5, 3))
        direction[:, 2] = np.abs(direction[:, 2]) - 0.2
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        candidates = SHRINKING * HEAD_RADIUS * rng.uniform(0.7, 0.9, (5, 1)) * direction
        gaps = np.linalg.norm(candidates[:, None] - chosen, axis=-1).min(1, initial=np.inf)
        chosen = np.vstack([chosen, candidates[gaps.argmax()]])
    return chosen


def _volts(field: NDArray[np.float64], level: float) -> NDArray[np.float64]:
    """Reference a map to its average and scale it to `level` volts at its strongest."""
    field = field - field.mean()
    return np.asarray(level * field / np.abs(field).max())


def _band_noise(
    n_times: int, sfreq: float, low: float, high: float, slope: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw Gaussian noise of unit power, its amplitude f**slope between two frequencies."""
    f = np.fft.rfftfreq(n_times, 1 / sfreq)
    inside = (f >= low) & (f <= high)
    if not inside.any():
        return np.zeros(n_times)
    gain = np.zeros_like(f)
    gain[inside] = f[inside] ** slope
    noise = np.fft.irfft(gain * np.fft.rfft(rng.standard_normal(n_times)), n_times)
    return np.asarray(noise / (noise.std() or 1.0))


def _pulses(
    n_times: int, sfreq: float, rate: float, seconds: tuple[float, float], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw raised-cosine pulses, `rate` a second on average, and at least one."""
    envelope = np.zeros(n_times)
    count = max(1, int(rng.poisson(rate * n_times / sfreq)))
    for start in rng.uniform(0, n_times, count).astype(np.int64):
        pulse = np.hanning(max(5, round(rng.uniform(*seconds) * sfreq)))
        room = envelope[start : start + pulse.size]
        room += rng.uniform(0.6, 1.0) * pulse[: room.size]
    return envelope


def _brain_source(
    rhythm: str, n_times: int, sfreq: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    background = _band_noise(n_times, sfreq, 0.5, sfreq / 2, -0.5, rng)
    background *= np.exp(0.5 * _band_noise(n_times, sfreq, 0.02, 0.3, 0.0, rng))
    if rhythm == "background":
        return background
    low, high = (8.0, 12.0) if rhythm == "alpha" else (15.0, 25.0)
    low += rng.uniform(0, (high - low) / 2)
    tone = _band_noise(n_times, sfreq, low, low + (high - low) / 2, 0.0, rng)
    bursts = _pulses(n_times, sfreq, 0.3, (0.5, 2.5), rng)
    return np.asarray(background + (2.5 if rhythm == "alpha" else 2.0) * bursts * tone)


def _artefact(
    kind: str,
    electrodes: NDArray[np.float64],
    n_times: int,
    sfreq: float,
    line_frequency: float,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return an artefact's time course and its map in volts."""
    if kind == "blink":
        row = _pulses(n_times, sfreq, 0.25, (0.25, 0.4), rng)
        field = dipole_potentials(
            electrodes, HEAD_RADIUS * np.array([[0, 0.8, -0.25]]), np.array([[0, 0.8, 0.6]])
        )[:, 0]
        return row, _volts(field, 100e-6 / _crest(row))
    if kind == "muscle":
        tension = 0.1 + _pulses(n_times, sfreq, 0.15, (0.5, 3.0), rng)
        row = tension * _band_noise(n_times, sfreq, 20.0, sfreq / 2, 0.0, rng)
        side = rng.choice([-1.0, 1.0])
        place = np.array([[0.87 * side, rng.uniform(-0.1, 0.3), 0.05]])
        return row, _volts(dipole_potentials(electrodes, HEAD_RADIUS * place, place)[:, 0], 15e-6)
    t = np.arange(n_times) / sfreq
    if kind == "line":
        load = 1 + 0.3 * _band_noise(n_times, sfreq, 0.02, 0.2, 0.0, rng)
        row = load * np.sin(2 * np.pi * line_frequency * t + rng.uniform(0, 2 * np.pi))
        return row, _volts(rng.standard_normal(len(electrodes)), 5e-6)
    interval = 0.9 + 0.05 * rng.standard_normal(int(n_times / sfreq / 0.5) + 2)
    beats = np.cumsum(np.maximum(interval, 0.5)) - rng.uniform(0, 0.8)
    row = np.zeros(n_times)
    for beat in beats[beats < t[-1]]:
        near = np.abs(t - beat) < 0.3
        lag = t[near] - beat
        row[near] += np.exp(-((lag / 0.012) ** 2)) - 0.25 * np.exp(-(((lag - 0.03) / 0.012) ** 2))
        row[near] += 0.2 * np.exp(-(((lag - 0.25) / 0.04) ** 2))
    # The heart is far below: its field on the head is a slope, down and to the left.
    return row, _volts(electrodes @ np.array([-0.6, 0.2, -1.0]), 15e-6 / _crest(row))


def _crest(row: NDArray[np.float64]) -> float:
    """Return the largest deviation from the mean, in standard deviations."""
    return float(np.abs(row - row.mean()).max() / (row.std() or 1.0)) or 1.0
