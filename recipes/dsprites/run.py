"""dSprites: the factors of simple images, found because their distribution follows a label."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sourcesep import IVAE
from sourcesep.exceptions import InputError
from sourcesep.metrics import dci, mcc, mig
from sourcesep.report import traversals

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import command_line, finish

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

NAME = "dsprites"
FILE = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
WHERE = (
    f"get {FILE} (about 26 MB) from https://github.com/google-deepmind/dsprites-dataset and put "
    "it into that folder"
)
SIDE = 64
SIZE = 16
"""Images are averaged to so many pixels a side: edges become smooth, and fits fast."""
FACTORS = ("scale", "orientation", "x", "y")
ELLIPSE = 2
"""Value of the shape that is kept: one object, as factors must be numbers."""
HALF_TURN = np.pi
"""An ellipse looks the same after it."""
STEEPEST = np.pi / 4
"""Largest orientation kept, to either side: a whole turn is a circle, and no component is."""
EDGE = 0.25
"""Places nearer to the edge are left out, as a share of the range: few principal components
can tell only so many places apart."""
N_LABELS, PER_LABEL, PER_LABEL_QUICK = 40, 500, 40
SPREADS = (0.1, 0.35)
"""Standard deviation of a factor within a label, as a share of its range."""
BLOCK = 4096
"""Images read at once: all of them would take 3 GB."""
SEED = 0


class Sprites(NamedTuple):
    """Images drawn with labels from the file, and the factors behind them.

    Parameters
    ----------
    images : ndarray of shape (n_samples, 256)
        From 0 to 1.
    factors : ndarray of shape (n_samples, 4)
        Scale, orientation, x and y, as in the file; orientation from -pi/4 to pi/4.
    u : ndarray of int, shape (n_samples,)
        Labels.
    """

    images: Array
    factors: Array
    u: Labels


def download(root: Path) -> Path:
    """Nothing that can be fetched and checked: no hash of the file was known for sure."""
    path = Path(root) / FILE
    if not path.is_file():
        raise InputError(f"{path}: not there; {WHERE}")
    return path


def load(root: Path, per_label: int = PER_LABEL, seed: int = SEED) -> Sprites:
    """Read ellipses whose factors follow labels.

    For each label and factor a mean and a spread are drawn, and images of the file with
    probabilities that a Gaussian of these gives their factors: the factors are independent
    given the label.

    Parameters
    ----------
    root : pathlib.Path
        Folder of the file.
    per_label : int
        Images of each of 40 labels.
    seed : int
        Of all draws.
    """
    path = download(root)
    try:
        values = _member(path, "latents_values")
        shape = _shape(path)
    except (OSError, KeyError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read as dSprites ({error}); {WHERE}") from error
    if values.ndim != 2 or values.shape[1] != 6 or shape != (len(values), SIDE, SIDE):
        raise InputError(
            f"{path}: images {shape} and latents_values {values.shape}, and dSprites has "
            f"(n, {SIDE}, {SIDE}) and (n, 6); {WHERE}"
        )
    turn = (values[:, 3] + HALF_TURN / 2) % HALF_TURN - HALF_TURN / 2
    in_middle = (np.abs(values[:, 4:] - 0.5) <= 0.5 - EDGE).all(axis=1)
    is_ellipse = np.round(values[:, 1]) == ELLIPSE
    kept = np.flatnonzero(is_ellipse & in_middle & (np.abs(turn) <= STEEPEST + 1e-6))
    if not kept.size:
        raise InputError(f"{path}: no ellipse (shape {ELLIPSE}) in the middle; {WHERE}")
    factors = np.stack([values[:, 2], turn, values[:, 4], values[:, 5]], axis=1)[kept]
    rng = np.random.default_rng(seed)
    levels = [np.unique(column, return_inverse=True) for column in factors.T]
    rows = []
    for _ in range(N_LABELS):
        log_share = np.zeros(len(kept))
        for grid, level in levels:
            middle, half = (grid[0] + grid[-1]) / 2, (grid[-1] - grid[0]) / 2 or 1.0
            mean, spread = middle + half * rng.uniform(-0.6, 0.6), 2 * half * rng.uniform(*SPREADS)
            log_share += (-0.5 * ((grid - mean) / spread) ** 2)[level]
        share = np.exp(log_share - log_share.max())
        rows.append(rng.choice(len(kept), per_label, p=share / share.sum()))
    chosen = np.concatenate(rows)
    wanted, where = np.unique(kept[chosen], return_inverse=True)
    u = np.repeat(np.arange(N_LABELS), per_label)
    return Sprites(_images(path, wanted)[where], factors[chosen], u)


def _member(path: Path, name: str) -> Array:
    """One array of the file; the metadata, which are a pickle, are never read."""
    with np.load(path, allow_pickle=False) as archive:
        return np.asarray(archive[name], np.float64)


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array in the NPY format, whose samples come next."""
    version = np.lib.format.read_magic(file)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in read:
        raise ValueError(f"NPY format {version}")
    shape, is_fortran, dtype = read[version](file)
    if is_fortran or dtype != np.uint8:
        raise ValueError(f"imgs are {dtype}, and must be uint8 by rows")
    return shape, dtype


