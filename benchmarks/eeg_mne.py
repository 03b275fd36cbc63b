"""EEG that sourcesep's own simulator has no part in: MNE's head, other sources, MNE's Picard.

    python benchmarks/eeg_mne.py [--seeds N]

Dipoles in MNE's sphere of four shells under the electrodes of its standard caps; rhythms of any
frequency from 4 to 30 Hz over 1/f background, which wax and wane by a random walk between knots of
1.5 s; blinks, heartbeats and bursts of a muscle; and noise that differs from electrode to
electrode. Seeds start at 300; 0 and 1 were looked at before.
"""

from __future__ import annotations

import argparse

import mne
import numpy as np
from eeg import FIRST_SEED, compare
from scipy.signal import butter, lfilter, sosfiltfilt

from sourcesep.simulate import EEGSimulation

CLASSIC = ("Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "T7", "C3", "Cz", "C4", "T8", "P7", "P3")
CLASSIC += ("Pz", "P4", "P8", "O1", "O2")
CAPS = {19: "standard_1020", 32: "biosemi32", 64: "biosemi64"}
SETTINGS = ((19, 12, 200.0, 240.0), (32, 25, 250.0, 180.0), (32, 40, 500.0, 120.0))
SETTINGS += ((32, 20, 100.0, 180.0), (64, 40, 250.0, 240.0))
"""Channels, sources of the brain, samples a second, seconds."""


def band(x: np.ndarray, low: float, high: float, sfreq: float) -> np.ndarray:
    """Return x within a band, of unit variance."""
    y = sosfiltfilt(butter(2, [low, high], "band", fs=sfreq, output="sos"), x)
    return y / y.std()


def pulses(at: np.ndarray, width: float, times: np.ndarray) -> np.ndarray:
    """Return bells of height 1 at some times, `width` s wide."""
    return np.exp(-0.5 * ((times - at[:, None]) / width) ** 2).sum(axis=0)


def head(n_channels: int, n_brain: int, sfreq: float, seconds: float, seed: int) -> EEGSimulation:
    """Simulate one head."""
    rng = np.random.default_rng(seed)
    montage = mne.channels.make_standard_montage(CAPS[n_channels])
    names = CLASSIC if n_channels == len(CLASSIC) else tuple(montage.ch_names)
    info = mne.create_info(list(names), sfreq, "eeg").set_montage(montage)
    sphere = mne.make_sphere_model("auto", "auto", info, verbose="error")
    grid = mne.setup_volume_source_space(pos=12.0, sphere=sphere, exclude=20.0, verbose="error")
    forward = mne.make_forward_solution(info, None, grid, sphere, meg=False, verbose="error")
    fields = forward["sol"]["data"].reshape(n_channels, -1, 3)
    places = np.array([montage.get_positions()["ch_pos"][name] for name in names])
    n_times = int(seconds * sfreq)
    times, knots = np.arange(n_times) / sfreq, np.linspace(0, seconds, int(seconds / 1.5))
    maps, sources = [], []
    for _ in range(n_brain):
        field = fields[:, rng.integers(fields.shape[1])] @ rng.standard_normal(3)
        size = 4e-6 * np.exp(0.5 * rng.standard_normal())
        maps.append(size * field / np.sqrt(np.square(field).mean()))
        centre = rng.uniform(4, 30)
        pink = lfilter([1], [1, -0.98], rng.standard_normal(n_times))
        rhythm = band(rng.standard_normal(n_times), 0.85 * centre, 1.15 * centre, sfreq)
        level = np.interp(times, knots, 0.8 * rng.standard_normal(len(knots)))
        course = (0.4 * pink / pink.std() + rhythm) * np.exp(level)
        sources.append(course / course.std())
    front = places[:, 1] - places[:, 1].max()
    maps.append(120e-6 * np.exp(4 * front / np.ptp(front)))
    sources.append(pulses(rng.uniform(1, seconds - 1, int(seconds / 4)), 0.07, times))
    beats = np.cumsum(rng.normal(0.85, 0.05, int(seconds / 0.85)))
    maps.append(8e-6 * places @ rng.standard_normal(3) / np.abs(places).max())
    sources.append(pulses(beats, 0.012, times) - 0.3 * pulses(beats + 0.25, 0.05, times))
    from_muscle = np.linalg.norm(places - places[rng.integers(n_channels)], axis=1)
    maps.append(10e-6 * np.exp(-np.square(from_muscle / 0.03)))
    tense = pulses(rng.uniform(0, seconds, int(seconds / 3)), 0.3, times) + 0.02
    muscle = tense * band(rng.standard_normal(n_times), 20, min(90, 0.45 * sfreq), sfreq)
    sources.append(muscle / muscle.std())
    mixing, courses = np.array(maps).T, np.array(sources)
    noise = 0.7e-6 * rng.uniform(0.6, 1.6, (n_channels, 1))
    data = mixing @ courses + noise * rng.standard_normal((n_channels, n_times))
    kinds = (*(f"brain{k:02}" for k in range(n_brain)), "blink", "heart", "muscle")
    return EEGSimulation(data, courses, mixing, names, kinds, sfreq, places)


def main() -> None:
    """Print a table for each setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    for n_channels, n_brain, sfreq, seconds in SETTINGS:
        heads = [
            head(n_channels, n_brain, sfreq, seconds, FIRST_SEED + k) for k in range(options.seeds)
        ]
        title = f"{n_brain} sources and 3 artefacts, {n_channels} channels, {sfreq:g} Hz"
        compare(f"{title}, {seconds:g} s", ("default", "bands", "picard"), heads)


if __name__ == "__main__":
    main()
