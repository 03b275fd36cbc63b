"""Approximate joint diagonalisation: the closed form behind the linear family.

Under a Gaussian prior whose variances differ from label to label, the likelihood of
a linear map V with the variances profiled out is

    sum_k w_k sum_i log (V C_k V')_ii  -  2 log |det V|        (up to sign and constants)

(Pham & Cardoso 2001, eq. 12). It is minimised by relative quasi-Newton steps on a
block-diagonal Hessian (Ablin, Cardoso & Gramfort 2019).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MANY_CHANNELS",
    "JointDiagonaliser",
    "Triangles",
    "coarse_to_fine",
    "joint_diagonalise",
    "label_covariances",
    "removes_means",
    "tolerance",
    "with_bands",
]

HESSIAN_FLOOR = 1e-2
"""Least determinant of a 2x2 Hessian block: two sources of equal profile give 0."""
LONGEST_STEP = 0.5
"""Largest entry of one relative update; keeps I + step well conditioned."""
MOST_STEPS = 100
"""Of each stage of `coarse_to_fine`."""
SHORTEST_STEP = 1e-4
"""Below this fraction of a step the line search gives up: converged to rounding."""
MANY_CHANNELS = 8
"""From here on covariances are float32, which is several times as fast."""
BAND_FLOOR = 0.3
"""White noise added to covariances of bands, as a share of their mean power: bands where little
but sensor noise is left would otherwise count as much as the others."""
BATCH = 2**20
"""Values that are multiplied at once, so that data are copied some labels at a time."""
LONG = 256
"""Samples of the finest segments from which on each one's own mean is removed."""


@dataclass(frozen=True)
class JointDiagonaliser:
    """The matrix V for which all V C_k V' are as diagonal as can be.

    ``gradient`` is the largest off-diagonal entry of the relative gradient where the last
    step began: below ``tol`` if it converged.
    """

    matrix: NDArray[Any]
    n_iter: int
    gradient: float


def joint_diagonalise(
    covariances: NDArray[Any],
    weights: NDArray[Any] | None = None,
    *,
    start: NDArray[Any] | None = None,
    tol: float = 1e-8,
    max_iter: int = 200,
) -> JointDiagonaliser:
    """Diagonalise positive definite matrices jointly.

    Parameters
    ----------
    covariances : ndarray of shape (n_matrices, d, d)
        Symmetric, positive definite; computed with in their own precision.
    weights : ndarray of shape (n_matrices,), optional
        Relative weights; equal by default.
    start : ndarray of shape (d, d), optional
        Where to begin; the identity by default, so the result is deterministic.
    tol : float
        Stop when the relative gradient has no off-diagonal entry above it.
    max_iter : int
        Most quasi-Newton steps.

    Returns
    -------
    JointDiagonaliser
        V scaled so that the weighted mean of V C_k V' has a unit diagonal.

    References
    ----------
    D.-T. Pham & J.-F. Cardoso, IEEE Trans. Signal Processing 49(9), 2001.
    P. Ablin, J.-F. Cardoso & A. Gramfort, "Beyond Pham's algorithm for joint
    diagonalization", ESANN 2019.
    """
    n_matrices, d, _ = covariances.shape
    dtype = covariances.dtype
    w = np.ones(n_matrices, dtype) if weights is None else np.asarray(weights, dtype)
    w = w / w.sum()
    identity = np.eye(d, dtype=dtype)
    v = identity if start is None else np.asarray(start, dtype)
    triangles = Triangles.of(covariances)

    def loss(v: NDArray[Any], power: NDArray[Any]) -> float:
        return float(0.5 * (w @ np.log(power)).sum() - np.linalg.slogdet(v)[1])

    power = triangles.powers(v)
    value = loss(v, power)
    largest = np.inf
    n_iter = 0
    while n_iter < max_iter:
        n_iter += 1
        precision = w[:, None] / power
        gradient = triangles.weighted(v, precision) - identity
        largest = float(np.abs(gradient - np.diag(np.diag(gradient))).max()) if d > 1 else 0.0
        if largest < tol:
            break
        hessian = precision.T @ power
        determinant = np.maximum(hessian * hessian.T - 1, HESSIAN_FLOOR)
        step = -(hessian.T * gradient - gradient.T) / determinant
        np.fill_diagonal(step, -0.5 * np.diag(gradient))
        step /= max(1.0, np.abs(step).max() / LONGEST_STEP)
        fraction = 1.0
        while fraction > SHORTEST_STEP:
            tried = (identity + fraction * step) @ v
            tried_power = triangles.powers(tried)
            tried_value = loss(tried, tried_power)
            if tried_value < value:
                break
            fraction /= 2
        else:
            break
        v, power, value = tried, tried_power, tried_value
    return JointDiagonaliser(v / np.sqrt(w @ power)[:, None], n_iter, largest)


