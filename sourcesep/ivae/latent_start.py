"""First guesses of z from x alone, from which the `amortised` family sets out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.coupling import CouplingModel
from sourcesep.ivae.linear_gaussian import LinearGaussian
from sourcesep.ivae.model import Array, State
from sourcesep.ivae.networks import Architecture, Autoencoder
from sourcesep.ivae.training import Schedule, train

__all__ = ["MARGIN", "LatentStart"]

MARGIN = 0.02
"""Least gain in held-out log-likelihood, nats a sample, for which a matrix is given up."""
N_FLOWS = 2
"""Restarts of the flow; their consensus is the start."""


@dataclass(frozen=True)
class LatentStart:
    """z by a matrix, by a flow, or by a flow behind a compression.

    With fewer sources than channels x lies near a curved surface that principal
    directions may fold: an autoencoder, which knows nothing of u, flattens it first, and
    the flow separates its codes.

    Parameters
    ----------
    linear : LinearGaussian
        The matrix.
    moments : tuple of two ndarray of shape (n_components,)
        Mean and variance of its sources over all labels.
    flow : CouplingModel or None
        Separates x, or the compression's codes.
    compression : Autoencoder or None
        Whose encoder makes as many codes as there are sources.
    """

    linear: LinearGaussian
    moments: tuple[Array, Array]
    flow: CouplingModel | None = None
    compression: Autoencoder | None = None

    def by_matrix(self, x: Array) -> Array:
        """z by the matrix, (n_components, n_times); missing entries of x say nothing."""
        mean, variance = (np.broadcast_to(m[:, None], (len(m), x.shape[1])) for m in self.moments)
        return self.linear.posterior(x, mean, variance)[0]

    def __call__(self, x: Array) -> Array:
        """First guess of z, (n_components, n_times)."""
        z = self.by_matrix(x)
        if self.flow is None:
            return z
        there = np.isfinite(x)
        if not there.all():
            x = np.where(there, x, self.linear.mixing @ z)
        found = self.flow.posterior(self._compressed(x, z)).mean
        return np.clip(found, -FARTHEST, FARTHEST)

    def _compressed(self, x: Array, z: Array) -> Array:
        if self.compression is None:
            return x
        from sourcesep.ivae.bound import Observed
        from sourcesep.ivae.inference import Inference

        observed = Observed(x, z, np.zeros(x.shape[1], np.int64), self.compression)
        return Inference(self.compression, observed, np.full(len(z), 2.0), 0).codes()[0]

    def with_flow(
        self,
        x: Array,
        u: Auxiliary,
        held: NDArray[np.bool_],
        rng: np.random.Generator,
        *,
        n_steps: int,
        device: str,
    ) -> Self:
        """Return the start with a flow if that explains held-out samples better.

        Parameters
        ----------
        x : ndarray of shape (n_channels, n_times)
            Complete, each channel of mean 0 and variance 1.
        u : Auxiliary
            Every sample has a label.
        held : ndarray of bool, shape (n_times,)
            Samples that are not fitted on.
        rng : numpy.random.Generator
            For every random choice.
        n_steps : int
            Minibatches for the flow, and twice as many for a compression.
        device : str
            Where both are trained.
        """
        z = self.by_matrix(x)
        compression = None
        if len(z) < len(x):
            compression = _compress(x, z, held, rng, 2 * n_steps, device)
        tried = dataclasses.replace(self, compression=compression)
        y = tried._compressed(x, z)
        flow = CouplingModel(len(z), n_restarts=N_FLOWS, n_steps=n_steps, device=device)
        flow.fit(y[:, ~held], u.take(~held), rng)
        unseen = u.take(held)
        gain = flow.log_density(y[:, held], unseen) - flow.linear.log_density(y[:, held], unseen)
        return dataclasses.replace(tried, flow=flow) if gain.mean() > MARGIN else self

    def state(self) -> State:
        """Everything needed to rebuild it."""
        tensors: dict[str, NDArray[Any]] = {
            "mixing": self.linear.mixing,
            "noise": self.linear.noise,
            "mean": self.moments[0],
            "variance": self.moments[1],
        }
        facts: dict[str, Any] = {"flow": None, "compression": None}
        if self.flow is not None:
            flow = self.flow.state()
            tensors |= {f"flow.{name}": value for name, value in flow.tensors.items()}
            facts["flow"] = flow.facts
        if self.compression is not None:
            tensors["compression"] = self.compression.parameters.numpy()
            facts["compression"] = dataclasses.asdict(self.compression.architecture)
        return State(tensors, facts)

    @classmethod
    def from_state(cls, state: State) -> Self:
        """Rebuild a start from `state`."""
        import torch

        tensors, facts = state.tensors, state.facts
        flow = compression = None
        if facts["flow"] is not None:
            inner = {
                name.removeprefix("flow."): value
                for name, value in tensors.items()
                if name.startswith("flow.")
            }
            flow = CouplingModel.from_state(State(inner, facts["flow"]))
        if facts["compression"] is not None:
            architecture = Architecture.from_facts(facts["compression"])
            compression = Autoencoder(torch.tensor(tensors["compression"]), architecture)
        linear = LinearGaussian(tensors["mixing"], tensors["noise"])
        return cls(linear, (tensors["mean"], tensors["variance"]), flow, compression)


FARTHEST = 6.0
"""Standard deviations beyond which a flow may only have lost its way."""


def _compress(
    x: Array,
    z: Array,
    held: NDArray[np.bool_],
    rng: np.random.Generator,
    n_steps: int,
    device: str,
) -> Autoencoder:
    """Train an autoencoder with as many codes as there are sources."""
    import torch

    from sourcesep.ivae.bound import Observed, Reconstruction

    architecture = Architecture(len(x), len(z), 1, n_hidden=(64, 64, 1))
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    with torch.no_grad():
        net = Autoencoder.draw(architecture, 1, generator)
        skip = np.linalg.lstsq(z.T, x.T, rcond=None)[0].T
        net.views["decoder.skip"].copy_(torch.tensor(skip))
        net = net.with_parameters(net.parameters.to(device))
        observed = Observed(x, z, np.zeros(x.shape[1], np.int64), net)
        objective = Reconstruction(net, observed, held, generator, encoded=True)
        train(objective, Schedule(n_steps, learning_rate=1e-2))
        return net.with_parameters(net.parameters.cpu())
