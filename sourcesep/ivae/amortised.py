"""Family ``amortised``: encoder and decoder networks with noise in every channel.

The iVAE as it was published (Khemakhem et al. 2020): p(x|z) a decoder network with noise,
q(z|x,u) an encoder network. What makes it work is a posterior with a full covariance, a
start by a simpler model, importance-weighted training, and importance-weighted answers.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.ivae.amortised_maps import (
    NO_HISTORY,
    Candidate,
    MatrixMap,
    NetworkMap,
    map_from_state,
)
from sourcesep.ivae.contrast import heldout_log_likelihood, innovations
from sourcesep.ivae.latent_start import MARGIN, LatentStart
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.linear_gaussian import LinearGaussian, impute
from sourcesep.ivae.model import ELBO, Array, Model, Posterior, Settings, State
from sourcesep.ivae.prior_network import NetworkPrior
from sourcesep.ivae.prior_tables import (
    GAUSSIAN,
    encoded_prior,
    gaussian_prior,
    label_table,
    pooled,
    prior_from,
    prior_tensors,
    rearranged,
    table_for,
)
from sourcesep.ivae.priors import LabelPrior
from sourcesep.ivae.starts import STARTS
from sourcesep.ivae.training import History, require_torch, resolve_device

__all__ = ["AmortisedModel"]

CANDIDATES = ("linear", "networks")
STEPS = {"fast": 800, "normal": 2400, "best": 6000}
"""Minibatches of the networks by quality; a flow at the start takes half as many."""
KERNEL = 9
"""Samples that the networks see where u is time and nothing else is asked for."""
ORDER_SAMPLES = 5000
"""Scale and explained power are measured on this many samples."""
PRIOR_ROUNDS = 10
"""Of encoding and of fitting the prior to what is encoded."""
ARRAYS = ("centre", "width", "order", "offset", "gain")
"""The model's own tensors."""


