"""How often the verdict is right for the nonlinear family: counts over fresh simulations.

    python benchmarks/verdict_nonlinear.py [--seeds 34] [--first 6000] [--only NAME]

Sources that u does not move, or moves all alike, must be refused, also with a u that is
shuffled; the nonlinear-ICA papers' sources must not be. Nor must a fit without memory be
trusted on a mixture with memory or with much noise, or of one source more than channels, or a
matrix on a nonlinear mixture, which it is where rows are few; where a matrix is right it must be.
Fits are short (2 restarts, 400 steps, 6 blocks), so that hundreds can be afforded. The seeds
begin at 6000; earlier versions of the verdict were seen on them, and on those from 12000, 13000,
770000, 880000 and 930000 in the runs that docs/figures.md tells of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from scipy.signal import lfilter
from verdict import EVIDENCE, Evidence, auroc, tabulate

from sourcesep.auxiliary import Auxiliary, Scale, from_array
from sourcesep.ivae.coupling import CouplingModel
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.model import Model
from sourcesep.metrics import mcc
from sourcesep.noise_check import HIDDEN
from sourcesep.simulate.networks import random_network
from sourcesep.simulate.protocols import Protocol, ivae, shuffled_labels
from sourcesep.verdict import LABELS, Verdict, judge

NOTHING, SOMETHING, CROWDED = "nothing: ", "sources: ", "one too many: "
FEW = (20, 40, 80, 160, 500)
"""Samples of a label where there are few."""
COVARIATES = (1, 2, 3)
"""Numbers of them, where u is continuous."""
RIGHT, FAIR = 0.95, 0.9
"""MCC of a fit that ought not to be refused, and of one that is ranked as good."""


class Judged(NamedTuple):
    """A verdict, and the MCC that it did not know."""

    verdict: Verdict
    mcc: float


Run = Callable[[int], Judged]
MEASURED: Evidence[Judged] = {
    **{name: lambda fit, of=of: of(fit.verdict) for name, of in EVIDENCE.items()},
    "correlation": lambda fit: fit.verdict.misfit.correlation,
    "MCC": lambda fit: fit.mcc,
}


def draw(
    seed: int, n: int, shuffled: bool = False, rows: int = 500, **settings: object
) -> Protocol:
    """Simulate the iVAE paper's protocol, small: 20 labels of 500 samples."""
    data = ivae(n, 20, rows, random_state=seed, **settings)  # type: ignore[arg-type]
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


def some_channels(seed: int, n: int) -> Protocol:
    """As many sources as channels, and one, through a network one channel of which is missing."""
    data = draw(seed, n + 1)
    return replace(data, observations=data.observations[:, :n])


def narrow(seed: int, n: int) -> Protocol:
    """As many sources as channels, and one, that a network's first matrix mixes into fewer."""
    data = draw(seed, n + 1)
    network = random_network(n + 1, 3, np.random.default_rng([seed, 2]), n_channels=n)
    return replace(data, observations=network(data.sources))


def by_covariates(
    seed: int, n: int, n_covariates: int, how: str = "linear", size: float = 1.0
) -> Protocol:
    """Simulate 10 000 rows of Gaussian sources whose log-deviations follow covariates.

    Covariates are uniform from -1 to 1. Linear log-deviations are the covariate times 1.5, -1.5
    and .75, or 1.2 times combinations of them in directions that lie as far apart as they can;
    "waves" are four cosines, in random directions, that have together a standard deviation of .6,
    another sum for each source, "common" the same for all. `size` is a factor of all that.
    "u of 2" in the table has two covariates.
    """
    rng = np.random.default_rng([seed, n_covariates])
    values = rng.uniform(-1, 1, (10_000, n_covariates))
    if how == "linear":
        if n_covariates == 1:
            directions = np.array([[1.25], [-1.25], [0.625]])[:n]
        elif n_covariates == 2:
            angle = np.pi * np.arange(n) / n + rng.uniform(0, np.pi)
            directions = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        else:
            directions = np.linalg.qr(rng.standard_normal((n_covariates, n)))[0].T
        log_scale = 1.2 * values @ directions.T
    else:
        shape = (1 if how == "common" else n, 4, n_covariates)
        directions, phase = 2 * rng.standard_normal(shape), rng.uniform(0, 2 * np.pi, shape[:2])
        waves = np.cos(np.einsum("tk,nwk->tnw", values, directions) + phase).sum(axis=2)
        log_scale = 0.6 * (waves - waves.mean(axis=0)) / waves.std(axis=0)
        if how == "common":
            log_scale = np.repeat(log_scale, n, axis=1)
    scales = np.exp(size * log_scale)
    sources = scales * rng.standard_normal(scales.shape)
    network = random_network(n, 3, rng)
    x = network(1.5 * sources / sources.std(axis=0))
    data = Protocol(sources, x, values, scales)  # type: ignore[arg-type]
    return shuffled_labels(data, random_state=seed) if how == "shuffled" else data


