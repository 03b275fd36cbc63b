"""Scale, sign and order: from the sources as a map has them to those that a model shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sourcesep.ivae.alignment import peak_signs
from sourcesep.ivae.model import Array
from sourcesep.ivae.prior_tables import Prior
from sourcesep.ivae.priors import LabelPrior
from sourcesep.ivae.vae.prior_network import NetworkPrior

__all__ = ["Frame"]


@dataclass(frozen=True)
class Frame:
    """Shown are (z[order] - offset) / gain.

    Parameters
    ----------
    order : ndarray of int, shape (n_components,)
        Of the components, by the power that they explain.
    offset, gain : ndarray of shape (n_components,)
        In that order.
    """

    order: NDArray[np.int64]
    offset: Array
    gain: Array

    @classmethod
    def of(cls, z: Array, images: Array, weight: Array, *, with_mean: bool) -> Self:
        """Give z unit variance, the order of its images' power and positive largest loadings.

        Parameters
        ----------
        z : ndarray of shape (n_components, n_times)
            Sources as a map has them.
        images : ndarray of shape (n_components, n_channels, n_times)
            As the channels hear them.
        weight : ndarray of shape (n_channels,)
            By which the channels count.
        with_mean : bool
            Whether z is to have mean 0.
        """
        images = weight[:, None] * (images - images.mean(axis=2, keepdims=True))
        power = np.square(images).sum(axis=(1, 2))
        loading = np.einsum("kt,kct->kc", z - z.mean(axis=1, keepdims=True), images)
        order = np.argsort(-power, kind="stable")
        gain = z.std(axis=1) * peak_signs(loading)
        return cls(order, (z.mean(axis=1) * with_mean)[order], gain[order])

    @property
    def inverse(self) -> Self:
        """The way back."""
        back = np.argsort(self.order)
        return type(self)(back, (-self.offset / self.gain)[back], 1 / self.gain[back])

    def show(self, z: Array) -> Array:
        """Sources of shape (n_components, n_times)."""
        shown: Array = (z[self.order] - self.offset[:, None]) / self.gain[:, None]
        return shown

    def show_scale(self, scale: Array) -> Array:
        """Standard deviations of sources, (n_components, n_times)."""
        shown: Array = scale[self.order] / np.abs(self.gain)[:, None]
        return shown

    def show_prior(self, prior: Prior) -> Prior:
        """The prior of the sources that are shown."""
        if isinstance(prior, LabelPrior):
            return self.show_table(prior)
        d = len(self.order)
        *hidden, matrix, bias = prior.weights
        rows = np.concatenate([self.order, d + self.order])
        matrix, bias = matrix[rows], bias[rows]
        bias[:d, 0] -= 2 * np.log(np.abs(self.gain))
        bias[d:, 0] -= self.offset
        matrix[d:] /= self.gain[:, None]
        bias[d:] /= self.gain[:, None]
        table = self.show_table(prior.table)
        return NetworkPrior((*hidden, matrix, bias), prior.centre, prior.width, table)

    def show_table(self, table: LabelPrior) -> LabelPrior:
        """A prior with a row a label, of the sources that are shown."""
        return LabelPrior(
            (table.mean[:, self.order] - self.offset) / self.gain,
            table.scale[:, self.order] / np.abs(self.gain),
            table.shape[self.order],
        )

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Everything needed to rebuild it."""
        return {"order": self.order, "offset": self.offset, "gain": self.gain}
