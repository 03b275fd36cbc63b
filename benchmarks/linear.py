"""The linear family beside FastICA and Picard: accuracy, and seconds of CPU.

    python benchmarks/linear.py [never-worse] [talkers] [eeg] [float32] [--seeds N]

With no name all four tables are printed. The seeds begin at 5000; none was used to set a
constant of the package.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from picard import picard
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning

from sourcesep import auxiliary, metrics, simulate
from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.jointdiag import coarse_to_fine, label_covariances
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.starts import STARTS
from sourcesep.recording import Recording
from sourcesep.simulate.protocols import LinearKind

Array = NDArray[np.float64]
FIRST_SEED = 5000
KINDS = tuple(kind for kind in get_args(LinearKind) if kind != "gaussian")


def segments(x: Array, sfreq: float, kind: str, spec: str) -> Auxiliary:
    """Return u of time segments for x."""
    names = tuple(f"c{k}" for k in range(len(x)))
    return auxiliary.build(spec, Recording(x, sfreq, names, ("",) * len(x), kind))


def timed(separate: Callable[[], Array]) -> tuple[Array, float]:
    """Return what was separated and the seconds of CPU that it took."""
    begin = time.process_time()
    found = separate()
    return found, time.process_time() - begin


def fastica(x: Array, seed: int) -> Array:
    """Separate by scikit-learn's FastICA."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        ica = FastICA(whiten="unit-variance", random_state=seed, max_iter=1000, tol=1e-6)
        return np.asarray(ica.fit_transform(x.T).T)


def picard_extended(x: Array, seed: int) -> Array:
    """Separate by Picard in its extended form."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = picard(x, ortho=False, extended=True, max_iter=500, tol=1e-7, random_state=seed)
    return np.asarray(found[2])


def ours(x: Array, u: Auxiliary, starts: tuple[str, ...] = tuple(STARTS)) -> LinearModel:
    """Fit the linear family."""
    return LinearModel(starts=starts).fit(x, u, np.random.default_rng(0))


def never_worse(n_seeds: int) -> None:
    """MCC on sources that differ in one thing each."""
    print(f"\n4 sources, 8000 samples, {n_seeds} seeds: MCC, and the worst of ours - best peer")
    print(f"{'sources':20}{'ours':>9}{'FastICA':>9}{'Picard':>9}{'worst':>9}  starts chosen")
    for kind in KINDS:
        scores, starts = [], []
        for seed in range(FIRST_SEED, FIRST_SEED + n_seeds):
            sources = simulate.linear_sources(kind, 8000, 4, random_state=seed)
            mixture = simulate.instantaneous(sources, sfreq=1.0, random_state=seed)
            x, s = mixture.data, sources.T
            model = ours(x, segments(x, 1.0, "table", "segments:200"))
            starts.append(model.start)
            found = (model.posterior(x).mean, fastica(x, seed), picard_extended(x, seed))
            scores.append([metrics.mcc(s, z.T) for z in found])
        mcc = np.array(scores)
        worst = (mcc[:, 0] - mcc[:, 1:].max(1)).min()
        chosen = ", ".join(f"{starts.count(name)} {name}" for name in dict.fromkeys(starts))
        print(f"{kind:20}" + "".join(f"{v:9.4f}" for v in mcc.mean(0)) + f"{worst:9.4f}  {chosen}")


def gain(mixture: simulate.Mixture, z: Array) -> float:
    """Mean gain in dB of SI-SDR over the mixture's first channel."""
    match = metrics.match_sources(mixture.sources.T, z.T)
    after = metrics.si_sdr(mixture.sources[match.sources], z[match.components])
    return float((after - metrics.si_sdr(mixture.sources, mixture.data[0])).mean())


