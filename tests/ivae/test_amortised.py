"""Networks with noise: exact where a closed form is known, better where a matrix is wrong."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm

from sourcesep import IVAE, auxiliary, load, metrics, save, separate
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.ivae.amortised import STEPS, AmortisedModel
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.matrices.linear_gaussian import LinearGaussian
from sourcesep.ivae.missing import impute
from sourcesep.ivae.prior_tables import gaussian_prior
from sourcesep.ivae.vae.fit import fit_networks
from sourcesep.simulate.protocols import ivae

from ..conftest import labelled

N_LABELS, LENGTH = 20, 200
NETWORKS = ("networks",)


def by_label(n_labels=N_LABELS, length=LENGTH, *, is_time=False):
    return labelled(np.repeat(np.arange(n_labels), length), is_time=is_time)


def modulated(rng, d):
    scales = rng.uniform(0.3, 3, (d, N_LABELS)).repeat(LENGTH, axis=1)
    return scales * rng.standard_normal((d, N_LABELS * LENGTH))


def noisy(rng, n_channels, d, noise):
    """A linear mixture with white noise of this share of every channel's deviation."""
    z = modulated(rng, d)
    x = rng.standard_normal((n_channels, d)) @ z
    deviation = noise * x.std(axis=1, keepdims=True)
    return z, x + deviation * rng.standard_normal(x.shape), deviation[:, 0]


def bent(rng, noise):
    """Two sources in four channels that saturate."""
    z = modulated(rng, 2)
    x = np.tanh(rng.uniform(-1, 1, (4, 2)) @ z)
    return z, x + noise * x.std(axis=1, keepdims=True) * rng.standard_normal(x.shape)


def quick(n_components=None, **settings):
    return AmortisedModel(
        n_components,
        **{"kernel_size": 1, "n_steps": 200, "n_restarts": 1, "starts": ("segments",)} | settings,
    )


def rng(seed=0):
    return np.random.default_rng(seed)


