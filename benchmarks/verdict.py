"""How often the verdict is right: counts over fresh simulations.

    python benchmarks/verdict.py [--seeds 100] [--first 6000] [--only NAME]

White Gaussian sources cannot be separated and must be refused; sources that differ must not be;
rooms, saturated microphones and networks, fitted by a matrix, must not be trusted, and nor must
what is no room of two sources, fitted by two filters a microphone. The seeds begin at 6000;
earlier versions of the verdict were seen on them, from 12000 on none was.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from sourcesep import auxiliary, simulate
from sourcesep.ivae.convolutive import ConvolutiveModel
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.matrices.starts import STARTS
from sourcesep.ivae.model import Model
from sourcesep.ivae.priors import SHAPES
from sourcesep.ivae.settings import Settings
from sourcesep.recording import Recording
from sourcesep.simulate.instruments import InstrumentKind
from sourcesep.verdict import LABELS, Verdict, judge

Array = NDArray[np.float64]
FIRST_SEED = 6000
WIDTH = 31
"""Letters of the longest name of a case."""
HIGH_RATE = (
    ("talkers", 2),
    ("instruments", 2),
    ("panned", 3),
    ("panned", 4),
    ("bent", 2),
    ("echoing", 2),
)
Fit = TypeVar("Fit")
Evidence = dict[str, Callable[[Fit], float]]
EVIDENCE: Evidence[Verdict] = {
    "richness": lambda v: min(v.richness),
    "agreement": lambda v: min(v.agreement),
    "misfit": lambda v: max(v.misfit),
}
KINDS = ("uniform", "laplace", "ar", "modulated", "modulated-laplace", "mixed")


def verdict_on(
    x: Array, sfreq: float, kind: str, spec: str, family: type[Model] = LinearModel
) -> Verdict:
    """Fit a family and judge it."""
    names = tuple(f"c{k}" for k in range(len(x)))
    u = auxiliary.build(spec, Recording(x, sfreq, names, ("",) * len(x), kind))
    settings = Settings(starts=tuple(STARTS), shapes=SHAPES, sfreq=sfreq)
    model = family.configured(settings).fit(x, u, np.random.default_rng(0))
    return judge(model, x, u, sfreq, np.random.default_rng(0))


def sources(kind: str, n: int) -> Callable[[int], Verdict]:
    """Judge n sources of one kind, 8000 samples."""

    def run(seed: int) -> Verdict:
        drawn = simulate.linear_sources(kind, 8000, n, random_state=seed)  # type: ignore[arg-type]
        mixture = simulate.instantaneous(drawn, sfreq=1.0, random_state=seed)
        return verdict_on(mixture.data, 1.0, "table", "segments:200")

    return run


def short_and_saturated(seed: int) -> Verdict:
    """Judge three sources whose power changes, 4000 samples, through saturated sensors."""
    drawn = simulate.linear_sources("modulated", 4000, 3, random_state=seed)
    mixture = simulate.saturated(drawn, sfreq=1.0, random_state=seed)
    return verdict_on(mixture.data, 1.0, "table", "segments:100")


def by_label(n_layers: int) -> Callable[[int], Verdict]:
    """Judge two Gaussian sources in 10 labels of 300 rows, through a network of so many layers."""

    def run(seed: int) -> Verdict:
        data = simulate.ivae(2, 10, 300, n_layers, random_state=seed)
        x, u = data.observations.T, auxiliary.from_array(data.u, len(data.u))
        model = LinearModel().fit(x, u, np.random.default_rng(0))
        return judge(model, x, u, 1.0, np.random.default_rng(0))

    return run


def talkers(kind: str, n: int) -> Callable[[int], Verdict]:
    """Judge n talkers of 4 s at 16 kHz, mixed as `kind` says."""

    def run(seed: int) -> Verdict:
        voices = [simulate.speech(4, random_state=100 * seed + k) for k in range(n)]
        mix = getattr(simulate, kind)
        data = mix(voices, sfreq=16000, random_state=seed).data
        return verdict_on(data, 16000.0, "audio", "segments:.02")

    return run


def at_high_rate(kind: str, n: int) -> Callable[[int], Verdict]:
    """Judge 10 s at 44.1 kHz: n instruments or talkers, mixed as `kind` says.

    "panned" are instruments at places in a stereo mixture.
    """
    seconds, sfreq = 10.0, 44_100.0

    def run(seed: int) -> Verdict:
        rng = np.random.default_rng(seed)
        if kind in ("instruments", "panned"):
            players = rng.permutation(list(get_args(InstrumentKind)))[:n]
            drawn = [
                simulate.instrument(seconds, sfreq, kind=player, random_state=100 * seed + k)
                for k, player in enumerate(players.tolist())
            ]
        else:
            drawn = [
                simulate.speech(seconds, sfreq, random_state=100 * seed + k) for k in range(n)
            ]
        if kind == "panned":
            places = np.linspace(0.3, np.pi / 2 - 0.3, n) + rng.uniform(-0.08, 0.08, n)
            data = np.stack([np.cos(places), np.sin(places)]) @ np.stack(drawn)
        else:
            mix = {"bent": simulate.saturated, "echoing": simulate.room}.get(
                kind, simulate.instantaneous
            )
            data = mix(drawn, sfreq=sfreq, random_state=seed).data
        return verdict_on(data, sfreq, "audio", "segments:.02")

    return run


def steady(kind: str) -> Callable[[int], Verdict]:
    """Judge 6 s at 44.1 kHz, 16 bits, of what lasts: chords, hum under a talker, one resonance."""
    seconds, sfreq = 6, 44_100
    t = np.arange(seconds * sfreq) / sfreq

    def partials(base: float, rng: np.random.Generator) -> Array:
        k, weights, phases = np.arange(1, 9), rng.uniform(0.3, 1, 8), rng.uniform(0, 6.28, 8)
        found: Array = (weights / k) @ np.cos(2 * np.pi * base * np.outer(k, t) + phases[:, None])
        return found

    def run(seed: int) -> Verdict:
        rng = np.random.default_rng(seed)
        if kind == "one resonance":
            taps = [1, -2 * 0.999 * np.cos(2 * np.pi * 500 / sfreq), 0.999**2]
            drawn = lfilter([1], taps, rng.standard_normal((2, len(t))))
        elif kind == "chords":
            drawn = np.stack(
                [sum(partials(f, rng) for f in rng.uniform(110, 440, 3)) for _ in range(2)]
            )
        else:
            drawn = np.stack(
                [partials(50.0, rng), simulate.speech(seconds, sfreq, random_state=rng)]
            )
        drawn /= drawn.std(axis=1, keepdims=True)
        data = simulate.instantaneous(drawn, sfreq=sfreq, random_state=seed).data
        data = np.round(data / np.abs(data).max() * 2**15 * 0.9) / 2**15
        return verdict_on(data, sfreq, "audio", "segments:.02")

    return run


def in_a_room(kind: str) -> Callable[[int], Verdict]:
    """Judge the convolutive family on 8 s at 8 kHz of two channels."""

    def run(seed: int) -> Verdict:
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


def cases() -> Iterator[tuple[str, Callable[[int], Verdict]]]:
    """Yield the name of each case and how to judge one seed of it."""
    for n in (2, 3, 4):
        yield f"white Gaussian, {n} sources", sources("gaussian", n)
    for kind in KINDS:
        yield f"{kind}, 4 sources", sources(kind, 4)
    yield "3 sources, 4000, saturated", short_and_saturated
    for n_layers, how in ((1, "mixed"), (2, "bent"), (3, "bent twice")):
        yield f"2 sources, labels, {how}", by_label(n_layers)
    for kind in ("instantaneous", "saturated", "room"):
        for n in (2, 3):
            yield f"{n} talkers, {kind}", talkers(kind, n)
    for kind in ("2 talkers", "3 talkers", "bent microphones", "white noise"):
        yield f"filters, {kind}", in_a_room(kind)
    for kind in ("chords", "hum, talker", "one resonance"):
        yield f"steady, {kind}", steady(kind)
    for kind, n in HIGH_RATE:
        yield f"44.1 kHz, {n} {kind}", at_high_rate(kind, n)


def auroc(negative: list[float], positive: list[float]) -> float:
    """Share of pairs in which the positive is larger."""
    a, b = np.array(negative), np.array(positive)[:, None]
    return float(np.mean((b > a) + 0.5 * (b == a)))


def tabulate(
    doc: str | None,
    n_seeds: int,
    cases: Iterable[tuple[str, Callable[[int], Fit]]],
    verdict: Callable[[Fit], Verdict],
    evidence: Evidence[Fit],
    summarise: Callable[[dict[str, list[Fit]]], None],
) -> None:
    """Judge what the command line asks for, and print a row for each case.

    Parameters
    ----------
    doc : str or None
        What the script is for, in its first line.
    n_seeds : int
        Seeds of each case where the command line names no number.
    cases : iterable of (str, callable)
        The name of each case, and what makes a fit of a seed and judges it.
    verdict : callable
        A fit's verdict.
    evidence : dict
        What else is printed of the fits: least, median and largest over the seeds.
    summarise : callable
        Given all fits by case, unless only some cases were asked for.
    """
    parser = argparse.ArgumentParser(description=doc.splitlines()[0] if doc else None)
    parser.add_argument("--seeds", type=int, default=n_seeds)
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="the first seed")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    options = parser.parse_args()
    print(f"{options.seeds} seeds from {options.first}: counts of each verdict; least, median and")
    print("largest evidence over the seeds (of the worst component); seconds of CPU")
    heads = "".join(f"{name:>18}" for name in LABELS) + "".join(f"{name:>21}" for name in evidence)
    print(f"{'':{WIDTH}}{heads}{'s':>7}")
    results: dict[str, list[Fit]] = {}
    for name, run in cases:
        if options.only not in name:
            continue
        begin = time.process_time()
        fits = [run(seed) for seed in range(options.first, options.first + options.seeds)]
        seconds = (time.process_time() - begin) / options.seeds
        results[name] = fits
        line = f"{name:{WIDTH}}"
        for label in LABELS:
            line += f"{sum(verdict(fit).label == label for fit in fits):18}"
        for measure in evidence.values():
            low, mid, high = np.quantile([measure(fit) for fit in fits], [0, 0.5, 1])
            line += f"   {low:5.3g} {mid:5.3g} {high:6.3g}"
        print(f"{line}{seconds:7.2f}", flush=True)
    if not options.only:
        summarise(results)


def summarise(results: dict[str, list[Verdict]]) -> None:
    """Print how well richness and misfit rank what is right above what is not."""

    def of(measure: str, *parts: str) -> list[float]:
        named = [found for name, found in results.items() if any(part in name for part in parts)]
        return [EVIDENCE[measure](verdict) for found in named for verdict in found]

    something = of("richness", *(f"{kind}, 4 sources" for kind in KINDS))
    area = auroc(of("richness", "white Gaussian"), something)
    print(f"\nAUROC of richness, white Gaussian against the others: {area:.4f}")
    for kind in ("saturated", "room"):
        area = auroc(of("misfit", "instantaneous"), of("misfit", kind))
        print(f"AUROC of misfit, instantaneous against {kind}: {area:.4f}")


def main() -> None:
    """Print the table."""
    tabulate(__doc__, 100, cases(), lambda v: v, EVIDENCE, summarise)


if __name__ == "__main__":
    main()
