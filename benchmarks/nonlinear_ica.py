"""MCC out of sample and CPU seconds of nonlinear ICA on the papers' data.

    python benchmarks/nonlinear_ica.py paper d10 --seeds 21 22 23 24

A fifth of every segment is never seen by any method. One thread; CPU seconds include
everything from the raw samples to the fitted model.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from sourcesep.auxiliary import Auxiliary, Scale
from sourcesep.ivae.coupling import CouplingModel
from sourcesep.ivae.model import Array
from sourcesep.metrics import mcc
from sourcesep.simulate.protocols import Protocol, icebeem, ivae, shuffled_labels

CASES: dict[str, Callable[[int], Protocol]] = {
    "paper": lambda seed: ivae(random_state=seed),
    "d2": lambda seed: ivae(2, random_state=seed),
    "d10": lambda seed: ivae(10, random_state=seed),
    "4-layers": lambda seed: ivae(n_layers=4, random_state=seed),
    "5-layers": lambda seed: ivae(n_layers=5, random_state=seed),
    "8x5000": lambda seed: ivae(5, 8, 5000, random_state=seed),
    "laplace": lambda seed: ivae(source="laplace", random_state=seed),
    "icebeem": lambda seed: icebeem(n_layers=4, random_state=seed),
    "10-channels": lambda seed: ivae(n_channels=10, random_state=seed),
    "linear": lambda seed: ivae(n_layers=1, random_state=seed),
    "shuffled": lambda seed: shuffled_labels(ivae(random_state=seed), random_state=seed),
    "stationary": lambda seed: ivae(modulation="none", random_state=seed),
}
METHODS = ("FastICA", "joint diag.", "best restart", "consensus", "consensus, Spearman")


def unseen(labels: Array, seed: int) -> Array:
    """A random fifth of every segment."""
    rng = np.random.default_rng([seed, 1])
    out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        where = rng.permutation(np.flatnonzero(labels == label))
        out[where[: len(where) // 5]] = True
    return out


def run(case: str, seed: int, settings: dict[str, float]) -> tuple[list[float], float, float]:
    """MCC of every method out of sample, agreement of the restarts, CPU seconds of ours."""
    from sklearn.decomposition import FastICA

    data = CASES[case](seed)
    names = tuple(str(k) for k in range(data.u.max() + 1))
    u = Auxiliary((Scale(data.u, names),), None, True, "segments")
    out = unseen(data.u, seed)
    x, truth = data.observations.T, data.sources[out]
    n_sources = truth.shape[1]
    fast = FastICA(n_sources, random_state=seed, max_iter=1000).fit(x[:, ~out].T)
    model = CouplingModel(n_sources if n_sources < len(x) else None, **settings)
    begun = time.process_time()
    model.fit(x[:, ~out], u.take(~out), np.random.default_rng(seed))
    seconds = time.process_time() - begun
    restarts = model.restarts(x[:, out])
    consensus = model.posterior(x[:, out]).mean.T
    scores = [
        mcc(truth, fast.transform(x[:, out].T)),
        mcc(truth, model.linear.posterior(x[:, out]).mean.T),
        mcc(truth, restarts[0].T),
        mcc(truth, consensus),
        mcc(truth, consensus, "spearman"),
    ]
    pairs = [(a, b) for i, a in enumerate(restarts) for b in restarts[:i]]
    agreement = np.mean([mcc(a.T, b.T) for a, b in pairs]) if pairs else 1.0
    return scores, float(agreement), seconds


def main() -> None:
    """Print one row a data set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="+", choices=list(CASES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22, 23, 24])
    parser.add_argument("--restarts", type=int)
    parser.add_argument("--steps", type=int)
    arguments = parser.parse_args()
    asked = {"n_restarts": arguments.restarts, "n_steps": arguments.steps}
    settings = {name: value for name, value in asked.items() if value is not None}
    torch.set_num_threads(1)
    print("| case | seed | " + " | ".join(METHODS) + " | agreement | CPU s |")
    print("|---" * (len(METHODS) + 4) + "|")
    for case in arguments.cases:
        rows = []
        for seed in arguments.seeds:
            scores, agreement, seconds = run(case, seed, settings)
            rows.append([*scores, agreement, seconds])
            _print(case, str(seed), rows[-1])
        if len(rows) > 1:
            _print(case, "mean", list(np.mean(rows, axis=0)))


def _print(case: str, seed: str, row: list[float]) -> None:
    cells = [f"{value:.4f}" for value in row[:-1]] + [f"{row[-1]:.1f}"]
    print(f"| {case} | {seed} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
