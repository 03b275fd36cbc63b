"""Random networks that mix: the maps of the papers on nonlinear ICA."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["activate", "conditioned_matrix", "random_network"]

N_TRIALS = 2000
"""How many matrices are drawn, to know which condition numbers are low."""


def random_network(
    n_sources: int,
    n_layers: int,
    rng: np.random.Generator,
    *,
    n_channels: int | None = None,
    activation: str = "xtanh",
    slope: float = 0.1,
    reuse_matrix: bool = False,
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Draw a map like that of `ivae`, for as many recordings as you like.

    It takes sources of shape (n_samples, n_sources) to observations of shape
    (n_samples, n_channels), as many as sources by default; the last layer is a matrix.
    """
    width = n_sources if n_channels is None else n_channels
    matrices: list[NDArray[np.float64]] = []
    for layer in range(n_layers):
        shape = (width if layer else n_sources, width)
        again = reuse_matrix and matrices and matrices[-1].shape == shape
        matrices.append(matrices[-1] if again else conditioned_matrix(shape, rng))

    def network(sources: NDArray[np.float64]) -> NDArray[np.float64]:
        x = sources @ matrices[0]
        for matrix in matrices[1:]:
            x = activate(x, activation, slope) @ matrix
        return x

    return network


def activate(x: NDArray[np.float64], activation: str, slope: float) -> NDArray[np.float64]:
    """Bend x: by tanh(x) + slope x ("xtanh"), by a leaky ReLU ("leaky-relu"), or not at all."""
    if activation == "xtanh":
        return np.tanh(x) + slope * x
    if activation == "leaky-relu":
        return np.where(x > 0, x, slope * x)
    return x


def conditioned_matrix(shape: tuple[int, int], rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a matrix whose condition number is in the lowest quarter of `N_TRIALS`."""
    drawn = rng.uniform(-1, 1, (N_TRIALS, *shape))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    conditions = np.linalg.cond(drawn)
    good = np.flatnonzero(conditions <= np.percentile(conditions, 25))
    return np.asarray(drawn[good[0]])
