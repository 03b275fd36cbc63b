"""Clipped samples: found where there are any, restored, and made up for by the residual."""

import json

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erf

from sourcesep import metrics, recording, result, separate, simulate
from sourcesep.clipping import Clipping, Restored
from sourcesep.exceptions import SourcesepWarning
from sourcesep.samples import pieces, summarise

from .conftest import InOrder

SFREQ = 16000


def talkers(seed, seconds=2.0):
    """Two of them through a matrix, up to 1."""
    voices = [simulate.speech(seconds, SFREQ, random_state=10 * seed + k) for k in range(2)]
    x = simulate.instantaneous(voices, sfreq=SFREQ, random_state=seed).data
    return x / np.abs(x).max()


def in_16_bits(x):
    return np.round(x * 2**15) / 2**15


def clipping_of(x):
    return Clipping.of(x, summarise(x, 5000))


def restored(x):
    return Restored(x, clipping_of(x).rails, SFREQ)[:]


class TestClipping:
    @pytest.mark.parametrize("level", [0.6, 0.3])
    @pytest.mark.parametrize("gain", [1.0, 0.1])
    def test_is_counted_at_either_end(self, level, gain):
        x = gain * np.clip(talkers(0), -level, level)
        x[1] *= 0.5  # does not reach as far
        found = clipping_of(x)
        for counts, rails, sign in zip(found.counts, found.rails, (1, -1), strict=True):
            there = sign * x == gain * level * np.array([[1], [0.5]])
            runs = there[:, 2:] & there[:, 1:-1] & there[:, :-2]
            least, most = runs.sum(axis=1), there.sum(axis=1)
            assert ((least <= counts) & (counts <= most)).all()
            expected = sign * gain * level * np.array([1, 0.5])
            np.testing.assert_array_equal(rails[most > 20], expected[most > 20])

    @pytest.mark.parametrize("scale", [0.99, 0.1])
    @pytest.mark.parametrize(
        "curve",
        [lambda x: x, lambda x: np.tanh(4 * x), lambda x: np.tanh(20 * x), lambda x: erf(8 * x)],
        ids=["none", "tanh", "harder", "erf"],
    )
    def test_is_not_what_a_curve_does(self, curve, scale):
        """However many steps of 16 bits end up at the peak."""
        for seed in range(3):
            assert not clipping_of(in_16_bits(scale * curve(talkers(seed)))).restorable.any()

    def test_is_neither_a_square_wave_nor_a_quiet_recording(self):
        t = np.arange(SFREQ) / SFREQ
        square = np.sign(np.sin(2 * np.pi * 220 * t))
        two = np.stack([square + 0.5 * np.sign(np.sin(2 * np.pi * 331 * t)), square])
        hum = np.stack([np.sin(2 * np.pi * 50 * t), np.cos(2 * np.pi * 50 * t)])
        for x in (two, in_16_bits(0.001 * hum), in_16_bits(0.9 * hum), 0.001 * two):
            assert not clipping_of(x).restorable.any()


