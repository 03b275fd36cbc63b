"""Variances that are sparse in the cepstrum."""

import numpy as np
import pytest

from sourcesep.ivae.stft.cepstrum import N_ENVELOPE, cepstral_variances, sparse_cepstrum

N_BINS = 513


def voiced(rng, n_frames=20, pitch=40):
    """Variances whose log is an envelope and a comb, and the power drawn from them."""
    bins = np.arange(N_BINS)
    level = rng.standard_normal((n_frames, 4)) @ np.cos(
        np.pi * np.arange(4)[:, None] * bins / (N_BINS - 1)
    )
    comb = 1.5 * np.cos(np.pi * pitch * bins / (N_BINS - 1))
    variances = np.exp(level + comb)
    return variances, variances * rng.exponential(size=variances.shape)


def error(found, true):
    """RMS error of the logarithm up to a constant, nats."""
    log_ratio = np.log(found / true)
    return (log_ratio - log_ratio.mean(axis=-1, keepdims=True)).std()


@pytest.mark.parametrize("seed", range(3))
def test_it_finds_envelope_and_pitch_in_the_chance_of_one_frame(seed):
    true, power = voiced(np.random.default_rng(seed))
    found = sparse_cepstrum(power)
    assert error(power, true) > 1.2
    assert error(found, true) < 0.35
    # smoothing by an envelope alone cannot see the comb, of 1.06 nats RMS
    no_pitch = sparse_cepstrum(power / true) * np.exp(np.log(true).mean(axis=-1, keepdims=True))
    assert error(no_pitch, true) > 1


def test_the_envelope_passes_as_it_is():
    """The lowest quefrencies, by the inverse FFT of the even extension."""
    power = voiced(np.random.default_rng(0))[1]

    def cepstrum(values):
        return np.fft.irfft(np.log(values), axis=-1)

    before, after = cepstrum(power + 1e-8 * power.mean()), cepstrum(sparse_cepstrum(power))
    np.testing.assert_allclose(after[:, :N_ENVELOPE], before[:, :N_ENVELOPE], atol=1e-12)
    # the others shrink, and most are gone
    detail = slice(N_ENVELOPE, N_BINS)
    assert (np.abs(after[:, detail]) <= np.abs(before[:, detail]) + 1e-12).all()
    assert np.mean(np.abs(after[:, detail]) > 1e-12) < 0.1


def test_scale_goes_through():
    power = voiced(np.random.default_rng(1))[1]
    np.testing.assert_allclose(sparse_cepstrum(1e6 * power), 1e6 * sparse_cepstrum(power))


def test_variances_explain_the_power_and_keep_their_floor():
    power = np.stack([voiced(np.random.default_rng(s))[1] for s in (2, 3)])
    ratio = power / cepstral_variances(power, 0.0)
    np.testing.assert_allclose(ratio.mean(axis=(1, 2)), 1, rtol=1e-4)
    floored = cepstral_variances(power, 0.1)
    assert (floored >= 0.1 * power.mean(axis=1, keepdims=True)).all()


@pytest.mark.parametrize("n_bins", [5, 33])
def test_silence_has_variances_too(n_bins):
    power = np.zeros((2, 4, n_bins), np.float32)
    power[1] = 1
    for variances in (sparse_cepstrum(power), cepstral_variances(power, 1e-3)):
        assert variances.dtype == np.float32
        assert np.isfinite(variances).all()
        assert (variances > 0).all()