class TestMatrix:
    """The linear candidate: factor analysis with a variance a label."""

    @pytest.mark.parametrize("seed", [0, 1])
    def test_noise_and_sources_of_a_factor_model_are_found(self, seed):
        """Almost as well as by the true matrix, noise and variances; better than by JD alone."""
        draw, u = rng(seed), by_label()
        z = modulated(draw, 3)
        mixing = draw.standard_normal((6, 3))
        clean = mixing @ z
        deviation = 0.3 * clean.std(axis=1)
        x = clean + deviation[:, None] * draw.standard_normal(clean.shape)
        model = quick(3, candidates=("linear",)).fit(x, u, rng())
        variance = np.stack([z[:, u.labels == k].var(axis=1) for k in range(N_LABELS)])
        prior = gaussian_prior(0 * variance, variance)
        truth = LinearGaussian(mixing, deviation**2).infer(x, prior, u.labels).mean
        alone = LinearModel(3, starts=("segments",), standardise_channels=True).fit(x, u, rng())
        found = metrics.mcc(z.T, model.posterior(x, u).mean.T)
        assert found > metrics.mcc(z.T, truth.T) - 0.03
        assert found > metrics.mcc(z.T, alone.posterior(x).mean.T)
        np.testing.assert_allclose(model.noise, deviation, rtol=0.15)

    def test_posterior_and_density_are_exact(self):
        """Against the joint Gaussian of z and x, entries missing and all."""
        draw = rng(3)
        mixing, noise = draw.standard_normal((4, 2)), draw.uniform(0.1, 1, 4)
        mean, variance = draw.standard_normal((2, 2)), draw.uniform(0.5, 2, (2, 2))
        x = draw.standard_normal((4, 7))
        x[1, 2] = x[0, 3] = x[3, 3] = x[0, 5] = x[3, 5] = np.nan
        x[:, 6] = np.nan
        rows = np.array([0, 1, 0, 1, 1, 1, 0])
        found = LinearGaussian(mixing, noise).infer(x, gaussian_prior(mean, variance), rows)
        for t, row in enumerate(rows):
            seen = np.isfinite(x[:, t])
            a, prior = mixing[seen], np.diag(variance[row])
            inside = a @ prior @ a.T + np.diag(noise[seen])
            gain = prior @ a.T @ np.linalg.inv(inside)
            covariance = prior - gain @ a @ prior
            np.testing.assert_allclose(found.scale[:, t] ** 2, np.diag(covariance), atol=1e-10)
            entropy = multivariate_normal(cov=covariance).entropy()
            assert found.entropy[t] == pytest.approx(entropy, abs=1e-9)
            error = x[seen, t] - a @ mean[row]
            np.testing.assert_allclose(found.mean[:, t], mean[row] + gain @ error, atol=1e-10)
            law = multivariate_normal(a @ mean[row], inside) if seen.any() else None
            density = law.logpdf(x[seen, t]) if law else 0.0
            assert found.log_density[t] == pytest.approx(density, abs=1e-9)

    @pytest.mark.slow
    def test_a_clean_linear_mixture_stays_linear(self):
        draw = rng(0)
        z = modulated(draw, 3)
        x = draw.standard_normal((3, 3)) @ z + 5
        model = quick().fit(x, by_label(), rng())
        assert model.candidate == "linear"
        assert not model.is_bound
        found = model.posterior(x, by_label()).mean
        assert metrics.mcc(z.T, found.T) > 0.999
        rest = x - model.images(x, by_label()).sum(axis=0)
        np.testing.assert_allclose(rest, rest.mean(axis=1, keepdims=True) + 0 * x, atol=1e-4)

    def test_the_density_is_in_units_of_x(self):
        _, x, _ = noisy(rng(1), 4, 2, 0.3)
        u = by_label()
        model = quick(2, candidates=("linear",)).fit(x, u, rng())
        scaled = quick(2, candidates=("linear",)).fit(1000 * x, u, rng())
        change = model.log_density(x, u) - scaled.log_density(1000 * x, u)
        np.testing.assert_allclose(change, 4 * np.log(1000), rtol=1e-6)


@pytest.fixture(scope="module")
def linear_gaussian():
    """Networks, trained on data of which the exact posterior is known."""
    z, x, _ = noisy(rng(5), 3, 1, 0.5)
    u = by_label()
    exact = quick(1, candidates=("linear",)).fit(x, u, rng())
    return quick(1, candidates=NETWORKS, n_steps=250).fit(x, u, rng()), exact, x, u, z


