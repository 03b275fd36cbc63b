"""The one idea: a model is a prior p(z|u) and a map, with four verbs.

Everything outside ``ivae/`` (selection, verdict, estimator, persistence, adapters)
speaks to a model through `Model` alone and never asks which family it is of.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.exceptions import SettingsError
from sourcesep.ivae.settings import Settings, WatchedDefaults

if TYPE_CHECKING:
    from sourcesep.ivae.moments import Moments

__all__ = ["ELBO", "Array", "Model", "Posterior", "State", "under"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Posterior:
    """q(z|x,u): Gaussian, its mean and standard deviation, each (n_components, n_times)."""

    mean: Array
    scale: Array


@dataclass(frozen=True)
class ELBO:
    """The two terms of the evidence lower bound, in nats, each of shape (n_times,).

    ``reconstruction`` is E_q[log p(x|z,u)], ``kl`` is KL(q(z|x,u) || p(z|u)).
    """

    reconstruction: Array
    kl: Array

    @property
    def per_sample(self) -> Array:
        """reconstruction - kl, nats, shape (n_times,)."""
        return self.reconstruction - self.kl

    @property
    def mean(self) -> float:
        """The bound, nats a sample."""
        return float(self.per_sample.mean())


@dataclass(frozen=True)
class State:
    """A model as data: named tensors, and JSON-ready facts that give them meaning."""

    tensors: dict[str, NDArray[Any]]
    facts: dict[str, Any] = field(default_factory=dict)

    def part(self, name: str) -> dict[str, NDArray[Any]]:
        """Return the tensors whose names begin with ``name.``, with that prefix removed."""
        whole = f"{name}."
        return {k.removeprefix(whole): v for k, v in self.tensors.items() if k.startswith(whole)}

    def check(
        self, shapes: Mapping[str, tuple[int, ...]], *, positive: Collection[str] = ()
    ) -> None:
        """Refuse tensors that are not float64 of these shapes, or not above 0 (ValueError)."""
        for name, shape in shapes.items():
            tensor = self.tensors[name]
            if tensor.shape != shape or tensor.dtype != np.float64:
                raise ValueError(f"tensor {name} is {tensor.dtype} of shape {tensor.shape}")
            if name in positive and not (tensor > 0).all():
                raise ValueError(f"tensor {name} has values that are not above 0")


def under(name: str, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return tensors with ``name.`` before their names, as `State.part` takes it off again."""
    return {f"{name}.{k}": v for k, v in tensors.items()}


