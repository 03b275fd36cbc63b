"""Unmixing by the shapes of distributions, skewed and discrete ones too.

Picard goes by two shapes, a peaked and a flat one, that are the same to both sides. Counts and
skewed sources are neither. Here the shape of each source is read off the component itself.
"""

from __future__ import annotations

import numpy as np

from sourcesep.ivae.model import Array

__all__ = ["by_skewness", "entropy", "likeliest_nearby"]

WIDTH, TOP = 0.7, 4
"""A score is made of 1, z and the powers of tanh(WIDTH z) up to TOP."""
RIDGE = 1e-8
"""Added to the moments of these, which two values alone do not tell apart."""
MOST_STEPS, STILL = 20, 1e-3
"""Steps of the ascent, and the share of another component below which a step ends it."""
LONGEST = 0.5
"""The largest share of another component that one step takes up."""
LEAST_CURVATURE = 0.05
"""Of the likelihood, 0 for Gaussian pairs, which could else be turned at will."""
DENSEST = 1.0
"""A density of more than this, in units of one over the standard deviation, counts as this:
values that come again, and edges, would else decide by how exactly they are met."""


def likeliest_nearby(y: Array, matrix: Array) -> Array:
    """Climb from an unmixing matrix to the likeliest one nearby, whatever the sources' shapes.

    Quasi-Newton steps on the likelihood of the matrix. The score -p'/p of each component's
    density p is the combination of a few functions g that is nearest to it in mean square, which
    needs no density: E[score g] = E[g'].

    Parameters
    ----------
    y : ndarray of shape (n_components, n_times)
        Whitened signals.
    matrix : ndarray of shape (n_components, n_components)
        Where to begin; what it makes of y is not constant.

    Returns
    -------
    ndarray of shape (n_components, n_components)
        Applied to y it gives components of unit variance.

    References
    ----------
    D.-T. Pham & P. Garat, "Blind separation of mixture of independent sources through a
    quasi-maximum likelihood approach", IEEE Trans. Signal Process. 45 (1997).
    """
    rate, before = 1.0, np.zeros_like(matrix)
    for _ in range(MOST_STEPS):
        z = matrix @ y
        scale = z.std(axis=1, keepdims=True)
        step = _step(z / scale)
        if not np.isfinite(step).all():  # of a few spikes it can step beyond all bounds
            break
        # to and fro, as densities of few values make it, shorter steps arrive
        rate = rate / 2 if (step * before).sum() < 0 else min(1.0, 1.5 * rate)
        before, matrix = step, matrix / scale
        longest = rate * np.abs(step).max(initial=0.0)
        matrix = matrix + rate * min(1.0, LONGEST / max(longest, LONGEST)) * step @ matrix
        if longest < STILL:
            break
    scaled: Array = matrix / (matrix @ y).std(axis=1, keepdims=True)
    return scaled


def _step(z: Array) -> Array:
    """Shares of each component to add to the others, for components of unit variance."""
    scores = np.stack([_score(row) for row in z])
    gradient = -scores @ z.T / z.shape[1]
    curvature = np.square(scores).mean(axis=1)
    # each pair by itself, as if all others were right
    determinant = np.maximum(np.outer(curvature, curvature) - 1, LEAST_CURVATURE)
    step: Array = (curvature * gradient - gradient.T) / determinant
    np.fill_diagonal(step, 0.0)
    return step


def _score(z: Array) -> Array:
    """-p'/p of the density p of the values z."""
    bent = np.tanh(WIDTH * z)
    slope = WIDTH * (1 - bent**2)
    powers = [np.ones_like(z)]
    for _ in range(TOP):
        powers.append(powers[-1] * bent)
    basis = np.stack([*powers, z])
    slopes = np.zeros(len(basis))
    slopes[1:-1] = [k * (powers[k - 1] @ slope) / len(z) for k in range(1, TOP + 1)]
    slopes[-1] = 1
    moments = basis @ basis.T / len(z) + RIDGE * np.eye(len(basis))
    return np.asarray(np.linalg.solve(np.asarray(moments), slopes) @ basis, np.float64)


def by_skewness(y: Array) -> Array:
    """Unmix whitened signals by their third moments, which have no optimum but the sources.

    References
    ----------
    A. Anandkumar, R. Ge, D. Hsu, S. Kakade & M. Telgarsky, "Tensor decompositions for learning
    latent variable models", J. Mach. Learn. Res. 15 (2014).
    """
    matrix = np.eye(len(y))
    for _ in range(MOST_STEPS):
        before = matrix
        left, _, right = np.linalg.svd((matrix @ y) ** 2 @ y.T)
        matrix = left @ right
        if np.abs(np.abs((matrix * before).sum(axis=1)) - 1).max() < STILL**2:
            break
    return matrix


def entropy(y: Array, matrix: Array) -> float:
    """Sum of the entropies of components less the matrix's log-volume: least where they are right.

    By the spacings of sorted values; the components are scaled to unit variance.

    References
    ----------
    O. Vasicek, "A test for normality based on sample entropy", J. R. Stat. Soc. B 38 (1976).
    """
    z = matrix @ y
    scale = z.std(axis=1, keepdims=True)
    ordered = np.sort(z / scale, axis=1)
    n_apart = int(np.sqrt(z.shape[1]))
    spacings = (ordered[:, n_apart:] - ordered[:, :-n_apart]) * z.shape[1] / n_apart
    entropies = np.log(np.maximum(spacings, 1 / DENSEST)).mean(axis=1)
    return float(entropies.sum() - np.linalg.slogdet(matrix / scale)[1])
