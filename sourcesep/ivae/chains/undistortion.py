"""Finding the curves that undo a saturation, and whether the data want any.

Three candidates, each the start of the next: no curve at all; the logistic curve
between two rails a channel (`SlopeFamily`); and any smooth curve near that. A later one
is taken only if it wins on held-out samples by a margin: on an undistorted mixture a
curve that fits a little better separates worse by tens of dB.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from sourcesep.exceptions import InputError, SettingsError
from sourcesep.ivae.chains.ascent import maximise
from sourcesep.ivae.chains.chain import VARIANCE_FLOOR, Chain, Objective, Parameters
from sourcesep.ivae.chains.curve_samples import Data
from sourcesep.ivae.chains.curves import SlopeFamily, rail_knots, splines
from sourcesep.ivae.chains.filters import convolve, frequency_demixing, identity_taps
from sourcesep.ivae.label_means import present_label_means, remove_label_means
from sourcesep.ivae.matrices.jointdiag import joint_diagonalise, label_covariances
from sourcesep.ivae.model import Array
from sourcesep.ivae.whitening import numerical_rank

__all__ = ["CURVES", "Plan", "candidates", "choose", "climb", "plan_for", "with_outer"]

CURVES = ("none", "logistic", "smooth")
"""The candidates, from the simplest to the richest."""
STRENGTHS = (0.3, 0.5, 0.7, 0.8, 0.87, 0.92, 0.95, 0.97, 0.985, 0.993, 0.997, 0.9995)
"""Peak of the observations as a share of the rails' distance, scanned for the start."""
N_KNOTS = 129
"""Of a channel's curve."""
OUTER_REACH = 1.5
"""Range of the curves behind a filter that is being fitted, over that of x."""
MARGINS = {
    ("none", "logistic"): 0.004,
    ("none", "smooth"): 0.008,
    ("logistic", "smooth"): 0.005,
}
"""Least gain in held-out log-likelihood of a curve over another, nats a sample and channel.

In development the logistic curve gained up to .001 on 14 undistorted mixtures of talkers, .001 to
.022 on tanh of strength 1. (Up to .04 while a matrix alone was not fitted to the same likelihood.)
Over that a smooth one gained up to .003 on both, .005 and mostly more on other curves. A missed
mild saturation costs 9 dB or more; a curve without need costs 20 to 50.
"""
SCORE_FLOOR = 1e-4
"""Share of a source's variance below which a label is as good as silent in the choice."""
SCORE_SHAPES = (0.7, 1.0, 1.5, 2.0, 3.0)
"""Exponents of the generalised Gaussians that the choice allows each source. Under a
Gaussian alone, a curve that merely makes heavy-tailed sources Gaussian would win."""
INNER_TAPS = 3
"""Taps on either side of the unmixing filter, per tap of the mixing."""
OUTER_TAPS = 4
"""The same for the filter behind the curves."""
JITTER = 1e-9
"""Added to covariances of unit trace: a source may be silent in a label."""


@dataclass(frozen=True)
class Plan:
    """Settings of a fit.

    Parameters
    ----------
    inner_half, outer_half : int
        Taps on either side of the two filters; no outer one if 0.
    n_bends : int
        B-splines of the smooth curve.
    smoothness : float
        Its penalty (`Objective`).
    max_iter : int
        L-BFGS steps of each stage, at most.
    tolerance : float
        Share of the objective that a step must gain, or it is the last.
    outer_iter : int
        L-BFGS steps once there are two filters.
    """

    inner_half: int
    outer_half: int
    n_bends: int
    smoothness: float
    max_iter: int
    tolerance: float
    outer_iter: int

    @property
    def is_instantaneous(self) -> bool:
        """Whether there is no filter, so that the order of the samples does not matter."""
        return self.inner_half == self.outer_half == 0


