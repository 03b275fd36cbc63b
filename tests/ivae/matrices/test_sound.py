"""Cells of time and frequency: chance is not taken for a spectrum, and tones are told apart."""

import numpy as np
import pytest
from scipy.signal import lfilter

from sourcesep import metrics
from sourcesep.ivae.matrices.sound import log_likelihood, short_spectra, told_by_spectrum
from sourcesep.ivae.matrices.starts import STARTS

from ...conftest import in_time

SFREQ = 8000
N_TIMES = 4 * SFREQ
TIMES = np.arange(N_TIMES) / SFREQ
PLACES = np.arange(N_TIMES)


def hum(rng, base=50.0):
    """Lines at multiples of a frequency, of power and phase by chance."""
    weights = rng.standard_normal((2, 12)) / np.arange(1, 13)
    phases = 2 * np.pi * base * np.outer(np.arange(1, 13), TIMES)
    return weights[0] @ np.cos(phases) + weights[1] @ np.sin(phases)


def resonance(rng, width):
    """A Gaussian of a resonant spectrum, of this bandwidth in Hz around 700 Hz."""
    radius = np.exp(-np.pi * width / SFREQ)
    taps = [1, -2 * radius * np.cos(2 * np.pi * 700 / SFREQ), radius**2]
    return lfilter([1], taps, rng.standard_normal(3 * N_TIMES))[-N_TIMES:]


ALIKE = {
    "white": lambda rng: rng.standard_normal((2, N_TIMES)),
    "resonance of 50 Hz": lambda rng: [resonance(rng, 50) for _ in range(2)],
    "resonance of 1 Hz": lambda rng: [resonance(rng, 1) for _ in range(2)],
    "resonance of .05 Hz": lambda rng: [resonance(rng, 0.05) for _ in range(2)],
    "hum in both": lambda rng: [hum(rng) + 0.3 * rng.standard_normal(N_TIMES) for _ in range(2)],
    "one pulse": lambda rng: rng.standard_normal((2, N_TIMES)) * (abs(TIMES - 2) < 0.02),
}
OTHER = {
    "tones": lambda rng: np.sin(2 * np.pi * np.outer(rng.uniform([200, 500], [400, 900]), TIMES)),
    "hum and a resonance": lambda rng: [hum(rng), resonance(rng, 50)],
    "two hums": lambda rng: [hum(rng), hum(rng, 60.0)],
}


def told(z):
    return told_by_spectrum(short_spectra(z, SFREQ, PLACES))


def turned(z, degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, -s], [s, c]]) @ z


def white(z):
    z = np.asarray(z) - np.mean(z, axis=1, keepdims=True)
    return np.linalg.solve(np.linalg.cholesky(z @ z.T / N_TIMES), z)


@pytest.mark.parametrize("kind", ALIKE)
def test_one_spectrum_tells_nothing_apart_however_long_it_remembers(kind):
    """Of all directions the best one is taken, as a fit does."""
    best = []
    for seed in range(8):
        z = white(ALIKE[kind](np.random.default_rng(seed)))
        best.append(max(told(turned(z, degrees)) for degrees in range(0, 90, 10)))
    assert max(best) < 3


@pytest.mark.parametrize("kind", OTHER)
@pytest.mark.parametrize("noise", [0, 0.03])
def test_spectra_that_differ_are_told_apart_and_found(kind, noise):
    for seed in range(3):
        rng = np.random.default_rng(seed)
        z = np.array(OTHER[kind](rng))
        z /= z.std(axis=1, keepdims=True)
        x = turned(z, 30) + noise * rng.standard_normal(z.shape)
        assert told(z) > 4
        assert told(turned(z, 45)) < -4
        y = white(x)
        found = STARTS["cells"](y, in_time(N_TIMES, 160), rng, SFREQ) @ y
        match = metrics.match_sources(z.T, found.T)
        least = metrics.si_sdr(z[match.sources], found[match.components]).min()
        assert least > 25
        likely = [log_likelihood(short_spectra(v, SFREQ, PLACES)).mean() for v in (found, y)]
        assert likely[0] > likely[1] + 0.005


def test_windows_lie_across_no_splice():
    """Seconds that lie apart have the spectra that each has by itself."""
    z = np.random.default_rng(0).standard_normal((2, N_TIMES))
    at = PLACES + 100 * (PLACES // SFREQ)
    spectra = short_spectra(z, SFREQ, at)
    first = short_spectra(z[:, :SFREQ], SFREQ, PLACES[:SFREQ])
    assert len(spectra) == 4 * len(first)
    ratio = np.abs(spectra[: len(first)]) / np.abs(first)
    np.testing.assert_allclose(ratio / ratio[:1, :, :1], 1, rtol=1e-6)
    np.testing.assert_allclose(np.square(np.abs(spectra)).mean(axis=(0, 2)), 1)


def test_what_is_shorter_than_a_window_says_nothing():
    z = np.random.default_rng(0).standard_normal((2, 1000))
    spectra = short_spectra(z, SFREQ, PLACES[:1000])
    assert len(spectra) == len(log_likelihood(spectra)) == 0
    assert told_by_spectrum(spectra) == 0
