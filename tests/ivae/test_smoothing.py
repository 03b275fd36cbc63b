"""Noise on an invertible map: as exact as draws are, where the exact answer is known."""

import numpy as np
import pytest

from sourcesep.ivae.linear_gaussian import LinearGaussian
from sourcesep.ivae.prior_tables import gaussian_prior
from sourcesep.ivae.smoothing import smooth


def saturated(z):
    return np.tanh(2 * z) + 0.1 * z


@pytest.mark.parametrize("d", [1, 3])
def test_a_matrix_has_the_posterior_of_the_joint_gaussian(d):
    """Missing entries, and samples of which none is there, too."""
    rng = np.random.default_rng(d)
    mixing, noise = rng.standard_normal((d + 1, d)), rng.uniform(0.1, 0.5, d + 1)
    mean, variance = rng.standard_normal((1, d)), rng.uniform(0.5, 2, (1, d))
    z = mean.T + np.sqrt(variance.T) * rng.standard_normal((d, 200))
    x = mixing @ z + noise[:, None] * rng.standard_normal((d + 1, 200))
    x[0, ::3] = x[1, ::6] = np.nan
    x[:, 7] = np.nan
    rows = np.zeros(200, np.int64)
    exact = LinearGaussian(mixing, noise**2).infer(x, gaussian_prior(mean, variance), rows)
    broad = [np.repeat(row.T, 200, axis=1) for row in (mean, np.sqrt(variance))]
    found = smooth(lambda z: mixing @ z, x, broad[0], *broad, noise, n_draws=512)
    np.testing.assert_allclose(found.mean, exact.mean, atol=0.05)
    np.testing.assert_allclose(found.scale, exact.scale, atol=0.05)
    np.testing.assert_allclose(found.log_density, exact.log_density, atol=0.1)
    assert abs((found.log_density - exact.log_density).mean()) < 0.01
    assert found.log_density[7] == pytest.approx(0, abs=0.1)  # nothing seen, nothing to explain


def test_what_was_smoothed_is_nearer_than_what_was_inverted():
    """A map that is steep somewhere: its inverse is not, and amplifies noise elsewhere."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((1, 4000))
    noisy = saturated(z) + 0.1 * rng.standard_normal(z.shape)
    grid = np.linspace(-8, 8, 4001)
    inverse = np.interp(noisy, saturated(grid), grid)
    broad, noise = (0 * z, 1 + 0 * z), np.array([0.1])
    found = smooth(saturated, noisy, inverse, *broad, noise, n_draws=256)
    errors = [np.square(guess - z).mean() for guess in (found.mean, inverse)]
    assert errors[0] < 0.6 * errors[1]
    assert np.square((found.mean - z) / found.scale).mean() == pytest.approx(1, abs=0.2)
    few = [part[:, :5] for part in (noisy, inverse, *broad)]
    again = smooth(saturated, *few, noise, n_draws=256)
    np.testing.assert_array_equal(again.mean, found.mean[:, :5])
