"""The linear family beside FastICA and Picard: accuracy, and seconds of CPU.

    python benchmarks/linear.py [never-worse] [shapes] [talkers] [eeg] [float32] [--seeds N]

With no name all five tables are printed. The seeds begin at 5000, or at --first; none from 5000 on
was used to set a constant of the package.
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
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.matrices.jointdiag import coarse_to_fine, label_covariances
from sourcesep.ivae.matrices.starts import STARTS
from sourcesep.recording import Recording
from sourcesep.simulate.protocols import LinearKind

Array = NDArray[np.float64]
FIRST_SEED = 5000
KINDS = tuple(kind for kind in get_args(LinearKind) if kind != "gaussian")


Draw = Callable[[np.random.Generator, int], NDArray[np.generic]]
SHAPES: dict[str, Draw] = {
    "Poisson, mean .3": lambda rng, n: rng.poisson(0.3, n),
    "Poisson, mean 1": lambda rng, n: rng.poisson(1, n),
    "Poisson, mean 2": lambda rng, n: rng.poisson(2, n),
    "Poisson, mean 5": lambda rng, n: rng.poisson(5, n),
    "Poisson, 70 % zeros": lambda rng, n: rng.poisson(3, n) * (rng.random(n) < 0.3),
    "gamma, 70 % zeros": lambda rng, n: rng.gamma(2, size=n) * (rng.random(n) < 0.3),
    "Gaussian, 80 % zeros": lambda rng, n: rng.standard_normal(n) * (rng.random(n) < 0.2),
    "Bernoulli .5": lambda rng, n: rng.random(n) < 0.5,
    "Bernoulli .2": lambda rng, n: rng.random(n) < 0.2,
    "Bernoulli .05": lambda rng, n: rng.random(n) < 0.05,
    "geometric": lambda rng, n: rng.geometric(0.4, n),
    "five grades": lambda rng, n: rng.integers(0, 5, n),
    "chi-square, 1": lambda rng, n: rng.chisquare(1, n),
    "chi-square, 3": lambda rng, n: rng.chisquare(3, n),
    "gamma of shape 3": lambda rng, n: rng.gamma(3, size=n),
    "log-normal, .5": lambda rng, n: rng.lognormal(0, 0.5, n),
    "log-normal, 1": lambda rng, n: rng.lognormal(0, 1, n),
    "beta 2, 5": lambda rng, n: rng.beta(2, 5, n),
    "two Gaussians": lambda rng, n: 0.5 * rng.standard_normal(n) + rng.choice([-1, 1.5], n),
    "Student's t, 5": lambda rng, n: rng.standard_t(5, n),
}
"""Stationary sources by their density."""
SETS = {
    "counts and skewed": (
        *("Poisson, mean 2", "Bernoulli .2", "chi-square, 3", "five grades"),
        *("Poisson, 70 % zeros", "log-normal, .5", "geometric", "Bernoulli .5"),
    ),
    "of all kinds": (
        *("Poisson, mean 1", "laplace", "uniform", "chi-square, 1"),
        *("gamma, 70 % zeros", "ar", "five grades", "modulated"),
    ),
}
"""Sources of several kinds, in turn."""
SIZES = ((2, 1000), (4, 1000), (4, 4000))
"""Sources and rows."""


def segments(x: Array, sfreq: float, kind: str, spec: str) -> Auxiliary:
    """Return u of time segments for x."""
    names = tuple(f"c{k}" for k in range(len(x)))
    return auxiliary.build(spec, Recording(x, sfreq, names, ("",) * len(x), kind))


def timed(separate: Callable[[], Array]) -> tuple[Array, float]:
    """Return what was separated and the seconds of CPU that it took."""
    begin = time.process_time()
    found = separate()
    return found, time.process_time() - begin


def fastica(x: Array, seed: int, contrast: str = "logcosh") -> Array:
    """Separate by scikit-learn's FastICA."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        ica = FastICA(
            whiten="unit-variance", fun=contrast, random_state=seed, max_iter=1000, tol=1e-6
        )
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


