"""Instrument-like signals: chords that hold, single notes, plucked bass, and drums."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sourcesep.checks import one_of
from sourcesep.simulate._checks import RandomState, generator, n_samples

__all__ = ["InstrumentKind", "instrument"]

InstrumentKind = Literal["pad", "melody", "bass", "drums"]

SCALE = (0, 2, 3, 5, 7, 8, 10)
"""Semitones of the natural minor scale."""

CHORDS = (0, 5, 3, 4)
"""Scale steps the pad's chords start on, in turn."""


def instrument(
    seconds: float,
    sfreq: float = 16000.0,
    *,
    kind: InstrumentKind = "melody",
    random_state: RandomState = 0,
) -> NDArray[np.float64]:
    """Simulate an instrument playing on its own, in a key and tempo drawn from the seed.

    Parameters
    ----------
    seconds : float
        Duration.
    sfreq : float
        Samples a second.
    kind : {"pad", "melody", "bass", "drums"}
        ``"pad"``: chords of slowly beating harmonics that swell and hold;
        ``"melody"``: one decaying note after another, with vibrato and rests;
        ``"bass"``: plucked notes from 40 to 120 Hz; ``"drums"``: kick, snare and hi-hat.
    random_state : int or numpy.random.Generator
        Seed.

    Returns
    -------
    ndarray of shape (n_times,)
        Zero mean and unit power.
    """
    one_of(tuple(PLAYERS), kind=kind)
    n_times = n_samples(seconds, sfreq)
    rng = generator(random_state)
    beat = 60 / rng.uniform(84, 132)
    sound = np.zeros(n_times)
    PLAYERS[kind](sound, sfreq, beat, rng)
    sound -= sound.mean()
    return np.asarray(sound / (sound.std() or 1.0))


def _hertz(step: int, lowest: float) -> float:
    """Return the frequency of a scale step above `lowest`."""
    octave, degree = divmod(step, len(SCALE))
    return float(lowest * 2 ** (octave + SCALE[degree] / 12))


def _add(sound: NDArray[np.float64], start: float, note: NDArray[np.float64]) -> None:
    """Add `note` into `sound` from sample `start` on, cut at the end."""
    first = round(start)
    room = sound[first : first + note.size]
    room += note[: room.size]


def _tone(
    n_times: int, f0: NDArray[np.float64] | float, sfreq: float, levels: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum harmonics of `f0` with these levels, those above 90 % of Nyquist left out."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(f0, n_times)) / sfreq
    audible = int(0.45 * sfreq / np.max(f0))
    tone = np.zeros(n_times)
    for harmonic, level in enumerate(levels[:audible], start=1):
        tone += level * np.sin(harmonic * phase)
    return tone


def _pad(sound: NDArray[np.float64], sfreq: float, beat: float, rng: np.random.Generator) -> None:
    lowest = rng.uniform(98, 196)
    hold, swell = 4 * beat, 0.4
    n_note = round((hold + swell) * sfreq)
    t = np.arange(n_note) / sfreq
    envelope = np.minimum(1, np.minimum(t, hold + swell - t) / swell)
    levels = 1 / np.arange(1, 13) ** 1.3
    for bar in range(int(sound.size / (hold * sfreq)) + 1):
        for third in (0, 2, 4):
            f0 = _hertz(CHORDS[bar % 4] + third, lowest)
            # Two voices a few cents apart beat against each other.
            for cents in rng.normal(0, 5, 2):
                tone = _tone(n_note, f0 * 2 ** (cents / 1200), sfreq, levels)
                _add(sound, bar * hold * sfreq, envelope * tone)


def _melody(
    sound: NDArray[np.float64], sfreq: float, beat: float, rng: np.random.Generator
) -> None:
    lowest = rng.uniform(220, 440)
    levels = rng.uniform(0.3, 1, 10) / np.arange(1, 11)
    step, start = 4, 0.0
    while start < sound.size:
        length = beat * rng.choice([0.5, 0.5, 1.0, 1.5])
        if rng.random() > 0.15:
            step = int(np.clip(step + rng.integers(-3, 4), 0, 10))
            t = np.arange(round(length * sfreq)) / sfreq
            vibrato = 2 ** (0.02 * np.sin(2 * np.pi * 5.5 * t) * np.minimum(1, t / 0.2) / 2)
            envelope = np.minimum(1, t / 0.01) * np.exp(-t / 0.5)
            envelope *= np.minimum(1, (length - t) / 0.02)
            tone = _tone(t.size, _hertz(step, lowest) * vibrato, sfreq, levels)
            _add(sound, start, rng.uniform(0.6, 1) * envelope * tone)
        start += length * sfreq


def _bass(sound: NDArray[np.float64], sfreq: float, beat: float, rng: np.random.Generator) -> None:
    lowest = rng.uniform(40, 60)
    levels = 1 / np.arange(1, 9) ** 1.5
    t = np.arange(round(1.2 * beat * sfreq)) / sfreq
    envelope = np.minimum(1, t / 0.005) * np.exp(-t / 0.25)
    envelope *= np.minimum(1, (t[-1] - t) / 0.05)
    half_beats = np.arange(0, sound.size, beat * sfreq / 2)
    for count, start in enumerate(half_beats):
        if count % 2 == 0 or rng.random() < 0.35:
            f0 = _hertz(int(rng.choice([0, 0, 3, 4, 7])), lowest)
            _add(sound, start, rng.uniform(0.7, 1) * envelope * _tone(t.size, f0, sfreq, levels))


def _drums(
    sound: NDArray[np.float64], sfreq: float, beat: float, rng: np.random.Generator
) -> None:
    t = np.arange(round(0.3 * sfreq)) / sfreq
    kick_phase = 2 * np.pi * np.cumsum(50 + 110 * np.exp(-t / 0.03)) / sfreq
    kick = np.exp(-t / 0.09) * np.sin(kick_phase)
    for count, start in enumerate(np.arange(0, sound.size, beat * sfreq / 2)):
        if count % 4 == 0 or (count % 2 == 0 and rng.random() < 0.2):
            _add(sound, start, kick)
        if count % 4 == 2:
            rattle = np.exp(-t / 0.06) * rng.standard_normal(t.size)
            body = np.exp(-t / 0.05) * np.sin(2 * np.pi * 190 * t)
            _add(sound, start, 0.25 * rattle + 0.4 * body)
        hiss = np.diff(rng.standard_normal(t.size + 2), 2)
        _add(sound, start, rng.uniform(0.03, 0.07) * np.exp(-t / 0.025) * hiss)


PLAYERS = {"pad": _pad, "melody": _melody, "bass": _bass, "drums": _drums}
"""What plays each kind, into an array that is given."""
