"""Family ``linear``: one matrix, fitted in closed form."""

from __future__ import annotations

import copy
from typing import ClassVar, Literal, Self

import numpy as np
from scipy.linalg import qr

from sourcesep.auxiliary import Auxiliary
from sourcesep.exceptions import SettingsError
from sourcesep.ivae.alignment import peak_signs
from sourcesep.ivae.heldout import excerpt
from sourcesep.ivae.invertible import InvertibleModel
from sourcesep.ivae.matrices.comparison import TIE, compare, compare_sound
from sourcesep.ivae.matrices.sound import is_sound
from sourcesep.ivae.matrices.starts import OF_SERIES, OF_SOUND, STARTS, segments_of, turned
from sourcesep.ivae.model import Array, State, under
from sourcesep.ivae.moments import Moments
from sourcesep.ivae.order import is_series
from sourcesep.ivae.priors import SHAPES, LabelPrior, exponents
from sourcesep.ivae.reproducibility import first_steady
from sourcesep.ivae.settings import Settings
from sourcesep.ivae.whitening import Whitening, whiten, whiten_moments

__all__ = ["LinearModel"]

BY_SHAPE = "non-gaussian"
"""The start that goes by the shapes of distributions."""


class LinearModel(InvertibleModel):
    """x = A (z + sigma e) + mean, with A fitted in closed form.

    Parameters
    ----------
    n_components : int, optional
        Number of sources; the numerical rank of x by default. The discarded subspace
        counts as an isotropic Gaussian, so that likelihoods compare across numbers.
    starts : sequence of str
        Which of `STARTS` are tried, in order of preference. The one that is likeliest
        under one common prior, or the first of those that tie with it, is kept and
        fitted on all samples.
    shapes : tuple of float
        Exponents the prior may take (`LabelPrior`); `GAUSSIAN` keeps it so.
    standardise_channels : bool
        Whether channels of different units count alike (tables) or as they are.
    sfreq : float
        Samples a second: starts are compared on as many seconds of sound at any rate.

    Attributes
    ----------
    mean : ndarray of shape (n_channels,)
        The channels' means.
    unmixing : ndarray of shape (n_components, n_channels)
        The encoder: sources of unit variance from x - mean.
    mixing : ndarray of shape (n_channels, n_components)
        The decoder, in units of x per unit of source.
    complement : ndarray of shape (rank - n_components, n_channels)
        From x to the coordinates, of unit variance, that no source is made of.
    remainder : ndarray of shape (n_channels, rank - n_components)
        Back from these coordinates.
    prior : LabelPrior
        p(z|u) on the finest scale of u.
    start : str
        Which start was kept.
    scores : dict of str to float
        How likely every start is, nats a sample (`comparison`); empty if only one is tried.
    """

    family: ClassVar[str] = "linear"
    representation: ClassVar[Literal["time", "stft"]] = "time"
    is_linear: ClassVar[bool] = True
    goes_on: ClassVar[bool] = True
    holds_everywhere: ClassVar[bool] = True

    mean: Array
    unmixing: Array
    mixing: Array
    complement: Array
    remainder: Array
    prior: LabelPrior
    start: str
    scores: dict[str, float]

    def __init__(
        self,
        n_components: int | None = None,
        *,
        starts: tuple[str, ...] = tuple(STARTS),
        shapes: tuple[float, ...] = SHAPES,
        standardise_channels: bool = False,
        sfreq: float = 1.0,
    ) -> None:
        known = tuple(STARTS)
        if not (isinstance(starts, list | tuple) and starts and all(s in known for s in starts)):
            raise SettingsError(f"starts={starts!r}: must be a tuple of {', '.join(known)}")
        self.requested = n_components
        self.starts = tuple(starts)
        self.shapes = tuple(shapes)
        self.standardise_channels = standardise_channels
        self.sfreq = sfreq

    @classmethod
    def configured(cls, settings: Settings) -> Self:
        """Return an unfitted model with these settings."""
        return cls(
            settings.n_components,
            starts=settings.starts,
            shapes=settings.shapes,
            standardise_channels=settings.standardise,
            sfreq=settings.sfreq,
        )

    @property
    def choice(self) -> str:  # type: ignore[override]
        """Which start was kept, in plain words."""
        chosen = f"found from {self.start}"
        if len(self.scores) < 2:
            return chosen
        likeliest = max(self.scores, key=self.scores.__getitem__)
        if self.scores[self.start] < self.scores[likeliest] - TIE:
            return f"{chosen}, which holds where the likeliest start, {likeliest}, does not"
        tied = "" if self.start == likeliest else f", tied with {likeliest}"
        return f"{chosen}: the best likelihood of {len(self.scores)} starts{tied}"

    @property
    def n_components(self) -> int:
        """Number of sources."""
        return len(self.unmixing)

    @property
    def n_channels(self) -> int:
        """Number of channels of x."""
        return len(self.mean)

    @property
    def rank(self) -> int:
        """Numerical rank of the data of the fit."""
        return self.n_components + len(self.complement)

    def blank(self) -> Self:
        """Return an unfitted model with this one's choices made: same start, same number."""
        return type(self)(
            self.n_components,
            starts=(self.start,),
            shapes=self.shapes,
            standardise_channels=self.standardise_channels,
            sfreq=self.sfreq,
        )

    def fit(self, x: Array, u: Auxiliary, rng: np.random.Generator) -> Self:
        """Fit mixing matrix and prior to x given u.

        Parameters
        ----------
        x : ndarray of shape (n_channels, n_times)
            Observations.
        u : Auxiliary
            Labels of the samples; those left out are not fitted on.
        rng : numpy.random.Generator
            For Picard, the only start that draws numbers.

        Raises
        ------
        SettingsError
            If more components are asked for than the rank of x.
        """
        x, u = u.in_use(x)
        white = whiten(x, self.requested, standardise_channels=self.standardise_channels)
        y = white.matrix @ (x - white.mean[:, None])
        starts, series = self.starts, is_series(x, u)
        unfit = (() if series else OF_SERIES) + (() if is_sound(u, self.sfreq) else OF_SOUND)
        starts = tuple(s for s in starts if s not in unfit) or starts
        self.scores = self._compare(y, u, rng, starts, series=series) if len(y) > 1 else {}
        enough = max(self.scores.values(), default=0.0) - TIE
        self.start = next((s for s in self.scores if self.scores[s] >= enough), starts[0])
        rotation = STARTS[self.start](y, u, rng, self.sfreq) if len(y) > 1 else np.eye(1)
        self._set_map(white, rotation / np.std(rotation @ y, axis=1, keepdims=True))
        self.prior = self.fit_prior(self._unmix(x), u)
        return self

    def steadier(self, x: Array, u: Auxiliary, rng: np.random.Generator) -> Self | None:
        """Return the fit from the first start whose components halves of the data find again.

        For data that are no mixture by a matrix. The likelihood then goes by the shapes of
        distributions, which a bend alters, and may prefer components that are arbitrary;
        power that changes with u still does so behind a bend. None if no shape was gone by, or
        no other start is steady.
        """
        if self.start != BY_SHAPE or len(self.scores) < 2:
            return None
        x, u = u.in_use(x)
        keep, others = excerpt(u), [name for name in self.scores if name != BY_SHAPE]
        steady = first_steady(self._unmix(x)[:, keep], u.take(keep), others, rng)
        if steady is None:
            return None
        other = copy.copy(self)
        other.starts = (steady,)
        other.fit(x, u, rng)
        other.starts, other.scores = self.starts, self.scores
        return other

    def _set_map(self, white: Whitening, rotation: Array, maps: Array | None = None) -> Array:
        """Set the matrices, sources ordered by strength and signed by their largest loading.

        Strength and sign are those of `maps`, by default the mixing matrix. Returns the rotation
        in that order and with those signs.
        """
        mixing = white.inverse @ np.linalg.inv(rotation)
        maps = mixing if maps is None else maps
        weight = white.scale if self.standardise_channels else np.ones(len(maps))
        explained = np.square(maps / np.where(weight > 0, weight, np.inf)[:, None]).sum(axis=0)
        order = np.argsort(-explained, kind="stable")
        sign = peak_signs(maps.T)
        self.mean = white.mean
        self.unmixing = ((rotation @ white.matrix) * sign[:, None])[order]
        self.mixing = (mixing * sign)[:, order]
        self.complement, self.remainder = white.complement, white.complement_inverse
        return np.asarray((rotation * sign[:, None])[order])

    def pooled(self, moments: Moments) -> Self:
        """Return a model whose matrices are fitted to these moments, if its own are."""
        if self.start != "segments" or self.n_components == 1:
            return self
        other = copy.copy(self)
        white = whiten_moments(
            *moments.overall, self.n_components, standardise_channels=self.standardise_channels
        )
        # covariances of what is whitened: unit variance over all samples is the weighted mean
        rotation = segments_of(moments.seen_by(white.matrix))
        other._set_map(white, rotation / np.linalg.norm(rotation, axis=1, keepdims=True))
        return other

    def warm(self, x: Array, u: Auxiliary, rng: np.random.Generator) -> Self:
        """Return a model whose matrix goes on from this one's, by the same start."""
        x, u = u.in_use(x)
        other = copy.copy(self)
        other.mean = x.mean(axis=1)
        turn = turned(other._unmix(x), u, rng, self.start, self.sfreq)
        other.unmixing = turn @ self.unmixing
        other.mixing = self.mixing @ np.linalg.inv(turn)
        other.prior = self.fit_prior(other._unmix(x), u)
        return other

    def _compare(
        self,
        y: Array,
        u: Auxiliary,
        rng: np.random.Generator,
        starts: tuple[str, ...],
        *,
        series: bool,
    ) -> dict[str, float]:
        """How likely each start is, nats a sample of y."""
        if len(starts) == 1:
            return {}
        if is_sound(u, self.sfreq):
            return compare_sound(y, u, rng, starts, self.sfreq)
        return compare(y, u, rng, starts, series=series, sfreq=self.sfreq)

    @property
    def matrices(self) -> tuple[Array, Array]:
        """Unmixing and mixing matrix."""
        return self.unmixing, self.mixing

    def _unmix(self, x: Array) -> Array:
        return self.unmixing @ x - (self.unmixing @ self.mean)[:, None]

    @property
    def log_volume(self) -> float:
        """Log |det df^-1/dx| within the rank of x, the set-aside coordinates included."""
        both = np.concatenate([self.mixing, self.remainder], axis=1)
        # exact row by row, as singular values are not where channels' units lie far apart
        falling = np.argsort(-np.abs(both).max(axis=1))
        triangle = qr(both[falling], mode="r", pivoting=True)[0]
        return -float(np.log(np.abs(np.diag(triangle))).sum())

    def encode(self, x: Array) -> tuple[Array, Array]:
        """Sources, and the log-density of x less that of the sources, shape (n_times,)."""
        return self._unmix(x), self.log_density_aside(x)

    def log_density_aside(self, x: Array) -> Array:
        """Log-density of what is set aside, and of the change of volume, shape (n_times,)."""
        aside = self.complement @ (x - self.mean[:, None])
        density: Array = self.log_volume - 0.5 * (np.log(2 * np.pi) + aside**2).sum(axis=0)
        return density

    def draw_aside(self, n_times: int, rng: np.random.Generator) -> Array:
        """Draw what is set aside, as it shows in x, shape (n_channels, n_times)."""
        drawn: Array = self.remainder @ rng.standard_normal((len(self.complement), n_times))
        return drawn

    def decode(self, z: Array, u: Auxiliary | None = None) -> Array:
        """Mix sources: A z + mean."""
        x: Array = self.mixing @ z + self.mean[:, None]
        return x

    def sample(self, u: Auxiliary, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw z from p(z|u) and x from p(x|z)."""
        z, x = super().sample(u, rng)
        return z, x + self.draw_aside(z.shape[1], rng)

    def image(self, x: Array, component: int, u: Auxiliary | None = None) -> Array:
        """One source as the channels hear it, shape (n_channels, n_times)."""
        row = self.unmixing[component]
        s = np.full(x.shape[1], -(row @ self.mean))
        for weight, channel in zip(row, x, strict=True):
            s += weight * channel  # BLAS would round by where a sample stands in its block
        image: Array = np.outer(self.mixing[:, component], s)
        return image

    def state(self) -> State:
        """Everything needed to rebuild the model."""
        tensors = {
            "mean": self.mean,
            "unmixing": self.unmixing,
            "mixing": self.mixing,
            "complement": self.complement,
            "remainder": self.remainder,
        }
        facts = {
            "starts": list(self.starts),
            "shapes": list(self.shapes),
            "standardise_channels": self.standardise_channels,
            "sfreq": self.sfreq,
            "start": self.start,
            "scores": self.scores,
        }
        return State(tensors | under("prior", self.prior.tensors()), facts)

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Rebuild a model from `state`."""
        tensors, facts = state.tensors, state.facts
        d, n_channels = tensors["unmixing"].shape
        n_aside = len(tensors["complement"])
        if not d * n_channels:
            raise ValueError(f"{d} components of {n_channels} channels")
        right = {
            "mean": (n_channels,),
            "unmixing": (d, n_channels),
            "mixing": (n_channels, d),
            "complement": (n_aside, n_channels),
            "remainder": (n_channels, n_aside),
        }
        state.check(right)
        model = cls(
            d,
            starts=tuple(facts["starts"]),
            shapes=exponents(facts["shapes"]),
            standardise_channels=facts["standardise_channels"],
            sfreq=facts.get("sfreq", 1.0),
        )
        model.mean = tensors["mean"]
        model.unmixing, model.mixing = tensors["unmixing"], tensors["mixing"]
        model.complement, model.remainder = tensors["complement"], tensors["remainder"]
        model.prior = LabelPrior.from_state(state, d)
        model.start, model.scores = facts["start"], facts["scores"]
        if model.start not in model.starts:
            raise ValueError(f"start={model.start!r} is none of {model.starts}")
        return model
