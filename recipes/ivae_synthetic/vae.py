"""A plain VAE: the same idea without u. The theorem says that it cannot find the sources."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["PlainVAE"]

N_HIDDEN = 50
BATCH = 256
NOISE_VARIANCE = 0.01


class PlainVAE(nn.Module):
    """p(z) = N(0, 1), p(x|z) a network plus noise of variance .01, q(z|x) a diagonal Gaussian.

    Three layers of 50 leaky ReLUs, Adam at .01 with cosine decay: the widths, the noise and the
    rate with which the iVAE's authors ran their VAE.

    Parameters
    ----------
    n_channels, n_sources : int
        Sizes.
    seed : int
        Of initialisation, batches and draws.
    """

    def __init__(self, n_channels: int, n_sources: int, seed: int) -> None:
        super().__init__()
        self.draws = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.encoder = _network(n_channels, 2 * n_sources)
            self.decoder = _network(n_sources, n_channels)

    def loss(self, x: Tensor) -> Tensor:
        """Minus the ELBO of each sample by one draw, up to a constant, nats."""
        mean, log_variance = self.encoder(x).chunk(2, dim=1)
        noise = torch.randn(mean.shape, generator=self.draws)
        z = mean + (log_variance / 2).exp() * noise
        misfit = (x - self.decoder(z)).square().sum(1) / (2 * NOISE_VARIANCE)
        kl = (log_variance.exp() + mean.square() - 1 - log_variance).sum(1) / 2
        return misfit + kl

    def fit(self, x: NDArray[np.float64], n_steps: int) -> PlainVAE:
        """Train on x of shape (n_samples, n_channels)."""
        samples = torch.tensor(x, dtype=torch.float32)
        optimiser = torch.optim.Adam(self.parameters(), lr=0.01)
        for step in range(n_steps):
            optimiser.param_groups[0]["lr"] = 0.005 * (1 + math.cos(math.pi * step / n_steps))
            batch = torch.randint(len(samples), (BATCH,), generator=self.draws)
            optimiser.zero_grad()
            self.loss(samples[batch]).mean().backward()
            optimiser.step()
        return self

    def transform(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the posterior mean, shape (n_samples, n_sources)."""
        with torch.no_grad():
            mean = self.encoder(torch.tensor(x, dtype=torch.float32)).chunk(2, dim=1)[0]
        return np.asarray(mean.double().numpy())


def _network(n_in: int, n_out: int) -> nn.Sequential:
    def bend() -> nn.Module:
        return nn.LeakyReLU(0.1)

    widths = (nn.Linear(n_in, N_HIDDEN), nn.Linear(N_HIDDEN, N_HIDDEN), nn.Linear(N_HIDDEN, n_out))
    return nn.Sequential(widths[0], bend(), widths[1], bend(), widths[2])
