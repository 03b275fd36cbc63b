"""Several recordings: of one scene by the same sensors, or of the same sources by others."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sourcesep.checks import one_of, whole
from sourcesep.exceptions import SettingsError
from sourcesep.simulate._checks import RandomState, at_least, generator
from sourcesep.simulate.networks import random_network
from sourcesep.simulate.protocols import Protocol

__all__ = ["scenes"]


def scenes(
    n_recordings: int = 2,
    n_sources: int = 5,
    n_segments: int = 40,
    samples_per_segment: int = 500,
    n_layers: int = 3,
    *,
    sensors: Literal["same", "other"] = "same",
    loudness: float = 0.3,
    jitter: float = 0.2,
    gains: ArrayLike | None = None,
    random_state: RandomState = 0,
) -> list[Protocol]:
    """Simulate several recordings of the same sources.

    Sources are white and Gaussian with a standard deviation for each segment, as in
    `ivae`, and so is the map.

    Parameters
    ----------
    n_recordings, n_sources, n_segments, samples_per_segment, n_layers : int
        Sizes; ``n_layers=1`` is a linear mixture.
    sensors : {"same", "other"}
        ``"same"``: one map, and in each recording segments of its own, whose standard
        deviations are drawn from U(0.5, 3). ``"other"``: each recording has a map of its
        own, and segment s means the same in all.
    loudness : float
        Standard deviation of the logarithm of each source's loudness in each recording.
    jitter : float
        Only of other sensors: standard deviation of what a segment's log standard
        deviations differ by from recording to recording.
    gains : array-like of shape (n_recordings, n_sources), optional
        What each source of each recording is multiplied by besides.
    random_state : int or numpy.random.Generator
        Seed; the same with other gains and loudness is the same scene.

    Returns
    -------
    list of Protocol
        Sources, observations, labels and scales of each recording.
    """
    whole(1, n_recordings=n_recordings, n_sources=n_sources, n_layers=n_layers)
    whole(2, n_segments=n_segments, samples_per_segment=samples_per_segment)
    one_of(("same", "other"), sensors=sensors)
    at_least(0, loudness=loudness, jitter=jitter)
    extra = np.ones((n_recordings, n_sources)) if gains is None else np.asarray(gains, np.float64)
    if extra.shape != (n_recordings, n_sources) or not (extra > 0).all():
        raise SettingsError(
            f"gains of shape {extra.shape}: must be ({n_recordings}, {n_sources}), above 0"
        )
    rng = generator(random_state)
    shape = (n_segments, n_sources)
    network = random_network(n_sources, n_layers, rng)
    common = rng.uniform(0.5, 3, shape)
    u = np.repeat(np.arange(n_segments), samples_per_segment)
    recordings = []
    for gain in extra:
        scales: NDArray[np.float64]
        if sensors == "same":
            scales = rng.uniform(0.5, 3, shape)
        else:
            network = random_network(n_sources, n_layers, rng)
            scales = common * np.exp(jitter * rng.standard_normal(shape))
        scales = scales * gain * np.exp(loudness * rng.standard_normal(n_sources))
        sources = scales[u] * rng.standard_normal((len(u), n_sources))
        recordings.append(Protocol(sources, network(sources), u, scales))
    return recordings
