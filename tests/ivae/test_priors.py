"""p(z|u): densities that integrate to 1, and a fit that finds what was drawn."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import gennorm, kstest, norm

from sourcesep.ivae.priors import PSEUDO_COUNT, SHAPES, LabelPrior, exponents


@pytest.fixture(params=[0, 1, 2])
def rng(request):
    return np.random.default_rng(request.param)


def prior(shape, mean=((0.5,), (-1.0,)), scale=((0.3,), (2.0,))):
    return LabelPrior(np.array(mean), np.array(scale), np.array([float(shape)]))


class TestDensity:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_it_integrates_to_one_with_the_variance_it_says(self, shape):
        p = prior(shape)
        for label in (0, 1):

            def density(z, power=0, label=label):
                value = p.log_prob(np.array([[z]]), np.array([label]))[0, 0]
                return (z - p.mean[label, 0]) ** power * np.exp(value)

            centre, reach = p.mean[label, 0], 40 * np.sqrt(p.variance[label, 0])
            for power, expected in ((0, 1.0), (2, p.variance[label, 0])):
                halves = (
                    quad(density, centre - reach, centre, args=(power,), limit=200)[0],
                    quad(density, centre, centre + reach, args=(power,), limit=200)[0],
                )
                assert sum(halves) == pytest.approx(expected, rel=1e-6)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_as_scipy(self, rng, shape):
        p = prior(shape)
        labels = rng.integers(0, 2, 50)
        z = rng.standard_normal((1, 50))
        expected = gennorm.logpdf(z[0], shape, p.mean[labels, 0], p.scale[labels, 0])
        np.testing.assert_allclose(p.log_prob(z, labels)[0], expected, rtol=1e-10)

    def test_shape_two_is_gaussian(self, rng):
        p = prior(2)
        z = rng.standard_normal((1, 20))
        labels = np.arange(20) % 2
        expected = norm.logpdf(z[0], p.mean[labels, 0], p.scale[labels, 0] / np.sqrt(2))
        np.testing.assert_allclose(p.log_prob(z, labels)[0], expected, rtol=1e-12)

    def test_far_away_is_impossible_and_no_warning(self):
        assert prior(10).log_prob(np.array([[1e300]]), np.array([0]))[0, 0] == -np.inf

    @pytest.mark.parametrize("shape", SHAPES)
    def test_samples_follow_it(self, rng, shape):
        p = prior(shape)
        labels = np.repeat([0, 1], 3000)
        z = p.sample(labels, rng)
        for label in (0, 1):
            law = gennorm(shape, p.mean[label, 0], p.scale[label, 0])
            assert kstest(z[0, labels == label], law.cdf).pvalue > 1e-3


class TestFit:
    @pytest.mark.parametrize(("shape", "range_"), [(1.0, 10.0), (2.0, 10.0), (10.0, 1.5)])
    def test_it_finds_shape_and_scales(self, rng, shape, range_):
        scale = rng.uniform(0.3, 0.3 * range_, (6, 1))
        truth = LabelPrior(np.zeros((6, 1)), scale, np.array([shape]))
        labels = np.repeat(np.arange(6), 2000)
        found = LabelPrior.fit(truth.sample(labels, rng), labels, 6, with_mean=False)
        assert found.shape[0] == shape
        np.testing.assert_allclose(found.scale, scale, rtol=0.1)
        assert not found.mean.any()

    def test_means_where_asked(self, rng):
        truth = LabelPrior(rng.normal(0, 3, (5, 2)), rng.uniform(0.5, 2, (5, 2)), np.full(2, 2.0))
        labels = rng.integers(0, 5, 10_000)
        z = truth.sample(labels, rng)
        found = LabelPrior.fit(z, labels, 5, with_mean=True)
        expected = [[row[labels == k].mean() for row in z] for k in range(5)]
        np.testing.assert_allclose(found.mean, expected, atol=1e-12)
        np.testing.assert_allclose(found.mean, truth.mean, atol=0.2)

    def test_each_source_has_its_own_shape(self, rng):
        labels = np.repeat(np.arange(4), 1500)
        z = np.stack([rng.laplace(size=6000), rng.standard_normal(6000), rng.uniform(-1, 1, 6000)])
        found = LabelPrior.fit(z, labels, 4, with_mean=False)
        assert found.shape[0] == 1
        assert found.shape[1] == 2
        assert found.shape[2] >= 5

    def test_no_other_scale_is_likelier(self, rng):
        """Maximum likelihood, but for the pseudo-count and the choice of one scale for all."""
        labels = np.repeat(np.arange(3), 2000)
        z = rng.standard_normal((1, 6000)) * np.array([0.5, 1, 2])[labels]
        found = LabelPrior.fit(z, labels, 3, with_mean=False, shapes=(2.0,))
        best = found.log_prob(z, labels).sum()
        for factor in (0.98, 1.02):
            for label in range(3):
                scale = found.scale.copy()
                scale[label] *= factor
                other = LabelPrior(found.mean, scale, found.shape)
                assert other.log_prob(z, labels).sum() < best

    def test_variance_of_a_gaussian_label(self, rng):
        labels = np.repeat(np.arange(3), [50, 10, 1])
        z = rng.standard_normal((1, 61))
        found = LabelPrior.fit(z, labels, 3, with_mean=False, shapes=(2.0,))
        overall = (z**2).mean()
        for label, count in enumerate((50, 10, 1)):
            expected = ((z[0, labels == label] ** 2).sum() + PSEUDO_COUNT * overall) / (
                count + PSEUDO_COUNT
            )
            assert found.variance[label, 0] == pytest.approx(expected)

    def test_stationary_sources_share_one_scale(self, rng):
        labels = np.repeat(np.arange(100), 20)
        z = rng.laplace(size=(1, 2000))
        found = LabelPrior.fit(z, labels, 100, with_mean=False)
        assert np.ptp(found.scale) == 0
        modulated = z * rng.uniform(0.2, 3, 100)[labels]
        assert np.ptp(LabelPrior.fit(modulated, labels, 100, with_mean=False).scale) > 1

    def test_left_out_samples_do_not_count(self, rng):
        z = rng.standard_normal((2, 300))
        labels = np.repeat([0, 1, -1], 100)
        wild = z.copy()
        wild[:, 200:] = 1e9
        a = LabelPrior.fit(z[:, :200], labels[:200], 2, with_mean=True)
        b = LabelPrior.fit(wild, labels, 2, with_mean=True)
        for name in ("mean", "scale", "shape"):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), rtol=1e-12)

    def test_a_label_without_samples_gets_the_overall_scale(self, rng):
        z = rng.standard_normal((1, 200))
        found = LabelPrior.fit(z, np.repeat([0, 2], 100), 3, with_mean=False, shapes=(2.0,))
        assert found.variance[1, 0] == pytest.approx((z**2).mean())
        assert found.n_labels == 3

    @pytest.mark.parametrize("shapes", [(2.0,), SHAPES])
    def test_silence_is_finite(self, rng, shapes):
        labels = np.repeat(np.arange(3), 100)
        z = rng.standard_normal((1, 300)) * np.array([1, 0, 1])[labels]
        found = LabelPrior.fit(z, labels, 3, with_mean=False, shapes=shapes)
        assert np.isfinite(found.log_prob(z, labels)).all()
        assert (found.variance > 0).all()

    @pytest.mark.parametrize("scale", [1e-12, 1e6])
    def test_scale_makes_no_difference(self, rng, scale):
        labels = np.repeat(np.arange(5), 100)
        z = rng.laplace(size=(2, 500)) * rng.uniform(0.3, 3, 5)[labels]
        a = LabelPrior.fit(z, labels, 5, with_mean=True)
        b = LabelPrior.fit(scale * z, labels, 5, with_mean=True)
        np.testing.assert_array_equal(a.shape, b.shape)
        np.testing.assert_allclose(b.scale, scale * a.scale, rtol=1e-9)


@pytest.mark.parametrize("values", [(), (2.0, 0), (-1.0,), (float("nan"),)])
def test_exponents_are_numbers_above_0(values):
    with pytest.raises(ValueError, match="one or more numbers above 0"):
        exponents(values)