class Model(ABC):
    """A prior p(z|u) and a map between sources z and observations x.

    Signals have time last: x is (n_channels, n_times), z is (n_components, n_times).
    Components are ordered by the power they explain, have unit variance over the
    samples of the fit, and their largest loading is positive.
    """

    family: ClassVar[str]
    """The name it goes by in ``mixing=``."""
    representation: ClassVar[Literal["time", "stft"]]
    """Where its likelihood lives. Only likelihoods in one representation can be compared."""
    is_linear: ClassVar[bool]
    is_invertible: ClassVar[bool]
    is_calibrated: ClassVar[bool] = True
    """Whether it was measured how often the verdict is right for this family."""
    needs_u: ClassVar[bool] = False
    """Whether `posterior` raises InputError without u."""
    condition_decoder: bool = False
    """Whether `decode` needs u: the decoder sees it too, p(x|z,u)."""
    accepts_missing: ClassVar[bool] = False
    """Whether entries of x may be NaN, in the fit and after."""
    only_variances: ClassVar[bool] = False
    """Whether variances that change with u are all that tells components apart: p(z|u) is
    Gaussian, and samples with the same label are exchangeable."""
    only_moments: ClassVar[bool] = False
    """Whether means and variances given u are all that tells components apart: nothing is
    assumed of the map, so that shapes and spectra of sources say nothing."""
    n_splits: ClassVar[int] = 2
    """On how many random halvings of the data a verdict refits it: fewer if fits are slow."""
    mends: ClassVar[tuple[str, ...]] = ()
    """What this family mends in the fit of a simpler one: kinds of misfit (fields of
    `sourcesep.misfit.Misfit`), "noise" that fewer components than channels leave, or "fitted
    noise", which a map has taken for sources."""
    falls_back: ClassVar[bool] = False
    """Whether its fit is the linear one, exactly, unless samples held out say otherwise."""
    holds_everywhere: ClassVar[bool] = False
    """Whether the map is as good beyond the range of its fit as within it, as linear maps are."""
    goes_on: ClassVar[bool] = False
    """Whether `warm` works; if not, it raises."""
    may_exceed_rank: ClassVar[bool] = False
    """Whether there may be more sources than the rank of x."""

    scores: dict[str, float]
    """What the candidates within the family were compared by, the higher the better:
    held-out log-likelihood in nats a sample, or a measure of the family's own."""
    choice: str
    """Which candidate was kept, in plain words."""

    @classmethod
    @abstractmethod
    def configured(cls, settings: Settings) -> Self:
        """Return an unfitted model with these settings."""

    @classmethod
    def heeded(cls) -> set[str]:
        """Names of the settings that `configured` reads; the others make no difference."""
        watched = WatchedDefaults()
        cls.configured(cast("Settings", watched))
        return watched.read

    def following(self, found: Model) -> Self:
        """Let this unfitted model begin from what another family has found; return it.

        Raises `SettingsError`, here or in `fit`, if it has nothing to add to that.
        """
        return self

    @property
    @abstractmethod
    def n_components(self) -> int:
        """Number of sources."""

    @property
    @abstractmethod
    def n_channels(self) -> int:
        """Number of channels of x."""

    @property
    def rank(self) -> int:
        """Number of independent signals that the fit has found in x."""
        return self.n_components

    @property
    def memory(self) -> int:
        """How many samples the map reaches over; 1 if each sample is mapped by itself."""
        return 1

    @property
    def up_to_filters(self) -> bool:
        """Whether each source is found up to a filter of its own, and not only up to its scale."""
        return self.memory > 1 and self.representation == "time"

    @property
    @abstractmethod
    def is_bound(self) -> bool:
        """Whether `log_density` is a lower bound rather than the exact value."""

    @abstractmethod
    def fit(self, x: Array, u: Auxiliary, rng: np.random.Generator) -> Self:
        """Fit prior and map to x given u; return the model itself."""

    @abstractmethod
    def posterior(self, x: Array, u: Auxiliary | None = None) -> Posterior:
        """q(z|x,u). Invertible maps need no u: the posterior is then centred on f^-1(x)."""

    @abstractmethod
    def decode(self, z: Array, u: Auxiliary | None = None) -> Array:
        """The mean of p(x|z,u), shape (n_channels, n_times)."""

    @abstractmethod
    def elbo(self, x: Array, u: Auxiliary) -> ELBO:
        """Both terms of the evidence lower bound for every sample."""

    @abstractmethod
    def sample(self, u: Auxiliary, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw z from p(z|u) and x from p(x|z,u)."""

    def log_density(self, x: Array, u: Auxiliary) -> Array:
        """log p(x|u) for every sample in nats: exact, or a bound where `is_bound`."""
        return self.elbo(x, u).per_sample

    def held_out(self, u: Auxiliary) -> NDArray[np.bool_] | None:
        """Return a mask of the samples that the fit never saw; None if it saw all.

        A fit that has held some out can be judged on them, without another fit.
        """
        return None

    def telling(
        self, x: Array, u: Auxiliary, rng: np.random.Generator
    ) -> NDArray[np.int64] | None:
        """Return the samples that show best whether this model is needed; None if any do."""
        return None

    def replicas(self, x: Array) -> Array:
        """Latents of every restart behind `posterior`, (n_replicas, n_components, n_times)."""
        return self.posterior(x).mean[None]

    def steadier(self, x: Array, u: Auxiliary, rng: np.random.Generator) -> Self | None:
        """Return a fit to x that holds even if this family is wrong for x, or None."""
        return None

    def rival(self, simple: Model, x: Array) -> Model:
        """Return the simpler model, also fitted to x, with a `log_density` to compare with."""
        return simple

    def gain_over(self, other: Model, x: Array, u: Auxiliary) -> Array:
        """By how much likelier x is than by another model, a `rival`, nats, (n_times,)."""
        gain: Array = self.log_density(x, u) - other.log_density(x, u)
        return gain

    @property
    def caveat(self) -> str | None:
        """Why this fit is "not identifiable" whatever the checks find, in plain words; or None."""
        return None

    @property
    def doubt(self) -> str | None:
        """Why this fit is "doubtful" at best whatever the checks find, in plain words; or None."""
        return None

    @property
    def findings(self) -> dict[str, Any]:
        """What else the fit has found, JSON-ready, for result.json."""
        return {}

    @property
    def history(self) -> dict[str, list[float]]:
        """Both ELBO terms along the training, nats a sample; none for closed forms."""
        return {"reconstruction": [], "kl": []}

    @property
    def matrices(self) -> tuple[Array, Array] | None:
        """Unmixing (n_components, n_channels) and mixing matrix where linear, else None."""
        return None

    @abstractmethod
    def prior_moments(self) -> tuple[Array, Array]:
        """Mean and variance of each component given each label, (n_labels, n_components)."""

    @abstractmethod
    def refit_prior(self, x: Array, u: Auxiliary) -> Self:
        """Return a model with this map, and the prior that fits x given u best."""

    def warm(self, x: Array, u: Auxiliary, rng: np.random.Generator) -> Self:
        """Return a model fitted to another recording, starting from this one's map.

        Component k of the new model is component k of this one.

        Raises
        ------
        SettingsError
            If the family cannot start from a map.
        """
        raise SettingsError(
            f"refit=True: mixing={self.family} does not go on from a saved map; fit this "
            "recording anew, without a model"
        )

    def pooled(self, moments: Moments) -> Self:
        """Return one with this prior and a map of more data's moments; itself if it cannot."""
        return self

    def latents(self, x: Array, u: Auxiliary | None = None) -> Array:
        """Sources as the map gives them, not limited to the range of its fit."""
        return self.posterior(x, u).mean

    def mixture(self, x: Array) -> Array:
        """What the images of all sources add up to: x, less any distortion that is undone."""
        return x

    @abstractmethod
    def image(self, x: Array, component: int, u: Auxiliary | None = None) -> Array:
        """One source as the channels hear it, shape (n_channels, n_times)."""

    def images(self, x: Array, u: Auxiliary | None = None) -> Array:
        """Every source as the channels hear it, (n_components, n_channels, n_times)."""
        return np.stack([self.image(x, k, u) for k in range(self.n_components)])

    @abstractmethod
    def blank(self) -> Self:
        """Return an unfitted model with the choices that this one's fit has made."""

    def rough(self) -> Self:
        """Return an unfitted model as `blank` does, for a fit that may be less thorough."""
        return self.blank()

    @abstractmethod
    def state(self) -> State:
        """Everything needed to rebuild the model."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: State) -> Self:
        """Rebuild a model from `state`."""
