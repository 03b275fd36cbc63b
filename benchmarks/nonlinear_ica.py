"""MCC and CPU seconds of nonlinear ICA on the papers' data, and whether fits agree.

    python benchmarks/nonlinear_ica.py paper d10 --seeds 21 22 23 24
    python benchmarks/nonlinear_ica.py paper --seeds 21 22 --peers --agreement

A fifth of every segment is never seen by any method: MCC "out" is on it, "in" on the rest.
One thread; CPU seconds are those of a fit, from the raw samples on. What else runs on a
machine inflates them, so they are also given in units of a reference (a fixed number of
small matrix products) timed next to each fit. ``--peers`` adds the published iVAE and the
plain VAE (`peers_nonlinear`), ``--agreement`` the MCC between fits with two seeds, and
between fits on two halves of the data: three more fits.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from peers_nonlinear import VAE

from sourcesep.auxiliary import Auxiliary, Scale
from sourcesep.evidence import replica_agreement
from sourcesep.ivae.coupling import CouplingModel
from sourcesep.ivae.heldout import random_halves
from sourcesep.ivae.model import Array
from sourcesep.ivae.priors import SHAPES
from sourcesep.ivae.settings import QUALITIES, Settings
from sourcesep.metrics import mcc
from sourcesep.simulate.protocols import Protocol, icebeem, ivae, shuffled_labels
from sourcesep.verdict import judge

CASES: dict[str, Callable[[int], Protocol]] = {
    "paper": lambda seed: ivae(random_state=seed),
    "d2": lambda seed: ivae(2, random_state=seed),
    "d10": lambda seed: ivae(10, random_state=seed),
    "4-layers": lambda seed: ivae(n_layers=4, random_state=seed),
    "5-layers": lambda seed: ivae(n_layers=5, random_state=seed),
    "8x5000": lambda seed: ivae(5, 8, 5000, random_state=seed),
    "laplace": lambda seed: ivae(source="laplace", random_state=seed),
    "noise": lambda seed: ivae(noise=0.05, random_state=seed),
    "icebeem": lambda seed: icebeem(n_layers=4, random_state=seed),
    "10-channels": lambda seed: ivae(n_channels=10, random_state=seed),
    "linear": lambda seed: ivae(n_layers=1, random_state=seed),
    "shuffled": lambda seed: shuffled_labels(ivae(random_state=seed), random_state=seed),
    "stationary": lambda seed: ivae(modulation="none", random_state=seed),
    "common": lambda seed: ivae(modulation="common", random_state=seed),
}
HEADS = ("out", "out, Spearman", "in", "in, Spearman", "CPU s", "CPU / reference")
Separate = Callable[[Array, NDArray[np.int64]], Array]


class Data(NamedTuple):
    """A case's observations (n_channels, n_times), truth (n_times, n_sources) and labels."""

    x: Array
    truth: Array
    labels: NDArray[np.int64]
    out: NDArray[np.bool_]

    @property
    def n_sources(self) -> int:
        """Number of sources."""
        return self.truth.shape[1]

    @property
    def u(self) -> Auxiliary:
        """The labels as u."""
        names = tuple(str(k) for k in range(self.labels.max() + 1))
        return Auxiliary((Scale(self.labels, names),), None, True, "segments")


