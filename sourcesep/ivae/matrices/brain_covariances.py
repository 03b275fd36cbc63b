"""What a fit of EEG looks at: covariances of segments of every length, and of rhythms."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq

from sourcesep.auxiliary import Auxiliary, Scale
from sourcesep.ivae.matrices.jointdiag import MANY_CHANNELS, label_covariances, removes_means
from sourcesep.ivae.model import Array

__all__ = ["Group", "Seen", "see"]

MOST_VALUES = 2**26
"""In the covariances of one scale, or of all rhythms (256 MB as float32); of more labels some that
are evenly spread are taken."""

RHYTHMS = (1.0, 4.0, 8.0, 13.0, 20.0, 30.0, 45.0)
"""Edges in Hz of the bands from delta to low gamma; the last one ends where the data do."""
BLOCK_SECONDS = 2.5
"""Stretches over which a band's covariance is taken: the scale of u nearest to this."""
LEAST_HEARD = 1e-5
"""Of the power of what is heard most; half of the data in which a direction has less lacks it."""


class Group(NamedTuple):
    """Covariances of the labels of one scale, of one band or of all.

    Parameters
    ----------
    covariances : ndarray of shape (n_labels, d, d)
        Of each label.
    counts : ndarray of int, shape (n_labels,)
        How many samples each is of.
    segment : ndarray of int, shape (n_labels,), or None
        In which label of the coarsest scale each lies, if none lies in several.
    """

    covariances: Array
    counts: NDArray[np.int64]
    segment: NDArray[np.int64] | None

    def within(self, inside: NDArray[np.bool_]) -> Group:
        """The covariances of labels that lie inside these of the coarsest labels."""
        keep = inside[self.segment]
        return Group(self.covariances[keep], self.counts[keep], None)


class Seen(NamedTuple):
    """All that a fit looks at: covariances of every scale, from the finest, and of rhythms.

    ``is_whole`` if the finest are of all labels, and about 0.
    """

    groups: list[Group]
    rhythms: Group | None
    is_time: bool
    is_whole: bool = False

    def within(self, inside: NDArray[np.bool_]) -> Seen:
        """What a fit would look at if there were these of the coarsest labels only."""
        rhythms = self.rhythms and self.rhythms.within(inside)
        return Seen([group.within(inside) for group in self.groups], rhythms, self.is_time)

    def holds_all(self, inside: NDArray[np.bool_]) -> bool:
        """Whether every direction is heard in these of the coarsest labels."""
        covariances, counts, _ = self.groups[-1].within(inside)
        pooled = np.tensordot(counts / counts.sum(), covariances.astype(np.float64), 1)
        values = np.linalg.eigvalsh(pooled)
        return bool(values[0] > LEAST_HEARD * values[-1])


def see(y: Array, u: Auxiliary, sfreq: float | None) -> Seen:
    """Take the covariances of whitened signals.

    Parameters
    ----------
    y : ndarray of shape (d, n_times)
        Uncorrelated, of unit variance.
    u : Auxiliary
        Every sample has a label.
    sfreq : float or None
        Samples a second, if rhythms are wanted.
    """
    if len(y) >= MANY_CHANNELS:
        y = y.astype(np.float32)
    rhythms = None if sfreq is None else _rhythms(y, u, sfreq)
    groups, is_whole = _groups(y, u)
    return Seen(groups, rhythms, u.is_time, is_whole)


