"""Order and sign of components: what every fit chooses for itself."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from sourcesep.ivae.model import Array

__all__ = ["loading_signs", "signed_match"]


def loading_signs(x: Array, z: Array) -> Array:
    """Return the sign of each component's covariance with the channel it shows in most."""
    loading = (z - z.mean(axis=1, keepdims=True)) @ (x - x.mean(axis=1, keepdims=True)).T
    strongest = np.abs(loading).argmax(axis=1)
    return np.where(loading[np.arange(len(z)), strongest] < 0, -1.0, 1.0)


def signed_match(reference: Array, z: Array) -> Array:
    """Return the signed permutation matrix that brings z closest to `reference`."""
    correlation = np.corrcoef(reference, z)[: len(z), len(z) :]
    rows, columns = linear_sum_assignment(-np.abs(correlation))
    matrix = np.zeros((len(z), len(z)))
    matrix[rows, columns] = np.where(correlation[rows, columns] < 0, -1.0, 1.0)
    return matrix
