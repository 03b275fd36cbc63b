"""What every model family promises, on every family.

A family joins by an entry in `FAMILIES`: its name, how to build it, and the data it is for.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import multivariate_normal, norm

from sourcesep import metrics
from sourcesep.auxiliary import Auxiliary, Scale
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.ivae.amortised import AmortisedModel
from sourcesep.ivae.convolutive import STARTS, ConvolutiveModel
from sourcesep.ivae.coupling import CouplingModel
from sourcesep.ivae.factor import FactorModel
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.model import Model
from sourcesep.ivae.post_nonlinear import PostNonlinearModel
from sourcesep.ivae.underdetermined import UnderdeterminedModel

from ..conftest import in_time

N_TIMES, LENGTH = 4000, 100


@dataclass(frozen=True)
class Family:
    name: str
    build: Callable[..., Model]
    data: Callable[[np.random.Generator], np.ndarray]


def modulated(rng, d=3):
    scales = rng.uniform(0.3, 3, (d, N_TIMES // LENGTH)).repeat(LENGTH, axis=1)
    return scales * rng.standard_normal((d, N_TIMES))


def instantaneous(rng):
    return rng.standard_normal((3, 3)) @ modulated(rng) + 5 * rng.standard_normal((3, 1))


def non_gaussian(rng):
    return rng.standard_normal((3, 3)) @ rng.laplace(size=(3, N_TIMES))


def gaussian_linear(n_components=None):
    return LinearModel(n_components, starts=("segments", "bands"), shapes=(2.0,))


def saturated(rng):
    """tanh of a mixture whose labels are far apart in scale."""
    x = rng.uniform(-1, 1, (3, 3)) + 2 * np.eye(3)
    mixture = x @ modulated(rng)
    return np.tanh(mixture / np.abs(mixture).max(axis=1, keepdims=True) * 1.5)


def curved(rng):
    """A smooth nonlinear mixture of all channels."""
    x = instantaneous(rng)
    x = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
    return x + 0.3 * np.tanh(rng.standard_normal((3, 3)) @ x)


def one_coupling_restart():
    return CouplingModel(n_restarts=1, n_steps=120)


def filtered(rng):
    """Each source through a short decaying filter to every channel."""
    taps = rng.standard_normal((3, 3, 8)) * 0.6 ** np.arange(8) + 2 * np.eye(3)[:, :, None]
    sources = modulated(rng)
    return np.stack(
        [sum(np.convolve(s, h)[:N_TIMES] for s, h in zip(sources, to, strict=True)) for to in taps]
    )


def fast_room():
    return ConvolutiveModel(sfreq=250.0, starts=STARTS["fast"])


def three_at_places(rng):
    """Three sources of which hardly two sound at once, in two channels."""
    order = np.resize(np.arange(3), N_TIMES // LENGTH)
    active = (order == np.arange(3)[:, None]) + 0.003
    sources = active.repeat(LENGTH, axis=1) * modulated(rng)
    angles = np.array([0.3, 0.8, 1.3]) + rng.uniform(-0.1, 0.1, 3)
    return np.stack([np.cos(angles), np.sin(angles)]) @ sources


def of_three_directions():
    return UnderdeterminedModel(3, sfreq=250.0, windows=(0.128,))


def noisy(rng):
    """A curved mixture that sensors add a tenth of noise to."""
    x = curved(rng)
    return x + 0.1 * rng.standard_normal(x.shape)


def amortised_matrix():
    return AmortisedModel(kernel_size=1, candidates=("linear",))


def few_steps():
    return AmortisedModel(kernel_size=1, candidates=("networks",), n_restarts=1, n_steps=150)


def five_columns(rng):
    """Three factors in five columns, each with a little noise."""
    x = rng.standard_normal((5, 3)) @ modulated(rng) + 5 * rng.standard_normal((5, 1))
    return x + 0.1 * x.std(axis=1, keepdims=True) * rng.standard_normal(x.shape)


def three_factors():
    return FactorModel(3)


FAMILIES = [
    Family("linear, Gaussian prior", gaussian_linear, instantaneous),
    Family("linear, any shape", LinearModel, non_gaussian),
    Family("post-nonlinear", PostNonlinearModel, saturated),
    Family("convolutive", fast_room, filtered),
    Family("factor", three_factors, five_columns),
    Family("underdetermined", of_three_directions, three_at_places),
    Family("nonlinear", one_coupling_restart, curved),
    Family("amortised, a matrix", amortised_matrix, instantaneous),
    Family("amortised, networks", few_steps, noisy),
]


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda f: f.name)
def family(request):
    return request.param


@pytest.fixture(scope="module", params=[0, 1])
def fitted(request, family):
    rng = np.random.default_rng(request.param)
    x, u = family.data(rng), in_time(N_TIMES, LENGTH)
    return family.build().fit(x, u, np.random.default_rng(0)), x, u


def jacobian_log_det(encode, x, step=2e-6):
    """log |det d encode / dx| by central differences, one sample (n_channels,)."""
    size = step * np.maximum(np.abs(x), 1.0)
    columns = [
        (encode(x + move) - encode(x - move)) / (2 * size[k])
        for k, move in enumerate(np.diag(size))
    ]
    return np.linalg.slogdet(np.stack(columns, axis=1))[1]


class TestMap:
    def test_shapes(self, fitted):
        model, x, u = fitted
        n, d, n_times = model.n_channels, model.n_components, x.shape[1]
        q, bound = model.posterior(x, u), model.elbo(x, u)
        z, drawn = model.sample(u, np.random.default_rng(0))
        assert (n, d) == (len(x), 3)
        assert q.mean.shape == q.scale.shape == z.shape == (d, n_times)
        assert model.decode(q.mean, u).shape == drawn.shape == (n, n_times)
        assert bound.reconstruction.shape == bound.kl.shape == (n_times,)
        assert model.log_density(x, u).shape == (n_times,)
        assert model.image(x, 0, u).shape == (n, n_times)
        assert model.images(x, u).shape == (d, n, n_times)
        assert all(m.shape == (u.n_labels, d) for m in model.prior_moments())

    def test_it_goes_on_with_every_component_where_it_was_or_refuses(self, fitted):
        model, x, u = fitted
        louder = 1.2 * x
        if not model.goes_on:
            with pytest.raises(SettingsError, match=f"mixing={model.family} does not go on"):
                model.warm(louder, u, np.random.default_rng(0))
            return
        again = model.warm(louder, u, np.random.default_rng(0))
        z, other = model.latents(x, u), again.latents(louder, u)
        likeness = np.diag(np.corrcoef(z, other)[:3, 3:])
        assert likeness.min() > 0.95  # in order and sign
        assert other.std(axis=1) == pytest.approx(1, abs=0.02)

    def test_samples_that_u_leaves_out_count_for_nothing(self, fitted):
        model, x, u = fitted
        if model.representation != "time" or model.memory > 1:
            pytest.skip("a signal with gaps is another signal")
        labels = u.labels.copy()
        labels[LENGTH:-LENGTH][::5] = -1
        partly = Auxiliary(
            (Scale(labels, u.scales[0].names),), None, is_time=True, spec="segments"
        )
        wild, kept = np.where(labels < 0, 1e3 * x, x), labels >= 0
        q, whole = model.posterior(x, partly), model.posterior(x, u)
        np.testing.assert_allclose(q.mean[:, kept], whole.mean[:, kept], rtol=1e-9, atol=1e-12)
        assert np.isfinite(q.mean).all()
        found = [
            [m.refit_prior(x, u)] + ([m.warm(x, u, np.random.default_rng(0))] if m.goes_on else [])
            for m, x, u in ((model, wild, partly), (model, x[:, kept], partly.take(kept)))
        ]
        for one, other in zip(*found, strict=True):
            for a, b in zip(one.prior_moments(), other.prior_moments(), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)

    def test_what_a_fit_can_be_judged_by(self, fitted):
        model, x, u = fitted
        held = model.held_out(u)
        if held is None:
            pytest.skip("a fit that has seen all is judged by fits to its halves")
        assert 0 < held.mean() < 0.5
        assert set(u.labels[~held]) == set(u.labels)
        z = model.posterior(x).mean
        for replica in model.replicas(x):
            assert all(np.corrcoef(a, b)[0, 1] > 0.5 for a, b in zip(z, replica, strict=True))

    def test_decoding_the_posterior_gives_x(self, fitted):
        model, x, u = fitted
        if not model.is_invertible:
            pytest.skip("no inverse")
        back = model.decode(model.posterior(x).mean)
        np.testing.assert_allclose(back, x, atol=1e-9 * np.abs(x).max())
        # given u it is shrunk towards the prior, by no more than -80 dB of the source
        back = model.decode(model.posterior(x, u).mean, u)
        assert metrics.si_sdr(x, back).min() > 120

    def test_images_and_mean_sum_to_the_mixture(self, fitted):
        model, x, u = fitted
        mixture = model.mixture(x)
        if mixture is x and not (model.is_linear and model.is_invertible):
            pytest.skip("images of a curve that all sources share do not add up, nor with noise")
        rest = mixture - model.images(x, u).sum(axis=0)
        mean = mixture.mean(axis=1, keepdims=True)
        np.testing.assert_allclose(rest, np.broadcast_to(mean, x.shape), atol=1e-8)

    def test_images_are_what_their_source_alone_decodes_to(self, fitted):
        model, x, u = fitted
        if not model.is_linear:
            pytest.skip("images of a curve do not add up so")
        z = model.posterior(x, None if model.is_invertible else u).mean
        silence = model.decode(np.zeros_like(z))
        for k in range(model.n_components):
            alone = np.zeros_like(z)
            alone[k] = z[k]
            np.testing.assert_allclose(model.image(x, k, u), model.decode(alone) - silence)

    def test_order_scale_and_sign(self, fitted):
        model, x, u = fitted
        images = model.images(x, u)
        power = np.square(images - images.mean(axis=2, keepdims=True)).sum(axis=(1, 2))
        assert (np.diff(power) <= 1e-9 * power[0]).all()
        z = model.posterior(x, None if model.is_invertible else u).mean
        np.testing.assert_allclose(z.std(axis=1), 1, rtol=1e-6)
        # a filter that varies over time does not keep the mean at 0; and where u is time the
        # prior's mean is 0, and a posterior's need not be
        atol = 1e-9 if model.is_invertible else 2e-2 if model.representation == "stft" else 0.1
        np.testing.assert_allclose(z.mean(axis=1), 0, atol=atol)
        if model.is_linear:
            silence = model.decode(np.zeros((model.n_components, 1)))
            loadings = model.decode(np.eye(model.n_components)) - silence
            assert (loadings[np.abs(loadings).argmax(axis=0), range(3)] > 0).all()


class TestLikelihood:
    def test_log_density_is_the_change_of_variables(self, fitted):
        """log p(x|u) = log p(z|u) + log |det dz/dx|, z the encoder's output (sigma is tiny)."""
        model, x, u = fitted
        if not model.is_invertible or model.is_bound:
            pytest.skip("only where the density is exact and the map inverted")
        mean, variance = model.prior_moments()
        chosen = np.random.default_rng(0).choice(x.shape[1], 5, replace=False)
        for t in chosen:

            def encode(v):
                return model.posterior(v[:, None]).mean[:, 0]

            label = u.labels[t]
            z = encode(x[:, t])
            expected = norm.logpdf(z, mean[label], np.sqrt(variance[label])).sum()
            expected += jacobian_log_det(encode, x[:, t])
            found = model.log_density(x[:, [t]], u.take(np.array([t])))[0]
            assert found == pytest.approx(expected, abs=1e-4)

    def test_the_density_is_normalised(self, family):
        """Monte Carlo: the mean of p(x|u) / r(x) over draws from a wide r is 1."""
        rng = np.random.default_rng(3)
        x, u = family.data(rng), in_time(N_TIMES, LENGTH)
        model = family.build().fit(x, u, rng)
        if model.representation == "stft":
            pytest.skip("variances are fitted to the x at hand")
        label = 7
        inside = x[:, u.labels == label]
        law = multivariate_normal(inside.mean(axis=1), 4 * np.cov(x))
        n = 40_000 if model.is_invertible else 8000
        drawn = law.rvs(n, random_state=1).T
        where = np.full(n, np.flatnonzero(u.labels == label)[0])
        weight = np.exp(model.log_density(drawn, u.take(where)) - law.logpdf(drawn.T))
        error = weight.std() / np.sqrt(n)
        assert error < 0.08
        assert weight.mean() == pytest.approx(1, abs=5 * error + 1e-3)

    def test_what_is_drawn_is_found_again_and_scored_alike(self, fitted):
        model, x, u = fitted
        bound = model.elbo(x, u)
        assert np.isfinite(bound.reconstruction).all()
        assert (bound.kl > -1e-9).all()
        assert bound.mean == pytest.approx((bound.reconstruction - bound.kl).mean())
        z, drawn = model.sample(u, np.random.default_rng(0))
        found = model.posterior(drawn, u)
        if model.representation == "time":
            spread = ((found.mean - z) / found.scale).std()
            assert spread == pytest.approx(1, abs=0.05 if model.is_invertible else 0.15)
        else:
            # frames of a signal are not free: what is filtered there and back is not the same
            assert metrics.mcc(z.T, found.mean.T) > 0.8
        scores = [
            model.log_density(model.sample(u, np.random.default_rng(s))[1], u) for s in (1, 2)
        ]
        error = np.hypot(*(v.std() for v in scores)) / np.sqrt(len(scores[0]))
        assert scores[0].mean() == pytest.approx(scores[1].mean(), abs=5 * error)

    def test_sources_drawn_have_the_moments_of_the_prior(self, fitted):
        model, _, u = fitted
        mean, variance = model.prior_moments()
        z = np.concatenate([model.sample(u, np.random.default_rng(s))[0][None] for s in range(20)])
        for label in (0, 13):
            inside = z[:, :, u.labels == label].transpose(1, 0, 2).reshape(3, -1)
            spread = np.sqrt(variance[label])
            np.testing.assert_allclose(inside.mean(1), mean[label], atol=0.15 * spread.max())
            np.testing.assert_allclose(inside.std(1), spread, rtol=0.15)


