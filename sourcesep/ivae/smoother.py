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
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal

from sourcesep.ivae.chain import Chain
from sourcesep.ivae.curves import Curves
from sourcesep.ivae.filters import adjoint, convolve, log_det_rate
from sourcesep.ivae.model import ELBO, Array, Posterior
from sourcesep.ivae.noisy_curves import NoisyCurves
from sourcesep.ivae.priors import LabelPrior
from sourcesep.ivae.undistortion import Data

__all__ = ["Smoother", "find_noise"]

MOST_STEPS, SMALLEST_GAIN = 30, 1e-5
"""Gauss-Newton steps, and the gain, in nats a sample, below which no more are made."""
MOST_HALVINGS = 6
MOST_DIRECTIONS, PRECISION = 60, 0.1
"""Conjugate gradients of a Gauss-Newton step, and the share of its residual that may stay."""
FINE = 1e-2
"""The same share where posterior variances are wanted."""
N_LANCZOS = 40
SPACING = 8
"""Samples between those whose posterior variances are probed together."""
N_ROUNDS = 5
"""Rounds of expectation and maximisation for the prior."""
FLAT = np.log(20)
"""Log-slope, over its least, beyond which a curve's inverse is no place to begin."""
PSEUDO_COUNT = 1.0
"""Samples' worth of the source's overall variance that every label starts with."""
LEAST_NOISE = 2e-3
"""Less, as a share of a channel's standard deviation, counts as none."""
MARGIN = 0.01
"""Least gain in held-out log-density by which noise is taken into account, nats a sample."""
VARIANCE_FLOOR = 1e-8
"""Least variance of a label, as a share of the source's own."""

Labels = NDArray[np.int64]


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
        return weight**2 * p + convolve(adjoint(inner), self.precision * convolve(inner, p))

    def diagonal(self, weight: Array) -> Array:
        """The diagonal of `curvature`."""
        prior = convolve(adjoint(self.chain.inner) ** 2, self.precision)
        # a filter by Fourier transforms may leave less than nothing where labels are silent
        return weight**2 + np.maximum(prior, 1e-12 * prior.max())

    def solve(self, weight: Array, b: Array, precision: float) -> Array:
        """Divide by the curvature, by conjugate gradients."""
        diagonal = self.diagonal(weight)
        found, left = np.zeros_like(b), b.copy()
        scaled = left / diagonal
        direction, size = scaled, float(np.vdot(left, scaled))
        enough = precision**2 * size
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
            step = self.solve(at.weight, -self.gradient(at), PRECISION)
            tries = (self.at(at.y + step / 2**k) for k in range(MOST_HALVINGS))
            better = next((new for new in tries if new.loss < at.loss), None)
            if better is None:
                break
            gain, at = at.loss - better.loss, better
            if gain < SMALLEST_GAIN * self.x.shape[1]:
                break
        return at

    def probe(self, at: Mode, v: Array) -> Array:
        """Multiply v by the posterior covariance of z."""
        inner = self.chain.inner
        return convolve(inner, self.solve(at.weight, convolve(adjoint(inner), v), FINE))

    def variances(self, at: Mode) -> Array:
        """Posterior variances of z: the covariance's diagonal, from samples far apart at once."""
        signs = _signs(self.mean.shape, np.random.default_rng(0))
        result = np.empty_like(signs)
        for j in range(len(signs)):
            for k in range(SPACING):
                v = np.zeros_like(signs)
                v[j, k::SPACING] = signs[j, k::SPACING]
                result[j, k::SPACING] = (v * self.probe(at, v))[j, k::SPACING]
        # what other samples of a probe have left in it must not make it impossible
        return np.clip(result, 1e-12 / self.precision, 1 / self.precision)

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
        v[:, where] = _signs(v[:, where].shape, np.random.default_rng(0))
        root = np.sqrt(diagonal)
        rest = _quadrature(lambda p: self.curvature(at.weight, p / root) / root, v)
        return share + rest / max(1, len(share))


