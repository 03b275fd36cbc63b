"""Moments of every label: all that a linear fit needs to know of much data.

They are a map-reduce: the moments of each recording are computed where it lies, and joined
without its samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.matrices.jointdiag import label_covariances, removes_means
from sourcesep.ivae.model import Array
from sourcesep.ivae.priors import label_sums

__all__ = ["Group", "Moments"]


class Group(NamedTuple):
    """Moments of the labels of one scale.

    Parameters
    ----------
    counts : ndarray of int, shape (n_labels,)
        Samples of each, at least one.
    means : ndarray of shape (n_labels, n_channels)
    covariances : ndarray of shape (n_labels, n_channels, n_channels)
        About each label's own mean.
    """

    counts: NDArray[np.int64]
    means: Array
    covariances: Array

    def about(self, centre: Array) -> Array:
        """Second moments about a point that is common to all labels."""
        away = self.means - centre
        return self.covariances + away[:, :, None] * away[:, None, :]


class Moments(NamedTuple):
    """Moments on every scale of u, from the finest to the coarsest.

    Parameters
    ----------
    groups : tuple of Group
        A scale each.
    is_time : bool
        Whether labels are stretches of time, whose means are signal.
    """

    groups: tuple[Group, ...]
    is_time: bool

    @classmethod
    def of(cls, x: Array, u: Auxiliary) -> Self:
        """Sum up x of shape (n_channels, n_times)."""
        groups = []
        for scale in u.scales:
            covariances, counts = label_covariances(x, scale.labels, scale.n_labels, centre=True)
            used = scale.labels >= 0
            labels = scale.labels[used]
            present = np.bincount(labels, minlength=scale.n_labels) > 0
            sums = label_sums((row[used] for row in x), labels, scale.n_labels)
            means = sums[present] / counts[:, None]
            groups.append(Group(counts, means, covariances))
        return cls(tuple(groups), u.is_time)

    @classmethod
    def joined(cls, parts: Sequence[Moments]) -> Self:
        """Join moments of several recordings, in order; labels of two recordings stay apart."""
        nothing = Group(np.empty(0, np.int64), np.empty(0), np.empty(0))
        groups = []
        for scale in zip_longest(*(part.groups for part in parts), fillvalue=nothing):
            heard = [group for group in scale if len(group.counts)] or [scale[0]]
            groups.append(Group(*(np.concatenate(field) for field in zip(*heard, strict=True))))
        return cls(tuple(groups), parts[0].is_time)

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return sum(group.covariances.size for group in self.groups)

    @property
    def n_labels(self) -> int:
        """Labels of the finest scale."""
        return len(self.groups[0].counts)

    @property
    def overall(self) -> tuple[Array, Array]:
        """Mean and covariance of all samples."""
        finest = self.groups[0]
        share = finest.counts / finest.counts.sum()
        mean = share @ finest.means
        return mean, np.einsum("k,kij->ij", share, finest.about(mean))

    def seen_by(self, matrix: Array) -> list[tuple[Array, NDArray[np.int64]]]:
        """Covariances of matrix @ x within each label, and their counts, for every scale.

        About the label's mean, or about that of all samples: see `removes_means`.
        """
        mean, _ = self.overall
        own = removes_means(self.groups[0].counts, self.is_time)
        return [
            (matrix @ (group.covariances if own else group.about(mean)) @ matrix.T, group.counts)
            for group in self.groups
        ]