def _groups(y: Array, u: Auxiliary) -> tuple[list[Group], bool]:
    """Covariances of the labels of every scale; coarse ones are sums of finer ones.

    And whether the finest are all there, about 0.
    """
    finest, coarsest = u.scales[0], _numbered(u.scales[-1].labels)
    _, first, index = np.unique(finest.labels, return_index=True, return_inverse=True)
    centre = removes_means(np.bincount(index), u.is_time)
    most = max(1, MOST_VALUES // len(y) ** 2)
    fine = _group(y, finest, coarsest, most, centre=centre)
    is_all = len(fine.counts) == len(first)
    groups = [fine]
    for scale in u.scales[1:]:
        if is_all and np.array_equal(scale.labels[first][index], scale.labels):
            covariances, sizes = _pooled(fine.covariances, fine.counts, scale.labels[first])
            groups.append(Group(covariances, sizes, _where(scale.labels[first], coarsest[first])))
        else:
            groups.append(_group(y, scale, coarsest, most, centre=centre))
    return groups, is_all and not centre


def _group(
    y: Array, scale: Scale, coarsest: NDArray[np.int64], most: int, *, centre: bool = False
) -> Group:
    """Covariances of the labels of a scale; if these are too many, of some from first to last."""
    labels = scale.labels
    present = np.unique(labels)
    if len(present) > most:
        evenly = np.linspace(0, len(present) - 1, most).round().astype(np.int64)
        inside = np.isin(labels, present[evenly])
        y, labels, coarsest = y[:, inside], labels[inside], coarsest[inside]
    covariances, counts = label_covariances(y, labels, scale.n_labels, centre=centre)
    return Group(covariances, counts, _where(labels, coarsest))


def _numbered(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number labels from 0, in their order."""
    return np.unique(labels, return_inverse=True)[1]


def _where(labels: NDArray[np.int64], above: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """The coarser label that each label lies in; None if one lies in several."""
    _, first, index = np.unique(labels, return_index=True, return_inverse=True)
    return above[first] if np.array_equal(above[first][index], above) else None


def _pooled(
    fine: Array, counts: NDArray[np.int64], above: NDArray[np.int64]
) -> tuple[Array, NDArray[np.int64]]:
    """Covariances of unions of labels, by the number of the union that each belongs to."""
    order = np.argsort(above, kind="stable")
    unions, begins = np.unique(above[order], return_index=True)
    sizes = np.add.reduceat(counts[order], begins)
    pooled = np.empty((len(unions), *fine.shape[1:]), fine.dtype)
    for k, own in enumerate(np.split(order, begins[1:])):
        share = counts[own].astype(fine.dtype) / sizes[k]
        pooled[k] = np.einsum("k,kij->ij", share, fine[own])
    return pooled, sizes


def _rhythms(y: Array, u: Auxiliary, sfreq: float) -> Group:
    """Covariances of every rhythm, in the labels of about `BLOCK_SECONDS`."""
    seconds = [u.n_times / (len(np.unique(s.labels)) * sfreq) for s in u.scales]
    scale = u.scales[int(np.abs(np.log(np.array(seconds) / BLOCK_SECONDS)).argmin())]
    coarsest, bands = _numbered(u.scales[-1].labels), _bands(sfreq)
    most = max(1, MOST_VALUES // (len(bands) * len(y) ** 2))
    n_labels = min(len(np.unique(scale.labels)), most)
    covariances = np.empty((len(bands), n_labels, len(y), len(y)), y.dtype)
    for own, z in zip(covariances, _in_bands(y, sfreq, bands), strict=True):
        own[:], counts, segment = _group(z, scale, coarsest, most)
    return Group(
        covariances.reshape(-1, len(y), len(y)),
        np.tile(counts, len(bands)),
        None if segment is None else np.tile(segment, len(bands)),
    )


def _bands(sfreq: float) -> list[tuple[float, float]]:
    """Lower and upper edges of the bands of `RHYTHMS` below half the rate."""
    edges = [edge for edge in RHYTHMS if edge < sfreq / 2] or [0.0]
    return list(pairwise([*edges, np.inf]))


def _in_bands(y: Array, sfreq: float, bands: list[tuple[float, float]]) -> Iterator[Array]:
    """Yield y in each of the bands."""
    n_fft = next_fast_len(y.shape[1], real=True)
    transform, frequency = rfft(y, n_fft, axis=1), rfftfreq(n_fft, 1 / sfreq)
    for low, high in bands:
        inside = (frequency >= low) & (frequency < high)
        yield irfft(transform * inside, n_fft, axis=1)[:, : y.shape[1]]
