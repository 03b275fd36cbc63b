"""The auxiliary variable u: what the prior p(z|u) is conditioned on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEFT_OUT", "Auxiliary", "Scale"]

LEFT_OUT = -1
"""The label of samples that no model may be fitted on."""


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
class Auxiliary:
    """What is known about each sample besides the sample itself.

    Parameters
    ----------
    scales : tuple of Scale
        Labellings from the finest to the coarsest; the prior lives on the finest.
    covariates : ndarray of float, shape (n_times, n_covariates), or None
        Continuous values behind the labels, for priors that are networks of u.
    is_time : bool
        Whether the labels are stretches of this recording's time. They mean nothing
        in another recording, whose segments get variances of their own; and a
        segment's mean is signal, not a property of u, so the prior's mean is 0.
    spec : str
        How it was asked for.
    """

    scales: tuple[Scale, ...]
    covariates: NDArray[np.float64] | None
    is_time: bool
    spec: str

    @property
    def labels(self) -> NDArray[np.int64]:
        """The finest labelling, shape (n_times,)."""
        return self.scales[0].labels

    @property
    def n_labels(self) -> int:
        """Number of labels of the finest scale."""
        return self.scales[0].n_labels

    @property
    def n_times(self) -> int:
        """Number of samples."""
        return self.labels.shape[0]

    @property
    def used(self) -> NDArray[np.bool_]:
        """Which samples have a label on every scale, shape (n_times,)."""
        return np.all([s.labels != LEFT_OUT for s in self.scales], axis=0)

    def take(self, keep: NDArray[np.bool_] | NDArray[np.int64]) -> Auxiliary:
        """Return u of some of the samples; labels keep their meaning."""
        return Auxiliary(
            tuple(Scale(s.labels[keep], s.names) for s in self.scales),
            None if self.covariates is None else self.covariates[keep],
            self.is_time,
            self.spec,
        )
