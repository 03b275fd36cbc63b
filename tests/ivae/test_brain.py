"""A matrix under electrodes' noise: better estimates than a joint diagonaliser's, and no magic."""

import numpy as np
import pytest

from sourcesep import auxiliary, metrics, simulate
from sourcesep.auxiliary import Auxiliary, Scale
from sourcesep.ivae.brain import BrainModel
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.matrices import brain_covariances
from sourcesep.ivae.matrices.brain_covariances import Group, see
from sourcesep.ivae.matrices.brain_rows import loudest_noise, signal_shares, under_noise
from sourcesep.ivae.reproducibility import split_half_correlations
from sourcesep.ivae.settings import Settings
from sourcesep.recording import from_array

SFREQ = 250.0
SPEC = "segments:.5,2,8"


def fitted(model, x, spec=SPEC):
    u = auxiliary.build(spec, from_array(x, SFREQ))
    return model.fit(x, u, np.random.default_rng(0))


def mcc(model, x, sources):
    return metrics.mcc(sources.T, model.posterior(x).mean.T)


def test_sources_are_estimated_better_under_noise_and_as_well_without():
    gains = {2e-6: [], 1e-9: []}
    for seed in range(3):
        for noise, gain in gains.items():
            head = simulate.eeg(
                18, 100.0, SFREQ, n_channels=18, n_artefacts=0, noise=noise, random_state=seed
            )
            plain = fitted(LinearModel(starts=("segments",), shapes=(2.0,)), head.data)
            better = fitted(BrainModel(sfreq=SFREQ), head.data)
            gain.append(mcc(better, head.data, head.sources) - mcc(plain, head.data, head.sources))
    assert min(gains[2e-6]) > 0.004
    assert min(gains[1e-9]) > -0.002


def covariances(rng, d=6, n_labels=400, noise=0.3):
    """Of known mixing and noise, whitened as a whole."""
    mixing = np.eye(d) + 0.2 * rng.standard_normal((d, d))
    powers = np.exp(rng.standard_normal((n_labels, d)))
    found = (mixing * powers[:, None]) @ mixing.T + noise * np.eye(d)
    values, vectors = np.linalg.eigh(found.mean(axis=0))
    white = (vectors / np.sqrt(values)) @ vectors.T
    return white @ mixing, white @ found @ white.T


@pytest.mark.parametrize("seed", range(3))
def test_one_step_goes_most_of_the_way_to_the_least_squares_estimate(seed):
    mixing, found = covariances(np.random.default_rng(seed))
    best = (mixing / np.linalg.norm(mixing, axis=0)).T
    start = np.linalg.inv(mixing)  # what unmixes, were there no noise
    start /= np.linalg.norm(start, axis=1, keepdims=True)

    def error(rows):
        return np.abs(rows - best).max()

    groups = [Group(found, np.full(len(found), 100), None)]
    assert error(under_noise(start, groups)) < 1e-6
    nearby = start @ (np.eye(6) + 0.02 * np.random.default_rng(seed).standard_normal((6, 6)))
    assert error(under_noise(nearby, groups)) < 0.3 * error(nearby)


def test_what_chance_explains_is_not_taken_for_noise():
    # powers change, no noise, and every covariance is of 30 samples only
    rng = np.random.default_rng(0)
    d, n_labels, size = 6, 60, 30
    moved = []
    for _ in range(5):
        z = np.exp(0.5 * rng.standard_normal((n_labels, d, 1)))
        z = z * rng.standard_normal((n_labels, d, size))
        z /= np.sqrt((z**2).mean(axis=(0, 2), keepdims=True))
        found = z @ z.transpose(0, 2, 1) / size
        rows = under_noise(np.eye(d), [Group(found, np.full(n_labels, size), None)])
        moved.append(np.abs(rows - np.eye(d)).max())
    assert np.mean(moved) < 0.03


@pytest.mark.parametrize("noise", [0.01, 0.1, 0.3])
def test_shares_of_signal_are_squared_correlations_with_the_sources(noise):
    rng = np.random.default_rng(3)
    mixing = rng.standard_normal((12, 8)) / np.sqrt(12)
    covariance = mixing @ mixing.T + noise * np.eye(12)
    rows = np.linalg.solve(covariance, mixing).T  # of least squares
    true = np.einsum("ij,ji->i", rows, mixing)
    rows /= np.sqrt(np.einsum("ij,jk,ik->i", rows, covariance, rows))[:, None]
    found = signal_shares(rows, rows @ covariance @ rows.T, noise)
    assert np.ptp(true) > 0.1 or noise == 0.01
    assert np.abs(found - true).max() < 0.1 * (1 - true).max()


def test_of_two_components_that_are_the_same_half_goes_to_each():
    rows = np.array([[1.0, 0.0], [1.0, 0.0]])
    assert np.allclose(signal_shares(rows, np.ones((2, 2)), 0.0), 0.5)
    # and what does not correlate, without noise, goes whole as in ICA
    assert np.array_equal(signal_shares(np.eye(2), np.eye(2), 0.0), np.ones(2))


