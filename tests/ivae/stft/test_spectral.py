"""What models on the STFT share: independent channels, terms of the ELBO a sample."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from sourcesep.ivae.stft.cells import power
from sourcesep.ivae.stft.spectral import SpectralModel

from ...conftest import in_time


class Known(SpectralModel):
    """White sources of unit variance, each heard by one channel, behind known noise."""

    family = "known"
    noise, heard = 0.1, 1.0

    @classmethod
    def configured(cls, settings):
        return cls(settings.n_components, sfreq=settings.sfreq)

    def blank(self):
        return type(self)(self.n_components, sfreq=self.sfreq)

    def _learn(self, y, u, rng):
        self.size, self.scores = 64, {}
        self.decoder = np.repeat(np.eye(len(y), dtype=np.complex64)[:, :, None], 33, axis=2)

    def _rearrange(self, order, gain):
        self.order = order

    def _as_instantaneous(self, unmixing, mixing, cells):
        raise NotImplementedError

    def _infer(self, cells, u):
        variance = self.noise / (1 + self.noise)
        return cells[getattr(self, "order", slice(None))], np.full(cells.shape, variance)

    def _bound(self, cells, u):
        """y = z + e given z: the posterior is that of a Gaussian in Gaussian noise."""
        variance = self.noise / (1 + self.noise)
        mean = self.heard * cells / (1 + self.noise)
        error = power(cells - mean) + variance
        reconstruction = -np.log(np.pi * self.noise) - error / self.noise
        kl = variance + power(mean) - 1 - np.log(variance)
        return reconstruction.sum(axis=0), kl.sum(axis=0)


class TestModel:
    @pytest.mark.parametrize("redundant", [False, True])
    def test_the_elbo_is_the_density_of_the_samples(self, redundant):
        """White noise: what overlapping frames say is worth one density a sample."""
        rng = np.random.default_rng(0)
        n_times = 60_000
        x = np.array([[3.0], [0.5]]) * rng.standard_normal((2, n_times)) + 7
        expected = multivariate_normal(x.mean(axis=1), np.cov(x) * (1 + Known.noise))
        if redundant:
            x = np.concatenate([x, x[:1]])
        u = in_time(n_times, 100)
        model = Known().fit(x, u, rng)
        bound = model.elbo(x, u)
        true = expected.logpdf(x[:2].T).mean()
        if redundant:
            # along the diagonal of two equal channels a step is longer
            true -= np.log(2) / 2
        assert bound.mean == pytest.approx(true, abs=0.02)
        assert bound.kl.shape == (n_times,)
        q = model.posterior(x, u)
        np.testing.assert_allclose(q.scale**2, Known.noise / (1 + Known.noise), rtol=1e-5)

    def test_order_sign_and_scale(self):
        rng = np.random.default_rng(1)
        x = np.array([[0.5], [-3.0], [1.0]]) * rng.standard_normal((3, 4000)) + 1
        u = in_time(4000, 100)
        model = Known().fit(x, u, rng)
        images = model.images(x, u)
        assert (np.diff(images.var(axis=(1, 2))) < 0).all()
        np.testing.assert_allclose(model.posterior(x).mean.std(axis=1), 1, rtol=1e-5)
        rest = x - x.mean(axis=1, keepdims=True) - images.sum(axis=0)
        assert np.abs(rest).max() < 1e-4
        np.testing.assert_allclose(model.image(x, 1), images[1])
        np.testing.assert_array_equal(model.memory, 64)

    def test_long_records_are_learned_from_in_part(self):
        """But separated and scaled as a whole."""
        rng = np.random.default_rng(2)
        seen = []

        class Watched(Known):
            def _learn(self, y, u, rng):
                seen.append(y.shape)
                super()._learn(y, u, rng)

        x = rng.standard_normal((2, 200_000)) * np.linspace(1, 5, 200_000)
        model = Watched(sfreq=1000.0).fit(x, in_time(x.shape[1], 1000), rng)
        assert seen == [(2, 120_000)]
        np.testing.assert_allclose(model.posterior(x).mean.std(axis=1), 1, rtol=1e-5)

    @pytest.mark.parametrize(("sfreq", "counts"), [(8000.0, True), (16000.0, False)])
    def test_what_is_above_4_khz_is_no_gain(self, sfreq, counts):
        """And each second is worth as many samples at any rate."""
        rng, n_times = np.random.default_rng(0), 20_000
        x, u = rng.standard_normal((2, n_times)), in_time(n_times, 100)
        model, without_high, without_low = (Known(sfreq=sfreq).fit(x, u, rng) for _ in range(3))
        without_high.heard = np.where(np.arange(33) <= 16, 1, 0.1)  # 4 kHz of 16 a second
        without_low.heard = without_high.heard[::-1]
        high, low = (model.gain_over(m, x, u).mean() for m in (without_high, without_low))
        assert (abs(high) > 0.1) == counts
        assert abs(low) > 0.1
        per_sample = model.log_density(x, u).mean() - without_low.log_density(x, u).mean()
        assert low == pytest.approx(per_sample * sfreq / 8000, rel=0.1)
