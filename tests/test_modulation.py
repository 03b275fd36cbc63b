"""Own modulation: found where each component has one, and nowhere else."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import lfilter

from sourcesep.auxiliary import Auxiliary, from_array
from sourcesep.labels import from_values
from sourcesep.modulation import labels_wanted, own_modulation, standard_errors, variance_ratios

from .conftest import labelled

SEEDS = pytest.mark.parametrize("seed", range(5))


def equal(n_labels=20, length=300, *, is_time=True):
    return labelled(np.repeat(np.arange(n_labels), length), is_time=is_time)


def a_tenth(u):
    return np.arange(u.n_times) % 10 == 0


def noise(u, d, seed):
    return np.random.default_rng(seed).standard_normal((d, u.n_times))


def profiles(u, d, seed):
    """A standard deviation for every label and component, as each sample has it."""
    return np.random.default_rng([seed, 1]).uniform(0.5, 3, (d, u.n_labels))[:, u.labels]


@SEEDS
@pytest.mark.parametrize("d", [2, 3, 5])
def test_of_modulated_components(d, seed):
    u = equal()
    assert own_modulation(profiles(u, d, seed) * noise(u, d, seed), u, a_tenth(u)).min() > 5


@pytest.mark.parametrize("is_time", [True, False], ids=["variances", "means too"])
def test_of_fewer_labels_than_wanted_is_nothing(is_time):
    wanted = labels_wanted(3, equal(is_time=is_time))
    found = []
    for n_labels in (wanted, wanted - 1):
        u = equal(n_labels, is_time=is_time)
        found.append(own_modulation(profiles(u, 3, 0) * noise(u, 3, 0), u, a_tenth(u)))
    assert (found[0] != 0).all()
    assert (found[1] == 0).all()


@SEEDS
@pytest.mark.parametrize("what", ["nothing", "one for all"])
def test_of_nothing_is_about_standard_normal(what, seed):
    u = equal()
    one = {
        "nothing": 1.0,
        "one for all": profiles(u, 1, seed),
    }[what]
    found = np.stack([own_modulation(one * noise(u, 3, k), u, a_tenth(u)) for k in range(40)])
    assert np.abs(found.mean()) < 0.5
    assert 0.7 < found.std() < 1.4
    assert found.max() < 5


@SEEDS
@pytest.mark.parametrize("is_time", [True, False], ids=["short labels", "means"])
def test_of_one_for_all_is_so_too_where_labels_are_short_or_have_means(seed, is_time):
    """Reciprocals of two unseen samples would be anything, means of loud labels err the most."""
    counts = np.geomspace(20, 4000, 20).astype(int) if is_time else np.full(20, 500)
    u = labelled(np.repeat(np.arange(20), counts), is_time=is_time)
    found = []
    for k in range(20):
        log_scale = np.random.default_rng([seed, k, 3]).normal(0, 1.2, u.n_labels)
        z = np.exp(log_scale)[u.labels] * noise(u, 3, [seed, k, 4])
        found.append(own_modulation(z, u, a_tenth(u)))
    assert np.std(found) < 1.45


@SEEDS
def test_log_variances_of_fewer_directions_than_components_are_enough(seed):
    """Three that are linear in two covariates: their precisions have three directions."""
    u = equal(40, 500)
    rng = np.random.default_rng([seed, 2])
    angle = np.linspace(0, np.pi, 3, endpoint=False) + rng.uniform(0, np.pi)
    loading = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    own = np.exp(loading @ rng.uniform(-1.2, 1.2, (2, u.n_labels)))[:, u.labels]
    assert own_modulation(own * noise(u, 3, seed), u, a_tenth(u)).min() > 3


@SEEDS
def test_two_that_share_one_are_told_from_a_third(seed):
    u = equal()
    own = profiles(u, 3, seed)
    own[1] = own[0]
    found = own_modulation(own * noise(u, 3, seed), u, a_tenth(u))
    assert found[:2].max() < 4
    assert found[2] > 5


@SEEDS
def test_what_comes_back_in_no_unseen_sample_does_not_count(seed):
    """As if a fit had made up a modulation for the samples that it saw."""
    u = equal()
    made_up = np.where(a_tenth(u), 1.0, profiles(u, 2, seed))
    assert own_modulation(made_up * noise(u, 2, seed), u, a_tenth(u)).max() < 3


@SEEDS
def test_means_count_unless_u_is_time(seed):
    level = profiles(equal(), 2, seed)
    for is_time in (False, True):
        u = equal(is_time=is_time)
        z = noise(u, 2, seed)
        moved = own_modulation(z + (level - level.mean()) / level.std(), u, a_tenth(u))
        assert own_modulation(z, u, a_tenth(u)).max() < 3
        if not is_time:
            assert moved.min() > 5


def test_too_few_labels_tell_nothing():
    """Theorem 1 wants one label more than there are profiles."""
    for n_labels, is_time, enough in ((3, True, False), (4, True, True), (6, False, False)):
        u = equal(n_labels, 2000, is_time=is_time)
        found = own_modulation(profiles(u, 3, 0) * noise(u, 3, 0), u, a_tenth(u))
        assert (found != 0).all() == enough


def test_labels_of_one_unseen_sample_count_as_well():
    u = equal(100, 12)
    held = np.arange(u.n_times) % 12 == 0
    found = [own_modulation(noise(u, 2, k), u, held) for k in range(40)]
    assert np.abs(np.mean(found)) < 0.5
    assert 0.7 < np.std(found) < 1.4
    moved = [own_modulation(profiles(u, 2, k) * noise(u, 2, k), u, held).min() for k in range(5)]
    assert np.median(moved) > 3


def test_of_a_weighted_sum_of_the_others_precisions_is_nothing():
    """Then natural parameters have one direction fewer, as theorem 1 does not allow."""
    u = equal(20, 500)
    found = []
    for k in range(20):
        own = profiles(u, 3, k)
        own[2] = 1 / np.sqrt(0.5 / own[0] ** 2 + 0.5 / own[1] ** 2 + 0.3)
        found.append(own_modulation(own * noise(u, 3, k), u, a_tenth(u))[2])
    assert np.mean(found) < 0.5
    assert np.max(found) < 3


class TestCovariates:
    """A continuous u: moments are smooth functions of it."""

    def drawn(self, n_covariates, seed):
        rng = np.random.default_rng([seed, n_covariates])
        values = rng.uniform(-1, 1, (10_000, n_covariates))
        return values, from_array(values, 10_000)

    @SEEDS
    def test_of_log_variances_linear_in_two_of_them(self, seed):
        """By moments in cells of both the worst had 1.4 to 4.4."""
        values, u = self.drawn(2, seed)
        angle = np.arange(3) * np.pi / 3 + seed
        own = np.exp(0.72 * np.stack([np.cos(angle), np.sin(angle)], axis=1) @ values.T)
        assert own_modulation(own * noise(u, 3, seed), u, a_tenth(u)).min() > 4.5

    @pytest.mark.parametrize("n_covariates", [1, 2, 3])
    @pytest.mark.parametrize("moves", ["variances", "means"])
    def test_of_waves_of_each_component_s_own(self, n_covariates, moves):
        for seed in range(3):
            values, u = self.drawn(n_covariates, seed)
            turns, of = np.divmod(np.arange(3), n_covariates)
            waves = np.cos(np.pi * (turns + 1) * values[:, of]).T
            z = noise(u, 3, seed)
            z = np.exp(0.6 * waves) * z if moves == "variances" else z + 0.6 * waves
            assert own_modulation(z, u, a_tenth(u)).min() > 4

    @pytest.mark.parametrize("n_covariates", [1, 3])
    @pytest.mark.parametrize("what", ["nothing", "one for all"])
    def test_of_nothing_is_about_standard_normal(self, n_covariates, what):
        """A little above it: the stronger of two counts."""
        found = []
        for seed in range(20):
            values, u = self.drawn(n_covariates, seed)
            one = np.exp(values.sum(axis=1)) if what == "one for all" else 1.0
            found.append(own_modulation(one * noise(u, 3, [seed, 1]), u, a_tenth(u)))
        assert np.mean(found) < 1
        assert np.mean(np.array(found) > 3) < 0.04

    def test_labels_count_where_they_say_more(self):
        """Covariates beside text: polynomials in them know nothing of it."""
        rng = np.random.default_rng(0)
        text, value = rng.integers(0, 8, 8000), rng.normal(size=8000)
        columns = {"text": text.astype(str), "value": value}
        factor = from_values(columns, are_labels=True)
        u = Auxiliary(factor.scales, factor.covariates, is_time=False, spec="array")
        own = rng.uniform(0.5, 3, (2, 8))[:, text]
        assert own_modulation(own * noise(u, 2, 0), u, a_tenth(u)).min() > 5


@SEEDS
def test_labels_of_any_size(seed):
    """Of labels without two unseen samples nothing can be said: they are left out."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(40), rng.integers(1, 400, 40))
    u = labelled(labels)
    held = rng.random(len(labels)) < 0.1
    assert own_modulation(noise(u, 2, seed), u, held).max() < 4
    assert own_modulation(profiles(u, 2, seed) * noise(u, 2, seed), u, held).min() > 4


