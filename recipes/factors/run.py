"""Factors told apart by regimes of volatility: macro-economic series, and industries' returns."""

from __future__ import annotations

import hashlib
import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import sourcesep
from sourcesep.exceptions import InputError, MissingDependencyError
from sourcesep.metrics import mcc

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import command_line, cpu, fastica, finish

NAME = "factors"
ZIP = "49_Industry_Portfolios_daily_CSV.zip"
WHERE = (
    f"download {ZIP} from "
    "https://mba.tuck.dartmouth.edu/pages/faculty/ken.french/data_library.html"
)
TITLE = "Average Value Weighted Returns"
MISSING = (-99.99, -999.0)
FIRST_YEAR = 1990
N_SPLITS = 20
SEED = 0
Array = NDArray[np.float64]
Labels = NDArray[np.int64]


class Series(NamedTuple):
    """A table: rows in the order of time, the regime of each, and blocks that stay together."""

    name: str
    x: Array
    columns: tuple[str, ...]
    regime: Labels
    block: Labels
    n_factors: int


def download(root: Path) -> Path:
    """Nothing that can be fetched and checked: the industries' file changes every month.

    macrodata comes with statsmodels. Where the zip is not in `root` it is left out.
    """
    return root


def load(root: Path) -> list[Series]:
    """Read macrodata, and the industries if their zip is there."""
    found = [macrodata()]
    if (root / ZIP).is_file():
        found.append(industries(root / ZIP))
    return found