class AmortisedModel(Model):
    """x = f(z) + noise, the posterior of z by an encoder: q(z|x,u).

    A linear decoder, whose posterior is exact, is the first candidate, and stays the
    answer unless networks explain held-out samples better by a margin. With one sample
    in sight (``kernel_size=1``) `posterior` weighs draws from q by how well they explain
    x, and `log_density` is the bound of these weights; with more it is q's own mean, and
    the ELBO. Entries of x that are NaN count as missing, in the fit and after.

    Parameters
    ----------
    n_components : int, optional
        Number of sources; the numerical rank of x by default.
    kernel_size : int, optional
        Samples that encoder and decoder see, an odd number. By default 9 where u is time
        and 1 elsewhere.
    condition_decoder : bool
        Whether the decoder sees u, by way of the prior's moments: p(x|z,u).
    n_restarts : int
        Networks trained side by side; the one with the best held-out bound is kept.
    quality : {"fast", "normal", "best"}
        How long to train.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``; for training.
    candidates : tuple of str
        Which of ``"linear"`` and ``"networks"`` are tried.
    starts : tuple of str
        Of the linear candidate.
    standardise_channels : bool
        Whether channels of different units count alike.

    Attributes
    ----------
    candidate : str
        Which candidate was kept.
    map : MatrixMap or NetworkMap
        Decoder and encoder of standardised x.
    prior : LabelPrior or NetworkPrior
        p(z|u): a row a label, or a network where u has covariates.
    """

    family: ClassVar[str] = "amortised"
    representation: ClassVar[Literal["time", "stft"]] = "time"
    is_linear: ClassVar[bool] = False
    is_invertible: ClassVar[bool] = False
    is_calibrated: ClassVar[bool] = False
    accepts_missing: ClassVar[bool] = True
    n_splits: ClassVar[int] = 1

    candidate: str
    scores: dict[str, float]
    map: MatrixMap | NetworkMap
    prior: LabelPrior | NetworkPrior
    history_: History
    with_mean: bool
    centre: Array  # (n_channels,)
    width: Array  # (n_channels,)
    # from the map's z to the model's: (z[order] - offset) / gain
    order: NDArray[np.int64]
    offset: Array
    gain: Array

    def __init__(
        self,
        n_components: int | None = None,
        *,
        kernel_size: int | None = None,
        condition_decoder: bool = False,
        n_restarts: int = 1,
        quality: str = "normal",
        device: str = "auto",
        candidates: tuple[str, ...] = CANDIDATES,
        starts: tuple[str, ...] = tuple(STARTS),
        standardise_channels: bool = False,
    ) -> None:
        if kernel_size is not None and (kernel_size < 1 or kernel_size % 2 == 0):
            raise SettingsError(
                f"kernel_size={kernel_size}: must be odd for mixing='amortised', so that a sample "
                "has as many neighbours before as after; try 1 or 9"
            )
        if not candidates or any(c not in CANDIDATES for c in candidates):
            raise SettingsError(f"candidates={candidates}: allowed are {', '.join(CANDIDATES)}")
        self.requested = n_components
        self.kernel_size = kernel_size
        self.condition_decoder = condition_decoder
        self.n_restarts = n_restarts
        self.quality = quality
        self.device = device
        self.candidates = tuple(candidates)
        self.starts = tuple(starts)
        self.standardise_channels = standardise_channels

    @classmethod
    def configured(cls, settings: Settings) -> Self:
        """Return an unfitted model with these settings."""
        return cls(
            settings.n_components,
            kernel_size=settings.kernel_size,
            condition_decoder=settings.condition_decoder,
            n_restarts=settings.n_restarts,
            quality=settings.quality,
            device=settings.device,
            starts=settings.starts,
            standardise_channels=settings.standardise,
        )

    def _settings(self) -> dict[str, Any]:
        return {
            "n_components": self.n_components,
            "kernel_size": self.kernel_size,
            "condition_decoder": self.condition_decoder,
            "n_restarts": self.n_restarts,
            "quality": self.quality,
            "candidates": self.candidates,
            "starts": self.starts,
            "standardise_channels": self.standardise_channels,
        }

    def blank(self) -> Self:
        """Return an unfitted model with this one's choices made, and one restart."""
        made = {"candidates": (self.candidate,), "n_restarts": 1}
        return type(self)(**self._settings() | made, device=self.device)

    @property
    def n_components(self) -> int:
        """Number of sources."""
        return len(self.order)

    @property
    def n_channels(self) -> int:
        """Number of channels of x."""
        return len(self.centre)

    @property
    def is_bound(self) -> bool:
        """Whether `log_density` is a lower bound: exact for the linear candidate only."""
        return isinstance(self.map, NetworkMap)

    @property
    def choice(self) -> str:  # type: ignore[override]
        """Which candidate was kept, and from what start, in plain words."""
        if isinstance(self.map, MatrixMap):
            return "a linear decoder"
        start = "a matrix" if self.map.start.flow is None else "a flow"
        return f"networks of {self.map.net.architecture.kernel_size} samples, started by {start}"

    @property
    def history(self) -> dict[str, list[float]]:
        """Both terms of the bound along the training, nats a sample; none for a matrix."""
        return {
            "reconstruction": self.history_.reconstruction[:, 0].tolist(),
            "kl": self.history_.kl[:, 0].tolist(),
        }

    @property
    def noise(self) -> Array:
        """Standard deviation of the noise in every channel, in units of x, (n_channels,)."""
        deviation: Array = np.sqrt(self.map.noise) * self.width
        return deviation

    def fit(self, x: Array, u: Auxiliary, rng: np.random.Generator) -> Self:
        """Fit decoder, encoder, noise and prior to x given u.

        Parameters
        ----------
        x : ndarray of shape (n_channels, n_times)
            Observations; NaN where missing. In order, if the networks see neighbours.
        u : Auxiliary
            Labels of the samples; those left out are not fitted on. Where it has
            covariates the prior is a network of them, and of nothing else.
        rng : numpy.random.Generator
            For every random choice: the same state gives the same fit, bit for bit, on
            one machine.

        Raises
        ------
        InputError
            If x is infinite somewhere, or a channel has no value at all.
        SettingsError
            If more components are asked for than the rank of x.
        MissingDependencyError
            If torch cannot be imported.
        """
        require_torch()
        from sourcesep.ivae.amortised_fit import fit_networks
        from sourcesep.ivae.likelihood import hold_out

        if not u.used.all():
            x, u = x[:, u.used], u.take(u.used)
        _check_values(x)
        self.with_mean = not u.is_time
        self.kernel_size = self.kernel_size or (KERNEL if u.is_time else 1)
        self.centre = np.nanmean(x, axis=1)
        deviation = np.nanstd(x, axis=1)
        self.width = np.where(deviation > 0, deviation, 1.0)
        x = self._standardised(x)
        held = hold_out(u)
        kept = self._fit_matrix(x, u, ~held, rng)
        self.scores = {}
        if "linear" in self.candidates:
            self.scores["linear"] = self._score(kept, x, u, held)
        if "networks" in self.candidates:
            networks = fit_networks(
                kept.map.start,
                x,
                u,
                held,
                rng,
                kernel_size=self.kernel_size,
                condition_decoder=self.condition_decoder,
                n_restarts=self.n_restarts,
                n_steps=STEPS[self.quality],
                device=resolve_device(self.device),
            )
            self.scores["networks"] = self._score(networks, x, u, held)
            if self.scores["networks"] > self.scores.get("linear", -np.inf) + MARGIN:
                kept = networks
        if isinstance(kept.map, MatrixMap):
            kept = self._fit_matrix(x, u, np.ones(u.n_times, bool), rng)
        self.candidate = "linear" if isinstance(kept.map, MatrixMap) else "networks"
        self.map, self.history_ = kept.map, kept.history
        self._arrange(kept.prior, x, u)
        return self

    def _fit_matrix(
        self, x: Array, u: Auxiliary, free: NDArray[np.bool_], rng: np.random.Generator
    ) -> Candidate:
        """Fit the linear candidate to some of the samples of standardised x."""
        filled, part = impute(x)[:, free], u.take(free)
        # which directions are kept, and the order, go by the channels' own power
        linear = LinearModel(
            self.requested, starts=self.starts, standardise_channels=self.standardise_channels
        ).fit(filled * self.width[:, None], part, rng)
        mixing = linear.mixing / self.width[:, None]
        counts = np.bincount(part.labels, minlength=u.n_labels)
        gaussian, mean, variance = LinearGaussian.fit(
            filled, mixing, part.labels, u.n_labels, with_mean=self.with_mean
        )
        prior: LabelPrior | NetworkPrior = gaussian_prior(mean, variance)
        start = LatentStart(gaussian, pooled(mean, variance, counts))
        if u.covariates is not None:
            prior = NetworkPrior.fit(start(x[:, free]), part, rng, shapes=GAUSSIAN)
        return Candidate(MatrixMap(start), prior, NO_HISTORY)

    def _score(
        self, candidate: Candidate, x: Array, u: Auxiliary, held: NDArray[np.bool_]
    ) -> float:
        """Log density of held-out samples, nats a sample of standardised x.

        Networks that see neighbours know the sources' spectra, so a matrix is then given
        what its sources' own past tells of them.
        """
        prior, rows = table_for(candidate.prior, u)
        density = candidate.map.log_density(x, prior, rows)[held].mean()
        if isinstance(candidate.map, MatrixMap) and self.kernel_size != 1:
            z = candidate.map.start.by_matrix(x)
            past, white = (
                heldout_log_likelihood(
                    v, u.labels, u.n_labels, held, with_mean=self.with_mean, shapes=GAUSSIAN
                )
                for v in (innovations(z), z)
            )
            density += (past - white).sum(axis=0).mean()
        return float(density)

    def _arrange(self, prior: LabelPrior | NetworkPrior, x: Array, u: Auxiliary) -> None:
        """Give the components their scale, sign and order, by a part of the samples."""
        some = slice(0, ORDER_SAMPLES)
        if self.kernel_size == 1:
            some = slice(None, None, max(1, u.n_times // ORDER_SAMPLES))
        table, rows = table_for(prior, u.take(some))
        z = self.map.infer(x[:, some], table, rows)[0]
        images = np.stack([self._image(z, k, table, rows) for k in range(len(z))])
        images *= self.width[:, None] ** (not self.standardise_channels)
        power = np.square(images - images.mean(axis=2, keepdims=True)).sum(axis=(1, 2))
        loading = np.einsum("kt,kct->kc", z - z.mean(axis=1, keepdims=True), images)
        peak = loading[np.arange(len(z)), np.abs(loading).argmax(axis=1)]
        self.order = np.argsort(-power, kind="stable")
        self.gain = (z.std(axis=1) * np.where(peak < 0, -1.0, 1.0))[self.order]
        self.offset = (z.mean(axis=1) * self.with_mean)[self.order]
        self.prior = rearranged(prior, self.order, self.offset, self.gain)

    def _standardised(self, x: Array) -> Array:
        standard: Array = (x - self.centre[:, None]) / self.width[:, None]
        return standard

    def _table(self, u: Auxiliary | None) -> tuple[LabelPrior, NDArray[np.int64]]:
        """The prior of the map's z as a table, and every sample's row in it."""
        if u is None:
            raise InputError(
                "u=None: mixing='amortised' needs u, which its encoder sees beside x; give the "
                "labels or covariates of these samples"
            )
        back = np.argsort(self.order)
        offset, gain = -self.offset / self.gain, 1 / self.gain
        return table_for(rearranged(self.prior, back, offset[back], gain[back]), u)

    def posterior(self, x: Array, u: Auxiliary | None = None) -> Posterior:
        """q(z|x,u): mean and standard deviation, importance-weighted where possible.

        Raises
        ------
        InputError
            Without u.
        """
        mean, scale = self.map.infer(self._standardised(x), *self._table(u))
        mean = (mean[self.order] - self.offset[:, None]) / self.gain[:, None]
        return Posterior(mean, scale[self.order] / np.abs(self.gain)[:, None])

    def decode(self, z: Array, u: Auxiliary | None = None) -> Array:
        """The mean of p(x|z,u), (n_channels, n_times); u counts if the decoder sees it."""
        inside = np.empty_like(z)
        inside[self.order] = z * self.gain[:, None] + self.offset[:, None]
        if u is None and not self.condition_decoder:
            x = self.map.decode(inside, label_table(self.prior), np.zeros(z.shape[1], np.int64))
        else:
            x = self.map.decode(inside, *self._table(u))
        return x * self.width[:, None] + self.centre[:, None]

    def elbo(self, x: Array, u: Auxiliary) -> ELBO:
        """Both terms of the ELBO of q(z|x,u) as the encoder has it."""
        terms = self.map.elbo(self._standardised(x), *self._table(u))
        return ELBO(terms.reconstruction + self._volume(x), terms.kl)

    def log_density(self, x: Array, u: Auxiliary) -> Array:
        """A bound on log p(x|u) of the entries that are not missing, nats a sample."""
        density = self.map.log_density(self._standardised(x), *self._table(u))
        return density + self._volume(x)

    def _volume(self, x: Array) -> Array:
        """Log density of x less that of standardised x, (n_times,)."""
        volume: Array = -np.log(self.width) @ np.isfinite(x)
        return volume

    def sample(self, u: Auxiliary, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw z from p(z|u) and x from p(x|z,u)."""
        prior, rows = table_for(self.prior, u)
        z = prior.sample(rows, rng)
        x = self.decode(z, u)
        return z, x + self.noise[:, None] * rng.standard_normal(x.shape)

    def prior_moments(self) -> tuple[Array, Array]:
        """Mean and variance of each component given each label, (n_labels, n_components)."""
        table = label_table(self.prior)
        return table.mean, table.variance

    def refit_prior(self, x: Array, u: Auxiliary) -> Self:
        """Return a model with this map and the prior, a row a label, that fits x best.

        By turns of encoding x and of fitting the prior to what is encoded.
        """
        if not u.used.all():
            x, u = x[:, u.used], u.take(u.used)
        x = self._standardised(x)
        z = self.map.start(x)
        scale = np.zeros_like(z)
        for _ in range(PRIOR_ROUNDS):
            prior = encoded_prior(z, scale, u, with_mean=self.with_mean)
            z, scale = self.map.encode(x, prior, u.labels)
        other = copy.copy(self)
        other.prior = rearranged(prior, self.order, self.offset, self.gain)
        return other

    def image(self, x: Array, component: int, u: Auxiliary | None = None) -> Array:
        """One source as the channels hear it, by the encoder's mean.

        What the decoder makes of this source alone, the others at 0, less what it makes
        of silence. Images of networks needn't add up to x; the residual has the rest.
        """
        prior, rows = self._table(u)
        z = self.map.encode(self._standardised(x), prior, rows)[0]
        image = self._image(z, int(self.order[component]), prior, rows)
        return image * self.width[:, None]

    def _image(self, z: Array, k: int, prior: LabelPrior, rows: NDArray[np.int64]) -> Array:
        alone = np.zeros_like(z)
        silence = self.map.decode(alone, prior, rows)
        alone[k] = z[k]
        return self.map.decode(alone, prior, rows) - silence

    def state(self) -> State:
        """Everything needed to rebuild the model."""
        state = self.map.state()
        tensors: dict[str, NDArray[Any]] = {f"map.{k}": v for k, v in state.tensors.items()}
        tensors |= {name: getattr(self, name) for name in ARRAYS}
        tensors |= {f"prior.{name}": value for name, value in prior_tensors(self.prior).items()}
        history = dataclasses.asdict(self.history_)
        tensors |= {f"history.{name}": value for name, value in history.items()}
        facts = {
            "settings": self._settings(),
            "map": state.facts,
            "candidate": self.candidate,
            "scores": self.scores,
            "with_mean": self.with_mean,
        }
        return State(tensors, facts)

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Rebuild a model from `state`."""
        require_torch()

        def group(prefix: str) -> dict[str, NDArray[Any]]:
            names = [k for k in state.tensors if k.startswith(prefix)]
            return {k.removeprefix(prefix): state.tensors[k] for k in names}

        facts = state.facts
        settings = facts["settings"]
        settings |= {name: tuple(settings[name]) for name in ("candidates", "starts")}
        model = cls(**settings)
        for name in ARRAYS:
            setattr(model, name, state.tensors[name])
        model.map = map_from_state(State(group("map."), facts["map"]))
        model.prior = prior_from(group("prior."))
        model.history_ = History(**group("history."))
        model.candidate, model.scores = facts["candidate"], facts["scores"]
        model.with_mean = facts["with_mean"]
        return model


def _check_values(x: Array) -> None:
    """Refuse what is neither a number nor missing, and channels without a value."""
    if np.isinf(x).any():
        raise InputError(
            f"x holds {np.count_nonzero(np.isinf(x))} infinite values; make them NaN, which "
            "counts as missing, or remove them"
        )
    empty = np.flatnonzero(np.isnan(x).all(axis=1))
    if empty.size:
        raise InputError(f"channel {empty[0]} has no value at all; leave it out")
