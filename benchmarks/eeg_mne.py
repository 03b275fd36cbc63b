"""EEG that sourcesep's own simulator has no part in: MNE's head, other sources, MNE's Picard.

    python benchmarks/eeg_mne.py [--meg] [--seeds N]

Dipoles in MNE's sphere of four shells under the electrodes of its standard caps; rhythms of any
frequency from 4 to 30 Hz over 1/f background, which wax and wane by a random walk between knots of
1.5 s; blinks, heartbeats and bursts of a muscle; and noise that differs from electrode to
electrode. Seeds start at 300; 0 and 1 were looked at before. With --meg magnetometers,
gradiometers and electrodes together, in which 400 to 402 were looked at before.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import mne
import numpy as np
from eeg import ARTEFACTS, FIRST_SEED, Picard, compare
from mne.channels.montage import read_meg_canonical_info
from scipy.signal import butter, lfilter, sosfiltfilt

from sourcesep import ComponentAnalysis, metrics
from sourcesep.simulate import EEGSimulation

CLASSIC = ("Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "T7", "C3", "Cz", "C4", "T8", "P7", "P3")
CLASSIC += ("Pz", "P4", "P8", "O1", "O2")
CAPS = {19: "standard_1020", 32: "biosemi32", 64: "biosemi64"}
SETTINGS = ((19, 12, 200.0, 240.0), (32, 25, 250.0, 180.0), (32, 40, 500.0, 120.0))
SETTINGS += ((32, 20, 100.0, 180.0), (64, 40, 250.0, 240.0))
"""Channels, sources of the brain, samples a second, seconds."""
NOISE = {"mag": 34e-15, "grad": 3.4e-12, "eeg": 0.7e-6}
"""Standard deviations of sensors' noise, at 250 Hz: 3 fT and 3 fT/cm a root Hz."""
ARTEFACT = {"mag": 1e-12, "grad": 20e-12, "eeg": 10e-6}
"""What artefacts are sized by."""


def band(x: np.ndarray, low: float, high: float, sfreq: float) -> np.ndarray:
    """Return x within a band, of unit variance."""
    y = sosfiltfilt(butter(2, [low, high], "band", fs=sfreq, output="sos"), x)
    return y / y.std()


def pulses(at: np.ndarray, width: float, times: np.ndarray) -> np.ndarray:
    """Return bells of height 1 at some times, `width` s wide."""
    return np.exp(-0.5 * ((times - at[:, None]) / width) ** 2).sum(axis=0)


def rhythm(times: np.ndarray, knots: np.ndarray, sfreq: float, rng: Any) -> np.ndarray:
    """Return what a source of the brain does, of unit variance."""
    centre = rng.uniform(4, 30)
    pink = lfilter([1], [1, -0.98], rng.standard_normal(len(times)))
    narrow = band(rng.standard_normal(len(times)), 0.85 * centre, 1.15 * centre, sfreq)
    level = np.interp(times, knots, 0.8 * rng.standard_normal(len(knots)))
    course = (0.4 * pink / pink.std() + narrow) * np.exp(level)
    return course / course.std()


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
        sources.append(rhythm(times, knots, sfreq, rng))
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


