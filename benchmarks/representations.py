"""Representations of images: whether two fits agree (digits), or find the factors (simulated).

    python benchmarks/representations.py digits --draws 20
    python benchmarks/representations.py images --seeds 0 1 2 3

Digits: scikit-learn's 8 x 8 images, K = 4, u = the digit. Each draw holds 450 images out, fits
two disjoint halves of the others, and compares what both make of the 450 (MCC). Images:
`simulate.images`, a fifth of every label never seen by any method; MCC, DCI and MIG with the
sources there. One thread; seconds are CPU seconds of a fit with its verdict.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peers_representations import VAE
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA, FastICA
from sklearn.exceptions import ConvergenceWarning

from sourcesep import IVAE, simulate
from sourcesep.metrics import dci, mcc, mig

Array = NDArray[np.float64]
Labels = NDArray[np.int64]
Fit = Callable[[Array, Labels, int], Any]

N_HELD = 450
FIRST_DRAW = 100
"""Draws before were for development."""
SETTINGS: dict[str, dict[str, Any]] = {
    "40 labels x 500": {},
    "20 labels x 500": {"n_labels": 20},
    "rectangle": {"shape": "rectangle"},
    "noise .05": {"noise": 0.05},
    "reach 1.7": {"reach": 1.7},
    "stationary": {"modulation": "none"},
}


def ours(mixing: str, quality: str = "normal") -> Callable[[int], Fit]:
    """`IVAE` of a family, of a number of components; rows are in no order, so starts ask u."""

    def with_components(k: int) -> Fit:
        def fit(x: Array, u: Labels, seed: int) -> IVAE:
            starts = ("segments",) if mixing == "linear" else ("segments", "non-gaussian")
            ivae = IVAE(k, mixing=mixing, starts=starts, quality=quality, random_state=seed)
            return ivae.fit(x, u=u)

        return fit

    return with_components


def vae(*, with_u: bool = False, beta: float = 1.0, n_steps: int = 1000) -> Callable[[int], Fit]:
    """A peer of `peers_representations`."""

    def with_components(k: int) -> Fit:
        def fit(x: Array, u: Labels, seed: int) -> VAE:
            n_labels = int(u.max()) + 1 if with_u else 0
            made = VAE(x.shape[1], k, n_labels=n_labels, beta=beta, n_steps=n_steps, seed=seed)
            return made.fit(x, u)

        return fit

    return with_components


def decomposition(kind: Callable[..., Any]) -> Callable[[int], Fit]:
    """PCA or FastICA of scikit-learn."""

    def with_components(k: int) -> Fit:
        def fit(x: Array, u: Labels, seed: int) -> Any:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                return kind(k, random_state=seed).fit(x)

        return fit

    return with_components


METHODS: dict[str, Callable[[int], Fit]] = {
    "linear iVAE": ours("linear"),
    "nonlinear iVAE": ours("nonlinear"),
    "nonlinear iVAE, `fast`": ours("nonlinear", "fast"),
    "amortised iVAE, `fast`": ours("amortised", "fast"),
    "iVAE, random start": vae(with_u=True),
    "plain VAE": vae(),
    "beta-VAE, beta = 4": vae(beta=4.0),
    "PCA": decomposition(PCA),
    "FastICA": decomposition(FastICA),
}
DIGITS = {
    "linear iVAE": 20,
    "PCA": 20,
    "FastICA": 20,
    "nonlinear iVAE, `fast`": 10,
    "amortised iVAE, `fast`": 1,
    "iVAE, random start": 4,
    "plain VAE": 4,
    "beta-VAE, beta = 4": 4,
}
"""Draws, at most, that each method is run on: some are slow."""
WITH_SHUFFLED = ("linear iVAE", "nonlinear iVAE", "nonlinear iVAE, `fast`", "iVAE, random start")


def transformed(fitted: Any, x: Array, u: Labels) -> Array:
    """What a fit makes of x; only the amortised family asks for u."""
    needs_u = isinstance(fitted, IVAE) and not fitted.model_.is_invertible
    z: Array = fitted.transform(x, u=u) if needs_u else fitted.transform(x)
    return z


def without_means(z: Array, u: Labels) -> Array:
    """Return z with the mean of every label removed."""
    counts = np.maximum(np.bincount(u), 1)[:, None]
    return z - (np.stack([np.bincount(u, column) for column in z.T], axis=1) / counts)[u]


def told_by_label(z: Array, u: Labels) -> float:
    """R2 of the label: the share of z's variance that is between labels."""
    return float(1 - without_means(z, u).var(0).sum() / z.var(0).sum())


def same_subspace(a: Array, b: Array) -> float:
    """Mean canonical correlation: 1 where both span the same, however it is turned."""
    one, other = (np.linalg.qr(z - z.mean(0))[0] for z in (a, b))
    return float(np.linalg.svd(one.T @ other, compute_uv=False).mean())


