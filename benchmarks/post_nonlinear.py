"""Saturated and convolutive post-nonlinear mixtures: linear against post-nonlinear.

    python benchmarks/post_nonlinear.py [--speech DIR] [--seeds 10,11,12,13]
    python benchmarks/post_nonlinear.py noise --seeds 1,2,3,4

Talkers are simulated, or read from DIR (WAV files, one talker a file name's first word).
Prints SI-SDR in dB (mean, worst file), which curve was kept, and CPU seconds for 8 s at
16 kHz; then, for mixtures with memory, SDR after a two-sided alignment of 65 taps on fresh
samples. `noise` adds noise behind the curves of these, and compares with the likeliest sources
given the true filters, curve, variances and noise. Exits 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_toeplitz
from scipy.optimize import linear_sum_assignment
from scipy.signal import fftconvolve, resample_poly
from scipy.special import erf

from sourcesep.auxiliary import Auxiliary, Scale
from sourcesep.ivae.chains.chain import Chain
from sourcesep.ivae.chains.curves import Curves
from sourcesep.ivae.chains.smoother import Smoother
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.post_nonlinear import PostNonlinearModel
from sourcesep.ivae.priors import LabelPrior
from sourcesep.metrics import si_sdr
from sourcesep.simulate import speech

Array = NDArray[np.float64]
SFREQ, SECONDS, SEGMENT = 16000, 8, 320
STRENGTHS = np.array([[2.0], [6.0], [4.0]])

CURVES = {
    "none": (2, lambda y: y, 70),
    "tanh 2": (2, lambda y: np.tanh(2 * y) / 2, 30),
    "tanh 4": (2, lambda y: np.tanh(4 * y) / 4, 23.5),
    "rational 4": (2, lambda y: y / (1 + 4 * np.abs(y)), 16),
    "erf 4": (2, lambda y: erf(4 * y) / 4, 16),
    "tanh 4 + .4": (2, lambda y: np.tanh(4 * y + 0.4) / 4, 16),
    "tanh 2, 6": (2, lambda y: np.tanh(STRENGTHS[:2] * y) / STRENGTHS[:2], 16),
    "3 channels, tanh 2, 6, 4": (3, lambda y: np.tanh(STRENGTHS * y) / STRENGTHS, 16),
    "3 channels, none": (3, lambda y: y, 70),
}
"""Name -> channels, distortion of a mixture of peak 1, least mean SI-SDR."""
CHAINS = {"FIR, tanh": (1, 17), "FIR, leaky ReLU, FIR": (4, 16), "FIR, tanh, FIR": (4, 8)}
"""Name -> taps of the second filter, least mean SDR."""
DRIVE = 1.5
LENGTHS = (1000, 250)
"""Samples of each of 40 segments, in the fit and in the test."""
NOISES = (0.01, 0.02, 0.05)
"""Standard deviation of the noise as a share of the channel's."""
LEAST_SHARE, MOST_SECONDS = 0.6, 5.0
"""Of the way from the chain to the oracle, in dB; and CPU seconds that the smoother may add."""


def read_talkers(folder: Path) -> dict[str, Array]:
    """Join each talker's files at 16 kHz."""
    import soundfile

    joined: dict[str, list[Array]] = {}
    for path in sorted(folder.rglob("*.wav")):
        data, rate = soundfile.read(path)
        words = [
            w for w in path.stem.split("_") if w.isalpha() and w not in ("cmu", "us", "arctic")
        ]
        name = words[0] if words else path.stem
        joined.setdefault(name, []).append(resample_poly(data, SFREQ, rate))
    return {name: np.concatenate(parts) for name, parts in joined.items()}


def talkers(n: int, seed: int, voices: dict[str, Array], rng: np.random.Generator) -> Array:
    """Draw n talkers of unit power, (n, n_times)."""
    n_times = SFREQ * SECONDS
    if not voices:
        signals = [speech(SECONDS, SFREQ, random_state=100 * seed + k) for k in range(n)]
    else:
        signals = []
        for name in rng.permutation(sorted(voices))[:n]:
            voice = np.resize(voices[name], max(n_times, len(voices[name])))
            begin = rng.integers(0, len(voice) - n_times + 1)
            signals.append(voice[begin : begin + n_times])
    stacked = np.stack(signals)
    return stacked / stacked.std(axis=1, keepdims=True)


def labelled(n_times: int, length: int) -> Auxiliary:
    """Return u of equal segments."""
    labels = np.arange(n_times) // length
    names = tuple(str(k) for k in range(labels[-1] + 1))
    return Auxiliary((Scale(labels, names),), None, True, "segments")


def assigned(values: Array) -> float:
    """Mean of a table of scores over the best assignment."""
    return float(values[linear_sum_assignment(-values)].mean())