class TestNetworks:
    def test_the_posterior_of_a_linear_gaussian_model(self, linear_gaussian):
        model, exact, x, u, _ = linear_gaussian
        found, true = model.posterior(x, u), exact.posterior(x, u)
        sign = np.sign(np.sum(found.mean * true.mean))
        error = (sign * found.mean - true.mean) / true.scale
        assert np.sqrt(np.mean(error**2)) < 0.35
        np.testing.assert_allclose(np.median(found.scale / true.scale), 1, atol=0.15)
        gap = exact.log_density(x, u).mean() - model.log_density(x, u).mean()
        assert abs(gap) < 0.05

    def test_both_terms_by_integration(self, linear_gaussian):
        """One source: E_q[log p(x|z)], KL(q||p) and log p(x|u) by quadrature."""
        model, _, x, u, _ = linear_gaussian
        some = np.arange(0, x.shape[1], 500)
        bound, density = (
            model.elbo(x[:, some], u.take(some)),
            model.log_density(x[:, some], u.take(some)),
        )
        prior, rows = model._table(u.take(some))
        standard = model._standardised(x[:, some])
        mean, scale = model.map.encode(standard, prior, rows)
        deviation = np.sqrt(model.map.noise)
        volume = np.log(model.width).sum()
        for t, row in enumerate(rows):
            m, s, spread = mean[0, t], scale[0, t], np.sqrt(prior.variance[row, 0])

            def likelihood(z, t=t):
                decoded = model.map.decode(np.array([[z]]), prior, np.zeros(1, int))[:, 0]
                return norm.logpdf(standard[:, t], decoded, deviation).sum() - volume

            def expect(f, m=m, s=s):
                return quad(lambda e: norm.pdf(e) * f(m + s * e), -6, 6, epsabs=1e-4)[0]

            centre = prior.mean[row, 0]
            kl = np.log(spread / s) + (s**2 + (m - centre) ** 2) / (2 * spread**2) - 0.5
            assert bound.kl[t] == pytest.approx(kl, abs=1e-4)
            assert bound.reconstruction[t] == pytest.approx(expect(likelihood), abs=0.05)
            evidence = expect(
                lambda z, c=centre, w=spread, m=m, s=s, f=likelihood: np.exp(
                    f(z) + norm.logpdf(z, c, w) - norm.logpdf(z, m, s)
                )
            )
            assert density[t] == pytest.approx(np.log(evidence), abs=0.05)
            assert bound.per_sample[t] <= np.log(evidence) + 0.05

    @pytest.mark.slow
    def test_a_bent_mixture_is_better_explained_by_networks(self):
        z, x = bent(rng(1), 0.1)
        u = by_label()
        model = quick(2, n_steps=400).fit(x, u, rng())
        assert model.candidate == "networks"
        assert model.scores["networks"] > model.scores["linear"] + 0.1
        linear = quick(2, candidates=("linear",)).fit(x, u, rng()).posterior(x, u)
        gain = metrics.mcc(z.T, model.posterior(x, u).mean.T) - metrics.mcc(z.T, linear.mean.T)
        assert gain > -0.005
        np.testing.assert_allclose(model.noise, 0.1 * x.std(axis=1), rtol=0.4)

    @pytest.mark.slow
    def test_a_plain_vae_does_worse(self):
        """Shuffled labels and no labels: nothing tells the sources apart."""
        z, x, _ = noisy(rng(0), 4, 3, 0.1)
        u = by_label()
        right = quick(3, n_steps=100, candidates=NETWORKS)
        good = metrics.mcc(z.T, right.fit(x, u, rng()).posterior(x, u).mean.T)
        mixed = u.take(rng(1).permutation(x.shape[1]))
        model = quick(3, n_steps=100, candidates=NETWORKS).fit(x, mixed, rng())
        assert good > 0.9
        assert metrics.mcc(z.T, model.posterior(x, mixed).mean.T) < good - 0.1
        one = labelled(0 * u.labels, is_time=False)
        model = quick(3, n_steps=100, candidates=NETWORKS).fit(x, one, rng())
        assert metrics.mcc(z.T, model.posterior(x, one).mean.T) < good - 0.1

    @pytest.mark.slow
    def test_a_conditioned_decoder_sees_u(self):
        """Two labels whose mixtures differ: p(x|z,u) explains what p(x|z) cannot."""
        draw = rng(2)
        labels = np.tile([0, 1], 1000)
        z = draw.standard_normal((1, 2000)) * np.where(labels, 2.0, 0.5)
        x = np.where(labels, [[1.0], [-1.0]], [[1.0], [1.0]]) * z + 0.2 * draw.standard_normal(
            (2, 2000)
        )
        u = auxiliary.from_array(labels, 2000)
        density = {}
        for condition in (False, True):
            model = quick(1, candidates=NETWORKS, condition_decoder=condition, n_steps=150)
            density[condition] = model.fit(x, u, rng()).log_density(x, u).mean()
        assert density[True] > density[False] + 0.1
        shown = model.decode(np.ones((1, 2000)), u)
        assert np.abs(shown[:, labels == 0].mean(1) - shown[:, labels == 1].mean(1)).max() > 0.1
        with pytest.raises(InputError, match="u=None"):
            model.decode(np.ones((1, 3)))

    @pytest.mark.slow
    @pytest.mark.parametrize("kernel_size", [1, 9])
    def test_same_seed_same_bits(self, kernel_size):
        _, x, _ = noisy(rng(0), 3, 2, 0.2)
        u = by_label()
        settings = {"candidates": NETWORKS, "kernel_size": kernel_size, "n_steps": 10}
        a, b = (quick(2, **settings).fit(x, u, rng()) for _ in range(2))
        again = AmortisedModel.from_state(a.state())
        x, u = x[:, :400], u.take(np.arange(400))
        for model in (b, again):
            np.testing.assert_array_equal(a.posterior(x, u).mean, model.posterior(x, u).mean)
            np.testing.assert_array_equal(a.log_density(x, u), model.log_density(x, u))

    def test_a_sample_is_judged_by_itself(self):
        _, x, _ = noisy(rng(0), 3, 2, 0.2)
        u, part = by_label(), slice(100, 1300)
        model = quick(2, candidates=NETWORKS, n_steps=10).fit(x, u, rng())
        alone = model.posterior(x[:, part], u.take(part)).mean
        np.testing.assert_allclose(alone, model.posterior(x, u).mean[:, part], atol=1e-4)


