"""What the `amortised` family minimises: minus the importance-weighted bound on log p(x|u)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.special import gammaln

from sourcesep.ivae.heldout import looked_at
from sourcesep.ivae.model import Array
from sourcesep.ivae.networks import Autoencoder, Code, contexts
from sourcesep.ivae.priors import spread
from sourcesep.ivae.training import PILOT

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["Bound", "Observed", "Reconstruction", "Terms", "log_prior"]

BATCH = 1000
"""Samples of a minibatch."""
WINDOW = 64
"""Samples of a window, where the networks see more than one."""
N_DRAWS = 4
"""Draws from q for each sample in the importance-weighted part of the training."""
WARM = 0.3
"""Share of the training on the plain ELBO, one draw, before importance weights: they say
little while q is far off."""
HELD_OUT_DRAWS = 16
"""Draws for each held-out sample, by which the states of a training are compared."""


@dataclass(frozen=True)
class Terms:
    """Logarithms of the densities of one draw, each (n_restarts, n_draws, n_windows, length)."""

    likelihood: Tensor
    prior: Tensor
    posterior: Tensor


class Observed:
    """A record as the networks see it: with margins, cut into windows on demand.

    Parameters
    ----------
    x : ndarray of shape (n_channels, n_times)
        Standardised; NaN where missing.
    start : ndarray of shape (n_components, n_times)
        What is known of z before, by every restart.
    u : ndarray
        Labels (n_times,), or covariates (n_covariates, n_times).
    net : Autoencoder
        By whose kernel, device and precision.
    """

    def __init__(self, x: Array, start: Array, u: NDArray[np.generic], net: Autoencoder) -> None:
        self.kernel_size = net.architecture.kernel_size
        self.margin = self.kernel_size // 2
        self.n_times = x.shape[1]
        like = net.parameters

        def padded(signal: NDArray[np.generic]) -> Tensor:
            pad = [(0, 0)] * (signal.ndim - 1) + [(2 * self.margin,) * 2]
            return torch.tensor(np.pad(signal, pad, mode="edge")).to(like.device)

        there = np.isfinite(x)
        self._x = padded(np.where(there, x, 0.0)).to(like)
        self._there = None if there.all() else padded(there).to(like)
        self._seen = self._x
        if net.architecture.with_missing:
            self._seen = torch.cat((self._x, padded(there).to(like)))
        self._start = padded(start).to(like)
        u_padded = padded(u)
        self._u = u_padded.to(like) if u_padded.is_floating_point() else u_padded

    def errors(
        self, net: Autoencoder, z: Tensor, moments: Tensor, begins: Tensor, length: int
    ) -> Tensor:
        """x less its mean given z, (n_restarts, n_channels, n_draws, n_windows, length).

        z is (n_restarts, n_components, n_draws, n_windows, length and margins), the moments
        are (n_restarts, n_moments, n_windows, length).
        """
        n_draws, n_windows = z.shape[2:4]
        stacked = contexts(z.flatten(2, 3), self.kernel_size)
        told = moments[:, :, None].expand(-1, -1, n_draws, -1, -1).flatten(2)
        decoded = net.decode(stacked, told)
        decoded = decoded.reshape(*decoded.shape[:2], n_draws, n_windows, length)
        return self._x[:, self._centres(begins, length)][:, None] - decoded

    def there(self, begins: Tensor, length: int) -> Tensor | float:
        """Which entries of windows are not missing, (n_channels, 1, n_windows, length)."""
        if self._there is None:
            return 1.0
        return self._there[:, self._centres(begins, length)][:, None]

    def _centres(self, begins: Tensor, length: int) -> Tensor:
        return begins[:, None] + 2 * self.margin + _count(length, begins)

    def moments(self, net: Autoencoder, begins: Tensor, length: int) -> Tensor:
        """The prior's, of windows with margins, (n_restarts, n_moments, n_windows, length)."""
        where = begins[:, None] + self.margin + _count(length + 2 * self.margin, begins)
        moments = net.moments(self._u[..., where.flatten()])
        return moments.reshape(*moments.shape[:2], *where.shape)

    def start(self, begins: Tensor, length: int) -> Tensor:
        """The start of windows with margins, (n_components, n_windows, length)."""
        where = begins[:, None] + self.margin + _count(length + 2 * self.margin, begins)
        return self._start[:, where]

    def encode(self, net: Autoencoder, begins: Tensor, length: int, moments: Tensor) -> Code:
        """q(z|x,u) of windows with margins, window after window."""
        wide = begins[:, None] + _count(length + 4 * self.margin, begins)
        seen = contexts(self._seen[:, wide], self.kernel_size)
        return net.encode(seen, self.start(begins, length).flatten(1), moments.flatten(2))

    def terms(
        self, net: Autoencoder, begins: Tensor, length: int, noise: Tensor, shape: Tensor
    ) -> Terms:
        """Encode, draw and decode windows that begin at `begins`.

        `noise` is standard normal, (n_restarts, n_components, n_draws, samples with margins);
        `shape` is the prior's exponent for every component.
        """
        h, d = self.margin, net.architecture.n_components
        wide = (len(begins), length + 2 * h)
        inner = slice(h, h + length)
        moments = self.moments(net, begins, length)
        code = self.encode(net, begins, length, moments)
        z = code.draw(noise)
        z = z.reshape(*z.shape[:3], *wide)
        inner_moments = moments[..., inner]
        log_noise = net.log_noise[..., None, None]
        square = self.errors(net, z, inner_moments, begins, length).square()
        density = -0.5 * (square * (-log_noise).exp() + log_noise + math.log(2 * math.pi))
        likelihood = (density * self.there(begins, length)).sum(1)
        told = inner_moments[:, :, None]
        centred = z[..., inner]
        if net.architecture.with_mean:
            centred = centred - told[:, d:]
        prior = log_prior(centred, told[:, :d], shape).sum(1)
        entropy = 0.5 * (noise.square() + math.log(2 * math.pi)).sum(1) + code.log_det[:, None]
        entropy = entropy.reshape(*entropy.shape[:2], *wide)
        return Terms(likelihood, prior, -entropy[..., inner])