def short_flow() -> Model:
    """Return the nonlinear family at a size that hundreds of fits can be afforded of."""
    return CouplingModel(n_restarts=2, n_steps=400, n_blocks=6, device="cpu")


def judged(unfitted: Callable[[], Model], simulate: Callable[[int, int], Protocol]) -> Run:
    """Judge fits of a model to what is simulated with a seed and 2 or 3 sources."""

    def run(seed: int) -> Judged:
        data = simulate(seed, 2 + seed % 2)
        x = data.observations.T
        if data.u.ndim > 1:
            u = from_array(data.u, len(data.u))
        else:
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
    for k in COVARIATES:
        followed = partial(by_covariates, n_covariates=k)
        yield f"{NOTHING}u of {k}, stationary", nonlinear(partial(followed, size=0))
        yield f"{NOTHING}u of {k}, one modulation", nonlinear(partial(followed, how="common"))
        yield f"{NOTHING}u of {k}, shuffled", nonlinear(partial(followed, how="shuffled"))
        for how in ("linear", "waves"):
            yield f"{SOMETHING}u of {k}, {how}", nonlinear(partial(followed, how=how))
            faint = partial(followed, how=how, size=0.6)
            yield f"{SOMETHING}u of {k}, {how}, faint", nonlinear(faint)
    yield f"{CROWDED}a channel fewer", nonlinear(some_channels)
    yield f"{CROWDED}a narrow network", nonlinear(narrow)
    yield "mixed with memory", nonlinear(with_memory)
    yield "20 % noise", nonlinear(partial(draw, noise=0.2))
    yield "fitted by a matrix", judged(LinearModel, draw)
    for rows in FEW:
        still = partial(draw, rows=rows, n_layers=2, modulation="none")
        yield f"stationary, {20 * rows} rows, a matrix", judged(LinearModel, still)
        straight = partial(still, n_layers=1, source="laplace")
        yield f"right, {20 * rows} rows, a matrix", judged(LinearModel, straight)


def margin(verdict: Verdict) -> float:
    """By how much the evidence keeps its bounds, at the bound that it keeps least: 1 is just."""
    bounds = verdict.bounds
    margins = [
        min(verdict.richness) / bounds.richness,
        (1 - bounds.agreement) / (1 - min(verdict.agreement)),
        *(most / max(v, 1e-9) for v, most in zip(verdict.misfit, bounds.misfit, strict=True)),
    ]
    if verdict.noise is not None:
        margins.append(HIDDEN / max(verdict.noise, 1e-9))
    return min(margins)


def ranks(fits: list[Judged]) -> list[float]:
    """Place of each fit among all: by its verdict first, then by its margin."""
    keys = [(-LABELS.index(fit.verdict.label), margin(fit.verdict)) for fit in fits]
    places = {key: float(place) for place, key in enumerate(sorted(set(keys)))}
    return [places[key] for key in keys]


def summarise(results: dict[str, list[Judged]]) -> None:
    """Print how many were refused that should be, and that should not; areas under the curve."""

    def of(*kinds: str) -> list[Judged]:
        return [fit for k, found in results.items() if k.startswith(kinds) for fit in found]

    nothing, something, crowded = of(NOTHING), of(SOMETHING), of(CROWDED)
    for name, fits in (
        ("nothing to find", nothing),
        (f"sources, MCC {RIGHT} or more", [fit for fit in something if fit.mcc >= RIGHT]),
        (f"one source too many, MCC below {FAIR}", [fit for fit in crowded if fit.mcc < FAIR]),
        (f"one source too many, MCC {FAIR} or more", [f for f in crowded if f.mcc >= FAIR]),
    ):
        refused = sum(fit.verdict.label == LABELS[2] for fit in fits)
        trusted = sum(fit.verdict.label == LABELS[0] for fit in fits)
        print(f"{name}: {refused} of {len(fits)} refused, {trusted} trusted")
    richness = [[min(fit.verdict.richness) for fit in fits] for fits in (nothing, something)]
    print(f"AUROC of richness, nothing against sources: {auroc(*richness):.4f}")
    everything = of("")
    lucky = [k.startswith(NOTHING) for k, found in results.items() for _ in found]
    place, good = np.array(ranks(everything)), np.array([fit.mcc >= FAIR for fit in everything])
    for name, right in (
        (f"MCC {FAIR} or more against less", good),
        ("the same, but right by luck counts as wrong", good & ~np.array(lucky)),
    ):
        area = auroc(place[~right].tolist(), place[right].tolist())
        print(f"AUROC of the verdict, {name}: {area:.4f} ({right.sum()} of {len(right)} good)")


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    tabulate(__doc__, 34, cases(), lambda fit: fit.verdict, MEASURED, summarise)


if __name__ == "__main__":
    main()
