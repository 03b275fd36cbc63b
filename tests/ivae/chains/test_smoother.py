"""Noise behind filters and curves: found where it is, harmless where not, and exact in parts."""

import json
import re

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from sourcesep.estimator import IVAE
from sourcesep.exceptions import SettingsError
from sourcesep.ivae.chains.chain import Chain
from sourcesep.ivae.chains.curves import Curves
from sourcesep.ivae.chains.filters import convolve
from sourcesep.ivae.chains.laplace import Record
from sourcesep.ivae.chains.noisy_curves import NoisyCurves
from sourcesep.ivae.chains.smoother import Smoother
from sourcesep.ivae.model import State
from sourcesep.ivae.post_nonlinear import PostNonlinearModel
from sourcesep.ivae.priors import LabelPrior
from sourcesep.verdict import LABELS, judge

from ...conftest import labelled

N_LABELS, LENGTH = 30, 240


U = labelled(np.repeat(np.arange(N_LABELS), LENGTH))


def saturated(seed, noise):
    """Two sources through five taps and tanh, with noise as a share of each channel."""
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.uniform(np.log(0.3), np.log(3), (2, N_LABELS)))
    sources = scale[:, U.labels] * rng.standard_normal((2, N_LABELS * LENGTH))
    taps = 0.4 * rng.standard_normal((2, 2, 5)) * np.exp(-np.arange(5) / 2)
    taps[[0, 1], [0, 1], 2] = 1
    y = convolve(taps, sources)
    x = np.tanh(1.5 * y / y.std(axis=1, keepdims=True))
    return sources, x + noise * x.std(axis=1, keepdims=True) * rng.standard_normal(x.shape)


def fitted(x, u=U, **settings):
    return PostNonlinearModel(kernel_size=3, **settings).fit(x, u, np.random.default_rng(0))


def aligned_sdr(sources, estimates, reach=16):
    """Mean SDR in dB of the estimates against two-sided filters of the sources."""
    share = np.empty((2, 2))
    for i, s in enumerate(sources):
        lags = np.stack([np.roll(s, k) for k in range(-reach, reach + 1)], axis=1)
        for j, z in enumerate(estimates):
            share[i, j] = np.square(lags @ np.linalg.lstsq(lags, z, rcond=None)[0]).sum()
            share[i, j] /= np.square(z).sum()
    sdr = 10 * np.log10(share / (1 - share))
    return max(np.trace(sdr), np.trace(sdr[::-1])) / 2


@pytest.fixture(scope="module", params=[0, 1])
def noisy(request):
    sources, x = saturated(request.param, noise=0.02)
    return fitted(x), sources, x


@pytest.fixture(scope="module")
def one():
    x = saturated(0, noise=0.02)[1]
    return fitted(x, noise=True), x


