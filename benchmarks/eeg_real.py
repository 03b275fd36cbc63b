"""A real EEG: `sourcesep.ComponentAnalysis` against MNE's Picard, where no truth is known.

    python benchmarks/eeg_real.py FILE [--splits N]

FILE is any that `mne.io.read_raw` reads, with positions of the electrodes, and EOG channels
whose names begin with EOG. It is high-passed at 1 Hz and analysed under the reference that it
was recorded with and under the average reference. For each method:

* how alike the maps are that random halves of the data give, pieces of 2 s;
* by how much the components' mutual information is below the channels' (entropies by spacings);
* how many maps one dipole in a sphere explains but for 5 and 10 % of their power;
* what is left of blinks at F3, Fz, F4, and of alpha at the back, after the components that
  follow the EOG channels are removed (scores of `find_bads_eog` of .4 and .25, for all methods).
"""

from __future__ import annotations

import argparse
from typing import Any

import mne
import numpy as np
from eeg import METHODS, timed
from scipy.optimize import linear_sum_assignment

from sourcesep.components.artefact_scores import above, eog_scores
from sourcesep.simulate import dipole_potentials

FIRST_SEED = 300
"""Seeds 9000 to 9200 chose constants."""
USED = ("default", "bands", "picard")
RADIUS = 0.09
"""Of the head, in metres."""


def compare(raw: Any, n_splits: int) -> None:
    """Print a row for each method."""
    splits = agreement(raw, n_splits)
    eeg = raw.copy().pick("eeg")
    grid = dipoles(eeg)
    for method in USED:
        fitted, seconds = timed(method, eeg)
        z, maps = fitted.get_sources(eeg).get_data(), fitted.get_components()
        gain = splits[method] - splits["picard"]
        left = unexplained(maps, grid)
        print(
            f"{method:8} halves {splits[method].mean():.4f} ({gain.mean():+.4f} +- "
            f"{gain.std(ddof=1) / np.sqrt(n_splits):.4f} to picard), information "
            f"{reduction(eeg.get_data(), z) * eeg.info['sfreq'] / 1000:.3f} kbit/s, dipoles "
            f"{np.mean(left < 0.05):.2f} {np.mean(left < 0.1):.2f}, {seconds:.2f} CPU s, "
            f"{blinks(fitted, raw)}",
            flush=True,
        )


