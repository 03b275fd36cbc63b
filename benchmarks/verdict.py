"""How often the verdict is right: counts over fresh simulations.

    python benchmarks/verdict.py [linear | nonlinear] [--seeds 100] [--only NAME]

What cannot be separated must be refused, what can must not be, and the wrong model must
not be trusted. For the linear family these are white Gaussian sources, sources that
differ, and rooms and saturated microphones, which two filters a microphone must not make
trusted either where they are no room of two sources; for the nonlinear family
(``quality="fast"``) sources that u does not move, or moves all alike, the nonlinear-ICA
papers' sources, and mixtures with memory. The seeds begin at 6000; none was used to set a
constant of the package.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.signal import lfilter

from sourcesep import auxiliary, simulate
from sourcesep.auxiliary import Auxiliary, Scale
from sourcesep.ivae.convolutive import ConvolutiveModel
from sourcesep.ivae.coupling import CouplingModel
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.model import Model, Settings
from sourcesep.ivae.priors import SHAPES
from sourcesep.ivae.starts import STARTS
from sourcesep.metrics import mcc
from sourcesep.recording import Recording
from sourcesep.simulate.protocols import Protocol, ivae, shuffled_labels
from sourcesep.verdict import Verdict, judge

Array = NDArray[np.float64]
FIRST_SEED = 6000
LABELS = ("trusted", "doubtful", "not identifiable")
KINDS = ("uniform", "laplace", "ar", "modulated", "modulated-laplace", "mixed")
NOTHING, SOMETHING = "nothing: ", "sources: "
RIGHT = 0.95
"""MCC of a fit that ought not to be refused."""


class Judged(NamedTuple):
    """A verdict, and the MCC that it did not know (NaN where there is no one truth)."""

    verdict: Verdict
    mcc: float


Run = Callable[[int], Judged]


def verdict_on(
    x: Array, sfreq: float, kind: str, spec: str, family: type[Model] = LinearModel
) -> Judged:
    """Fit a family and judge it."""
    names = tuple(f"c{k}" for k in range(len(x)))
    u = auxiliary.build(spec, Recording(x, sfreq, names, ("",) * len(x), kind))
    settings = Settings(starts=tuple(STARTS), shapes=SHAPES, sfreq=sfreq)
    model = family.configured(settings).fit(x, u, np.random.default_rng(0))
    return Judged(judge(model, x, u, sfreq, np.random.default_rng(0)), np.nan)


def sources(kind: str, n: int) -> Run:
    """Judge n sources of one kind, 8000 samples."""

    def run(seed: int) -> Judged:
        drawn = simulate.linear_sources(kind, 8000, n, random_state=seed)  # type: ignore[arg-type]
        mixture = simulate.instantaneous(drawn, sfreq=1.0, random_state=seed)
        return verdict_on(mixture.data, 1.0, "table", "segments:200")

    return run


def talkers(kind: str, n: int) -> Run:
    """Judge n talkers of 4 s at 16 kHz, mixed as `kind` says."""

    def run(seed: int) -> Judged:
        voices = [simulate.speech(4, random_state=100 * seed + k) for k in range(n)]
        mix = getattr(simulate, kind)
        data = mix(voices, sfreq=16000, random_state=seed).data
        return verdict_on(data, 16000.0, "audio", "segments:.02")

    return run


def in_a_room(kind: str) -> Run:
    """Judge the convolutive family on 8 s at 8 kHz of two channels."""

    def run(seed: int) -> Judged:
        if kind == "white noise":
            voices = np.random.default_rng(seed).standard_normal((2, 64_000))
        else:
            n = 3 if kind == "3 talkers" else 2
            voices = np.stack(
                [simulate.speech(8, 8000, random_state=100 * seed + k) for k in range(n)]
            )
        mixture = simulate.room(voices, sfreq=8000, n_mics=2, rt60=0.2, random_state=seed)
        data = mixture.data
        if kind == "bent microphones":
            peak = np.abs(data).max(axis=1, keepdims=True)
            data = peak * np.tanh(4 * data / peak) / 4
        return verdict_on(data, 8000.0, "audio", "segments:.02", ConvolutiveModel)

    return run


def linear_cases() -> Iterator[tuple[str, Run]]:
    """Yield the cases of closed forms and of rooms, and how to judge one seed of each."""
    for n in (2, 3, 4):
        yield f"white Gaussian, {n} sources", sources("gaussian", n)
    for kind in KINDS:
        yield f"{kind}, 4 sources", sources(kind, 4)
    for kind in ("instantaneous", "saturated", "room"):
        for n in (2, 3):
            yield f"{n} talkers, {kind}", talkers(kind, n)
    for kind in ("2 talkers", "3 talkers", "bent microphones", "white noise"):
        yield f"filters, {kind}", in_a_room(kind)


def with_memory(seed: int, n: int) -> Protocol:
    """Modulated sources through filters of 8 taps, then a curve a channel."""
    data = ivae(n, 20, 500, 1, random_state=seed)
    taps = np.random.default_rng([seed, 1]).standard_normal((n, n, 8)) * np.exp(-np.arange(8) / 3)
    x = np.zeros_like(data.sources)
    for channel, source in np.ndindex(n, n):
        x[:, channel] += lfilter(taps[channel, source], [1.0], data.sources[:, source])
    x /= x.std(axis=0)
    return replace(data, observations=np.tanh(x) + 0.1 * x)


def protocol(family: type[Model], draw: Callable[[int, int], Protocol]) -> Run:
    """Judge fits of a family to what `draw` makes of a seed and a number of sources, 2 or 3."""

    def run(seed: int) -> Judged:
        data = draw(seed, 2 + seed % 2)
        x = data.observations.T
        names = tuple(map(str, range(data.u.max() + 1)))
        u = Auxiliary((Scale(data.u, names),), None, True, "segments")
        settings = Settings(starts=tuple(STARTS), shapes=SHAPES, quality="fast", device="cpu")
        model = family.configured(settings).fit(x, u, np.random.default_rng(seed))
        score = mcc(data.sources, model.posterior(x).mean.T)
        return Judged(judge(model, x, u, 1.0, np.random.default_rng(seed)), score)

    return run


def nonlinear_cases() -> Iterator[tuple[str, Run]]:
    """Yield the cases of the nonlinear family: 2 or 3 sources, 20 labels of 500 samples."""

    def draw(seed: int, n: int, shuffled: bool = False, **settings: object) -> Protocol:
        data = ivae(n, 20, 500, random_state=seed, **settings)  # type: ignore[arg-type]
        return shuffled_labels(data, random_state=seed) if shuffled else data

    nonlinear = partial(protocol, CouplingModel)
    yield f"{NOTHING}stationary", nonlinear(partial(draw, modulation="none"))
    yield f"{NOTHING}one modulation", nonlinear(partial(draw, modulation="common"))
    yield f"{NOTHING}shuffled u", nonlinear(partial(draw, shuffled=True))
    yield f"{SOMETHING}Gaussian, tanh", nonlinear(draw)
    yield f"{SOMETHING}leaky ReLU", nonlinear(partial(draw, activation="leaky-relu", slope=0.2))
    yield f"{SOMETHING}Laplace", nonlinear(partial(draw, source="laplace"))
    yield "mixed with memory", nonlinear(with_memory)
    yield "20 % noise", nonlinear(partial(draw, noise=0.2))
    yield "fitted by a matrix", protocol(LinearModel, draw)


def auroc(negative: list[float], positive: list[float]) -> float:
    """Share of pairs in which the positive is larger."""
    a, b = np.array(negative), np.array(positive)[:, None]
    return float(np.mean((b > a) + 0.5 * (b == a)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("family", nargs="?", default="linear", choices=("linear", "nonlinear"))
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="the first seed")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{options.seeds} seeds from {options.first}: counts of each verdict; least, median and")
    print("largest evidence over the seeds (of the worst component), and MCC; seconds of CPU")
    widths = "".join(f"{label:>18}" for label in LABELS)
    heads = f"{'richness':>22}{'agreement':>21}{'misfit':>21}{'MCC':>21}{'s':>6}"
    print(f"{'':26}{widths}{heads}")
    results: dict[str, list[Judged]] = {}
    for name, run in linear_cases() if options.family == "linear" else nonlinear_cases():
        if options.only not in name:
            continue
        begin = time.process_time()
        found = [run(seed) for seed in range(options.first, options.first + options.seeds)]
        seconds = (time.process_time() - begin) / options.seeds
        results[name] = found
        counts = [sum(v.label == label for v, _ in found) for label in LABELS]
        line = f"{name:26}" + "".join(f"{count:18}" for count in counts)
        for evidence in (
            [min(v.richness) for v, _ in found],
            [min(v.agreement) for v, _ in found],
            [max(v.misfit) for v, _ in found],
            [score for _, score in found],
        ):
            low, mid, high = np.quantile(evidence, [0, 0.5, 1])
            line += f"   {low:5.3g} {mid:5.3g} {high:6.3g}"
        print(f"{line}{seconds:6.2f}", flush=True)
    if not options.only:
        (summarise_linear if options.family == "linear" else summarise_nonlinear)(results)


def summarise_linear(results: dict[str, list[Judged]]) -> None:
    """Print how well each kind of evidence tells right from wrong."""
    nothing = [min(v.richness) for k, found in results.items() if "white G" in k for v, _ in found]
    something = [
        min(v.richness)
        for k, found in results.items()
        if k.split(",")[0] in KINDS
        for v, _ in found
    ]
    right = [max(v.misfit) for k, found in results.items() if "instant" in k for v, _ in found]
    print(
        f"\nAUROC of richness, white Gaussian against the others: {auroc(nothing, something):.4f}"
    )
    for kind in ("saturated", "room"):
        wrong = [max(v.misfit) for k, found in results.items() if kind in k for v, _ in found]
        print(f"AUROC of misfit, instantaneous against {kind}: {auroc(right, wrong):.4f}")


def summarise_nonlinear(results: dict[str, list[Judged]]) -> None:
    """Print how many were refused that should be, and that should not."""
    nothing = [fit for k, found in results.items() if k.startswith(NOTHING) for fit in found]
    something = [fit for k, found in results.items() if k.startswith(SOMETHING) for fit in found]
    for name, fits in (
        ("nothing to find", nothing),
        (f"sources, MCC {RIGHT} or more", [fit for fit in something if fit.mcc >= RIGHT]),
    ):
        refused = sum(fit.verdict.label == LABELS[2] for fit in fits)
        trusted = sum(fit.verdict.label == LABELS[0] for fit in fits)
        print(f"{name}: {refused} of {len(fits)} refused, {trusted} trusted")
    richness = [[min(fit.verdict.richness) for fit in fits] for fits in (nothing, something)]
    print(f"AUROC of richness, nothing against sources: {auroc(*richness):.4f}")


if __name__ == "__main__":
    main()
