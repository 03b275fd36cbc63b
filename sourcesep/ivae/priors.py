"""p(z|u): what is known of each source once u is known."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from sourcesep.ivae.model import Array, State

__all__ = ["FINE_SHAPES", "PSEUDO_COUNT", "SHAPES", "LabelPrior", "exponents", "label_sums"]
__all__ += ["power_sums", "smoothed", "spread"]

SHAPES = (0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
"""Exponents tried: 1 is Laplace, 2 Gaussian, 10 all but uniform."""
FINE_SHAPES = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0)
"""Exponents in small steps, for maps that bend along with the shape: from one step to the next
they can follow, while they have bent a source too far for a large one."""
VARIANCE_FLOOR = 1e-12
"""Least variance given a label, as a share of the source's, so that silence is not infinitely
likely."""
SILENCE = 1e-20
"""Least scale of a source that is silent; others have a scale of about 1."""
PSEUDO_COUNT = 1.0
"""Every label starts with as many samples' worth of the source's overall scale."""
BLOCK = 2**16
"""Samples at a time: so many fit into a processor's cache."""
NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
NODE_WEIGHTS = NODE_WEIGHTS / NODE_WEIGHTS.sum()


def exponents(values: Iterable[float]) -> tuple[float, ...]:
    """Return exponents as a state has them; refuse what is none (ValueError)."""
    found = tuple(values)
    if not (found and all(p > 0 for p in found)):
        raise ValueError(f"shapes={found} must be one or more numbers above 0")
    return found


def label_sums(rows: Iterable[Array], labels: NDArray[np.int64], n_labels: int) -> Array:
    """Sums of rows of values within each label, shape (n_labels, n_rows)."""
    return np.stack([np.bincount(labels, row, minlength=n_labels) for row in rows], axis=1)


def smoothed(
    sums: Array,
    counts: NDArray[Any],
    overall: Array,
    p: float = 2.0,
    *,
    floor: float = VARIANCE_FLOOR,
) -> Array:
    """Mean |z|^p given each label, (n_labels, d), from sums over its `counts` samples.

    Each label counts as if it had one more sample (`PSEUDO_COUNT`), as large as the mean over
    all. No variance is less than the share `floor` of that over all labels.
    """
    moments = (sums + PSEUDO_COUNT * overall) / (counts + PSEUDO_COUNT)[:, None]
    floored: Array = np.maximum(moments, floor ** (p / 2) * overall)
    return floored


def spread(shape: NDArray[np.float64]) -> Array:
    """Standard deviation of a generalised Gaussian of scale 1."""
    spread: Array = np.exp(0.5 * (gammaln(3 / shape) - gammaln(1 / shape)))
    return spread