def _shape(path: Path) -> tuple[int, ...]:
    with zipfile.ZipFile(path) as archive, archive.open("imgs.npy") as file:
        return _header(file)[0]


def _images(path: Path, wanted: Labels) -> Array:
    """The wanted images, in rising order, averaged to `SIZE` pixels a side; block by block."""
    step = SIDE // SIZE
    found = []
    with zipfile.ZipFile(path) as archive, archive.open("imgs.npy") as file:
        n = _header(file)[0][0]
        for begin in range(0, n, BLOCK):
            count = min(BLOCK, n - begin)
            data = file.read(count * SIDE * SIDE)
            if len(data) < count * SIDE * SIDE:
                raise InputError(f"{path}: ends after {begin} of {n} images; {WHERE}")
            inside = wanted[(wanted >= begin) & (wanted < begin + count)] - begin
            block = np.frombuffer(data, np.uint8).reshape(count, SIZE, step, SIZE, step)
            found.append(block[inside].mean(axis=(2, 4)).reshape(len(inside), SIZE * SIZE))
    return np.concatenate(found)


def scores(fitted: Any, x: Array, truth: Array) -> dict[str, float]:
    """MCC, DCI and MIG of what a fit makes of images that it has not seen."""
    z = fitted.transform(x)
    found = dci(z, truth)
    return {
        "MCC": mcc(truth, z),
        "disentanglement": found.disentanglement,
        "completeness": found.completeness,
        "informativeness": found.informativeness,
        "MIG": mig(z, truth),
    }


def main(root: Path, quick: bool = False, *, output: Path | None = None) -> dict[str, Any]:
    """Print the table; write ``result.json`` and ``traversals.png``.

    Parameters
    ----------
    root : pathlib.Path
        Folder of the file.
    quick : bool
        Fewer images and a shorter fit, for a first look.
    output : pathlib.Path, optional
        Folder to write to; ``results/dsprites`` by default.
    """
    from sklearn.decomposition import PCA, FastICA
    from sklearn.pipeline import make_pipeline

    data = load(root, PER_LABEL_QUICK if quick else PER_LABEL)
    rng = np.random.default_rng(SEED)
    held = rng.permutation(len(data.u)) % 5 == 0
    x, u = data.images[~held], data.u[~held]
    quality, k = "fast" if quick else "normal", len(FACTORS)

    def ivae(labels: Labels, mixing: str) -> IVAE:
        made = IVAE(k, mixing=mixing, starts=("segments",), quality=quality, random_state=SEED)
        return made.fit(x, u=labels)

    best = ivae(u, "nonlinear")
    fits: dict[str, Any] = {
        "nonlinear iVAE": best,
        "nonlinear iVAE, u shuffled": ivae(rng.permutation(u), "nonlinear"),
        "linear iVAE": ivae(u, "linear"),
        # pixels that are always black upset FastICA's own whitening
        "FastICA": make_pipeline(PCA(k), FastICA(k, random_state=SEED, max_iter=1000)).fit(x),
        "PCA": PCA(k).fit(x),
    }
    rows = [
        {"method": name} | scores(fitted, data.images[held], data.factors[held])
        for name, fitted in fits.items()
    ]
    folder = Path("results") / NAME if output is None else output
    verdict = best.verdict_
    result = finish(
        NAME,
        rows,
        quick=quick,
        output=folder,
        figure=rows[0]["MCC"],
        factors=FACTORS,
        n_images=len(data.u),
        verdict=verdict.as_dict(),
    )
    print(f"\nverdict on the nonlinear iVAE: {verdict.label}: {verdict.sentence}")
    traversals(best, (SIZE, SIZE)).savefig(folder / "traversals.png", dpi=100)
    return result


if __name__ == "__main__":
    command_line(NAME, main, __doc__)
