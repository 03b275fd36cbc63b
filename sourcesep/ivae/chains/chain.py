"""The map [filter ->] curves -> filter, its likelihood, and the likelihood's gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sourcesep.ivae.alignment import peak_signs
from sourcesep.ivae.chains.curves import BinnedSamples, Curves, SlopeFamily
from sourcesep.ivae.chains.filters import (
    GRID,
    adjoint,
    convolve,
    convolve_gradient,
    deconvolve,
    impulse_response,
    inverse_reach,
    log_det_rate,
    log_det_rate_gradient,
)
from sourcesep.ivae.model import Array

__all__ = [
    "VARIANCE_FLOOR",
    "Chain",
    "Objective",
    "Parameters",
    "in_units",
    "ordered",
    "unit_slope",
]

VARIANCE_FLOOR = 1e-5
"""Added to each label's variance, as a share of the source's, while fitting."""


@dataclass(frozen=True)
class Chain:
    """An invertible map of observations x onto sources z.

        v = outer * x              (filters; None where there is none)
        y = curves(v) + offset     (the undistorted mixture, less its mean)
        z = inner * y              (filters, or a matrix: one tap)

    Filters are circular over the record, so that inverse and log-determinant are exact.
    """

    outer: Array | None
    curves: Curves
    offset: Array
    inner: Array

    def tensors(self) -> dict[str, NDArray[np.float64]]:
        """What it is made of, by the names of a model file."""
        named = {
            "curves.knots": self.curves.knots,
            "curves.log_slopes": self.curves.log_slopes,
            "offset": self.offset,
            "inner": self.inner,
        }
        return named if self.outer is None else named | {"outer": self.outer}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, NDArray[np.float64]]) -> Chain:
        """Rebuild a chain from `tensors`, among others."""
        curves = Curves(tensors["curves.knots"], tensors["curves.log_slopes"])
        return cls(tensors.get("outer"), curves, tensors["offset"], tensors["inner"])

    @property
    def memory(self) -> int:
        """Samples that images reach over: both filters and the inverse of the inner one."""
        n_taps: int = self.inner.shape[2]
        behind: int = 0 if self.outer is None else self.outer.shape[2] - 1
        return n_taps + behind + 2 * inverse_reach(self.inner)

    def undistort(self, x: Array) -> tuple[Array, Array]:
        """y, and the log-slopes of the curves there, each (n_channels, n_times)."""
        y, log_slope = self.curves.forward(self.before_curves(x))
        return y + self.offset[:, None], log_slope

    def before_curves(self, x: Array) -> Array:
        """v: what the curves are given."""
        return x if self.outer is None else convolve(self.outer, x)

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Sources z, and log |det J| shared out to the samples, shape (n_times,).

        The filters' part is the same for every sample; the sum is exact.
        """
        y, log_slope = self.undistort(x)
        rate = log_det_rate(self.inner, x.shape[1])
        if self.outer is not None:
            rate += log_det_rate(self.outer, x.shape[1])
        return convolve(self.inner, y), log_slope.sum(axis=0) + rate

    def inverse(self, z: Array) -> Array:
        """x of sources z: exact."""
        y = deconvolve(self.inner, z) - self.offset[:, None]
        v = self.curves.inverse(y)
        return v if self.outer is None else deconvolve(self.outer, v)

    def image(self, z: Array, component: int) -> Array:
        """One of the sources z as the channels hear it before the curves."""
        alone = np.zeros_like(z)
        alone[component] = z[component]
        return deconvolve(self.inner, alone)


def in_units(chain: Chain, peak: Array) -> Chain:
    """Return the chain for x of other units: the given one's are peaks of 1."""
    return Chain(
        None if chain.outer is None else peak[:, None, None] * chain.outer / peak[:, None],
        replace(chain.curves, knots=chain.curves.knots * peak[:, None]),
        chain.offset * peak,
        chain.inner / peak[:, None],
    )


