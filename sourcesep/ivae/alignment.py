"""Order and sign of components: what every fit chooses for itself."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from sourcesep.ivae.model import Array

__all__ = ["peak_signs", "signed_match", "standardising"]


def peak_signs(loadings: Array) -> Array:
    """Return the sign of the largest loading of each component, a row each."""
    peak = loadings[np.arange(len(loadings)), np.abs(loadings).argmax(axis=1)]
    return np.where(peak < 0, -1.0, 1.0)


def loading_signs(x: Array, z: Array) -> Array:
    """Return the sign of each component's covariance with the channel it shows in most."""
    centred = x - x.mean(axis=1, keepdims=True)
    return peak_signs((z - z.mean(axis=1, keepdims=True)) @ centred.T)


def signed_match(reference: Array, z: Array) -> Array:
    """Return the signed permutation matrix that brings z closest to `reference`."""
    correlation = np.corrcoef(reference, z)[: len(z), len(z) :]
    rows, columns = linear_sum_assignment(-np.abs(correlation))
    matrix = np.zeros((len(z), len(z)))
    matrix[rows, columns] = np.where(correlation[rows, columns] < 0, -1.0, 1.0)
    return matrix


def standardising(z: Array, x: Array, like: Array | None = None) -> tuple[Array, Array, Array]:
    """Bring restarts to unit variance and into one order and sign.

    Parameters
    ----------
    z : ndarray of shape (n_restarts, n_components, n_times)
        Latents of restarts, the best first.
    x : ndarray of shape (n_channels, n_times)
        What they are latents of: loadings on it are positive where nothing else is said.
    like : ndarray of shape (n_components, n_times), optional
        Whose order and sign to take instead of the best restart's.

    Returns
    -------
    matrix : ndarray of shape (n_restarts, n_components, n_components)
    offset : ndarray of shape (n_restarts, n_components)
        What does it: z -> matrix z + offset.
    latents : ndarray of shape (n_restarts, n_components, n_times)
        What comes of it.
    """
    mean = z.mean(axis=2, keepdims=True)
    scale = z.std(axis=2, keepdims=True)
    z = (z - mean) / scale
    change = np.stack([signed_match(z[0] if like is None else like, other) for other in z])
    if like is None:
        change = loading_signs(x, z[0])[:, None] * change
    return change / scale.swapaxes(1, 2), -(change @ (mean / scale))[..., 0], change @ z
