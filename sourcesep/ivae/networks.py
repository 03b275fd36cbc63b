"""Encoder, decoder and prior of the `amortised` family, as networks side by side.

Several restarts are one object: the first axis of every tensor is the restart, the last
the sample, and all parameters of a restart are one row, as `sourcesep.ivae.training`
wants them. A network that sees `kernel_size` samples is a convolution: the neighbours of
a sample are stacked as further rows of its input.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Self

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "LEAST_LOG_VARIANCE",
    "MOST_LOG_VARIANCE",
    "Architecture",
    "Autoencoder",
    "Code",
    "contexts",
    "draw",
    "layer_shapes",
    "perceptron",
    "size",
    "split",
]

START_SPREAD = math.log(0.2)
"""Log standard deviation of the posterior, in units of the source's, before training."""
SMALL = 0.1
"""Last layers start this much smaller than others, so that skips rule at first."""
LEAST_LOG_NOISE, MOST_LOG_NOISE = -9.0, 2.0
"""Of the noise's log variance, where a channel's own variance is 1: 1 % of the deviation
is the least, or the bound would reward a decoder that copies."""
LEAST_LOG_VARIANCE, MOST_LOG_VARIANCE = -8.0, 6.0
"""Of a source given u, where its overall variance is about 1."""


@dataclass(frozen=True)
class Architecture:
    """Sizes of the networks, and what they see.

    Parameters
    ----------
    n_channels, n_components : int
        Of x and z.
    n_labels : int
        Rows of the prior's table; 0 if the prior is a network.
    n_covariates : int
        Inputs of the prior's network; 0 if the prior is a table.
    kernel_size : int
        Samples of x that the encoder, and of z that the decoder, sees: odd.
    with_mean : bool
        Whether the prior has a mean; it is 0 otherwise.
    condition_decoder : bool
        Whether the decoder sees the prior's moments: p(x|z,u).
    with_missing : bool
        Whether the encoder sees which entries of x are missing.
    n_hidden : tuple of int
        Units of a hidden layer of the encoder, the decoder and the prior's network.
    """

    n_channels: int
    n_components: int
    n_labels: int
    n_covariates: int = 0
    kernel_size: int = 1
    with_mean: bool = False
    condition_decoder: bool = False
    with_missing: bool = False
    n_hidden: tuple[int, int, int] = (64, 48, 16)

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Self:
        """Rebuild from what `dataclasses.asdict` gave, perhaps by way of JSON."""
        return cls(**facts | {"n_hidden": tuple(facts["n_hidden"])})

    @property
    def n_moments(self) -> int:
        """Numbers by which a network is told of u: the prior's log variances and means."""
        return self.n_components * (2 if self.with_mean else 1)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of one restart's parameters, by name."""
        n, d, k = self.n_channels, self.n_components, self.kernel_size
        n_seen = k * n * (2 if self.with_missing else 1)
        n_decoded = k * d + self.n_moments * self.condition_decoder
        encoder, decoder, prior = self.n_hidden
        layers = {
            "encoder": (n_seen + d + self.n_moments, encoder, encoder, d + d * (d + 1) // 2),
            "decoder": (n_decoded, decoder, decoder, n),
        }
        shapes: dict[str, tuple[int, ...]] = {"noise": (n, 1), "decoder.skip": (n, n_decoded)}
        if self.n_covariates:
            layers["prior"] = (self.n_covariates, prior, prior, self.n_moments)
        else:
            shapes["prior"] = (self.n_moments, self.n_labels)
        for name, widths in layers.items():
            shapes |= layer_shapes(name, widths)
        return shapes


@dataclass(frozen=True)
class Code:
    """q(z|x,u): Gaussian with a full covariance over the components of a sample.

    Parameters
    ----------
    mean : Tensor, shape (n_restarts, n_components, n_samples)
    lower : Tensor, shape (n_restarts, n_components, n_components, n_samples)
        Cholesky factor of the covariance.
    log_det : Tensor, shape (n_restarts, n_samples)
        Log-determinant of that factor.
    """

    mean: Tensor
    lower: Tensor
    log_det: Tensor

    def draw(self, noise: Tensor) -> Tensor:
        """z from standard normal `noise`, both (n_restarts, n_components, n_draws, n_samples)."""
        return self.mean[:, :, None] + (self.lower[:, :, :, None] * noise[:, None]).sum(2)

    @property
    def scale(self) -> Tensor:
        """Standard deviation of every component, shaped like `mean`."""
        return self.lower.square().sum(2).sqrt()


class Autoencoder:
    """Restarts of a prior, an encoder and a decoder with noise in every channel.

    Parameters
    ----------
    parameters : Tensor, shape (n_restarts, n_parameters)
        Not copied: who changes it changes the networks.
    architecture : Architecture
        What they are.
    """

    def __init__(self, parameters: Tensor, architecture: Architecture) -> None:
        import torch

        self.parameters = parameters
        self.architecture = architecture
        self.views = split(parameters, architecture.shapes())
        rows, columns = np.tril_indices(architecture.n_components)
        d = architecture.n_components
        where = np.full((d, d), len(rows))  # entries above the diagonal: a row of zeros
        where[rows, columns] = np.arange(len(rows))
        self._entries = torch.tensor(where.ravel(), device=parameters.device)
        self._diagonal = torch.tensor(where.diagonal().copy(), device=parameters.device)

    @classmethod
    def draw(
        cls, architecture: Architecture, n_restarts: int, generator: torch.Generator
    ) -> Autoencoder:
        """Start with random networks whose last layers are small, and no skip."""
        import torch

        net = cls(torch.zeros(n_restarts, size(architecture.shapes())), architecture)
        draw(net.views, generator)
        d = architecture.n_components
        net.views["encoder.bias2"][:, d + net._diagonal] = START_SPREAD
        return net

    @property
    def n_restarts(self) -> int:
        """Models side by side."""
        return len(self.parameters)

    def with_parameters(self, parameters: Tensor) -> Autoencoder:
        """Return networks of this shape with other parameters: device, fewer restarts."""
        return Autoencoder(parameters, self.architecture)

    def with_labels(self, table: Tensor) -> Autoencoder:
        """Return this map with another table (n_restarts, n_moments, n_labels) for the prior."""
        import torch

        architecture = dataclasses.replace(
            self.architecture, n_labels=table.shape[2], n_covariates=0
        )
        views = self.views | {"prior": table}
        flat = torch.cat([views[name].flatten(1) for name in architecture.shapes()], 1)
        return Autoencoder(flat, architecture)

    def moments(self, u: Tensor) -> Tensor:
        """Log variances, then means if there are any: (n_restarts, n_moments, n_samples).

        u are labels of shape (n_samples,), or covariates (n_covariates, n_samples).
        """
        import torch

        if self.architecture.n_covariates:
            u = u.expand(self.n_restarts, -1, -1)
            return self.bounded(perceptron(self.views, "prior", u, torch.tanh))
        return self.bounded(self.views["prior"][:, :, u])

    def bounded(self, moments: Tensor) -> Tensor:
        """Moments with their log variances kept within bounds."""
        import torch

        d = self.architecture.n_components
        log_variance = moments[:, :d].clamp(LEAST_LOG_VARIANCE, MOST_LOG_VARIANCE)
        return torch.cat((log_variance, moments[:, d:]), 1)

    @property
    def log_noise(self) -> Tensor:
        """Log variance of each channel's noise, (n_restarts, n_channels, 1)."""
        return self.views["noise"].clamp(LEAST_LOG_NOISE, MOST_LOG_NOISE)

    def encode(self, seen: Tensor, start: Tensor, moments: Tensor) -> Code:
        """q(z|x,u), a correction of the start.

        Parameters
        ----------
        seen : Tensor, shape (n_seen, n_samples)
            x in context, and which entries are there if that is seen.
        start : Tensor, shape (n_components, n_samples)
            What is known of z before.
        moments : Tensor, shape (n_restarts, n_moments, n_samples)
            Of the prior.
        """
        import torch
        from torch.nn.functional import silu

        d = self.architecture.n_components
        same = torch.cat((seen, start)).expand(self.n_restarts, -1, -1)
        inputs = torch.cat((same, moments), 1)
        out = perceptron(self.views, "encoder", inputs, silu)
        entries = out[:, d:]
        log_diagonal = entries[:, self._diagonal]
        entries = entries.index_copy(1, self._diagonal, log_diagonal.exp())
        entries = torch.cat((entries, torch.zeros_like(entries[:, :1])), 1)
        lower = entries[:, self._entries].reshape(self.n_restarts, d, d, -1)
        return Code(start + out[:, :d], lower, log_diagonal.sum(1))

    def decode(self, z: Tensor, moments: Tensor) -> Tensor:
        """Mean of p(x|z,u) from z in context, (n_restarts, n_channels, n_samples)."""
        import torch

        if self.architecture.condition_decoder:
            z = torch.cat((z, moments), 1)
        return perceptron(self.views, "decoder", z, torch.tanh) + self.views["decoder.skip"] @ z


def layer_shapes(name: str, widths: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights and biases of a `perceptron` with these widths."""
    shapes: dict[str, tuple[int, ...]] = {}
    for i, (n_in, n_out) in enumerate(pairwise(widths)):
        shapes[f"{name}.weight{i}"] = (n_out, n_in)
        shapes[f"{name}.bias{i}"] = (n_out, 1)
    return shapes


def size(shapes: dict[str, tuple[int, ...]]) -> int:
    """Number of parameters."""
    return sum(math.prod(shape) for shape in shapes.values())


def split(parameters: Tensor, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Name the parts of (n_restarts, n_parameters): (n_restarts, *shape) in its memory."""
    import torch

    parts = torch.split(parameters, [math.prod(shape) for shape in shapes.values()], dim=1)
    return {
        name: part.view(len(parameters), *shape)
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }


def draw(views: dict[str, Tensor], generator: torch.Generator) -> None:
    """Draw the layers of perceptrons, in place: unit gain, and a small last layer."""
    import torch

    for name, view in views.items():
        if "weight" in name:
            view.copy_(torch.randn(view.shape, generator=generator))
            view.mul_((SMALL if name.endswith("2") else 1.0) / math.sqrt(view.shape[-1]))
        elif name.endswith(("bias0", "bias1")):
            view.copy_(torch.randn(view.shape, generator=generator) / 2)


def perceptron(
    views: dict[str, Tensor], name: str, x: Tensor, bend: Callable[[Tensor], Tensor]
) -> Tensor:
    """Two hidden layers, bent by `bend`, and a linear one."""
    import torch

    for i in range(3):
        x = torch.baddbmm(views[f"{name}.bias{i}"], views[f"{name}.weight{i}"], x)
        x = bend(x) if i < 2 else x
    return x


def contexts(signal: Tensor, kernel_size: int) -> Tensor:
    """Stack neighbours: (..., n_rows, n_windows, length) with margins to rows and samples.

    Returns
    -------
    Tensor, shape (..., n_rows * kernel_size, n_windows * (length - kernel_size + 1))
    """
    stacked = signal.unfold(-1, kernel_size, 1).movedim(-1, -3)
    return stacked.flatten(-4, -3).flatten(-2)