def unit_slope(chain: Chain, v: Array) -> Chain:
    """Return the same map with curves whose slope is 1 at the median of v."""
    curves = chain.curves
    log_slope = curves.forward(np.median(v, axis=1, keepdims=True))[1]
    factor = np.exp(log_slope[:, 0])
    middle = curves.knots[:, curves.knots.shape[1] // 2]
    return replace(
        chain,
        curves=replace(curves, log_slopes=curves.log_slopes - log_slope),
        offset=(chain.offset + middle) / factor - middle,
        inner=chain.inner * factor[None, :, None],
    )


def ordered(chain: Chain, z: Array) -> Chain:
    """Return the chain with its sources of unit variance, by power, largest loading positive.

    z are the sources whose variance counts.
    """
    inner = chain.inner / z.std(axis=1)[:, None, None]
    mixing = impulse_response(inner)
    order = np.argsort(-np.square(mixing).sum(axis=(0, 2)), kind="stable")
    by_source = mixing.transpose(1, 0, 2).reshape(len(z), -1)
    inner = inner * peak_signs(by_source)[:, None, None]
    return replace(chain, inner=inner[order])


@dataclass(frozen=True)
class Parameters:
    """What is fitted of a `Chain`; `rails` and `bends` as in `SlopeFamily`."""

    outer: Array | None
    rails: Array
    bends: Array
    offset: Array
    inner: Array

    @property
    def arrays(self) -> list[Array]:
        """The arrays that there are, in order."""
        given = [] if self.outer is None else [self.outer]
        return [*given, self.rails, self.bends, self.offset, self.inner]

    def with_values(self, vector: Array) -> Parameters:
        """Parameters of the same shapes with other values, concatenated in one vector."""
        like = self.arrays
        ends = np.cumsum([a.size for a in like])[:-1]
        pieces = zip(np.split(vector, ends), like, strict=True)
        arrays = [piece.reshape(a.shape) for piece, a in pieces]
        return Parameters(None if self.outer is None else arrays[0], *arrays[-4:])

    def chain(self, family: SlopeFamily) -> Chain:
        """Return the map that these are the parameters of."""
        curves = Curves(family.knots, family.log_slopes(self.rails, self.bends))
        return Chain(self.outer, curves, self.offset, self.inner)


class Objective:
    """Negative log-likelihood of a chain, nats a sample, variances per label profiled out.

    Parameters
    ----------
    x : ndarray of shape (n_channels, n_times)
        Observations.
    labels : ndarray of int, shape (n_times,)
        Negative ones are filtered but do not count.
    family : SlopeFamily
        What the curves may be.
    with_mean : bool
        Whether the prior has a mean per label.
    smoothness : float
        Weight of the squared second differences of the bends.
    """

    def __init__(
        self,
        x: Array,
        labels: NDArray[np.int64],
        family: SlopeFamily,
        *,
        with_mean: bool,
        smoothness: float,
    ) -> None:
        self.x = x
        self.family = family
        self._with_mean = with_mean
        self._smoothness = smoothness
        used = labels >= 0
        self._n_used = int(used.sum())
        # left-out samples get a label of their own, which weighs nothing
        self._labels = np.where(used, labels, labels.max() + 1)
        self._counts = np.maximum(np.bincount(self._labels, minlength=labels.max() + 2), 1)
        self._counting = np.bincount(self._labels, used, len(self._counts)) > 0
        self._share = np.where(self._counting, self._counts / self._n_used, 0)
        self._mask = np.where(used, -1 / self._n_used, 0)
        self._fixed = BinnedSamples(family.knots, x)

    def __call__(self, at: Parameters) -> tuple[float, Parameters]:
        """Value, and its derivative by each parameter."""
        log_slopes = self.family.log_slopes(at.rails, at.bends)
        samples = self._fixed
        if at.outer is not None:
            samples = BinnedSamples(self.family.knots, convolve(at.outer, self.x))
        y, slope = samples.value(log_slopes)
        y += at.offset[:, None]
        value, by_z = self._prior(convolve(at.inner, y))
        value += float((np.log(slope) @ self._mask).sum())
        by_inner, by_y = convolve_gradient(at.inner, y, by_z), convolve(adjoint(at.inner), by_z)
        by_slopes = samples.gradient(log_slopes, slope, by_y, self._mask)
        by_rails, by_bends = self.family.gradient(at.rails, at.bends, by_slopes)
        if at.bends.shape[1]:
            second = np.diff(at.bends, 2, axis=1)
            value += self._smoothness * float((second**2).sum())
            by_bends += 2 * self._smoothness * np.diff(np.pad(second, ((0, 0), (2, 2))), 2)
        grid = min(GRID, self.x.shape[1])
        rate, by_rate = log_det_rate_gradient(at.inner, grid)
        value, by_inner = value - rate, by_inner - by_rate
        by_outer = None
        if at.outer is not None:
            by_v = samples.input_gradient(log_slopes, slope, by_y, self._mask)
            rate, by_rate = log_det_rate_gradient(at.outer, grid)
            value, by_outer = value - rate, convolve_gradient(at.outer, self.x, by_v) - by_rate
        return value, Parameters(by_outer, by_rails, by_bends, by_y.sum(axis=1), by_inner)

    def _prior(self, z: Array) -> tuple[float, Array]:
        """Profiled negative log-prior of the sources, and its derivative by them."""
        value = 0.0
        by_z = np.empty_like(z)
        n_labels = len(self._counts)
        for row, out in zip(z, by_z, strict=True):
            if self._with_mean:
                mean = np.bincount(self._labels, row, n_labels) / self._counts
                row = row - mean[self._labels]
            energy = np.bincount(self._labels, row * row, n_labels)
            overall = float(energy[self._counting].sum()) / self._n_used
            variance = energy / self._counts + VARIANCE_FLOOR * overall
            value += 0.5 * float(
                self._share @ np.log(variance, where=self._counting, out=variance * 0)
            )
            precision = np.where(self._counting, 1 / np.maximum(variance, 1e-300), 0)
            # the floor itself moves with the source's overall variance
            precision += VARIANCE_FLOOR * float(self._share @ precision) * self._counting
            np.multiply(row, (precision / self._n_used)[self._labels], out=out)
        return value, by_z