@dataclass(frozen=True)
class LabelPrior:
    """Independent generalised Gaussians, one mean and scale a label, one shape a source.

    p(z|u) = prod_j  p_j / (2 a_uj Gamma(1/p_j)) exp(-(|z_j - m_uj| / a_uj)^p_j)

    With ``shape`` 2 this is the exponential family of the iVAE's theorem (Khemakhem et
    al. 2020, eq. 7); other shapes also identify sources that are stationary and not
    Gaussian, as in linear ICA.

    Parameters
    ----------
    mean, scale : ndarray of shape (n_labels, n_components)
        m and a above.
    shape : ndarray of shape (n_components,)
        p above.
    """

    mean: Array
    scale: Array
    shape: Array

    @property
    def n_labels(self) -> int:
        """Number of labels."""
        return len(self.mean)

    @property
    def variance(self) -> Array:
        """Variance of each component given each label, shape (n_labels, n_components)."""
        variance: Array = (self.scale * spread(self.shape)) ** 2
        return variance

    def tensors(self) -> dict[str, Array]:
        """Return mean, scale and shape by name, for a model's state."""
        return {"mean": self.mean, "scale": self.scale, "shape": self.shape}

    @classmethod
    def from_state(cls, state: State, n_components: int) -> Self:
        """Rebuild the prior in a model's state; refuse what is none (ValueError)."""
        size = len(state.tensors["prior.scale"]), n_components
        if not size[0]:
            raise ValueError("a prior of no labels")
        right = {"prior.mean": size, "prior.scale": size, "prior.shape": size[1:]}
        state.check(right, positive=("prior.scale", "prior.shape"))
        return cls(**state.part("prior"))

    @classmethod
    def fit(
        cls,
        z: Array,
        labels: NDArray[np.int64],
        n_labels: int,
        *,
        with_mean: bool,
        shapes: tuple[float, ...] = SHAPES,
    ) -> Self:
        """Fit by maximum likelihood.

        Parameters
        ----------
        z : ndarray of shape (n_components, n_times)
            Sources.
        labels : ndarray of int, shape (n_times,)
            Negative labels are left out.
        n_labels : int
            Number of labels; one without a sample gets the source's overall scale.
        with_mean : bool
            Whether each label has a mean of its own; it is 0 otherwise.
        shapes : tuple of float
            Exponents to choose from, each source by its own penalised likelihood. With
            more than one, a source may also take one scale for all labels.
        """
        used = labels >= 0
        if not used.all():
            z, labels = z[:, used], labels[used]
        counts = np.bincount(labels, minlength=n_labels).astype(float)
        mean = np.zeros((n_labels, len(z)))
        if with_mean:
            mean = label_sums(z, labels, n_labels) / np.maximum(counts, 1)[:, None]
            z = z - mean[labels].T
        n_times = z.shape[1]
        best = np.full(len(z), -np.inf)
        scale = np.empty((n_labels, len(z)))
        shape = np.empty(len(z))
        for p, sums in zip(shapes, power_sums(z, labels, n_labels, shapes), strict=True):
            # a source that is silent here is given a scale of which powers can be taken
            overall = np.maximum(sums.sum(axis=0) / max(n_times, 1), SILENCE**p)
            candidates = [(smoothed(sums, counts, overall, p), n_labels)]
            if len(shapes) > 1:
                candidates.append((np.broadcast_to(overall, sums.shape), 1))
            for moment, n_free in candidates:
                a = (p * moment) ** (1 / p)
                value = (
                    np.log(p / 2)
                    - gammaln(1 / p)
                    - (counts @ np.log(a) + (sums / (p * moment)).sum(axis=0) + n_free)
                    / max(n_times, 1)
                )
                better = value > best
                best = np.where(better, value, best)
                scale = np.where(better, a, scale)
                shape = np.where(better, p, shape)
        return cls(mean, scale, shape)

    def log_prob(self, z: Array, labels: NDArray[np.int64]) -> Array:
        """Log p(z_j|u) of each component and sample, nats, (n_components, n_times)."""
        a = self.scale[labels].T
        p = self.shape[:, None]
        normaliser = np.log(p / 2) - gammaln(1 / p) - np.log(a)
        log_prob: Array = normaliser - self._power((z - self.mean[labels].T) / a)
        return log_prob

    def expected_log_prob(self, mean: Array, deviation: Array, labels: NDArray[np.int64]) -> Array:
        """E log p(z_j|u) under independent Gaussians, nats, (n_components, n_times).

        Exact where the shape is Gaussian, Gauss-Hermite quadrature elsewhere.
        """
        a = self.scale[labels].T
        centre, width = (mean - self.mean[labels].T) / a, deviation / a
        p = self.shape[:, None]
        power = np.empty_like(centre)
        gaussian = self.shape == 2
        power[gaussian] = centre[gaussian] ** 2 + width[gaussian] ** 2
        if not gaussian.all():
            others = replace(self, shape=self.shape[~gaussian])
            power[~gaussian] = sum(
                weight * others._power(centre[~gaussian] + node * width[~gaussian])
                for node, weight in zip(NODES, NODE_WEIGHTS, strict=True)
            )
        expected: Array = np.log(p / 2) - gammaln(1 / p) - np.log(a) - power
        return expected

    def _power(self, ratio: Array) -> Array:
        """|ratio|^p, each row by its own shape."""
        power = np.abs(ratio)
        with np.errstate(over="ignore"):
            for row, p in zip(power, self.shape, strict=True):
                row[:] = _raised(row, p)
        return power

    def sample(self, labels: NDArray[np.int64], rng: np.random.Generator) -> Array:
        """Draw sources, shape (n_components, n_times)."""
        size = (len(self.shape), len(labels))
        p = self.shape[:, None]
        # |z/a|^p is Gamma(1/p) distributed
        magnitude = rng.gamma(np.broadcast_to(1 / p, size)) ** (1 / p)
        sign = np.where(rng.random(size) < 0.5, -1.0, 1.0)
        z: Array = self.mean[labels].T + self.scale[labels].T * magnitude * sign
        return z


def power_sums(
    z: Array, labels: NDArray[np.int64], n_labels: int, exponents: tuple[float, ...]
) -> Array:
    """Sums of |z|^p within each label for each exponent p, (n_exponents, n_labels, n_rows)."""
    sums = np.zeros((len(exponents), n_labels, len(z)))
    block = max(BLOCK, n_labels)
    for begin in range(0, z.shape[1], block):
        part = slice(begin, begin + block)
        magnitude, own = np.abs(z[:, part]), labels[part]
        for p, total in zip(exponents, sums, strict=True):
            total += label_sums(_raised(magnitude, p), own, n_labels)
    return sums


def _raised(magnitude: Array, p: float) -> Array:
    """magnitude**p: by products where 2p is whole and not large, which is far the cheapest."""
    if p == 1:
        return magnitude
    if p % 0.5 or not 1 < p < 32:
        raised: Array = np.power(magnitude, p)
        return raised
    if p % 1:
        return np.sqrt(magnitude) * _raised(magnitude, p - 0.5)
    if p % 2:
        return magnitude * _raised(magnitude, p - 1)
    return _raised(np.square(magnitude), p / 2)
