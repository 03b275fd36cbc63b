"""Mixtures: images sum to the data, saturation saturates, recordings are checked."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sourcesep import metrics, simulate
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.recording import Recording
from sourcesep.simulate.mixtures import _scene

SFREQ = 16000.0


@pytest.fixture(scope="module")
def talkers():
    return np.stack([simulate.speech(2, SFREQ, random_state=seed) for seed in (10, 11)])


def recording(data, sfreq=SFREQ):
    data = np.atleast_2d(np.asarray(data, dtype=float))
    names = tuple(f"c{k}" for k in range(len(data)))
    return Recording(data, sfreq, names, ("",) * len(data), "audio")


class TestInstantaneous:
    @settings(max_examples=30, deadline=None)
    @given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 1000))
    def test_images_and_matrix_explain_the_data(self, n_sources, n_channels, seed):
        sources = np.random.default_rng(seed).laplace(size=(n_sources, 50))
        mixture = simulate.instantaneous(
            sources, sfreq=100, n_channels=n_channels, random_state=seed
        )
        assert mixture.images.shape == (n_sources, n_channels, 50)
        np.testing.assert_allclose(mixture.images.sum(0), mixture.data, atol=1e-12)
        np.testing.assert_allclose(mixture.mixing @ mixture.sources, mixture.data, atol=1e-12)
        singular = np.linalg.svd(mixture.mixing, compute_uv=False)
        assert singular[0] / singular[-1] <= 5 * (1 + 1e-9)
        assert max(np.abs(mixture.data).max(), np.abs(mixture.images).max()) <= 0.9 + 1e-12

    def test_the_matrix_inverts_it(self, talkers):
        mixture = simulate.instantaneous(talkers, sfreq=SFREQ, n_channels=3, random_state=1)
        found = np.linalg.pinv(mixture.mixing) @ mixture.data
        assert metrics.sdr(talkers, found).min() > 200
        assert metrics.si_sdr(talkers, mixture.data[:2]).max() < 20


class TestSaturated:
    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_loud_is_pressed_and_soft_passes(self, talkers, seed):
        strength = 4.0
        mixture = simulate.saturated(talkers, sfreq=SFREQ, strength=strength, random_state=seed)
        clean = mixture.images.sum(0)
        peak = np.abs(clean).max(1, keepdims=True)
        soft = np.abs(clean) < 0.01 * peak
        np.testing.assert_allclose(mixture.data[soft], clean[soft], rtol=1e-3)
        pressed = np.abs(mixture.data).max(1, keepdims=True) / peak
        np.testing.assert_allclose(pressed, np.tanh(strength) / strength)
        order = np.argsort(clean[0])
        assert (np.diff(mixture.data[0][order]) >= 0).all()
        restored = peak * np.arctanh(strength * mixture.data / peak) / strength
        np.testing.assert_allclose(restored, clean, atol=1e-9)

    def test_no_matrix_undoes_it_and_less_so_when_stronger(self, talkers):
        """The best linear unmixing, fitted on the truth."""

        def best(strength):
            mixture = simulate.saturated(talkers, sfreq=SFREQ, strength=strength, random_state=0)
            unmixing = np.linalg.lstsq(mixture.data.T, talkers.T, rcond=None)[0].T
            return metrics.si_sdr(talkers, unmixing @ mixture.data).mean()

        assert best(0.01) > 60
        assert 25 > best(4.0) > best(8.0) + 2


class TestRoom:
    @pytest.mark.parametrize("n_mics", [2, 4])
    def test_images_sum_to_the_data(self, talkers, n_mics):
        mixture = simulate.room(talkers, sfreq=SFREQ, n_mics=n_mics, rt60=0.2, random_state=0)
        assert mixture.images.shape == (2, n_mics, talkers.shape[1])
        np.testing.assert_allclose(mixture.images.sum(0), mixture.data, atol=1e-12)
        assert mixture.mixing is None
        assert np.abs(mixture.data).max() <= 0.9 + 1e-12

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_no_matrix_undoes_it_but_filters_make_the_images(self, talkers, seed):
        mixture = simulate.room(talkers, sfreq=SFREQ, rt60=0.2, random_state=seed)
        unmixing = np.linalg.lstsq(mixture.data.T, talkers.T, rcond=None)[0].T
        assert metrics.si_sdr(talkers, unmixing @ mixture.data).max() < 10
        # An image is its source filtered: the same impulse response all along.
        impulse = np.zeros_like(talkers)
        impulse[:, 0] = 1
        again = simulate.room(impulse, sfreq=SFREQ, rt60=0.2, random_state=seed)
        k, c, n = 0, 1, talkers.shape[1]
        spectrum = np.fft.rfft(talkers[k], 2 * n) * np.fft.rfft(again.images[k, c], 2 * n)
        filtered = np.fft.irfft(spectrum)[:n]
        assert metrics.si_sdr(mixture.images[k, c], filtered) > 80

    @settings(max_examples=100, deadline=None)
    @given(st.integers(1, 5), st.integers(1, 16), st.integers(0, 10**6))
    def test_talkers_stand_apart_and_inside(self, n_talkers, n_mics, seed):
        size, talkers, microphones = _scene(n_talkers, n_mics, np.random.default_rng(seed))
        for places in (talkers, microphones):
            assert (places > 0.1).all()
            assert (places < np.array(size) - 0.1).all()
        offset = (talkers - microphones.mean(0))[:, :2]
        distance = np.linalg.norm(offset, axis=1)
        assert ((distance > 0.79) & (distance < 1.81)).all()
        bearing = np.sort(np.rad2deg(np.arctan2(offset[:, 1], offset[:, 0])))
        assert (np.diff(bearing) > 40 - 1e-6).all()
        if n_mics > 1:
            spacing = np.linalg.norm(np.diff(microphones, axis=0), axis=1)
            assert ((spacing > 0.0499) & (spacing < 0.2001)).all()
            # On one side of the row, where delays tell all bearings apart.
            row = microphones[-1] - microphones[0]
            assert (row[0] * offset[:, 1] - row[1] * offset[:, 0] > 0).all()

    def test_too_many(self):
        with pytest.raises(SettingsError, match="n_sources=6: at most 5 talkers fit before"):
            simulate.room(np.random.default_rng(0).standard_normal((6, 99)), sfreq=SFREQ)
        with pytest.raises(SettingsError, match="n_mics=62: at most 61 microphones fit"):
            simulate.room(np.eye(2), sfreq=SFREQ, n_mics=62)


@pytest.mark.parametrize("mix", [simulate.instantaneous, simulate.saturated, simulate.room])
class TestAll:
    def test_a_seed_is_a_mixture_and_sources_stay(self, mix, talkers):
        before = talkers.copy()
        first = mix(talkers, sfreq=SFREQ, random_state=3)
        again = mix(talkers, sfreq=SFREQ, random_state=np.random.default_rng(3))
        other = mix(talkers, sfreq=SFREQ, random_state=4)
        np.testing.assert_array_equal(first.data, again.data)
        assert np.abs(first.data - other.data).max() > 0.01
        np.testing.assert_array_equal(talkers, before)
        np.testing.assert_array_equal(first.sources, before)
        assert first.kind == mix.__name__
        assert first.sfreq == SFREQ

    @pytest.mark.parametrize(
        ("sources", "message"),
        [
            (np.ones(9), r"sources.shape=\(9,\): must be \(n_sources, n_times\)"),
            (np.zeros((0, 9)), r"sources.shape=\(0, 9\)"),
            ([[0, 1, np.nan]], "sources have NaN or infinite samples"),
            ([[0, 1, 2], [5, 5, 5]], r"source 1 is constant \(silent\): there is nothing to mix"),
        ],
    )
    def test_refusals(self, mix, sources, message):
        with pytest.raises(InputError, match=message):
            mix(sources, sfreq=SFREQ)


class TestFromRecordings:
    @pytest.mark.parametrize("kind", ["instantaneous", "saturated", "room"])
    def test_downmixed_trimmed_and_of_unit_power(self, talkers, kind):
        stereo = recording(np.stack([3 * talkers[0], talkers[0]]) + 0.2)
        mono = recording(0.01 * talkers[1, :20000])
        mixture = simulate.from_recordings([stereo, mono], kind, random_state=1)
        assert mixture.kind == kind
        assert mixture.data.shape == (2, 20000)
        for found, true in zip(mixture.sources, talkers, strict=True):
            expected = true[:20000] - true[:20000].mean()
            np.testing.assert_allclose(found, expected / expected.std(), atol=1e-9)

    def test_more_channels(self, talkers):
        given_four = simulate.from_recordings([recording(t) for t in talkers], "room", 4)
        assert given_four.data.shape == (4, talkers.shape[1])

    def test_settings_reach_the_mixture(self, talkers):
        recordings = [recording(t) for t in talkers]
        soft, hard = (
            simulate.from_recordings(recordings, "saturated", strength=s) for s in (1.0, 9.0)
        )
        assert np.abs(hard.data).max() < 0.3 < np.abs(soft.data).max()
        dry, live = (simulate.from_recordings(recordings, "room", rt60=t) for t in (0.1, 0.4))
        assert np.abs(dry.data - live.data).max() > 0.01

    def test_refusals(self, talkers):
        with pytest.raises(InputError, match="nothing to mix; give one recording a source"):
            simulate.from_recordings([])
        two = [recording(talkers[0]), recording(talkers[1], 44100.0)]
        with pytest.raises(InputError, match="sfreq=16000, 44100: the recordings must have one"):
            simulate.from_recordings(two)
        late = np.r_[np.zeros(500), talkers[1]]
        with pytest.raises(InputError, match=r"source 1 is constant \(silent\)"):
            simulate.from_recordings([recording(talkers[0, :400]), recording(late)])
        with pytest.raises(SettingsError, match="kind='mono': allowed are instantaneous, sat"):
            simulate.from_recordings([recording(talkers)], "mono")


def test_microphones_do_not_hear_below_20_hz():
    """Raw image sources would put a quarter of this mixture there."""
    talkers = [simulate.speech(4.0, 16_000, random_state=k) for k in range(2)]
    mixture = simulate.room(talkers, sfreq=16_000, rt60=0.5, random_state=0)
    power = np.square(np.abs(np.fft.rfft(mixture.data)))
    low = np.fft.rfftfreq(mixture.data.shape[1], 1 / 16_000) < 10
    assert power[:, low].sum() < 0.01 * power.sum()
