"""EEG and MEG: a matrix fitted to what brains, bodies and electrodes do.

Two things set it apart from other instantaneous mixtures. Every electrode has noise of its
own, so that no matrix undoes the mixing; and rhythms have bands that are known beforehand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq

from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.jointdiag import (
    coarse_to_fine,
    joint_diagonalise,
    label_covariances,
    removes_means,
)
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.model import Array, Settings
from sourcesep.ivae.whitening import whiten

__all__ = ["BrainModel", "under_noise"]

Group = tuple[Array, NDArray[np.int64]]
"""Covariances of the labels of one scale, and of how many samples each is."""

MOST_VALUES = 2**26
"""In the covariances of one scale (256 MB); of more labels evenly spread ones are taken."""
MANY_CHANNELS = 8
"""From here on covariances are float32, which is several times as fast."""

RHYTHMS = (1.0, 4.0, 8.0, 13.0, 20.0, 30.0, 45.0)
"""Edges in Hz of the bands from delta to low gamma; the last one ends where the data do."""
BLOCK_SECONDS = 2.5
"""Stretches over which a band's covariance is taken: the scale of u nearest to this."""
BAND_WEIGHT = 3.0
"""Total weight of the bands against 1 for the segments."""
REGULARISATION = 1e-3
"""White noise added to segments where bands are used."""
BAND_FLOOR = 0.3
"""White noise added to bands, as a share of their mean power: high ones hold little else."""

POWER_FLOOR = 0.3
"""Added to the power of components, 1 on average, in every segment: in quiet ones it is mostly
chance and noise, and would count most."""
PRIOR_SECONDS = 10.0
"""Data that the belief in components which share no noise is worth."""
LARGEST_SHARE = 0.5
"""Bounds what one component may take from another."""
FEWEST_LABELS = 20
"""Segments from which what does not change with them can be told from what does."""