def plan_for(
    x: Array, n_times: int, n_components: int | None, kernel_size: int, post_kernel_size: int
) -> Plan:
    """Check used samples and the settings against each other, and plan a fit."""
    d, rank = len(x), numerical_rank(x)
    if rank < d:
        raise InputError(
            f"rank={rank} of {d} channels: mixing=post-nonlinear needs channels that are "
            "neither constant nor linear in each other; leave some out, or use mixing=linear"
        )
    if n_components not in (None, d):
        raise SettingsError(
            f"n_components={n_components}: mixing=post-nonlinear finds as many sources "
            f"as channels, {d}; leave it out, or use another mixing"
        )
    inner = 0 if kernel_size == 1 else INNER_TAPS * kernel_size
    outer = 0 if post_kernel_size == 1 else OUTER_TAPS * post_kernel_size
    needed = 16 * max(inner, outer)
    if n_times < needed:
        raise SettingsError(
            f"kernel_size={kernel_size}, post_kernel_size={post_kernel_size}: "
            f"filters that long need {needed} samples and there are {n_times}; "
            "ask for fewer taps"
        )
    if inner or outer:
        return Plan(inner, outer, 40, 1e-4, 80, 2e-9, 300)
    return Plan(0, 0, 24, 1e-2, 200, 1e-6, 0)


@dataclass(frozen=True)
class _Start:
    """A logistic curve common to all channels, and the filter that goes with it."""

    loss: float
    low: Array
    high: Array
    offset: Array
    taps: Array


