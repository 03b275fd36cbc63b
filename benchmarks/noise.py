"""MCC out of sample and CPU seconds where sensors are noisy or more than sources.

    python benchmarks/noise.py clean noise-5 noise-20 10-channels 10-channels-5 --seeds 21 22 23 24
    python benchmarks/noise.py noise-5 noise-20 --auto

The iVAE paper's data: 5 sources, 40 segments x 1000 samples, 3 layers; noise in percent
of each channel's standard deviation. A fifth of every segment is never seen by any
method. `oracle` is the posterior mean by the true network, noise and scales
(`benchmarks/oracle.py`), on every fourth of the unseen samples: nothing can be better.
`flow` is the consensus of coupling flows that the amortised fit starts from: all
channels with 10 of them, of whose components the 5 that u tells most of are scored. One
thread; CPU seconds are those of the amortised fit, its start included.
Bounds are log densities of the unseen samples, nats a sample of standardised channels:
exact for the flow, importance-weighted for the amortised model.

`--auto` asks what `IVAE().fit(x, u=labels)` chooses, and how far it comes: `share` is how
much of the way from joint diagonalisation to the oracle it goes; `noise` is the verdict's
evidence on the nonlinear fit; CPU seconds are those of the whole call.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from oracle import posterior
from threadpoolctl import threadpool_limits

from sourcesep import IVAE
from sourcesep.auxiliary import Auxiliary, Scale
from sourcesep.ivae.amortised import AmortisedModel
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.model import Array
from sourcesep.metrics import mcc
from sourcesep.simulate.protocols import Protocol, ivae

NOISE = {"clean": 0.0, "noise-5": 0.05, "noise-20": 0.2, "10-channels": 0.0, "10-channels-5": 0.05}
"""In units of a channel's standard deviation."""
CASES: dict[str, Callable[[int], Protocol]] = {
    "clean": lambda seed: ivae(random_state=seed),
    "noise-5": lambda seed: ivae(noise=NOISE["noise-5"], random_state=seed),
    "noise-20": lambda seed: ivae(noise=NOISE["noise-20"], random_state=seed),
    "10-channels": lambda seed: ivae(n_channels=10, random_state=seed),
    "10-channels-5": lambda seed: ivae(
        n_channels=10, noise=NOISE["10-channels-5"], random_state=seed
    ),
}
MCCS = ("joint diag.", "flow", "amortised", "oracle")
DENSITIES = ("flow's density", "amortised bound", "oracle's")
ORACLE = slice(None, None, 4)
"""Of the unseen samples, those that the oracle is asked for."""


def unseen(labels: Array, seed: int) -> Array:
    """A random fifth of every segment."""
    rng = np.random.default_rng([seed, 1])
    out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        where = rng.permutation(np.flatnonzero(labels == label))
        out[where[: len(where) // 5]] = True
    return out


def oracle(data: Protocol, out: NDArray[np.bool_], noise: float, seed: int) -> tuple[float, float]:
    """MCC and log density by the truth; 1 and unknown where there is no noise."""
    if noise == 0 or data.network is None:
        return 1.0, np.nan
    some = np.flatnonzero(out)[ORACLE]
    deviation = noise * data.network(data.sources).std(axis=0)
    mean, density = posterior(
        data.network,
        data.observations[some],
        data.scales[data.u[some]],
        deviation,
        np.random.default_rng(seed),
    )
    width = data.observations.std(axis=0)
    return mcc(data.sources[some], mean), float(density.mean() + np.log(width).sum())


def run(case: str, seed: int, n_steps: int, n_restarts: int) -> tuple[list[float], str]:
    """MCC of every method out of sample, the densities, CPU seconds; the candidate kept."""
    data = CASES[case](seed)
    names = tuple(str(k) for k in range(data.u.max() + 1))
    u = Auxiliary((Scale(data.u, names),), None, True, "segments")
    out = unseen(data.u, seed)
    x, truth = data.observations.T, data.sources[out]
    x = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
    n_sources = truth.shape[1]
    linear = LinearModel(n_sources, starts=("segments",))
    linear.fit(x[:, ~out], u.take(~out), np.random.default_rng(seed))
    model = AmortisedModel(
        n_sources,
        kernel_size=1,
        candidates=("flow", "networks"),
        n_steps=n_steps,
        n_restarts=n_restarts,
    )
    begun = time.process_time()
    model.fit(x[:, ~out], u.take(~out), np.random.default_rng(seed))
    seconds = time.process_time() - begun
    test = u.take(out)
    start = model.map.start
    density = np.nan if start.flow is None else start.flow.log_density(x[:, out], test).mean()
    best, limit = oracle(data, out, NOISE[case], seed)
    row = [
        mcc(truth, linear.posterior(x[:, out]).mean.T),
        mcc(truth, start(x[:, out]).T),
        mcc(truth, model.posterior(x[:, out], test).mean.T),
        best,
        float(density),
        float(model.log_density(x[:, out], test).mean()),
        limit,
        seconds,
    ]
    return row, model.candidate


def run_auto(case: str, seed: int) -> tuple[list[float], str]:
    """MCC out of sample of joint diagonalisation, `auto` and oracle, share; what was kept."""
    data = CASES[case](seed)
    out = unseen(data.u, seed)
    x, labels, truth = data.observations, data.u, data.sources[out]
    given = {"X": x[~out], "u": labels[~out]}
    simple = IVAE(mixing="linear", starts=("segments",), random_state=seed).fit(**given)
    begun = time.process_time()
    chosen = IVAE(random_state=seed).fit(**given)
    seconds = time.process_time() - begun
    found = chosen.transform(x[out], u=labels[out])
    low, reached = mcc(truth, simple.transform(x[out])), mcc(truth, found)
    best = oracle(data, out, NOISE[case], seed)[0]
    share = (reached - low) / (best - low)
    noise = chosen.verdict_.noise
    row = [low, reached, best, share, np.nan if noise is None else noise, seconds]
    return row, f"{chosen.model_.family}, {chosen.model_.choice}; {chosen.verdict_.label}"


def main() -> None:
    """Print one row a data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="+", choices=list(CASES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22, 23, 24])
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--restarts", type=int, default=4)
    parser.add_argument("--auto", action="store_true", help="what IVAE() chooses")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    heads = ("case", "seed", *MCCS, *DENSITIES, "CPU s", "kept")
    if arguments.auto:
        heads = ("case", "seed", MCCS[0], "auto", "oracle", "share", "noise", "CPU s", "kept")
    print("| " + " | ".join(heads) + " |")
    print("|---" * len(heads) + "|")
    for case in arguments.cases:
        rows = []
        for seed in arguments.seeds:
            with threadpool_limits(limits=1):
                if arguments.auto:
                    row, kept = run_auto(case, seed)
                else:
                    row, kept = run(case, seed, arguments.steps, arguments.restarts)
            rows.append(row)
            _print(case, str(seed), row, kept)
        if len(rows) > 1:
            _print(case, "mean", list(np.mean(rows, axis=0)), "")


def _print(case: str, seed: str, row: list[float], kept: str) -> None:
    cells = [f"{value:.4f}" for value in row[:-1]] + [f"{row[-1]:.1f}", kept]
    print(f"| {case} | {seed} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