def instantaneous(name: str, seeds: list[int], voices: dict[str, Array]) -> bool:
    """Print one row of the first table; return whether the bound is met."""
    d, distort, bound = CURVES[name]
    rows, kept = [], []
    for seed in seeds:
        rng = np.random.default_rng([seed, d])
        sources = talkers(d, seed, voices, rng)
        y = (np.eye(d) + rng.uniform(-0.7, 0.7, (d, d)) * (1 - np.eye(d))) @ sources
        x = distort(y / np.abs(y).max(axis=1, keepdims=True))
        u = labelled(x.shape[1], SEGMENT)
        scores, seconds = [], 0.0
        for model in (LinearModel(), PostNonlinearModel()):
            begin = time.process_time()
            z = model.fit(x, u, np.random.default_rng(0)).posterior(x).mean
            seconds = time.process_time() - begin
            scores.append(assigned(si_sdr(sources[:, None], z[None])))
        kept.append(model.curve)
        rows.append([*scores, seconds])
    linear, ours, seconds = np.mean(rows, axis=0)
    worst = min(row[1] for row in rows)
    print(
        f"| {name} | {linear:.1f} | {ours:.1f} ({worst:.1f}) | {bound} | {seconds:.2f} | "
        f"{', '.join(f'{kept.count(c)} {c}' for c in sorted(set(kept)))} |",
        flush=True,
    )
    return bool(ours >= bound)


def random_filter(rng: np.random.Generator, taps: int, direct: float) -> Array:
    """Draw a decaying matrix of FIR filters with a direct path."""
    h = 0.6 * rng.standard_normal((2, 2, taps)) * np.exp(-np.arange(taps) / (0.6 * taps))
    h[[0, 1], [0, 1], 0] += direct * np.sign(h[[0, 1], [0, 1], 0])
    return h / np.sqrt(np.square(h).sum(axis=(1, 2), keepdims=True))


def filtered(h: Array, s: Array) -> Array:
    """Filter causally."""
    return np.stack(
        [sum(fftconvolve(s[j], h[i, j])[: s.shape[1]] for j in (0, 1)) for i in (0, 1)]
    )


def aligned_sdr(source: Array, estimate: Array, half: int = 32) -> float:
    """SDR in dB of the estimate against its best two-sided FIR image of the source."""
    n, width = 2 * len(source), 2 * half + 1
    spectrum = np.fft.rfft(source, n)
    auto = np.fft.irfft(np.abs(spectrum) ** 2, n)[:width]
    auto[0] *= 1 + 1e-6
    cross = np.fft.irfft(np.fft.rfft(estimate, n) * spectrum.conj(), n)
    cross = np.concatenate([cross[-half:], cross[: half + 1]])
    share = cross @ solve_toeplitz(auto, cross) / (estimate @ estimate)
    return float(10 * np.log10(share / (1 - share)))


class Mixture(NamedTuple):
    """Two records, to fit and to test, and what made them."""

    sources: tuple[Array, Array]
    x: tuple[Array, Array]
    taps: Array
    scale: Array


def mixture_with_memory(name: str, seed: int) -> Mixture:
    """Draw sources, filters and their mixture through the named chain."""
    post, _ = CHAINS[name]
    rng = np.random.default_rng([7, seed])
    scale = np.exp(rng.uniform(np.log(0.3), np.log(3), (2, 40)))
    h1, h2 = random_filter(rng, 8, 1.0), random_filter(rng, 4, 3.0)
    level = None
    sources, x = [], []
    for length in LENGTHS:
        s = rng.standard_normal((2, 40 * length)) * np.repeat(scale, length, axis=1)
        y = filtered(h1, s)
        level = y.std(axis=1, keepdims=True) if level is None else level
        y = y / level
        bent = np.where(y > 0, y, 0.25 * y) if "leaky" in name else np.tanh(DRIVE * y)
        sources.append(s)
        x.append(filtered(h2, bent) if post > 1 else bent)
    return Mixture(tuple(sources), tuple(x), h1 / level[:, :, None], scale)


def matched_sdr(sources: Array, estimates: Array) -> float:
    """Mean aligned SDR of the best assignment."""
    return assigned(np.array([[aligned_sdr(s, e) for e in estimates] for s in sources]))


def convolutive(name: str, seeds: list[int]) -> bool:
    """Print one row of the second table; return whether the bound is met."""
    post, bound = CHAINS[name]
    rows = []
    for seed in seeds:
        mixture, row = mixture_with_memory(name, seed), []
        u = labelled(mixture.x[0].shape[1], LENGTHS[0])
        for model in (LinearModel(), PostNonlinearModel(kernel_size=8, post_kernel_size=post)):
            begin = time.process_time()
            model.fit(mixture.x[0], u, np.random.default_rng(0))
            seconds = time.process_time() - begin
            row.append(matched_sdr(mixture.sources[1], model.posterior(mixture.x[1]).mean))
        rows.append([*row, seconds])
    linear, ours, seconds = np.mean(rows, axis=0)
    worst = min(row[1] for row in rows)
    print(
        f"| {name} | {linear:.1f} | {ours:.1f} ({worst:.1f}) | {bound} | {seconds:.1f} |",
        flush=True,
    )
    return bool(ours >= bound)