class TestMemory:
    @pytest.mark.slow
    def test_neighbours_help_where_the_mixing_has_memory(self):
        draw = rng(0)
        z = modulated(draw, 2)
        taps = draw.standard_normal((2, 2, 5)) * np.array([1, 0.7, 0.5, 0.3, 0.2])
        x = np.stack(
            [sum(np.convolve(z[j], taps[i, j])[: z.shape[1]] for j in (0, 1)) for i in (0, 1)]
        )
        x += 0.1 * x.std(axis=1, keepdims=True) * draw.standard_normal(x.shape)
        u = by_label()
        density = [
            quick(2, candidates=NETWORKS, kernel_size=k, n_steps=100)
            .fit(x, u, rng())
            .log_density(x, u)
            .mean()
            for k in (1, 9)
        ]
        assert density[1] > density[0] + 0.1

    def test_an_even_kernel_is_refused(self):
        with pytest.raises(SettingsError, match="kernel_size=8: must be odd"):
            AmortisedModel(kernel_size=8)

    def test_nine_where_u_is_time(self):
        _, x, _ = noisy(rng(0), 3, 2, 0.2)
        settings = {"candidates": ("linear",), "kernel_size": None}
        assert quick(2, **settings).fit(x, by_label(), rng()).kernel_size == 1
        assert quick(2, **settings).fit(x, by_label(is_time=True), rng()).kernel_size == 9


class TestMissing:
    @pytest.mark.slow
    @pytest.mark.parametrize("candidate", ["linear", "networks"])
    def test_missing_entries_are_filled_in_better_than_by_the_mean(self, candidate):
        draw = rng(4)
        _, x, _ = noisy(draw, 5, 2, 0.2)
        holed = np.where(draw.random(x.shape) < 0.15, np.nan, x)
        u, lost = by_label(), np.isnan(holed)
        model = quick(2, candidates=(candidate,)).fit(holed, u, rng())
        filled = model.decode(model.posterior(holed, u).mean, u)
        error = np.square(filled - x)[lost].mean()
        by_mean = np.square(np.nanmean(holed, axis=1, keepdims=True) - x)[lost].mean()
        assert error < 0.3 * by_mean
        assert np.isfinite(model.log_density(holed, u)).all()

    def test_imputing_knows_the_channels_covariance(self):
        draw = rng(0)
        x = draw.standard_normal((4, 2)) @ draw.standard_normal((2, 2000))
        holed = np.where(draw.random(x.shape) < 0.1, np.nan, x)
        filled, lost = impute(holed), np.isnan(holed)
        assert np.square(filled - x)[lost].mean() < 0.1 * np.square(x)[lost].mean()
        np.testing.assert_array_equal(filled[~lost], x[~lost])
        assert impute(x) is x

    def test_infinite_and_empty_are_refused(self):
        _, x, _ = noisy(rng(0), 3, 2, 0.2)
        x[0, 5] = np.inf
        with pytest.raises(InputError, match="1 infinite values"):
            quick(2).fit(x, by_label(), rng())
        x[0] = np.nan
        with pytest.raises(InputError, match="channel 0 has no value"):
            quick(2).fit(x, by_label(), rng())

    def test_only_this_family_takes_them(self):
        _, x, _ = noisy(rng(0), 3, 2, 0.2)
        x[0, 5] = np.nan
        labels = by_label().labels
        with pytest.raises(ValueError, match="NaN"):
            IVAE().fit(x.T, u=labels)