def digits(n_draws: int) -> None:
    """Agreement of fits on disjoint halves, on images that neither has seen."""
    x, labels = load_digits(return_X_y=True)
    found: dict[str, list[list[float]]] = defaultdict(list)
    verdicts: dict[str, list[tuple[str, float]]] = defaultdict(list)
    for draw in range(FIRST_DRAW, FIRST_DRAW + n_draws):
        rng = np.random.default_rng(draw)
        order = rng.permutation(len(labels))
        shuffled = rng.permutation(labels)
        held, rest = order[:N_HELD], order[N_HELD:]
        halves = np.array_split(rest, 2)
        for name, most in DIGITS.items():
            if draw - FIRST_DRAW >= most:
                continue
            for u, tag in ((labels, ""), (shuffled, ", shuffled u")):
                if tag and name not in WITH_SHUFFLED:
                    continue
                begun = time.process_time()
                fits = [METHODS[name](4)(x[half], u[half], draw) for half in halves]
                seconds = (time.process_time() - begun) / 2
                a, b = (transformed(fit, x[held], u[held]) for fit in fits)
                agreement = mcc(a, b)
                inside = mcc(without_means(a, labels[held]), without_means(b, labels[held]))
                told = told_by_label(a, labels[held])
                row = [agreement, inside, told, same_subspace(a, b), seconds]
                found[name + tag].append(row)
                verdicts[name + tag] += [
                    (fit.verdict_.label, agreement) for fit in fits if isinstance(fit, IVAE)
                ]
    print(f"\nDigits, K = 4, draws {FIRST_DRAW} to {FIRST_DRAW + n_draws - 1}")
    heads = ("method", "draws", "agreement: mean, least", "within labels", "R2 of the label")
    _print_heads(*heads, "CCA", "CPU s")
    for name, rows in found.items():
        values = np.array(rows)
        mean = values.mean(0)
        print(
            f"| {name} | {len(rows)} | {mean[0]:.3f}, {values[:, 0].min():.3f} | {mean[1]:.3f} | "
            f"{mean[2]:.2f} | {mean[3]:.3f} | {mean[4]:.1f} |"
        )
    for name, said in verdicts.items():
        trusted = [agreement for label, agreement in said if label == "trusted"]
        counts = dict(Counter(label for label, _ in said))
        low = sum(agreement < 0.95 for agreement in trusted)
        if said:
            print(
                f"{name}: verdicts {counts}; trusted at an agreement below .95: {low}", flush=True
            )


def images(
    seeds: list[int], settings: list[str], names: list[str], *, with_shuffled: bool
) -> None:
    """Components against the truth, on images that no method has seen."""
    for setting in settings:
        found: dict[str, list[list[float]]] = defaultdict(list)
        verdicts: dict[str, list[str]] = defaultdict(list)
        for seed in seeds:
            data = simulate.images(**SETTINGS[setting], random_state=seed)
            rng = np.random.default_rng([seed, 1])
            held = rng.permutation(len(data.u)) % 5 == 0
            shuffled = rng.permutation(data.u)
            for name in names:
                for u, tag in ((data.u, ""), (shuffled, ", shuffled u")):
                    if tag and (name not in WITH_SHUFFLED or not with_shuffled):
                        continue
                    begun = time.process_time()
                    fit = METHODS[name](5)(data.pixels[~held], u[~held], seed)
                    seconds = time.process_time() - begun
                    z, truth = transformed(fit, data.pixels[held], u[held]), data.sources[held]
                    scores = dci(z, truth)
                    row = [mcc(truth, z), *scores[:3], mig(z, truth), seconds]
                    found[name + tag].append(row)
                    if isinstance(fit, IVAE):
                        verdicts[name + tag].append(fit.verdict_.label)
        print(f"\n{setting}, seeds {', '.join(map(str, seeds))}")
        heads = ("method", "MCC: mean, least", "disentanglement", "completeness")
        _print_heads(*heads, "informativeness", "MIG", "CPU s", "verdict")
        for name, rows in found.items():
            values = np.array(rows)
            mean = values.mean(0)
            said = ", ".join(
                f"{verdicts[name].count(v)} {v}" for v in dict.fromkeys(verdicts[name])
            )
            cells = " | ".join(f"{value:.2f}" for value in mean[1:5])
            print(
                f"| {name} | {mean[0]:.3f}, {values[:, 0].min():.3f} | {cells} | {mean[5]:.1f} "
                f"| {said} |",
                flush=True,
            )


def _print_heads(*heads: str) -> None:
    print("| " + " | ".join(heads) + " |")
    print("|---" * len(heads) + "|")


def main() -> None:
    """Print the tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="what", required=True)
    of_digits = commands.add_parser("digits")
    of_digits.add_argument("--draws", type=int, default=20)
    of_images = commands.add_parser("images")
    of_images.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    of_images.add_argument("--settings", nargs="+", choices=SETTINGS, default=["40 labels x 500"])
    plain = [name for name in METHODS if "fast" not in name]
    of_images.add_argument("--methods", nargs="+", choices=METHODS, default=plain)
    of_images.add_argument("--no-shuffled", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "digits":
        digits(options.draws)
    else:
        images(
            options.seeds,
            options.settings,
            options.methods,
            with_shuffled=not options.no_shuffled,
        )


if __name__ == "__main__":
    main()
