"""First guesses of z from x alone, from which the `amortised` family sets out."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr

from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.coupling import CouplingModel
from sourcesep.ivae.matrices.linear_gaussian import LinearGaussian
from sourcesep.ivae.model import Array, Model, State, under
from sourcesep.ivae.prior_tables import gaussian_prior, pooled
from sourcesep.ivae.priors import LabelPrior
from sourcesep.ivae.settings import GAUSSIAN
from sourcesep.ivae.whitening import numerical_rank

__all__ = ["MARGIN", "LatentStart", "full_flow", "in_units", "without_repeats"]

MARGIN = 0.02
"""Least gain in held-out log-likelihood, nats a sample, for which a matrix is given up."""
FARTHEST = 6.0
"""Standard deviations beyond which a flow may only have lost its way."""
LEAST_DEVIATION = 0.02
"""Of the noise on a channel of variance 1 that a flow is shown."""
TIE = 1e-6
"""Of channels that say the same the first stays, and what follows is the same to the bit."""


@dataclass(frozen=True)
class LatentStart:
    """z by a matrix, or by a flow.

    With fewer sources than channels the flow has more components than there are sources:
    x lies near a curved surface, which its principal directions would fold if there were
    too few. Then the components of which u tells most are the sources.

    Parameters
    ----------
    linear : LinearGaussian
        The matrix.
    moments : tuple of two ndarray of shape (n_components,)
        Mean and variance of its sources over all labels.
    flow : CouplingModel or None
        The consensus of its restarts.
    chosen : tuple of int
        Which of the flow's components are the sources.
    """

    linear: LinearGaussian
    moments: tuple[Array, Array]
    flow: CouplingModel | None = None
    chosen: tuple[int, ...] = ()

    @classmethod
    def by_fit(cls, model: Model, centre: Array, width: Array) -> Self | None:
        """A start by a fitted model's flow and its matrix, for (x - centre) / width.

        None if it has no `full_flow`.
        """
        flow = full_flow(model)
        if flow is None:
            return None
        flow, d = in_units(flow, centre, width), flow.n_components
        matrix = LinearGaussian(flow.linear.mixing, np.full(d, LEAST_DEVIATION**2))
        return cls(matrix, (np.zeros(d), np.ones(d)), flow, tuple(range(d)))

    def bend(self, x: Array, u: Auxiliary) -> float:
        """Nats a sample by which x is likelier by the flow than by the matrix that it begins with.

        0 if there is no flow.
        """
        if self.flow is None:
            return 0.0
        bent = self.flow.log_density(x, u) - self.flow.linear.log_density(x, u)
        return float(bent.mean())

    def by_matrix(self, x: Array) -> Array:
        """z by the matrix, (n_components, n_times); missing entries of x say nothing."""
        prior = gaussian_prior(*(moment[None] for moment in self.moments))
        return self.linear.infer(x, prior, np.zeros(x.shape[1], np.int64)).mean

    def __call__(self, x: Array) -> Array:
        """First guess of z, (n_components, n_times)."""
        if self.flow is None:
            return self.by_matrix(x)
        there = np.isfinite(x)
        if not there.all():
            x = np.where(there, x, self.linear.mixing @ self.by_matrix(x))
        found = self.flow.posterior(x).mean[list(self.chosen)]
        return np.clip(found, -FARTHEST, FARTHEST)

    def with_flow(
        self,
        x: Array,
        u: Auxiliary,
        held: NDArray[np.bool_],
        rng: np.random.Generator,
        *,
        n_restarts: int,
        n_steps: int,
        device: str,
    ) -> Self:
        """Return the start with a flow if that explains held-out samples better.

        Parameters
        ----------
        x : ndarray of shape (n_channels, n_times)
            Complete, each channel of mean 0 and variance 1.
        u : Auxiliary
            Every sample has a label.
        held : ndarray of bool, shape (n_times,)
            Samples that are not fitted on.
        rng : numpy.random.Generator
            For every random choice.
        n_restarts, n_steps : int
            Of the flow.
        device : str
            Where it is trained.
        """
        d = self.linear.n_components
        # more than u could tell apart would hold the sources in any mixture
        most = (u.n_labels - 1) // (1 if u.is_time else 2)
        n_latents = min(numerical_rank(x), 2 * d + 1, max(d, most))
        if n_latents > d:
            # a surface without noise has no density
            x = x + LEAST_DEVIATION * rng.standard_normal(x.shape)
        flow = CouplingModel(
            n_latents, n_restarts=n_restarts, n_steps=n_steps, device=device, shapes=GAUSSIAN
        )
        flow.fit(x[:, ~held], u.take(~held), rng)
        bent = replace(self, flow=flow)
        if bent.bend(x[:, held], u.take(held)) <= MARGIN:
            return self
        told = _told(flow.prior, np.bincount(u.labels[~held], minlength=u.n_labels))
        chosen = np.sort(np.argsort(-told, kind="stable")[:d])
        return replace(bent, chosen=tuple(chosen.tolist()))

    def state(self) -> State:
        """Everything needed to rebuild it."""
        tensors: dict[str, NDArray[Any]] = {
            "mixing": self.linear.mixing,
            "noise": self.linear.noise,
            "mean": self.moments[0],
            "variance": self.moments[1],
        }
        if self.flow is None:
            return State(tensors, {"flow": None})
        flow = self.flow.state()
        facts = {"flow": flow.facts, "chosen": self.chosen}
        return State(tensors | under("flow", flow.tensors), facts)

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Rebuild a start from `state`."""
        tensors, facts = state.tensors, state.facts
        linear = LinearGaussian(tensors["mixing"], tensors["noise"])
        start = cls(linear, (tensors["mean"], tensors["variance"]))
        if facts["flow"] is None:
            return start
        flow = CouplingModel.from_state(State(state.part("flow"), facts["flow"]))
        return replace(start, flow=flow, chosen=tuple(facts["chosen"]))


