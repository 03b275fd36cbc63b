"""Plain VAE, beta-VAE and an iVAE from a random start: peers for representations of images.

Encoder and decoder are networks of two hidden layers, the noise of the pixels is learned. The
plain VAE (Kingma & Welling 2014) has N(0, 1) as its prior; the beta-VAE (Higgins et al. 2017)
weighs the KL term by beta; the iVAE (Khemakhem et al. 2020) has a mean and a variance for every
label. No encoder sees the label: one that does would give it away.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["VAE"]

N_HIDDEN = 128
BATCH = 256
RATE = 2e-3


def _network(n_in: int, n_out: int) -> nn.Sequential:
    sizes = (n_in, N_HIDDEN, N_HIDDEN, n_out)
    layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    return nn.Sequential(layers[0], nn.SiLU(), layers[1], nn.SiLU(), layers[2])


class VAE(nn.Module):
    """A VAE with `n_latents`; an iVAE with `n_labels`.

    Parameters
    ----------
    n_pixels, n_latents : int
        Sizes.
    n_labels : int
        Values of u; 0 for none.
    beta : float
        Weight of the KL term.
    n_steps : int
        Minibatches of 256.
    seed : int
        Of the initialisation, the batches and the draws.
    """

    def __init__(
        self,
        n_pixels: int,
        n_latents: int,
        *,
        n_labels: int = 0,
        beta: float = 1.0,
        n_steps: int = 1000,
        seed: int = 0,
    ) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.beta, self.n_steps = beta, n_steps
        self.encoder = _network(n_pixels, 2 * n_latents)
        self.decoder = _network(n_latents, n_pixels)
        self.log_noise = nn.Parameter(torch.zeros(()))
        rows = max(n_labels, 1)
        self.has_labels = n_labels > 0
        self.prior_mean = nn.Parameter(0.1 * torch.randn(rows, n_latents))
        self.prior_log_variance = nn.Parameter(torch.zeros(rows, n_latents))

    def _prior(self, u: Tensor) -> tuple[Tensor, Tensor]:
        if not self.has_labels:
            zero = torch.zeros(len(u), self.prior_mean.shape[1])
            return zero, zero
        return self.prior_mean[u], self.prior_log_variance[u]

    def loss(self, x: Tensor, u: Tensor) -> Tensor:
        """Minus the bound, one draw's worth, nats a sample."""
        mean, log_variance = self.encoder(x).chunk(2, 1)
        z = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        square = (x - self.decoder(z)) ** 2 / self.log_noise.exp()
        error = 0.5 * (square + self.log_noise + math.log(2 * math.pi)).sum(1)
        about, log_width = self._prior(u)
        ratio = (log_variance - log_width).exp() + (mean - about) ** 2 / log_width.exp()
        kl = 0.5 * (ratio - 1 + log_width - log_variance).sum(1)
        return (error + self.beta * kl).mean()

    def fit(self, x: NDArray[np.float64], u: NDArray[np.int64]) -> VAE:
        """Fit to images of shape (n_samples, n_pixels) and their labels."""
        self.centre, self.width = x.mean(0), x.std()
        images, labels = self._tensor(x), torch.tensor(u)
        optimiser = torch.optim.Adam(self.parameters(), lr=RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.n_steps)
        for _ in range(self.n_steps):
            batch = torch.randint(len(images), (min(BATCH, len(images)),))
            optimiser.zero_grad()
            self.loss(images[batch], labels[batch]).backward()
            optimiser.step()
            schedule.step()
        return self

    def _tensor(self, x: NDArray[np.float64]) -> Tensor:
        return torch.tensor((x - self.centre) / self.width, dtype=torch.float32)

    def transform(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Posterior means, (n_samples, n_latents)."""
        with torch.no_grad():
            mean: NDArray[np.float64] = (
                self.encoder(self._tensor(x)).chunk(2, 1)[0].double().numpy()
            )
        return mean
