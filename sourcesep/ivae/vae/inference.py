"""What a trained encoder and decoder say of a record: q(z|x,u), the ELBO, and better ones.

Draws from q are weighted by how well they explain x (importance sampling), which makes
up for much of what an amortised posterior misses. All of a record gets the same draws, by
quasi Monte Carlo: the answer for one sample depends on nothing but that sample and its u.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from sourcesep.ivae.model import Array
from sourcesep.ivae.networks import Autoencoder
from sourcesep.ivae.vae.bound import Observed
from sourcesep.ivae.vae.smoothing import WIDER, normal_points

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Inference"]

N_DRAWS = 128
"""For weights: a power of 2, for which Sobol points are balanced."""
N_ELBO_DRAWS = 32
"""For an expectation, which needs fewer."""
CHUNK = 1024
"""Samples at once: the memory that draws take is bounded."""


class Inference:
    """q(z|x,u) of a record, by one restart.

    Parameters
    ----------
    net : Autoencoder
        Of one restart.
    observed : Observed
        The record.
    shape : ndarray of shape (n_components,)
        Exponents of the prior.
    seed : int
        Of the draws.
    """

    def __init__(self, net: Autoencoder, observed: Observed, shape: Array, seed: int) -> None:
        self._net = net
        self._observed = observed
        self._shape = torch.tensor(shape).to(net.parameters)
        self._seed = seed

    def _parts(self) -> Iterator[tuple[Tensor, int]]:
        """Where stretches begin, and how long they are."""
        n_times = self._observed.n_times
        for begin in range(0, n_times, CHUNK):
            yield torch.tensor([begin]), min(CHUNK, n_times - begin)

    def _noise(self, length: int, n_draws: int) -> Tensor:
        """Standard normal numbers, (1, n_components, n_draws, length with margins)."""
        d, margin = self._net.architecture.n_components, self._observed.margin
        if margin:  # neighbours' draws must not hang together
            generator = torch.Generator().manual_seed(self._seed)
            return torch.randn((1, d, n_draws, length + 2 * margin), generator=generator)
        normal = torch.tensor(normal_points(d, n_draws, self._seed).T).to(self._shape)
        return normal[None, :, :, None].expand(-1, -1, -1, length)

    def codes(self) -> tuple[Array, Array, Array]:
        """Mean and standard deviation of q, (n_components, n_times); its entropy, (n_times,)."""
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        inner = slice(self._observed.margin, None)
        with torch.no_grad():
            for begin, length in self._parts():
                moments = self._observed.moments(self._net, begin, length)
                code = self._observed.encode(self._net, begin, length, moments)
                parts = (code.mean[0], code.scale[0], code.log_det[0])
                found.append(tuple(part[..., inner][..., :length] for part in parts))  # type: ignore[arg-type]
        mean, scale, log_det = (
            torch.cat(part, -1).double().numpy() for part in zip(*found, strict=True)
        )
        return mean, scale, log_det + 0.5 * len(mean) * math.log(2 * math.pi * math.e)

    def reconstruction(self) -> Array:
        """E_q[log p(x|z,u)], (n_times,)."""
        found = []
        with torch.no_grad():
            for begin, length in self._parts():
                noise = self._noise(length, N_ELBO_DRAWS)
                terms = self._observed.terms(self._net, begin, length, noise, self._shape)
                found.append(terms.likelihood[0, :, 0].mean(0))
        value: Array = torch.cat(found).double().numpy()
        return value

    def weighted(self) -> tuple[Array, Array, Array]:
        """Mean and standard deviation of z under p(z|x,u), and a bound on log p(x|u).

        Self-normalised weights, truncated where a single draw would decide (Ionides
        2008, "Truncated importance sampling"); the bound is of the full weights. Only
        where samples do not hang together.
        """
        d = self._net.architecture.n_components
        found = []
        with torch.no_grad():
            for begin, length in self._parts():
                noise = WIDER * self._noise(length, N_DRAWS)
                moments = self._observed.moments(self._net, begin, length)
                code = self._observed.encode(self._net, begin, length, moments)
                z = code.draw(noise)[0]
                terms = self._observed.terms(self._net, begin, length, noise, self._shape)
                wider = 0.5 * (1 - WIDER**-2) * noise.square().sum(1) - d * math.log(WIDER)
                posterior = terms.posterior[0, :, 0] + wider[0]
                log_weight = terms.likelihood[0, :, 0] + terms.prior[0, :, 0] - posterior
                bound = torch.logsumexp(log_weight, 0) - math.log(N_DRAWS)
                weight = (log_weight - bound).clamp_max(0.5 * math.log(N_DRAWS)).softmax(0)
                centre = (weight * z).sum(1)
                variance = (weight * (z - centre[:, None]).square()).sum(1)
                # the fewer draws have a say, the less they know of the width
                variance = torch.lerp(variance, code.scale[0].square(), weight.square().sum(0))
                found.append((centre, variance.sqrt(), bound))
        mean, scale, density = (
            torch.cat(part, -1).double().numpy() for part in zip(*found, strict=True)
        )
        return mean, scale, density
