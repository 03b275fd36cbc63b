"""Family ``post-nonlinear``: mixing, then a monotone curve a channel, then perhaps a filter.

Saturated microphones and amplifiers (one matrix, then curves), and mixtures with memory
and a nonlinearity (filters, then curves, then filters).
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import numpy as np

from sourcesep.auxiliary import Auxiliary
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.ivae.chain import Chain, Parameters, in_units, unit_slope
from sourcesep.ivae.curves import Curves, SlopeFamily
from sourcesep.ivae.filters import convolve, deconvolve, impulse_response
from sourcesep.ivae.invertible import InvertibleModel
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.model import Array, Settings, State
from sourcesep.ivae.priors import SHAPES, LabelPrior
from sourcesep.ivae.starts import STARTS, turned
from sourcesep.ivae.undistortion import (
    CURVES,
    Data,
    Plan,
    candidates,
    choose,
    climb,
    split,
    with_outer,
)
from sourcesep.ivae.whitening import numerical_rank

__all__ = ["PostNonlinearModel"]

INNER_REACH = 3
"""Taps on either side of the unmixing filter, per tap of the mixing."""
OUTER_REACH = 4
"""The same for the filter behind the curves."""
MOST_LABELS = 200
"""An instantaneous curve is fitted on this many labels: the loudest and random ones."""
MOST_SAMPLES = 32_000
"""And on about this many samples of them; the choice sees all."""
LONGEST_EXCERPT = 200_000
"""Longer recordings are fitted on their middle."""
QUIETEST = 1e-4
"""Labels of less than this share of the mean power say nothing about a curve."""


class PostNonlinearModel(InvertibleModel):
    """x = outer^-1 * g(A * (z + sigma e)): filters, a curve per channel, filters.

    Identifiable up to the order, sign and scale of the sources with ``kernel_size=1``
    (Taleb & Jutten 1999, with nonstationarity in place of non-Gaussianity), and up to
    one filter a source with more taps: the prior takes sources as white within a label.

    With one tap a linear fit is the first candidate and stays the answer, exactly, unless
    curves win on held-out samples by a margin. So it is with more taps and a linear
    filter.

    Parameters
    ----------
    kernel_size : int
        Taps of the mixing; its inverse gets three times as many on either side.
    post_kernel_size : int
        Taps of the filter behind the curves, 1 for none.
    curves : sequence of str
        Which of ``"none"``, ``"logistic"`` and ``"smooth"`` are tried.
    shapes : tuple of float
        Exponents the prior may take (`LabelPrior`).

    Attributes
    ----------
    chain : Chain
        The encoder: x to sources of unit variance over the samples of the fit.
    prior : LabelPrior
        p(z|u) on the finest scale of u.
    curve : str
        Which candidate was kept.
    scores : dict of str to float
        Held-out log-likelihood of every candidate, nats a sample, up to one constant.
    """

    family: ClassVar[str] = "post-nonlinear"
    representation: ClassVar[Literal["time", "stft"]] = "time"
    is_linear: ClassVar[bool] = False
    goes_on: ClassVar[bool] = True
    mends: ClassVar[tuple[str, ...]] = ("power",)

    chain: Chain
    curve: str
    scores: dict[str, float]

    def __init__(
        self,
        n_components: int | None = None,
        *,
        kernel_size: int = 1,
        post_kernel_size: int = 1,
        curves: tuple[str, ...] = CURVES,
        shapes: tuple[float, ...] = SHAPES,
    ) -> None:
        for name, size in (("kernel_size", kernel_size), ("post_kernel_size", post_kernel_size)):
            if size < 1:
                raise SettingsError(f"{name}={size}: a filter has at least 1 tap")
        if not curves or any(c not in CURVES for c in curves):
            raise SettingsError(f"curves={curves}: allowed are {', '.join(CURVES)}")
        self.requested = n_components
        self.kernel_size = kernel_size
        self.post_kernel_size = post_kernel_size
        self.curves = tuple(c for c in CURVES if c in curves)
        self.shapes = tuple(shapes)

    @classmethod
    def configured(cls, settings: Settings) -> Self:
        """Return an unfitted model with these settings."""
        return cls(
            settings.n_components,
            kernel_size=settings.kernel_size or 1,
            post_kernel_size=settings.post_kernel_size,
            shapes=settings.shapes,
        )

    @property
    def choice(self) -> str:  # type: ignore[override]
        """Which curve was kept, in plain words."""
        curve = "no curve" if self.curve == "none" else f"a {self.curve} curve a channel"
        taps = max(self.kernel_size, self.post_kernel_size)
        return curve + (" and filters" if taps > 1 else "")

    @property
    def n_components(self) -> int:
        """Number of sources: as many as channels."""
        return len(self.chain.offset)

    @property
    def n_channels(self) -> int:
        """Number of channels of x."""
        return len(self.chain.offset)

    def blank(self) -> Self:
        """Return an unfitted model with this one's choices made."""
        return type(self)(
            self.n_components,
            kernel_size=self.kernel_size,
            post_kernel_size=self.post_kernel_size,
            curves=(self.curve,),
            shapes=self.shapes,
        )

    def fit(self, x: Array, u: Auxiliary, rng: np.random.Generator) -> Self:
        """Fit curves, filters and prior to x given u.

        Parameters
        ----------
        x : ndarray of shape (n_channels, n_times)
            Observations; a whole record, in order, if there are filters.
        u : Auxiliary
            Labels of the samples; those left out are filtered but not fitted on.
        rng : numpy.random.Generator
            For the choice of labels and for what the linear family draws.

        Raises
        ------
        InputError
            If channels are constant or depend on each other linearly.
        SettingsError
            If other than one source a channel is asked for, or the filters are too long
            for the record.
        """
        plan = self._plan(x, u)
        # the likelihood's constants are for a peak of 1; curves do not care
        peak = np.abs(x[:, u.used]).max(axis=1)
        data = Data(x / peak[:, None], np.where(u.used, u.labels, -1), not u.is_time)
        self.curve, family, parameters, self.scores = self._choose(_middle(data), plan, rng)
        self.chain = in_units(parameters.chain(family), peak)
        self._normalise(x, u, rng)
        self.prior = self.fit_prior(self.encode(x)[0], u)
        return self

    def _plan(self, x: Array, u: Auxiliary) -> Plan:
        """Check x and the settings against each other."""
        d, rank = len(x), numerical_rank(x[:, u.used])
        if rank < d:
            raise InputError(
                f"rank={rank} of {d} channels: mixing=post-nonlinear needs channels that are "
                "neither constant nor linear in each other; leave some out, or use mixing=linear"
            )
        if self.requested not in (None, d):
            raise SettingsError(
                f"n_components={self.requested}: mixing=post-nonlinear finds as many sources "
                f"as channels, {d}; leave it out, or use another mixing"
            )
        inner = 0 if self.kernel_size == 1 else INNER_REACH * self.kernel_size
        outer = 0 if self.post_kernel_size == 1 else OUTER_REACH * self.post_kernel_size
        needed = 16 * max(inner, outer)
        if x.shape[1] < needed:
            raise SettingsError(
                f"kernel_size={self.kernel_size}, post_kernel_size={self.post_kernel_size}: "
                f"filters that long need {needed} samples and there are {x.shape[1]}; "
                "ask for fewer taps"
            )
        if inner or outer:
            return Plan(inner, outer, 40, 1e-4, 80, 300)
        return Plan(0, 0, 24, 1e-2, 60, 0)

    def _choose(
        self, data: Data, plan: Plan, rng: np.random.Generator
    ) -> tuple[str, SlopeFamily, Parameters, dict[str, float]]:
        """Fit the candidates on a part of the samples, choose on the rest, refit on all."""
        thin = _thinned if plan.is_instantaneous else _whole
        if plan.is_instantaneous:
            data = _telling_labels(data, rng)
        held = split(data)
        train = thin(data.without(held))
        fits = candidates(train, plan, self.curves, rng)
        name, scores = choose(
            data, held, {k: parameters.chain(family) for k, (family, parameters) in fits.items()}
        )
        family, parameters = fits[name]
        if name != "none" and plan.outer_half:
            family, parameters = with_outer(train, plan, family, parameters, rng)
        if name != "none" or not plan.is_instantaneous:
            parameters = climb(thin(data), family, parameters, plan, plan.max_iter // 2, rng)
        return name, family, parameters, scores

    def _normalise(self, x: Array, u: Auxiliary, rng: np.random.Generator) -> None:
        """Fix what the likelihood leaves open.

        A quiet signal passes the curves unchanged; sources have unit variance, are
        ordered by power and have positive largest loadings.
        """
        chain = self.chain
        if not chain.curves.is_identity:
            self.chain = chain = unit_slope(chain, chain.before_curves(x[:, u.used]))
        if chain.inner.shape[2] == 1:
            y = chain.curves.forward(chain.before_curves(x))[0]
            # curves were found by variances that change with u, and so is their matrix
            starts = tuple(STARTS) if self.curve == "none" else ("segments",)
            linear = LinearModel(len(x), starts=starts, shapes=self.shapes).fit(y, u, rng)
            inner = linear.unmixing[:, :, None]
            self.chain = replace(chain, offset=-linear.mean, inner=inner)
            return
        z = chain.forward(x)[0][:, u.used]
        inner = chain.inner / z.std(axis=1)[:, None, None]
        mixing = impulse_response(inner)
        order = np.argsort(-np.square(mixing).sum(axis=(0, 2)), kind="stable")
        by_source = mixing.transpose(1, 0, 2).reshape(len(x), -1)
        peak = by_source[np.arange(len(x)), np.abs(by_source).argmax(axis=1)]
        inner = inner * np.where(peak < 0, -1.0, 1.0)[:, None, None]
        self.chain = replace(chain, inner=inner[order])

    def warm(self, x: Array, u: Auxiliary, rng: np.random.Generator) -> Self:
        """Return a model with these curves and filters, and another matrix behind them."""
        other, chain = copy.copy(self), self.chain
        offset = chain.offset - chain.undistort(x)[0][:, u.used].mean(axis=1)
        chain = replace(chain, offset=offset)
        turn = turned(chain.forward(x)[0], u, rng, "segments")
        other.chain = replace(chain, inner=np.tensordot(turn, chain.inner, 1))
        other.prior = self.fit_prior(other.encode(x)[0], u)
        return other

    @property
    def matrices(self) -> tuple[Array, Array] | None:
        """Unmixing and mixing matrix, where neither a curve nor a filter was kept."""
        chain = self.chain
        if not chain.curves.is_identity or chain.outer is not None or chain.inner.shape[2] > 1:
            return None
        unmixing = chain.inner[:, :, 0]
        return unmixing, np.linalg.inv(unmixing).astype(np.float64)

    @property
    def memory(self) -> int:
        """Samples that the map reaches over: filters, and an inverse until it has died away."""
        return self.chain.memory

    def encode(self, x: Array) -> tuple[Array, Array]:
        """Sources, and log |det J| shared out to the samples, shape (n_times,)."""
        return self.chain.forward(x)

    def decode(self, z: Array, u: Auxiliary | None = None) -> Array:
        """Mix and distort sources: the exact inverse of `encode`."""
        return self.chain.inverse(z)

    def mixture(self, x: Array) -> Array:
        """The mixture before the distortion, less its mean: what the images add up to."""
        return self.chain.undistort(x)[0]

    def image(self, x: Array, component: int, u: Auxiliary | None = None) -> Array:
        """One source as the channels would hear it *without* the distortion.

        A distorted mixture is no sum of its sources' images. These are in the domain of
        `mixture`, whose slope is 1 for quiet signals, and add up to it.
        """
        z = convolve(self.chain.inner, self.mixture(x))
        alone = np.zeros_like(z)
        alone[component] = z[component]
        return deconvolve(self.chain.inner, alone)

    def state(self) -> State:
        """Everything needed to rebuild the model."""
        tensors: dict[str, Any] = {
            "curves.knots": self.chain.curves.knots,
            "curves.log_slopes": self.chain.curves.log_slopes,
            "offset": self.chain.offset,
            "inner": self.chain.inner,
            "prior.mean": self.prior.mean,
            "prior.scale": self.prior.scale,
            "prior.shape": self.prior.shape,
        }
        if self.chain.outer is not None:
            tensors["outer"] = self.chain.outer
        facts = {
            "kernel_size": self.kernel_size,
            "post_kernel_size": self.post_kernel_size,
            "curves": list(self.curves),
            "shapes": list(self.shapes),
            "curve": self.curve,
            "scores": self.scores,
        }
        return State(tensors, facts)

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Rebuild a model from `state`."""
        tensors, facts = state.tensors, state.facts
        model = cls(
            len(tensors["offset"]),
            kernel_size=facts["kernel_size"],
            post_kernel_size=facts["post_kernel_size"],
            curves=tuple(facts["curves"]),
            shapes=tuple(facts["shapes"]),
        )
        curves = Curves(tensors["curves.knots"], tensors["curves.log_slopes"])
        model.chain = Chain(tensors.get("outer"), curves, tensors["offset"], tensors["inner"])
        model.prior = LabelPrior(
            tensors["prior.mean"], tensors["prior.scale"], tensors["prior.shape"]
        )
        model.curve, model.scores = facts["curve"], facts["scores"]
        return model


def _telling_labels(data: Data, rng: np.random.Generator) -> Data:
    """Up to `MOST_LABELS` labels, half the loudest and half random.

    The loud ones reach the ends of the curves.
    """
    used = data.labels >= 0
    counts = np.bincount(data.labels[used], minlength=data.n_labels)
    energy = np.bincount(data.labels[used], np.square(data.x[:, used]).sum(axis=0), data.n_labels)
    power = energy / np.maximum(counts, 1)
    audible = np.flatnonzero(power > QUIETEST * energy.sum() / used.sum())
    if len(audible) > MOST_LABELS:
        loudest = audible[np.argsort(-power[audible], kind="stable")]
        half = MOST_LABELS // 2
        audible = np.concatenate([loudest[:half], rng.permutation(loudest[half:])[:half]])
    number = np.full(data.n_labels, -1)
    number[np.sort(audible)] = np.arange(len(audible))
    labels = np.where(used, number[data.labels], -1)
    return data.take(np.flatnonzero(labels >= 0), labels)


def _thinned(data: Data) -> Data:
    """Every so many-th of the samples to be fitted on, `MOST_SAMPLES` or a few more."""
    keep = np.flatnonzero(data.labels >= 0)
    return data.take(keep[:: max(1, len(keep) // MOST_SAMPLES)], data.labels)


def _whole(data: Data) -> Data:
    """Return all samples: filters need them in order."""
    return data


def _middle(data: Data) -> Data:
    """The middle of the record, whole unless it is long."""
    spare = max(0, len(data.labels) - LONGEST_EXCERPT)
    part = slice(spare // 2, len(data.labels) - (spare - spare // 2))
    return data.take(part, data.labels)
