"""Family ``nonlinear``: an invertible map by coupling blocks, fitted by stochastic gradient.

x = f(z + sigma e) for an instantaneous, invertible, nonlinear f and the Gaussian prior
p(z|u) with a variance (and mean) per label: the noiseless end of the iVAE (Khemakhem et
al. 2020), where the posterior is exact and the ELBO tight. f^-1 is the linear family's
unmixing matrix followed by a `Flow` that starts as the identity.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.ivae.alignment import standardising
from sourcesep.ivae.devices import require_torch, resolve_device
from sourcesep.ivae.flows.fit import EFFORT, PACE, WARM, at_least_two, restart_scores, resumed
from sourcesep.ivae.invertible import InvertibleModel
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.model import Array, Posterior, State, under
from sourcesep.ivae.priors import FINE_SHAPES, LabelPrior, exponents
from sourcesep.ivae.ranges import clipped_where_wild, medians_where_wild
from sourcesep.ivae.settings import GAUSSIAN, Settings
from sourcesep.ivae.training import History, Schedule, train

if TYPE_CHECKING:
    from sourcesep.ivae.flows.flow import Flow
    from sourcesep.ivae.flows.likelihood import Likelihood

__all__ = ["CouplingModel"]


STRAGGLER = 0.5
"""Nats a sample below the best at which a restart has no part in the consensus."""
ORDER_SAMPLES = 5000
"""On which explained power is measured."""


class CouplingModel(InvertibleModel):
    """x = f(z + sigma e), f invertible and nonlinear, the same at every sample.

    Several restarts are trained in one batch. What they differ in is luck, so `posterior`
    gives their *consensus*: the mean over restarts of the latents, matched in order and
    sign, each kept within the range it had in the fit, wild samples not counted; a restart
    far below the best has no part in it. A consensus has no exact inverse:
    everything else (`decode`, `elbo`, `image`, `sample`, the prior) is the restart that
    explains held-out samples best.

    Parameters
    ----------
    n_components : int, optional
        Number of sources, at least 2; the numerical rank of x by default. The discarded
        subspace counts as an isotropic Gaussian.
    n_restarts : int
        Fits trained side by side.
    n_steps : int
        Minibatches.
    n_blocks, n_hidden : int
        Coupling blocks, and hidden units in their networks: many and narrow is best.
    learning_rate : float
        Peak of the schedule.
    seconds : float, optional
        Wall-clock budget for training: fewer steps are done where they don't fit into it.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``; for training. A fitted model is
        evaluated on the CPU in float64.
    dtype : {"float32", "float64"}
        Precision of training.
    shapes : tuple of float
        Exponents that p(z|u) may have, each source its own; they are chosen while it is fitted.
    standardise_channels : bool
        Whether channels of different units count alike (tables) or as they are.
    progress : bool
        Whether to show a progress bar on stderr.

    Attributes
    ----------
    linear : LinearModel
        The start: whitening and unmixing that precede the flow.
    flow : Flow
        The restarts, the best first; their components match.
    restart_scores : ndarray of shape (n_restarts,)
        Held-out log-likelihood of each restart in coordinates of the start, nats a sample.
    prior : LabelPrior
        p(z|u) of the best restart.
    history_ : History
        Both ELBO terms along the training.
    """

    family: ClassVar[str] = "nonlinear"
    representation: ClassVar[Literal["time", "stft"]] = "time"
    is_linear: ClassVar[bool] = False
    goes_on: ClassVar[bool] = True
    only_moments: ClassVar[bool] = True
    mends: ClassVar[tuple[str, ...]] = ("power",)

    linear: LinearModel
    flow: Flow
    restart_scores: NDArray[np.float64]
    history_: History
    _range: Array  # (n_restarts, 2, n_components): where the latents of the fit lie
    _shrinkage: Array  # (n_components,): standard deviation of the consensus over the fit

    def __init__(
        self,
        n_components: int | None = None,
        *,
        n_restarts: int = EFFORT["normal"].n_restarts,
        n_steps: int = EFFORT["normal"].n_steps,
        n_blocks: int = 12,
        n_hidden: int = 16,
        learning_rate: float = PACE.learning_rate,
        seconds: float | None = None,
        device: str = "auto",
        dtype: Literal["float32", "float64"] = "float32",
        shapes: tuple[float, ...] = FINE_SHAPES,
        standardise_channels: bool = False,
        progress: bool = False,
    ) -> None:
        sizes = {"n_restarts": n_restarts, "n_blocks": n_blocks, "n_hidden": n_hidden}
        for name, value in sizes.items():
            if value < 1:
                raise SettingsError(f"{name}={value} must be at least 1; raise it")
        if n_components is not None:
            at_least_two(n_components)
        if dtype not in ("float32", "float64"):
            raise SettingsError(f"dtype={dtype!r} must be float32 or float64")
        self.requested = n_components
        self.n_restarts = n_restarts
        self.n_blocks = n_blocks
        self.n_hidden = n_hidden
        self.schedule = dataclasses.replace(
            PACE, n_steps=n_steps, learning_rate=learning_rate, seconds=seconds
        )
        self.device = device
        self.dtype = dtype
        self.shapes = tuple(shapes)
        self.standardise_channels = standardise_channels
        self.progress = progress

    @classmethod
    def configured(cls, settings: Settings) -> Self:
        """Return an unfitted model with these settings."""
        effort = EFFORT[settings.quality]
        return cls(
            settings.n_components,
            n_restarts=settings.n_restarts or effort.n_restarts,
            n_steps=effort.n_steps,
            device=settings.device,
            shapes=GAUSSIAN if settings.shapes == GAUSSIAN else FINE_SHAPES,
            standardise_channels=settings.standardise,
        )

    @property
    def choice(self) -> str:  # type: ignore[override]
        """What was fitted, in plain words."""
        return f"{self.n_blocks} coupling blocks, {self._n_agreed} restarts averaged"

    @property
    def scores(self) -> dict[str, float]:  # type: ignore[override]
        """Held-out log-likelihood of each restart in the start's coordinates, nats a sample."""
        return {f"restart {r}": float(score) for r, score in enumerate(self.restart_scores)}

    @property
    def history(self) -> dict[str, list[float]]:
        """Both ELBO terms along the training of the best restart, nats a sample."""
        return self.history_.of_first()

    @property
    def n_components(self) -> int:
        """Number of sources."""
        return self.linear.n_components

    @property
    def n_channels(self) -> int:
        """Number of channels of x."""
        return self.linear.n_channels

    def _settings(self) -> dict[str, Any]:
        return {
            "n_components": self.n_components,
            "n_restarts": self.n_restarts,
            "n_steps": self.schedule.n_steps,
            "n_blocks": self.n_blocks,
            "n_hidden": self.n_hidden,
            "learning_rate": self.schedule.learning_rate,
            "seconds": self.schedule.seconds,
            "dtype": self.dtype,
            "shapes": self.shapes,
            "standardise_channels": self.standardise_channels,
        }

    def blank(self) -> Self:
        """Return an unfitted model of as many components and steps, and one restart.

        Other fits are compared with this one, and one restart is enough for that.
        """
        done = {"n_steps": self.history_.n_steps, "seconds": None, "n_restarts": 1}
        return type(self)(**self._settings() | done, device=self.device, progress=self.progress)

    def fit(self, x: Array, u: Auxiliary, rng: np.random.Generator) -> Self:
        """Fit map and prior to x given u.

        Parameters
        ----------
        x : ndarray of shape (n_channels, n_times)
            Observations.
        u : Auxiliary
            Labels of the samples; those left out are not fitted on.
        rng : numpy.random.Generator
            Where restarts start and which minibatches they see: the same state gives the
            same fit, bit for bit, on one machine.

        Raises
        ------
        InputError
            If x is not finite.
        SettingsError
            If x has rank 1, or more components are asked for than its rank.
        MissingDependencyError
            If torch cannot be imported.
        """
        require_torch()
        import torch

        from sourcesep.ivae.flows.likelihood import Likelihood

        x, u = u.in_use(x)
        if not np.isfinite(x).all():
            raise InputError(
                f"x holds {np.count_nonzero(~np.isfinite(x))} values that are not finite; "
                "remove or interpolate them first"
            )
        x, held = medians_where_wild(x), self.held_out(u)
        self.linear = LinearModel(
            self.requested,
            starts=("segments",),
            shapes=self.shapes,
            standardise_channels=self.standardise_channels,
        ).fit(x[:, ~held], u.take(~held), rng)
        at_least_two(self.n_components)
        y = self.linear.posterior(x).mean
        objective = Likelihood.draw(
            y,
            u,
            held,
            shape=(self.n_blocks, self.n_hidden, self.n_restarts),
            seed=int(rng.integers(2**63)),
            dtype=getattr(torch, self.dtype),
            device=resolve_device(self.device),
            shapes=self.shapes,
            settled=self.schedule.n_checks // 2,
        )
        self._train(objective, self.schedule)
        return self._finish(x, y, u)

    def warm(self, x: Array, u: Auxiliary, rng: np.random.Generator) -> Self:
        """Return a model trained on from this one, a little, by another recording."""
        x, u = u.in_use(x)
        x, held = medians_where_wild(x), self.held_out(u)
        y = self.linear.posterior(x).mean
        seed = int(rng.integers(2**63))
        place = {"dtype": self.dtype, "device": self.device}
        objective = resumed(self.flow, y, u, held, seed=seed, shapes=self.shapes, **place)
        # where the old map has seen nothing, it does not say which component is which
        like = np.clip(self.flow.best.encode(y)[0][0], *self._range[0][..., None])
        other = copy.copy(self)
        other._train(objective, WARM)
        return other._finish(x, y, u, like)

    def _train(self, objective: Likelihood, schedule: Schedule) -> None:
        shapes = objective.flow.shapes
        self.history_ = train(objective, schedule, progress=self.progress, shapes=shapes)
        self.flow = objective.flow.with_parameters(objective.parameters.cpu().double())

    def _finish(self, x: Array, y: Array, u: Auxiliary, like: Array | None = None) -> Self:
        """Put the best restart first, and give all of them its components, or those of `like`."""
        z, log_det = self.flow.encode(y)
        scores = restart_scores(z, log_det, u, self.held_out(u), self.shapes)
        rank = np.argsort(-scores, kind="stable")
        self.restart_scores, z = scores[rank], z[rank]
        self.flow = self.flow.with_parameters(self.flow.parameters[rank])

        matrix, offset, z = standardising(z, x, like)
        self._absorb(matrix, offset)
        if like is None:
            some = z[0][:, :: max(1, z.shape[2] // ORDER_SAMPLES)]
            power = [self._share(some, k).var(axis=1).sum() for k in range(len(some))]
            order = np.argsort(-np.array(power), kind="stable")
            self._absorb(np.broadcast_to(np.eye(len(some))[order], matrix.shape), 0 * offset)
            z = z[:, order]
        self._range = np.stack([z.min(axis=2), z.max(axis=2)], axis=1)
        self._shrinkage = z[: self._n_agreed].mean(axis=0).std(axis=1)
        self.prior = self.fit_prior(z[0], u)
        return self

    @property
    def _n_agreed(self) -> int:
        """Restarts that the consensus is of."""
        return int((self.restart_scores > self.restart_scores[0] - STRAGGLER).sum())

    def _absorb(self, matrix: Array, offset: Array) -> None:
        import torch

        self.flow.absorb(torch.tensor(matrix), torch.tensor(offset))

    def restarts(self, x: Array) -> Array:
        """Latents of every restart, matched, (n_restarts, n_components, n_times), best first."""
        return self.flow.encode(self.linear.posterior(x).mean)[0]

    def replicas(self, x: Array) -> Array:
        """Latents that the consensus is the mean of, each kept within its range."""
        least, largest = self._range[: self._n_agreed, ..., None].swapaxes(0, 1)
        return np.clip(self.restarts(x)[: self._n_agreed], least, largest)

    def held_out(self, u: Auxiliary) -> NDArray[np.bool_]:
        """Return which samples the fit given u kept aside, to choose among its states."""
        from sourcesep.ivae.flows.likelihood import hold_out

        return hold_out(u)

    def _best(self, x: Array) -> tuple[Array, Array]:
        """Latents of the best restart, and log|det| of its flow."""
        z, log_det = self.flow.best.encode(self.linear.posterior(x).mean)
        return z[0], log_det[0]

    def posterior(self, x: Array, u: Auxiliary | None = None) -> Posterior:
        """q(z|x,u), centred on the consensus of the restarts; without u, as for a flat prior."""
        if self._n_agreed > 1:
            s = self.replicas(x).mean(axis=0) / self._shrinkage[:, None]
        else:
            s = clipped_where_wild(self._best(x)[0], self._range[0])
        return self._posterior(s, u)

    def latents(self, x: Array, u: Auxiliary | None = None) -> Array:
        """Latents of the best restart, not kept within any range."""
        return self._best(x)[0]

    def decode(self, z: Array, u: Auxiliary | None = None) -> Array:
        """Mix sources by the best restart: f(z)."""
        return self.linear.decode(self.flow.best.decode(z))

    def encode(self, x: Array) -> tuple[Array, Array]:
        """Latents of the best restart, and the log-density of x less theirs."""
        s, log_det = self._best(x)
        return s, log_det + self.linear.log_density_aside(x)

    def sample(self, u: Auxiliary, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw z from p(z|u) and x from p(x|z)."""
        z, x = super().sample(u, rng)
        return z, x + self.linear.draw_aside(z.shape[1], rng)

    def image(self, x: Array, component: int, u: Auxiliary | None = None) -> Array:
        """One source as the channels hear it: what x loses without it; they needn't add up."""
        return self._share(self._best(x)[0], component)

    def _share(self, z: Array, component: int) -> Array:
        silenced = z.copy()
        silenced[component] = 0
        return self.decode(z) - self.decode(silenced)

    def state(self) -> State:
        """Everything needed to rebuild the model, all restarts included."""
        linear = self.linear.state()
        tensors = under("linear", linear.tensors) | {
            "restarts": self.flow.parameters.numpy(),
            "range": self._range,
            "shrinkage": self._shrinkage,
            "scores": self.restart_scores,
        }
        tensors |= under("prior", self.prior.tensors())
        tensors |= under("history", dataclasses.asdict(self.history_))
        return State(tensors, {"settings": self._settings(), "linear": linear.facts})

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Rebuild a model from `state`."""
        require_torch()
        import torch

        from sourcesep.ivae.flows.flow import Flow

        facts = {"shapes": GAUSSIAN} | state.facts["settings"]  # files of before had no other
        model = cls(**facts | {"shapes": exponents(facts["shapes"])})
        model.linear = LinearModel.from_state(State(state.part("linear"), state.facts["linear"]))
        parameters = torch.tensor(state.tensors["restarts"])
        model.flow = Flow(parameters, model.n_components, model.n_blocks, model.n_hidden)
        model._range = state.tensors["range"]
        model._shrinkage = state.tensors["shrinkage"]
        model.restart_scores = state.tensors["scores"]
        model.prior = LabelPrior.from_state(state, model.n_components)
        model.history_ = History(**state.part("history"))
        return model