@pytest.fixture(scope="module")
def fitted():
    _, x, _ = noisy(rng(2), 4, 2, 0.2)
    labels = by_label().labels
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STEPS, "fast", 20)
        ivae = IVAE(2, mixing="amortised", quality="fast", n_restarts=1, random_state=0)
        return ivae.fit(x.T, u=labels), x.T, labels


class TestEstimator:
    def test_it_needs_u(self, fitted):
        ivae, X, labels = fitted
        with pytest.raises(InputError, match="u=None"):
            ivae.transform(X)
        with pytest.raises(InputError, match="u=None: mixing='amortised' needs"):
            ivae.model_.posterior(X.T)
        assert ivae.transform(X[:50], u=labels[:50]).shape == (50, 2)

    def test_missing_values_at_fit_and_after(self, fitted):
        ivae, X, labels = fitted
        holed = X.copy()
        holed[::7, 1] = np.nan
        found = ivae.transform(holed, u=labels)
        assert metrics.mcc(found, ivae.transform(X, u=labels)) > 0.95

    def test_saved_and_read(self, fitted, tmp_path):
        ivae, X, labels = fitted
        save(ivae, tmp_path / "m.safetensors")
        again = load(tmp_path / "m.safetensors")
        np.testing.assert_array_equal(again.transform(X, u=labels), ivae.transform(X, u=labels))

    @pytest.mark.slow
    def test_stretches_of_time_get_variances_of_their_own(self, monkeypatch):
        monkeypatch.setitem(STEPS, "fast", 20)
        z, x, _ = noisy(rng(6), 3, 2, 0.1)
        found = separate((x, 100.0), n_components=2, mixing="amortised", quality="fast")
        assert found.ivae.model_.kernel_size == 9
        assert metrics.mcc(z.T, found.sources.T) > 0.95
        other = separate((x[:, :2000], 100.0), model=found.ivae, aux="segments:1")
        assert metrics.mcc(z[:, :2000].T, other.sources.T) > 0.95
        rest = other.recording.data - other.images.sum(axis=0)
        np.testing.assert_allclose(other.residual, rest, atol=1e-9)


@pytest.fixture(scope="module")
def conditioned():
    _, x, _ = noisy(rng(2), 4, 2, 0.2)
    labels = np.array(["a", "b", "c", "d"])[by_label().labels % 4]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STEPS, "fast", 20)
        ivae = IVAE(
            2,
            mixing="amortised",
            condition_decoder=True,
            quality="fast",
            n_restarts=1,
            random_state=0,
        )
        return ivae.fit(x.T, u=labels), labels


