"""Unmixing matrices for all frequencies at once, by iterative projection.

Each source has a variance in every cell; the likelihood's best row for it, the other
rows given, is a linear system with the covariance of x weighted by 1 / variance. Arrays
have the frequency last.
"""

from __future__ import annotations

from functools import reduce
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Complex",
    "Products",
    "identity",
    "iterative_projection",
    "pair_projection",
    "principal_rows",
    "project",
]

Complex = NDArray[np.complex128]

RIDGE = 1e-6
"""Added to a covariance's diagonal, as a share of its trace."""
SILENCE = 1e-12
"""Added to it where all is silent, and the trace 0; cells have a mean power near 1."""
N_SWEEPS = 2
"""Updates of all rows by the same covariances, where one is not exact: covariances take longer."""
MOST_MINORS = 5
"""Rows up to which minors are quicker than a solver."""


class Products:
    """The products x_i conj(x_j) of every cell, from which all else is a real sum.

    Parameters
    ----------
    cells : ndarray of complex, shape (n, n_frames, n_bins)
        x. Real and imaginary parts of the products are kept apart: weighted covariances,
        and the power of any output, are then sums over n^2 real arrays.
    """

    def __init__(self, cells: NDArray[Any]) -> None:
        self.n, n_frames, n_bins = cells.shape
        self.above = np.triu_indices(self.n, 1)
        self.values = np.empty((self.n**2, n_frames, n_bins), cells.real.dtype)
        for out, x in zip(self.values, cells, strict=False):
            np.add(x.real**2, x.imag**2, out=out)
        for p, (i, j) in enumerate(zip(*self.above, strict=True)):
            product = cells[i] * cells[j].conj()
            self.values[self.n + 2 * p], self.values[self.n + 2 * p + 1] = (
                product.real,
                product.imag,
            )

    def _matrix(self, sums: NDArray[Any]) -> Complex:
        """Hermitian matrices (..., n, n, n_bins) from sums of products (..., n^2, n_bins)."""
        n, (i, j) = self.n, self.above
        matrix = np.zeros((*sums.shape[:-2], n, n, sums.shape[-1]), complex)
        matrix[..., range(n), range(n), :] = sums[..., :n, :]
        upper = sums[..., n::2, :] + 1j * sums[..., n + 1 :: 2, :]
        matrix[..., i, j, :], matrix[..., j, i, :] = upper, upper.conj()
        return matrix

    def covariances(self, variances: NDArray[Any]) -> Complex:
        """Mean over frames of x x^H / variance, for each source.

        Parameters
        ----------
        variances : ndarray of shape (n_sources, n_frames, n_bins) or (n_sources, n_frames, 1)
            Above 0.

        Returns
        -------
        ndarray of shape (n_sources, n, n, n_bins)
        """
        weights = (1 / variances).astype(self.values.dtype)
        if variances.shape[2] == 1:
            sums = (weights[:, :, 0] @ self.values).swapaxes(0, 1)
        else:
            sums = np.stack(
                [[np.einsum("tf,tf->f", w, value) for value in self.values] for w in weights]
            )
        matrix = self._matrix(sums / self.values.shape[1])
        diagonal = np.einsum("niif->nif", matrix)
        diagonal += RIDGE * diagonal.real.sum(axis=1, keepdims=True) + SILENCE
        return matrix

    def _coefficients(self, rows: Complex) -> NDArray[Any]:
        """What |row x|^2 takes of every product, (n_rows, n^2, n_bins)."""
        i, j = self.above
        cross = 2 * rows[:, i] * rows[:, j].conj()
        out = np.empty((len(rows), *self.values[:, 0].shape), self.values.dtype)
        out[:, : self.n] = rows.real**2 + rows.imag**2
        out[:, self.n :: 2], out[:, self.n + 1 :: 2] = cross.real, -cross.imag
        return out

    def powers(self, rows: Complex) -> NDArray[Any]:
        """|row x|^2 in every cell, (n_rows, n_frames, n_bins)."""
        powers = np.stack(
            [np.einsum("pf,ptf->tf", c, self.values) for c in self._coefficients(rows)]
        )
        found: NDArray[Any] = np.maximum(powers, 0, out=powers)
        return found

    def frame_powers(self, rows: Complex) -> NDArray[Any]:
        """Mean of `powers` over the bins, (n_rows, n_frames)."""
        coefficients = self._coefficients(rows).transpose(1, 2, 0)
        powers = (self.values @ coefficients).sum(axis=0).T / self.values.shape[2]
        found: NDArray[Any] = np.maximum(powers, 0)
        return found


def identity(n: int, n_bins: int) -> Complex:
    """Return identity matrices, (n, n, n_bins)."""
    return np.repeat(np.eye(n, dtype=complex)[:, :, None], n_bins, axis=2)


