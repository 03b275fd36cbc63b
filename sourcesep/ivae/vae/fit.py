"""How the networks of the `amortised` family are trained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from sourcesep.auxiliary import Auxiliary
from sourcesep.ivae.model import Array
from sourcesep.ivae.networks import Architecture, Autoencoder
from sourcesep.ivae.prior_tables import Prior
from sourcesep.ivae.priors import LabelPrior, spread
from sourcesep.ivae.settings import GAUSSIAN
from sourcesep.ivae.training import History, Schedule, train
from sourcesep.ivae.vae.bound import Bound, Observed, Reconstruction
from sourcesep.ivae.vae.candidates import Candidate, choose_noise, score
from sourcesep.ivae.vae.latent_start import MARGIN, LatentStart
from sourcesep.ivae.vae.maps import NetworkMap, table_of
from sourcesep.ivae.vae.prior_network import NetworkPrior, standardised

if TYPE_CHECKING:
    from torch import Tensor

    from sourcesep.ivae.coupling import CouplingModel

__all__ = ["Plan", "fit_best", "fit_networks"]

REGRESSION = 400
"""Steps of the decoder on the start, at most."""
LEARNING_RATE = 5e-3
WARM_UP = 0.05
LOOSER = 0.015
"""Nats a component by which the bound of networks that are as near to the sources as a flow's
inverse is looser than that."""
MORE_NOISE = 0.01
"""Added to what the decoder leaves of a channel of variance 1: more noise than there is lets
the encoder find its way."""


@dataclass(frozen=True)
class Plan:
    """Settings of a fit.

    Parameters
    ----------
    kernel_size : int
        Samples that the networks see.
    condition_decoder : bool
        Whether the decoder sees u.
    n_restarts : int
        Of the flow.
    n_steps : int
        Minibatches of the networks, unless they are given up before; half as many for the flow.
    device : str
        Where they are trained.
    """

    kernel_size: int
    condition_decoder: bool
    n_restarts: int
    n_steps: int
    device: str


def fit_best(
    names: tuple[str, ...],
    matrix: Candidate,
    plan: Plan,
    x: Array,
    u: Auxiliary,
    held: NDArray[np.bool_],
    rng: np.random.Generator,
    *,
    flow: CouplingModel | None,
) -> tuple[Candidate, dict[str, float]]:
    """Fit the candidates of these names, and keep the likeliest.

    A matrix is given up for `MARGIN` nats a sample. A flow's inverse is preferred to networks
    for `LOOSER` nats a component. A flow is tried, and networks start by it, where samples are
    seen one by one and all are there.

    Parameters
    ----------
    names : tuple of str
        Of "linear", "flow" and "networks".
    matrix : Candidate
        The linear one.
    plan, x, u, held, rng
        As for `fit_networks`.
    flow : CouplingModel or None
        Fitted to these samples of x, but for those held out: takes the place of another.

    Returns
    -------
    best : Candidate
    scores : dict of str to float
        Held-out log density of each, nats a sample of standardised x.
    """
    start, scores, found = matrix.map.start, {}, {"linear": matrix}
    if "linear" in names:
        scores["linear"] = score(matrix, x, u, held, with_spectra=plan.kernel_size > 1)
    more = set(names) != {"linear"} and plan.kernel_size == 1 and start.linear.n_components > 1
    if more and np.isfinite(x).all():
        if flow is None:
            start = start.with_flow(
                *(x, u, held, rng),
                n_restarts=plan.n_restarts,
                n_steps=plan.n_steps // 2,
                device=plan.device,
            )
        else:
            start = replace(start, flow=flow, chosen=tuple(range(flow.n_components)))
        if "flow" in names and start.flow is not None and u.covariates is None:
            found["flow"] = noisy = choose_noise(start, x, u, held)
            scores["flow"] = noisy.density
    ahead = {"linear": MARGIN, "flow": -LOOSER * start.linear.n_components}
    if "networks" in names or not scores:
        rivals = [scores[name] + ahead[name] for name in scores]
        target = max(rivals, default=-np.inf)
        found["networks"] = fit_networks(start, plan, x, u, held, rng, target=target)
        history = found["networks"].history
        given_up = history.n_steps < plan.n_steps
        scores["networks"] = (
            float(history.elbo.max()) if given_up else score(found["networks"], x, u, held)
        )
    best = max(scores, key=lambda name: scores[name] + ahead.get(name, 0.0))
    return found[best], scores


def fit_networks(
    start: LatentStart,
    plan: Plan,
    x: Array,
    u: Auxiliary,
    held: NDArray[np.bool_],
    rng: np.random.Generator,
    *,
    target: float,
) -> Candidate:
    """Train networks from the linear candidate, or from a flow.

    Parameters
    ----------
    start : LatentStart
        First guesses of z.
    plan : Plan
        What networks, and how long they are trained.
    x : ndarray of shape (n_channels, n_times)
        Each channel of mean 0 and variance 1; NaN where missing.
    u : Auxiliary
        Every sample has a label.
    held : ndarray of bool, shape (n_times,)
        Samples that are not trained on.
    rng : numpy.random.Generator
        For every random choice.
    target : float
        Held-out log density below which they would not be kept, nats a sample.
    """
    z = start(x)
    prior, inputs = _first_prior(z, u, held, rng)
    architecture = Architecture(
        len(x),
        len(z),
        n_labels=u.n_labels if u.covariates is None else 0,
        n_covariates=0 if u.covariates is None else len(inputs),
        kernel_size=plan.kernel_size,
        with_mean=not u.is_time,
        condition_decoder=plan.condition_decoder,
        with_missing=not np.isfinite(x).all(),
    )
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    with torch.no_grad():
        net = Autoencoder.draw(architecture, 1, generator)
        _set_skip(net, x, z)
        _set_prior(net, prior)
        net = net.with_parameters(net.parameters.to(plan.device))
        history = _train(
            net, Observed(x, z, inputs, net), held, generator, plan, prior.shape, target
        )
        net = net.with_parameters(net.parameters.cpu())
        prior = _prior_in(net, prior)
    return Candidate(NetworkMap(net, start, int(rng.integers(2**31))), prior, history)


def _first_prior(
    z: Array, u: Auxiliary, held: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[Prior, NDArray[np.generic]]:
    """The prior of first guesses, and what networks see of u: labels, or covariates as rows."""
    free = u.take(~held)
    if u.covariates is None:
        table = LabelPrior.fit(
            z[:, ~held], free.labels, u.n_labels, with_mean=not u.is_time, shapes=GAUSSIAN
        )
        return table, u.labels
    prior = NetworkPrior.fit(z[:, ~held], free, rng)
    return prior, standardised(u.covariates, prior.centre, prior.width)


def _train(
    net: Autoencoder,
    observed: Observed,
    held: NDArray[np.bool_],
    generator: torch.Generator,
    plan: Plan,
    shape: Array,
    target: float,
) -> History:
    """Train the decoder on first guesses of z, and then all networks on the bound, in place."""
    n_steps = plan.n_steps
    regression = Reconstruction(net, observed, held, generator)
    train(regression, Schedule(min(REGRESSION, n_steps), LEARNING_RATE))
    net.views["noise"].copy_((regression.noise_left() + MORE_NOISE).log()[..., None])
    bound = Bound(net, observed, held, generator, shape, n_steps)
    return train(bound, Schedule(n_steps, LEARNING_RATE, warm_up=WARM_UP), target=target)


def _set_skip(net: Autoencoder, x: Array, z: Array) -> None:
    """Start the decoder at the best matrix from z to x, without memory."""
    kernel_size = net.architecture.kernel_size
    seen = np.isfinite(x).all(axis=0)
    if not seen.any():
        return
    matrix = np.linalg.lstsq(z[:, seen].T, x[:, seen].T, rcond=None)[0].T
    middle = slice(kernel_size // 2, len(z) * kernel_size, kernel_size)
    net.views["decoder.skip"][:, :, middle] = torch.tensor(matrix).to(net.parameters)


def _prior_weights(net: Autoencoder) -> list[Tensor]:
    return [net.views[f"prior.{kind}{i}"] for i in range(3) for kind in ("weight", "bias")]


def _set_prior(net: Autoencoder, prior: Prior) -> None:
    """Start the networks' prior at this one."""
    if isinstance(prior, NetworkPrior):
        for view, value in zip(_prior_weights(net), prior.weights, strict=True):
            view.copy_(torch.tensor(value))
    else:
        table = table_of(prior, with_mean=net.architecture.with_mean)
        net.views["prior"].copy_(torch.tensor(table))


def _prior_in(net: Autoencoder, start: Prior) -> Prior:
    """Return the prior that has been trained, in the form of the one it started at."""
    if isinstance(start, NetworkPrior):
        weights = tuple(view[0].double().numpy() for view in _prior_weights(net))
        return NetworkPrior(weights, start.centre, start.width, start.table)
    every = net.moments(torch.arange(start.n_labels))[0].double().numpy()
    d = len(start.shape)
    mean = every[d:].T if net.architecture.with_mean else np.zeros_like(start.mean)
    return LabelPrior(mean, np.exp(0.5 * every[:d]).T / spread(start.shape), start.shape)
