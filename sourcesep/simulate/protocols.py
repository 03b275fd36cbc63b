"""The nonlinear-ICA papers' data, their negative controls, and sources for linear mixtures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sourcesep.checks import one_of, whole
from sourcesep.simulate._checks import RandomState, at_least, generator, positive
from sourcesep.simulate.networks import activate, random_network

__all__ = [
    "LinearKind",
    "Modulation",
    "Protocol",
    "hidden_markov",
    "icebeem",
    "ivae",
    "linear_sources",
    "shuffled_labels",
]

Activation = Literal["xtanh", "leaky-relu", "none"]
Distribution = Literal["gaussian", "laplace"]
Modulation = Literal["independent", "common", "none"]
LinearKind = Literal[
    "uniform",
    "laplace",
    "exponential",
    "ar",
    "modulated",
    "modulated-laplace",
    "mixed",
    "gaussian",
]


@dataclass(frozen=True)
class Protocol:
    """Sources whose scale depends on a label, and what was observed of them.

    Parameters
    ----------
    sources : ndarray of shape (n_samples, n_sources)
        The truth.
    observations : ndarray of shape (n_samples, n_channels)
        Their mixture.
    u : ndarray of int, shape (n_samples,)
        The label of each sample, ``0 .. n_segments - 1``.
    scales : ndarray of shape (n_segments, n_sources)
        The sources' standard deviation under each label.
    network : callable or None
        The map from sources to observations without noise, where `ivae` has drawn it.
    """

    sources: NDArray[np.float64]
    observations: NDArray[np.float64]
    u: NDArray[np.int64]
    scales: NDArray[np.float64]
    network: Callable[[NDArray[np.float64]], NDArray[np.float64]] | None = field(
        default=None, repr=False, compare=False
    )


def ivae(
    n_sources: int = 5,
    n_segments: int = 40,
    samples_per_segment: int = 1000,
    n_layers: int = 3,
    *,
    n_channels: int | None = None,
    source: Distribution = "gaussian",
    activation: Activation = "xtanh",
    slope: float = 0.1,
    noise: float = 0.0,
    modulation: Modulation = "independent",
    reuse_matrix: bool = False,
    random_state: RandomState = 0,
) -> Protocol:
    """Simulate the iVAE paper's data: nonstationary sources through a random network.

    A source is white, with a standard deviation drawn from U(0.5, 3) for each segment.
    A layer is a matrix of U(-1, 1) entries, columns of unit norm, drawn until its
    condition number is in the lowest quarter; all but the last are followed by the
    activation, so that ``n_layers=1`` is a linear mixture.

    Parameters
    ----------
    n_sources, n_segments, samples_per_segment, n_layers : int
        Sizes; the defaults are the paper's.
    n_channels : int or None
        Observed dimensions; None for as many as sources.
    source : {"gaussian", "laplace"}
        Distribution within a segment.
    activation : {"xtanh", "leaky-relu", "none"}
        ``tanh(x) + slope x``, or `slope` on negative values.
    slope : float
        See `activation`.
    noise : float
        Standard deviation of white noise added to each channel, in units of that
        channel's own.
    modulation : {"independent", "common", "none"}
        The last two are negative controls that nothing can separate: all sources share
        one modulation, or have none.
    reuse_matrix : bool
        Use one square matrix in all layers, as the authors' code does; by default each
        layer has its own.
    random_state : int or numpy.random.Generator
        Seed.

    Returns
    -------
    Protocol
        Sources, observations and labels.

    References
    ----------
    Khemakhem, Kingma, Monti & Hyvärinen (2020), Variational autoencoders and
    nonlinear ICA, section 5.1.
    """
    n_channels = n_sources if n_channels is None else n_channels
    whole(1, n_sources=n_sources, n_layers=n_layers)
    whole(n_sources, n_channels=n_channels)
    one_of(get_args(Activation), activation=activation)
    positive(slope=slope)
    at_least(0, noise=noise)
    rng = generator(random_state)
    drawn = _modulated(
        (n_segments, samples_per_segment, n_sources), (0.5, 3.0), source, modulation, rng
    )
    network = random_network(
        n_sources,
        n_layers,
        rng,
        n_channels=n_channels,
        activation=activation,
        slope=slope,
        reuse_matrix=reuse_matrix,
    )
    x = network(drawn.sources)
    if noise > 0:
        x = x + noise * x.std(0) * rng.standard_normal(x.shape)
    return replace(drawn, observations=x, network=network)


def icebeem(
    n_sources: int = 5,
    n_segments: int = 20,
    samples_per_segment: int = 2000,
    n_layers: int = 2,
    *,
    slope: float = 0.2,
    source: Distribution = "gaussian",
    modulation: Modulation = "independent",
    random_state: RandomState = 0,
) -> Protocol:
    """Simulate the ICE-BeeM paper's data: leaky ReLUs between orthogonal matrices.

    Standard deviations are drawn from U(0.01, 3) for each segment. As in the authors'
    code, each of the ``n_layers - 1`` layers is the leaky ReLU followed by a random
    orthogonal matrix.

    Parameters
    ----------
    n_sources, n_segments, samples_per_segment, n_layers : int
        Sizes; the paper has 2 and 4 layers.
    slope : float
        Slope of the leaky ReLU below 0.
    source, modulation, random_state
        As for `ivae`.

    Returns
    -------
    Protocol
        Sources, observations and labels.

    References
    ----------
    Khemakhem, Monti, Kingma & Hyvärinen (2020), ICE-BeeM: identifiable conditional
    energy-based deep models based on nonlinear ICA, section 5.
    """
    whole(2, n_layers=n_layers)
    positive(slope=slope)
    rng = generator(random_state)
    drawn = _modulated(
        (n_segments, samples_per_segment, n_sources), (0.01, 3.0), source, modulation, rng
    )
    x = drawn.sources
    for _ in range(n_layers - 1):
        orthogonal, triangle = np.linalg.qr(rng.standard_normal((n_sources, n_sources)))
        x = activate(x, "leaky-relu", slope) @ (orthogonal * np.sign(np.diag(triangle)))
    return replace(drawn, observations=x)


def hidden_markov(
    n_sources: int = 5,
    n_samples: int = 40_000,
    n_layers: int = 3,
    *,
    n_states: int = 3,
    dwell: float = 500.0,
    activation: Activation = "xtanh",
    slope: float = 0.1,
    random_state: RandomState = 0,
) -> Protocol:
    """Simulate sources that switch between loud and quiet when a hidden chain says so.

    Each source has a Markov chain of its own. Its states are equally frequent, it leaves one
    after `dwell` samples on average, and in a state the source is white and Gaussian with
    the state's standard deviation: equal steps of its logarithm from 0.5 to 3. The mixing
    is that of `ivae`.

    Parameters
    ----------
    n_sources, n_samples, n_layers : int
        Sizes.
    n_states : int
        States of every chain, at least 2.
    dwell : float
        Mean number of samples between two switches of a source, at least 1.
    activation, slope, random_state
        As for `ivae`.

    Returns
    -------
    Protocol
        `u` is the combination of all chains' states: the truth, which a method that is to
        find its own segments must not see. `scales` has a row for each that occurs.

    References
    ----------
    Hälvä, Le Corff, Lehéricy, So, Zhu, Gassiat & Hyvärinen (2021), Disentangling
    identifiable features from noisy data with structured nonlinear ICA: a chain for each
    source, as here, with dynamics within a state, which these data lack.
    """
    whole(1, n_sources=n_sources, n_layers=n_layers)
    whole(2, n_samples=n_samples, n_states=n_states)
    at_least(1, dwell=dwell)
    one_of(get_args(Activation), activation=activation)
    positive(slope=slope)
    rng = generator(random_state)
    levels = np.geomspace(0.5, 3.0, n_states)
    # A switch goes to another state: one step ahead or more, on a ring of all.
    steps = rng.integers(1, n_states, (n_samples, n_sources))
    switches = rng.uniform(size=steps.shape) < 1 / dwell
    begun = rng.integers(n_states, size=n_sources)
    states = (begun + np.cumsum(np.where(switches, steps, 0), axis=0)) % n_states
    combinations, u = np.unique(states, axis=0, return_inverse=True)
    sources = rng.standard_normal(states.shape) * levels[states]
    network = random_network(n_sources, n_layers, rng, activation=activation, slope=slope)
    x = network(sources)
    return Protocol(sources, x, u.astype(np.int64).reshape(-1), levels[combinations])


def shuffled_labels(protocol: Protocol, *, random_state: RandomState = 0) -> Protocol:
    """Permute u over the samples: it then says nothing.

    Parameters
    ----------
    protocol : Protocol
        Data whose u means something.
    random_state : int or numpy.random.Generator
        Seed of the permutation.

    Returns
    -------
    Protocol
        The same sources and observations, with u in another order.
    """
    return replace(protocol, u=generator(random_state).permutation(protocol.u))


def linear_sources(
    kind: LinearKind, n_samples: int, n_sources: int = 4, *, random_state: RandomState = 0
) -> NDArray[np.float64]:
    """Draw independent sources of unit variance, each with one thing that tells them apart.

    Parameters
    ----------
    kind : str
        ``"uniform"``, ``"laplace"`` and ``"exponential"``: white, and not Gaussian; the
        last is skewed. ``"ar"``: Laplace innovations through one pole, another for each
        source. ``"modulated"`` and ``"modulated-laplace"``: white within 40 equal segments,
        with standard deviations from U(0.3, 3). ``"mixed"``: modulated, Laplace, uniform and
        autoregressive in turn. ``"gaussian"``: white and Gaussian, which nothing can
        separate.
    n_samples, n_sources : int
        Sizes.
    random_state : int or numpy.random.Generator
        Seed.

    Returns
    -------
    ndarray of shape (n_sources, n_samples)
        The sources; mix them with a matrix of your own or `instantaneous`.
    """
    one_of(get_args(LinearKind), kind=kind)
    whole(2, n_samples=n_samples)
    whole(1, n_sources=n_sources)
    rng = generator(random_state)
    poles = np.linspace(0.9, -0.4, n_sources) if n_sources > 1 else np.array([0.9])
    turns: tuple[LinearKind, ...] = ("modulated", "laplace", "uniform", "ar")
    rows = [
        _one_source(turns[k % 4] if kind == "mixed" else kind, n_samples, poles[k], rng)
        for k in range(n_sources)
    ]
    sources = np.stack(rows)
    sources -= sources.mean(1, keepdims=True)
    return np.asarray(sources / sources.std(1, keepdims=True))


def _one_source(
    kind: LinearKind, n_samples: int, pole: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    if kind == "uniform":
        return rng.uniform(-1, 1, n_samples)
    if kind == "laplace":
        return rng.laplace(size=n_samples)
    if kind == "exponential":
        return rng.exponential(size=n_samples)
    if kind == "ar":
        from scipy.signal import lfilter

        warm_up = 200
        innovations = rng.laplace(size=warm_up + n_samples)
        return np.asarray(lfilter([1.0], [1.0, -pole], innovations)[warm_up:])
    white = (
        rng.laplace(size=n_samples)
        if kind == "modulated-laplace"
        else rng.standard_normal(n_samples)
    )
    if kind == "gaussian":
        return white
    segment = np.arange(n_samples) * 40 // n_samples
    return white * rng.uniform(0.3, 3, 40)[segment]


def _modulated(
    shape: tuple[int, int, int],
    bounds: tuple[float, float],
    source: str,
    modulation: Modulation,
    rng: np.random.Generator,
) -> Protocol:
    """Draw sources of `shape` (segments, samples a segment, sources); not yet mixed."""
    n_segments, samples_per_segment, n_sources = shape
    whole(1, n_segments=n_segments, n_sources=n_sources)
    whole(2, samples_per_segment=samples_per_segment)
    one_of(get_args(Distribution), source=source)
    one_of(get_args(Modulation), modulation=modulation)
    scales = rng.uniform(*bounds, (n_segments, n_sources))
    if modulation == "common":
        scales = np.repeat(scales[:, :1], n_sources, axis=1)
    elif modulation == "none":
        scales = np.ones_like(scales)
    if source == "gaussian":
        white = rng.standard_normal(shape)
    else:
        white = rng.laplace(0, np.sqrt(0.5), shape)
    sources = (white * scales[:, None]).reshape(-1, n_sources)
    u = np.repeat(np.arange(n_segments), samples_per_segment)
    return Protocol(sources, sources, u, scales)