class TestRestored:
    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize("level", [0.5, 0.3])
    def test_is_nearer_to_what_it_was(self, seed, level):
        x = talkers(seed)
        clipped = np.clip(x, -level, level)
        after = restored(clipped)
        there = np.abs(clipped) == level
        assert (np.abs(after[there]) >= level * (1 - 1e-12)).all()
        np.testing.assert_array_equal(after[~there], clipped[~there])
        for channel in np.flatnonzero(there.sum(axis=1) > 100):
            error = [np.square(y[channel] - x[channel]).sum() for y in (clipped, after)]
            assert error[1] < error[0] / 2

    def test_parts_are_those_of_the_whole_whatever_was_read_before(self):
        x = np.clip(talkers(1, 0.5), -0.3, 0.3)
        samples = Restored(x, clipping_of(x).rails, SFREQ)
        whole = samples[:]
        for start, stop in np.random.default_rng(0).integers(0, 8001, (15, 2)):
            part = samples[:, start:stop]
            np.testing.assert_array_equal(part, whole[:, start : max(start, stop)])

    def test_a_file_is_read_once(self):
        """Though its slices overlap, and begin wherever the reader likes."""
        x = np.clip(talkers(1, 0.5), -0.3, 0.3)
        samples = Restored(InOrder(x), clipping_of(x).rails, SFREQ)
        parts = [x for x, *_ in pieces(samples, 1234)]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), restored(x))

    @settings(max_examples=10, deadline=None)
    @given(
        n_channels=st.integers(1, 5),
        n_times=st.integers(2, 400),
        sfreq=st.sampled_from([100.0, 8000.0, 192_000.0]),
        seed=st.integers(0, 9),
    )
    def test_of_any_size_is_finite_and_no_smaller(self, n_channels, n_times, sfreq, seed):
        x = np.random.default_rng(seed).standard_normal((n_channels, n_times)).cumsum(axis=1)
        clipped = np.clip(x, -1, 1)
        clipped[0] = 1  # a channel that is stuck
        rails = np.stack([np.ones(n_channels), -np.ones(n_channels)])
        after = Restored(clipped, rails, sfreq)[:]
        assert np.isfinite(after).all()
        assert (np.abs(after) >= np.abs(clipped) - 1e-9).all()


class TestSeparate:
    def test_a_long_file_is_restored_while_it_is_read(self, tmp_path, monkeypatch):
        path = tmp_path / "clipped.wav"
        soundfile.write(path, np.clip(talkers(2, 3.0), -0.3, 0.3).T, SFREQ)
        with pytest.warns(SourcesepWarning, match="clipped samples are restored before"):
            whole = separate(path, mixing="linear")
        monkeypatch.setattr(recording, "MOST_IN_MEMORY", 2 * SFREQ)
        monkeypatch.setattr(recording, "FEWEST_TIMES", 1000)
        monkeypatch.setattr(result, "MOST_AT_ONCE", 30_000)
        with pytest.warns(SourcesepWarning, match="clipped samples are restored before"):
            found = separate(path, mixing="linear")
        assert not found.heard.in_memory
        np.testing.assert_array_equal(found.heard.data[:], whole.heard.data)
        np.testing.assert_array_equal(found.mixture, found.recording.data[:])
        total = found.images.sum(axis=0) + found.residual
        np.testing.assert_allclose(total, found.recording.data[:], atol=1e-12)
        assert (np.abs(found.residual).max(axis=1) > 0.01).all()  # what clipping took away

    @pytest.mark.parametrize("seed", [1, 2, 3])
    def test_talkers_come_apart_better_and_files_add_up(self, tmp_path, seed, monkeypatch):
        voices = [simulate.speech(4, SFREQ, random_state=10 * seed + k) for k in range(2)]
        mixture = simulate.instantaneous(voices, sfreq=SFREQ, random_state=seed)
        peak = np.abs(mixture.data).max()
        path = tmp_path / "clipped.wav"
        soundfile.write(path, (0.2 * np.clip(mixture.data / peak, -0.35, 0.35) / 0.35).T, SFREQ)

        def gains(found):
            both = [
                [metrics.si_sdr(t, f) for f in found.images[:, 0]] for t in mixture.images[:, 0]
            ]
            straight, crossed = np.diag(both), np.diag(both[::-1])[::-1]
            return max(straight, crossed, key=sum)

        with pytest.warns(SourcesepWarning, match="clipped samples are restored before"):
            found = separate(path, mixing="linear")
        found.save(tmp_path / "r")
        monkeypatch.setattr("sourcesep.separation._restored", lambda _: None)
        assert (gains(found) > gains(separate(path, mixing="linear")) + 3).all()
        facts = json.loads((tmp_path / "r" / "result.json").read_text())
        assert facts["output"]["adds_up_to"] == "the input"
        parts = [soundfile.read(p, dtype="int16")[0] for p in (tmp_path / "r").glob("*.wav")]
        np.testing.assert_array_equal(
            np.sum(parts, axis=0, dtype=int), soundfile.read(path, dtype="int16")[0]
        )