class TestConditionedDecoder:
    """`IVAE(condition_decoder=True)`: what decodes without x has to be told u."""

    def test_it_is_passed_on_and_kept(self, conditioned, tmp_path):
        ivae, _ = conditioned
        assert ivae.model_.condition_decoder
        save(ivae, tmp_path / "m.safetensors")
        assert load(tmp_path / "m.safetensors").model_.condition_decoder

    def test_asks_for_u(self, conditioned):
        ivae, labels = conditioned
        sources, _ = ivae.sample(len(labels[:50]), u=labels[:50])
        assert ivae.inverse_transform(sources, u=labels[:50]).shape == (50, 4)
        assert ivae.sample(5)[1].shape == (5, 4)
        for wrong in (lambda: ivae.inverse_transform(sources), lambda: ivae.effect(0)):
            with pytest.raises(InputError, match="u=None: this decoder was fitted with"):
                wrong()
        with pytest.raises(InputError, match="a label that the fit has not seen"):
            ivae.effect(0, u="elsewhere")

    def test_effect_is_that_at_a_label(self, conditioned):
        ivae, _ = conditioned
        at = ivae.effect(0, [1.0, 1.0], u=["a", "b"])
        np.testing.assert_allclose(at[:1], ivae.effect(0, [1.0], u="a"), atol=1e-12)
        np.testing.assert_allclose(at[1:], ivae.effect(0, [1.0], u="b"), atol=1e-12)

    def test_stretches_of_time_cannot_be_told(self, conditioned, monkeypatch):
        ivae, _ = conditioned
        monkeypatch.setattr(ivae, "u_names_", None)
        with pytest.raises(InputError, match="fit with labels as u"):
            ivae.effect(0)


@pytest.fixture(scope="module")
def data():
    """Two sources through a network, 20 labels of 200 samples, 10 % noise."""
    drawn = ivae(2, N_LABELS, LENGTH, noise=0.1, random_state=1)
    return drawn.sources.T, drawn.observations.T


@pytest.fixture(scope="module")
def model(data):
    model = quick(2, candidates=("flow",), n_restarts=2, n_steps=400)
    return model.fit(data[1], by_label(), rng())


class TestFlow:
    """A flow's inverse, with noise on it."""

    def test_is_nearer_to_the_sources_than_the_flow_alone(self, data, model):
        z, x = data
        assert model.candidate == "flow"
        assert set(model.scores) == {"flow"}
        assert "flow" in model.choice
        alone = metrics.mcc(z.T, model.map.flow.posterior(model._standardised(x)).mean.T)
        assert metrics.mcc(z.T, model.posterior(x, by_label()).mean.T) > alone + 0.003

    def test_has_noise_on_every_channel(self, data, model):
        _, x = data
        share = model.noise / x.std(axis=1)
        np.testing.assert_allclose(share, share[0])
        assert 0.02 < share[0] < 0.25

    def test_answers_are_of_one_model(self, data, model):
        """The bound's terms add up; with more noise or shuffled labels the bound is lower."""
        x, u = data[1], by_label()
        density = model.log_density(x, u)
        np.testing.assert_allclose(model.elbo(x, u).per_sample, density, atol=1e-9)
        assert density.mean() > model.log_density(x, u.take(rng().permutation(x.shape[1]))).mean()
        assert density.mean() > model.log_density(3 * x, u).mean()

    def test_missing_entries_are_filled(self, data, model):
        x, u = data[1][:, ::20].copy(), by_label().take(np.arange(0, 4000, 20))
        whole = model.posterior(x, u)
        x[0, ::2] = np.nan
        found = model.posterior(x, u)
        assert np.isfinite(found.mean).all()
        np.testing.assert_array_equal(found.mean[:, 1::2], whole.mean[:, 1::2])
        assert found.scale[:, ::2].mean() > whole.scale[:, ::2].mean()

    def test_is_saved_and_loaded(self, data, model):
        x, u = data[1][:, :50], by_label().take(np.arange(50))
        again = AmortisedModel.from_state(model.state())
        np.testing.assert_array_equal(again.posterior(x, u).mean, model.posterior(x, u).mean)
        assert again.candidate == "flow"

    def test_more_channels_than_sources(self):
        """Components of the flow that are no sources are at their mean in what is decoded."""
        (z, x), u = bent(rng(0), 0.05), by_label()
        model = quick(2, candidates=("flow",), n_steps=300).fit(x, u, rng())
        assert model.map.flow.n_components > 2
        found = model.posterior(x, u).mean
        assert metrics.mcc(z.T, found.T) > 0.9
        left = x - model.decode(found)
        assert (left.var(axis=1) < 0.5 * x.var(axis=1)).all()

    def test_samples_vary_as_x_does_where_sources_explain_a_part(self):
        x, u = bent(rng(0), 0.05)[1], by_label()
        x = np.concatenate([x, rng(1).standard_normal((4, 4)) @ modulated(rng(2), 4)])
        model = quick(2, candidates=("flow",), n_steps=100).fit(x, u, rng())
        _, drawn = model.sample(u, rng())
        np.testing.assert_allclose(drawn.std(axis=1), x.std(axis=1), rtol=0.25)