def agreement(raw: Any, n_splits: int) -> dict[str, np.ndarray]:
    """Median over components of the absolute cosine of matched maps, for every halving."""
    eeg = raw.copy().pick("eeg")
    size = int(2 * raw.info["sfreq"])
    pieces = eeg.get_data()[:, : raw.n_times // size * size].reshape(len(eeg.ch_names), -1, size)
    rng = np.random.default_rng(FIRST_SEED)
    found: dict[str, list[float]] = {method: [] for method in USED}
    for _ in range(n_splits):
        half = rng.permutation(pieces.shape[1]) < pieces.shape[1] // 2
        for method in USED:
            maps = []
            for which in (True, False):
                data = pieces[:, half == which].reshape(len(pieces), -1)
                part = mne.io.RawArray(data, eeg.info, verbose="error")
                own = METHODS[method]().fit(part).get_components()
                maps.append(own / np.linalg.norm(own, axis=0))
            likeness = np.abs(maps[0].T @ maps[1])
            found[method].append(np.median(likeness[linear_sum_assignment(-likeness)]))
    return {method: np.array(values) for method, values in found.items()}


def reduction(x: np.ndarray, z: np.ndarray) -> float:
    """Mutual information of channels less that of components, bits a sample."""
    x = x[: len(z)]  # under an average reference the last channel says nothing new
    unmixing = np.linalg.lstsq(x.T, z.T, rcond=None)[0]
    volume = np.linalg.slogdet(unmixing)[1] / np.log(2)
    return float(sum(map(entropy, x)) - sum(map(entropy, z)) + volume)


def entropy(row: np.ndarray) -> float:
    """Differential entropy in bits, by spacings (Vasicek 1976)."""
    row, far = np.sort(row), int(np.sqrt(len(row)))
    gaps = row[far:] - row[:-far]
    return float(np.log2((len(row) + 1) / far * np.maximum(gaps, 1e-12 * np.ptp(row))).mean())


def dipoles(eeg: Any) -> np.ndarray:
    """Orthonormal maps of three dipoles at each point of a grid, (n_points, n_channels, 3)."""
    places = np.array([channel["loc"][:3] for channel in eeg.info["chs"]])
    design = np.c_[2 * places, np.ones(len(places))]
    centre = np.linalg.lstsq(design, np.square(places).sum(axis=1), rcond=None)[0][:3]
    places = RADIUS * (places - centre) / np.linalg.norm(places - centre, axis=1, keepdims=True)
    axis = np.linspace(-0.05, 0.05, 15)
    points = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(-1, 3)
    points = points[np.linalg.norm(points, axis=1) < 0.052]  # as in simulate: a skull shrinks
    fields = [dipole_potentials(places, points, np.tile(e, (len(points), 1))) for e in np.eye(3)]
    stacked = np.stack(fields, axis=-1).swapaxes(0, 1)
    return np.linalg.qr(stacked - stacked.mean(axis=1, keepdims=True))[0]


def unexplained(maps: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Share of each map's power that the best dipole leaves."""
    maps = maps - maps.mean(axis=0)
    maps = maps / np.linalg.norm(maps, axis=0)
    return 1 - np.square(np.einsum("pcm,ck->pkm", grid, maps)).sum(axis=2).max(axis=0)


def blinks(fitted: Any, raw: Any) -> str:
    """Remove what follows the eyes, by two thresholds; say what is left of blinks and alpha."""
    eeg = raw.copy().pick("eeg")
    eye = next(name for name in raw.ch_names if name.upper().startswith("EOG"))
    peaks = mne.preprocessing.find_eog_events(raw, ch_name=eye, verbose="error")[:, 0]
    window = np.arange(-int(0.3 * raw.info["sfreq"]), int(0.3 * raw.info["sfreq"]))
    around = (peaks - raw.first_samp)[:, None] + window
    around = around[(around[:, 0] >= 0) & (around[:, -1] < raw.n_times)]
    scores = eog_scores(fitted.get_sources(eeg), raw, None)

    def blink(x: Any) -> float:
        swings = np.ptp(x.get_data(["F3", "Fz", "F4"])[:, around].mean(axis=1), axis=1)
        return float(1e6 * swings.mean())

    def alpha(x: Any) -> float:
        back = [name for name in ("O1", "Oz", "O2", "OZ") if name in x.ch_names]
        filtered = x.copy().pick(back).filter(8.0, 12.0, verbose="error")
        return float(np.square(filtered.get_data()).mean())

    said = [f"blinks {blink(eeg):.1f} uV"]
    for threshold in (0.4, 0.25):
        exclude = above(scores, threshold)
        cleaned = fitted.apply(eeg.copy(), exclude=exclude)
        said.append(
            f"{blink(cleaned):.1f} without {len(exclude)}, alpha {alpha(cleaned) / alpha(eeg):.3f}"
        )
    return "; ".join(said)


def main() -> None:
    """Print the rows under both references."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file")
    parser.add_argument("--splits", type=int, default=20)
    options = parser.parse_args()
    raw = mne.io.read_raw(options.file, preload=True, verbose="error")
    eyes = [name for name in raw.ch_names if name.upper().startswith("EOG")]
    raw.set_channel_types(dict.fromkeys(eyes, "eog"), verbose="error")
    raw.filter(1.0, None, picks="all", verbose="error")
    timed("default", raw.copy().pick("eeg").crop(0, 20))  # imports are not the method's
    for reference in ("recorded", "average"):
        print(f"{reference} reference")
        if reference == "average":
            raw.set_eeg_reference(verbose="error")
        compare(raw, options.splits)


if __name__ == "__main__":
    main()
