"""A prior that is a network of continuous u, against one with a row a label."""

import numpy as np
import pytest

from sourcesep import auxiliary, metrics
from sourcesep.ivae.amortised import AmortisedModel
from sourcesep.ivae.frame import Frame
from sourcesep.ivae.networks import LEAST_LOG_VARIANCE, MOST_LOG_VARIANCE
from sourcesep.ivae.prior_tables import prior_from, prior_tensors, table_for
from sourcesep.ivae.priors import LabelPrior
from sourcesep.ivae.vae.prior_network import NetworkPrior


def smooth(seed, n, tails="gaussian"):
    """Sources whose means and variances follow two covariates, and twice as many samples."""
    rng = np.random.default_rng(seed)
    c = rng.uniform(-1, 1, (2 * n, 2))
    log_variance = np.stack([2 * np.sin(3 * c[:, 0]), 2 * c[:, 1], 2 * c[:, 0] * c[:, 1]])
    mean = np.stack([c[:, 1], 0 * c[:, 0], np.sin(3 * c[:, 0])])
    noise = rng.laplace(size=mean.shape) / np.sqrt(2)
    if tails == "gaussian":
        noise = rng.standard_normal(mean.shape)
    z = mean + np.exp(log_variance / 2) * noise
    return z / z.std(axis=1, keepdims=True), auxiliary.from_array(c, 2 * n)


@pytest.fixture(scope="module", params=[(0, "gaussian"), (1, "gaussian"), (0, "laplace")], ids=str)
def fitted(request):
    z, u = smooth(request.param[0], 300, request.param[1])
    seen = np.arange(u.n_times) < 300
    prior = NetworkPrior.fit(z[:, seen], u.take(seen), np.random.default_rng(0))
    return prior, z, u, seen


def test_it_beats_labels_where_u_is_smooth_and_samples_are_few(fitted):
    prior, z, u, seen = fitted
    labels = LabelPrior.fit(z[:, seen], u.labels[seen], u.n_labels, with_mean=True)
    table, rows = prior.at(u.take(~seen))
    network = table.log_prob(z[:, ~seen], rows).sum(axis=0).mean()
    by_label = labels.log_prob(z[:, ~seen], u.labels[~seen]).sum(axis=0).mean()
    assert network > by_label + 0.2


def test_shuffled_covariates_say_nothing(fitted):
    prior, z, u, seen = fitted
    mixed = u.take(np.random.default_rng(1).permutation(u.n_times))
    useless = NetworkPrior.fit(z[:, seen], mixed.take(seen), np.random.default_rng(0))

    def density(p, given):
        table, rows = p.at(given.take(~seen))
        return table.log_prob(z[:, ~seen], rows).sum(axis=0).mean()

    assert density(prior, u) > density(useless, mixed) + 0.5


def test_heavy_tails_are_seen():
    for tails, exponent in (("laplace", 1.0), ("gaussian", 2.0)):
        z, u = smooth(2, 500, tails)
        shape = NetworkPrior.fit(z, u, np.random.default_rng(0)).shape
        assert (shape == exponent).sum() >= 2


def test_samples_drawn_have_its_moments(fitted):
    prior, _, u, _ = fitted
    one = u.take(np.zeros(20_000, int))
    table, rows = prior.at(one)
    drawn = table.sample(rows, np.random.default_rng(0))
    mean, variance = prior.moments(one.covariates[:1])
    np.testing.assert_allclose(drawn.mean(axis=1), mean[0], atol=0.05 * drawn.std(axis=1).max())
    np.testing.assert_allclose(drawn.var(axis=1), variance[0], rtol=0.1)


def test_variances_are_bounded_far_outside(fitted):
    prior = fitted[0]
    variance = prior.moments(np.full((1, 2), 1e6))[1]
    assert (np.exp(LEAST_LOG_VARIANCE) <= variance).all()
    assert (variance <= np.exp(MOST_LOG_VARIANCE)).all()


def test_in_another_frame_and_from_its_tensors(fitted):
    """Densities change by the volume of the change of scale, and by nothing else."""
    prior, z, u, _ = fitted
    frame = Frame(np.array([2, 0, 1]), np.array([0.1, -0.2, 0.3]), np.array([2.0, -1.5, 0.5]))
    shown = prior_from(prior_tensors(frame.show_prior(prior)))
    (a, rows), (b, _) = prior.at(u), shown.at(u)
    density = a.log_prob(z, rows).sum(axis=0)
    moved = b.log_prob(frame.show(z), rows).sum(axis=0)
    np.testing.assert_allclose(moved - density, np.log(np.abs(frame.gain)).sum(), atol=1e-9)
    np.testing.assert_allclose(frame.inverse.show(frame.show(z)), z, atol=1e-12)


def test_without_covariates_labels_stand_in(fitted):
    prior, _, u, _ = fitted
    bare = auxiliary.Auxiliary(u.scales, None, False, "array")
    table, rows = table_for(prior, bare)
    assert table.n_labels == u.n_labels
    np.testing.assert_array_equal(rows, u.labels)


def test_the_amortised_family_uses_it():
    z, u = smooth(3, 1000)
    x = np.random.default_rng(0).standard_normal((3, 3)) @ z
    model = AmortisedModel(candidates=("linear",), starts=("segments",))
    model.fit(x, u, np.random.default_rng(0))
    assert isinstance(model.prior, NetworkPrior)
    assert metrics.mcc(z.T, model.posterior(x, u).mean.T) > 0.95


@pytest.fixture(scope="module")
def trained():
    """Encoder, decoder and p(z|u) trained together, where u is continuous."""
    rng = np.random.default_rng(0)
    n_times = 2000
    seen = rng.uniform(-1, 1, (n_times, 2))
    loudness = np.exp(1.2 * np.tanh(seen @ np.array([[1.5, 0, -1.5], [0, 1.5, 1.5]])))
    x = rng.standard_normal((5, 3)) @ (loudness * rng.standard_normal((n_times, 3))).T
    x += 0.1 * rng.standard_normal(x.shape)
    u = auxiliary.from_array(seen, n_times)
    model = AmortisedModel(3, kernel_size=1, candidates=("networks",), n_restarts=1, n_steps=100)
    return model.fit(x, u, rng), x, u


def test_trained_with_the_other_networks_it_says_more_than_of_another_u(trained):
    model, x, u = trained
    assert isinstance(model.prior, NetworkPrior)
    assert model.choice.startswith("networks of 1 sample, started by")
    order = np.random.default_rng(1).permutation(u.n_times)
    shuffled = auxiliary.from_array(u.covariates[order], u.n_times)
    gain = model.log_density(x, u) - model.log_density(x, shuffled)
    assert gain.mean() > 0.3


def test_trained_networks_are_rebuilt_from_their_state(trained):
    model, x, u = trained
    again = AmortisedModel.from_state(model.state())
    np.testing.assert_array_equal(again.posterior(x, u).mean, model.posterior(x, u).mean)
