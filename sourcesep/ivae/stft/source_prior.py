"""A trained prior of sources: what the power of a sound of some label looks like.

A variational autoencoder of positive features over frames (of a sound, the power in every
frequency bin), given a label u:

    p(z|u)    Gaussian, a mean and a variance for every label and latent
    p(x|z,u)  complex Gaussian of mean 0; its variance comes from z and u by a network
    q(z|x,u)  Gaussian, by a network

Features are the channels of gated convolutions over frames, so that nothing here is about
sound. The multichannel VAE (Kameoka, Li, Inoue & Makino 2019, "Supervised determined source
separation with multichannel variational autoencoder") has a standard normal prior instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sourcesep.ivae.networks import split

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SILENCE", "STRIDE", "Code", "Explained", "Network", "SourcePrior", "Views", "decode"]
__all__ += ["destandardised", "encode", "kl", "named", "standardised"]

Views = dict[str, "Tensor"]

SILENCE = 1e-6
"""Power that is always there, as a share of the mean."""
LEAST_LOG_VARIANCE, MOST_LOG_VARIANCE = -14.0, 12.0
"""Of a feature, where the mean power is 1."""
PRIOR_RANGE = (-6.0, 4.0)
"""Of a latent's log variance given u."""
STRIDE = 2
"""Frames for which there is one vector of latents."""
ENCODER = {"encoder.0": 5, "encoder.1": 4, "encoder.2": 3}
DECODER = {"decoder.0": 3, "decoder.1": 4, "decoder.2": 5}
"""Frames that each layer sees; a layer of 4 goes from frames to latents, or back."""


@dataclass(frozen=True)
class Network:
    """Sizes of the networks.

    Parameters
    ----------
    n_features, n_labels : int
        Of x in a frame, and of u.
    n_hidden, n_latents : int
        Channels between the layers, and latents for every `STRIDE` frames.
    condition_decoder : bool
        Whether the decoder sees the label.
    """

    n_features: int
    n_labels: int
    n_hidden: int = 128
    n_latents: int = 24
    condition_decoder: bool = True

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all parameters, by name."""
        hidden, latents = self.n_hidden, self.n_latents
        shapes: dict[str, tuple[int, ...]] = {
            "prior.mean": (self.n_labels, latents),
            "prior.log_variance": (self.n_labels, latents),
        }
        ends = {
            "encoder.in": (self.n_features, hidden),
            "encoder.out": (hidden, 2 * latents),
            "decoder.out": (hidden, self.n_features),
        }
        for name, (n_in, n_out) in ends.items():
            shapes |= {f"{name}.weight": (n_out, n_in, 1), f"{name}.bias": (1, n_out)}
        for name, width in (ENCODER | DECODER).items():
            n_in = latents if name == "decoder.0" else hidden
            ends_of = (n_in, 2 * hidden) if name == "decoder.1" else (2 * hidden, n_in)
            told = self.condition_decoder or name in ENCODER
            shapes[f"{name}.weight"] = (*ends_of, width)
            shapes[f"{name}.bias"] = (self.n_labels if told else 1, 2 * hidden)
        return shapes


class Code(NamedTuple):
    """q(z|x,u): mean and log variance, each (n, n_latents, n_frames / STRIDE)."""

    mean: Tensor
    log_variance: Tensor


def encode(views: Views, logarithm: Tensor, labels: Tensor) -> Code:
    """q(z|x,u) of standardised log features (n, n_features, n_frames), an even number of frames.

    ``labels`` has one label for each of the n.
    """
    import torch

    x = _linear(views, "encoder.in", logarithm)
    for name in ENCODER:
        x = _gated(views, name, x, labels)
    mean, spread = _linear(views, "encoder.out", x).chunk(2, 1)
    return Code(mean, 6 * torch.tanh(spread / 6) - 1)


def decode(views: Views, z: Tensor, labels: Tensor) -> Tensor:
    """Standardised log variances (n, n_features, n_frames) of p(x|z,u)."""
    for name in DECODER:
        z = _gated(views, name, z, labels)
    return _linear(views, "decoder.out", z)


def kl(views: Views, code: Code, labels: Tensor) -> Tensor:
    """KL(q(z|x,u) || p(z|u)), nats, shaped like the code's mean."""
    mean, log_variance = prior_of(views, labels)
    squares = code.log_variance.exp() + (code.mean - mean).square()
    return (log_variance - code.log_variance + squares * (-log_variance).exp() - 1) / 2


