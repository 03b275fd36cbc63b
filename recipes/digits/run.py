"""Digits: axes of a representation that come out again on other images, because of the label."""

from __future__ import annotations

import gzip
import sys
import warnings
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sourcesep import IVAE
from sourcesep.exceptions import InputError
from sourcesep.metrics import mcc
from sourcesep.report import traversals

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import command_line, finish

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

NAME = "digits"
FILE = "digits.csv.gz"
N_COMPONENTS = 4
N_DRAWS, N_DRAWS_QUICK = 20, 3
FIRST_DRAW = 100
N_HELD = 450
"""Images that no fit sees, of 1797; of fewer images a third at most."""


def download(root: Path) -> Path:
    """Copy the file that comes with scikit-learn to `root`, unless there is one."""
    target = Path(root) / FILE
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with (files("sklearn.datasets.data") / FILE).open("rb") as source:
            target.write_bytes(source.read())
    return target


def load(root: Path) -> tuple[Array, Labels]:
    """Read the images, (n_samples, 64) from 0 to 16, and their digits, (n_samples,)."""
    path = Path(root) / FILE
    if not path.is_file():
        raise InputError(f"{path}: not there; download(root) puts it there")
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            rows = np.loadtxt(file, delimiter=",", dtype=np.int64, ndmin=2)
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path}: no gzipped CSV of whole numbers ({error})") from error
    if rows.shape[1] != 65 or rows.min() < 0 or rows[:, :64].max() > 16 or rows[:, 64].max() > 9:
        raise InputError(
            f"{path}: must have 65 columns, 64 pixels from 0 to 16 and a digit; it has "
            f"{rows.shape[1]}, from {rows.min()} to {rows.max()}"
        )
    return rows[:, :64].astype(np.float64), rows[:, 64]


def fit(x: Array, u: Labels) -> IVAE:
    """Fit the linear iVAE; images are in no order, so nothing but u can tell sources apart."""
    ivae = IVAE(N_COMPONENTS, mixing="linear", starts=("segments",), random_state=0)
    return ivae.fit(x, u=u)


def agreements(x: Array, labels: Labels, draw: int) -> dict[str, float]:
    """MCC between fits on two disjoint halves, on images that neither has seen."""
    from sklearn.decomposition import PCA, FastICA
    from sklearn.exceptions import ConvergenceWarning

    rng = np.random.default_rng(draw)
    order = rng.permutation(len(labels))
    shuffled = rng.permutation(labels)
    n_held = min(N_HELD, len(labels) // 3)
    held, halves = order[:n_held], np.array_split(order[n_held:], 2)

    def between(*fits: Any) -> float:
        return mcc(*(one.transform(x[held]) for one in fits))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return {
            "linear iVAE, u = digit": between(*(fit(x[h], labels[h]) for h in halves)),
            "linear iVAE, u shuffled": between(*(fit(x[h], shuffled[h]) for h in halves)),
            "PCA": between(*(PCA(N_COMPONENTS).fit(x[h]) for h in halves)),
            "FastICA": between(
                *(FastICA(N_COMPONENTS, random_state=draw).fit(x[h]) for h in halves)
            ),
        }


def main(root: Path, quick: bool = False, *, output: Path | None = None) -> dict[str, Any]:
    """Print the table; write ``result.json`` and ``traversals.png``.

    Parameters
    ----------
    root : pathlib.Path
        Where the data are, or are put.
    quick : bool
        Three draws for a first look; no figure is promised of these.
    output : pathlib.Path, optional
        Folder to write to; ``results/digits`` by default.
    """
    folder = Path("results") / NAME if output is None else output
    download(root)
    x, labels = load(root)
    n_draws = N_DRAWS_QUICK if quick else N_DRAWS
    draws = [agreements(x, labels, FIRST_DRAW + i) for i in range(n_draws)]
    rows = [
        {"method": name, "mean": float(np.mean(values)), "least": float(min(values))}
        for name in draws[0]
        for values in [[draw[name] for draw in draws]]
    ]
    # digits follow each other in turn in the file, and the verdict also looks along the rows
    order = np.random.default_rng(0).permutation(len(labels))
    whole = fit(x[order], labels[order])
    verdict = whole.verdict_
    result = finish(
        NAME,
        rows,
        quick=quick,
        output=folder,
        figure=rows[0]["mean"],
        n_images=len(x),
        n_draws=n_draws,
        verdict=verdict.as_dict(),
    )
    print(f"\nverdict on all images: {verdict.label}: {verdict.sentence}")
    traversals(whole, (8, 8)).savefig(folder / "traversals.png", dpi=100)
    return result


if __name__ == "__main__":
    command_line(NAME, main, __doc__)