def macrodata() -> Series:
    """Return nine growth rates and differences, 1959 to 2009, by quarter; regime: the decade."""
    try:
        from statsmodels.datasets import macrodata as bundled
    except ImportError as error:
        raise MissingDependencyError(
            "statsmodels is not there: pip install statsmodels"
        ) from error
    table = bundled.load_pandas().data
    grows = ("realgdp", "realcons", "realinv", "realgovt", "realdpi", "cpi", "m1")
    differ = ("tbilrate", "unemp")
    growth = [100 * np.diff(np.log(table[name].to_numpy())) for name in grows]
    change = [np.diff(table[name].to_numpy()) for name in differ]
    year = table["year"].to_numpy().astype(int)[1:]
    x = np.stack(growth + change, axis=1)
    return Series("macrodata", x, grows + differ, year // 10, year, 3)


def industries(path: Path) -> Series:
    """Return daily returns in percent of industries without a gap; regime: the year."""
    names, dates, x = read_french(path)
    keep = dates // 10_000 >= FIRST_YEAR
    x, dates = x[keep], dates[keep]
    whole = np.isfinite(x).all(0)
    columns = tuple(name for name, w in zip(names, whole, strict=True) if w)
    return Series("industries", x[:, whole], columns, dates // 10_000, dates // 100, 5)


def read_french(path: Path) -> tuple[list[str], Labels, Array]:
    """Read the first table of value-weighted returns of a file from Ken French's library.

    Such a file has some lines of prose, and then tables, each with a title, a line of names
    that begins with a comma, and rows that begin with a date, up to an empty line. -99.99 and
    -999 are missing.

    Returns
    -------
    names : list of str
        The columns.
    dates : ndarray of int, shape (n_rows,)
        YYYYMMDD.
    x : ndarray of shape (n_rows, n_columns)
        Percent; NaN where missing.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            text = archive.read(archive.namelist()[0]).decode("latin-1")
    except (zipfile.BadZipFile, IndexError) as error:
        raise InputError(f"{path}: no zip with a file in it; {WHERE}") from error
    lines = iter(text.splitlines())
    if not any(TITLE in line for line in lines):
        raise InputError(f"{path}: no table of {TITLE!r} in it; {WHERE}")
    names = [name.strip() for name in next(lines, "").split(",")[1:]]
    rows = []
    for line in lines:
        if not line.split(",")[0].strip().isdigit():
            break
        rows.append(line)
    if not rows or not names:
        raise InputError(f"{path}: a table without rows; {WHERE}")
    table = np.loadtxt(io.StringIO("\n".join(rows)), delimiter=",", ndmin=2)
    x = table[:, 1:]
    return names, table[:, 0].astype(int), np.where(np.isin(x, MISSING), np.nan, x)


def ivae(n: int) -> Callable[[Array, Labels], Any]:
    """Fit factors whose volatility changes from regime to regime."""

    def fit(x: Array, u: Labels) -> Any:
        model = sourcesep.IVAE(
            n, mixing="linear", starts=("segments",), standardise=True, random_state=SEED
        )
        return model.fit(x, u=u)

    return fit


def agreement(
    data: Series, fit: Callable[[Array, Labels], Callable[[Array], Array]], n_splits: int
) -> Array:
    """Fit random halves, whole blocks each, and compare what the two make of all rows."""
    found = []
    blocks = np.unique(data.block)
    for split in range(n_splits):
        rng = np.random.default_rng([SEED, split])
        first = np.isin(data.block, rng.permutation(blocks)[: len(blocks) // 2])
        one, two = (fit(data.x[part], data.regime[part]) for part in (first, ~first))
        found.append(mcc(one(data.x), two(data.x)))
    return np.array(found)


def methods(data: Series) -> dict[str, Callable[[Array, Labels], Callable[[Array], Array]]]:
    """Return what is compared, by name."""
    n = data.n_factors
    centre, scale = data.x.mean(0), data.x.std(0)

    def standard(x: Array) -> Array:
        return (x - centre) / scale

    def pca(x: Array, u: Labels) -> Callable[[Array], Array]:
        from sklearn.decomposition import PCA

        model = PCA(n, whiten=True).fit(standard(x))
        return lambda new: model.transform(standard(new))

    def ica(x: Array, u: Labels) -> Callable[[Array], Array]:
        separate = fastica(standard(x), SEED, n)[0]
        return lambda new: separate(standard(new))

    def shuffled(x: Array, u: Labels) -> Callable[[Array], Array]:
        return ivae(n)(x, np.random.default_rng(SEED).permutation(u)).transform

    return {
        "u = regime": lambda x, u: ivae(n)(x, u).transform,
        "u shuffled": shuffled,
        "FastICA": ica,
        "PCA": pca,
    }


def main(root: Path, quick: bool = False, *, output: Path | None = None) -> dict[str, Any]:
    """Compare halves by every method; quick: three halvings."""
    rows, loadings = [], []
    for data in load(download(root)):
        verdict = ""
        for method, fit in methods(data).items():
            with cpu() as clock:
                scores = agreement(data, fit, 3 if quick else N_SPLITS)
            if method == "u = regime":
                model = ivae(data.n_factors)(data.x, data.regime)
                verdict = model.verdict_.label
                loadings += _largest(data, model)
            row = {"data": data.name, "rows": len(data.x), "columns": len(data.columns)}
            row |= {"factors": data.n_factors, "method": method}
            row |= {"halves agree": float(scores.mean()), "least": float(scores.min())}
            row |= {"CPU s": clock.seconds, "verdict": verdict if method == "u = regime" else ""}
            rows.append(row)
    path = root / ZIP
    sums = {ZIP: hashlib.sha256(path.read_bytes()).hexdigest()} if path.is_file() else {}
    tables = {"Largest loadings, in standard deviations of the series": loadings}
    figure = rows[0]["halves agree"]
    return finish(
        NAME, rows, quick=quick, output=output, figure=figure, tables=tables, sha256=sums
    )


def _largest(data: Series, model: Any) -> list[dict[str, Any]]:
    loading = model.mixing_ / data.x.std(0)[:, None]
    rows = []
    for k, column in enumerate(loading.T):
        order = np.argsort(-np.abs(column))[:4]
        said = ", ".join(f"{data.columns[i]} {column[i]:+.2f}" for i in order)
        rows.append({"data": data.name, "factor": k, "largest": said})
    return rows


if __name__ == "__main__":
    command_line(NAME, main, __doc__)