def talkers(n_seeds: int) -> None:
    """Gain on instantaneous mixtures of talkers."""
    print(f"\ntalkers, 10 s at 16 kHz, {n_seeds} seeds: mean (least) gain in dB, seconds of CPU")
    print(f"{'talkers':8}{'ours':>22}{'FastICA':>22}{'Picard':>22}")
    for n in (2, 3):
        rows = []
        for seed in range(FIRST_SEED, FIRST_SEED + n_seeds):
            voices = [simulate.speech(10, random_state=100 * seed + k) for k in range(n)]
            mixture = simulate.instantaneous(voices, sfreq=16000, random_state=seed)
            x = mixture.data
            u = segments(x, 16000, "audio", "segments:.02")
            runs = [
                timed(lambda x=x, u=u: ours(x, u).posterior(x).mean),  # type: ignore[misc]
                timed(lambda x=x, seed=seed: fastica(x, seed)),  # type: ignore[misc]
                timed(lambda x=x, seed=seed: picard_extended(x, seed)),  # type: ignore[misc]
            ]
            rows.append([(gain(mixture, z), seconds) for z, seconds in runs])
        table = np.array(rows)
        mean, least = table[..., 0].mean(0), table[..., 0].min(0)
        cells = zip(mean, least, table[..., 1].mean(0), strict=True)
        print(f"{n:<8}" + "".join(f"{a:9.1f} ({b:4.1f}) {c:4.2f} s" for a, b, c in cells))


def eeg(n_seeds: int) -> None:
    """MCC on simulated EEG with more sources than channels, for each start."""
    print(f"\nEEG, 60 sources, 32 channels, 180 s at 250 Hz, {n_seeds} seeds: MCC, seconds of CPU")
    choices = {name: (name,) for name in STARTS if name != "spectrum"}
    choices["segments or bands"] = ("segments", "bands")
    choices["automatic"] = tuple(STARTS)
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in [*choices, "Picard"]}
    starts = []
    for seed in range(FIRST_SEED, FIRST_SEED + n_seeds):
        head = simulate.eeg(60, 180.0, n_channels=32, random_state=seed)
        x = head.data
        u = segments(x, head.sfreq, "eeg", "segments:.5,2,8")
        for name, allowed in choices.items():
            begin = time.process_time()
            model = ours(x, u, allowed)
            seconds = time.process_time() - begin
            score = metrics.mcc(head.sources.T, model.posterior(x).mean.T)
            rows[name].append((score, seconds))
        starts.append(model.start)
        z, seconds = timed(lambda x=x, seed=seed: picard_extended(x, seed))  # type: ignore[misc]
        rows["Picard"].append((metrics.mcc(head.sources.T, z.T), seconds))
    for name, row in rows.items():
        mean = np.array(row)
        each = " ".join(f"{v:.3f}" for v in mean[:, 0])
        print(f"{name:20}{mean[:, 0].mean():7.3f}{mean[:, 1].mean():8.2f} s   {each}")
    print("automatic chose " + ", ".join(starts))


def float32(n_seeds: int) -> None:
    """Seconds of joint diagonalisation at 32 channels in either precision."""
    print("\njoint diagonalisation, 32 channels, 180 s, scales .5, 2 and 8 s: seconds of CPU, MCC")
    rows = []
    for seed in range(FIRST_SEED, FIRST_SEED + n_seeds):
        head = simulate.eeg(60, 180.0, n_channels=32, random_state=seed)
        u = segments(head.data, head.sfreq, "eeg", "segments:.5,2,8")
        x = head.data - head.data.mean(1, keepdims=True)
        values, vectors = np.linalg.eigh(x @ x.T / x.shape[1])
        y = (vectors / np.sqrt(values)).T @ x
        groups = [
            label_covariances(y, s.labels, s.n_labels)[0] + 1e-3 * np.eye(len(y)) for s in u.scales
        ]
        row = []
        for dtype in (np.float32, np.float64):
            cast = [g.astype(dtype) for g in groups]
            v, seconds = timed(lambda cast=cast: coarse_to_fine(cast, tol=1e-3).matrix)  # type: ignore[misc]
            row.append((seconds, metrics.mcc(head.sources.T, (v @ y).T)))
        rows.append(row)
    for name, (seconds, score) in zip(("float32", "float64"), np.mean(rows, axis=0), strict=True):
        print(f"{name:20}{seconds:8.3f} s{score:9.4f}")


def main() -> None:
    """Print the tables that are asked for."""
    tables = {"never-worse": never_worse, "talkers": talkers, "eeg": eeg, "float32": float32}
    seeds = {"never-worse": 5, "talkers": 10, "eeg": 5, "float32": 5}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("tables", nargs="*", help=", ".join(tables))
    parser.add_argument("--seeds", type=int, help="how many, instead of each table's own number")
    options = parser.parse_args()
    unknown = set(options.tables) - set(tables)
    if unknown:
        parser.error(f"tables={unknown}: allowed are {', '.join(tables)}")
    for name in options.tables or tables:
        tables[name](options.seeds or seeds[name])


if __name__ == "__main__":
    main()