class BrainModel(LinearModel):
    """`LinearModel` with the fit that EEG and MEG want.

    In a file and to the rest of the package it is a linear model like any other.

    Parameters
    ----------
    n_components : int, optional
        Number of sources; the numerical rank of x by default.
    bands : bool
        Whether sources are also told apart by how each rhythm's power changes. If not,
        they are estimated in view of the electrodes' noise (`under_noise`).
    sfreq : float
        Samples a second.
    shapes : tuple of float
        Exponents the prior may take.
    """

    def __init__(
        self,
        n_components: int | None = None,
        *,
        bands: bool = False,
        sfreq: float = 1.0,
        shapes: tuple[float, ...] = (2.0,),
    ) -> None:
        super().__init__(n_components, starts=("bands" if bands else "segments",), shapes=shapes)
        self.bands = bands
        self.sfreq = sfreq

    @classmethod
    def configured(cls, settings: Settings) -> Self:
        """Return an unfitted model with these settings."""
        return cls(
            settings.n_components,
            bands="bands" in settings.starts,
            sfreq=settings.sfreq,
            shapes=settings.shapes,
        )

    def blank(self) -> Self:
        """Return an unfitted model with this one's choices made."""
        return type(self)(
            self.n_components, bands=self.bands, sfreq=self.sfreq, shapes=self.shapes
        )

    def fit(self, x: Array, u: Auxiliary, rng: np.random.Generator) -> Self:
        """Fit matrix and prior to x given u.

        Parameters
        ----------
        x : ndarray of shape (n_channels, n_times)
            Observations.
        u : Auxiliary
            Labels of the samples; those left out are not fitted on.
        rng : numpy.random.Generator
            Not needed: nothing is drawn.

        Raises
        ------
        SettingsError
            If more components are asked for than the rank of x.
        """
        if not u.used.all():
            x, u = x[:, u.used], u.take(u.used)
        white = whiten(x, self.requested)
        y = white.matrix @ x
        y -= (white.matrix @ white.mean)[:, None]
        rows = self.rows(y, u, rng)
        del y
        # a component's map is what the channels have in common with it (Haufe et al. 2014)
        maps = white.inverse @ rows.T
        order = np.argsort(-np.square(maps).sum(axis=0), kind="stable")
        peaks = maps[np.abs(maps).argmax(axis=0), np.arange(len(rows))]
        rows = (rows * np.where(peaks < 0, -1.0, 1.0)[:, None])[order]
        self.scores, self.start = {}, self.starts[0]
        self.mean = white.mean
        self.unmixing, self.mixing = rows @ white.matrix, white.inverse @ np.linalg.inv(rows)
        self.complement, self.remainder = white.complement, white.complement_inverse
        self.prior = self.fit_prior(self._unmix(x), u)
        return self

    def rows(self, y: Array, u: Auxiliary, rng: np.random.Generator) -> Array:
        """Find the rows that make sources of unit variance of whitened signals.

        Parameters
        ----------
        y : ndarray of shape (n_components, n_times)
            Uncorrelated, of unit variance.
        u : Auxiliary
            Every sample has a label.
        rng : numpy.random.Generator
            Not needed.

        Returns
        -------
        ndarray of shape (n_components, n_components)
            Of unit length.
        """
        if len(y) == 1:
            return np.eye(1)
        groups = _groups(y, u)
        floor = REGULARISATION if self.bands else POWER_FLOOR
        segments = [c + floor * np.eye(len(y), dtype=c.dtype) for c, _ in groups]
        tol = 1e-3 if len(y) >= MANY_CHANNELS else 1e-7
        found = np.asarray(coarse_to_fine(segments, tol=tol).matrix, np.float64)
        if self.bands:
            found = self._with_bands(found, segments, y, u, tol)
        elif u.is_time and len(groups[0][0]) >= FEWEST_LABELS:
            found = under_noise(found, groups, PRIOR_SECONDS * self.sfreq / y.shape[1])
        rows: Array = found / np.linalg.norm(found, axis=1, keepdims=True)
        return rows

    def _with_bands(
        self, start: Array, segments: Sequence[Array], y: Array, u: Auxiliary, tol: float
    ) -> Array:
        """Diagonalise the segments' covariances together with those of every rhythm."""
        seconds = [u.n_times / (len(np.unique(s.labels)) * self.sfreq) for s in u.scales]
        nearest = int(np.abs(np.log(np.array(seconds) / BLOCK_SECONDS)).argmin())
        scale, dtype = u.scales[nearest], segments[0].dtype
        bands = np.concatenate(
            [
                label_covariances(z, scale.labels, scale.n_labels)[0]
                for z in _rhythms(y.astype(dtype), self.sfreq)
            ]
        )
        identity = np.eye(len(y), dtype=dtype)
        bands = bands * (len(bands) * len(y) / np.einsum("kii->", bands)) + BAND_FLOOR * identity
        weights = [np.full(len(c), 1 / (len(c) * len(segments))) for c in segments]
        weights.append(np.full(len(bands), BAND_WEIGHT / len(bands)))
        found = joint_diagonalise(
            np.concatenate([*segments, bands]), np.concatenate(weights), start=start, tol=tol
        )
        return np.asarray(found.matrix, np.float64)