def _signs(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    signs: Array = np.where(rng.random(shape) < 0.5, -1.0, 1.0)
    return signs


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


@dataclass(frozen=True)
class Smoother:
    """Curves and filters with noise behind them; the prior comes from outside.

    Parameters
    ----------
    chain : Chain
        Without outer filter: its inverse is f(H * z).
    noise : ndarray of shape (n_channels,)
        Variances.
    """

    chain: Chain
    noise: Array

    def tensors(self) -> dict[str, Array]:
        """Everything needed to rebuild it."""
        return {
            "smoother.knots": self.chain.curves.knots,
            "smoother.log_slopes": self.chain.curves.log_slopes,
            "smoother.offset": self.chain.offset,
            "smoother.inner": self.chain.inner,
            "smoother.noise": self.noise,
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Array]) -> Self:
        """Rebuild what `tensors` gave, names without the first part."""
        curves = Curves(tensors["knots"], tensors["log_slopes"])
        return cls(Chain(None, curves, tensors["offset"], tensors["inner"]), tensors["noise"])

    def record(self, x: Array, prior: LabelPrior, labels: Labels) -> Record:
        """Put observations and the prior of their labels together.

        A label below 0 is not known: a source then has its mean variance over labels.
        """
        variance = prior.variance
        unknown = (variance + (prior.mean - prior.mean.mean(axis=0)) ** 2).mean(axis=0)
        variance = np.vstack([variance, unknown])
        floor = VARIANCE_FLOOR * unknown
        mean = np.vstack([prior.mean, prior.mean.mean(axis=0)])
        precision = 1 / np.maximum(variance, floor)[labels].T
        return Record(self.chain, self.noise, x, mean[labels].T, precision)

    def start(self, x: Array) -> Array:
        """Undo the curves where they are not flat: a y to climb from."""
        curves = self.chain.curves
        steep = curves.log_slopes < curves.log_slopes.min(axis=1, keepdims=True) + FLAT
        ends = [row[which][[0, -1]] for row, which in zip(curves.knots, steep, strict=True)]
        low, high = np.array(ends).T[:, :, None]
        return self.chain.undistort(np.clip(x, low, high))[0]

    def infer(self, x: Array, prior: LabelPrior, labels: Labels) -> tuple[Record, Mode]:
        """Find the mode of the posterior."""
        record = self.record(x, prior, labels)
        return record, record.mode(self.start(x))

    def posterior(self, x: Array, prior: LabelPrior, labels: Labels) -> Posterior:
        """Mode, and standard deviations of the Gaussian around it."""
        record, mode = self.infer(x, prior, labels)
        return Posterior(mode.z, np.sqrt(record.variances(mode)))

    def evidence(
        self, x: Array, prior: LabelPrior, labels: Labels, where: NDArray[np.bool_]
    ) -> Array:
        """Laplace's approximation of log p(x|u), shared out to samples, nats, (n_asked,)."""
        record, mode = self.infer(x, prior, labels)
        log_volume = record.log_volume(mode, where)
        spread = (mode.z - record.mean) ** 2 * record.precision
        loss = (mode.error**2).sum(axis=0) + spread.sum(axis=0)
        loss += np.log(2 * np.pi * self.noise).sum()
        return -0.5 * (loss[where] + log_volume)

    def elbo(self, x: Array, prior: LabelPrior, labels: Labels) -> ELBO:
        """Both terms under the Gaussian around the mode, f straight within its width.

        Their difference is `evidence`. Each sample's KL is that of its own variances, and
        what these do not say of the whole covariance is the same for all samples.
        """
        record, mode = self.infer(x, prior, labels)
        kept = record.variances(mode) * record.precision
        spread = (mode.z - record.mean) ** 2 * record.precision
        by_own = -np.log(kept).sum(axis=0)
        gap = float(np.mean(record.log_volume(mode) - by_own))
        kl = 0.5 * ((kept + spread - 1).sum(axis=0) + by_own + max(gap, 0.0))
        error = (mode.error**2).sum(axis=0) + (1 - kept).sum(axis=0)
        return ELBO(-0.5 * (error + np.log(2 * np.pi * self.noise).sum()), kl)

    def fit_prior(
        self,
        x: Array,
        labels: Labels,
        n_labels: int,
        *,
        with_mean: bool,
        counting: NDArray[np.bool_] | None = None,
    ) -> LabelPrior:
        """Fit a variance (and mean) to each label by expectation and maximisation.

        Parameters
        ----------
        x : ndarray of shape (n_channels, n_times)
            Observations.
        labels : ndarray of int, shape (n_times,)
            Negative ones are not fitted to.
        n_labels : int
            Number of labels.
        with_mean : bool
            Whether each label has a mean of its own; it is 0 otherwise.
        counting : ndarray of bool, shape (n_times,), optional
            Samples to be fitted to; all by default.
        """
        known = labels >= 0
        if counting is not None:
            known = known & counting
        rng = np.random.default_rng(0)
        y = self.start(x)
        z = convolve(self.chain.inner, y)
        prior = _maximised(z, np.zeros_like(z), labels, known, n_labels, with_mean)
        for _ in range(N_ROUNDS):
            record = self.record(x, prior, labels)
            mode = record.mode(y)
            # its diagonal alone has no chance in it, and a label averages the rest away
            v = _signs(z.shape, rng)
            variances = v * record.probe(mode, v)
            prior = _maximised(mode.z, variances, labels, known, n_labels, with_mean)
            y = mode.y
        return prior


