"""The verdict on maps with memory in time, whose sources are known up to a filter each."""

import numpy as np
import pytest
from scipy.signal import lfilter

from sourcesep.evidence import REACH, CrossFit, agreement
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.post_nonlinear import PostNonlinearModel
from sourcesep.verdict import judge

from .conftest import in_time

N_TIMES, LENGTH = 12_000, 300


def agreed(a, b, reach=REACH):
    half = np.zeros(a.shape[-1], int)
    return agreement([CrossFit(half, (np.atleast_2d(a), np.atleast_2d(b)), reach)])


class TestAgreementUpToFilters:
    noise = np.random.default_rng(0).standard_normal((2, N_TIMES))

    @pytest.mark.parametrize("sign", [1, -1])
    def test_a_filtered_copy_is_the_same_component(self, sign):
        copy = sign * np.roll(lfilter([1, 0.5], [1, -0.6], self.noise), 7, axis=1) + 3
        assert agreed(self.noise, copy).min() > 0.99
        assert agreed(copy, self.noise).min() > 0.99
        assert agreed(self.noise, copy, reach=0).max() < 0.5

    def test_another_component_is_not(self):
        assert agreed(self.noise, self.noise[::-1]).max() < 0.05
        mixed = self.noise + 0.5 * self.noise[::-1]
        np.testing.assert_allclose(agreed(self.noise, mixed), 1 / np.sqrt(1.25), atol=0.02)

    def test_a_component_of_which_a_band_is_lost_is_not(self):
        """It can be told from the whole one, not the other way round."""
        spectrum = np.fft.rfft(self.noise)
        spectrum[:, : spectrum.shape[1] // 2] = 0
        half = np.fft.irfft(spectrum)
        assert agreed(self.noise, half).max() < 0.8
        np.testing.assert_allclose(agreed(half, self.noise), agreed(self.noise, half))

    def test_few_samples_do_not_agree_by_chance(self):
        short = self.noise[:, :200]
        assert agreed(short, short[::-1]).max() < 0.5


def mixture(seed, n_taps, modulated=True):
    """Two white sources through filters of decaying taps and a curve."""
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.uniform(np.log(0.3), np.log(3), (2, N_TIMES // LENGTH)))
    sources = rng.standard_normal((2, N_TIMES))
    if modulated:
        sources *= scale.repeat(LENGTH, axis=1)
    taps = 0.6 * rng.standard_normal((2, 2, n_taps)) * np.exp(-np.arange(n_taps) / n_taps / 0.6)
    taps[[0, 1], [0, 1], 0] += np.sign(taps[[0, 1], [0, 1], 0])
    y = np.array([sum(lfilter(taps[i, j], [1], sources[j]) for j in (0, 1)) for i in (0, 1)])
    x = np.tanh(1.5 * y / y.std(axis=1, keepdims=True))
    return sources, x, in_time(N_TIMES, LENGTH)


def judged(model, x, u):
    model.fit(x, u, np.random.default_rng(0))
    return judge(model, x, u, 1.0, np.random.default_rng(0))


class TestFitsWithFilters:
    @pytest.mark.parametrize("seed", [20, 21])
    def test_sources_found_up_to_filters_are_trusted(self, seed):
        sources, x, u = mixture(seed, 8)
        model = PostNonlinearModel(kernel_size=8)
        found = judged(model, x, u)
        z = model.posterior(x, u).mean
        score = max(agreed(sources, z).mean(), agreed(sources, z[::-1]).mean())
        assert score > 0.97
        assert found.label == "trusted", found
        assert min(found.agreement) > 0.97
        assert found.bounds.misfit.delay == 9  # rooms outlive windows; filters hold all

    def test_of_stationary_white_sources_halves_give_others(self):
        _, x, u = mixture(20, 8, modulated=False)
        found = judged(PostNonlinearModel(kernel_size=8), x, u)
        assert found.label == "not identifiable"
        assert max(found.agreement) < 0.9

    def test_too_few_taps_leave_dependence_at_a_delay(self):
        _, x, u = mixture(20, 40)
        found = judged(PostNonlinearModel(kernel_size=2), x, u)
        assert found.label == "doubtful"
        assert "at some delay" in found.sentence

    def test_maps_without_memory_are_compared_as_they_are(self):
        assert not LinearModel().fit(*mixture(20, 1)[1:], np.random.default_rng(0)).up_to_filters
