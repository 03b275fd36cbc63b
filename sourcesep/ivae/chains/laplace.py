"""The posterior of sources behind filters, curves and noise: x = f(H * z) + noise.

All is done in y = H * z, the mixture before the curves, of which z = W * y is a filter:

    -log p(y, x|u) = sum_t,c (x - f(y))^2 / 2 noise_c + sum_t,j (z - mean_uj)^2 / 2 variance_uj

up to constants. Where a curve is steep its sample of x all but fixes y, where it is flat
the prior has to. So the curvature is a diagonal as rough as the data plus the prior's
filters, and conjugate gradients divided by its diagonal need about ten steps, where in z
they need hundreds.

What is exact: f, H and the gradient. What is approximated: the posterior is taken as the
Gaussian around its mode whose curvature is Gauss and Newton's, that is, with f straight
within the posterior's width (Laplace). At the rails, where a sample says no more than
"beyond here", the true posterior is lopsided and its mean lies further out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal

from sourcesep.ivae.chains.chain import Chain
from sourcesep.ivae.chains.filters import adjoint, convolve, log_det_rate
from sourcesep.ivae.model import Array

__all__ = ["Mode", "Record"]

MOST_STEPS, SMALLEST_GAIN = 30, 1e-5
"""Gauss-Newton steps, and the gain, in nats a sample, below which no more are made."""
MOST_HALVINGS = 6
MOST_DIRECTIONS, PRECISION = 60, 0.1
"""Conjugate gradients of a Gauss-Newton step, and the share of its residual that may stay."""
N_LANCZOS = 40
"""Steps of the quadrature of a log-determinant."""


class Mode(NamedTuple):
    """The likeliest y of a record.

    Parameters
    ----------
    y : ndarray of shape (n_channels, n_times)
        The mixture before the curves.
    z : ndarray of shape (n_components, n_times)
        Its sources.
    error : ndarray of shape (n_channels, n_times)
        (x - f(y)) / standard deviation of the noise.
    weight : ndarray of shape (n_channels, n_times)
        Slope of f over the standard deviation of the noise.
    loss : float
        Negative log-density of x and y, nats, but for what does not depend on y.
    """

    y: Array
    z: Array
    error: Array
    weight: Array
    loss: float


@dataclass(frozen=True)
class Record:
    """Observations, and the prior of the sources at every sample.

    Parameters
    ----------
    chain : Chain
        Without outer filter: z = inner * y, y = curves(x) + offset.
    noise : ndarray of shape (n_channels,)
        Variances.
    x : ndarray of shape (n_channels, n_times)
        Observations.
    mean, precision : ndarray of shape (n_components, n_times)
        Of z before x is seen.
    """

    chain: Chain
    noise: Array
    x: Array
    mean: Array
    precision: Array

    def at(self, y: Array) -> Mode:
        """Value, and what its derivatives are made of."""
        deviation = np.sqrt(self.noise)[:, None]
        v = self.chain.curves.inverse(y - self.chain.offset[:, None])
        slope = np.exp(-self.chain.curves.forward(v)[1])
        z = convolve(self.chain.inner, y)
        error = (self.x - v) / deviation
        loss = 0.5 * (np.sum(error**2) + np.sum((z - self.mean) ** 2 * self.precision))
        return Mode(y, z, error, slope / deviation, float(loss))

    def gradient(self, at: Mode) -> Array:
        """Derivative of the loss by y."""
        prior = convolve(adjoint(self.chain.inner), (at.z - self.mean) * self.precision)
        return prior - at.weight * at.error

    def curvature(self, weight: Array, p: Array) -> Array:
        """Gauss and Newton's second derivative of the loss, times p."""
        inner = self.chain.inner
        prior = convolve(adjoint(inner), self.precision * convolve(inner, p))
        return np.asarray(weight**2 * p + prior, np.float64)

    def diagonal(self, weight: Array) -> Array:
        """The diagonal of `curvature`."""
        prior = convolve(adjoint(self.chain.inner) ** 2, self.precision)
        # a filter by Fourier transforms may leave less than nothing where labels are silent
        return np.asarray(weight**2 + np.maximum(prior, 1e-12 * prior.max()), np.float64)

    def solve(self, weight: Array, b: Array) -> Array:
        """Divide by the curvature, by conjugate gradients."""
        diagonal = self.diagonal(weight)
        found, left = np.zeros_like(b), b.copy()
        scaled = left / diagonal
        direction, size = scaled, float(np.vdot(left, scaled))
        enough = PRECISION**2 * size
        for _ in range(MOST_DIRECTIONS):
            if size <= enough:
                break
            image = self.curvature(weight, direction)
            step = size / float(np.vdot(direction, image))
            found += step * direction
            left -= step * image
            scaled = left / diagonal
            before, size = size, float(np.vdot(left, scaled))
            direction = scaled + size / before * direction
        return found

    def mode(self, y: Array) -> Mode:
        """Climb from y to the likeliest one."""
        at = self.at(y)
        for _ in range(MOST_STEPS):
            step = self.solve(at.weight, -self.gradient(at))
            tries = (self.at(at.y + step / 2**k) for k in range(MOST_HALVINGS))
            better = next((new for new in tries if new.loss < at.loss), None)
            if better is None:
                break
            gain, at = at.loss - better.loss, better
            if gain < SMALLEST_GAIN * self.x.shape[1]:
                break
        return at

    def variances(self, at: Mode) -> Array:
        """Posterior variances of z, as if y's samples were independent given x.

        Right where x fixes y, and on average; beyond the rails a single one may be half or
        twice as large.
        """
        variances = convolve(self.chain.inner**2, 1 / self.diagonal(at.weight))
        return np.clip(variances, 1e-12 / self.precision, 1 / self.precision)

    def log_volume(self, at: Mode, where: NDArray[np.bool_] | slice = slice(None)) -> Array:
        """log |det| of the posterior's precision of z over the prior's, shared out to samples.

        Their sum is exact but for an estimate of how far the curvature is from its
        diagonal, by Lanczos's quadrature from one probe (Ubaru, Chen & Saad 2017).

        Parameters
        ----------
        at : Mode
            Where.
        where : ndarray of bool or slice
            Samples that are asked about.

        Returns
        -------
        ndarray of shape (n_asked,)
        """
        diagonal = self.diagonal(at.weight)
        rate = log_det_rate(self.chain.inner, self.x.shape[1])
        share = np.log(diagonal).sum(axis=0) - np.log(self.precision).sum(axis=0) - 2 * rate
        share = share[where]
        v = np.zeros_like(diagonal)
        signs = np.random.default_rng(0).choice([-1.0, 1.0], v.shape)
        v[:, where] = signs[:, where]
        root = np.sqrt(diagonal)
        rest = _quadrature(lambda p: self.curvature(at.weight, p / root) / root, v)
        return np.asarray(share + rest / max(1, len(share)), np.float64)


def _quadrature(apply: Callable[[Array], Array], v: Array) -> float:
    """v' log(A) v of a symmetric positive A, by Lanczos's iteration."""
    diagonal, beside = [], []
    size = float(np.linalg.norm(v))
    before, now, coupling = np.zeros_like(v), v / size, 0.0
    for _ in range(min(N_LANCZOS, v.size)):
        image = apply(now) - coupling * before
        diagonal.append(float(np.vdot(now, image)))
        image -= diagonal[-1] * now
        coupling = float(np.linalg.norm(image))
        beside.append(coupling)
        if coupling < 1e-10 * diagonal[0]:
            break
        before, now = now, image / coupling
    values, vectors = eigh_tridiagonal(diagonal, beside[:-1])
    return size**2 * float(vectors[0] ** 2 @ np.log(np.maximum(values, 1e-300)))