class Triangles(NamedTuple):
    """Symmetric matrices as rows of their lower triangles.

    All that a step wants to know of them is then a product of two large matrices: several
    times as fast as a product for each of them.

    Parameters
    ----------
    entries : ndarray of shape (n_matrices, d * (d + 1) / 2)
    rows, columns : ndarray of int, shape (d * (d + 1) / 2,)
        Where these stand.
    where : ndarray of int, shape (d, d)
        Which of them is each entry of a matrix.
    times : ndarray of shape (d * (d + 1) / 2, 1)
        How often each stands in a matrix: those of the diagonal once, others twice.
    """

    entries: NDArray[Any]
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    where: NDArray[np.intp]
    times: NDArray[Any]

    @classmethod
    def of(cls, matrices: NDArray[Any]) -> Self:
        """Copy the lower triangles of matrices of shape (n_matrices, d, d)."""
        d = matrices.shape[1]
        rows, columns = np.tril_indices(d)
        where = np.empty((d, d), np.intp)
        where[rows, columns] = where[columns, rows] = np.arange(len(rows))
        flat = matrices.reshape(len(matrices), d * d)
        entries = np.take(flat, rows * d + columns, axis=1)
        times = np.where(rows == columns, 1, 2).astype(entries.dtype)[:, None]
        return cls(entries, rows, columns, where, times)

    def powers(self, v: NDArray[Any]) -> NDArray[Any]:
        """Diagonals of v C v' of every matrix C, (n_matrices, d)."""
        by_channel = np.ascontiguousarray(v.T)
        products = by_channel.take(self.rows, axis=0)
        products *= by_channel.take(self.columns, axis=0)
        products *= self.times
        powers: NDArray[Any] = self.entries @ products
        return powers

    def weighted(self, v: NDArray[Any], weights: NDArray[Any]) -> NDArray[Any]:
        """Row i: that of the sum of all v C v', each by its weight for i, (n_matrices, d)."""
        sums = (weights.T @ self.entries).take(self.where, axis=1)
        weighted: NDArray[Any] = (v[:, None] @ sums)[:, 0] @ v.T
        return weighted


def coarse_to_fine(groups: Sequence[NDArray[Any]], *, tol: float) -> JointDiagonaliser:
    """Diagonalise several groups of covariances, each of the same total weight.

    The last (coarsest) group alone gives the first start; finer ones join one by one.
    The few smooth matrices lead near the optimum of the many noisy ones cheaply.

    Parameters
    ----------
    groups : sequence of ndarray, each of shape (n_matrices, d, d)
        From the finest scale to the coarsest.
    tol : float
        As in `joint_diagonalise`; the intermediate stages stop ten times earlier.
    """
    found: JointDiagonaliser | None = None
    total = 0
    for first in reversed(range(len(groups))):
        used = groups[first:]
        weights = np.concatenate([np.full(len(g), 1 / len(g)) for g in used])
        found = joint_diagonalise(
            np.concatenate(used),
            weights,
            start=None if found is None else found.matrix,
            tol=tol if first == 0 else 10 * tol,
            max_iter=MOST_STEPS,
        )
        total += found.n_iter
    if found is None:
        raise ValueError("groups=[]: at least one group of covariances is needed")
    return JointDiagonaliser(found.matrix, total, found.gradient)


