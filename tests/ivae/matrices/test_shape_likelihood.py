"""Unmixing by shapes that are read off the components."""

import numpy as np
import pytest
from scipy.stats import special_ortho_group

from sourcesep import metrics
from sourcesep.ivae.matrices import shape_likelihood
from sourcesep.ivae.matrices.shape_likelihood import _score, by_skewness, entropy, likeliest_nearby
from sourcesep.ivae.whitening import whiten

N_TIMES = 4000


def standardised(rows):
    rows = np.asarray(rows, float)
    return (rows - rows.mean(axis=1, keepdims=True)) / rows.std(axis=1, keepdims=True)


def white(sources, seed):
    turned = special_ortho_group.rvs(len(sources), random_state=seed) @ sources
    fit = whiten(turned, None)
    return fit.matrix @ (turned - fit.mean[:, None])


def mcc(sources, z):
    return metrics.mcc(sources.T, z.T)


@pytest.mark.parametrize(
    ("draw", "score", "most"),
    [
        (lambda rng: rng.standard_normal(N_TIMES), lambda z: z, 0.05),
        (lambda rng: rng.laplace(size=N_TIMES), lambda z: np.sqrt(2) * np.sign(z), 0.3),
        (lambda rng: rng.logistic(size=N_TIMES), lambda z: 1.814 * np.tanh(0.907 * z), 0.05),
    ],
)
def test_the_score_is_that_of_the_density(draw, score, most):
    z = standardised([draw(np.random.default_rng(0))])[0]
    true = score(z)
    error = np.square(_score(z) - true).mean() / np.square(true).mean()
    assert error < most


def test_the_score_is_larger_for_narrow_values_than_for_gaussian_ones():
    """Fisher's information is 1 for Gaussian values, and more for all others."""
    rng = np.random.default_rng(0)
    for draw, least in ((rng.standard_normal, 0.99), (rng.standard_exponential, 1.5)):
        z = standardised([draw(N_TIMES)])[0]
        information = np.square(_score(z)).mean()
        assert least < information
    assert np.square(_score(standardised([rng.standard_normal(N_TIMES)])[0])).mean() < 1.05


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_ascent_ends_at_the_sources_from_nearby(seed):
    rng = np.random.default_rng(seed)
    sources = standardised(
        [rng.poisson(2, N_TIMES), rng.chisquare(3, N_TIMES), rng.laplace(size=N_TIMES)]
    )
    y = white(sources, seed)
    right = sources @ y.T / N_TIMES
    begin = right + 0.3 * rng.standard_normal((3, 3))
    found = likeliest_nearby(y, begin)
    assert mcc(sources, begin @ y) < 0.99
    assert mcc(sources, found @ y) > 0.999
    assert np.allclose((found @ y).std(axis=1), 1)


def test_few_values_do_not_make_it_go_to_and_fro(monkeypatch):
    steps, step = [], shape_likelihood._step
    monkeypatch.setattr(shape_likelihood, "_step", lambda *a: steps.append(1) or step(*a))
    rng = np.random.default_rng(0)
    for seed in range(3):
        sources = standardised(rng.integers(0, 5, (4, N_TIMES)))
        y = white(sources, seed)
        found = likeliest_nearby(y, sources @ y.T / N_TIMES + 0.1 * rng.standard_normal((4, 4)))
        assert mcc(sources, found @ y) > 0.999
    assert len(steps) < 50 < 3 * shape_likelihood.MOST_STEPS


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_skewness_finds_skewed_sources_from_anywhere_and_no_others(seed):
    rng = np.random.default_rng(seed)
    skewed, even = rng.random((5, N_TIMES)) < 0.2, rng.random((5, N_TIMES)) < 0.5
    for rows, is_found in ((skewed, True), (even, False)):
        sources = standardised(rows)
        y = white(sources, seed)
        assert (mcc(sources, by_skewness(y) @ y) > 0.99) == is_found


def test_entropy_is_least_for_sources():
    rng = np.random.default_rng(0)
    for sources in (rng.random((3, N_TIMES)), rng.poisson(1, (3, N_TIMES))):
        y = white(standardised(sources), 0)
        right = standardised(sources) @ y.T / N_TIMES
        least = entropy(y, right)
        for seed in range(5):
            assert entropy(y, special_ortho_group.rvs(3, random_state=seed) @ right) > least + 0.02
        scaled = entropy(y, np.diag([3.0, 0.1, -2.0]) @ right)
        assert scaled == pytest.approx(least)
