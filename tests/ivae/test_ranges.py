"""Where components lie, and what a wild row may not do."""

import numpy as np
import pytest

from sourcesep.ivae.coupling import CouplingModel
from sourcesep.ivae.ranges import (
    clipped_where_wild,
    left_aside,
    medians_where_wild,
    winsorised_range,
)
from sourcesep.metrics import mcc
from sourcesep.simulate import scenes

from ..conftest import labelled

SEEDS = pytest.mark.parametrize("seed", [0, 1, 2])


@SEEDS
def test_a_single_row_moves_no_range(seed):
    z = np.random.default_rng(seed).standard_normal((3, 500))
    wild = z.copy()
    wild[:, 7] = [1e6, -1e6, 1e3]
    before, after = winsorised_range(z), winsorised_range(wild)
    assert np.abs(after - before).max() < 1
    assert np.ptp(wild) > 1e6  # the range of everything would have moved


@SEEDS
def test_a_range_holds_all_but_one_in_ten_thousand(seed):
    z = np.random.default_rng(seed).standard_normal((2, 30_000))
    low, high = winsorised_range(z)
    out = (z < low[:, None]) | (z > high[:, None])
    assert (out.sum(axis=1) == 2 * left_aside(30_000)).all()
    assert left_aside(30_000) == 3
    assert left_aside(2) == 0


@SEEDS
def test_only_what_is_wild_is_drawn_in(seed):
    z = np.random.default_rng(seed).laplace(size=(3, 2000))
    span = winsorised_range(z)
    assert clipped_where_wild(z, span) is z
    assert medians_where_wild(z) is z
    wild = z.copy()
    wild[1, 5] = 1e9
    tame = clipped_where_wild(wild, span)
    assert np.argwhere(tame != wild).tolist() == [[1, 5]]
    assert tame[1, 5] == span[1, 1]
    calm = medians_where_wild(wild)
    assert np.flatnonzero((calm != wild).any(axis=0)).tolist() == [5]
    np.testing.assert_allclose(calm[:, 5], np.median(wild, axis=1))


def fitted(x, labels, n_restarts=1):
    u = labelled(labels)
    model = CouplingModel(n_restarts=n_restarts, n_steps=400, n_blocks=6, device="cpu")
    return model.fit(x, u, np.random.default_rng(0)), u


@pytest.mark.parametrize("n_restarts", [1, 2])
def test_a_wild_row_ruins_neither_fit_nor_use(n_restarts):
    (data,) = scenes(1, 3, 20, 200, 2, random_state=5)
    x, kept = data.observations.T, np.arange(len(data.u)) != 777
    clean, _ = fitted(x, data.u, n_restarts)
    wild = x.copy()
    wild[:, 777] *= 1e6
    spoilt, _ = fitted(wild, data.u, n_restarts)
    score, other = (mcc(data.sources[kept], m.posterior(x).mean.T[kept]) for m in (clean, spoilt))
    assert score > 0.95
    assert other > score - 0.01
    # a consensus, and a single restart, keep the row within reach of the others
    z = clean.posterior(wild).mean
    assert np.abs(z).max() < 3 * np.abs(z[:, kept]).max()
    assert mcc(data.sources, z.T) > score - 0.01
    assert np.abs(clean.latents(wild)).max() > 10 * np.abs(z).max()


@pytest.mark.parametrize("seed", [6, 7])
def test_going_on_from_a_map_keeps_every_index_and_gains(seed):
    a, b = scenes(2, 3, 20, 200, 2, loudness=0.4, random_state=seed)
    model, u = fitted(a.observations.T, a.u, 2)
    again = model.warm(b.observations.T, u, np.random.default_rng(1))
    before, after = (
        np.corrcoef(r.sources.T, m.posterior(r.observations.T).mean)[:3, 3:]
        for r, m in ((a, model), (b, again))
    )
    assert (np.abs(before).argmax(axis=0) == np.abs(after).argmax(axis=0)).all()
    assert (np.sign(before[np.abs(before) > 0.9]) == np.sign(after[np.abs(after) > 0.9])).all()
    saved = mcc(b.sources, model.posterior(b.observations.T).mean.T)
    assert mcc(b.sources, again.posterior(b.observations.T).mean.T) >= saved
    assert again.history_.n_steps == 200
    # what it went on from stays as it is
    assert model.history_.n_steps == 400
    first = model.posterior(a.observations.T).mean
    np.testing.assert_array_equal(first, model.posterior(a.observations.T).mean)
    twice = model.warm(b.observations.T, u, np.random.default_rng(1))
    np.testing.assert_array_equal(twice.flow.parameters.numpy(), again.flow.parameters.numpy())
