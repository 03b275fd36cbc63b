"""Curves, pictures and listening copies: that they show what they are of."""

import base64
import io

import numpy as np
import pytest
import soundfile
from matplotlib.image import imread

from sourcesep.exceptions import OutputError
from sourcesep.report import panels, players


class TestSpectrogram:
    @pytest.mark.parametrize(("frequency", "sfreq"), [(440.0, 8000.0), (3000.0, 44100.0)])
    @pytest.mark.parametrize("seconds", [1.0, 30.0])
    def test_a_tone_lies_where_its_axis_says(self, frequency, sfreq, seconds):
        x = np.sin(2 * np.pi * frequency * np.arange(int(seconds * sfreq)) / sfreq)[None]
        power = panels.mel_powers(x, sfreq)
        top = 2595 * np.log10(1 + sfreq / 2 / 700)
        expected = panels.N_BANDS * 2595 * np.log10(1 + frequency / 700) / top
        assert np.abs(power.mean(axis=1).argmax() + 0.5 - expected) < 2.5

    def test_a_click_lies_in_its_column(self):
        x = np.zeros((1, 80_000))
        x[0, 20_000] = 1
        loudest = panels.mel_powers(x, 8000.0).sum(axis=0).argmax()
        assert abs(loudest - panels.N_COLUMNS / 4) <= 4

    def test_white_noise_is_flat_at_any_length(self):
        rng = np.random.default_rng(0)
        means = [
            panels.mel_powers(rng.standard_normal((2, n)), 16000.0).mean(axis=1)
            for n in (20_000, 200_000)
        ]
        for mean in means:
            level = 10 * np.log10(mean[3:] / means[0][3:].mean())
            assert np.abs(level).max() < 2.5

    def test_shortest_signal(self):
        assert np.isfinite(panels.mel_powers(np.ones((1, 2)), 8000.0)).all()


def points(path):
    return np.array([part.split() for part in path.replace("L", "M").split("M")[1:]], float)


class TestCurves:
    def test_pass_through_their_values(self):
        found = points(panels.curve(np.array([0.0, 5.0, 20.0, -1.0]), 0, 10))
        np.testing.assert_array_equal(found[:, 0], [125, 375, 625, 875])
        np.testing.assert_array_equal(found[:, 1], [100, 50, 0, 100])

    def test_have_gaps(self):
        assert panels.curve(np.array([1.0, np.nan, 1.0]), 0, 2).count("M") == 2

    def test_bands_reach_every_peak(self):
        x = np.zeros(100_000)
        x[77_777] = 1.0
        assert points(panels.band(x, -1, 1)[:-1])[:, 1].min() == 0

    def test_bins_keep_the_mean(self):
        x = np.random.default_rng(0).normal(size=(2, 3000))
        np.testing.assert_allclose(panels.binned(x, 100).mean(axis=1), x.mean(axis=1))
        np.testing.assert_array_equal(panels.binned(x[:, :5], 100), x[:, :5])


class TestAxes:
    @pytest.mark.parametrize("seconds", [0.01, 0.5, 3.0, 60.0, 119.0, 121.0, 4000.0, 1e6])
    def test_time_has_a_few_ticks_from_zero(self, seconds):
        ticks = panels.seconds_axis(seconds).ticks
        assert ticks[0][0] == 0
        assert 3 <= len(ticks) <= 9
        assert all(0 <= at <= 100.001 for at, _ in ticks)
        assert len({label for _, label in ticks}) == len(ticks)

    def test_labels_are_the_values_at_their_places(self):
        for at, label in panels.linear_axis(-7.3, 4.1, "").ticks:
            assert float(label.replace("\N{MINUS SIGN}", "-")) == pytest.approx(-7.3 + 0.114 * at)
        for at, label in panels.log_axis(1, 125, "Hz").ticks:
            assert float(label) == pytest.approx(125 ** (at / 100))
        minutes = dict(reversed(tick) for tick in panels.seconds_axis(600).ticks)
        assert minutes["4:00"] == pytest.approx(40)

    def test_no_minus_before_zero(self):
        assert panels.number(-0.001, 2) == "0.00"
        assert panels.number(-1.5, 1) == "\N{MINUS SIGN}1.5"


def test_pictures_have_their_first_row_below_and_gaps_transparent():
    uri = panels.picture(np.array([[0.0, 1.0], [1.0, np.nan]]), 0, 1)
    pixels = imread(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert pixels[1, 0, :3].sum() < 0.1
    np.testing.assert_array_equal(pixels[1, 1], pixels[0, 0])
    assert pixels[0, 1, 3] == 0


class TestPlayers:
    def test_the_loudest_part_is_played(self, monkeypatch):
        monkeypatch.setattr(players, "PLAYED_SECONDS", 4.0)
        x = np.random.default_rng(0).normal(size=(1, 80_000)) * 0.01
        x[0, 50_000:58_000] *= 50
        part = players.choose_excerpt(x, 8000.0, 4)
        assert (part.stop - part.start, part.is_whole) == (8000, False)
        assert abs(part.start - 50_000) <= 800

    def test_many_players_share_the_room(self):
        x = np.ones((6, 4_000_000), dtype=np.float32)
        part = players.choose_excerpt(x, 48000.0, 10)
        assert part.of(x).shape == (players.MOST_CHANNELS, 60 * 48000)

    @pytest.mark.parametrize("sfreq", [8000, 44100])
    def test_copies_take_no_more_than_is_said(self, sfreq):
        loudest = np.random.default_rng(0).uniform(-1, 1, size=(2, 4 * sfreq))
        assert len(players.mp3(loudest, sfreq)) < 1.05 * 4 * 24_000

    @pytest.mark.parametrize("sfreq", [1000, 8000, 37800, 44100, 96000])
    def test_copies_keep_what_is_heard_and_where(self, sfreq):
        n_times = 2 * sfreq
        x = np.zeros((2, n_times))
        x[:, n_times // 4 : n_times // 2] = 0.5 * np.sin(0.2 * np.arange(n_times // 4))
        content = base64.b64decode(players.mp3(x, sfreq).partition(",")[2])
        read, rate = soundfile.read(io.BytesIO(content))
        assert rate in players.RATES
        assert len(read) / rate == pytest.approx(2, abs=0.001)
        loud = np.flatnonzero(np.abs(read[:, 0]) > 0.2) / rate
        assert loud[[0, -1]] == pytest.approx([0.5, 1.0], abs=0.02)
        assert np.abs(read).max() == pytest.approx(0.5, abs=0.1)

    def test_no_mp3_is_an_error_with_a_cure(self, monkeypatch):
        def fails(*_, **__):
            raise ValueError("Unknown format: 'MP3'")

        monkeypatch.setattr(soundfile, "write", fails)
        with pytest.raises(OutputError, match="install a libsndfile"):
            players.mp3(np.zeros((1, 100)), 8000)

    @pytest.mark.parametrize(("peak", "gain"), [(0.0, 1), (1.0, 1), (1.01, 0.5), (7.9, 0.125)])
    def test_gain_brings_peaks_within_full_scale(self, peak, gain):
        assert players.listening_gain(peak) == gain
