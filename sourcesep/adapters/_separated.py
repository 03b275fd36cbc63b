"""What every writer knows of a separation: the few attributes it may use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sourcesep.recording import Recording

__all__ = ["Separated", "loadings"]


class Separated(Protocol):
    """A separation, as the writers see it."""

    @property
    def recording(self) -> Recording:
        """The recording that was separated."""

    @property
    def sources(self) -> NDArray[np.float64]:
        """The sources with unit variance, shape (n_components, n_times)."""

    @property
    def keeps_input(self) -> bool:
        """Whether images and residual add up to the recording as it is, distortion and all."""

    @property
    def n_components(self) -> int:
        """Number of components."""

    @property
    def mixing(self) -> NDArray[np.float64] | None:
        """Input units per unit of source, (n_channels, n_components); None if not linear."""

    @property
    def prior_here(self) -> tuple[tuple[str, ...], NDArray[np.float64], NDArray[np.float64]]:
        """Labels of u; mean and variance of each source given each, (n_labels, n_components)."""

    @property
    def warnings(self) -> list[str]:
        """Lines for the user, to which a writer may append."""

    def blocks(self) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Yield mixture and all images, block by block in order of time.

        The mixture, (n_channels, times), is what images and residual add up to; the images
        have shape (n_components, n_channels, times).
        """

    def image(self, k: int) -> NDArray[np.float64]:
        """Source `k` as the channels hear it, shape (n_channels, n_times)."""


def loadings(separation: Separated) -> NDArray[np.float64]:
    """Return (n_channels, n_components): the mixing, or its best linear stand-in.

    Where the mixing is not linear these are the slopes of each image over its source.
    """
    if separation.mixing is not None:
        return separation.mixing
    sources = separation.sources
    slopes = [separation.image(k) @ s / (s @ s) for k, s in enumerate(sources)]
    return np.stack(slopes, axis=1)