def full_flow(model: Model) -> CouplingModel | None:
    """Return a fitted model whose map is a flow with a component for every channel, else None."""
    if isinstance(model, CouplingModel) and model.n_components == model.n_channels:
        return model
    return None


def in_units(flow: CouplingModel, centre: Array, width: Array) -> CouplingModel:
    """The same flow for (x - centre) / width, each (n_channels,)."""
    linear = copy.copy(flow.linear)
    linear.mean = (linear.mean - centre) / width
    linear.unmixing, linear.complement = linear.unmixing * width, linear.complement * width
    linear.mixing = linear.mixing / width[:, None]
    linear.remainder = linear.remainder / width[:, None]
    other = copy.copy(flow)
    other.linear = linear
    return other


def without_repeats(model: Model, x: Array) -> tuple[Model, Array]:
    """A fitted flow and its data without those channels that others, which stay, add up to.

    They say nothing more. Other models, and flows that set aside what is no sum, stay as they are.
    """
    if not isinstance(model, CouplingModel) or full_flow(model) is model:
        return model, x
    if numerical_rank(x) > model.n_components:
        return model, x
    width = x.std(axis=1)
    standard = model.linear.mixing / np.where(width > 0, width, np.inf)[:, None]
    standard *= 1 - TIE * np.arange(len(x))[:, None]
    chosen = np.sort(qr(standard.T, mode="r", pivoting=True)[1][: model.n_components])
    linear = copy.copy(model.linear)
    linear.mean, linear.mixing = linear.mean[chosen], linear.mixing[chosen]
    linear.unmixing = np.asarray(np.linalg.inv(linear.mixing), np.float64)
    linear.complement, linear.remainder = np.zeros((0, len(chosen))), np.zeros((len(chosen), 0))
    other = copy.copy(model)
    other.linear = linear
    return other, x[chosen]


def _told(prior: LabelPrior, counts: NDArray[np.int64]) -> Array:
    """Nats a sample by which u makes each component likelier, (n_components,)."""
    _, overall = pooled(prior.mean, prior.variance, counts)
    told: Array = 0.5 * (np.log(overall) - (counts / counts.sum()) @ np.log(prior.variance))
    return told