def prior_of(views: Views, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log variance of p(z|u), each (n, n_latents, 1)."""
    log_variance = views["prior.log_variance"][labels].clamp(*PRIOR_RANGE)
    return views["prior.mean"][labels][:, :, None], log_variance[:, :, None]


def _linear(views: Views, name: str, x: Tensor) -> Tensor:
    return views[f"{name}.weight"][:, :, 0] @ x + views[f"{name}.bias"][0][:, None]


def _gated(views: Views, name: str, x: Tensor, labels: Tensor) -> Tensor:
    """Convolve over frames, add what the label says, let one half gate the other."""
    from torch.nn import functional

    weight, bias = views[f"{name}.weight"], views[f"{name}.bias"]
    normal = x
    if name != "decoder.0":
        centred = x - x.mean(1, keepdim=True)
        normal = centred * (centred.square().mean(1, keepdim=True) + 1e-5).rsqrt()
    width = weight.shape[2]
    if name == "decoder.1":
        y = functional.conv_transpose1d(normal, weight, stride=STRIDE, padding=1)
    else:
        stride = STRIDE if name == "encoder.1" else 1
        y = functional.conv1d(normal, weight, stride=stride, padding=(width - 1) // 2)
    told = bias[labels] if len(bias) > 1 else bias
    gated = functional.glu(y + told[:, :, None], 1)
    return gated + x if gated.shape == x.shape else gated


class Explained(NamedTuple):
    """What a prior makes of the power of some sources, each of one label.

    Parameters
    ----------
    variances : ndarray of shape (n, n_frames, n_features)
        Of p(x|z,u) at the mean of q(z|x,u).
    penalty : ndarray of shape (n,)
        -log p(z|u) of that mean, nats.
    """

    variances: NDArray[np.float32]
    penalty: NDArray[np.float64]


@dataclass(frozen=True)
class SourcePrior:
    """A prior of sources that was trained on labelled examples: see `sourcesep.train_prior`.

    Parameters
    ----------
    network : Network
        Sizes.
    tensors : dict of str to ndarray of float32
        Parameters of the network by name; ``offset``, ``centre`` and ``scale`` of every
        feature: the log of its mean power, and mean and deviation of its log power.
    labels : tuple of str
        What u can be.
    sfreq : float
        Samples a second of what it was trained on.
    size : int
        Samples in a window of the transform whose cells it knows.
    likeness : tuple of float
        How well it explains examples that it was not trained on: mean and deviation of
        the evidence (see `trained_variances.lift`), nats a cell.
    card : dict
        What it was trained on, and how well it explains what it was not trained on.
    """

    network: Network
    tensors: dict[str, NDArray[np.float32]] = field(repr=False)
    labels: tuple[str, ...]
    sfreq: float
    size: int
    likeness: tuple[float, float] = (0.0, 0.0)
    card: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        network = self.network
        wanted = network.shapes() | dict.fromkeys(STANDARD, (network.n_features,))
        found = {name: tensor.shape for name, tensor in self.tensors.items()}
        if found != wanted or len(self.labels) != network.n_labels:
            raise ValueError("tensors and labels do not fit the network")
        if any(tensor.dtype != np.float32 for tensor in self.tensors.values()):
            raise ValueError("tensors are not all float32")

    def explain(self, power: NDArray[Any], labels: NDArray[np.int64]) -> Explained:
        """Variances of sources, given what is known of their power.

        Parameters
        ----------
        power : ndarray of shape (n, n_frames, n_features)
            Of every source, in any unit.
        labels : ndarray of int, shape (n,)
            Which label each source has.
        """
        import torch

        n_frames = power.shape[1]
        level = power.mean(axis=(1, 2), keepdims=True) + np.finfo(np.float32).tiny
        x = (power / level).astype(np.float32).transpose(0, 2, 1)
        x = np.pad(x, ((0, 0), (0, 0), (0, n_frames % STRIDE)), mode="edge")
        views = {name: torch.from_numpy(tensor) for name, tensor in self.tensors.items()}
        u = torch.from_numpy(np.asarray(labels, np.int64))
        with torch.inference_mode():
            z = encode(views, standardised(views, torch.from_numpy(x)), u).mean
            log_variances = destandardised(views, decode(views, z, u))
            mean, spread = prior_of(views, u)
            penalty = ((z - mean).square() / spread.exp() + spread).sum((1, 2)) / 2
        variances = log_variances.exp().numpy()[:, :, :n_frames].transpose(0, 2, 1) * level
        return Explained(variances.astype(np.float32), penalty.double().numpy())


STANDARD = ("offset", "centre", "scale")
"""Tensors of a `SourcePrior` that are no parameters: one number a feature."""


def standardised(views: Views, power: Tensor) -> Tensor:
    """Log power as the encoder sees it, (n, n_features, n_frames)."""
    import torch

    return (torch.log(power + SILENCE) - views["centre"][:, None]) / views["scale"][:, None]


def destandardised(views: Views, out: Tensor) -> Tensor:
    """Log variances from what the decoder gives, (n, n_features, n_frames)."""
    log_variance = views["offset"][:, None] + views["scale"][:, None] * out
    return log_variance.clamp(LEAST_LOG_VARIANCE, MOST_LOG_VARIANCE)


def named(parameters: Tensor, network: Network) -> Views:
    """Parameters of one row by name, in its memory."""
    return {name: view[0] for name, view in split(parameters, network.shapes()).items()}
