"""Labels with names: how samples are told apart, and how values become labels."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sourcesep.exceptions import InputError
from sourcesep.spec import number

__all__ = [
    "FEW_SAMPLES",
    "LEFT_OUT",
    "MAX_BINS",
    "MAX_LEVELS",
    "Factor",
    "Scale",
    "combine",
    "from_values",
    "named_columns",
    "renumber",
    "where_fitted",
]

MAX_LEVELS = 256
"""Whole numbers that take more values than this count as continuous."""
MAX_BINS = 40
"""The most quantile bins that values of a column are cut into, or of several together."""
MAX_CELLS, CELL = 125, 80
"""The most for several columns where each has so many samples: in fewer, sources change more."""
_BIN = re.compile(r" in \[([^,]+), ([^)]+)\)(?: \+ |$)")
_LEVEL = re.compile(r"=([^,=]+)(?:, |$)")
FEW_SAMPLES = 8
"""Labels should have this many samples on average, or they say little."""
LEFT_OUT = -1
"""The label of samples that are not fitted on."""


@dataclass(frozen=True)
class Scale:
    """One labelling of the samples.

    Parameters
    ----------
    labels : ndarray of int, shape (n_times,)
        ``0 .. n_labels - 1``, or `LEFT_OUT`.
    names : tuple of str
        One name a label.
    """

    labels: NDArray[np.int64]
    names: tuple[str, ...]

    @property
    def n_labels(self) -> int:
        """Number of labels, those without a sample included."""
        return len(self.names)


@dataclass(frozen=True)
class Factor:
    """What one term of a SPEC says: a labelling for each scale, and covariates."""

    scales: tuple[Scale, ...]
    covariates: NDArray[np.float64] | None = None


def combine(scales: Sequence[Scale]) -> Scale:
    """Label each combination of labels that occurs; `LEFT_OUT` in one is left out."""
    product, *others = scales
    for other in others:
        out = (product.labels == LEFT_OUT) | (other.labels == LEFT_OUT)
        pairs = np.where(out, LEFT_OUT, product.labels * other.n_labels + other.labels)
        labels, found = renumber(pairs, product.n_labels * other.n_labels)
        names = (
            f"{product.names[pair // other.n_labels]} + {other.names[pair % other.n_labels]}"
            for pair in found
        )
        product = Scale(labels, tuple(names))
    return product


def renumber(codes: NDArray[np.int64], n_codes: int) -> tuple[NDArray[np.int64], list[int]]:
    """Number the codes that occur 0, 1, ... in their order; `LEFT_OUT` stays."""
    if n_codes > 4 * codes.size + 1024:  # too many for a table of them all
        found = np.unique(codes)
        found = found[found != LEFT_OUT]
        return np.where(codes == LEFT_OUT, LEFT_OUT, np.searchsorted(found, codes)), found.tolist()
    occurs = np.zeros(n_codes + 1, dtype=bool)
    occurs[codes] = True  # LEFT_OUT marks the last entry
    found = np.flatnonzero(occurs[:-1])
    table = np.full(n_codes + 1, LEFT_OUT, dtype=np.int64)
    table[found] = np.arange(found.size)
    return table[codes], found.tolist()


def named_columns(values: NDArray[Any], name: str) -> dict[str, NDArray[Any]]:
    """Name an array's columns: NAME, or NAME0, NAME1, ... where it has several."""
    if values.ndim == 1:
        return {name: values}
    return {f"{name}{i}": values[:, i] for i in range(values.shape[1])}


def from_values(columns: Mapping[str, NDArray[Any]], *, are_labels: bool) -> Factor:
    """Make labels of discrete columns, covariates and quantile bins of continuous ones.

    Parameters
    ----------
    columns : mapping of str to ndarray of shape (n_times,)
        What is known about each sample.
    are_labels : bool
        Whether whole numbers are labels as they stand, -1 meaning `LEFT_OUT`; otherwise
        they are values like any other, and continuous if there are many of them.
    """
    scales, continuous = [], {}
    for name, column in columns.items():
        values = _without_missing(name, column)
        kind = values.dtype.kind
        is_number = kind in "iu" and not are_labels
        if kind == "f" or (is_number and len(np.unique(values)) > MAX_LEVELS):
            continuous[name] = values.astype(np.float64)
        else:
            scales.append(_levels(name, values, minus_one_is_out=are_labels))
    if not continuous:
        return Factor((combine(scales),))
    covariates = np.stack(list(continuous.values()), axis=1)
    scales += _bins(covariates, list(continuous))
    return Factor((combine(scales),), covariates)