def with_bands(
    groups: Sequence[NDArray[Any]],
    banded: NDArray[Any],
    weight: float,
    *,
    tol: float,
    first_tol: float,
) -> JointDiagonaliser:
    """Diagonalise groups of covariances together with those of bands.

    Parameters
    ----------
    groups : sequence of ndarray, each of shape (n_matrices, d, d)
        As in `coarse_to_fine`, which gives the start.
    banded : ndarray of shape (n_matrices, d, d)
        Of all bands, of about unit power.
    weight : float
        Total weight of the bands against 1 for the groups.
    tol, first_tol : float
        As in `joint_diagonalise`, and of the start.
    """
    banded = banded + BAND_FLOOR * np.eye(banded.shape[1], dtype=banded.dtype)
    weights = [np.full(len(g), 1 / (len(g) * len(groups))) for g in groups]
    weights.append(np.full(len(banded), weight / len(banded)))
    return joint_diagonalise(
        np.concatenate([*groups, banded]),
        np.concatenate(weights),
        start=coarse_to_fine(groups, tol=first_tol).matrix,
        tol=tol,
    )


def tolerance(n_channels: int) -> float:
    """The relative gradient that the precision of covariances of so many channels allows."""
    return 1e-3 if n_channels >= MANY_CHANNELS else 1e-7


def removes_means(counts: NDArray[np.int64], is_time: bool) -> bool:
    """Whether covariances within labels are to be about each label's own mean.

    Where labels are not time, the mean is what the label does to a source, which the prior
    knows. Of long segments of time it is what drifts more slowly than them, an offset in pauses
    or rumble of a sensor: it belongs to no source, and would outweigh all else where it is quiet.
    Short ones need all that they have.

    Parameters
    ----------
    counts : ndarray of int, shape (n_labels,)
        Samples of each label of the finest scale; those without any do not count.
    is_time : bool
        Whether labels are segments of time.
    """
    return not is_time or bool(np.median(counts[counts > 0]) >= LONG)


def label_covariances(
    x: NDArray[Any], labels: NDArray[np.int64], n_labels: int, *, centre: bool = False
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Covariance of x within each label.

    Parameters
    ----------
    x : ndarray of shape (d, n_times)
        Signals.
    labels : ndarray of int, shape (n_times,)
        Negative labels are left out.
    n_labels : int
        Number of labels.
    centre : bool
        Remove each label's own mean first.

    Returns
    -------
    covariances : ndarray of shape (n_present, d, d)
        In the order of their labels; labels without a sample are skipped.
    counts : ndarray of int, shape (n_present,)
        How many samples each is of.
    """
    order = np.argsort(labels, kind="stable") if np.any(np.diff(labels) < 0) else None
    by_label = x if order is None else x[:, order]
    counts = np.bincount(labels[labels >= 0], minlength=n_labels)
    begins = np.cumsum(np.concatenate([[np.count_nonzero(labels < 0)], counts[:-1]]))
    present = np.flatnonzero(counts)
    covariances = np.empty((len(present), len(x), len(x)), x.dtype)
    # labels of one size are batched products; equal segments are all of one size
    for size in np.unique(counts[present]):
        same = np.flatnonzero(counts[present] == size)
        for which in np.split(same, range(0, len(same), max(1, BATCH // (size * len(x))))[1:]):
            begin = begins[present[which]]
            if np.array_equal(np.diff(begin), np.full(len(which) - 1, size)):
                block = by_label[:, begin[0] : begin[0] + size * len(which)]
                pieces = block.reshape(len(x), len(which), size).transpose(1, 0, 2)
            else:
                pieces = by_label[:, begin[:, None] + np.arange(size)].transpose(1, 0, 2)
            if centre:
                pieces = pieces - pieces.mean(axis=2, keepdims=True)
            covariances[which] = pieces @ pieces.transpose(0, 2, 1) / size
    return covariances, counts[present]