def candidates(
    data: Data, plan: Plan, names: tuple[str, ...], rng: np.random.Generator
) -> dict[str, tuple[SlopeFamily, Parameters]]:
    """Fit each of the named `CURVES`."""
    d = len(data.x)
    nothing = np.zeros((d, 0))
    found: dict[str, tuple[SlopeFamily, Parameters]] = {}
    if "none" in names:
        x_min, x_max = data.x.min(axis=1), data.x.max(axis=1)
        family = SlopeFamily(np.linspace(x_min, x_max, 3, axis=1))
        offset, taps, _ = _unmix(data.x, data, plan, n_sweeps=60)
        start = Parameters(None, nothing, nothing, offset, taps)
        start = climb(data, family, start, plan, plan.max_iter // 2, rng)
        found["none"] = family, start
    if set(names) <= {"none"}:
        return found
    best = min((_logistic(data, plan, s) for s in STRENGTHS), key=lambda start: start.loss)
    family = SlopeFamily(
        rail_knots(best.low, best.high, data.x.min(axis=1), data.x.max(axis=1), N_KNOTS)
    )
    start = Parameters(None, family.rails_at(best.low, best.high), nothing, best.offset, best.taps)
    start = climb(data, family, start, plan, plan.max_iter, rng)
    if "logistic" in names:
        found["logistic"] = family, start
    if "smooth" in names:
        start = replace(start, bends=np.zeros((d, plan.n_bends)))
        start = climb(data, family, start, plan, plan.max_iter, rng)
        found["smooth"] = family, start
    return found


def with_outer(
    data: Data, plan: Plan, family: SlopeFamily, fitted: Parameters, rng: np.random.Generator
) -> tuple[SlopeFamily, Parameters]:
    """Add the filter behind the curves to a fit without it, and fit all together."""
    old = fitted.chain(family).curves
    middle = (old.knots[:, :1] + old.knots[:, -1:]) / 2
    wider = SlopeFamily(middle + OUTER_REACH * (old.knots - middle))
    wanted = np.stack(
        [
            np.interp(new, knots, values)
            for new, knots, values in zip(wider.knots, old.knots, old.log_slopes, strict=True)
        ]
    )
    basis = splines(N_KNOTS, plan.n_bends)
    bends = np.linalg.lstsq(basis, wanted.T, rcond=None)[0].T
    start = replace(
        fitted,
        outer=identity_taps(len(data.x), plan.outer_half),
        rails=np.zeros((len(data.x), 0)),
        bends=bends,
    )
    new = start.chain(wider).curves.forward(data.x)[0]
    shift = (old.forward(data.x)[0] - new).mean(axis=1)
    start = replace(start, offset=start.offset + shift)
    return wider, climb(data, wider, start, plan, plan.outer_iter, rng)


def choose(
    data: Data, held: NDArray[np.bool_], chains: dict[str, Chain]
) -> tuple[str, dict[str, float]]:
    """Return the simplest chain that no richer one beats by the margin, and all scores.

    Scores are mean log-likelihoods of each label's held-out samples, their own variances
    profiled out, in nats a sample: what was fitted on other samples is the map, and only
    maps are compared. (Under variances of the other samples a few loud ones decide.) A
    curve must gain its margin (`MARGINS`), and two standard errors over labels.
    """
    labels, by_label = data.labels[held], {}
    for name, chain in chains.items():
        z, log_volume = chain.forward(data.x)
        by_label[name] = present_label_means(log_volume[held], labels)
        for row in remove_label_means(z[:, held], labels) if data.with_mean else z[:, held]:
            by_label[name] += max(
                (_profiled(np.abs(row), labels, p) for p in SCORE_SHAPES), key=np.mean
            )
    chosen = next(iter(chains))
    for name in list(chains)[1:]:
        gain = by_label[name] - by_label[chosen]
        margin = len(data.x) * MARGINS[chosen, name]
        if gain.mean() > max(margin, 2 * gain.std() / np.sqrt(len(gain))):
            chosen = name
    return chosen, {name: float(values.mean()) for name, values in by_label.items()}


def _profiled(magnitude: Array, labels: NDArray[np.int64], p: float) -> Array:
    """Log-likelihood a label of a generalised Gaussian whose scales are its best ones."""
    moment = present_label_means(magnitude**p, labels)
    moment += SCORE_FLOOR ** (p / 2) * moment.mean()
    value: Array = np.log(p / 2) - gammaln(1 / p) - (np.log(p * moment) + 1) / p
    return value


def climb(
    data: Data,
    family: SlopeFamily,
    start: Parameters,
    plan: Plan,
    max_iter: int,
    rng: np.random.Generator,
) -> Parameters:
    """Climb the likelihood of the data from given parameters."""
    objective = Objective(
        data.x, data.labels, family, with_mean=data.with_mean, smoothness=plan.smoothness
    )
    return maximise(objective, start, rng, max_iter=max_iter, tolerance=plan.tolerance)[0]


def _logistic(data: Data, plan: Plan, strength: float) -> _Start:
    """Undo a logistic saturation whose rails are the peak over `strength` from the middle."""
    middle = (data.x.max(axis=1) + data.x.min(axis=1)) / 2
    reach = np.ptp(data.x, axis=1) / (2 * strength) * (1 + 1e-6)
    low, high = middle - reach, middle + reach
    inside = (data.x - low[:, None]) * (high[:, None] - data.x) / reach[:, None] ** 2
    # unit slope in the middle, as `SlopeFamily` has it
    y = middle[:, None] + reach[:, None] * np.arctanh((data.x - middle[:, None]) / reach[:, None])
    offset, taps, loss = _unmix(y, data, plan, n_sweeps=25)
    log_slope = -np.log(inside[:, data.labels >= 0])
    return _Start(loss - float(log_slope.mean(axis=1).sum()), low, high, offset, taps)


def _unmix(y: Array, data: Data, plan: Plan, *, n_sweeps: int) -> tuple[Array, Array, float]:
    """Linear unmixing of y: offset, taps of sources of unit variance, loss (nats a sample)."""
    offset = -y[:, data.labels >= 0].mean(axis=1)
    centred = y + offset[:, None]
    covariances, counts = label_covariances(
        centred, data.labels, data.n_labels, centre=data.with_mean
    )
    power = np.trace(covariances, axis1=1, axis2=2)
    audible = power > 0
    covariances, share = covariances[audible], counts[audible] / counts[audible].sum()
    level = covariances / power[audible, None, None] + JITTER * np.eye(len(y))
    matrix = joint_diagonalise(level, share, max_iter=60).matrix
    variance = np.einsum("ij,kjl,il->ki", matrix, covariances, matrix)
    overall = share @ variance
    matrix = matrix / np.sqrt(overall)[:, None]
    half = max(plan.inner_half, plan.outer_half)
    if half == 0:
        log_variance = np.log(variance / overall + VARIANCE_FLOOR)
        loss = 0.5 * float((share @ log_variance).sum()) - float(np.linalg.slogdet(matrix)[1])
        return offset, matrix[:, :, None], loss
    taps, loss = frequency_demixing(centred, data.labels, matrix, half, n_sweeps)
    taps = taps[:, :, half - plan.inner_half : half + plan.inner_half + 1]
    z = convolve(taps, centred)[:, data.labels >= 0]
    return offset, taps / z.std(axis=1)[:, None, None], loss