def sensors(sfreq: float) -> Any:
    """Return the header of every sixth triple of Neuromag's sensors and of 32 electrodes."""
    meg = read_meg_canonical_info("neuromag", verbose="error")
    meg = mne.pick_info(meg, [k for k in range(len(meg["chs"])) if k // 3 % 6 == 0])
    montage = mne.channels.make_standard_montage("biosemi32")
    eeg = mne.create_info(list(montage.ch_names), sfreq, "eeg").set_montage(montage)
    with meg._unlock():
        meg["sfreq"] = sfreq
    both = [mne.io.RawArray(np.zeros((i["nchan"], 1)), i, verbose="error") for i in (meg, eeg)]
    info = both[0].add_channels([both[1]], force_update_info=True).info
    with info._unlock():
        info["dev_head_t"] = mne.transforms.Transform("meg", "head", np.eye(4))
    return info


def with_meg(n_brain: int, sfreq: float, seconds: float, seed: int) -> tuple[EEGSimulation, Any]:
    """Simulate one head as seen by magnetometers, gradiometers and electrodes."""
    rng, info = np.random.default_rng(seed), sensors(sfreq)
    sphere = mne.make_sphere_model((0, 0, 0.01), 0.085, info, verbose="error")
    grid = mne.setup_volume_source_space(pos=12.0, sphere=sphere, exclude=20.0, verbose="error")
    forward = mne.make_forward_solution(info, None, grid, sphere, verbose="error")
    order = [forward["sol"]["row_names"].index(name) for name in info["ch_names"]]
    fields = forward["sol"]["data"][order].reshape(len(order), -1, 3)
    types = np.array(info.get_channel_types())
    is_eeg, unit = types == "eeg", np.array([ARTEFACT[kind] for kind in types])
    places = np.array([channel["loc"][:3] for channel in info["chs"]])
    times, knots = np.arange(int(seconds * sfreq)) / sfreq, np.linspace(0, seconds, 120)
    maps, courses = [], []
    for _ in range(n_brain):
        field = fields[:, rng.integers(fields.shape[1])] @ rng.standard_normal(3)
        size = 4e-6 * np.exp(0.5 * rng.standard_normal())
        maps.append(size * field / np.sqrt(np.square(field[is_eeg]).mean()))
        courses.append(rhythm(times, knots, sfreq, rng))
    tilt = unit * np.where(types == "grad", rng.standard_normal(len(types)), 1)
    front = (places[:, 1] - places[:, 1].max()) / np.ptp(places[:, 1])
    blink = np.where(is_eeg, 12, 2 * np.sign(places[:, 0])) * np.exp(4 * front)
    heart = np.where(is_eeg, 0.8, 1) * (places @ rng.standard_normal(3)) / np.abs(places).max()
    maps += [tilt * blink, tilt * heart]
    courses.append(pulses(rng.uniform(1, seconds - 1, int(seconds / 4)), 0.07, times))
    beats = np.cumsum(rng.normal(0.85, 0.05, int(seconds / 0.85)))
    courses.append(pulses(beats, 0.012, times) - 0.3 * pulses(beats + 0.25, 0.05, times))
    noise = np.array([NOISE[kind] for kind in types]) * rng.uniform(0.8, 1.25, len(types))
    mixing, sources = np.array(maps).T, np.array(courses)
    data = mixing @ sources + noise[:, None] * rng.standard_normal((len(types), len(times)))
    kinds = (*(f"brain{k:02}" for k in range(n_brain)), "blink", "heart")
    return EEGSimulation(
        data, sources, mixing, tuple(info["ch_names"]), kinds, sfreq, places
    ), info


def meg(n_seeds: int) -> None:
    """MCC, and the error of cleaning of each type of channel in dB."""
    for n_brain in (20, 40):
        rows: dict[str, list[list[float]]] = {}
        for seed in range(FIRST_SEED, FIRST_SEED + n_seeds):
            simulated, info = with_meg(n_brain, 250.0, 180.0, seed)
            raw = mne.io.RawArray(simulated.data.copy(), info, verbose="error")
            raw.filter(1.0, None, verbose="error")
            artefacts = np.isin(simulated.source_names, ARTEFACTS)
            clean = simulated.data.copy()
            clean -= simulated.mixing[:, artefacts] @ simulated.sources[artefacts]
            sources, clean = (
                mne.filter.filter_data(x, 250.0, 1.0, None, verbose="error")
                for x in (simulated.sources, clean)
            )
            methods = {"all": ComponentAnalysis(), "40": ComponentAnalysis(40)}
            for name, method in (methods | {"40, Picard": Picard(40)}).items():
                fitted = method.fit(raw)
                match = metrics.match_sources(sources.T, fitted.get_sources(raw).get_data().T)
                exclude = match.components[artefacts[match.sources]].tolist()
                left = fitted.apply(raw.copy(), exclude=exclude).get_data() - clean
                row = [match.correlations.mean()]
                for kind in NOISE:
                    own = np.array(info.get_channel_types()) == kind
                    powers = [x[own].var(axis=1).sum() for x in (left, clean)]
                    row.append(10 * np.log10(powers[0] / powers[1]))
                rows.setdefault(name, []).append(row)
        print(f"{n_brain} sources and 2 artefacts: MCC; magnetometers, gradiometers, EEG, dB")
        for name, row in rows.items():
            mcc, *errors = np.mean(row, axis=0)
            print(f"{name:12}{mcc:8.3f}" + "".join(f"{e:8.1f}" for e in errors), flush=True)


def main() -> None:
    """Print a table for each setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--meg", action="store_true", help="magnetometers and gradiometers too")
    options = parser.parse_args()
    if options.meg:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # few samples for so many components
            meg(options.seeds)
        return
    for n_channels, n_brain, sfreq, seconds in SETTINGS:
        heads = [
            head(n_channels, n_brain, sfreq, seconds, FIRST_SEED + k) for k in range(options.seeds)
        ]
        title = f"{n_brain} sources and 3 artefacts, {n_channels} channels, {sfreq:g} Hz"
        compare(f"{title}, {seconds:g} s", ("default", "bands", "picard"), heads)


if __name__ == "__main__":
    main()
