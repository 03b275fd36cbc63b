"""What all models with an invertible map and a prior for each label have in common."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from typing import ClassVar, Self

import numpy as np

from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.model import ELBO, Array, Model, Posterior
from sourcesep.ivae.priors import SHAPES, LabelPrior

__all__ = ["SIGMA", "InvertibleModel"]

SIGMA = 1e-4
"""Standard deviation of the noise on each source, as a share of the source's own.

In x = f(z + sigma e) sigma and the prior's variance cannot be told apart, so it is fixed
by rule: at -80 dB it changes no source, and makes the two terms of the ELBO well defined.
"""


class InvertibleModel(Model):
    """x = f(z + sigma e): the posterior is a narrow Gaussian around f^-1(x).

    A family gives `encode`, `decode` and `image`, and sets `prior` in its fit.
    """

    is_invertible: ClassVar[bool] = True

    prior: LabelPrior
    shapes: tuple[float, ...] = SHAPES

    @abstractmethod
    def encode(self, x: Array) -> tuple[Array, Array]:
        """Return f^-1(x), and log p(x|u) - log p(f^-1(x)|u) of each sample, shape (n_times,)."""

    @property
    def is_bound(self) -> bool:
        """Whether `log_density` is a bound: exact only while every shape is Gaussian."""
        return bool(np.any(self.prior.shape != 2))

    def fit_prior(self, s: Array, u: Auxiliary) -> LabelPrior:
        """Fit p(z|u) to sources."""
        return LabelPrior.fit(s, u.labels, u.n_labels, with_mean=not u.is_time, shapes=self.shapes)

    def prior_moments(self) -> tuple[Array, Array]:
        """Mean and variance of each component given each label, (n_labels, n_components)."""
        return self.prior.mean, self.prior.variance

    def refit_prior(self, x: Array, u: Auxiliary) -> Self:
        """Return a model with this map and the prior that fits x given u best."""
        other = copy.copy(self)
        other.prior = self.fit_prior(self.encode(x)[0], u)
        return other

    def posterior(self, x: Array, u: Auxiliary | None = None) -> Posterior:
        """q(z|x,u): exact for a Gaussian prior; without u, as for a flat one."""
        return self._posterior(self.encode(x)[0], u)

    def _posterior(self, s: Array, u: Auxiliary | None) -> Posterior:
        if u is None:
            return Posterior(s, np.full_like(s, SIGMA))
        variance = self.prior.variance[u.labels].T
        mean = self.prior.mean[u.labels].T
        gain = variance / (variance + SIGMA**2)
        return Posterior(mean + gain * (s - mean), SIGMA * np.sqrt(gain))

    def elbo(self, x: Array, u: Auxiliary) -> ELBO:
        """Both terms for every sample; their difference is exact for a Gaussian prior."""
        s, log_volume = self.encode(x)
        q = self._posterior(s, u)
        spread = ((s - q.mean) ** 2 + q.scale**2) / SIGMA**2
        reconstruction = log_volume - 0.5 * (np.log(2 * np.pi * SIGMA**2) + spread).sum(axis=0)
        entropy = 0.5 * np.log(2 * np.pi * math.e * q.scale**2).sum(axis=0)
        expected = self.prior.expected_log_prob(q.mean, q.scale, u.labels).sum(axis=0)
        return ELBO(reconstruction, -entropy - expected)

    def sample(self, u: Auxiliary, rng: np.random.Generator) -> tuple[Array, Array]:
        """Draw z from p(z|u) and x from p(x|z)."""
        z = self.prior.sample(u.labels, rng)
        return z, self.decode(z + SIGMA * rng.standard_normal(z.shape))
