"""p(z|u) where u is continuous: mean and variance are a small network of the covariates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.model import Array
from sourcesep.ivae.networks import (
    LEAST_LOG_VARIANCE,
    MOST_LOG_VARIANCE,
    draw,
    layer_shapes,
    perceptron,
    size,
    split,
)
from sourcesep.ivae.priors import LabelPrior, spread
from sourcesep.ivae.settings import GAUSSIAN
from sourcesep.ivae.training import Schedule, train

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["N_HIDDEN", "SHAPES", "NetworkPrior", "standardised"]

SHAPES = (2.0, 1.0)
"""Exponents that a source may take: Gaussian, and Laplace for heavier tails."""
N_HIDDEN = 16
"""Units of a hidden layer."""
SCHEDULE = Schedule(400, learning_rate=1e-2)
BATCH = 1000
HELD_OUT = 5
"""One sample in so many says when the network has learned enough."""


def standardised(covariates: Array, centre: Array, width: Array) -> Array:
    """Return covariates as a network takes them, (n_covariates, n_times)."""
    standard: Array = ((covariates - centre) / np.where(width > 0, width, 1.0)).T
    return standard


@dataclass(frozen=True)
class NetworkPrior:
    """Independent generalised Gaussians whose means and log variances are networks of u.

    Between the u of the fit moments lie between theirs, where labels know nothing. Log
    variances are kept within bounds, also far outside of the data.

    Parameters
    ----------
    weights : tuple of ndarray
        Of three layers: a matrix (n_out, n_in) and an offset (n_out, 1) for each. What
        comes out are log variances and then means of the components.
    centre, width : ndarray of shape (n_covariates,)
        Mean and standard deviation of the covariates of the fit.
    table : LabelPrior
        The same for every label as a whole: for a u without covariates.
    """

    weights: tuple[Array, ...]
    centre: Array
    width: Array
    table: LabelPrior

    @property
    def shape(self) -> Array:
        """Exponents, as in `LabelPrior`, (n_components,)."""
        return self.table.shape

    def at(self, u: Auxiliary) -> tuple[LabelPrior, NDArray[np.int64]]:
        """A prior with a row for every sample of u, and the number of each sample's row."""
        if u.covariates is None:
            return self.table, u.labels
        mean, variance = self.moments(u.covariates)
        scale = np.sqrt(variance) / spread(self.shape)
        return LabelPrior(mean, scale, self.shape), np.arange(u.n_times)

    def moments(self, covariates: Array) -> tuple[Array, Array]:
        """Mean and variance given covariates, each (n_times, n_components)."""
        x = standardised(covariates, self.centre, self.width)
        for i in range(3):
            x = self.weights[2 * i] @ x + self.weights[2 * i + 1]
            x = np.tanh(x) if i < 2 else x
        d = len(self.shape)
        variance = np.exp(np.clip(x[:d], LEAST_LOG_VARIANCE, MOST_LOG_VARIANCE))
        return x[d:].T, variance.T

    @classmethod
    def fit(
        cls,
        z: Array,
        u: Auxiliary,
        rng: np.random.Generator,
        *,
        shapes: tuple[float, ...] = SHAPES,
    ) -> Self:
        """Fit by maximum likelihood, by stochastic gradient.

        A Gaussian prior first; then, if what it leaves of a source has heavier tails,
        once more with that source's shape. The state that explains held-out samples best
        is kept.

        Parameters
        ----------
        z : ndarray of shape (n_components, n_times)
            Sources, of variance about 1.
        u : Auxiliary
            With covariates.
        rng : numpy.random.Generator
            Draws the network, the minibatches and the held-out samples.
        shapes : tuple of float
            Exponents to choose from.
        """
        covariates = np.asarray(u.covariates)
        centre, width = covariates.mean(axis=0), covariates.std(axis=0)
        inputs = standardised(covariates, centre, width)
        held = rng.permutation(u.n_times) % HELD_OUT == 0
        seed = int(rng.integers(2**63))
        shape = np.full(len(z), 2.0)
        weights = _trained(z, inputs, held, shape, seed)
        prior = cls(weights, centre, width, _table(z, u, shape))
        mean, variance = prior.moments(covariates)
        left = (z - mean.T) / np.sqrt(variance.T)
        everyone = np.zeros(u.n_times, np.int64)
        shape = LabelPrior.fit(left, everyone, 1, with_mean=False, shapes=shapes).shape
        if (shape == 2).all():
            return prior
        return cls(_trained(z, inputs, held, shape, seed), centre, width, _table(z, u, shape))


def _table(z: Array, u: Auxiliary, shape: Array) -> LabelPrior:
    """Moments of every label as a whole, in the form of the network's shapes."""
    moments = LabelPrior.fit(z, u.labels, u.n_labels, with_mean=True, shapes=GAUSSIAN)
    return LabelPrior(moments.mean, np.sqrt(moments.variance) / spread(shape), shape)


def _trained(
    z: Array, inputs: Array, held: NDArray[np.bool_], shape: Array, seed: int
) -> tuple[Array, ...]:
    """Weights of a network trained on the samples that are not held out."""
    import torch

    with torch.no_grad():
        objective = _PriorLikelihood(z, inputs, held, shape, seed)
        train(objective, SCHEDULE)
        return tuple(view[0].double().numpy() for view in objective.views.values())


class _PriorLikelihood:
    """An `Objective`: minus the log-likelihood of sources that are known."""

    tracked: tuple[Tensor, ...] = ()

    def __init__(
        self, z: Array, inputs: Array, held: NDArray[np.bool_], shape: Array, seed: int
    ) -> None:
        import torch

        self._generator = torch.Generator().manual_seed(seed)
        shapes = layer_shapes("prior", (len(inputs), N_HIDDEN, N_HIDDEN, 2 * len(z)))
        self.parameters = torch.zeros(1, size(shapes))
        self.views = split(self.parameters, shapes)
        draw(self.views, self._generator)
        self._shapes = shapes
        self._exponents = torch.tensor(shape).to(self.parameters)
        self._free, self._held = (
            tuple(torch.tensor(value[:, part]).to(self.parameters) for value in (z, inputs))
            for part in (~held, held)
        )

    def _loss(self, flat: Tensor, z: Tensor, inputs: Tensor) -> Tensor:
        import torch

        from sourcesep.ivae.vae.bound import log_prior

        out = perceptron(split(flat, self._shapes), "prior", inputs[None], torch.tanh)
        d = len(z)
        log_variance = out[:, :d].clamp(LEAST_LOG_VARIANCE, MOST_LOG_VARIANCE)
        density = log_prior(z - out[:, d:], log_variance, self._exponents)
        return -density.sum(1).mean(1)

    def step(self) -> tuple[Tensor, Tensor]:
        """Loss of a fresh minibatch and its gradient."""
        import torch

        z, inputs = self._free
        pick = torch.randint(z.shape[1], (BATCH,), generator=self._generator)
        with torch.enable_grad():
            flat = self.parameters.detach().requires_grad_()
            loss = self._loss(flat, z[:, pick], inputs[:, pick])
            (gradient,) = torch.autograd.grad(loss.sum(), flat)
        return loss.detach(), gradient

    def held_out(self) -> tuple[Tensor, Tensor]:
        """Log-likelihood of the held-out samples, and no KL."""
        value = -self._loss(self.parameters, *self._held)
        return value, value * 0