def test_shares_are_shares_to_the_last_bit():
    # rounding, of rows along the quietest direction and of correlations with themselves
    rows = np.random.default_rng(0).standard_normal((1000, 1, 3))
    alone = [signal_shares(w, np.eye(1), float(np.linalg.norm(w) ** -2)) for w in rows]
    assert min(alone) == 0
    assert np.max(alone) < 1e-12
    assert signal_shares(rows[0], np.full((1, 1), 1 - 1e-15), 0.0) == 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bands", [False, True])
def test_as_many_sources_as_channels_and_no_noise_leave_components_whole(seed, bands):
    # the channels' quietest direction holds sources then; with it for noise shares were 0 to .9
    rng = np.random.default_rng(seed)
    levels = np.exp(rng.standard_normal((4, 200))).repeat(125, axis=1)
    sources = levels * rng.standard_normal(levels.shape)
    sources /= sources.std(axis=1, keepdims=True)
    for mixing in (np.linalg.qr(rng.standard_normal((4, 4)))[0], rng.standard_normal((4, 4))):
        model = fitted(BrainModel(bands=bands, sfreq=SFREQ), mixing @ sources)
        assert model.signal.min() > 0.93


def test_noise_is_no_louder_than_components_at_quiet_times_but_for_gaps():
    powers = np.ones((100, 2))
    unmixing = np.array([[2.0, 0.0], [0.0, 1.0]])
    assert loudest_noise(0.2, powers, unmixing) == 0.2
    assert loudest_noise(0.3, powers, unmixing) == 0.25
    powers[:5] = 0  # a gap in the recording is not what it is like at quiet times
    assert loudest_noise(0.2, powers, unmixing) == 0.2
    powers[:20, 1] = 0.01
    assert loudest_noise(0.2, powers, unmixing) == 0.01


@pytest.mark.parametrize("bands", [False, True])
def test_reliability_from_covariances_is_that_from_samples(bands):
    head = simulate.eeg(7, 100.0, SFREQ, n_channels=10, n_artefacts=2, random_state=2)
    u = auxiliary.build(SPEC, from_array(head.data, SFREQ))
    model = BrainModel(bands=bands, sfreq=SFREQ)
    assert model.halves(np.random.default_rng(5), 2) is None  # nothing was fitted
    model.fit(head.data, u, np.random.default_rng(0))
    z = model.posterior(head.data).mean
    told = model.halves(np.random.default_rng(5), 2).reliability()
    slow = split_half_correlations(
        head.data, z, u, model.rows, np.random.default_rng(5), n_splits=2
    )
    steady = slow > 0.99
    assert steady.sum() >= 6
    # halves of filtered data are not quite the halves filtered
    assert np.abs(told - slow)[steady].max() < (0.01 if bands else 1e-3)
    assert model.halves(np.random.default_rng(5), 2) is None  # and let go


def test_halves_are_drawn_within_segments_where_these_are_few():
    head = simulate.eeg(6, 30.0, SFREQ, n_channels=6, random_state=2)
    model = fitted(BrainModel(sfreq=SFREQ), head.data)
    assert model.halves(np.random.default_rng(0), 2) is None


def test_samples_that_u_leaves_out_count_for_nothing():
    x = simulate.eeg(4, 20.0, SFREQ, n_channels=4, n_artefacts=0, random_state=0).data
    u = auxiliary.build(SPEC, from_array(x, SFREQ))
    kept = np.arange(x.shape[1]) % 500 < 400
    scales = tuple(Scale(np.where(kept, s.labels, -1), s.names) for s in u.scales)
    partly = Auxiliary(scales, None, is_time=True, spec=SPEC)
    rng = np.random.default_rng(0)
    one = BrainModel(sfreq=SFREQ).fit(np.where(kept, x, 1.0), partly, rng)
    other = BrainModel(sfreq=SFREQ).fit(x[:, kept], partly.take(kept), rng)
    np.testing.assert_allclose(one.unmixing, other.unmixing, rtol=1e-9)


def test_halves_of_which_one_does_not_hear_a_source_say_nothing():
    """What sounds in one long segment only is in one of two halves; half a source is none."""
    rng = np.random.default_rng(0)
    sources = rng.laplace(size=(3, 40_000)) * np.exp(rng.normal(size=(3, 320))).repeat(125, axis=1)
    sources[2, 2000:] = 0
    model = fitted(BrainModel(sfreq=SFREQ), rng.standard_normal((3, 3)) @ sources)
    assert model.halves(np.random.default_rng(0), 10) is None


def test_one_component_is_the_largest_principal_one():
    x = simulate.eeg(4, 20.0, SFREQ, n_channels=4, n_artefacts=0, random_state=0).data
    model = fitted(BrainModel(1, sfreq=SFREQ), x)
    largest = np.linalg.eigh(np.cov(x))[1][:, -1]
    z = model.posterior(x).mean[0]
    assert abs(np.corrcoef(z, largest @ x)[0, 1]) == pytest.approx(1)


