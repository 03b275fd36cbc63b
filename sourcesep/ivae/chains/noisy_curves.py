"""Curve and noise of a channel, from how its samples are distributed under each label.

A filter mixes many samples of Gaussian sources, so that what reaches a curve is Gaussian
under every label, of a variance of its own. Through a curve f and noise, x = f(y) + noise,
the loud labels show where the rails are and how far noise carries samples beyond them, the
quiet ones what f does between. That is enough to tell curve and noise apart, one channel at
a time and without the filters. A curve fitted as if there were no noise takes the outermost
samples for the rails.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import ndtr

from sourcesep.ivae.chains.chain import Chain
from sourcesep.ivae.chains.curves import BinnedSamples, Curves, splines
from sourcesep.ivae.model import Array

__all__ = ["NoisyCurves"]

N_KNOTS, N_BENDS = 129, 20
N_BINS = 256
"""Bins of x, and pieces of y between which its probability is shared out."""
SMOOTHNESS = 1e-4
"""Weight of the squared second differences of the bends, as in a fit of filters."""
MAX_ITER = 150
MOST_LABELS = 200
"""More take longer and tell no more of a curve."""
REACH = 4.5
"""Range of a curve, in the loudest label's standard deviations of y."""
DENSITY = 3.0
"""How much denser knots are in the middle, where quiet labels are: asinh of the ratio."""
FIRST_NOISE = 0.05
"""Standard deviation of the noise that the ascent begins with, as a share of x's."""
FLATTEST = 1e-5
"""Least slope of f, as a share of its largest: its inverse must exist."""


