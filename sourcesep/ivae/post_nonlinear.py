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
from sourcesep.exceptions import SettingsError
from sourcesep.ivae.chains.chain import Chain, Parameters, in_units, ordered, unit_slope
from sourcesep.ivae.chains.curve_samples import (
    Data,
    Labels,
    loudest_and_others,
    middle,
    split,
    telling_labels,
    thinned,
)
from sourcesep.ivae.chains.curves import SlopeFamily
from sourcesep.ivae.chains.filters import convolve
from sourcesep.ivae.chains.noisy_curves import NoisyCurves
from sourcesep.ivae.chains.smoother import Smoother, find_noise
from sourcesep.ivae.chains.undistortion import (
    CURVES,
    Plan,
    candidates,
    choose,
    climb,
    plan_for,
    with_outer,
)
from sourcesep.ivae.invertible import InvertibleModel
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.matrices.starts import STARTS, turned
from sourcesep.ivae.model import ELBO, Array, Posterior, State, under
from sourcesep.ivae.priors import SHAPES, LabelPrior, exponents
from sourcesep.ivae.settings import Settings

__all__ = ["PostNonlinearModel"]


class PostNonlinearModel(InvertibleModel):
    """x = outer^-1 * g(A * (z + sigma e)) + noise: filters, a curve per channel, filters.

    Identifiable up to the order, sign and scale of the sources with ``kernel_size=1``
    (Taleb & Jutten 1999, with nonstationarity in place of non-Gaussianity), and up to
    one filter a source with more taps: the prior takes sources as white within a label.

    With one tap a linear fit is the first candidate and stays the answer, exactly, unless
    curves win on held-out samples by a margin. So it is with more taps and a linear
    filter.

    Noise in x is looked for where there are filters and then curves, and nothing behind
    them: with one tap no other sample helps to denoise one, without curves noise is not
    told from sources as many as channels, and behind a second filter it would have to be
    white after the inverse of that. Where it is found, `posterior` given u is the
    smoother's (`Smoother`), with Gaussian sources; without u, and wherever none is found,
    it is the inverse of the map. The density is then Laplace's approximation.

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
    noise : bool, optional
        Whether there is noise in x, where it can be looked for; as held-out evidence says
        by default.

    Attributes
    ----------
    chain : Chain
        The encoder: x to sources of unit variance over the samples of the fit.
    smoother : Smoother or None
        The decoder and the noise in its output, if there is any.
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
    falls_back: ClassVar[bool] = True
    goes_on: ClassVar[bool] = True
    mends: ClassVar[tuple[str, ...]] = ("power",)

    chain: Chain
    smoother: Smoother | None = None
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
        noise: bool | None = None,
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
        self.noise = noise

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
        has_memory = max(self.kernel_size, self.post_kernel_size) > 1
        noise = ["noise"] * (self.smoother is not None)
        return " and ".join(["filters"] * has_memory + [curve] + noise)

    @property
    def is_invertible(self) -> bool:  # type: ignore[override]
        """Whether x tells the sources exactly: not if there is noise in it."""
        return self.smoother is None

    @property
    def is_bound(self) -> bool:
        """Whether `log_density` is not exact: a shape is not Gaussian, or there is noise."""
        return self.smoother is not None or super().is_bound

    @property
    def findings(self) -> dict[str, Any]:
        """The noise's standard deviation in each channel, if there is any."""
        if self.smoother is None:
            return {}
        return {"noise": [float(f"{s:.4g}") for s in np.sqrt(self.smoother.noise)]}

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
            noise=self.smoother is not None,
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
            If other than one source a channel is asked for, or filters too long for the record.
        """
        sizes = self.kernel_size, self.post_kernel_size
        plan = plan_for(x[:, u.used], x.shape[1], self.requested, *sizes)
        # the likelihood's constants are for a peak of 1; curves do not care
        peak = np.abs(x[:, u.used]).max(axis=1)
        data = Data(x / peak[:, None], np.where(u.used, u.labels, -1), not u.is_time)
        self.curve, family, parameters, noisy = self._choose(data, plan, rng)
        self.chain = in_units(parameters.chain(family), peak)
        self._normalise(x, u, rng)
        if noisy is None:
            self.smoother = None
            self.prior = self.fit_prior(self.encode(x)[0], u)
        else:
            smoother = Smoother.of(noisy.in_units(peak), self.chain, x[:, u.used])
            self.smoother, self.prior = smoother.adapted(x, u)
        return self

    def _choose(
        self, data: Data, plan: Plan, rng: np.random.Generator
    ) -> tuple[str, SlopeFamily, Parameters, NoisyCurves | None]:
        """Fit the candidates on a part of the samples, choose on the rest, refit on all."""
        data = telling_labels(data, rng) if plan.is_instantaneous else middle(data)
        held = split(data)
        train = data.without(held)
        if plan.is_instantaneous:
            held[data.at_ends] = False
            train = thinned(data.without(held))
        fits = candidates(train, plan, self.curves, rng)
        name, self.scores = choose(
            data, held, {k: parameters.chain(family) for k, (family, parameters) in fits.items()}
        )
        family, parameters = fits[name]
        noisy = None
        if name != "none" and plan.outer_half:
            family, parameters = with_outer(train, plan, family, parameters, rng)
        elif name != "none" and plan.inner_half and self.noise is not False:
            noisy, evidence = find_noise(data, held, parameters.chain(family), self.noise)
            self.scores |= evidence
        if name != "none" or not plan.is_instantaneous:
            data = thinned(data) if plan.is_instantaneous else data
            parameters = climb(data, family, parameters, plan, plan.max_iter // 2, rng)
        return name, family, parameters, noisy

    def telling(self, x: Array, u: Auxiliary, rng: np.random.Generator) -> Labels | None:
        """The labels that a curve is looked for in: where most is quiet, few are bent."""
        if self.memory > 1:
            return None
        kept = loudest_and_others(Data(x, u.labels, not u.is_time), rng)
        return np.flatnonzero(np.isin(u.labels, kept))

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
        self.chain = ordered(chain, chain.forward(x)[0][:, u.used])

    def warm(self, x: Array, u: Auxiliary, rng: np.random.Generator) -> Self:
        """Return a model with these curves and filters, and another matrix behind them."""
        other, chain = copy.copy(self), self.chain
        offset = chain.offset - chain.undistort(x)[0][:, u.used].mean(axis=1)
        chain = replace(chain, offset=offset)
        if self.smoother is None:
            turn = turned(chain.forward(x)[0], u, rng, "segments")
        else:
            turn, other.smoother, other.prior = self.smoother.moved(x, u, rng)
        other.chain = replace(chain, inner=np.tensordot(turn, chain.inner, 1))
        if self.smoother is None:
            other.prior = self.fit_prior(other.encode(x)[0], u)
        return other

    def refit_prior(self, x: Array, u: Auxiliary) -> Self:
        """Return a model with this map, this noise and the prior that fits x given u best."""
        other = super().refit_prior(x, u)
        if self.smoother is not None:
            other.prior = self.smoother.prior_for(x, u)
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

    def posterior(self, x: Array, u: Auxiliary | None = None) -> Posterior:
        """q(z|x,u); without u, as for a flat prior."""
        if self.smoother is None:
            return super().posterior(x, u)
        if u is None:
            return self.smoother.without_prior(x, self.chain)
        return self.smoother.posterior(x, self.prior, u.labels)

    def elbo(self, x: Array, u: Auxiliary) -> ELBO:
        """Both terms for every sample; their difference is exact, or Laplace's approximation."""
        if self.smoother is None:
            return super().elbo(x, u)
        return self.smoother.elbo(x, self.prior, u.labels)

    def sample(self, u: Auxiliary, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw z from p(z|u) and x from p(x|z)."""
        if self.smoother is None:
            return super().sample(u, rng)
        z = self.prior.sample(u.labels, rng)
        x = self.decode(z)
        return z, x + np.sqrt(self.smoother.noise)[:, None] * rng.standard_normal(x.shape)

    def decode(self, z: Array, u: Auxiliary | None = None) -> Array:
        """Mix and distort sources: the exact inverse of `encode` if there is no noise."""
        return (self.smoother or self).chain.inverse(z)

    def mixture(self, x: Array) -> Array:
        """The mixture before the distortion, less its mean; x as it is, if none was found."""
        is_bent = not self.chain.curves.is_identity or self.chain.outer is not None
        return self.chain.undistort(x)[0] if is_bent else x

    def image(self, x: Array, component: int, u: Auxiliary | None = None) -> Array:
        """One source as the channels would hear it *without* the distortion.

        A distorted mixture is no sum of its sources' images. These are in the domain of
        `mixture`, whose slope is 1 for quiet signals, and add up to it, or to what is left
        of it without the noise.
        """
        chain, z = self._sources(x, u)
        return chain.image(z, component)

    def images(self, x: Array, u: Auxiliary | None = None) -> Array:
        """Every source as the channels hear it, (n_components, n_channels, n_times)."""
        chain, z = self._sources(x, u)
        return np.stack([chain.image(z, k) for k in range(self.n_components)])

    def _sources(self, x: Array, u: Auxiliary | None) -> tuple[Chain, Array]:
        """Return the map, and the sources that it finds: the smoother's where there is noise."""
        if self.smoother is None or u is None:
            return self.chain, convolve(self.chain.inner, self.chain.undistort(x)[0])
        return self.smoother.chain, self.smoother.infer(x, self.prior, u.labels)[1].z

    def state(self) -> State:
        """Everything needed to rebuild the model."""
        tensors = self.chain.tensors() | under("prior", self.prior.tensors())
        if self.smoother is not None:
            tensors |= under("smoother", self.smoother.tensors())
        facts = {
            "kernel_size": self.kernel_size,
            "post_kernel_size": self.post_kernel_size,
            "curves": list(self.curves),
            "shapes": list(self.shapes),
            "noise": self.noise,
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
            shapes=exponents(facts["shapes"]),
            noise=facts.get("noise"),
        )
        model.chain = Chain.from_tensors(tensors)
        model.prior = LabelPrior.from_state(state, model.n_components)
        if "smoother.noise" in tensors:
            model.smoother = Smoother.from_tensors(state.part("smoother"))
        model.curve, model.scores = facts["curve"], facts["scores"]
        return model