def under_noise(matrix: Array, groups: Sequence[Group], prior: float) -> Array:
    """Turn a joint diagonaliser into rows that estimate sources best under sensor noise.

    Covariances of labels are ``C_k = B D_k B' + N``: the noise N is the same in all, and
    what is diagonal changes. Seen by a joint diagonaliser that is almost right, B is
    ``I + A`` with a small A, so an entry of the covariance between two components is

        C_k,ij = A_ij D_k,j + A_ji D_k,i + N_ij,

    a weighted regression for each pair, on the two powers and a constant. Whitened signals
    have unit covariance, so the least-squares estimate of a source is its own column of B
    times the signals; a joint diagonaliser alone makes components that hardly correlate,
    though best estimates of sources do, by the noise that they share.

    Parameters
    ----------
    matrix : ndarray of shape (d, d)
        A joint diagonaliser of whitened signals.
    groups : sequence of (covariances, counts)
        Of every scale: (n_labels, d, d) and (n_labels,). Scales count alike.
    prior : float
        Weight of the belief that A is 0, as a share of that of the data.

    Returns
    -------
    ndarray of shape (d, d)
        Rows of unit length.

    References
    ----------
    P. Tichavsky & A. Yeredor, "Fast approximate joint diagonalization incorporating weight
    matrices", IEEE Trans. Signal Processing 57(3), 2009, whose pairwise regression this is,
    with a constant for the noise.
    """
    rows = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    d = len(rows)
    normal, right = np.zeros((d, d, 3, 3)), np.zeros((d, d, 3))
    for covariances, _ in groups:
        seen = rows.astype(covariances.dtype) @ covariances @ rows.T.astype(covariances.dtype)
        power = np.einsum("kii->ki", seen).astype(np.float64)
        weight = 1 / (power + POWER_FLOOR)
        seen *= weight[:, :, None]
        seen *= weight[:, None, :]
        one, two = weight * power, weight * power**2
        terms = {
            (0, 0): weight.T @ two,
            (1, 1): two.T @ weight,
            (0, 1): one.T @ one,
            (0, 2): weight.T @ one,
            (1, 2): one.T @ weight,
            (2, 2): weight.T @ weight,
        }
        for (a, b), value in terms.items():
            normal[:, :, a, b] += value / len(seen)
            normal[:, :, b, a] = normal[:, :, a, b]
        by_other = np.einsum("kij,kj->ij", seen, power)
        for a, value in enumerate((by_other, by_other.T, seen.sum(axis=0))):
            right[:, :, a] += value / len(seen)
    normal[:, :, [0, 1], [0, 1]] += prior * len(groups)
    normal += 1e-9 * np.eye(3)
    shares = np.linalg.solve(normal, right[..., None])[..., 0, 0]
    np.fill_diagonal(shares, 0)
    shares = np.clip(shares, -LARGEST_SHARE, LARGEST_SHARE)
    columns = np.linalg.solve(rows, np.eye(d) + shares)
    best: Array = (columns / np.linalg.norm(columns, axis=0)).T
    return best


def _groups(y: Array, u: Auxiliary) -> list[Group]:
    """Covariances of the labels of every scale; coarse ones are sums of finer ones."""
    if len(y) >= MANY_CHANNELS:
        y = y.astype(np.float32)
    finest = u.scales[0]
    _, first, index = np.unique(finest.labels, return_index=True, return_inverse=True)
    centre = removes_means(np.bincount(index), u.is_time)
    fine, counts = label_covariances(y, finest.labels, finest.n_labels, centre=centre)
    groups = []
    for scale in u.scales:
        above = scale.labels[first]
        if scale is finest:
            groups.append((fine, counts))
        elif np.array_equal(above[index], scale.labels):
            groups.append(_pooled(fine, counts, above))
        else:
            groups.append(label_covariances(y, scale.labels, scale.n_labels, centre=centre))
    return [_evenly(covariances, sizes) for covariances, sizes in groups]


def _pooled(fine: Array, counts: NDArray[np.int64], above: NDArray[np.int64]) -> Group:
    """Covariances of unions of labels, by the number of the union that each belongs to."""
    unions = np.unique(above)
    pooled = np.empty((len(unions), *fine.shape[1:]), fine.dtype)
    sizes = np.empty(len(unions), np.int64)
    for k, union in enumerate(unions):
        own = np.flatnonzero(above == union)
        sizes[k] = counts[own].sum()
        pooled[k] = np.tensordot(counts[own].astype(fine.dtype) / sizes[k], fine[own], 1)
    return pooled, sizes


def _evenly(covariances: Array, counts: NDArray[np.int64]) -> Group:
    """No more of them than memory is meant to hold, from the first to the last."""
    most = max(1, MOST_VALUES // covariances[0].size)
    if len(covariances) <= most:
        return covariances, counts
    keep = np.linspace(0, len(covariances) - 1, most).round().astype(np.int64)
    return covariances[keep], counts[keep]


def _rhythms(y: Array, sfreq: float) -> Iterator[Array]:
    """Yield y in each of the bands of `RHYTHMS` that the data reach up to."""
    n_fft = next_fast_len(y.shape[1], real=True)
    transform, frequency = rfft(y, n_fft, axis=1), rfftfreq(n_fft, 1 / sfreq)
    edges = [edge for edge in RHYTHMS if edge < sfreq / 2] or [0.0]
    for low, high in pairwise([*edges, np.inf]):
        inside = (frequency >= low) & (frequency < high)
        yield irfft(transform * inside, n_fft, axis=1)[:, : y.shape[1]]