@pytest.mark.parametrize("is_time", [True, False])
def test_a_label_counts_by_its_samples(is_time):
    """What chance makes of the moments of a few is no evidence, and hides none."""
    counts = np.geomspace(20, 4000, 20).astype(int)
    labels = np.repeat(np.arange(20), counts)
    u = labelled(labels, is_time=is_time)
    held = a_tenth(u)
    for seed in range(20):
        one = profiles(u, 1, seed)
        assert own_modulation(one * noise(u, 3, seed), u, held).max() < 4
        if is_time:
            assert own_modulation(profiles(u, 3, seed) * noise(u, 3, seed), u, held).min() > 3


class TestVarianceRatios:
    """Whether the variances of two components change in different ways."""

    def errors(self, z, u):
        found = standard_errors(*variance_ratios(z, u))
        return found[np.triu_indices(len(z), 1)]

    @SEEDS
    @pytest.mark.parametrize("is_time", [True, False])
    @pytest.mark.parametrize("d", [2, 4])
    def test_of_modulated_components(self, d, is_time, seed):
        u = equal(8, 100, is_time=is_time)
        assert self.errors(profiles(u, d, seed) * noise(u, d, seed), u).min() > 3

    @pytest.mark.parametrize("what", ["white", "one for all", "hangs together", "heavy tails"])
    @pytest.mark.parametrize("n_labels", [2, 8, 40])
    def test_of_nothing_is_about_standard_normal(self, what, n_labels):
        u = equal(n_labels, 2400 // n_labels, is_time=False)
        draws = []
        for seed in range(60):
            z = noise(u, 3, seed)
            if what == "one for all":
                z = 2 * profiles(u, 1, seed) * z
            elif what == "hangs together":
                z = lfilter([1.0], [1.0, -0.5], z, axis=1)
            elif what == "heavy tails":
                z = np.random.default_rng(seed).standard_t(6, z.shape)
            draws.append(self.errors(z, u))
        assert np.mean(draws) < 1
        assert np.mean(np.array(draws) > 3) < 0.08
        if what in ("white", "one for all"):
            assert np.mean(draws) > -0.5
            assert 0.7 < np.std(draws) < 1.3

    def test_means_count_where_u_is_time_only(self):
        """A mean of a label's own is no variance; in time it is signal."""
        u = equal(8, 200, is_time=False)
        z = noise(u, 2, 0) + np.array([[3.0], [0.0]]) * profiles(u, 1, 1)
        assert self.errors(z, u).max() < 3
        assert self.errors(z, replace(u, is_time=True)).min() > 3

    def test_two_labels_are_needed(self):
        u = equal(1, 500)
        assert variance_ratios(noise(u, 2, 0), u)[1] == 0
        labels = np.arange(500)
        alone = labelled(labels, is_time=False)
        assert variance_ratios(noise(u, 2, 0), alone)[1] == 0