@dataclass(frozen=True)
class NoisyCurves:
    """x = f(y) + noise, as the inverse of f.

    Parameters
    ----------
    curves : Curves
        The inverse of f up to each channel's unit and mean of y.
    noise : ndarray of shape (n_channels,)
        Variances.
    """

    curves: Curves
    noise: Array

    @classmethod
    def fit(
        cls, x: Array, labels: NDArray[np.int64], chain: Chain, *, with_mean: bool
    ) -> NoisyCurves:
        """Fit to samples by maximum likelihood.

        Parameters
        ----------
        x : ndarray of shape (n_channels, n_times)
            Observations.
        labels : ndarray of int, shape (n_times,)
            Negative ones are left out.
        chain : Chain
            A fit without noise, to begin with; it has no outer filter.
        with_mean : bool
            Whether y has a mean of its own under each label.
        """
        labels = _from_quiet_to_loud(x, labels)
        y = chain.undistort(x)[0]
        grid = np.sinh(np.linspace(-DENSITY, DENSITY, N_KNOTS)) / np.sinh(DENSITY)
        knots, log_slopes, noise = [], [], []
        for c, samples in enumerate(x):
            used = labels >= 0
            counts = _Counts(samples[used], labels[used])
            start = _Start(y[c, used], labels[used], counts.n_labels, with_mean)
            at = start.reach * grid
            padded = np.zeros((len(x), N_KNOTS))
            padded[c] = at
            guess = chain.curves.inverse(padded - chain.offset[:, None])[c]
            f, slope, variance = _climb(counts, start, at, guess)
            knots.append(f)
            log_slopes.append(-np.log(slope))
            noise.append(variance)
        return cls(Curves(np.array(knots), np.array(log_slopes)), np.array(noise))

    def in_units(self, peak: Array) -> NoisyCurves:
        """Return the same for x of other units: the given one's are peaks of 1."""
        curves = Curves(self.curves.knots * peak[:, None], self.curves.log_slopes)
        return NoisyCurves(curves, self.noise * peak**2)

    def within(self, chain: Chain, x: Array) -> Chain:
        """Return a chain with these curves in the place of its own.

        Their y is given the chain's unit and mean by samples x of which noise says little.
        """
        middle = self.curves.knots[:, N_KNOTS // 2]
        y, log_slope = self.curves.forward(x)
        wanted = chain.undistort(x)[0]
        factor, mean = np.ones(len(x)), np.zeros(len(x))
        for c in range(len(x)):
            # by how little noise is left of it in y
            weight = np.exp(-2 * log_slope[c])
            weight /= weight.sum()
            centre, target = weight @ y[c], weight @ wanted[c]
            pull = weight * (y[c] - centre)
            factor[c] = (pull @ wanted[c]) / (pull @ y[c])
            mean[c] = target - factor[c] * centre
        log_slopes = self.curves.log_slopes + np.log(factor)[:, None]
        # the curve's middle knot stays where it is, whatever the factor
        offset = mean + (factor - 1) * middle
        return Chain(None, Curves(self.curves.knots, log_slopes), offset, chain.inner)


def _from_quiet_to_loud(x: Array, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Leave out labels until `MOST_LABELS` are left, evenly by their rank in power."""
    used = labels >= 0
    counts = np.bincount(labels[used])
    present = np.flatnonzero(counts)
    if len(present) <= MOST_LABELS:
        return labels
    power = np.bincount(labels[used], np.square(x[:, used]).sum(axis=0))[present] / counts[present]
    ranks = np.linspace(0, len(present) - 1, MOST_LABELS).astype(int)
    kept = present[np.argsort(power, kind="stable")][ranks]
    return np.where(np.isin(labels, kept), labels, -1)


class _Counts:
    """How many samples of each label lie in each bin of x."""

    def __init__(self, x: Array, labels: NDArray[np.int64]) -> None:
        present, labels = np.unique(labels, return_inverse=True)
        low, high = x.min(), x.max()
        self.n_labels = len(present)
        self.width = (high - low) / N_BINS
        self.centres = low + self.width * (np.arange(N_BINS) + 0.5)
        bins = np.minimum(((x - low) / self.width).astype(int), N_BINS - 1)
        cells = bins * self.n_labels + labels
        counts = np.bincount(cells, minlength=N_BINS * self.n_labels)
        self.share = counts.reshape(N_BINS, self.n_labels) / len(x)
        self.spread = x.std()


class _Start:
    """Scale and mean of y under each label, by quantiles: noise spoils only large values."""

    def __init__(
        self, y: Array, labels: NDArray[np.int64], n_labels: int, with_mean: bool
    ) -> None:
        _, labels = np.unique(labels, return_inverse=True)
        order = np.argsort(labels, kind="stable")
        groups = np.split(y[order], np.cumsum(np.bincount(labels))[:-1])
        overall = np.median(np.abs(y)) / 0.6745
        self.with_mean = with_mean
        self.mean = np.array([np.median(g) if with_mean else 0.0 for g in groups])
        scale = [np.median(np.abs(g - m)) for g, m in zip(groups, self.mean, strict=True)]
        self.scale = np.maximum(np.array(scale) / 0.6745, 1e-3 * overall)
        self.reach = REACH * self.scale.max() + np.abs(self.mean).max()


class _Objective:
    """What the fit of one channel makes small, and its gradient.

    Minus the log-likelihood of the counts, a sample, and a penalty on the curve's bends. One
    vector holds all parameters: bends of the curve's log-slope; its level and the noise's log
    variance; log scale and mean of y under each label.

    Parameters
    ----------
    counts : _Counts
        The samples.
    start : _Start
        Scale and mean of y under each label, to begin with.
    knots : ndarray of shape (n_knots,)
        Where f is known, in units of y.
    guess : ndarray of shape (n_knots,)
        f there, to begin with.
    """

    def __init__(self, counts: _Counts, start: _Start, knots: Array, guess: Array) -> None:
        self.counts, self.start, self.knots, self.guess = counts, start, knots, guess
        self.basis = splines(N_KNOTS, N_BENDS)
        # pieces of y of about the same size, in y and in f together
        fine = np.linspace(knots[0], knots[-1], 16 * N_BINS)
        image = np.interp(fine, knots, guess)
        along = (fine - fine[0]) / np.ptp(fine) + (image - image[0]) / np.ptp(image)
        edges = np.interp(np.linspace(0, 2, N_BINS + 1), along, fine)
        # variance of f within a piece, and of x within a bin
        self.within = (np.diff(np.interp(edges, fine, image)) ** 2 + counts.width**2) / 12
        self.pieces = BinnedSamples(knots[None], (edges[None, 1:] + edges[None, :-1]) / 2)
        self.inner_edges = edges[1:-1, None]

    def first(self) -> Array:
        """Where to begin."""
        slope = np.gradient(self.guess, self.knots)
        log_slope = np.log(np.maximum(slope, FLATTEST * slope.max()))
        bends = np.linalg.lstsq(self.basis, log_slope, rcond=None)[0]
        level = np.interp(0.0, self.knots, self.guess)
        log_noise = 2 * np.log(FIRST_NOISE * self.counts.spread)
        return np.concatenate(
            [bends, [level, log_noise], np.log(self.start.scale), self.start.mean]
        )

    def split(self, at: Array) -> tuple[Array, Array, Array, Array]:
        """Bends; level and log variance of the noise; log scales; means."""
        log_scale, mean = np.split(at[N_BENDS + 2 :], 2)
        return at[:N_BENDS], at[N_BENDS : N_BENDS + 2], log_scale, mean

    def __call__(self, at: Array) -> tuple[float, Array]:
        """Value and gradient."""
        counts = self.counts
        bends, (level, log_noise), log_scale, mean = self.split(at)
        log_slopes = (self.basis @ bends)[None]
        value, slope = self.pieces.value(log_slopes)
        variance = np.exp(log_noise) + self.within
        scale = np.exp(log_scale)
        # probability of each piece under each label, and of each bin given the piece
        u = (self.inner_edges - mean) / scale
        nothing = np.zeros((1, counts.n_labels))
        mass = np.diff(np.concatenate([nothing, ndtr(u), nothing + 1]), axis=0)
        away = counts.centres[:, None] - value - level
        density = np.exp(-0.5 * away**2 / variance) / np.sqrt(2 * np.pi * variance)
        likelihood = density @ mass + 1e-12
        second = np.diff(bends, 2)
        total = -(counts.share * np.log(likelihood)).sum() + SMOOTHNESS * (second @ second)

        by_likelihood = -counts.share / likelihood
        by_density = by_likelihood @ mass.T * density
        by_value = (by_density * away).sum(axis=0) / variance
        by_variance = 0.5 * (by_density * (away**2 / variance - 1)).sum(axis=0) / variance
        by_mass = density.T @ by_likelihood
        bell = np.exp(-0.5 * u**2) / np.sqrt(2 * np.pi)
        by_edge = (by_mass[1:] - by_mass[:-1]) * bell
        by_log_slopes = self.pieces.gradient(log_slopes, slope, by_value[None], np.zeros(N_BINS))
        by_bends = self.basis.T @ by_log_slopes[0]
        by_bends += 2 * SMOOTHNESS * np.diff(np.pad(second, 2), 2)
        by_mean = (by_edge / scale).sum(axis=0) * self.start.with_mean
        gradient = [
            by_bends,
            [by_value.sum(), by_variance.sum() * np.exp(log_noise)],
            (by_edge * u).sum(axis=0),
            by_mean,
        ]
        return float(total), np.concatenate(gradient)


def _climb(
    counts: _Counts, start: _Start, knots: Array, guess: Array
) -> tuple[Array, Array, float]:
    """Climb one channel's likelihood: f and its slope at the knots, and the noise's variance."""
    objective = _Objective(counts, start, knots, guess)
    found = minimize(
        objective,
        objective.first(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": MAX_ITER, "maxcor": 30},
    ).x
    bends, (level, log_noise), *_ = objective.split(found)
    log_slopes = objective.basis @ bends
    log_slopes = np.maximum(log_slopes, log_slopes.max() + np.log(FLATTEST))
    value = Curves(knots[None], log_slopes[None]).forward(knots[None])[0][0]
    return value + level, np.exp(log_slopes), float(np.exp(log_noise))