def _maximised(
    z: Array,
    variances: Array,
    labels: Labels,
    known: NDArray[np.bool_],
    n_labels: int,
    with_mean: bool,
) -> LabelPrior:
    """Gaussians of the labels that have these posterior means and variances."""
    z, variances, labels = z[:, known], variances[:, known], labels[known]
    counts = np.bincount(labels, minlength=n_labels)[:, None]

    def sums(rows: Array) -> Array:
        return np.stack([np.bincount(labels, row, n_labels) for row in rows], axis=1)

    mean = sums(z) / np.maximum(counts, 1) if with_mean else np.zeros((n_labels, len(z)))
    squares = (z - mean[labels].T) ** 2 + variances
    overall = squares.mean(axis=1)
    variance = (sums(squares) + PSEUDO_COUNT * overall) / (counts + PSEUDO_COUNT)
    variance = np.maximum(variance, VARIANCE_FLOOR * overall)
    return LabelPrior(mean, np.sqrt(2 * variance), np.full(len(z), 2.0))


def find_noise(
    data: Data, held: NDArray[np.bool_], chain: Chain, wanted: bool | None
) -> tuple[NoisyCurves | None, dict[str, float]]:
    """Fit curves with noise, and say whether held-out samples are likelier so.

    Both log-densities are of the same samples under Gaussian sources whose variances are
    fitted to the others: the chain's exact one, and the smoother's by Laplace.

    Parameters
    ----------
    data : Data
        A record in order, of unit peak.
    held : ndarray of bool, shape (n_times,)
        Samples that the chain was not fitted to.
    chain : Chain
        A fit without noise to the other samples.
    wanted : bool or None
        True for noise whatever the evidence says.

    Returns
    -------
    NoisyCurves or None
        What to take, None for no noise.
    dict of str to float
        Both log-densities, nats a sample.
    """
    x, labels, n_labels = data.x, data.labels, data.n_labels
    seen = np.where(held, -1, labels)
    noisy = NoisyCurves.fit(x, seen, chain, with_mean=data.with_mean)
    if wanted:
        return noisy, {}
    if (noisy.noise < (LEAST_NOISE * x[:, labels >= 0].std(axis=1)) ** 2).any():
        return None, {}
    smoother = Smoother(noisy.within(chain, x[:, labels >= 0]), noisy.noise)
    prior = smoother.fit_prior(x, labels, n_labels, with_mean=data.with_mean, counting=~held)
    with_noise = smoother.evidence(x, prior, labels, held)
    z, log_volume = chain.forward(x)
    prior = LabelPrior.fit(z, seen, n_labels, with_mean=data.with_mean, shapes=(2.0,))
    without = (prior.log_prob(z, labels).sum(axis=0) + log_volume)[held]
    gain = with_noise - without
    counts = np.bincount(labels[held], minlength=n_labels)
    by_label = np.bincount(labels[held], gain, n_labels)[counts > 0] / counts[counts > 0]
    error = by_label.std() / np.sqrt(len(by_label))
    scores = {"without noise": float(without.mean()), "with noise": float(with_noise.mean())}
    chosen = by_label.mean() > max(MARGIN, 2 * error)
    return (noisy if chosen else None), scores
