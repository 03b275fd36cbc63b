"""The post-nonlinear family: recovery, harmlessness, exactness, messages."""

import copy
import functools
import re

import numpy as np
import pytest

from sourcesep.exceptions import InputError, SettingsError
from sourcesep.ivae.chains import curve_samples
from sourcesep.ivae.chains.filters import convolve
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.post_nonlinear import PostNonlinearModel
from sourcesep.metrics import si_sdr

from ..conftest import labelled

N_LABELS, LENGTH = 60, 250
U = labelled(np.repeat(np.arange(N_LABELS), LENGTH))


def modulated(seed, d=2):
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.normal(0, 0.9, (d, N_LABELS)))[:, U.labels]
    sources = rng.normal(size=(d, N_LABELS * LENGTH)) * scale
    mixing = np.eye(d) + rng.uniform(-0.6, 0.6, (d, d)) * (1 - np.eye(d))
    y = mixing @ sources
    return sources, y / np.abs(y).max(axis=1, keepdims=True)


def fitted(x, u=U, **settings):
    return PostNonlinearModel(**settings).fit(x, u, np.random.default_rng(0))


def best_match(reference, estimate):
    values = [[float(np.mean(si_sdr(s, z))) for z in estimate] for s in reference]
    return np.mean(np.max(values, axis=1))


SATURATIONS = {
    "tanh": (lambda y: np.tanh(4 * y) / 4, 30),
    "offset": (lambda y: np.tanh(4 * y + 0.4) / 4, 30),
    "rational": (lambda y: y / (1 + 4 * np.abs(y)), 15),
    "a strength per channel": (
        lambda y: np.tanh(np.array([[2.0], [6.0], [4.0]])[: len(y)] * y),
        26,
    ),
}


@pytest.mark.parametrize("kind", SATURATIONS)
@pytest.mark.parametrize("seed", [0, 1])
def test_saturated_sources_are_found(kind, seed):
    distort, bound = SATURATIONS[kind]
    sources, y = modulated(seed)
    x = distort(y)
    linear = LinearModel(starts=("segments",)).fit(x, U, np.random.default_rng(0))
    found = best_match(sources, fitted(x).posterior(x).mean)
    assert found > bound
    assert found > best_match(sources, linear.posterior(x).mean) + 6


def test_three_channels():
    sources, y = modulated(3, d=3)
    x = SATURATIONS["a strength per channel"][0](y)
    assert best_match(sources, fitted(x).posterior(x).mean) > 22


