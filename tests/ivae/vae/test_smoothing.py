"""Noise on an invertible map: as exact as draws are, where the exact answer is known."""

import numpy as np
import pytest

from sourcesep.ivae.matrices.linear_gaussian import LinearGaussian
from sourcesep.ivae.prior_tables import gaussian_prior
from sourcesep.ivae.vae.smoothing import smooth


def saturated(z):
    return np.tanh(2 * z) + 0.1 * z


def by_matrix(mixing, mean, variance):
    """z and log density of an x without noise, for Gaussian z."""
    back, volume = np.linalg.inv(mixing), np.linalg.slogdet(mixing)[1]

    def noiseless(x):
        z = back @ x
        ratio = np.square(z - mean.T) / variance.T
        return z, -0.5 * (ratio + np.log(2 * np.pi * variance.T)).sum(axis=0) - volume

    return noiseless


@pytest.mark.parametrize("d", [1, 3])
def test_a_matrix_has_the_posterior_of_the_joint_gaussian(d):
    """Missing entries, and samples of which none is there, too."""
    rng = np.random.default_rng(d)
    mixing, noise = rng.standard_normal((d, d)), rng.uniform(0.1, 0.5, d)
    mean, variance = rng.standard_normal((1, d)), rng.uniform(0.5, 2, (1, d))
    z = mean.T + np.sqrt(variance.T) * rng.standard_normal((d, 200))
    x = mixing @ z + noise[:, None] * rng.standard_normal((d, 200))
    x[0, ::3] = np.nan
    x[:, 7] = np.nan
    rows = np.zeros(200, np.int64)
    exact = LinearGaussian(mixing, noise**2).infer(x, gaussian_prior(mean, variance), rows)
    deviation = np.sqrt(np.square(mixing) @ variance.T)[:, 0]
    likely = np.repeat(mixing @ mean.T, 200, axis=1), deviation
    noiseless = by_matrix(mixing, mean, variance)
    found = smooth(noiseless, x, noise, likely, n_draws=4096)
    for one, other in ((found.mean, exact.mean), (found.scale, exact.scale)):
        assert np.square(one - other).mean() < 1e-3  # where exact means have a variance of 1
    assert abs((found.log_density - exact.log_density).mean()) < 0.01
    assert found.log_density[7] == pytest.approx(0, abs=0.2)  # nothing seen, nothing to explain


def test_what_was_smoothed_is_nearer_than_what_was_inverted():
    """A map that is steep somewhere: its inverse is not, and amplifies noise elsewhere."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((1, 4000))
    noisy = saturated(z) + 0.1 * rng.standard_normal(z.shape)
    grid = np.linspace(-20, 20, 10001)

    def noiseless(x):
        guess = np.interp(x, saturated(grid), grid)
        slope = 2 / np.square(np.cosh(2 * guess)) + 0.1
        density = -0.5 * (np.square(guess) + np.log(2 * np.pi)) - np.log(slope)
        return guess, density[0]

    found = smooth(noiseless, noisy, np.array([0.1]), n_draws=256)
    errors = [np.square(guess - z).mean() for guess in (found.mean, noiseless(noisy)[0])]
    assert errors[0] < 0.6 * errors[1]
    assert np.square((found.mean - z) / found.scale).mean() == pytest.approx(1, abs=0.2)
    again = smooth(noiseless, noisy[:, :5], np.array([0.1]), n_draws=256)
    np.testing.assert_array_equal(again.mean, found.mean[:, :5])
