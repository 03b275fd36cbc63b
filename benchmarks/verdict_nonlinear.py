"""How often the verdict is right for the nonlinear family: counts over fresh simulations.

    python benchmarks/verdict_nonlinear.py [--seeds 34] [--first 6000] [--only NAME]

Sources that u does not move, or moves all alike, must be refused, also with a u that is
shuffled; the nonlinear-ICA papers' sources must not be. Nor must a fit without memory be
trusted on a mixture with memory, or a matrix on a nonlinear mixture. Sensor noise is a row
that says what the verdict cannot see. Fits are short (2 restarts, 400 steps, 6 blocks), so
that hundreds can be afforded. The seeds begin at 6000; earlier versions of the verdict were seen
on them, from 12000 on none was.
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
from scipy.signal import lfilter
from verdict import FIRST_SEED, LABELS, auroc

from sourcesep.auxiliary import Auxiliary, Scale
from sourcesep.ivae.coupling import CouplingModel
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.model import Model
from sourcesep.metrics import mcc
from sourcesep.simulate.protocols import Protocol, ivae, shuffled_labels
from sourcesep.verdict import Verdict, judge

NOTHING, SOMETHING = "nothing: ", "sources: "
RIGHT = 0.95
"""MCC of a fit that ought not to be refused."""


class Judged(NamedTuple):
    """A verdict, and the MCC that it did not know."""

    verdict: Verdict
    mcc: float


Run = Callable[[int], Judged]


def draw(seed: int, n: int, shuffled: bool = False, **settings: object) -> Protocol:
    """Simulate the iVAE paper's protocol, small: 20 labels of 500 samples."""
    data = ivae(n, 20, 500, random_state=seed, **settings)  # type: ignore[arg-type]
    return shuffled_labels(data, random_state=seed) if shuffled else data


def with_memory(seed: int, n: int) -> Protocol:
    """Modulated sources through filters of 8 taps, then a curve a channel."""
    data = ivae(n, 20, 500, 1, random_state=seed)
    taps = np.random.default_rng([seed, 1]).standard_normal((n, n, 8)) * np.exp(-np.arange(8) / 3)
    x = np.zeros_like(data.sources)
    for channel, source in np.ndindex(n, n):
        x[:, channel] += lfilter(taps[channel, source], [1.0], data.sources[:, source])
    x /= x.std(axis=0)
    return replace(data, observations=np.tanh(x) + 0.1 * x)


def short_flow() -> Model:
    """Return the nonlinear family at a size that hundreds of fits can be afforded of."""
    return CouplingModel(n_restarts=2, n_steps=400, n_blocks=6, device="cpu")


def judged(unfitted: Callable[[], Model], simulate: Callable[[int, int], Protocol]) -> Run:
    """Judge fits of a model to what is simulated with a seed and 2 or 3 sources."""

    def run(seed: int) -> Judged:
        data = simulate(seed, 2 + seed % 2)
        x = data.observations.T
        names = tuple(map(str, range(data.u.max() + 1)))
        u = Auxiliary((Scale(data.u, names),), None, True, "segments")
        model = unfitted().fit(x, u, np.random.default_rng(seed))
        score = mcc(data.sources, model.posterior(x).mean.T)
        return Judged(judge(model, x, u, 1.0, np.random.default_rng(seed)), score)

    return run


def cases() -> Iterator[tuple[str, Run]]:
    """Yield the name of each case and how to judge one seed of it."""
    nonlinear = partial(judged, short_flow)
    yield f"{NOTHING}stationary", nonlinear(partial(draw, modulation="none"))
    yield f"{NOTHING}one modulation", nonlinear(partial(draw, modulation="common"))
    yield f"{NOTHING}shuffled u", nonlinear(partial(draw, shuffled=True))
    yield f"{SOMETHING}Gaussian, tanh", nonlinear(draw)
    yield f"{SOMETHING}leaky ReLU", nonlinear(partial(draw, activation="leaky-relu", slope=0.2))
    yield f"{SOMETHING}Laplace", nonlinear(partial(draw, source="laplace"))
    yield "mixed with memory", nonlinear(with_memory)
    yield "20 % noise", nonlinear(partial(draw, noise=0.2))
    yield "fitted by a matrix", judged(LinearModel, draw)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=34)
    parser.add_argument("--first", type=int, default=FIRST_SEED, help="the first seed")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{options.seeds} seeds from {options.first}: counts of each verdict; least, median and")
    print("largest evidence over the seeds (of the worst component), and MCC; seconds of CPU")
    widths = "".join(f"{label:>18}" for label in LABELS)
    print(f"{'':26}{widths}{'richness':>22}{'agreement':>21}{'misfit':>21}{'MCC':>21}{'s':>6}")
    results: dict[str, list[Judged]] = {}
    for name, run in cases():
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
        summarise(results)


def summarise(results: dict[str, list[Judged]]) -> None:
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
