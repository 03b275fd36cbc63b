"""Family ``amortised``: encoder and decoder networks with noise in every channel.

The iVAE as it was published (Khemakhem et al. 2020): p(x|z) a decoder network with noise,
q(z|x,u) an encoder network. What makes it work: a posterior with a full covariance, a start
by a simpler model, and importance weights.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.ivae.coupling import CouplingModel
from sourcesep.ivae.devices import require_torch, resolve_device
from sourcesep.ivae.frame import Frame
from sourcesep.ivae.matrices.starts import STARTS
from sourcesep.ivae.missing import check_values
from sourcesep.ivae.model import ELBO, Array, Model, Posterior, State, under
from sourcesep.ivae.prior_tables import (
    Prior,
    encoded_prior,
    label_table,
    prior_from,
    prior_tensors,
    table_for,
)
from sourcesep.ivae.priors import LabelPrior
from sourcesep.ivae.ranges import medians_where_wild
from sourcesep.ivae.settings import Settings
from sourcesep.ivae.training import History
from sourcesep.ivae.vae.candidates import fit_matrix
from sourcesep.ivae.vae.latent_start import full_flow, in_units
from sourcesep.ivae.vae.maps import FlowMap, MatrixMap, NetworkMap, map_from_state

__all__ = ["STEPS", "AmortisedModel"]

CANDIDATES = ("linear", "flow", "networks")
STEPS = {"fast": 800, "normal": 2400, "best": 6000}
"""Minibatches of the networks by quality."""
KERNEL = 9
"""Samples that the networks see where u is time and nothing else is asked for."""
SOME_SAMPLES = 5000
"""Scale and explained power are measured on this many samples."""


class AmortisedModel(Model):
    """x = f(z) + noise, the posterior of z by an encoder: q(z|x,u).

    A linear decoder, whose posterior is exact, is the first candidate, and stays the
    answer unless another explains held-out samples better by a margin: the inverse of a
    flow, with noise on it, or networks. With one sample in sight (``kernel_size=1``)
    `posterior` weighs draws from q by how well they explain x, and `log_density` is the
    bound of these weights; with more it is q's own mean, and the ELBO. Entries of x that
    are NaN count as missing, in the fit and after.

    Parameters
    ----------
    n_components : int, optional
        Number of sources; the numerical rank of x by default.
    kernel_size : int, optional
        Samples that encoder and decoder see, odd; by default 9 where u is time, else 1.
    condition_decoder : bool
        Whether the decoder sees u, by way of the prior's moments: p(x|z,u).
    n_restarts : int
        Of the flow that networks may start from; its consensus is the start.
    n_steps : int
        Minibatches that networks are trained on; a flow at the start takes half as many.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``; for training.
    candidates : tuple of str
        Which of ``"linear"``, ``"flow"`` and ``"networks"`` are tried.
    starts : tuple of str
        Of the linear candidate.
    standardise_channels : bool
        Whether channels of different units count alike in the order of the components.

    Attributes
    ----------
    candidate : str
        Which candidate was kept.
    map : MatrixMap, FlowMap or NetworkMap
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
    needs_u: ClassVar[bool] = True
    n_splits: ClassVar[int] = 1
    mends: ClassVar[tuple[str, ...]] = ("fitted noise",)

    flow: CouplingModel | None = None  # fitted to the same data, where one is at hand
    kernel_size: int
    candidate: str
    scores: dict[str, float]
    map: MatrixMap | FlowMap | NetworkMap
    prior: Prior
    history_: History
    with_mean: bool
    centre: Array  # (n_channels,)
    width: Array  # (n_channels,)
    frame: Frame

    def __init__(
        self,
        n_components: int | None = None,
        *,
        kernel_size: int | None = None,
        condition_decoder: bool = False,
        n_restarts: int = 4,
        n_steps: int = STEPS["normal"],
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
        self.requested, self.asked_kernel_size = n_components, kernel_size
        self.condition_decoder = condition_decoder
        self.n_restarts, self.n_steps, self.device = n_restarts, n_steps, device
        self.candidates, self.starts = tuple(candidates), tuple(starts)
        self.standardise_channels = standardise_channels

    @classmethod
    def configured(cls, settings: Settings) -> Self:
        """Return an unfitted model with these settings."""
        return cls(
            settings.n_components,
            kernel_size=settings.kernel_size,
            condition_decoder=settings.condition_decoder,
            n_restarts=settings.n_restarts or 4,
            n_steps=STEPS[settings.quality],
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
            "n_steps": self.n_steps,
            "candidates": self.candidates,
            "starts": self.starts,
            "standardise_channels": self.standardise_channels,
        }

    def blank(self) -> Self:
        """Return an unfitted model with this one's choices made, and one restart of a flow."""
        made = {"candidates": (self.candidate,), "n_restarts": 1}
        return type(self)(**self._settings() | made, device=self.device)

    def following(self, found: Model) -> Self:
        """Let this unfitted model begin from the flow of a nonlinear fit; return it."""
        self.flow = full_flow(found)
        return self

    @property
    def n_components(self) -> int:
        """Number of sources."""
        return len(self.frame.order)

    @property
    def n_channels(self) -> int:
        """Number of channels of x."""
        return len(self.centre)

    @property
    def is_bound(self) -> bool:
        """Whether `log_density` is a lower bound: exact for the linear candidate only."""
        return not isinstance(self.map, MatrixMap)

    @property
    def choice(self) -> str:  # type: ignore[override]
        """Which candidate was kept, and from what start, in plain words."""
        return self.map.choice

    @property
    def history(self) -> dict[str, list[float]]:
        """Both terms of the bound along the training, nats a sample; none for a matrix."""
        return self.history_.of_first()

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
            For every random choice.

        Raises
        ------
        InputError
            If x is infinite somewhere, or a channel has no value at all.
        SettingsError
            If more components are asked for than the rank of x.
        """
        require_torch(self.family)
        from sourcesep.ivae.flows.likelihood import hold_out
        from sourcesep.ivae.vae.fit import Plan, fit_best

        x, u = u.in_use(x)
        check_values(x)
        x = medians_where_wild(x) if np.isfinite(x).all() else x
        self.with_mean = not u.is_time
        self.kernel_size = self.asked_kernel_size or (KERNEL if u.is_time else 1)
        self.centre = np.nanmean(x, axis=1)
        deviation = np.nanstd(x, axis=1)
        self.width = np.where(deviation > 0, deviation, 1.0)
        x = self._standardised(x)
        held = hold_out(u)
        kept = fit_matrix(x, u, ~held, rng, self.requested, self.starts)
        plan = Plan(
            self.kernel_size,
            self.condition_decoder,
            self.n_restarts,
            self.n_steps,
            resolve_device(self.device),
        )
        flow = self.flow and in_units(self.flow, self.centre, self.width)
        kept, self.scores = fit_best(self.candidates, kept, plan, x, u, held, rng, flow=flow)
        if isinstance(kept.map, MatrixMap):
            kept = fit_matrix(x, u, np.ones(u.n_times, bool), rng, self.requested, self.starts)
        self.candidate = kept.map.candidate
        self.map, self.history_ = kept.map, kept.history
        self.frame = self._framed(kept.prior, x, u)
        self.prior = self.frame.show_prior(kept.prior)
        return self

    def _framed(self, prior: Prior, x: Array, u: Auxiliary) -> Frame:
        """How the map's sources are shown, by a part of the samples."""
        some = slice(0, SOME_SAMPLES)
        if self.kernel_size == 1:
            some = slice(None, None, max(1, u.n_times // SOME_SAMPLES))
        table, rows = table_for(prior, u.take(some))
        z = self.map.infer(x[:, some], table, rows)[0]
        images = np.stack([self._image(z, k, table, rows) for k in range(len(z))])
        weight = np.ones_like(self.width) if self.standardise_channels else self.width
        return Frame.of(z, images, weight, with_mean=not u.is_time)

    def _standardised(self, x: Array) -> Array:
        standard: Array = (x - self.centre[:, None]) / self.width[:, None]
        return standard

    def _in_units(self, standard: Array) -> Array:
        x: Array = standard * self.width[:, None] + self.centre[:, None]
        return x

    def _table(self, u: Auxiliary | None) -> tuple[LabelPrior, NDArray[np.int64]]:
        """The prior of the map's z as a table, and every sample's row in it."""
        if u is None:
            raise InputError(
                "u=None: mixing='amortised' needs the labels or covariates of these samples, "
                "which its encoder sees beside x; give u"
            )
        return table_for(self.frame.inverse.show_prior(self.prior), u)

    def posterior(self, x: Array, u: Auxiliary | None = None) -> Posterior:
        """q(z|x,u), importance-weighted where possible; without u it raises InputError."""
        mean, scale = self.map.infer(self._standardised(x), *self._table(u))
        return Posterior(self.frame.show(mean), self.frame.show_scale(scale))

    def latents(self, x: Array, u: Auxiliary | None = None) -> Array:
        """Means of q(z|x,u) as the encoder has it."""
        return self.frame.show(self.map.encode(self._standardised(x), *self._table(u))[0])

    def decode(self, z: Array, u: Auxiliary | None = None) -> Array:
        """The mean of p(x|z,u), (n_channels, n_times); u counts if the decoder sees it."""
        if u is None and not self.condition_decoder:
            told = label_table(self.prior), np.zeros(z.shape[1], np.int64)
        else:
            told = self._table(u)
        return self._in_units(self.map.decode(self.frame.inverse.show(z), *told))

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
        x = self.map.draw(self.frame.inverse.show(z), *self._table(u), rng)
        return z, self._in_units(x)

    def prior_moments(self) -> tuple[Array, Array]:
        """Mean and variance of each component given each label, (n_labels, n_components)."""
        table = label_table(self.prior)
        return table.mean, table.variance

    def refit_prior(self, x: Array, u: Auxiliary) -> Self:
        """Return a model with this map and the prior, a row a label, that fits what it encodes."""
        x, u = u.in_use(x)
        x = self._standardised(x)
        z = self.map.start(x)
        scale = np.zeros_like(z)
        for _ in range(self.map.n_rounds):
            prior = encoded_prior(z, scale, u, with_mean=self.with_mean)
            z, scale = self.map.encode(x, prior, u.labels)
        other = copy.copy(self)
        other.prior = self.frame.show_prior(prior)
        return other

    def image(self, x: Array, component: int, u: Auxiliary | None = None) -> Array:
        """One source as the channels hear it, by the encoder's mean.

        What the decoder makes of this source alone, the others at 0, less what it makes
        of silence. Images of networks needn't add up to x; the residual has the rest.
        """
        prior, rows = self._table(u)
        z = self.frame.inverse.show(self.latents(x, u))
        image = self._image(z, int(self.frame.order[component]), prior, rows)
        return image * self.width[:, None]

    def _image(self, z: Array, k: int, prior: LabelPrior, rows: NDArray[np.int64]) -> Array:
        alone = np.zeros_like(z)
        silence = self.map.decode(alone, prior, rows)
        alone[k] = z[k]
        return self.map.decode(alone, prior, rows) - silence

    def state(self) -> State:
        """Everything needed to rebuild the model."""
        state = self.map.state()
        tensors = under("map", state.tensors) | under("frame", self.frame.tensors())
        tensors |= {"centre": self.centre, "width": self.width}
        tensors |= under("prior", prior_tensors(self.prior))
        tensors |= under("history", dataclasses.asdict(self.history_))
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
        require_torch(cls.family)
        facts = state.facts
        settings = facts["settings"]
        settings |= {name: tuple(settings[name]) for name in ("candidates", "starts")}
        model = cls(**settings)
        model.centre, model.width = state.tensors["centre"], state.tensors["width"]
        model.frame = Frame(**state.part("frame"))
        model.map = map_from_state(State(state.part("map"), facts["map"]))
        model.prior = prior_from(state.part("prior"))
        model.history_ = History(**state.part("history"))
        model.candidate, model.scores = facts["candidate"], facts["scores"]
        model.with_mean, model.kernel_size = facts["with_mean"], settings["kernel_size"]
        return model
