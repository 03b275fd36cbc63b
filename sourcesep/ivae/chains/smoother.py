"""Sources behind filters, curves and noise: their posterior and prior, and whether there is noise.

`laplace` has the posterior of one record; `noisy_curves` how curves and noise are found.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.chains.chain import Chain, unit_slope
from sourcesep.ivae.chains.curve_samples import Data
from sourcesep.ivae.chains.curves import Curves
from sourcesep.ivae.chains.filters import convolve
from sourcesep.ivae.chains.laplace import Mode, Record
from sourcesep.ivae.chains.noisy_curves import NoisyCurves
from sourcesep.ivae.label_means import present_label_means
from sourcesep.ivae.matrices.starts import turned
from sourcesep.ivae.model import ELBO, Array, Posterior
from sourcesep.ivae.priors import LabelPrior, label_sums, smoothed
from sourcesep.ivae.settings import GAUSSIAN

__all__ = ["Smoother", "find_noise"]

N_ROUNDS = 5
"""Rounds of expectation and maximisation for the prior."""
FLAT = np.log(20)
"""Log-slope, over its least, beyond which a curve's inverse is no place to begin."""
VARIANCE_FLOOR = 1e-8
"""Least variance of a label, as a share of the source's own."""
LEAST_NOISE = 2e-3
"""Less, as a share of a channel's standard deviation, counts as none."""
MARGIN = 0.01
"""Least gain in held-out log-density by which noise is taken into account, nats a sample."""

Labels = NDArray[np.int64]


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

    @classmethod
    def of(cls, noisy: NoisyCurves, chain: Chain, x: Array) -> Self:
        """Put curves and noise in the place of a chain's curves; x are samples in use."""
        inside = np.clip(x, noisy.curves.knots[:, :1], noisy.curves.knots[:, -1:])
        return cls(unit_slope(noisy.within(chain, x), inside), noisy.noise)

    def tensors(self) -> dict[str, Array]:
        """Everything needed to rebuild it."""
        return {
            "knots": self.chain.curves.knots,
            "log_slopes": self.chain.curves.log_slopes,
            "offset": self.chain.offset,
            "inner": self.chain.inner,
            "noise": self.noise,
        }

    @classmethod
    def from_tensors(cls, tensors: dict[str, Array]) -> Self:
        """Rebuild what gave these `tensors`."""
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

    def without_prior(self, x: Array, chain: Chain) -> Posterior:
        """What a chain makes of x, and how far this noise carries it, to first order."""
        y, log_slope = chain.undistort(x)
        variance = convolve(chain.inner**2, self.noise[:, None] * np.exp(2 * log_slope))
        return Posterior(convolve(chain.inner, y), np.sqrt(np.maximum(variance, 0)))

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
        return np.asarray(-0.5 * (loss[where] + log_volume), np.float64)

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

    def prior_for(self, x: Array, u: Auxiliary) -> LabelPrior:
        """Fit p(z|u) to observations, as in `fit_prior`."""
        labels = np.where(u.used, u.labels, -1)
        return self.fit_prior(x, labels, u.n_labels, with_mean=not u.is_time)

    def adapted(self, x: Array, u: Auxiliary) -> tuple[Self, LabelPrior]:
        """Return the same for sources of unit variance in these data, and their prior."""
        prior = self.prior_for(x, u)
        z = self.infer(x, prior, np.where(u.used, u.labels, -1))[1].z
        size = z[:, u.used].std(axis=1)
        chain = replace(self.chain, inner=self.chain.inner / size[:, None, None])
        prior = LabelPrior(prior.mean / size, prior.scale / size, prior.shape)
        return replace(self, chain=chain), prior

    def moved(
        self, x: Array, u: Auxiliary, rng: np.random.Generator
    ) -> tuple[Array, Self, LabelPrior]:
        """Go on to other data, of mean 0, by a matrix behind the filters.

        Returns the matrix, the smoother with it, and the prior.
        """
        offset = self.chain.offset - self.start(x)[:, u.used].mean(axis=1)
        chain = replace(self.chain, offset=offset)
        labels = np.where(u.used, u.labels, -1)
        here = replace(self, chain=chain)
        matrix = turned(here.infer(x, here.prior_for(x, u), labels)[1].z, u, rng, "segments")
        chain = replace(chain, inner=np.tensordot(matrix, chain.inner, 1))
        return matrix, *replace(self, chain=chain).adapted(x, u)

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
        y = self.start(x)
        z = convolve(self.chain.inner, y)
        prior = _maximised(z, np.zeros_like(z), labels, known, n_labels, with_mean)
        for _ in range(N_ROUNDS):
            record = self.record(x, prior, labels)
            mode = record.mode(y)
            prior = _maximised(mode.z, record.variances(mode), labels, known, n_labels, with_mean)
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
    counts = np.bincount(labels, minlength=n_labels)
    mean = np.zeros((n_labels, len(z)))
    if with_mean:
        mean = label_sums(z, labels, n_labels) / np.maximum(counts, 1)[:, None]
    squares = (z - mean[labels].T) ** 2 + variances
    sums, overall = label_sums(squares, labels, n_labels), squares.mean(axis=1)
    variance = smoothed(sums, counts, overall, floor=VARIANCE_FLOOR)
    return LabelPrior(mean, np.sqrt(2 * variance), np.full(len(z), 2.0))


def find_noise(
    data: Data, held: NDArray[np.bool_], chain: Chain, wanted: bool | None
) -> tuple[NoisyCurves | None, dict[str, float]]:
    """Fit curves with noise, and say whether held-out samples are likelier so.

    Both log-densities are of the same samples under Gaussian sources whose variances are
    fitted to the others: the smoother's, and the exact one of the chain, or of the chain with
    the smoother's curves if that is likelier: it is noise that has to win, not a better curve.

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
    smoother = Smoother.of(noisy, chain, x[:, labels >= 0])
    prior = smoother.fit_prior(x, labels, n_labels, with_mean=data.with_mean, counting=~held)
    with_noise = smoother.evidence(x, prior, labels, held)
    without = np.full(with_noise.shape, -np.inf)
    for clean in (chain, smoother.chain):
        z, log_volume = clean.forward(x)
        prior = LabelPrior.fit(z, seen, n_labels, with_mean=data.with_mean, shapes=GAUSSIAN)
        density = (prior.log_prob(z, labels).sum(axis=0) + log_volume)[held]
        without = max(without, density, key=np.mean)
    gain = with_noise - without
    by_label = present_label_means(gain, labels[held])
    spread = by_label if len(by_label) > 1 else gain  # one label says nothing of chance
    error = spread.std() / np.sqrt(len(spread))
    scores = {"without noise": float(without.mean()), "with noise": float(with_noise.mean())}
    chosen = by_label.mean() > max(MARGIN, 2 * error)
    return (noisy if chosen else None), scores
