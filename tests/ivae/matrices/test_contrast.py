"""Innovations and the held-out likelihood against brute force."""

import numpy as np
import pytest
from scipy.linalg import toeplitz
from scipy.signal import lfilter
from scipy.stats import multivariate_normal, norm

from sourcesep.ivae.matrices.contrast import heldout_log_likelihood, innovations, prediction_filter


@pytest.fixture(params=[0, 1, 2])
def rng(request):
    return np.random.default_rng(request.param)


def autoregressive(rng, n_times, poles=(0.9, -0.4)):
    denominator = np.poly(poles)
    return denominator, lfilter([1.0], denominator, rng.standard_normal(n_times + 500))[500:]


def test_the_filter_is_least_squares(rng):
    """Against the normal equations of the autocorrelation, written out."""
    y = autoregressive(rng, 3000)[1]
    y -= y.mean()
    lags = np.array([sum(y[t] * y[t + k] for t in range(len(y) - k)) for k in range(5)])
    expected = np.linalg.solve(toeplitz(lags[:4]), lags[1:])
    taps = prediction_filter(y, 4, ridge=0.0)
    assert taps[0] == 1
    np.testing.assert_allclose(-taps[1:], expected, rtol=1e-9)


def test_the_filter_of_an_autoregression_is_its_own(rng):
    denominator, y = autoregressive(rng, 50_000)
    np.testing.assert_allclose(prediction_filter(y, 4)[:3], denominator, atol=0.03)
    errors = innovations(y[None])[0]
    assert errors.var() == pytest.approx(1, rel=0.05)
    whiteness = [abs(np.corrcoef(errors[:-k], errors[k:])[0, 1]) for k in range(1, 10)]
    assert max(whiteness) < 0.03


def test_innovations_keep_the_likelihood_of_an_autoregression(rng):
    """log N(y; 0, Toeplitz) is the sum of the innovations' log densities but for the start."""
    _, y = autoregressive(rng, 400, poles=(0.8,))
    autocovariance = 0.8 ** np.arange(400) / (1 - 0.8**2)
    exact = multivariate_normal(cov=toeplitz(autocovariance)).logpdf(y)
    # AR(1): one tap, whose estimate costs about half a nat
    ours = norm.logpdf(lfilter(prediction_filter(y, 1), [1.0], y)).sum()
    assert ours == pytest.approx(exact, abs=4)
    assert norm.logpdf(y, scale=y.std()).sum() < exact - 50


def test_a_pure_tone_is_not_infinitely_predictable():
    t = np.arange(4000)
    errors = innovations(np.sin(0.3 * t)[None])[0, 100:]
    assert 1e-4 < errors.std() < 1e-2


@pytest.mark.parametrize("y", [np.zeros(100), np.full(100, 3.0), np.arange(4.0), np.ones(1)])
def test_signals_without_anything_to_predict(y):
    errors = innovations(y[None])
    np.testing.assert_allclose(errors[0], y - y.mean(), atol=1e-12)


def test_an_offset_costs_nothing(rng):
    y = autoregressive(rng, 2000)[1][None]
    np.testing.assert_allclose(innovations(y + 1e3), innovations(y), atol=1e-8)


class TestHeldOut:
    def split(self, rng, n_times=4000):
        labels = np.repeat(np.arange(4), n_times // 4)
        held = rng.random(n_times) < 0.3
        return labels, held

    def test_against_scipy(self, rng):
        labels, held = self.split(rng)
        white = np.stack([rng.standard_normal(4000), rng.standard_exponential(4000)])
        z = white * np.array([0.5, 1, 2, 3])[labels] + 1.0
        found = heldout_log_likelihood(z, labels, 4, held, with_mean=True, shapes=(2.0,))
        expected = np.zeros_like(z)
        for row, out in zip(z, expected, strict=True):
            train, ratio = [row[(labels == k) & ~held] for k in range(4)], np.empty(4000)
            overall = np.concatenate([v - v.mean() for v in train]).var()
            for k, v in enumerate(train):
                # one sample's worth of the overall variance is added
                spread = np.sqrt((len(v) * v.var() + overall) / (len(v) + 1))
                out[labels == k] = norm.logpdf(row[labels == k], v.mean(), spread)
                ratio[labels == k] = (row[labels == k] - v.mean()) / spread
            for low in np.arange(8) / 2:
                of_size = (np.abs(ratio) >= low) & ((np.abs(ratio) < low + 0.5) | (low == 3.5))
                signs = np.sign(ratio[of_size & ~held])
                if abs(signs.sum()) > 3 * np.sqrt(len(signs)):
                    lean = signs.sum() / (len(signs) + 1)
                    out[of_size] += np.log1p(np.sign(ratio[of_size]) * lean)
        np.testing.assert_allclose(found, expected[:, held], rtol=1e-9)

    def test_held_samples_do_not_leak_into_the_prior(self, rng):
        labels, held = self.split(rng)
        z = rng.standard_normal((1, 4000))
        loud = np.where(held, 50 * z, z)
        quiet = heldout_log_likelihood(z, labels, 4, held, with_mean=False).mean()
        assert heldout_log_likelihood(loud, labels, 4, held, with_mean=False).mean() < quiet - 100

    def test_independent_components_are_likelier_than_mixtures(self, rng):
        labels, held = self.split(rng)
        turn = np.array([[1, 1], [1, -1]]) / np.sqrt(2)
        scales = rng.uniform(0.3, 3, (2, 4))[:, labels]
        for z in (
            rng.standard_normal((2, 4000)) * scales,
            rng.laplace(size=(2, 4000)),
            rng.uniform(-1, 1, (2, 4000)),
        ):
            values = [
                heldout_log_likelihood(v, labels, 4, held, with_mean=False).sum(0).mean()
                for v in (z, turn @ z)
            ]
            assert values[0] > values[1] + 0.02
