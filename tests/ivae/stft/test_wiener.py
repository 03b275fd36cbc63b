"""The posterior of sources behind a real matrix, against its definition."""

import numpy as np
import pytest

from sourcesep.ivae.stft.wiener import wiener


def draw(n_channels, n_sources, seed, spread=3.0):
    rng = np.random.default_rng(seed)
    shape = (n_sources, 4, 5)
    variances = np.exp(spread * rng.standard_normal(shape)).astype(np.float32)
    mixing = rng.standard_normal((n_channels, n_sources))
    cells = rng.standard_normal((2, n_channels, 4, 5))
    return (cells[0] + 1j * cells[1]).astype(np.complex64), mixing, variances


@pytest.mark.parametrize(("n_channels", "n_sources"), [(1, 2), (2, 2), (2, 3), (2, 4), (3, 5)])
def test_it_is_the_gaussian_conditional(n_channels, n_sources):
    cells, mixing, variances = draw(n_channels, n_sources, n_sources)
    noise = 1e-3
    found = wiener(cells, mixing, variances, noise)
    for t in range(4):
        for f in range(5):
            prior = np.diag(variances[:, t, f].astype(float))
            covariance = mixing @ prior @ mixing.T + noise * np.eye(n_channels)
            gain = prior @ mixing.T @ np.linalg.inv(covariance)
            posterior = prior - gain @ mixing @ prior
            x = cells[:, t, f]
            fit = (x.conj() @ np.linalg.solve(covariance, x)).real
            log_density = -n_channels * np.log(np.pi) - np.linalg.slogdet(covariance)[1] - fit
            np.testing.assert_allclose(found.mean[:, t, f], gain @ x, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(
                found.variance[:, t, f], np.diag(posterior), rtol=1e-4, atol=1e-6
            )
            spread = np.trace(mixing @ posterior @ mixing.T)
            np.testing.assert_allclose(found.spread[t, f], spread, rtol=1e-4, atol=1e-7)
            np.testing.assert_allclose(found.log_density[t, f], log_density, rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_variances_of_the_posterior_raise_the_likelihood(seed):
    """EM: with variances free in every cell, no iteration makes the data less likely."""
    cells, mixing, variances = draw(2, 3, seed, spread=1.0)
    values = []
    for _ in range(30):
        found = wiener(cells, mixing, variances, 1e-3)
        values.append(found.log_density.astype(float).sum())
        variances = np.abs(found.mean) ** 2 + found.variance
    assert (np.diff(values) > -1e-4).all()
    assert values[-1] > values[0] + 10


def test_a_source_far_below_another_is_not_lost_in_rounding():
    cells, mixing, _ = draw(2, 3, 0)
    variances = np.full((3, 4, 5), 1e-8, np.float32)
    variances[0] = 1
    found = wiener(cells, mixing, variances, 1e-12)
    explained = np.einsum("ck,ktf->ctf", mixing, found.mean)
    np.testing.assert_allclose(explained, cells, atol=1e-3)
    assert (found.variance[1:] > 1e-10).all()


def test_cells_are_independent_of_how_many_there_are():
    cells, mixing, variances = draw(2, 3, 1)
    many = wiener(np.tile(cells, (1, 1, 2000)), mixing, np.tile(variances, (1, 1, 2000)), 1e-3)
    few = wiener(cells, mixing, variances, 1e-3)
    np.testing.assert_allclose(many.mean[:, :, -5:], few.mean)
