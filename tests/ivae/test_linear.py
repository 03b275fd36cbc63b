"""The linear family: never worse than linear ICA, whatever the data are like."""

import warnings
from typing import get_args

import numpy as np
import pytest
from picard import picard
from scipy.signal import resample_poly
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning

from sourcesep import auxiliary, metrics, simulate
from sourcesep.auxiliary import Auxiliary, from_array
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.ivae import linear
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.matrices import jointdiag
from sourcesep.ivae.matrices.starts import OF_SOUND, STARTS
from sourcesep.recording import Recording
from sourcesep.simulate.protocols import LinearKind

from ..conftest import in_time, labelled

KINDS = tuple(kind for kind in get_args(LinearKind) if kind != "gaussian")


def fit(x, u=None, n_components=None, **settings):
    u = in_time(x.shape[1]) if u is None else u
    return LinearModel(n_components, **settings).fit(x, u, np.random.default_rng(0))


def fastica(x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        ica = FastICA(whiten="unit-variance", random_state=0, max_iter=1000, tol=1e-6)
        return ica.fit_transform(x.T).T


def picard_extended(x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return picard(x, ortho=False, extended=True, max_iter=500, tol=1e-7, random_state=0)[2]


def score(sources, z):
    return metrics.mcc(sources.T, z.T)


def mixed(kind, seed, n=4, n_times=8000):
    sources = simulate.linear_sources(kind, n_times, n, random_state=seed)
    mixture = simulate.instantaneous(sources, sfreq=1.0, random_state=seed)
    return mixture.data, sources


def found(model, x, sources):
    return score(sources, model.posterior(x).mean)


def notes(rng, low, high, n_voices, seconds=4, sfreq=48_000):
    """Chords of decaying tones between two frequencies, with five partials each."""
    t, played = np.arange(seconds * sfreq) / sfreq, 0.0
    for begin in np.arange(0, seconds, 0.5):
        on = (t >= begin) & (t < begin + 0.5)
        loudness = on * np.exp(-2 * (t - begin)) * np.clip(50 * (t - begin), 0, 1)
        for frequency in rng.uniform(low, high, n_voices):
            for k in range(1, 6):
                phase = rng.uniform(0, 6)
                played = played + loudness * np.sin(2 * np.pi * k * frequency * t + phase) / k**2
    return played


class TestNeverWorseThanLinearICA:
    @pytest.mark.parametrize("seed", [0, 1])
    @pytest.mark.parametrize("kind", KINDS)
    def test_sources_that_differ_in_one_thing(self, kind, seed):
        x, sources = mixed(kind, seed)
        best = max(score(sources, fastica(x)), score(sources, picard_extended(x)))
        assert found(fit(x), x, sources) >= best - 0.005

    def test_no_single_start_could_do_that(self):
        """Each is lost somewhere: their choice by held-out likelihood is needed."""
        x, sources = mixed("uniform", 0)
        for start in ("segments", "bands", "spectrum"):
            assert found(fit(x, starts=(start,)), x, sources) < 0.9
        rng = np.random.default_rng(0)
        change = np.array([[0.9, 1.1], [1.1, 0.9]]).repeat(4000, axis=1)
        gaussian, halves, picards = (
            change * rng.standard_normal((2, 8000)),
            in_time(8000, 4000),
            [],
        )
        for _ in range(4):
            x = rng.standard_normal((2, 2)) @ gaussian
            picards.append(found(fit(x, halves, starts=("non-gaussian",)), x, gaussian))
            assert found(fit(x, halves, starts=("segments",)), x, gaussian) > 0.99
        assert np.mean(picards) < 0.97

    def test_modulated_gaussian_sources_need_their_u(self):
        """The claim of identifiability itself: the same fit with u shuffled does worse."""
        settings = {"starts": ("segments",), "shapes": (2.0,)}
        u, lost = in_time(8000), []
        for seed in range(6):
            x, sources = mixed("modulated", seed)
            shuffled = u.take(np.random.default_rng(seed).permutation(8000))
            assert found(fit(x, u, **settings), x, sources) > 0.995
            lost.append(found(fit(x, shuffled, **settings), x, sources))
        assert np.mean(lost) < 0.95

    @pytest.mark.parametrize(("gain", "chosen"), [(0.0009, "segments"), (0.0011, "bands")])
    def test_ties_go_to_the_first(self, monkeypatch, gain, chosen):
        scores = {"segments": 1.0, "bands": 1.0 + gain, "spectrum": 0.5}
        monkeypatch.setattr(LinearModel, "_compare", lambda *_, **__: scores)
        x, _ = mixed("modulated", 0)
        model = fit(x, starts=tuple(scores))
        assert model.start == chosen
        assert model.choice.endswith(", tied with bands") == (chosen != "bands")

    @pytest.mark.parametrize("seed", [70411, 70413])
    def test_tones_that_end_far_below_half_the_rate(self, monkeypatch, seed):
        """Given the samples before, components that both hear the bass are the likeliest."""
        rng = np.random.default_rng(seed)
        sources = np.stack([notes(rng, 200, 500, 3), notes(rng, 40, 100, 1)])
        sources /= sources.std(axis=1, keepdims=True)
        x = rng.standard_normal((2, 2)) @ sources
        x = np.round(x / np.abs(x).max() * 2**15 * 0.9) / 2**15
        u = in_time(x.shape[1], 960)
        assert found(fit(x, u, sfreq=48_000), x, sources) > 0.9999
        monkeypatch.setattr(linear, "is_sound", lambda u, sfreq: False)
        assert found(fit(x, u, sfreq=48_000), x, sources) < 0.98

    @pytest.mark.parametrize("seed", [70000, 70002])
    def test_steady_tones_at_a_high_rate(self, seed):
        """Samples given the ones before say nothing of tones, and may say it with much noise."""
        rng, t = np.random.default_rng(seed), np.arange(2 * 44_100) / 44_100
        sources = np.sin(2 * np.pi * np.outer(rng.uniform([200, 600], [500, 1200]), t))
        x = np.round(rng.standard_normal((2, 2)) @ sources * 2**12) / 2**12
        assert found(fit(x, in_time(len(t), 882), sfreq=44_100), x, sources) > 0.9999

    @pytest.mark.parametrize("seed", [0, 1])
    @pytest.mark.parametrize("kind", ["poisson", "bernoulli", "counts"])
    def test_counts_and_skewed_sources(self, kind, seed):
        """FastICA has .60 to .99 on some of these, Picard as little."""
        rng = np.random.default_rng(seed)
        draws = {
            "poisson": lambda: rng.poisson(2, 2000),
            "bernoulli": lambda: rng.random(2000) < 0.2,
            "chi-square": lambda: rng.chisquare(3, 2000),
        }
        kinds = ["chi-square", *draws] if kind == "counts" else 4 * [kind]
        sources = np.stack([draws[k]() for k in kinds]).astype(float)
        x = rng.standard_normal((4, 4)) @ sources
        assert found(fit(x), x, sources) > 0.998

    def test_scores_tell_why(self):
        x, _ = mixed("uniform", 0)
        model = fit(x)
        assert tuple(model.scores) == tuple(s for s in STARTS if s not in OF_SOUND)
        assert model.start == "non-gaussian" == max(model.scores, key=model.scores.get)
        assert model.scores["non-gaussian"] > model.scores["segments"] + 0.02


class TestTalkers:
    def test_instantaneous_mixtures(self):
        ours, theirs = [], []
        for seed in (40, 41):
            n = 2 + seed % 2
            voices = [simulate.speech(5, random_state=100 * seed + k) for k in range(n)]
            mixture = simulate.instantaneous(voices, sfreq=16000, random_state=seed)
            x, sources = mixture.data, mixture.sources
            names = tuple(map(str, range(n)))
            u = auxiliary.build(None, Recording(x, 16000.0, names, ("",) * n, "audio"))
            before = metrics.si_sdr(sources, x[0])
            for z, gains in ((fit(x, u).posterior(x).mean, ours), (fastica(x), theirs)):
                match = metrics.match_sources(sources.T, z.T)
                after = metrics.si_sdr(sources[match.sources], z[match.components])
                gains.append((after - before).mean())
        assert np.mean(ours) > 70
        assert np.min(ours) > np.max(theirs)

    def test_a_drift_costs_little(self, monkeypatch):
        """What moves slower than segments would rule in the pauses, were it not removed."""

        def error(seed):
            voices = [simulate.speech(4, random_state=100 * seed + k) for k in range(2)]
            mixture = simulate.instantaneous(voices, sfreq=16000, random_state=seed)
            drift = np.cos(2 * np.pi * np.outer([0.7, 1.1], np.arange(64000) / 16000))
            u = in_time(64000, 320)
            model = fit(mixture.data + 0.3 * mixture.data.std() * drift, u, starts=("segments",))
            return metrics.amari_distance(model.unmixing, mixture.mixing)

        removed = [error(seed) for seed in (42, 43, 44)]
        monkeypatch.setattr(jointdiag, "LONG", 10**6)
        left = [error(seed) for seed in (42, 43, 44)]
        assert max(removed) < 0.0005
        assert np.mean(left) > 3 * np.mean(removed)

    @pytest.mark.parametrize("seed", [3, 6])
    def test_splices_choose_no_start_where_the_upper_band_is_empty(self, monkeypatch, seed):
        voices = np.stack([simulate.speech(5, random_state=2 * seed + k) for k in (0, 1)])
        sources = resample_poly(voices, 441, 160, axis=1)
        mixing = np.random.default_rng(seed).standard_normal((2, 2))

        def interference():
            model = fit(mixing @ sources, in_time(sources.shape[1], 882), sfreq=44_100)
            power = np.square(model.unmixing @ mixing * sources.std(axis=1))
            return 10 * np.log10((power.sum(axis=1) / power.max(axis=1) - 1).max())

        assert interference() < -60
        monkeypatch.setattr(linear, "is_sound", lambda u, sfreq: False)
        assert interference() < -60


class TestRank:
    @pytest.mark.parametrize("how", ["average reference", "duplicated", "silent", "constant"])
    @pytest.mark.parametrize("standardise", [False, True])
    def test_deficient_input(self, how, standardise):
        x, sources = mixed("mixed", 4, n=3)
        if how == "average reference":
            x = np.random.default_rng(0).standard_normal((4, 3)) @ sources
            x = x - x.mean(axis=0)
        else:
            extra = {"duplicated": x[1], "silent": 0 * x[0], "constant": 0 * x[0] + 0.1}[how]
            x = np.concatenate([x[:1], extra[None], x[1:]])
        model = fit(x, standardise_channels=standardise, starts=("non-gaussian",))
        assert (model.n_components, model.rank, model.n_channels) == (3, 3, 4)
        assert found(model, x, sources) > 0.995
        for tensor in model.state().tensors.values():
            assert np.isfinite(tensor).all()
        assert np.isfinite(model.log_density(x, in_time(8000))).all()
        rebuilt = model.images(x).sum(axis=0) + model.mean[:, None]
        np.testing.assert_allclose(rebuilt, x, atol=1e-9)

    def test_more_than_there_are(self):
        x, _ = mixed("modulated", 0, n=3, n_times=2000)
        x = np.concatenate([x, x[:1]])
        with pytest.raises(SettingsError) as error:
            fit(x, n_components=4)
        assert str(error.value) == (
            "n_components=4: the 4 channels hold 3 linearly independent signals; ask for 1 to 3"
        )

    def test_silence(self):
        with pytest.raises(InputError, match=r"^every channel is constant \(silent\): there is"):
            fit(np.ones((2, 400)))

    def test_unknown_starts(self):
        with pytest.raises(SettingsError) as error:
            LinearModel(starts=("segments", "guess"))
        assert str(error.value) == (
            "starts=('segments', 'guess'): must be a tuple of segments, bands, spectrum, "
            "cells, non-gaussian"
        )
        with pytest.raises(SettingsError, match=r"^starts=\(\): must be a tuple of segments"):
            LinearModel(starts=())

    @pytest.mark.parametrize("k", [1, 2])
    def test_fewer_components_than_sources(self, k):
        """The strongest directions are kept, and ELBOs of all numbers compare."""
        rng = np.random.default_rng(k)
        sources = simulate.linear_sources("modulated", 8000, k, random_state=k)
        x = rng.standard_normal((5, k)) @ sources + 0.05 * rng.standard_normal((5, 8000))
        u = in_time(8000)
        scores = {n: fit(x, u, n, starts=("segments",)).elbo(x, u).mean for n in range(1, 6)}
        # more than k gain but what their parameters (40 variances each) fit of the noise
        assert scores[k] > max(scores.values()) - 0.01 * (5 - k)
        assert all(scores[n] < scores[k] - 0.1 for n in range(1, k))
        assert found(fit(x, u, k, starts=("segments",)), x, sources) > 0.99


class TestHardInput:
    def test_an_offset_costs_nothing(self):
        x, sources = mixed("mixed", 5)
        offset = np.array([[100.0], [-3.0], [0.0], [1e4]])
        plain, raised = (fit(v, starts=("non-gaussian",)) for v in (x, x + offset))
        np.testing.assert_allclose(raised.unmixing, plain.unmixing, rtol=1e-5, atol=1e-8)
        assert found(raised, x, sources) > 0.995

    @pytest.mark.parametrize("scale", [1e-12, 1e6])
    @pytest.mark.parametrize("kind", ["modulated", "uniform"])
    def test_scale_equivariance(self, kind, scale):
        x, _ = mixed(kind, 6, n=3, n_times=4000)
        plain, scaled = fit(x), fit(scale * x)
        assert scaled.start == plain.start
        np.testing.assert_allclose(
            scaled.posterior(scale * x).mean, plain.posterior(x).mean, atol=1e-6
        )
        np.testing.assert_allclose(scaled.mixing, scale * plain.mixing, atol=1e-6 * scale)

    @pytest.mark.parametrize("standardise", [False, True])
    def test_channels_in_other_units(self, standardise):
        x, sources = mixed("mixed", 7)
        units = np.array([[1e-6], [1.0], [1e3], [1e5]])
        settings = {"standardise_channels": standardise, "starts": ("non-gaussian",)}
        model = fit(units * x, **settings)
        assert found(model, units * x, sources) > 0.995

    def test_units_do_not_matter_where_they_may_not(self):
        x, _ = mixed("modulated", 7)
        units = np.array([[1e-3], [1.0], [1e3], [50.0]])
        settings = {"standardise_channels": True, "starts": ("bands",)}
        for k in (2, 4):
            plain = fit(x, n_components=k, **settings)
            other = fit(units * x, n_components=k, **settings)
            z, again = plain.posterior(x).mean, other.posterior(units * x).mean
            np.testing.assert_allclose(np.abs(again), np.abs(z), atol=1e-5)

    def test_digital_silence_at_the_ends(self):
        x, sources = mixed("modulated", 8)
        quiet = np.zeros((4, 1000))
        padded = np.concatenate([quiet, x, quiet], axis=1)
        padded_sources = np.concatenate([quiet, sources, quiet], axis=1)
        u = in_time(10_000)
        model = fit(padded, u, starts=("segments", "bands"))
        assert found(model, padded, padded_sources) > 0.995
        assert np.isfinite(model.log_density(padded, u)).all()

    @pytest.mark.parametrize("kind", ["modulated", "laplace"])
    def test_sources_exactly_silent_in_some_segments(self, kind):
        _, sources = mixed(kind, 9)
        sources = sources.copy()
        for k in range(4):
            sources[k, 1500 * k : 1500 * k + 2400] = 0
        x = np.random.default_rng(0).standard_normal((4, 4)) @ sources
        model = fit(x)
        assert found(model, x, sources) > 0.9999
        assert np.isfinite(model.log_density(x, in_time(8000))).all()

    def test_one_channel(self):
        x, _ = mixed("laplace", 0, n=2, n_times=2000)
        model = fit(x[:1])
        assert model.n_components == 1
        assert model.scores == {}
        np.testing.assert_allclose(model.posterior(x[:1]).mean[0].std(), 1)

    def test_more_channels_than_samples(self):
        x = np.random.default_rng(0).standard_normal((20, 12))
        model = fit(x, in_time(12, 4))
        assert model.rank <= 11
        assert np.isfinite(model.posterior(x).mean).all()

    @pytest.mark.parametrize(("n_times", "length"), [(12, 4), (30, 3), (90, 3), (100, 10)])
    def test_short_records(self, n_times, length):
        x, _ = mixed("laplace", 1, n=2)
        u = in_time(n_times, length)
        model = fit(x[:, :n_times], u)
        assert set(model.scores) == set(STARTS) - set(OF_SOUND)
        assert np.isfinite(list(model.scores.values())).all()
        assert np.isfinite(model.elbo(x[:, :n_times], u).mean)


class TestLabels:
    def test_two_labels_suffice(self):
        """Two sources whose ratio of variances differs between two conditions."""
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 2, 8000)
        sources = rng.standard_normal((2, 8000)) * np.array([[0.3, 2], [2, 0.5]])[:, labels]
        x = rng.standard_normal((2, 2)) @ sources
        assert found(fit(x, from_array(labels, 8000)), x, sources) > 0.995

    def test_means_belong_to_labels_that_are_not_time(self):
        rng = np.random.default_rng(1)
        labels = rng.integers(0, 12, 12_000)
        means = rng.normal(0, 2, (12, 3))
        spread = rng.uniform(0.3, 2, (12, 3))
        sources = (means[labels] + spread[labels] * rng.standard_normal((12_000, 3))).T
        x = rng.standard_normal((3, 3)) @ sources
        u = from_array(labels, 12_000)
        model = fit(x, u, starts=("segments",))
        assert found(model, x, sources) > 0.995
        z = model.posterior(x).mean
        expected = [z[:, labels == k].mean(axis=1) for k in range(12)]
        np.testing.assert_allclose(model.prior_moments()[0], expected, atol=1e-6)
        assert not fit(x, in_time(12_000)).prior_moments()[0].any()

    def test_order_of_the_labels_means_nothing(self):
        x, _ = mixed("modulated", 2)
        labels = in_time(8000).labels
        renamed = np.random.default_rng(0).permutation(40)[labels]
        a, b = (fit(x, from_array(v, 8000), starts=("segments",)) for v in (labels, renamed))
        assert score(a.posterior(x).mean, b.posterior(x).mean) > 1 - 1e-4

    def test_left_out_samples(self):
        x, sources = mixed("modulated", 3)
        x = x.copy()
        x[:, 3000:3500] = 1e3 * np.random.default_rng(0).standard_normal((4, 500))
        labels = in_time(8000).labels.copy()
        labels[3000:3500] = auxiliary.LEFT_OUT
        u = labelled(labels)
        clean = np.r_[0:3000, 3500:8000]
        one = {"starts": ("segments",)}
        assert found(fit(x, u, **one), x[:, clean], sources[:, clean]) > 0.995
        assert found(fit(x, **one), x[:, clean], sources[:, clean]) < 0.99

    def test_several_scales(self):
        x, sources = mixed("modulated", 4)
        scales = tuple(in_time(8000, length).scales[0] for length in (50, 200, 800))
        u = Auxiliary(scales, None, is_time=True, spec="segments")
        model = fit(x, u, starts=("segments",))
        assert found(model, x, sources) > 0.995
        assert len(model.prior_moments()[0]) == 160


def test_folds_without_a_sample_say_nothing_of_a_start():
    labels = 5 * np.repeat(np.arange(4), 3)
    u = labelled(labels)
    model = fit(np.random.default_rng(0).standard_normal((2, 12)), u)
    assert set(model.scores) == set(STARTS) - set(OF_SOUND)
    assert np.isfinite(list(model.scores.values())).all()