def _without_missing(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Return the values, objects as text, if they can be labels or covariates."""
    if values.dtype.kind not in "biufUO":
        raise InputError(
            f"{name} has values of type {values.dtype}: must be numbers, text or truth values"
        )
    if values.dtype.kind == "O":
        finite = np.array([v is not None and v == v for v in values.tolist()], dtype=bool)
    else:
        finite = np.isfinite(values) if values.dtype.kind == "f" else np.ones(1, dtype=bool)
    if not finite.all():
        raise InputError(
            f"{name} has {int((~finite).sum())} missing or infinite values, the first in row "
            f"{int(finite.argmin())}: every sample needs one; fill them in"
        )
    return values.astype(str) if values.dtype.kind == "O" else values


def _levels(name: str, values: NDArray[Any], *, minus_one_is_out: bool) -> Scale:
    """Give each value of a discrete column a label, in sorted order."""
    if values.dtype.kind == "U":
        texts, labels = np.unique(values, return_inverse=True)
        return Scale(labels.astype(np.int64), tuple(f"{name}={text}" for text in texts))
    if values.dtype.kind == "b":
        labels, found = renumber(values.astype(np.int64), 2)
        return Scale(labels, tuple(f"{name}={bool(value)}" for value in found))
    low, high = int(values.min()), int(values.max())
    if high - low <= values.size and high < 2**63:
        labels, found = renumber(values.astype(np.int64) - low, high - low + 1)
        found = [low + code for code in found]
    else:
        unique, inverse = np.unique(values, return_inverse=True)
        labels, found = inverse.astype(np.int64), unique.tolist()
    if minus_one_is_out and low < 0:
        if low < LEFT_OUT:
            raise InputError(
                f"{name} has the label {low}: labels are 0 or above, and {LEFT_OUT} leaves a "
                "sample out"
            )
        labels, found = labels - 1, found[1:]
    return Scale(labels, tuple(f"{name}={value}" for value in found))


def _bins(values: NDArray[np.float64], names: Sequence[str]) -> list[Scale]:
    """Cut covariates, (n_times, n_covariates), into quantile bins.

    Rows that take few values are not cut: each has its label (so that one-hot rows are
    what they mean). Else the first column is cut, then each of its bins by the next column and
    so on, so that cells have as many samples as each other, also of columns that go together.
    Each gets as many bins as make `MAX_BINS` or `MAX_CELLS` together; when that is fewer than
    two, the leading principal components are cut in their place.
    """
    n_times, n_columns = values.shape
    n_levels = min(MAX_LEVELS, n_times // FEW_SAMPLES)
    if len(np.unique(values[:: n_times // 1024 + 1], axis=0)) <= n_levels:
        rows, labels = np.unique(values, axis=0, return_inverse=True)
        if len(rows) <= n_levels:
            texts = [[f"{c}={number(v)}" for c, v in zip(names, row, strict=True)] for row in rows]
            return [Scale(labels.reshape(-1).astype(np.int64), tuple(map(", ".join, texts)))]
    n_bins = max(2, min(MAX_BINS, n_times // FEW_SAMPLES))
    if n_columns > 1:
        n_bins = max(n_bins, min(MAX_CELLS, n_times // CELL))
    n_cut = min(n_columns, int(math.log2(n_bins)))
    if n_cut < n_columns:
        spread = values.std(axis=0)
        scores = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)
        values = scores @ np.linalg.eigh(scores.T @ scores)[1][:, : -n_cut - 1 : -1]
        names = [f"principal component {i} of u" for i in range(n_cut)]
    each = int(n_bins ** (1 / n_cut) + 1e-9)
    first, *rest = zip(values.T, names, strict=True)
    cells = _quantile_bins(*first, each)
    for column, name in rest:
        labels = np.empty_like(cells.labels)
        longer: list[str] = []
        for cell, text in enumerate(cells.names):
            inside = cells.labels == cell
            bins = _quantile_bins(column[inside], name, each)
            labels[inside] = len(longer) + bins.labels
            longer += [f"{text} + {own}" for own in bins.names]
        cells = Scale(labels, tuple(longer))
    return [cells]


def _quantile_bins(values: NDArray[np.float64], name: str, n_bins: int) -> Scale:
    some = values[:: len(values) // 2**20 + 1]  # a million are enough to place the cuts
    cuts = np.unique(np.quantile(some, np.arange(1, n_bins) / n_bins))
    labels, found = renumber(np.searchsorted(cuts, values, side="right"), len(cuts) + 1)
    apart = np.diff(cuts).min(initial=np.inf)  # names must tell bins apart, to a thousandth
    n_digits = np.clip(np.ceil(np.log10(np.abs(cuts).max() / apart + 1e-9)) + 3, 6, 17)
    ends = ["-inf", *(f"{cut:.{int(n_digits)}g}" for cut in cuts), "inf"]
    return Scale(labels, tuple(f"{name} in [{ends[i]}, {ends[i + 1]})" for i in found))


def where_fitted(values: NDArray[np.float64], names: Sequence[str]) -> NDArray[np.int64] | None:
    """Find, for covariates of other data, the labels that the same values had in the fit.

    Parameters
    ----------
    values : ndarray of shape (n_times, n_covariates)
        Covariates.
    names : sequence of str
        Of the fit's labels, which say the values or the quantile bins.

    Returns
    -------
    ndarray of int, shape (n_times,), or None
        `LEFT_OUT` for rows in none of them; None if names say something else.
    """
    n_times, n_columns = values.shape
    labels = np.full(n_times, LEFT_OUT)
    for i, name in enumerate(names):
        bins, levels, n_others = _BIN.findall(name), _LEVEL.findall(name), name.count(" + ")
        if len(bins) == n_columns == n_others + 1 and not levels:
            low, high = np.array(bins, np.float64).T
            inside = (values >= low) & (values < high)
        elif len(levels) == n_columns and not (bins or n_others):
            inside = values == np.array([float(level) for level in levels])
        else:
            return None
        labels[inside.all(axis=1)] = i
    return labels
