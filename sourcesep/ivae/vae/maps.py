"""The kinds of map that the `amortised` family may have: a matrix, a flow, or networks.

All know standardised x and the prior as a table with a row for every sample, and answer
in the same words.
"""

from __future__ import annotations

import copy
import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from sourcesep.ivae.model import ELBO, Array, State
from sourcesep.ivae.networks import Architecture, Autoencoder
from sourcesep.ivae.prior_tables import overall
from sourcesep.ivae.priors import LabelPrior
from sourcesep.ivae.vae.latent_start import LatentStart
from sourcesep.ivae.vae.smoothing import Smoothed, smooth

if TYPE_CHECKING:
    from sourcesep.ivae.coupling import CouplingModel
    from sourcesep.ivae.vae.inference import Inference

__all__ = [
    "FlowMap",
    "MatrixMap",
    "NetworkMap",
    "NoisyMap",
    "map_from_state",
    "table_of",
]

MOST_AVERAGED = 4
"""Restarts of a flow that are freed of noise one by one: each takes as long as the first."""
FARTHEST = 50.0
"""Standard deviations of a channel beyond which networks are not asked: they would overflow."""
CHUNK = 4096
"""Samples that are freed at once: what they take stays in the processor's cache."""


def table_of(prior: LabelPrior, *, with_mean: bool) -> Array:
    """Log variances, then means, of every row of a prior: (n_moments, n_rows)."""
    columns = [np.log(prior.variance)] + [prior.mean] * with_mean
    table: Array = np.concatenate(columns, axis=1).T
    return table


class NoisyMap(ABC):
    """x = f(z) + noise, and what is known of z once x is seen.

    x is (n_channels, n_times) with channels of about mean 0 and variance 1, NaN where
    missing. `prior` is a table of moments, `rows` the row of every sample in it.
    """

    candidate: ClassVar[str]
    """The name by which a family tries it."""
    start: LatentStart
    n_rounds: ClassVar[int] = 10
    """Of encoding and of fitting the prior to what is encoded, for another prior."""

    @property
    @abstractmethod
    def choice(self) -> str:
        """What it is, in plain words."""

    @property
    @abstractmethod
    def noise(self) -> Array:
        """Variance of the noise in every channel, (n_channels,)."""

    @abstractmethod
    def decode(self, z: Array, prior: LabelPrior, rows: NDArray[np.int64]) -> Array:
        """f(z), (n_channels, n_times)."""

    def draw(
        self, z: Array, prior: LabelPrior, rows: NDArray[np.int64], rng: np.random.Generator
    ) -> Array:
        """Draw x from p(x|z), (n_channels, n_times)."""
        x = self.decode(z, prior, rows)
        return x + np.sqrt(self.noise)[:, None] * rng.standard_normal(x.shape)

    @abstractmethod
    def encode(self, x: Array, prior: LabelPrior, rows: NDArray[np.int64]) -> tuple[Array, Array]:
        """Mean and standard deviation of q(z|x,u), each (n_components, n_times)."""

    @abstractmethod
    def infer(self, x: Array, prior: LabelPrior, rows: NDArray[np.int64]) -> tuple[Array, Array]:
        """The same of p(z|x,u), as well as can be."""

    @abstractmethod
    def elbo(self, x: Array, prior: LabelPrior, rows: NDArray[np.int64]) -> ELBO:
        """Both terms of the bound of q."""

    @abstractmethod
    def log_density(self, x: Array, prior: LabelPrior, rows: NDArray[np.int64]) -> Array:
        """log p(x|u) of the entries that are there, or the best bound, (n_times,)."""

    @abstractmethod
    def state(self) -> State:
        """Everything needed to rebuild the map."""


@dataclass(frozen=True)
class MatrixMap(NoisyMap):
    """f is the start's matrix, so that everything is exact (but for a non-Gaussian prior)."""

    candidate: ClassVar[str] = "linear"
    choice: ClassVar[str] = "a linear decoder"
    start: LatentStart

    @property
    def noise(self) -> Array:
        """Variance of the noise in every channel, (n_channels,)."""
        return self.start.linear.noise

    def decode(self, z: Array, prior: LabelPrior, rows: NDArray[np.int64]) -> Array:
        """f(z), (n_channels, n_times)."""
        x: Array = self.start.linear.mixing @ z
        return x

    def encode(self, x: Array, prior: LabelPrior, rows: NDArray[np.int64]) -> tuple[Array, Array]:
        """Mean and standard deviation of the exact posterior."""
        return self.start.linear.infer(x, prior, rows)[:2]

    infer = encode

    def elbo(self, x: Array, prior: LabelPrior, rows: NDArray[np.int64]) -> ELBO:
        """Both terms; their difference is the log density."""
        return self.start.linear.elbo(x, prior, rows)

    def log_density(self, x: Array, prior: LabelPrior, rows: NDArray[np.int64]) -> Array:
        """log p(x|u) of the entries that are there, (n_times,)."""
        return self.start.linear.infer(x, prior, rows).log_density

    def state(self) -> State:
        """Everything needed to rebuild the map."""
        return self.start.state()