def draw(kind: str, d: int, n: int, rng: np.random.Generator) -> Array:
    """Draw d sources of a kind, of `SHAPES`, `SETS` or `simulate.linear_sources`."""
    kinds = [SETS[kind][k % len(SETS[kind])] for k in range(d)] if kind in SETS else d * [kind]
    if kinds[0] in KINDS:
        return simulate.linear_sources(kinds[0], n, d, random_state=rng)
    rows = [
        SHAPES[k](rng, n) if k in SHAPES else simulate.linear_sources(k, n, 1, random_state=rng)[0]  # type: ignore[arg-type]
        for k in kinds
    ]
    return np.stack(rows).astype(float)


def shapes(n_seeds: int, first: int) -> None:
    """MCC on counts, sparse, skewed and other sources, beside the best of four peers."""
    print(
        f"\nours, and less the best of FastICA (three contrasts) and Picard, {n_seeds} seeds: MCC"
    )
    print(
        f"{'sources':22}"
        + "".join(f"{f'{d} x {n}: ours':>16}{'mean':>8}{'worst':>8}" for d, n in SIZES)
    )
    for kind in (*SHAPES, *SETS, *KINDS):
        cells = ""
        for d, n in SIZES:
            scores = []
            for seed in range(first, first + n_seeds):
                rng = np.random.default_rng([seed, d, n])
                s = draw(kind, d, n, rng)
                x = rng.standard_normal((d, d)) @ s
                found = [
                    ours(x, segments(x, 1.0, "table", f"segments:{n // 40}")).posterior(x).mean
                ]
                found += [fastica(x, seed, contrast) for contrast in ("logcosh", "exp", "cube")]
                found += [picard_extended(x, seed)]
                scores.append([metrics.mcc(s.T, z.T) for z in found])
            mcc = np.array(scores)
            less = mcc[:, 0] - mcc[:, 1:].max(axis=1)
            cells += f"{mcc[:, 0].mean():16.4f}{less.mean():8.4f}{less.min():8.4f}"
        print(f"{kind:22}{cells}", flush=True)


def never_worse(n_seeds: int, first: int) -> None:
    """MCC on sources that differ in one thing each."""
    print(f"\n4 sources, 8000 samples, {n_seeds} seeds: MCC, and the worst of ours - best peer")
    print(f"{'sources':20}{'ours':>9}{'FastICA':>9}{'Picard':>9}{'worst':>9}  starts chosen")
    for kind in KINDS:
        scores, starts = [], []
        for seed in range(first, first + n_seeds):
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


def talkers(n_seeds: int, first: int) -> None:
    """Gain on instantaneous mixtures of talkers."""
    print(f"\ntalkers, 10 s at 16 kHz, {n_seeds} seeds: mean (least) gain in dB, seconds of CPU")
    print(f"{'talkers':8}{'ours':>22}{'FastICA':>22}{'Picard':>22}")
    for n in (2, 3):
        rows = []
        for seed in range(first, first + n_seeds):
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


def eeg(n_seeds: int, first: int) -> None:
    """MCC on simulated EEG with more sources than channels, for each start."""
    print(f"\nEEG, 60 sources, 32 channels, 180 s at 250 Hz, {n_seeds} seeds: MCC, seconds of CPU")
    choices = {name: (name,) for name in STARTS if name != "spectrum"}
    choices["segments or bands"] = ("segments", "bands")
    choices["automatic"] = tuple(STARTS)
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in [*choices, "Picard"]}
    starts = []
    for seed in range(first, first + n_seeds):
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


def float32(n_seeds: int, first: int) -> None:
    """Seconds of joint diagonalisation at 32 channels in either precision."""
    print("\njoint diagonalisation, 32 channels, 180 s, scales .5, 2 and 8 s: seconds of CPU, MCC")
    rows = []
    for seed in range(first, first + n_seeds):
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
    tables = {"never-worse": never_worse, "shapes": shapes, "talkers": talkers}
    tables |= {"eeg": eeg, "float32": float32}
    seeds = {"never-worse": 5, "shapes": 5, "talkers": 10, "eeg": 5, "float32": 5}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("tables", nargs="*", help=", ".join(tables))
    parser.add_argument("--seeds", type=int, help="how many, instead of each table's own number")
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="first seed")
    options = parser.parse_args()
    unknown = set(options.tables) - set(tables)
    if unknown:
        parser.error(f"tables={unknown}: allowed are {', '.join(tables)}")
    for name in options.tables or tables:
        tables[name](options.seeds or seeds[name], options.first)


if __name__ == "__main__":
    main()