@pytest.mark.parametrize("seed", range(5))
def test_an_undistorted_mixture_gets_the_linear_answer(seed):
    _, y = modulated(seed)
    model = fitted(y)
    linear = LinearModel().fit(y, U, np.random.default_rng(0))
    assert model.curve == "none"
    np.testing.assert_allclose(model.posterior(y).mean, linear.posterior(y).mean, atol=1e-9)
    np.testing.assert_allclose(model.log_density(y, U), linear.log_density(y, U), atol=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_memory_and_saturation_are_undone(seed):
    sources, _ = modulated(seed)
    rng = np.random.default_rng(seed)
    taps = rng.normal(0, 0.3, (2, 2, 7)) * np.exp(-np.arange(7) / 2)
    taps[:, :, :4] = 0
    taps[[0, 1], [0, 1], 3] = 1
    y = convolve(taps, sources)
    y /= y.std(axis=1, keepdims=True)
    x = np.tanh(1.5 * y)
    model = fitted(x, kernel_size=4)
    assert model.curve != "none"
    undone = model.mixture(x)
    residual = [1 - np.corrcoef(undone[c], y[c])[0, 1] ** 2 for c in range(2)]
    linear = [1 - np.corrcoef(x[c], y[c])[0, 1] ** 2 for c in range(2)]
    assert max(residual) < 0.3 * min(linear)


KINDS = {
    "matrix": {},
    "filter": {"kernel_size": 2},
    "two filters": {"kernel_size": 2, "post_kernel_size": 2},
    "fallback": {"curves": ("none",)},
}


@functools.cache
def model_of(kind):
    x = np.tanh(4 * modulated(0)[1])
    return fitted(x, **KINDS[kind]), x


@pytest.mark.parametrize("kind", KINDS)
def test_exactness_and_rules_of_the_contract(kind):
    model, x = model_of(kind)
    z, _ = model.encode(x)
    np.testing.assert_allclose(model.decode(z), x, atol=1e-8)
    np.testing.assert_allclose(z.std(axis=1), 1, rtol=0.01)
    images = model.images(x)
    total = model.mixture(x)
    assert (total is x) == (kind == "fallback")  # no curve: nothing is undone
    if kind == "fallback":
        total = x - x.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(images.sum(axis=0), total, atol=1e-8)
    power = np.square(images).sum(axis=(1, 2))
    assert power[0] >= 0.98 * power[1]
    rebuilt = PostNonlinearModel.from_state(model.state())
    assert np.array_equal(rebuilt.posterior(x).mean, model.posterior(x).mean)
    assert np.array_equal(rebuilt.log_density(x, U), model.log_density(x, U))


def test_same_seed_same_bits():
    model, x = model_of("two filters")
    again = fitted(x, **KINDS["two filters"])
    assert np.array_equal(again.encode(x)[0], model.encode(x)[0])


@pytest.mark.parametrize("kind", ["matrix", "filter"])
def test_quiet_signals_pass_the_curves_unchanged(kind):
    model, x = model_of(kind)
    curves = model.chain.curves
    assert not curves.is_identity
    log_slope = curves.forward(np.median(x, axis=1, keepdims=True))[1]
    np.testing.assert_allclose(log_slope, 0, atol=1e-9)


@pytest.mark.parametrize("kind", ["matrix", "two filters"])
def test_the_density_is_the_priors_times_the_jacobian(kind):
    model, x = model_of(kind)
    if model.is_bound:
        model = copy.copy(model)
        model.shapes = (2.0,)
        model = model.refit_prior(x, U)
    z, volume = model.encode(x)
    variance = model.prior.variance[U.labels].T + 1e-8
    expected = volume - 0.5 * (np.log(2 * np.pi * variance) + z**2 / variance).sum(axis=0)
    np.testing.assert_allclose(model.log_density(x, U), expected, atol=1e-6)


def test_fitting_what_was_sampled_finds_the_sources_again():
    model, _ = model_of("matrix")
    z, x = model.sample(U, np.random.default_rng(1))
    assert best_match(z, fitted(x).posterior(x).mean) > 25


def test_units_of_the_channels_do_not_matter():
    _, y = modulated(2)
    x = np.tanh(4 * y)
    scaled = x * np.array([[1e-6], [50.0]])
    ours, theirs = fitted(x).posterior(x).mean, fitted(scaled).posterior(scaled).mean
    match = np.abs(np.corrcoef(ours, theirs)[:2, 2:]).max(axis=1)
    assert (match > 0.9999).all()


def test_left_out_samples_do_not_change_the_fit():
    _, y = modulated(4)
    x = np.tanh(4 * y)
    labels = U.labels.copy()
    labels[labels == 9] = -1
    u = labelled(labels)
    spoilt = x.copy()
    spoilt[:, labels == -1] *= 0.1
    one, other = fitted(x, u), fitted(spoilt, u)
    assert np.array_equal(one.chain.inner, other.chain.inner)
    assert np.array_equal(one.chain.curves.log_slopes, other.chain.curves.log_slopes)


def test_what_cannot_be_fitted_is_refused_in_plain_words():
    x = modulated(0)[1]
    with pytest.raises(InputError, match=re.escape("rank=1 of 2 channels: mixing=post-nonlinear")):
        fitted(np.stack([x[0], 2 * x[0]]))
    with pytest.raises(SettingsError, match=re.escape("n_components=1: mixing=post-nonlinear")):
        fitted(x, n_components=1)
    with pytest.raises(SettingsError, match=re.escape("kernel_size=0: a filter has at least 1")):
        PostNonlinearModel(kernel_size=0)
    with pytest.raises(SettingsError, match=re.escape("curves=('cubic',): allowed are none, log")):
        PostNonlinearModel(curves=("cubic",))
    short = labelled(np.repeat(np.arange(10), 20))
    with pytest.raises(
        SettingsError, match="filters that long need 480 samples and there are 200"
    ):
        fitted(x[:, :200], short, kernel_size=10)


def test_a_curve_is_found_by_the_loudest_parts_of_a_long_record():
    """Nothing in the middle of the record is loud enough to be bent."""
    n_labels, length = 1200, 250
    rng = np.random.default_rng(0)
    scale = np.exp(rng.normal(0, 0.9, (2, n_labels)).clip(-2, 1))
    scale[:, 150:1050] *= 0.1
    labels = np.arange(n_labels).repeat(length)
    sources = rng.normal(size=(2, len(labels))) * scale[:, labels]
    y = np.array([[1, 0.4], [-0.3, 1]]) @ sources
    x = np.tanh(4 * y / np.abs(y).max(axis=1, keepdims=True))
    model = fitted(x, labelled(labels), curves=("none", "logistic"))
    assert model.curve == "logistic"
    assert best_match(sources, model.encode(x)[0]) > 25


def sparse_within_labels(seed, n_labels=240):
    """Sources whose power also changes within labels: bursts of 50 samples, off the labels."""
    rng = np.random.default_rng(seed)
    n_times = n_labels * LENGTH
    bursts = np.exp(rng.normal(0, 1.2, (2, n_times // 50 + 1)))
    sources = rng.normal(size=(2, n_times)) * bursts.repeat(50, axis=1)[:, 17 : n_times + 17]
    y = np.array([[1, 0.5], [-0.4, 1]]) @ sources
    return (
        sources,
        y / np.abs(y).max(axis=1, keepdims=True),
        labelled(np.arange(n_times) // LENGTH),
    )


@pytest.mark.parametrize("seed", [20, 21, 22])
def test_power_that_changes_within_labels_bends_no_curve(seed, monkeypatch):
    sources, y, u = sparse_within_labels(seed)
    x = np.tanh(4 * y)
    found = best_match(sources, fitted(x, u, curves=("logistic",)).encode(x)[0])
    monkeypatch.setattr(curve_samples, "PIECES", 1)
    whole = best_match(sources, fitted(x, u, curves=("logistic",)).encode(x)[0])
    assert found > 30
    assert found > whole + 2


@pytest.mark.parametrize("seed", [20, 21, 22])
def test_a_curve_stays_in_reason_beyond_the_samples_it_is_fitted_on(seed, monkeypatch):
    """Only one sample of thirty is fitted on, and still no peak is thrown far out."""
    monkeypatch.setattr(curve_samples, "MOST_SAMPLES", 2000)
    _, y, u = sparse_within_labels(seed)
    x = y / (1 + 4 * np.abs(y))
    model = fitted(x, u, curves=("smooth",))
    undone = model.mixture(x)
    crest = np.abs(undone).max(axis=1) / undone.std(axis=1)
    true = np.abs(y).max(axis=1) / y.std(axis=1)
    assert (crest < 3 * true).all()


def test_the_samples_of_a_curve_hold_the_ends_of_every_channel():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 60_000)) * 0.1
    x[[0, 0, 1, 1, 2, 2], [5, 77, 20_001, 20_003, 59_990, 31]] = 4, -4, 5, -5, 6, -6
    data = curve_samples.Data(x, np.arange(60_000) // 40, with_mean=False)
    some = curve_samples.thinned(curve_samples.telling_labels(data, rng))
    assert some.x.shape[1] < 32_010
    for end in ("min", "max"):
        assert np.array_equal(getattr(some.x, end)(axis=1), getattr(x, end)(axis=1))