@dataclass(frozen=True)
class FlowMap(NoisyMap):
    """f is the inverse of a flow, with the same noise on every channel.

    Components of the flow that are no sources are inferred beside them, by a prior that u
    does not move.

    Parameters
    ----------
    start : LatentStart
        With a flow.
    variance : float
        Of the noise, where a channel's own is 1.
    """

    candidate: ClassVar[str] = "flow"
    start: LatentStart
    variance: float
    n_rounds: ClassVar[int] = 2

    @property
    def choice(self) -> str:
        """What it is, in plain words."""
        noise = 100 * np.sqrt(self.variance)
        return f"the inverse of a flow, with noise of {noise:.3g} % on every channel"

    @property
    def flow(self) -> CouplingModel:
        """The flow."""
        return cast("CouplingModel", self.start.flow)

    @property
    def noise(self) -> Array:
        """Variance of the noise in every channel, (n_channels,)."""
        return np.full(self.flow.n_channels, self.variance)

    def decode(self, z: Array, prior: LabelPrior, rows: NDArray[np.int64]) -> Array:
        """f(z), the flow's other components at their mean, (n_channels, n_times)."""
        mean, _ = self._among_others(z, np.zeros_like(z))
        return self.flow.decode(mean)

    def draw(
        self, z: Array, prior: LabelPrior, rows: NDArray[np.int64], rng: np.random.Generator
    ) -> Array:
        """Draw x from p(x|z), and the flow's other components from their prior for it."""
        mean, scale = self._among_others(z, np.zeros_like(z))
        x = self.flow.decode(mean + scale * rng.standard_normal(mean.shape))
        return x + np.sqrt(self.noise)[:, None] * rng.standard_normal(x.shape)

    def encode(self, x: Array, prior: LabelPrior, rows: NDArray[np.int64]) -> tuple[Array, Array]:
        """Mean and standard deviation of p(z|x,u) by the best restart."""
        return self._smooth(x, prior, rows)[:2]

    def infer(self, x: Array, prior: LabelPrior, rows: NDArray[np.int64]) -> tuple[Array, Array]:
        """The same, the mean over the best restarts."""
        n_restarts = min(MOST_AVERAGED, len(self.flow.replicas(np.zeros((len(x), 1)))))
        every = [self._smooth(x, prior, rows, r)[:2] for r in range(n_restarts)]
        mean, scale = np.mean(every, axis=0)
        return mean, scale

    def elbo(self, x: Array, prior: LabelPrior, rows: NDArray[np.int64]) -> ELBO:
        """Both terms of the bound of weighted draws."""
        found = self._smooth(x, prior, rows)
        return ELBO(found.reconstruction, found.reconstruction - found.log_density)

    def log_density(self, x: Array, prior: LabelPrior, rows: NDArray[np.int64]) -> Array:
        """The importance-weighted bound, (n_times,)."""
        return self._smooth(x, prior, rows).log_density

    def _smooth(
        self,
        x: Array,
        prior: LabelPrior,
        rows: NDArray[np.int64],
        restart: int | None = None,
    ) -> Smoothed:
        """By one restart; each has draws of its own, so that their mean has more of them."""
        flow = self.flow if restart is None else _restart(self.flow, restart)
        centre, width = self._among_others(prior.mean[rows].T, np.sqrt(prior.variance[rows]).T)
        likely = None
        if not np.isfinite(x).all():
            likely = self.start.linear.mixing @ self.start.by_matrix(x), np.ones(len(x))
        found, deviation = [], np.sqrt(self.noise)
        for begin in range(0, x.shape[1], CHUNK):
            part = slice(begin, begin + CHUNK)
            noiseless = _Noiseless(flow, centre[:, part], width[:, part])
            guess = likely and (likely[0][:, part], likely[1])
            found.append(smooth(noiseless, x[:, part], deviation, guess, seed=restart or 0))
        mean, scale, *rest = (np.concatenate(one, axis=-1) for one in zip(*found, strict=True))
        chosen = list(self.start.chosen)
        return Smoothed(mean[chosen], scale[chosen], *rest)

    def _among_others(self, mean: Array, scale: Array) -> tuple[Array, Array]:
        """Moments of every component of the flow from those of the sources."""
        moments = overall(self.flow.prior)
        every = [np.repeat(row[:, None], mean.shape[1], axis=1) for row in moments]
        every[1] = np.sqrt(every[1])
        for whole, part in zip(every, (mean, scale), strict=True):
            whole[list(self.start.chosen)] = part
        return every[0], every[1]

    def state(self) -> State:
        """Everything needed to rebuild the map."""
        start = self.start.state()
        return State(start.tensors, start.facts | {"variance": self.variance})


@dataclass(frozen=True)
class _Noiseless:
    """z, and the log density of an x without noise, by a flow and Gaussians for every sample."""

    flow: CouplingModel
    centre: Array
    width: Array

    def __call__(self, x: Array) -> tuple[Array, Array]:
        z, log_det = self.flow.encode(x)
        square = np.square((z - self.centre) / self.width)
        density = -0.5 * (square + np.log(2 * np.pi * np.square(self.width))).sum(axis=0)
        return z, density + log_det


