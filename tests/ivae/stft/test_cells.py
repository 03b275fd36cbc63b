"""Cells of the short-time Fourier transform: there and back, their power, their windows."""

import numpy as np
import pytest

from sourcesep.ivae.stft.cells import power, share_out, to_signal, to_spectrum, window_size


@pytest.mark.parametrize(("size", "n_times"), [(64, 1), (64, 63), (96, 1000), (160, 12345)])
def test_there_and_back(size, n_times):
    x = np.random.default_rng(n_times).standard_normal((2, n_times))
    cells = to_spectrum(x, size)
    assert cells.shape[0] == 2
    assert cells.shape[2] == size // 2 + 1
    np.testing.assert_allclose(to_signal(cells, n_times), x, atol=2e-6)


def test_white_noise_has_unit_power_in_every_bin():
    cells = to_spectrum(np.random.default_rng(0).standard_normal((1, 200_000)), 64)
    inside = power(cells)[0, 4:-4].mean(axis=0)
    np.testing.assert_allclose(inside, 1, atol=0.06)


def test_what_frames_share_out_keeps_its_mean():
    values = np.arange(10.0)
    shared = share_out(values, 64, 7 * 16)
    np.testing.assert_allclose(shared[:16], values[:4].mean())
    np.testing.assert_allclose(shared[-16:], values[-4:].mean())
    assert share_out(np.ones((2, 10)), 64, 100).shape == (2, 100)
    np.testing.assert_array_equal(share_out(np.ones(10), 64, 100), 1)


@pytest.mark.parametrize("sfreq", [8000, 16000, 22050, 44100, 48000, 96000, 192000])
def test_windows_are_durations(sfreq):
    size = window_size(0.512, sfreq, 100 * sfreq)
    assert 0.512 <= size / sfreq < 0.56
    assert size % 32 == 0
    assert window_size(0.512, sfreq, 2 * size) == size
    assert size / 2 <= window_size(0.512, sfreq, 2 * size - 1) < size / 2 + 32


def test_no_record_is_too_short_for_a_window():
    assert window_size(0.512, 16000, 5) == 64
    assert window_size(0.512, 1, 1000) == 64
