"""Where the components of a fit lie: what a map has seen, and rows that nobody should follow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sourcesep.ivae.model import Array

__all__ = ["clipped_where_wild", "left_aside", "medians_where_wild", "winsorised_range"]

LEFT_ASIDE = 1e-4
"""Share of the samples at either end that a range does not count, one of them at least: a
single wild row says nothing of where a component lies."""


def left_aside(n_times: int) -> int:
    """Return how many of so many samples a range does not count at either end."""
    return min(int(np.ceil(LEFT_ASIDE * n_times)), (n_times - 1) // 2)


def winsorised_range(z: Array) -> Array:
    """Return where each row of z begins and ends, but for its few most extreme samples.

    Parameters
    ----------
    z : ndarray of shape (..., n_components, n_times)
        Components.

    Returns
    -------
    ndarray of shape (..., 2, n_components)
        The least and the largest value.
    """
    n_times = z.shape[-1]
    aside = left_aside(n_times)
    ends = [aside, n_times - 1 - aside]
    return np.stack(list(np.moveaxis(np.partition(z, ends, axis=-1)[..., ends], -1, 0)), axis=-2)


def clipped_where_wild(z: Array, span: Array) -> Array:
    """Return z with wild values brought back to their range.

    Wild is what lies further out than the range is wide.

    Parameters
    ----------
    z : ndarray of shape (n_components, n_times)
        Components.
    span : ndarray of shape (2, n_components)
        Their range.

    Returns
    -------
    ndarray of the shape of z
        z itself where nothing is wild, as almost always.
    """
    low, high = span[..., None]
    wild = _is_wild(z, span)
    return np.where(wild, np.clip(z, low, high), z) if wild.any() else z


def medians_where_wild(x: Array) -> Array:
    """Return x with wild samples replaced by the medians, so that they decide nothing.

    Parameters
    ----------
    x : ndarray of shape (n_channels, n_times)
        Observations.

    Returns
    -------
    ndarray of the shape of x
        x itself where no sample is wild in any channel, as almost always.
    """
    wild = _is_wild(x, winsorised_range(x)).any(axis=0)
    return np.where(wild, np.median(x, axis=1, keepdims=True), x) if wild.any() else x


def _is_wild(z: Array, span: Array) -> NDArray[np.bool_]:
    low, high = span[..., None]
    wild: NDArray[np.bool_] = (z < 2 * low - high) | (z > 2 * high - low)
    return wild
