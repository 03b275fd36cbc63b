"""The iVAE as it was published, and the plain VAE: peers of the `nonlinear` family.

Written anew after Khemakhem et al. (2020, arXiv:1907.04809) and the settings of their public
code (github.com/ilkhem/iVAE, class ``iVAE`` and ``IVAE_wrapper``): encoder mean, encoder
log-variance, decoder and the prior's log-variance are four networks of three layers with 50
leaky ReLUs (slope .1) each; the prior's mean is 0 and its network sees u as one-hot; the
posterior is a diagonal Gaussian and also sees u; the decoder's noise variance is fixed at
.01; Xavier initialisation; one posterior draw a sample; Adam at .01, batches of 256, the rate
divided by 10 whenever the loss has not fallen for 3 epochs. There training always takes
70 000 steps; here it ends when the rate has fallen below 1e-6, or at `N_STEPS`.

The plain VAE is the same with no u anywhere and N(0, 1) as its prior: the theorem says that
it cannot find the sources.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["VAE"]

N_STEPS = 20_000
N_HIDDEN = 50
SLOPE = 0.1
NOISE_VARIANCE = 0.01
BATCH = 256
LEAST_RATE = 1e-6


def _network(n_in: int, n_out: int) -> nn.Sequential:
    layers = [nn.Linear(n_in, N_HIDDEN), nn.Linear(N_HIDDEN, N_HIDDEN), nn.Linear(N_HIDDEN, n_out)]
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
    bend = nn.LeakyReLU(SLOPE)
    return nn.Sequential(layers[0], bend, layers[1], bend, layers[2])


def _log_normal(x: Tensor, mean: Tensor | float, log_variance: Tensor) -> Tensor:
    square = (x - mean) ** 2 / log_variance.exp()
    return -0.5 * (math.log(2 * math.pi) + log_variance + square).sum(1)


class VAE(nn.Module):
    """The published iVAE with `n_labels`, the plain VAE without.

    Parameters
    ----------
    n_channels, n_sources : int
        Sizes.
    n_labels : int
        Values of u; 0 for the plain VAE.
    seed : int
        Of the initialisation, the batches and the draws.
    """

    def __init__(self, n_channels: int, n_sources: int, n_labels: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.n_labels = n_labels
        self.mean = _network(n_channels + n_labels, n_sources)
        self.log_variance = _network(n_channels + n_labels, n_sources)
        self.decoder = _network(n_sources, n_channels)
        self.prior = _network(n_labels, n_sources) if n_labels else None

    def _seen(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder sees, and what the prior does."""
        one_hot = nn.functional.one_hot(u, self.n_labels).to(x) if self.n_labels else x[:, :0]
        return torch.cat((x, one_hot), 1), one_hot

    def elbo(self, x: Tensor, u: Tensor) -> Tensor:
        """One draw's worth of it for every sample, nats."""
        seen, one_hot = self._seen(x, u)
        mean, log_variance = self.mean(seen), self.log_variance(seen)
        z = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        prior = torch.zeros_like(z) if self.prior is None else self.prior(one_hot)
        noise = torch.full_like(x, math.log(NOISE_VARIANCE))
        reconstruction = _log_normal(x, self.decoder(z), noise)
        return reconstruction + _log_normal(z, 0.0, prior) - _log_normal(z, mean, log_variance)

    def fit(self, x: NDArray[np.float64], u: NDArray[np.int64]) -> VAE:
        """Fit to x of shape (n_channels, n_times) and its labels."""
        samples, labels = torch.tensor(x.T, dtype=torch.float32), torch.tensor(u)
        optimiser = torch.optim.Adam(self.parameters(), lr=1e-2)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.1, patience=3)
        n_done = 0
        while n_done < N_STEPS and optimiser.param_groups[0]["lr"] > LEAST_RATE:
            losses = []
            for batch in torch.randperm(len(samples)).split(BATCH):
                optimiser.zero_grad()
                loss = -self.elbo(samples[batch], labels[batch]).mean()
                loss.backward()
                optimiser.step()
                losses.append(float(loss.detach()))
            n_done += len(losses)
            schedule.step(float(np.mean(losses)))
        return self

    def posterior_mean(self, x: NDArray[np.float64], u: NDArray[np.int64]) -> NDArray[np.float64]:
        """Sources of shape (n_sources, n_times)."""
        seen, _ = self._seen(torch.tensor(x.T, dtype=torch.float32), torch.tensor(u))
        with torch.no_grad():
            mean: NDArray[np.float64] = self.mean(seen).double().numpy().T
        return mean
