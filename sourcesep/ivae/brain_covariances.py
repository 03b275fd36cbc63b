"""What a fit of EEG looks at: covariances of segments of every length, and of rhythms."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft, rfftfreq

from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.jointdiag import MANY_CHANNELS, label_covariances, removes_means
from sourcesep.ivae.model import Array

__all__ = ["Group", "Seen", "see"]

MOST_VALUES = 2**26
"""In the covariances of one scale (256 MB); of more labels evenly spread ones are taken."""

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
        """What lies in some of the coarsest labels."""
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
        """The same of some of the coarsest labels."""
        rhythms = self.rhythms and self.rhythms.within(inside)
        return Seen([group.within(inside) for group in self.groups], rhythms, self.is_time)

    def holds_all(self, inside: NDArray[np.bool_]) -> bool:
        """Whether no direction is next to silent in some of the coarsest labels."""
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
    finest, coarsest = u.scales[0], u.scales[-1]
    _, first, index = np.unique(finest.labels, return_index=True, return_inverse=True)
    centre = removes_means(np.bincount(index), u.is_time)
    fine, counts = label_covariances(y, finest.labels, finest.n_labels, centre=centre)
    nested = [np.array_equal(scale.labels[first][index], scale.labels) for scale in u.scales]
    at = first if all(nested) else slice(None)
    groups = []
    for scale, is_nested in zip(u.scales, nested, strict=True):
        if scale is finest:
            covariances, sizes = fine, counts
        elif is_nested:
            covariances, sizes = _pooled(fine, counts, scale.labels[first])
        else:
            covariances, sizes = label_covariances(y, scale.labels, scale.n_labels, centre=centre)
        where = _where(scale.labels[at], coarsest.labels[at])
        groups.append(_evenly(Group(covariances, sizes, where)))
    return groups, not centre and len(groups[0].counts) == len(counts)


def _where(labels: NDArray[np.int64], above: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """In which label above, counted from 0 in order, each label lies; None if in several."""
    _, first, index = np.unique(labels, return_index=True, return_inverse=True)
    number = np.unique(above, return_inverse=True)[1]
    return number[first] if np.array_equal(number[first][index], number) else None


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


def _evenly(group: Group) -> Group:
    """No more of them than memory is meant to hold, from the first to the last."""
    most = max(1, MOST_VALUES // group.covariances[0].size)
    if len(group.counts) <= most:
        return group
    keep = np.linspace(0, len(group.counts) - 1, most).round().astype(np.int64)
    segment = None if group.segment is None else group.segment[keep]
    return Group(group.covariances[keep], group.counts[keep], segment)


def _rhythms(y: Array, u: Auxiliary, sfreq: float) -> Group:
    """Covariances of every rhythm, in the labels of about `BLOCK_SECONDS`."""
    seconds = [u.n_times / (len(np.unique(s.labels)) * sfreq) for s in u.scales]
    scale = u.scales[int(np.abs(np.log(np.array(seconds) / BLOCK_SECONDS)).argmin())]
    parts = [label_covariances(z, scale.labels, scale.n_labels) for z in _in_bands(y, sfreq)]
    where = _where(scale.labels, u.scales[-1].labels)
    return Group(
        np.concatenate([covariances for covariances, _ in parts]),
        np.concatenate([counts for _, counts in parts]),
        None if where is None else np.tile(where, len(parts)),
    )


def _in_bands(y: Array, sfreq: float) -> Iterator[Array]:
    """Yield y in each of the bands of `RHYTHMS` that the data reach up to."""
    n_fft = next_fast_len(y.shape[1], real=True)
    transform, frequency = rfft(y, n_fft, axis=1), rfftfreq(n_fft, 1 / sfreq)
    edges = [edge for edge in RHYTHMS if edge < sfreq / 2] or [0.0]
    for low, high in pairwise([*edges, np.inf]):
        inside = (frequency >= low) & (frequency < high)
        yield irfft(transform * inside, n_fft, axis=1)[:, : y.shape[1]]