def test_labels_that_say_nothing_move_nothing_far():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((10, 20_000))
    model = fitted(BrainModel(sfreq=SFREQ), x)
    assert np.isfinite(model.unmixing).all()
    assert np.abs(np.corrcoef(model.posterior(x).mean) - np.eye(10)).max() < 0.5


def test_rhythms_tell_apart_what_power_alone_does_not():
    # power that stays the same, from 9 Hz and 22 Hz by turns
    rng = np.random.default_rng(3)
    t = np.arange(100 * 250) / SFREQ
    scores = {True: [], False: []}
    for seed in range(3):
        turn = rng.integers(0, 2, (4, 50)).repeat(500, axis=1)
        phase = rng.standard_normal((4, 2, len(t))).cumsum(axis=2) * 0.1
        waves = np.sin(2 * np.pi * np.array([9, 22])[None, :, None] * t + phase)
        sources = np.where(turn, waves[:, 0], waves[:, 1])
        mixing = np.random.default_rng(seed).standard_normal((4, 4))
        x = mixing @ sources + 0.01 * rng.standard_normal(sources.shape)
        for bands, found in scores.items():
            model = fitted(BrainModel(bands=bands, sfreq=SFREQ), x, "segments:2,8")
            found.append(mcc(model, x, sources))
    assert min(scores[True]) > 0.95
    assert np.mean(scores[False]) < np.mean(scores[True]) - 0.05


def test_what_settings_and_a_second_fit_make_of_it():
    x = simulate.eeg(8, 30.0, SFREQ, n_channels=8, random_state=1).data
    for starts in (("segments",), ("bands",)):
        model = BrainModel.configured(Settings(6, starts=starts, sfreq=SFREQ))
        fitted(model, x)
        again = fitted(model.blank(), x)
        assert np.array_equal(model.unmixing, again.unmixing)
        assert np.allclose(model.posterior(x).mean.std(axis=1), 1)
        as_linear = LinearModel.from_state(model.state())
        assert np.array_equal(as_linear.posterior(x).mean, model.posterior(x).mean)
        assert np.allclose(model.unmixing @ model.mixing, np.eye(6))


def test_coarse_covariances_are_sums_of_fine_ones(monkeypatch):
    x = np.random.default_rng(0).standard_normal((9, 6000))
    u = auxiliary.build(SPEC, from_array(x, SFREQ))
    groups = see(x, u, None).groups
    for (found, counts, _), scale in zip(groups, u.scales, strict=True):
        assert counts.sum() == 6000
        for label in (0, scale.n_labels - 1):
            own = x[:, scale.labels == label]
            assert np.allclose(found[label], own @ own.T / own.shape[1], atol=1e-5)
    # where memory does not allow for all, some from the first to the last
    monkeypatch.setattr(brain_covariances, "MOST_VALUES", 81 * 10)
    fewer = see(x, u, None).groups[0].covariances
    assert len(fewer) == 10
    assert np.array_equal(fewer[[0, -1]], groups[0].covariances[[0, -1]])


@pytest.mark.parametrize("seed", range(3))
def test_long_recordings_are_held_in_part_and_found_as_well(seed, monkeypatch):
    head = simulate.eeg(9, 120.0, SFREQ, n_channels=10, random_state=seed)
    u = auxiliary.build("segments:.5,2,8", from_array(head.data, SFREQ))

    def fitted():
        model = BrainModel(bands=True, sfreq=SFREQ).fit(head.data, u, np.random.default_rng(0))
        halves = model.halves(np.random.default_rng(0), 2)
        seen = [*halves.seen.groups, halves.seen.rhythms]
        agree = halves.reliability()
        return metrics.mcc(head.sources.T, model.posterior(head.data).mean.T), seen, agree

    mcc, seen, agree = fitted()
    most = 100 * 70
    monkeypatch.setattr(brain_covariances, "MOST_VALUES", most)
    fewer_mcc, fewer, fewer_agree = fitted()
    assert max(group.covariances.size for group in seen) > 3 * most
    assert max(group.covariances.size for group in fewer) <= most
    assert [group.counts.sum() for group in fewer[1:3]] == [len(head.data[0])] * 2  # these fit
    assert fewer_mcc > mcc - 0.03
    assert np.median(np.abs(fewer_agree - agree)) < 0.1


@pytest.mark.parametrize("spec", [SPEC, "segments:2,8"])  # the latter's are about their means
def test_prior_and_correlations_are_those_of_the_samples(spec):
    x = simulate.eeg(9, 40.0, SFREQ, n_channels=10, random_state=3).data
    u = auxiliary.build(spec, from_array(x, SFREQ))
    model = BrainModel(sfreq=SFREQ).fit(x, u, np.random.default_rng(0))
    z = model.posterior(x).mean
    assert np.allclose(model.prior.scale, model.fit_prior(z, u).scale, rtol=1e-4)
    assert np.array_equal(model.prior.shape, np.full(10, 2.0))
    assert np.allclose(model.correlation, np.corrcoef(z), atol=1e-9)