def likeliest_sources(mixture: Mixture, noise: Array) -> Array:
    """Return the mode of the posterior of "FIR, tanh" given all that made the test record."""
    n_fft = 4096
    response = np.fft.rfft(mixture.taps, n_fft).transpose(2, 0, 1)
    inverse = np.fft.irfft(np.linalg.inv(response).transpose(1, 2, 0), n_fft)
    inner = inverse[:, :, np.arange(-256, 257) % n_fft]
    y = np.linspace(-5, 5, 4001)
    knots, slopes = np.tanh(DRIVE * y), DRIVE / np.cosh(DRIVE * y) ** 2
    curves = Curves(np.stack([knots, knots]), -np.log(np.stack([slopes, slopes])))
    smoother = Smoother(Chain(None, curves, np.zeros(2), inner), noise)
    scale = np.sqrt(2) * mixture.scale.T
    prior = LabelPrior(np.zeros_like(scale), scale, np.full(2, 2.0))
    return smoother.infer(mixture.x[1], prior, labelled(40 * LENGTHS[1], LENGTHS[1]).labels)[1].z


def noisy(level: float, seed: int, name: str = "FIR, tanh") -> tuple[float, float, float]:
    """Print one row of the table of noise; return the share, CPU s, and what clean data lost."""
    mixture = mixture_with_memory(name, seed)
    rng = np.random.default_rng([8, seed])
    deviation = level * mixture.x[0].std(axis=1, keepdims=True)
    x, x_test = (v + deviation * rng.standard_normal(v.shape) for v in mixture.x)
    u, u_test = labelled(x.shape[1], LENGTHS[0]), labelled(x_test.shape[1], LENGTHS[1])
    fits, seconds = [], []
    for noise in (False, None):
        begin = time.process_time()
        model = PostNonlinearModel(kernel_size=8, post_kernel_size=CHAINS[name][0], noise=noise)
        model.fit(x, u, np.random.default_rng(0))
        z = model.posterior(x_test, u_test).mean
        seconds.append(time.process_time() - begin)
        fits.append((model, matched_sdr(mixture.sources[1], z)))
    (_, chain), (model, chosen) = fits
    best, share = np.nan, np.nan
    if level and CHAINS[name][0] == 1:
        z = likeliest_sources(mixture._replace(x=(x, x_test)), deviation[:, 0] ** 2)
        best = matched_sdr(mixture.sources[1], z)
        share = (chosen - chain) / (best - chain)
    kept = "chain" if model.smoother is None else "smoother"
    found = np.sqrt(model.smoother.noise) / x.std(axis=1) if model.smoother else np.zeros(2)
    print(
        f"| {name} | {100 * level:g} % | {seed} | {chain:.2f} | {chosen:.2f} | {best:.2f} | "
        f"{100 * share:.0f} % | {100 * found.mean():.2f} % | {seconds[1] - seconds[0]:.1f} | "
        f"{kept} |",
        flush=True,
    )
    return share, seconds[1] - seconds[0], chain - chosen


def noise_table(seeds: list[int]) -> bool:
    """Print the table of noise; return whether the bounds are met."""
    print(
        "| mixture | noise | seed | chain | as chosen | oracle | share of the way | noise found | "
        "CPU s | kept |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    met = all(noisy(0.0, seed)[2] == 0 for seed in seeds)
    for level in NOISES:
        rows = np.array([noisy(level, seed) for seed in seeds])
        share, seconds, _ = rows.mean(axis=0)
        print(f"{100 * level:g} %: {100 * share:.0f} % of the way, {seconds:.1f} CPU s")
        met = met and share >= LEAST_SHARE and seconds <= MOST_SECONDS
    noisy(0.02, seeds[0], "FIR, leaky ReLU, FIR")
    return bool(met)


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", nargs="?", choices=["noise"], help="this table alone")
    parser.add_argument("--speech", type=Path, help="folder of WAV files of talkers")
    parser.add_argument("--talkers", help="names to use, separated by commas")
    parser.add_argument("--seeds", default="10,11,12,13")
    options = parser.parse_args()
    seeds = [int(s) for s in options.seeds.split(",")]
    if options.part == "noise":
        return 0 if noise_table(seeds) else 1
    voices = read_talkers(options.speech) if options.speech else {}
    if options.talkers:
        voices = {name: voices[name] for name in options.talkers.split(",")}
    print("| distortion | linear | post-nonlinear (worst) | bound | CPU s | curves kept |")
    print("|---|---|---|---|---|---|")
    met = [instantaneous(name, seeds, voices) for name in CURVES]
    print("\n| chain | linear | post-nonlinear (worst) | bound | CPU s |\n|---|---|---|---|---|")
    met += [convolutive(name, seeds) for name in CHAINS]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
