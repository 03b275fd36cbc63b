"""One channel: steady and percussive."""

import numpy as np
import pytest
from scipy.ndimage import median_filter

from sourcesep import metrics, simulate
from sourcesep.ivae.stft import layers
from sourcesep.ivae.stft.cells import power, to_signal, to_spectrum, window_size
from sourcesep.ivae.stft.wiener import wiener

SFREQ, SECONDS = 8000, 5


def pad_and_drums(seed):
    return np.stack(
        [
            simulate.instrument(SECONDS, SFREQ, kind=kind, random_state=10 + seed)
            for kind in ("pad", "drums")
        ]
    )


def separated(x, size, gains=(1.0, 1.0)):
    mixing = np.array([gains])
    cells = to_spectrum(x, size)
    return to_signal(wiener(cells, mixing, layers.infer(cells, mixing)).mean, x.shape[1])


def median_masks(x, size, n=31):
    """Harmonic/percussive separation as usual (Fitzgerald 2010), with soft masks."""
    cells = to_spectrum(x, size)
    amplitude = np.sqrt(power(cells)[0])
    steady = median_filter(amplitude, (n, 1)) ** 2
    percussive = median_filter(amplitude, (1, n)) ** 2
    share = steady / (steady + percussive + 1e-12)
    return to_signal(cells * np.stack([share, 1 - share]), x.shape[1])


def score(sources, found):
    return float(np.mean([metrics.si_sdr(a, b) for a, b in zip(sources, found, strict=True)]))


@pytest.mark.parametrize("seed", range(3))
def test_better_than_median_masks(seed):
    sources = pad_and_drums(seed)
    x = sources.sum(axis=0, keepdims=True)
    size = window_size(layers.WINDOW, SFREQ, x.shape[1])
    ours = score(sources, separated(x, size))
    assert ours > 10
    assert ours > max(score(sources, median_masks(x, n)) for n in (size, size // 2)) + 1


def test_gains_only_scale_the_layers():
    x = pad_and_drums(0).sum(axis=0, keepdims=True)
    plain = separated(x, 2048)
    scaled = separated(x, 2048, (0.5, 4.0))
    np.testing.assert_allclose(scaled * [[0.5], [4.0]], plain, atol=1e-3)


def test_layers_add_up_and_silence_stays_silent():
    x = pad_and_drums(1).sum(axis=0, keepdims=True)
    np.testing.assert_allclose(separated(x, 2048).sum(axis=0), x[0], atol=1e-2)
    assert np.abs(separated(np.zeros_like(x), 2048)).max() == 0
