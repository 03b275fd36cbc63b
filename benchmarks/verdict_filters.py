"""How often the verdict is right on fits with filters: counts over fresh simulations.

    python benchmarks/verdict_filters.py [--seeds 8] [--first 14000] [--only NAME ...]

Two sources whose power changes, white within each of 40 segments of 1000 samples, through
filters and a curve, as in benchmarks/post_nonlinear.py. Fits with taps enough ought to be trusted;
those with too few, of sources that nothing tells apart, of noisy sensors, and without memory ought
not. SDR is that of the fit's own samples, after a two-sided alignment of 65 taps.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from post_nonlinear import (
    DRIVE,
    LENGTHS,
    Array,
    filtered,
    labelled,
    matched_sdr,
    mixture_with_memory,
    random_filter,
)

from sourcesep.ivae.post_nonlinear import PostNonlinearModel
from sourcesep.verdict import LABELS, Verdict, judge

FIRST_SEED = 14_000


class Case(NamedTuple):
    """What is mixed, and how it is fitted.

    Parameters
    ----------
    chain : str
        One of those of benchmarks/post_nonlinear.py.
    fitted : tuple of int
        Taps of the mixing, and behind the curves.
    taps : int
        Of the mixing in truth; 8 as that benchmark draws them.
    is_white : bool
        Whether sources are stationary, so that nothing tells them apart.
    noise : float
        Standard deviation in each channel, in units of its own.
    """

    chain: str = "FIR, tanh"
    fitted: tuple[int, int] = (8, 1)
    taps: int = 8
    is_white: bool = False
    noise: float = 0.0


CASES = {
    "FIR, tanh": Case(),
    "FIR, leaky ReLU, FIR": Case("FIR, leaky ReLU, FIR", (8, 4)),
    "FIR, tanh, FIR": Case("FIR, tanh, FIR", (8, 4)),
    "24 taps, 4 fitted": Case(fitted=(4, 1), taps=24),
    "24 taps, 2 fitted": Case(fitted=(2, 1), taps=24),
    "64 taps, 4 fitted": Case(fitted=(4, 1), taps=64),
    "8 taps, 1 fitted": Case(fitted=(1, 1)),
    "white sources": Case(is_white=True),
    "2 % noise": Case(noise=0.02),
}


def mixed(case: Case, seed: int) -> tuple[Array, Array]:
    """Draw sources and what two channels hear of them, each (2, n_times)."""
    mixture = mixture_with_memory(case.chain, seed)
    sources, x = mixture.sources[0], mixture.x[0]
    rng = np.random.default_rng([seed, 9])
    if case.is_white:
        sources = rng.standard_normal(sources.shape)
    if case.is_white or case.taps != 8:
        y = filtered(random_filter(rng, case.taps, 1.0), sources)
        x = np.tanh(DRIVE * y / y.std(axis=1, keepdims=True))
    deviation = case.noise * x.std(axis=1, keepdims=True)
    return sources, x + deviation * rng.standard_normal(x.shape)


def judged(case: Case, seed: int) -> tuple[Verdict, float]:
    """Return the verdict on a fit, and the SDR in dB that it did not know."""
    sources, x = mixed(case, seed)
    u = labelled(x.shape[1], LENGTHS[0])
    model = PostNonlinearModel(kernel_size=case.fitted[0], post_kernel_size=case.fitted[1])
    model.fit(x, u, np.random.default_rng(0))
    score = matched_sdr(sources, model.posterior(x, u).mean)
    return judge(model, x, u, 1.0, np.random.default_rng(0)), score


def rows(first: int, n_seeds: int, names: list[str]) -> Iterator[str]:
    """Judge all seeds of each case, and yield its row of the table."""
    for name in names:
        case = CASES[name]
        begin = time.process_time()
        fits = [judged(case, seed) for seed in range(first, first + n_seeds)]
        seconds = (time.process_time() - begin) / n_seeds
        counts = " | ".join(str(sum(v.label == label for v, _ in fits)) for label in LABELS)
        spans = [
            np.quantile(values, [0, 0.5, 1])
            for values in (
                [min(v.richness) for v, _ in fits],
                [min(v.agreement) for v, _ in fits],
                [v.misfit.delay / v.bounds.misfit.delay for v, _ in fits],
                [score for _, score in fits],
            )
        ]
        evidence = " | ".join(" ".join(f"{value:.3g}" for value in span) for span in spans)
        trusted = [score for v, score in fits if v.label == LABELS[0]]
        least = f"{min(trusted):.1f}" if trusted else ""
        yield f"| {name} | {counts} | {evidence} | {least} | {seconds:.1f} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="the first seed")
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    options = parser.parse_args()
    heads = (*LABELS, "richness", "agreement", "delay, of its bound", "SDR, dB")
    print(f"| mixture | {' | '.join(heads)} | least SDR trusted | CPU s |")
    print("|---" * (len(heads) + 3) + "|")
    for row in rows(options.first, options.seeds, options.only):
        print(row, flush=True)


if __name__ == "__main__":
    main()