def _count(length: int, like: Tensor) -> Tensor:
    return torch.arange(length, device=like.device)


def log_prior(z: Tensor, log_variance: Tensor, shape: Tensor) -> Tensor:
    """Log density of generalised Gaussians of mean 0; components on axis 1."""
    p = shape.reshape(1, -1, *[1] * (z.ndim - 2))
    q = shape.double().cpu().numpy()
    constant = torch.tensor(np.log(q / 2) - gammaln(1 / q) + np.log(spread(q))).to(z)
    log_ratio_scale = torch.tensor(np.log(spread(q))).to(z).reshape(p.shape)
    ratio = z.abs() * (log_ratio_scale - 0.5 * log_variance).exp()
    power = ratio.square() if bool((shape == 2).all()) else ratio.clamp_min(1e-6) ** p
    return constant.reshape(p.shape) - 0.5 * log_variance - power


class Minibatches:
    """Random windows of a record, and those with held-out samples.

    Parameters
    ----------
    net : Autoencoder
        To be trained, in place.
    observed : Observed
        The samples of the fit.
    held : ndarray of bool, shape (n_times,)
        Samples whose likelihood is never trained on.
    generator : torch.Generator
        Draws the minibatches; on the CPU, so that every device sees the same.
    """

    tracked: tuple[Tensor, ...] = ()

    def __init__(
        self,
        net: Autoencoder,
        observed: Observed,
        held: NDArray[np.bool_],
        generator: torch.Generator,
    ) -> None:
        self.net = net
        self.parameters = net.parameters
        self.observed = observed
        self.generator = generator
        device = net.parameters.device
        self.is_pointwise = observed.margin == 0
        self.length = 1 if self.is_pointwise else min(WINDOW, observed.n_times)
        self._free = torch.tensor(~held, device=device)
        begins = np.arange(observed.n_times - self.length + 1)
        self._begins = torch.tensor(begins[~held] if self.is_pointwise else begins)
        told = np.flatnonzero(held) if self.is_pointwise else begins[:: self.length]
        self.held_begins = torch.tensor(looked_at(told, self.length), device=device)

    def draw(self) -> Tensor:
        """Where the windows of a fresh minibatch begin."""
        n_windows = max(1, BATCH // self.length)
        pick = torch.randint(len(self._begins), (n_windows,), generator=self.generator)
        return self._begins[pick].to(self.parameters.device)

    def free(self, begins: Tensor) -> Tensor:
        """Which samples of windows are not held out, (n_windows, length)."""
        return self._free[begins[:, None] + _count(self.length, begins)]

    def held_mean(self, value: Tensor) -> Tensor:
        """Mean over the held-out samples of (n_restarts, n_windows, length)."""
        held = ~self.free(self.held_begins)
        return (value * held).sum((1, 2)) / held.sum()

    def noise(self, n_windows: int, n_draws: int) -> Tensor:
        """Standard normal numbers for windows with margins."""
        samples = n_windows * (self.length + 2 * self.observed.margin)
        shape = (self.net.n_restarts, self.net.architecture.n_components, n_draws, samples)
        return torch.randn(shape, generator=self.generator).to(self.parameters)

    def gradient(self, loss: Callable[[Autoencoder], Tensor]) -> tuple[Tensor, Tensor]:
        """Loss of every restart and its gradient."""
        with torch.enable_grad():
            flat = self.parameters.detach().requires_grad_()
            value = loss(self.net.with_parameters(flat))
            (gradient,) = torch.autograd.grad(value.sum(), flat)
        return value.detach(), gradient


class Reconstruction(Minibatches):
    """An `Objective`: the squared error of decoding, summed over the channels.

    All channels count alike: a likelihood that learns the noise of each prefers to bend
    the codes for a few of them, and what is bent is harder to separate. z is the start, so
    that the decoder alone is trained.
    """

    def _power(self, net: Autoencoder, begins: Tensor, keep: Tensor) -> Tensor:
        """What is left of every channel in the samples to keep, (n_restarts, n_channels)."""
        observed, length = self.observed, self.length
        moments = observed.moments(net, begins, length)
        z = observed.start(begins, length).expand(net.n_restarts, -1, -1, -1)
        inner = moments[..., observed.margin : observed.margin + length]
        errors = observed.errors(net, z[:, :, None], inner, begins, length)
        weight = (keep * observed.there(begins, length)).expand_as(errors[0])
        return (errors.square() * weight).sum((2, 3, 4)) / weight.sum((1, 2, 3))

    def step(self) -> tuple[Tensor, Tensor]:
        """Loss of a fresh minibatch, (n_restarts,), and its gradient."""
        begins = self.draw()
        keep = self.free(begins)
        return self.gradient(lambda net: self._power(net, begins, keep).sum(1))

    def noise_left(self) -> Tensor:
        """What is left of every channel in the held-out samples, (n_restarts, n_channels)."""
        with torch.no_grad():
            return self._power(self.net, self.held_begins, ~self.free(self.held_begins))

    def held_out(self) -> tuple[Tensor, Tensor]:
        """Minus the squared error on the held-out samples, and no KL."""
        value = -self.noise_left().sum(1)
        return value, torch.zeros_like(value)


class Bound(Minibatches):
    """An `Objective`: minus the ELBO at first, then minus the importance-weighted bound.

    Importance weights are those of one sample (Burda, Grosse & Salakhutdinov 2016,
    arXiv:1509.00519, eq. 8). With a kernel, where samples hang together, it is the plain
    ELBO throughout: weights of whole windows would all but vanish.

    Parameters
    ----------
    shape : ndarray of shape (n_components,)
        Exponents of the prior.
    n_steps : int
        Of the whole training.
    """

    def __init__(
        self,
        net: Autoencoder,
        observed: Observed,
        held: NDArray[np.bool_],
        generator: torch.Generator,
        shape: Array,
        n_steps: int,
    ) -> None:
        super().__init__(net, observed, held, generator)
        self._shape = torch.tensor(shape).to(net.parameters)
        self._warm = int(WARM * n_steps) if self.is_pointwise else n_steps
        self._done = -PILOT
        self._held_noise = self.noise(len(self.held_begins), HELD_OUT_DRAWS)

    def step(self) -> tuple[Tensor, Tensor]:
        """Loss of a fresh minibatch, (n_restarts,), and its gradient."""
        self._done += 1
        n_draws = N_DRAWS if self._done > self._warm else 1
        begins = self.draw()
        free, noise = self.free(begins), self.noise(len(begins), n_draws)

        def loss(net: Autoencoder) -> Tensor:
            terms = self.observed.terms(net, begins, self.length, noise, self._shape)
            weight = (terms.likelihood * free + terms.prior - terms.posterior).sum(3)
            bound = torch.logsumexp(weight, 1) - math.log(n_draws)
            return -bound.mean(1) / self.length

        return self.gradient(loss)

    def held_out(self) -> tuple[Tensor, Tensor]:
        """Reconstruction, and what the bound is less than it, on the held-out samples.

        Where samples are weighted one by one their difference is the importance-weighted
        bound, the ELBO of a richer posterior (Cremer, Morris & Duvenaud 2017,
        arXiv:1704.02916).
        """
        with torch.no_grad():
            terms = self.observed.terms(
                self.net, self.held_begins, self.length, self._held_noise, self._shape
            )
            reconstruction = terms.likelihood.mean(1)
            weight = terms.likelihood + terms.prior - terms.posterior
            bound = weight.mean(1)
            if self.is_pointwise:
                bound = torch.logsumexp(weight, 1) - math.log(HELD_OUT_DRAWS)
        value = self.held_mean(reconstruction)
        return value, value - self.held_mean(bound)