def draw(case: str, seed: int) -> Data:
    """Simulate a case, and choose a random fifth of every segment."""
    data = CASES[case](seed)
    rng = np.random.default_rng([seed, 1])
    out = np.zeros(len(data.u), bool)
    for label in np.unique(data.u):
        where = rng.permutation(np.flatnonzero(data.u == label))
        out[where[: len(where) // 5]] = True
    return Data(data.observations.T, data.sources, data.u, out)


def reference() -> float:
    """CPU seconds of a fixed workload, of the sizes that a flow of 4 restarts is made of."""
    a, b = torch.ones(4, 16, 17), torch.ones(4, 17, 240)
    begun = time.process_time()
    for _ in range(20_000):
        torch.sigmoid(torch.bmm(a, b))
    return time.process_time() - begun


def fit_coupling(
    data: Data, part: NDArray[np.bool_], quality: str, restarts: int | None, seed: int
) -> CouplingModel:
    """Fit the nonlinear family to a part of the samples."""
    n = data.n_sources if data.n_sources < len(data.x) else None
    settings = Settings(n, shapes=SHAPES, quality=quality, n_restarts=restarts, device="cpu")
    model = CouplingModel.configured(settings)
    return model.fit(data.x[:, part], data.u.take(part), np.random.default_rng(seed))


def peers(data: Data, seed: int, *, all_of_them: bool) -> dict[str, Callable[[], Separate]]:
    """Each peer: what fits it to what may be seen, and returns how it separates."""
    seen, labels, n = data.x[:, ~data.out], data.labels[~data.out], data.n_sources

    def fastica() -> Separate:
        from sklearn.decomposition import FastICA

        model = FastICA(n, random_state=seed, max_iter=1000).fit(seen.T)
        return lambda x, u: model.transform(x.T).T

    def picard() -> Separate:
        from picard import Picard

        model = Picard(n, extended=True, ortho=False, random_state=seed, max_iter=500)
        model.fit(seen.T)
        return lambda x, u: model.transform(x.T).T

    def vae(n_labels: int) -> Separate:
        return VAE(len(seen), n, n_labels, seed).fit(seen, labels).posterior_mean

    found: dict[str, Callable[[], Separate]] = {"FastICA": fastica, "Picard (extended)": picard}
    if all_of_them:
        found["plain VAE"] = lambda: vae(0)
        found["published iVAE"] = lambda: vae(int(data.labels.max()) + 1)
    return found


def scores(data: Data, separate: Separate) -> list[float]:
    """MCC on unseen and seen samples, Pearson and Spearman of each."""
    found = []
    for part in (data.out, ~data.out):
        z = separate(data.x[:, part], data.labels[part]).T
        found += [mcc(data.truth[part], z), mcc(data.truth[part], z, "spearman")]
    return found


def run(case: str, seed: int, options: argparse.Namespace) -> dict[str, list[float]]:
    """Print a row for each method, and say whether fits agree."""
    data = draw(case, seed)
    rows: dict[str, list[float]] = {}

    def row(name: str, separate: Separate, seconds: float, relative: float) -> None:
        rows[name] = [*scores(data, separate), seconds, relative]
        _print(case, str(seed), name, rows[name])

    for name, fit in peers(data, seed, all_of_them=options.peers).items():
        unit, begun = reference(), time.process_time()
        separate = fit()
        seconds = time.process_time() - begun
        row(name, separate, seconds, 2 * seconds / (unit + reference()))
    unit, begun = reference(), time.process_time()
    model = fit_coupling(data, ~data.out, options.quality, options.restarts, seed)
    seconds = time.process_time() - begun
    relative = 2 * seconds / (unit + reference())
    row("joint diagonalisation", lambda x, u: model.linear.posterior(x).mean, 0.0, 0.0)
    row("best restart", lambda x, u: model.restarts(x)[0], seconds, relative)
    row("consensus", lambda x, u: model.posterior(x).mean, seconds, relative)
    _say_agreement(data, model, seed, options)
    return rows


def _say_agreement(
    data: Data, model: CouplingModel, seed: int, options: argparse.Namespace
) -> None:
    rng = np.random.default_rng(seed)
    verdict = judge(model, data.x[:, ~data.out], data.u.take(~data.out), 1.0, rng)
    unseen = data.x[:, data.out]
    said = [
        f"{verdict.label}; richness {min(verdict.richness):.1f} or more, misfit "
        f"{verdict.misfit.delay:.1f}, {verdict.misfit.power:.1f}",
        f"agreement of restarts {replica_agreement(model.replicas(unseen)).mean():.4f}",
    ]
    if options.agreement:

        def consensus(part: NDArray[np.bool_], seed: int) -> Array:
            fit = fit_coupling(data, part, options.quality, options.restarts, seed)
            return fit.posterior(unseen).mean.T

        again = consensus(~data.out, seed + 1000)
        half = np.full(len(data.out), -1)
        seen = data.u.take(~data.out)
        half[~data.out] = random_halves(seen.labels, seen.n_labels, rng)
        halves = [consensus(half == which, seed) for which in (0, 1)]
        said.append(f"of seeds {mcc(model.posterior(unseen).mean.T, again):.4f}")
        said.append(f"of halves {mcc(*halves):.4f}")
    print(f"  verdict: {', '.join(said)}", flush=True)
    print(f"  {verdict.sentence}", flush=True)


def main() -> None:
    """Print a row for each data set and method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("cases", nargs="+", choices=list(CASES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[21, 22, 23, 24])
    parser.add_argument("--quality", choices=QUALITIES, default="normal")
    parser.add_argument("--restarts", type=int)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--agreement", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| case | seed | method | " + " | ".join(HEADS) + " |")
    print("|---" * (len(HEADS) + 3) + "|")
    for case in options.cases:
        found = [run(case, seed, options) for seed in options.seeds]
        if len(found) > 1:
            for name in found[0]:
                _print(case, "mean", name, list(np.mean([rows[name] for rows in found], axis=0)))


def _print(case: str, seed: str, name: str, row: list[float]) -> None:
    cells = [f"{value:.4f}" for value in row[:-2]] + [f"{value:.1f}" for value in row[-2:]]
    print(f"| {case} | {seed} | {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