def test_few_labels_tell_few_components_of_a_flow_apart():
    """Two sources whose means and scales follow five labels, in eight bent channels."""
    drawn, u = rng(), np.repeat(np.arange(5), 200)
    mean, scale = drawn.uniform(-5, 5, (2, 5)), drawn.uniform(0.7, 1.7, (2, 5))
    z = mean[:, u] + scale[:, u] * drawn.standard_normal((2, len(u)))
    standard = (z - z.mean(axis=1, keepdims=True)) / z.std(axis=1, keepdims=True)
    hidden = drawn.standard_normal((12, 2)) @ standard + drawn.standard_normal((12, 1))
    x = drawn.standard_normal((8, 12)) @ np.tanh(hidden)
    x += 0.02 * x.std(axis=1, keepdims=True) * drawn.standard_normal(x.shape)
    u = labelled(u, is_time=False)
    model = quick(2, candidates=("linear", "networks")).fit(x, u, rng())
    assert model.map.start.flow.n_components == 2
    assert metrics.mcc(z.T, model.posterior(x, u).mean.T) > 0.93
    # networks that start from two of five components are behind by more than two nats
    assert model.scores["networks"] > model.scores["linear"] + 5


class TestGivingUp:
    """Networks that cannot reach what a matrix has reached are not trained to the end."""

    @pytest.mark.parametrize("kernel_size", [1, 5])
    def test_where_a_matrix_mixed_the_sources(self, kernel_size, monkeypatch):
        tried = []

        def spied(*args, **settings):
            tried.append(fit_networks(*args, **settings))
            return tried[-1]

        monkeypatch.setattr("sourcesep.ivae.vae.fit.fit_networks", spied)
        x = rng(3).standard_normal((2, 2)) @ modulated(rng(3), 2)
        settings = {"kernel_size": kernel_size, "candidates": ("linear", "networks")}
        model = quick(n_steps=400, **settings).fit(x, by_label(is_time=True), rng())
        assert model.candidate == "linear"
        assert 0 < tried[0].history.n_steps < 400
        assert model.scores["networks"] == tried[0].history.elbo.max()
        assert model.scores["networks"] < model.scores["linear"]


@pytest.mark.parametrize("candidate", ["networks", "flow"])
def test_wild_samples_decide_nothing(candidate):
    """Neither in the fit nor, for the others and for being finite, after."""
    z, x = bent(rng(), 0.05)
    x, u, ok = x[:2], by_label(), np.ones(x.shape[1], bool)
    wild = x.copy()
    wild[0, 7], wild[:, 300] = 1e6, -1e6
    ok[[7, 300]] = False
    settings = {"candidates": (candidate,), "n_steps": 20 if candidate == "networks" else 100}
    model = quick(2, **settings).fit(wild, u, rng())
    assert model.width.max() < 10
    found, calm = model.posterior(wild, u), model.posterior(x, u)
    assert np.isfinite(found.mean).all()
    assert np.isfinite(found.scale).all()
    assert np.isfinite(model.log_density(wild, u)).all()
    np.testing.assert_array_equal(found.mean[:, ok], calm.mean[:, ok])
    assert metrics.mcc(z.T[ok], found.mean.T[ok]) > 0.9
