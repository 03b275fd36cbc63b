"""DCI and MIG on answers that are known: one for one, turned, random, repeated."""

import numpy as np
import pytest

from sourcesep import metrics
from sourcesep.exceptions import InputError, SettingsError

SEEDS = pytest.mark.parametrize("seed", [0, 1])
METHODS = pytest.mark.parametrize("method", ["forest", "lasso"])
TURN = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2
"""Every latent is made of all factors alike."""


def factors(seed, n=1200):
    return np.random.default_rng(seed).standard_normal((n, 4))


@SEEDS
@METHODS
def test_one_latent_for_each_factor_is_perfect(seed, method):
    f = factors(seed)
    found = metrics.dci(-3 * f[:, ::-1] + 1, f, method=method)
    assert min(found[:3]) > 0.97
    np.testing.assert_allclose(found.importance, np.eye(4)[::-1], atol=0.02)
    assert metrics.mig(-3 * f[:, ::-1] + 1, f) > 0.93


@SEEDS
@METHODS
def test_turned_latents_know_everything_and_are_nothing(seed, method):
    f = factors(seed)
    found = metrics.dci(f @ TURN, f, method=method)
    assert found.informativeness > 0.85
    assert max(found.disentanglement, found.completeness) < 0.02
    assert metrics.mig(f @ TURN, f) < 0.02


@SEEDS
@METHODS
def test_random_latents_say_nothing(seed, method):
    f, z = factors(seed), factors(seed + 100)
    found = metrics.dci(z, f, method=method)
    assert found.informativeness < 0.01
    assert metrics.mig(z, f) < 0.02


@SEEDS
def test_a_repeated_latent_is_disentangled_and_not_complete(seed):
    f = factors(seed)
    rng = np.random.default_rng(seed)
    twice = np.repeat(f, 2, axis=1) + 0.1 * rng.standard_normal((len(f), 8))
    found = metrics.dci(twice, f)
    assert found.disentanglement > 0.95
    # two of eight latents share a factor: 1 - log 2 / log 8
    assert found.completeness == pytest.approx(2 / 3, abs=0.03)
    assert metrics.mig(twice, f) < 0.05


@SEEDS
def test_a_latent_of_two_factors_is_not_disentangled(seed):
    f = factors(seed)[:, :2]
    noise = np.random.default_rng(seed + 50).standard_normal(len(f))
    found = metrics.dci(np.stack([f.sum(1), noise], axis=1), f)
    assert found.disentanglement < 0.05
    assert found.completeness > 0.3


@SEEDS
def test_a_bent_latent_is_as_good_to_forest_and_mig(seed):
    f = factors(seed)
    assert metrics.mig(np.exp(f), f**3) == metrics.mig(f, f)
    bent = metrics.dci(np.abs(f), f**2)
    assert min(bent[:3]) > 0.97
    assert metrics.dci(f, f**2, method="lasso").informativeness < 0.2


@SEEDS
def test_classes_are_predicted_as_such(seed):
    f = factors(seed)
    names = np.where(f[:, :2] > 0, "on", "off")
    found = metrics.dci(f, names)
    assert min(found[:3]) > 0.95
    np.testing.assert_allclose(found.importance[2:], 0, atol=0.02)
    assert metrics.mig(f, names) > 0.95
    # nothing is known of a class that is drawn: accuracy is that of the most frequent
    rare = (np.random.default_rng(seed + 9).random((len(f), 1)) < 0.1).astype(int)
    assert metrics.dci(f, rare).informativeness < 0.01


def test_a_seed_is_a_result_and_a_silent_latent_does_no_harm():
    f = factors(0, 300)
    z = np.c_[f, np.zeros(300)]
    first, again = metrics.dci(z, f, random_state=3), metrics.dci(z, f, random_state=3)
    assert first[:3] == again[:3]
    assert (first.importance[4] == 0).all()
    assert metrics.mig(z, f) == metrics.mig(f, f)


def test_units_and_kinds_of_number_do_not_matter():
    f = factors(2, 400)
    plain, gap = metrics.dci(f, f), metrics.mig(f, f)
    for unit in (1e200, 1e-200):
        assert metrics.dci(unit * f, unit * f)[:3] == pytest.approx(plain[:3], abs=0.01)
    assert metrics.dci(f, f.astype(object))[:3] == plain[:3]
    assert metrics.dci(f, (1e6 * f).astype(int))[:3] == pytest.approx(plain[:3], abs=0.01)
    assert metrics.mig(f, (1e6 * f).astype(int)) == pytest.approx(gap, abs=0.01)


def test_one_latent_alone():
    f = factors(1)[:, :1]
    assert metrics.dci(f, f)[:3] == pytest.approx((1, 1, 1), abs=0.01)
    with pytest.raises(InputError, match="one column"):
        metrics.mig(f, f)


GOOD = factors(0, 40)


@pytest.mark.parametrize("measure", [metrics.dci, metrics.mig])
@pytest.mark.parametrize(
    ("latents", "truth", "message"),
    [
        (GOOD[:, 0], GOOD, "latents.shape"),
        (GOOD, GOOD[:, 0], "factors.shape"),
        (GOOD.T, GOOD, "4 samples and factors 40"),
        (GOOD[:10], GOOD[:10], "at least 20"),
        (np.where(GOOD > 2, np.nan, GOOD), np.where(GOOD > 0, np.inf, GOOD), "must be finite"),
        (GOOD, np.ones((40, 2)), "column 0 is constant"),
        ([["a", "b"]] * 40, GOOD, "real numbers"),
        (GOOD + 1j, GOOD, "they are complex"),
    ],
)
def test_data_that_cannot_be(measure, latents, truth, message):
    with pytest.raises(InputError, match=message):
        measure(latents, truth)


def test_settings_that_cannot_be():
    for bad in ({"method": "tree"}, {"random_state": -1}, {"random_state": 0.5}):
        with pytest.raises(SettingsError, match=next(iter(bad))):
            metrics.dci(GOOD, GOOD, **bad)
    for n_bins in (1, 2.5, True):
        with pytest.raises(SettingsError, match="n_bins"):
            metrics.mig(GOOD, GOOD, n_bins=n_bins)
    with pytest.raises(InputError, match="numbers only"):
        metrics.dci(GOOD, np.where(GOOD > 0, "a", "b"), method="lasso")
