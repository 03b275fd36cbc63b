"""Sources at different places between the channels."""

from functools import cache

import numpy as np
import pytest

from sourcesep import metrics, simulate
from sourcesep.ivae.stft import panning
from sourcesep.ivae.stft.cells import power, to_signal, to_spectrum
from sourcesep.ivae.stft.wiener import wiener

SFREQ, SECONDS = 8000, 3
SIZES = (512, 1024, 2048)


@cache
def voices(n, seed):
    seeds = range(50 * seed, 50 * seed + n)
    return np.stack([simulate.speech(SECONDS, SFREQ, random_state=k) for k in seeds])


@cache
def band(n, seed):
    kinds = ("pad", "melody", "drums", "bass")[:n]
    return np.stack(
        [
            simulate.instrument(SECONDS, SFREQ, kind=kind, random_state=50 * seed + k)
            for k, kind in enumerate(kinds)
        ]
    )


def panned(sources, seed, n_channels=2):
    """Sources at places well apart, and unit columns of gains."""
    rng = np.random.default_rng(seed)
    n = len(sources)
    if n_channels == 2:
        angles = rng.permutation(np.linspace(0.25, np.pi / 2 - 0.25, n))
        angles += rng.uniform(-0.05, 0.05, n)
        gains = np.stack([np.cos(angles), np.sin(angles)])
    else:
        gains = np.linalg.qr(rng.standard_normal((n_channels, n_channels)))[0]
        gains = np.concatenate([gains, gains[:, :1] + gains[:, 1:2]], axis=1)[:, :n]
        gains /= np.linalg.norm(gains, axis=0)
    return gains @ sources, gains


def angles_to(found, true):
    """Angle of each true direction to the nearest found one, radians."""
    return np.arccos(np.clip(np.abs(true.T @ found).max(axis=1), 0, 1))


def mask(cells, gains):
    """DUET's binary mask (Yilmaz & Rickard 2004): each cell to the nearest direction."""
    nearest = np.abs(np.einsum("ck,ctf->ktf", gains, cells)).argmax(axis=0)
    return np.stack([np.where(nearest == k, cells[0], 0) for k in range(gains.shape[1])])


def gain(images, found):
    """Mean SI-SDR of what the first channel hears, dB."""
    return float(np.mean([metrics.si_sdr(a, b) for a, b in zip(images, found, strict=True)]))


@pytest.mark.parametrize("make", [voices, band])
@pytest.mark.parametrize("seed", range(3))
def test_directions_within_a_fiftieth_of_a_radian(make, seed):
    x, gains = panned(make(3, seed), seed)
    size = max(SIZES, key=lambda n: panning.share_alone(to_spectrum(x, n)))
    peaks = panning.find_peaks(to_spectrum(x, size), 8)
    assert peaks.n_clear == 3
    assert angles_to(peaks.directions[:, :3], gains).max() < 0.02
    np.testing.assert_allclose(np.linalg.norm(peaks.directions, axis=0), 1)
    assert (np.diff(peaks.heights) <= 0).all()


@pytest.mark.parametrize("seed", range(2))
def test_directions_on_the_sphere(seed):
    x, gains = panned(voices(4, seed), seed, n_channels=3)
    peaks = panning.find_peaks(to_spectrum(x, 512), 4)
    assert angles_to(peaks.directions, gains).max() < 0.02


def test_the_window_follows_the_sounds():
    """Speech is one at a time in short windows, held notes in long ones."""

    def best(x):
        return max(SIZES, key=lambda n: panning.share_alone(to_spectrum(x, n)))

    speech = [best(panned(voices(3, seed), seed)[0]) for seed in range(3)]
    held = [best(panned(band(2, seed), seed)[0]) for seed in range(3)]
    assert np.mean(held) > 1.5 * np.mean(speech)


@pytest.mark.parametrize(("make", "size"), [(voices, 512), (band, 1024)])
@pytest.mark.parametrize("seed", range(2))
def test_better_than_a_mask(make, size, seed):
    x, gains = panned(make(3, seed), seed)
    images = gains[0, :, None] * make(3, seed)
    cells = to_spectrum(x, size)
    posterior = wiener(cells, gains, panning.infer(cells, gains))
    ours = gain(images, to_signal(posterior.mean, x.shape[1]))
    masked = gain(images, to_signal(mask(cells, gains), x.shape[1]))
    assert ours > masked + 3


def test_what_is_inferred_does_not_depend_on_the_sources_scale():
    x, gains = panned(voices(3, 0), 0)
    cells = to_spectrum(x, 512)
    scale = np.array([0.1, 1.0, 20.0])
    plain, scaled = panning.infer(cells, gains), panning.infer(cells, gains * scale)
    ratio = plain / scaled / np.square(scale)[:, None, None]
    loud = power(cells).sum(axis=0) > 1e-3
    assert np.abs(np.log(ratio[:, loud])).max() < 0.1


def test_a_long_record_is_inferred_in_parts(monkeypatch):
    x, gains = panned(voices(3, 1), 1)
    cells = to_spectrum(x, 512)
    images = gains[0, :, None] * voices(3, 1)
    scores = []
    for most in (1024, 100):
        monkeypatch.setattr(panning, "MOST_FRAMES", most)
        mean = wiener(cells, gains, panning.infer(cells, gains)).mean
        scores.append(gain(images, to_signal(mean, x.shape[1])))
    assert scores[1] > scores[0] - 1


def test_silence():
    cells = to_spectrum(np.zeros((2, 4000)), 512)
    gains = np.eye(2)
    assert np.isfinite(panning.infer(cells, gains)).all()
    assert panning.share_alone(cells) == 0