class TestFit:
    def test_sample_then_fit(self, fitted, family):
        model, _, u = fitted
        z, x = model.sample(u, np.random.default_rng(5))
        if model.memory > 1:
            pytest.skip("too few windows to learn a filter for every path from")
        again = family.build().fit(x, u, np.random.default_rng(0))
        # of noisy data the model that drew them does not know the sources either
        known = 1.0 if model.is_invertible else metrics.mcc(z.T, model.posterior(x, u).mean.T)
        assert metrics.mcc(z.T, again.posterior(x, u).mean.T) > known - 0.01

    def test_same_seed_same_bits(self, fitted, family):
        model, x, u = fitted
        again = family.build().fit(x, u, np.random.default_rng(0))
        for name, tensor in model.state().tensors.items():
            np.testing.assert_array_equal(again.state().tensors[name], tensor)
        assert again.state().facts == model.state().facts

    def test_the_input_is_left_alone(self, family):
        x, u = family.data(np.random.default_rng(0)), in_time(N_TIMES, LENGTH)
        kept = x.copy()
        model = family.build().fit(x, u, np.random.default_rng(0))
        model.elbo(x, u)
        model.images(x, u)
        np.testing.assert_array_equal(x, kept)

    def test_rebuilt_from_its_state(self, fitted, family):
        import json

        model, _, u = fitted
        x = family.data(np.random.default_rng(7))
        state = model.state()
        json.dumps(state.facts, allow_nan=False)
        other = type(model).from_state(state)
        assert other.family == model.family
        assert (other.n_components, other.is_bound) == (model.n_components, model.is_bound)
        np.testing.assert_array_equal(other.posterior(x, u).mean, model.posterior(x, u).mean)
        np.testing.assert_array_equal(other.elbo(x, u).kl, model.elbo(x, u).kl)
        np.testing.assert_array_equal(other.log_density(x, u), model.log_density(x, u))
        np.testing.assert_array_equal(other.images(x, u), model.images(x, u))
        draws = [m.sample(u, np.random.default_rng(1))[1] for m in (model, other)]
        np.testing.assert_array_equal(*draws)
        for name, tensor in other.state().tensors.items():
            np.testing.assert_array_equal(tensor, state.tensors[name])

    def test_blank_fits_the_same_again(self, fitted):
        model, x, u = fitted
        again = model.blank().fit(x, u, np.random.default_rng(0))
        given = None if model.is_invertible else u
        a, b = (m.posterior(x, given).mean.T for m in (model, again))
        assert metrics.mcc(a, b) > 1 - 1e-6
        assert again.n_components == model.n_components

    def test_refit_prior_keeps_the_map_and_learns_new_labels(self, fitted):
        model, x, u = fitted
        before = model.state().tensors
        other_x = x[:, : N_TIMES // 2] * 1.0
        other_u = in_time(N_TIMES // 2, 250)
        other = model.refit_prior(other_x, other_u)
        assert other.prior_moments()[0].shape[0] == 8
        z = other.posterior(other_x, other_u).mean
        np.testing.assert_array_equal(other.decode(z), model.decode(z))
        power = [np.square(z[:, other_u.labels == k]).mean(axis=1) for k in range(8)]
        if not other.is_bound:
            np.testing.assert_allclose(other.prior_moments()[1], power, rtol=0.1)
        assert model.log_density(x, u).mean() == pytest.approx(
            model.refit_prior(x, u).log_density(x, u).mean(),
            abs=1e-6 if model.is_invertible else 0.05,
        )
        for name, tensor in model.state().tensors.items():
            np.testing.assert_array_equal(tensor, before[name])

    def test_only_what_needs_u_wants_it(self, fitted):
        model, x, _ = fitted
        if not model.needs_u:
            model.posterior(x)
            return
        with pytest.raises(InputError, match="u=None"):
            model.posterior(x)

    def test_left_out_samples_do_not_count(self, family):
        rng = np.random.default_rng(0)
        x, u = family.data(rng), in_time(N_TIMES, LENGTH)
        labels = u.labels.copy()
        labels[500:700] = -1
        holed = Auxiliary((Scale(labels, u.scales[0].names),), None, is_time=True, spec="s")
        wild = x.copy()
        wild[:, 500:700] = 1e6 * rng.standard_normal((len(x), 200))
        a = family.build().fit(x, holed, np.random.default_rng(0))
        b = family.build().fit(wild, holed, np.random.default_rng(0))
        for name, tensor in a.state().tensors.items():
            np.testing.assert_array_equal(tensor, b.state().tensors[name])


class TestLinearAlone:
    """Where the exact density is known in closed form."""

    @pytest.mark.parametrize("standardise", [False, True])
    @pytest.mark.parametrize("k", [1, 2, 4])
    def test_the_elbo_is_the_full_gaussian(self, k, standardise):
        """Sources at unit-variance noise sigma, and an isotropic rest, by scipy."""
        from sourcesep.ivae.invertible import SIGMA

        rng = np.random.default_rng(k)
        x = rng.standard_normal((4, 4)) @ modulated(rng, 4)
        x *= np.array([0.1, 1, 5, 20])[:, None]
        u = in_time(N_TIMES, LENGTH)
        model = LinearModel(k, shapes=(2.0,), standardise_channels=standardise).fit(x, u, rng)
        assert not model.is_bound
        centred = x - x.mean(axis=1, keepdims=True)
        unit = x.std(axis=1) if standardise else np.ones(4)
        values, vectors = np.linalg.eigh(np.cov(centred / unit[:, None], bias=True))
        rest = vectors[:, : 4 - k]
        isotropic = values[: 4 - k].mean() if k < 4 else 0.0
        rest_covariance = isotropic * (unit[:, None] * rest) @ (unit[:, None] * rest).T
        found = model.log_density(x, u)
        for label in (0, 5, 39):
            inside = u.labels == label
            variance = model.prior_moments()[1][label] + SIGMA**2
            covariance = model.mixing @ np.diag(variance) @ model.mixing.T + rest_covariance
            law = multivariate_normal(x.mean(axis=1), covariance)
            np.testing.assert_allclose(found[inside], law.logpdf(x[:, inside].T), atol=1e-6)

    @pytest.mark.parametrize("shapes", [(2.0,), (1.0, 5.0)])
    def test_both_terms_by_monte_carlo(self, shapes):
        """Several sources: both expectations over draws from q."""
        from sourcesep.ivae.invertible import SIGMA

        rng = np.random.default_rng(2)
        x, u = instantaneous(rng), in_time(N_TIMES, LENGTH)
        model = LinearModel(starts=("segments",), shapes=shapes).fit(x, u, rng)
        bound, q = model.elbo(x, u), model.posterior(x, u)
        noise = multivariate_normal(cov=SIGMA**2 * model.mixing @ model.mixing.T)
        for t in rng.choice(N_TIMES, 5, replace=False):
            m, s = q.mean[:, [t]], q.scale[:, [t]]
            z = m + s * rng.standard_normal((3, 20_000))
            reconstruction = noise.logpdf((x[:, [t]] - model.decode(z)).T)
            label = np.full(20_000, u.labels[t])
            kl = (norm.logpdf(z, m, s) - model.prior.log_prob(z, label)).sum(axis=0)
            for drawn, exact in ((reconstruction, bound.reconstruction), (kl, bound.kl)):
                error = drawn.std() / np.sqrt(drawn.size)
                assert exact[t] == pytest.approx(drawn.mean(), abs=5 * error)

    @pytest.mark.parametrize("how", ["average reference", "duplicated channel"])
    @pytest.mark.parametrize("standardise", [False, True])
    def test_rank_deficient_densities_live_on_their_subspace(self, how, standardise):
        """Against the density of the coordinates in an orthonormal basis of the data."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((3, 3)) @ modulated(rng, 3)
        x = np.concatenate([x, 30 * x[:1]]) if how == "duplicated channel" else x - x.mean(0)
        u = in_time(N_TIMES, LENGTH)
        model = LinearModel(shapes=(2.0,), standardise_channels=standardise).fit(x, u, rng)
        centred = x - x.mean(axis=1, keepdims=True)
        basis = np.linalg.svd(centred, full_matrices=False)[0][:, : model.n_components]
        inside = u.labels == 3
        mixing = basis.T @ model.mixing
        covariance = mixing @ np.diag(model.prior_moments()[1][3] + 1e-8) @ mixing.T
        expected = multivariate_normal(cov=covariance).logpdf((basis.T @ centred[:, inside]).T)
        np.testing.assert_allclose(model.log_density(x, u)[inside], expected, atol=1e-5)

    @pytest.mark.parametrize("kind", ["gaussian", "laplace", "uniform"])
    def test_both_terms_by_integration(self, kind):
        """One source: E_q[log p(x|z)] and KL(q||p) by quadrature, and log p(x) beside them."""
        from sourcesep.ivae.invertible import SIGMA

        rng = np.random.default_rng(0)
        draw = {
            "gaussian": rng.standard_normal,
            "laplace": lambda n: rng.laplace(size=n),
            "uniform": lambda n: rng.uniform(-1, 1, n),
        }[kind]
        x = 2.5 * draw(N_TIMES)[None] * np.repeat(rng.uniform(0.5, 2, 40), LENGTH) + 1.0
        u = in_time(N_TIMES, LENGTH)
        model = LinearModel().fit(x, u, rng)
        assert model.is_bound == (kind != "gaussian")
        bound, q = model.elbo(x, u), model.posterior(x, u)
        gain, offset = model.mixing[0, 0], model.mean[0]
        for t in rng.choice(N_TIMES, 12, replace=False):
            at = u.take(np.array([t]))

            def prior(z, at=at):
                return model.prior.log_prob(np.array([[z]]), at.labels)[0, 0]

            def likelihood(z, t=t):
                return norm.logpdf(x[0, t], gain * z + offset, abs(gain) * SIGMA)

            m, s = q.mean[0, t], q.scale[0, t]

            def expect(f, m=m, s=s):
                return quad(lambda e: norm.pdf(e) * f(m + s * e), -9, 9, limit=200)[0]

            kl = expect(lambda z, m=m, s=s: norm.logpdf(z, m, s) - prior(z))
            assert bound.kl[t] == pytest.approx(kl, abs=1e-6)
            assert bound.reconstruction[t] == pytest.approx(expect(likelihood), abs=1e-6)
            scale = SIGMA
            evidence = np.log(
                quad(
                    lambda e: np.exp(prior(m + scale * e) + likelihood(m + scale * e)),  # noqa: B023
                    -12,
                    12,
                    limit=200,
                )[0]
                * scale
            )
            gap = evidence - bound.per_sample[t]
            assert -1e-7 < gap < 1e-3
            if kind == "gaussian":
                assert abs(gap) < 1e-7
