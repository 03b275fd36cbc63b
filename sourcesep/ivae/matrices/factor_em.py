"""Maximum likelihood for x = A z + offset + noise by expectation and maximisation.

The update of the matrix is exact whatever entries are missing (Rubin & Thayer 1982; Little
& Rubin 2002, section 11.3), with a prior that has a mean and a variance for each label.
Pairs of updates are extrapolated (SQUAREM; Varadhan & Roland 2008), which takes a tenth of
the steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from sourcesep.ivae.matrices.linear_gaussian import CHUNK, LinearGaussian
from sourcesep.ivae.model import Array
from sourcesep.ivae.priors import smoothed

__all__ = ["LEAST_NOISE", "Expected", "Factors", "Fitted", "Observed", "expectation", "maximise"]

LEAST_NOISE = 1e-8
"""Least variance of the noise in a channel of variance 1; at -80 dB it changes no source."""
LEAST_VARIANCE = 1e-8
"""Least variance given a label, as a share of that over all, so that silence is not infinitely
likely."""
TOLERANCE = 1e-6
"""Gain in log-likelihood, nats a sample in one cycle, below which it has converged."""
MOST_CYCLES = 100
LONGEST = 50.0
"""The longest extrapolation, in steps of the plain method."""


@dataclass(frozen=True)
class Factors:
    """x = mixing z + offset + noise, z ~ Gaussian(mean, variance) of its label.

    Parameters
    ----------
    mixing : ndarray of shape (n_channels, n_components)
        Units of x per unit of z.
    offset : ndarray of shape (n_channels,)
        What x is where z is 0.
    noise : ndarray of shape (n_channels,)
        Variances.
    mean, variance : ndarray of shape (n_labels, n_components)
        Of z given each label.
    """

    mixing: Array
    offset: Array
    noise: Array
    mean: Array
    variance: Array

    @property
    def gaussian(self) -> LinearGaussian:
        """The map without its offset."""
        return LinearGaussian(self.mixing, self.noise)

    def _vector(self) -> Array:
        """All that is fitted in one vector, variances by their logarithm."""
        logs = np.log(self.noise), np.log(self.variance)
        parts = (self.mixing, self.offset, logs[0], self.mean, logs[1])
        return np.concatenate([part.ravel() for part in parts])

    def _with_vector(self, vector: Array) -> Self:
        """The factors from which `_vector` would make this vector."""
        like = (self.mixing, self.offset, self.noise, self.mean, self.variance)
        shapes = [part.shape for part in like]
        ends = np.cumsum([np.prod(shape, dtype=int) for shape in shapes])[:-1]
        mixing, offset, noise, mean, variance = (
            part.reshape(shape) for part, shape in zip(np.split(vector, ends), shapes, strict=True)
        )
        return type(self)(mixing, offset, np.exp(noise), mean, np.exp(variance))


class Gappy(NamedTuple):
    """Samples with missing entries; those of one kind have one label and miss the same entries."""

    x: Array  # (n_channels, n), 0 where missing
    there: Array  # (n_channels, n), 1 or 0
    labels: NDArray[np.int64]  # (n,)
    kinds_there: Array  # (n_channels, n_kinds)
    kinds_label: NDArray[np.int64]  # (n_kinds,)
    kind: NDArray[np.int64]  # (n,)


@dataclass(frozen=True)
class Observed:
    """Samples in the form that `expectation` needs: complete ones are summed up by label.

    Parameters
    ----------
    counts : ndarray of shape (n_labels,)
        Complete samples of each label.
    first : ndarray of shape (n_labels, n_channels)
        Their sums.
    second : ndarray of shape (n_labels, n_channels, n_channels)
        Sums of their products.
    gappy : list of Gappy
        All other samples, in chunks.
    """

    counts: Array
    first: Array
    second: Array
    gappy: list[Gappy]

    @classmethod
    def of(cls, x: Array, labels: NDArray[np.int64], n_labels: int) -> Self:
        """Sum up x of shape (n_channels, n_times), NaN where missing; labels are 0 or above."""
        there = np.isfinite(x)
        whole = there.all(axis=0)
        order = np.flatnonzero(whole)
        order = order[np.argsort(labels[order], kind="stable")]
        counts = np.bincount(labels[order], minlength=n_labels)
        first = np.zeros((n_labels, len(x)))
        second = np.zeros((n_labels, len(x), len(x)))
        for label, which in enumerate(np.split(order, np.cumsum(counts[:-1]))):
            part = x[:, which]
            first[label], second[label] = part.sum(axis=1), part @ part.T
        gappy = []
        lost = np.flatnonzero(~whole)
        # equal kinds side by side: the fewer in a chunk, the fewer inverses
        lost = lost[np.lexsort(np.vstack([there[:, lost], labels[lost]]))]
        for which in np.split(lost, range(CHUNK, len(lost), CHUNK)):
            if not len(which):
                continue
            seen = there[:, which]
            kinds, kind = np.unique(np.vstack([labels[which], seen]), axis=1, return_inverse=True)
            filled = np.where(seen, x[:, which], 0.0)
            gappy.append(
                Gappy(
                    filled,
                    seen.astype(float),
                    labels[which],
                    kinds[1:].astype(float),
                    kinds[0],
                    kind.ravel(),
                )
            )
        return cls(counts.astype(float), first, second, gappy)

    def without_labels(self) -> Self:
        """The same samples, all of one label."""
        gappy = [
            part._replace(labels=0 * part.labels, kinds_label=0 * part.kinds_label)
            for part in self.gappy
        ]
        return type(self)(
            self.counts.sum(keepdims=True),
            self.first.sum(axis=0, keepdims=True),
            self.second.sum(axis=0, keepdims=True),
            gappy,
        )

    @property
    def n_times(self) -> float:
        """Number of samples."""
        return float(self.counts.sum()) + sum(len(part.labels) for part in self.gappy)


class Expected(NamedTuple):
    """Sums over samples of what is expected of z given x; z has a 1 at its end in `gram`.

    Each channel's sums are over the samples in which it is there.
    """

    log_likelihood: float
    counts: Array  # (n_labels,)
    first: Array  # z by label, (n_labels, d)
    second: Array  # z z' by label, (n_labels, d, d)
    gram: Array  # z z' by channel, (n_channels, d + 1, d + 1)
    cross: Array  # x z by channel, (n_channels, d + 1)
    power: Array  # x^2 by channel, (n_channels,)

    @classmethod
    def sum(cls, parts: Sequence[Self]) -> Self:
        """Add up."""
        return cls(*(sum(part[1:], start=part[0]) for part in zip(*parts, strict=True)))


def expectation(factors: Factors, seen: Observed) -> Expected:
    """Expected sums over z given what is seen, and its log-likelihood in nats."""
    parts = [_gappy(factors, part) for part in seen.gappy]
    if seen.counts.any():
        parts.append(_complete(factors, seen))
    return Expected.sum(parts)


def _complete(f: Factors, seen: Observed) -> Expected:
    """`expectation` of complete samples, from the sums over each label."""
    n_labels, d = f.mean.shape
    counts = seen.counts[:, None]
    everywhere = np.ones((len(f.noise), n_labels), bool)
    covariance = f.gaussian.covariance(everywhere, f.variance)
    gain = covariance @ (f.mixing.T / f.noise)
    centre = f.offset + f.mean @ f.mixing.T
    error = seen.first - counts * centre
    outer = seen.first[:, :, None] * centre[:, None]
    errors = seen.second - outer - outer.swapaxes(1, 2)
    errors += counts[:, :, None] * centre[:, :, None] * centre[:, None]
    moved = np.einsum("lij,lj->li", gain, error)
    first = counts * f.mean + moved
    half = moved[:, :, None] * f.mean[:, None]
    second = counts[:, :, None] * (covariance + f.mean[:, :, None] * f.mean[:, None])
    second += gain @ errors @ gain.swapaxes(1, 2) + half + half.swapaxes(1, 2)
    cross = errors @ gain.swapaxes(1, 2) + error[:, :, None] * f.mean[:, None]
    cross += centre[:, :, None] * first[:, None]
    gram = np.zeros((d + 1, d + 1))
    gram[:d, :d], gram[d, d] = second.sum(axis=0), counts.sum()
    gram[:d, d] = gram[d, :d] = first.sum(axis=0)
    # e' (noise + A variance A')^-1 e = e' noise^-1 (e - A gain e)
    spread = np.einsum("lii->li", errors - f.mixing @ gain @ errors)
    log_det = np.linalg.slogdet(covariance)[1] - np.log(f.variance).sum(axis=1)
    volume = np.log(2 * np.pi * f.noise).sum() - log_det
    return Expected(
        -0.5 * float((spread / f.noise).sum() + seen.counts @ volume),
        seen.counts,
        first,
        second,
        np.broadcast_to(gram, (len(f.noise), d + 1, d + 1)),
        np.concatenate([cross.sum(axis=0), seen.first.sum(axis=0)[:, None]], axis=1),
        np.einsum("lii->i", seen.second),
    )


def _gappy(f: Factors, part: Gappy) -> Expected:
    """`expectation` of samples with missing entries, one by one."""
    n_labels, d = f.mean.shape
    covariance = f.gaussian.covariance(part.kinds_there.astype(bool), f.variance[part.kinds_label])
    prior = f.mean[part.labels].T
    centre = f.offset[:, None] + f.mixing @ prior
    error = part.there * (part.x - centre)
    pulled = f.mixing.T @ (error / f.noise[:, None])
    moved = np.einsum("nij,jn->in", covariance[part.kind], pulled)
    z = prior + moved
    own = np.zeros((n_labels, len(part.labels)))
    own[part.labels, np.arange(len(part.labels))] = 1.0
    products = (z[:, None] * z[None]).reshape(d * d, -1).T
    products += covariance.reshape(-1, d * d)[part.kind]
    log_det = np.linalg.slogdet(covariance)[1] - np.log(f.variance[part.kinds_label]).sum(axis=1)
    gram = np.empty((len(f.noise), d + 1, d + 1))
    gram[:, :d, :d] = (part.there @ products).reshape(-1, d, d)
    gram[:, :d, d] = gram[:, d, :d] = part.there @ z.T
    gram[:, d, d] = part.there.sum(axis=1)
    quadratic = float((error**2 / f.noise[:, None]).sum() - (pulled * moved).sum())
    volume = float((np.log(2 * np.pi * f.noise) @ part.there).sum() - log_det[part.kind].sum())
    return Expected(
        -0.5 * (quadratic + volume),
        own.sum(axis=1),
        own @ z.T,
        (own @ products).reshape(-1, d, d),
        gram,
        np.concatenate([part.x @ z.T, part.x.sum(axis=1)[:, None]], axis=1),
        (part.x**2).sum(axis=1),
    )


@dataclass(frozen=True)
class Fitted:
    """Which parts of `Factors` are fitted, besides the variances of z.

    Parameters
    ----------
    mixing : bool
        Matrix and offset; z then has mean 0 and variance 1 over all labels.
    noise : bool
        The noise.
    mean : bool
        The means of z given each label; they stay as they are otherwise.
    least_noise : float
        Least variance of the noise in a channel.
    """

    mixing: bool
    noise: bool
    mean: bool
    least_noise: float = LEAST_NOISE


def _maximisation(f: Factors, expected: Expected, fitted: Fitted) -> Factors:
    """The likeliest factors, given what is expected of z."""
    counts = np.maximum(expected.counts, 1.0)[:, None]
    mean = expected.first / counts if fitted.mean else f.mean
    square = np.einsum("lii->li", expected.second)
    # about the mean, which need not be that of the samples
    scatter = square - 2 * mean * expected.first + expected.counts[:, None] * mean**2
    pooled = np.maximum(scatter.sum(axis=0) / expected.counts.sum(), 1e-300)
    variance = smoothed(scatter, expected.counts, pooled, floor=LEAST_VARIANCE)
    both = np.concatenate([f.mixing, f.offset[:, None]], axis=1)
    if fitted.mixing:
        both = np.linalg.solve(expected.gram, expected.cross[:, :, None])[:, :, 0]
    noise = f.noise
    if fitted.noise:
        left = expected.power - 2 * (both * expected.cross).sum(axis=1)
        left += np.einsum("ci,cij,cj->c", both, expected.gram, both)
        noise = np.maximum(left / expected.gram[:, -1, -1], fitted.least_noise)
    mixing, offset = both[:, :-1], both[:, -1]
    if fitted.mixing:
        share = expected.counts / expected.counts.sum()
        middle = share @ mean
        offset, mean = offset + mixing @ middle, mean - middle
        scale = np.sqrt(share @ (variance + mean**2))
        mixing, mean, variance = mixing * scale, mean / scale, variance / scale**2
    return Factors(mixing, offset, noise, mean, variance)


def maximise(
    start: Factors,
    seen: Observed,
    fitted: Fitted,
    *,
    tolerance: float = TOLERANCE,
    most_cycles: int = MOST_CYCLES,
) -> tuple[Factors, list[float]]:
    """Climb to the nearest maximum of the likelihood.

    Parameters
    ----------
    start : Factors
        Where to begin.
    seen : Observed
        The samples.
    fitted : Fitted
        Which parts are fitted.
    tolerance : float
        Gain in log-likelihood, nats a sample in one cycle, below which it has converged.
    most_cycles : int
        Each of them takes up to three expectations.

    Returns
    -------
    factors : Factors
    log_likelihood : list of float
        Nats a sample at the beginning of every cycle.
    """

    def step(factors: Factors) -> tuple[Factors, float]:
        expected = expectation(factors, seen)
        return _maximisation(factors, expected, fitted), expected.log_likelihood / seen.n_times

    now, history = start, list[float]()
    for _ in range(most_cycles):
        one, value = step(now)
        if history and value - history[-1] < tolerance:
            break
        history.append(value)
        two, middle = step(one)
        first = one._vector() - now._vector()
        bend = two._vector() - one._vector() - first
        length = float(np.linalg.norm(first)) / max(float(np.linalg.norm(bend)), 1e-300)
        now = two
        if length > 1:
            length = min(length, LONGEST)
            far = two._with_vector(one._vector() - first + 2 * length * first + length**2 * bend)
            far = replace(far, noise=np.maximum(far.noise, fitted.least_noise))
            with np.errstate(all="ignore"):
                try:
                    landed, reached = step(far)
                except np.linalg.LinAlgError:
                    continue
            if reached >= middle and np.isfinite(landed._vector()).all():
                now = landed
    return now, history
