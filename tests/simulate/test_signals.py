"""Speech-like and instrument-like signals have the statistics they promise."""

import numpy as np
import pytest
from scipy.signal import stft

from sourcesep import simulate
from sourcesep.exceptions import SettingsError

SFREQ = 16000.0
SEEDS = (0, 1, 2, 3)
KINDS = ("pad", "melody", "bass", "drums")


@pytest.fixture(scope="module")
def talkers():
    return [simulate.speech(10, SFREQ, random_state=seed) for seed in SEEDS]


def log_power(x, seconds=0.02):
    n = round(seconds * SFREQ)
    return np.log((x[: x.size // n * n].reshape(-1, n) ** 2).mean(1))


def density(x, low, high):
    """Mean power density in a band, dB."""
    power = np.abs(np.fft.rfft(x)) ** 2
    f = np.fft.rfftfreq(x.size, 1 / SFREQ)
    return 10 * np.log10(power[(f >= low) & (f < high)].mean())


class TestSpeech:
    """Bounds: the range of four readers, as the docstring states it, and some room."""

    def test_nonstationary_at_20_ms(self, talkers):
        spread = [log_power(x).std() for x in talkers]
        assert min(spread) > 2.7
        assert max(spread) < 3.8
        assert log_power(np.random.default_rng(0).standard_normal(160000)).std() < 0.2

    def test_pauses(self, talkers):
        for x in talkers:
            quiet = log_power(x) < np.log(10**-2.5)
            assert 0.1 < quiet.mean() < 0.25
            edges = np.flatnonzero(np.diff(np.r_[0, quiet.astype(int), 0]))
            longest = 0.02 * np.diff(edges)[::2].max()
            assert 0.15 < longest < 0.8

    def test_sparse_in_time_and_frequency(self, talkers):
        for x in talkers:
            power = np.sort(np.abs(stft(x, SFREQ, nperseg=1024)[2]).ravel() ** 2)[::-1]
            needed = np.searchsorted(np.cumsum(power), 0.9 * power.sum()) / power.size
            assert 0.008 < needed < 0.04

    def test_spectrum_falls(self, talkers):
        for x in talkers:
            low, middle, high = density(x, 80, 1e3), density(x, 1e3, 3e3), density(x, 5e3, 8e3)
            assert 6 < low - middle < 20
            assert middle - 25 < high < middle + 1
            assert density(x, 0, 40) < low - 10

    def test_super_gaussian(self, talkers):
        assert all(1.5 < (x**4).mean() - 3 < 25 for x in talkers)

    def test_talkers_are_independent(self, talkers):
        pairs = np.triu_indices(len(talkers), 1)
        assert np.abs(np.corrcoef(talkers)[pairs]).max() < 0.03
        levels = np.corrcoef([log_power(x) for x in talkers])[pairs]
        assert np.abs(levels).max() < 0.4
        assert np.abs(levels).mean() < 0.15

    @pytest.mark.parametrize("pitch", [90.0, 140.0, 220.0])
    def test_voiced_at_the_pitch_asked_for(self, pitch):
        x = simulate.speech(6, SFREQ, pitch=pitch, random_state=5)
        periods = []
        for start in range(0, x.size - 1024, 512):
            frame = x[start : start + 1024] * np.hanning(1024)
            correlation = np.fft.irfft(np.abs(np.fft.rfft(frame, 4096)) ** 2)
            lags = np.arange(50, 267)  # 60 to 320 Hz
            best = lags[correlation[lags].argmax()]
            if correlation[best] > 0.5 * correlation[0] and (frame**2).mean() > 0.1:
                periods.append(best)
        assert len(periods) > 30
        assert SFREQ / np.median(periods) == pytest.approx(pitch, rel=0.15)

    def test_scaled_formants_move_the_spectrum(self):
        def centroid(scale):
            x = simulate.speech(6, SFREQ, pitch=120, formant_scale=scale, random_state=1)
            power = np.abs(np.fft.rfft(x)) ** 2
            f = np.fft.rfftfreq(x.size, 1 / SFREQ)
            inside = (f > 200) & (f < 4000)
            return (f * power)[inside].sum() / power[inside].sum()

        assert centroid(1.2) > 1.1 * centroid(0.9)

    @pytest.mark.parametrize("sfreq", [8000.0, 16000.0, 44100.0])
    @pytest.mark.parametrize("seconds", [0.03, 0.5, 2.123])
    def test_any_rate_and_length(self, sfreq, seconds):
        x = simulate.speech(seconds, sfreq, random_state=2)
        assert x.shape == (round(seconds * sfreq),)
        assert np.isfinite(x).all()
        assert x.mean() == pytest.approx(0, abs=1e-10)
        assert x.std() == pytest.approx(1)


class TestInstruments:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("sfreq", [8000.0, 44100.0])
    def test_length_and_scale(self, kind, sfreq):
        x = simulate.instrument(1.5, sfreq, kind=kind, random_state=3)
        assert x.shape == (round(1.5 * sfreq),)
        assert x.std() == pytest.approx(1)

    def test_bass_is_low_and_drums_are_broad(self):
        bass = simulate.instrument(6, kind="bass", random_state=0)
        drums = simulate.instrument(6, kind="drums", random_state=0)
        assert density(bass, 30, 300) - density(bass, 2000, 7000) > 40
        assert density(drums, 30, 300) - density(drums, 2000, 7000) < 35

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_pads_hold_and_drums_strike(self, seed):
        pad, drums = (
            log_power(simulate.instrument(8, kind=kind, random_state=seed)).std()
            for kind in ("pad", "drums")
        )
        assert pad < 1.2
        assert drums > 2 * pad

    def test_a_melody_is_one_note_at_a_time(self):
        """Its energy is in fewer STFT cells than that of chords."""

        def needed(kind):
            x = simulate.instrument(8, kind=kind, random_state=4)
            power = np.sort(np.abs(stft(x, SFREQ, nperseg=4096)[2]).ravel() ** 2)[::-1]
            return np.searchsorted(np.cumsum(power), 0.9 * power.sum())

        assert needed("melody") < needed("pad")

    def test_unknown_kind(self):
        with pytest.raises(SettingsError, match="kind='oboe': allowed are pad, melody, bass"):
            simulate.instrument(1, kind="oboe")


@pytest.mark.parametrize(
    "draw",
    [
        lambda seed: simulate.speech(1, random_state=seed),
        *(lambda seed, k=k: simulate.instrument(2, kind=k, random_state=seed) for k in KINDS),
    ],
)
def test_a_seed_is_a_signal(draw):
    np.testing.assert_array_equal(draw(7), draw(7))
    np.testing.assert_array_equal(draw(7), draw(np.random.default_rng(7)))
    assert not np.allclose(draw(7), draw(8))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seconds": 0}, "seconds=0: must be a number above 0"),
        ({"seconds": 1, "sfreq": float("nan")}, "sfreq=nan: must be a number above 0"),
        ({"seconds": 1e-5}, "that is 0 samples and two are needed; ask for more seconds"),
        ({"seconds": 1, "pitch": -5.0}, r"pitch=-5.0: must be a number above 0"),
        ({"seconds": 1, "random_state": None}, "random_state=None: must be an int or a numpy"),
        ({"seconds": 1, "random_state": -1}, "random_state=-1: a seed must be 0 or more"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(SettingsError, match=message):
        simulate.speech(**settings)