def principal_rows(covariance: Complex, n: int) -> Complex:
    """Orthonormal rows onto the strongest n directions of each bin, (n, n_channels, n_bins)."""
    vectors = np.linalg.eigh(covariance.transpose(2, 0, 1))[1][:, :, : -n - 1 : -1]
    return np.ascontiguousarray(vectors.conj().transpose(2, 1, 0))


def project(rows: Complex, covariances: Complex) -> Complex:
    """All rows by these covariances: exact for two sources, in `N_SWEEPS` for more."""
    if len(rows) == 2:
        return pair_projection(covariances)
    for _ in range(N_SWEEPS):
        rows = iterative_projection(rows, covariances)
    return rows


def pair_projection(covariances: Complex) -> Complex:
    """Both rows of a 2 x 2 unmixing matrix at their joint optimum.

    They are the generalised eigenvectors of the two weighted covariances (Ono 2012, "Fast
    stereo independent vector analysis and its implementation on mobile phone"): where
    the power under the weights of the first source is small, the row is the first's.

    Parameters
    ----------
    covariances : ndarray of shape (2, 2, 2, n_bins)
        Of either source.

    Returns
    -------
    ndarray of shape (2, 2, n_bins)
        Rows w with w V w^H = 1.
    """
    (a, b), (c, d) = ratio = _solve_pair(covariances[1], covariances[0])
    middle = (a + d).real / 2
    # eigenvalues are real and positive; rounding must not make them complex
    radius = np.sqrt(np.maximum(middle**2 - (a * d - b * c).real, 0))
    rows = np.empty_like(ratio)
    for n, value in enumerate((middle - radius, middle + radius)):
        one, other = np.stack([b, value - a]), np.stack([value - d, c])
        size, other_size = (np.square(np.abs(v)).sum(axis=0) for v in (one, other))
        vector = np.where(size > other_size, one, other)
        vector[n] += np.maximum(size, other_size) == 0
        rows[n] = _normalised(vector, covariances[n])
    return rows


def _solve_pair(left: Complex, right: Complex) -> Complex:
    """left^-1 right for 2 x 2 Hermitian matrices of every bin."""
    (a, b), (c, d) = left
    determinant = (a * d - b * c).real
    adjugate = np.array([[d, -b], [-c, a]])
    solved: Complex = (adjugate[:, :1] * right[0] + adjugate[:, 1:] * right[1]) / determinant
    return solved


def iterative_projection(rows: Complex, covariances: Complex) -> Complex:
    """One sweep over the rows of an unmixing matrix, each at its optimum given the others.

    Row n is the direction e_n of (W V_n)^-1 (Ono 2011, "Stable and fast update rules for
    independent vector analysis based on auxiliary function technique").

    Parameters
    ----------
    rows : ndarray of shape (n, n, n_bins)
        W.
    covariances : ndarray of shape (n, n, n, n_bins)
        V_n of every source.

    Returns
    -------
    ndarray of shape (n, n, n_bins)
        Rows w with w V w^H = 1.
    """
    rows = rows.copy()
    for n, covariance in enumerate(covariances):
        system = np.stack([(row[:, None] * covariance).sum(axis=0) for row in rows])
        if len(rows) <= MOST_MINORS:
            vector = _orthogonal(np.delete(system, n, axis=0))
        else:
            unit = np.eye(len(rows), dtype=complex)[:, [n]]
            vector = np.linalg.solve(system.transpose(2, 0, 1), unit)[:, :, 0].T
        rows[n] = _normalised(vector, covariance)
    return rows


def _orthogonal(rows: Complex) -> Complex:
    """The vectors (n, n_bins) on which n - 1 rows vanish: their minors, by Laplace's expansion."""
    n, n_bins = rows.shape[1:]
    minors: dict[tuple[int, ...], Complex] = {(): np.ones(n_bins, complex)}
    for m, row in enumerate(rows, 1):
        minors = {
            columns: reduce(
                np.add,
                (
                    (-1) ** place * row[column] * minors[columns[:place] + columns[place + 1 :]]
                    for place, column in enumerate(columns)
                ),
            )
            for columns in combinations(range(n), m)
        }
    return np.stack([(-1) ** c * minors[(*range(c), *range(c + 1, n))] for c in range(n)])


def _normalised(vector: Complex, covariance: Complex) -> Complex:
    """The row vector^H, scaled to unit power under the covariance."""
    power = (vector.conj() * (covariance * vector).sum(axis=1)).real.sum(axis=0)
    # it is never less, but for rounding where one direction is all but everything
    trace = np.einsum("aaf->f", covariance).real
    least = RIDGE * trace * (vector.real**2 + vector.imag**2).sum(axis=0)
    row: Complex = (vector / np.sqrt(np.maximum(power, np.maximum(least, 1e-300)))).conj()
    return row