class TestChoice:
    def test_noise_is_found_and_sources_come_out_better(self, noisy):
        model, sources, x = noisy
        assert model.smoother is not None
        assert model.choice == "filters and a smooth curve a channel and noise"
        assert model.scores["with noise"] > model.scores["without noise"] + 0.01
        share = np.array(model.findings["noise"]) / x.std(axis=1)
        np.testing.assert_allclose(share, 0.02, rtol=0.25)
        chain = aligned_sdr(sources, model.posterior(x).mean)
        assert aligned_sdr(sources, model.posterior(x, U).mean) > chain + 1.2

    @pytest.mark.parametrize("seed", [0, 1])
    def test_clean_data_keep_the_chain(self, seed):
        x = saturated(seed, noise=0.0)[1]
        model, chain = fitted(x), fitted(x, noise=False)
        assert model.smoother is None
        assert np.array_equal(model.posterior(x, U).mean, chain.posterior(x, U).mean)
        assert np.array_equal(model.log_density(x, U), chain.log_density(x, U))
        assert model.is_invertible
        assert model.findings == {}

    @pytest.mark.parametrize("sizes", [(1, 1), (2, 2)])
    def test_it_is_not_looked_for_without_filters_or_with_two(self, sizes):
        x = saturated(0, noise=0.05)[1][:, :1500]
        u = U.take(slice(1500))
        model = PostNonlinearModel(kernel_size=sizes[0], post_kernel_size=sizes[1], noise=True)
        assert model.fit(x, u, np.random.default_rng(0)).smoother is None

    def test_a_refit_keeps_the_choice(self, one):
        model, x = one
        blank = model.blank()
        assert (blank.noise, blank.curves) == (True, (model.curve,))
        half = slice(N_LABELS // 2 * LENGTH)
        assert blank.fit(x[:, half], U.take(half), np.random.default_rng(0)).smoother is not None
        assert fitted(x, noise=False).blank().noise is False

    def test_a_fit_with_noise_can_be_judged(self, one):
        model, x = one
        verdict = judge(model, x, U, 1000.0, np.random.default_rng(0))
        assert verdict.label in LABELS
        assert min(verdict.richness) > 2
        assert max(verdict.misfit) < 9


class TestVerbs:
    def test_decoding_is_the_mean_and_sampling_adds_the_noise(self, one):
        model, _ = one
        z, x = model.sample(U, np.random.default_rng(1))
        noise = x - model.decode(z)
        np.testing.assert_allclose(noise.std(axis=1), model.findings["noise"], rtol=0.03)
        spread = np.array([z[:, U.labels == k].std(axis=1) for k in range(N_LABELS)])
        np.testing.assert_allclose(spread / np.sqrt(model.prior_moments()[1]), 1, atol=0.2)

    def test_what_was_drawn_is_found_as_closely_as_said(self, one):
        model, _ = one
        z, x = model.sample(U, np.random.default_rng(2))
        q = model.posterior(x, U)
        assert ((q.mean - z) / q.scale).std() == pytest.approx(1, abs=0.25)
        assert (np.abs(q.mean - z) < q.scale).mean() == pytest.approx(0.683, abs=0.05)

    def test_both_terms_are_finite_and_make_the_density(self, one):
        model, x = one
        bound = model.elbo(x, U)
        assert np.isfinite(bound.reconstruction).all()
        assert (bound.kl > 0).all()
        assert model.is_bound
        assert not model.is_invertible
        np.testing.assert_array_equal(model.log_density(x, U), bound.per_sample)
        everything = model.smoother.evidence(x, model.prior, U.labels, np.ones(U.n_times, bool))
        assert everything.mean() == pytest.approx(bound.mean, abs=2e-3)

    def test_sources_and_their_images(self, one):
        model, x = one
        z = model.posterior(x, U).mean
        np.testing.assert_allclose(z.std(axis=1), 1, rtol=1e-3)
        images = model.images(x, U)
        power = np.square(images).sum(axis=(1, 2))
        assert power[0] > power[1]
        np.testing.assert_array_equal(model.image(x, 1, U), images[1])
        y = images.sum(axis=0) - model.smoother.chain.offset[:, None]
        np.testing.assert_allclose(model.smoother.chain.curves.inverse(y), model.decode(z))
        quiet = np.abs(x) < 0.3
        assert np.corrcoef(images.sum(axis=0)[quiet], model.mixture(x)[quiet])[0, 1] > 0.99

    def test_units_of_the_channels_do_not_matter(self, one):
        model, x = one
        scaled = x * np.array([[1e-6], [50.0]])
        other = fitted(scaled, noise=True)
        z, again = model.posterior(x, U).mean, other.posterior(scaled, U).mean
        assert np.abs(np.corrcoef(z, again)[:2, 2:]).max(axis=1).min() > 0.999

    def test_rebuilt_from_its_state(self, one):
        model, x = one
        state = model.state()
        json.dumps(state.facts, allow_nan=False)
        other = PostNonlinearModel.from_state(state)
        np.testing.assert_array_equal(other.posterior(x, U).mean, model.posterior(x, U).mean)
        np.testing.assert_array_equal(other.posterior(x, U).scale, model.posterior(x, U).scale)
        np.testing.assert_array_equal(other.log_density(x, U), model.log_density(x, U))
        draws = [m.sample(U, np.random.default_rng(0))[1] for m in (model, other)]
        np.testing.assert_array_equal(*draws)

    def test_files_from_before_there_was_noise(self, one):
        state = one[0].state()
        tensors = {k: v for k, v in state.tensors.items() if not k.startswith("smoother")}
        facts = {k: v for k, v in state.facts.items() if k != "noise"}
        other = PostNonlinearModel.from_state(State(tensors, facts))
        assert other.smoother is None
        assert other.noise is None

    def test_going_on_to_other_data(self, one):
        model, x = one
        again = model.warm(x, U, np.random.default_rng(0))
        z, other = model.posterior(x, U).mean, again.posterior(x, U).mean
        assert np.diag(np.corrcoef(z, other)[:2, 2:]).min() > 0.99
        np.testing.assert_allclose(other.std(axis=1), 1, rtol=1e-3)
        coarse = labelled(U.labels // 3)
        assert model.refit_prior(x, coarse).prior_moments()[1].shape == (N_LABELS // 3, 2)


class TestWhatIsMissing:
    def test_without_u_it_is_the_inverse_of_the_chain(self, one):
        model, x = one
        q = model.posterior(x)
        np.testing.assert_array_equal(q.mean, model.encode(x)[0])
        assert (q.scale > 0).all()

    def test_samples_whose_label_is_not_known(self, one):
        model, x = one
        labels = U.labels.copy()
        labels[5 * LENGTH : 6 * LENGTH] = -1
        known, unknown = model.posterior(x, U), model.posterior(x, labelled(labels))
        far = np.r_[0 : 5 * LENGTH - 50, 6 * LENGTH + 50 : U.n_times]
        away = unknown.mean[:, far] - known.mean[:, far]
        assert away.std() < 0.02
        assert np.isfinite(unknown.mean).all()
        assert np.isfinite(model.elbo(x, labelled(labels)).per_sample).all()

    def test_the_estimator_hands_labels_on(self):
        half = slice(N_LABELS // 2 * LENGTH)
        x, labels = saturated(0, noise=0.03)[1][:, half], U.labels[half]
        estimator = IVAE(mixing="post-nonlinear", kernel_size=3, random_state=0)
        z = estimator.fit_transform(x.T, u=labels)
        assert not estimator.model_.is_invertible
        np.testing.assert_array_equal(estimator.transform(x.T, u=labels), z)

    @pytest.mark.parametrize("n_times", [1, 2, 7, 60])
    def test_short_records(self, one, n_times):
        model, x = one
        u = U.take(slice(n_times))
        q, bound = model.posterior(x[:, :n_times], u), model.elbo(x[:, :n_times], u)
        assert q.mean.shape == q.scale.shape == (2, n_times)
        assert np.isfinite([*q.mean.ravel(), *q.scale.ravel(), *bound.per_sample]).all()

    def test_a_record_too_short_for_the_filters_is_refused_as_before(self):
        with pytest.raises(SettingsError, match=re.escape("filters that long need 144 samples")):
            fitted(saturated(0, 0.02)[1][:, :100], U.take(slice(100)), noise=True)


def short_record(n_times=48, curved=True):
    """A record of few samples, for dense matrices."""
    rng = np.random.default_rng(3)
    knots = np.linspace(-1, 1, 33) * np.ones((2, 1))
    log_slopes = 3 * knots**2 + np.array([[0.1], [0.3]]) if curved else 0 * knots
    inner = 0.2 * rng.standard_normal((2, 2, 5))
    inner[[0, 1], [0, 1], 2] += 1
    chain = Chain(None, Curves(knots, log_slopes), np.array([0.1, -0.2]), inner)
    noise = np.array([0.01, 0.03])
    x = rng.uniform(-0.9, 0.9, (2, n_times))
    precision = np.exp(rng.standard_normal((2, n_times)))
    return Record(chain, noise, x, rng.standard_normal((2, n_times)), precision)


def dense(record, weight):
    shape = record.x.shape
    units = np.eye(record.x.size).reshape(-1, *shape)
    return np.stack([record.curvature(weight, p).ravel() for p in units])


class TestLaplace:
    def test_the_gradient_is_the_slope_of_the_loss(self):
        record, rng = short_record(), np.random.default_rng(0)
        y, p = rng.standard_normal((2, *record.x.shape))
        slope = (record.at(y + 1e-6 * p).loss - record.at(y - 1e-6 * p).loss) / 2e-6
        assert np.vdot(record.gradient(record.at(y)), p) == pytest.approx(slope, rel=1e-6)

    def test_the_curvature_is_the_gradients_where_x_is_met(self):
        """There Gauss and Newton's is the exact second derivative."""
        record, rng = short_record(), np.random.default_rng(1)
        y, p = rng.uniform(-0.5, 0.5, (2, *record.x.shape))
        v = record.chain.curves.inverse(y - record.chain.offset[:, None])
        met = Record(record.chain, record.noise, v, record.mean, record.precision)
        ends = [met.gradient(met.at(y + h * p)) for h in (1e-6, -1e-6)]
        found = met.curvature(met.at(y).weight, p)
        np.testing.assert_allclose(found, (ends[0] - ends[1]) / 2e-6, rtol=1e-4, atol=1e-3)

    def test_against_dense_matrices(self):
        record = short_record()
        mode = record.mode(record.chain.undistort(record.x)[0])
        assert np.abs(record.gradient(mode)).max() < 0.2
        full = dense(record, mode.weight)
        np.testing.assert_allclose(full, full.T, atol=1e-9)
        np.testing.assert_allclose(np.diag(full), record.diagonal(mode.weight).ravel())
        unmixing = np.stack(
            [convolve(record.chain.inner, p).ravel() for p in np.eye(96).reshape(-1, 2, 48)],
            axis=1,
        )
        covariance = unmixing @ np.linalg.inv(full) @ unmixing.T
        variances = record.variances(mode)
        ratio = variances.ravel() / np.diag(covariance)
        assert ratio.mean() == pytest.approx(1, abs=0.1)
        assert 0.5 < ratio.min() < ratio.max() < 2
        exact = -np.linalg.slogdet(covariance)[1] - np.log(record.precision).sum()
        assert record.log_volume(mode).sum() == pytest.approx(exact, rel=0.02)

    def test_the_density_is_exact_where_the_curve_is_straight(self):
        record = short_record(curved=False)
        labels = np.arange(48) // 12
        variance = np.array([[0.5, 2.0], [1.0, 1.0], [3.0, 0.2], [0.7, 0.4]])
        prior = LabelPrior(np.zeros((4, 2)), np.sqrt(2 * variance), np.full(2, 2.0))
        smoother = Smoother(record.chain, record.noise)
        # x = inner^-1 * z - offset, z Gaussian
        unmixing = np.stack(
            [convolve(record.chain.inner, p).ravel() for p in np.eye(96).reshape(-1, 2, 48)],
            axis=1,
        )
        mixing = np.linalg.inv(unmixing)
        covariance = mixing * variance[labels].T.ravel() @ mixing.T
        covariance += np.diag(np.repeat(record.noise, 48))
        mean = np.repeat(-record.chain.offset, 48)
        exact = multivariate_normal(mean, covariance).logpdf(record.x.ravel())
        bound = smoother.elbo(record.x, prior, labels)
        assert bound.per_sample.sum() == pytest.approx(exact, abs=1.0)
        assert smoother.evidence(
            record.x, prior, labels, np.ones(48, bool)
        ).sum() == pytest.approx(exact, abs=1.0)


@pytest.mark.parametrize("n_labels", [30, 1200])
def test_curve_and_noise_are_told_apart(n_labels):
    rng = np.random.default_rng(0)
    scale = np.exp(rng.uniform(np.log(0.2), np.log(2), 30)).repeat(n_labels // 30)
    labels = np.repeat(np.arange(n_labels), 24_000 // n_labels)
    y = scale[labels] * rng.standard_normal((1, 24_000))
    x = np.tanh(y) + 0.05 * rng.standard_normal(y.shape)
    # arctanh between rails that lie too far out, as a fit without noise has it
    knots = np.linspace(-1.1, 1.1, 65)
    guess = Curves(knots[None], -np.log(1 - (knots[None] / 1.12) ** 2))
    chain = Chain(None, guess, np.zeros(1), np.ones((1, 1, 1)))
    found = NoisyCurves.fit(x, labels, chain, with_mean=False)
    assert np.sqrt(found.noise[0]) == pytest.approx(0.05, rel=0.2)
    # the rails are those of tanh, not the outermost samples
    assert np.abs(x).max() > 1.1
    slopes = [
        np.exp(c.forward(np.array([[0.0, 1.02, -1.02]]))[1][0]) for c in (found.curves, guess)
    ]
    assert min(slopes[0][1:]) > 20 * slopes[0][0]
    assert max(slopes[1][1:]) < 10 * slopes[1][0]
    undone = found.curves.forward(np.tanh(y))[0]
    inside = np.abs(y) < 1.5
    assert np.corrcoef(undone[inside], y[inside])[0, 1] > 0.999
