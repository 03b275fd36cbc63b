"""Halves of the data find sources again, and find nothing in what has no sources."""

import numpy as np
import pytest

from sourcesep import auxiliary, simulate
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.matrices.starts import STARTS
from sourcesep.ivae.reproducibility import split_half_correlations
from sourcesep.recording import from_array


def correlations(sources, start):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((len(sources), len(sources))) @ sources
    u = auxiliary.build("segments:.5,2", from_array(x, 100.0))
    model = LinearModel(starts=(start,), shapes=(2.0,)).fit(x, u, rng)
    z = model.posterior(x).mean
    return split_half_correlations(x, z, u, STARTS[start], rng, n_splits=2)


@pytest.mark.parametrize("start", ["segments", "bands"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sources_are_found_again_and_noise_is_not(start, seed):
    modulated = simulate.linear_sources("modulated", 8000, 4, random_state=seed)
    white = np.random.default_rng(seed).standard_normal((4, 8000))
    assert correlations(modulated, start).min() > 0.98
    assert correlations(white, start).mean() < 0.9


def test_what_cannot_be_halved_is_not_called_reliable():
    # one loud sample a channel: no half of the data hears all of them
    x = np.zeros((3, 400))
    x[[0, 1, 2], [10, 150, 300]] = 1.0
    assert not correlations(x, "segments").any()