def _restart(model: CouplingModel, r: int) -> CouplingModel:
    """One restart of a flow, by itself."""
    one = copy.copy(model)
    one.flow = model.flow.with_parameters(model.flow.parameters[r : r + 1])
    return one


@dataclass(frozen=True)
class NetworkMap(NoisyMap):
    """f is a decoder network, and q an encoder network with a full covariance.

    Parameters
    ----------
    net : Autoencoder
        Of one restart, on the CPU.
    start : LatentStart
        First guess of z, which the encoder corrects.
    seed : int
        Of the draws from q.
    """

    candidate: ClassVar[str] = "networks"
    net: Autoencoder
    start: LatentStart
    seed: int

    @property
    def choice(self) -> str:
        """What it is, in plain words."""
        start = "a matrix" if self.start.flow is None else "a flow"
        kernel_size = self.net.architecture.kernel_size
        seen = f"{kernel_size} sample{'s' if kernel_size > 1 else ''}"
        return f"networks of {seen}, started by {start}"

    @property
    def sees_neighbours(self) -> bool:
        """Whether samples hang together, so that they cannot be weighted one by one."""
        return self.net.architecture.kernel_size > 1

    @property
    def noise(self) -> Array:
        """Variance of the noise in every channel, (n_channels,)."""
        noise: Array = self.net.log_noise[0, :, 0].double().exp().numpy()
        return noise

    def decode(self, z: Array, prior: LabelPrior, rows: NDArray[np.int64]) -> Array:
        """f(z), (n_channels, n_times)."""
        import torch

        from sourcesep.ivae.networks import contexts

        margin = self.net.architecture.kernel_size // 2
        padded = np.pad(z, ((0, 0), (margin, margin)), mode="edge")
        like = self.net.parameters
        stacked = contexts(torch.tensor(padded).to(like)[None, :, None], 2 * margin + 1)
        table = torch.tensor(table_of(prior, with_mean=self.net.architecture.with_mean)).to(like)
        told = self.net.bounded(table[None][:, :, torch.tensor(rows)])
        with torch.no_grad():
            x: Array = self.net.decode(stacked, told)[0].double().numpy()
        return x

    def encode(self, x: Array, prior: LabelPrior, rows: NDArray[np.int64]) -> tuple[Array, Array]:
        """Mean and standard deviation of q(z|x,u), each (n_components, n_times)."""
        return self._inference(x, prior, rows).codes()[:2]

    def infer(self, x: Array, prior: LabelPrior, rows: NDArray[np.int64]) -> tuple[Array, Array]:
        """The same by weighted draws; of q itself where samples hang together."""
        if self.sees_neighbours:
            return self.encode(x, prior, rows)
        return self._inference(x, prior, rows).weighted()[:2]

    def elbo(self, x: Array, prior: LabelPrior, rows: NDArray[np.int64]) -> ELBO:
        """Both terms of the bound of q, the first by draws."""
        inference = self._inference(x, prior, rows)
        mean, scale, entropy = inference.codes()
        expected = prior.expected_log_prob(mean, scale, rows).sum(axis=0)
        return ELBO(inference.reconstruction(), -entropy - expected)

    def log_density(self, x: Array, prior: LabelPrior, rows: NDArray[np.int64]) -> Array:
        """The importance-weighted bound; the ELBO where samples hang together."""
        if self.sees_neighbours:
            return self.elbo(x, prior, rows).per_sample
        return self._inference(x, prior, rows).weighted()[2]

    def _inference(self, x: Array, prior: LabelPrior, rows: NDArray[np.int64]) -> Inference:
        import torch

        from sourcesep.ivae.vae.bound import Observed
        from sourcesep.ivae.vae.inference import Inference

        table = torch.tensor(table_of(prior, with_mean=self.net.architecture.with_mean))
        net = self.net.with_labels(table[None].to(self.net.parameters))
        x = np.clip(x, -FARTHEST, FARTHEST)
        observed = Observed(x, self.start(x), rows, net)
        return Inference(net, observed, prior.shape, self.seed)

    def state(self) -> State:
        """Everything needed to rebuild the map."""
        start = self.start.state()
        facts = {
            "architecture": dataclasses.asdict(self.net.architecture),
            "seed": self.seed,
        }
        return State(
            start.tensors | {"net": self.net.parameters.numpy()}, start.facts | {"net": facts}
        )


def map_from_state(state: State) -> MatrixMap | FlowMap | NetworkMap:
    """Rebuild a map from its `state`."""
    start = LatentStart.from_state(state)
    if "variance" in state.facts:
        return FlowMap(start, state.facts["variance"])
    facts: dict[str, Any] | None = state.facts.get("net")
    if facts is None:
        return MatrixMap(start)
    import torch

    architecture = Architecture.from_facts(facts["architecture"])
    net = Autoencoder(torch.tensor(state.tensors["net"]), architecture)
    return NetworkMap(net, start, facts["seed"])
