"""Variances of low rank."""

import numpy as np
import pytest

from sourcesep.ivae.stft.factorised import Factorised


def divergence(power, variances):
    """Itakura-Saito: what exponential power costs under these variances, up to a constant."""
    return float((power / variances + np.log(variances)).mean())


def low_rank(seed, rank=3, n_frames=150, n_bins=100):
    rng = np.random.default_rng(seed)
    activations = rng.gamma(0.5, 1, (2, n_frames, rank)) + 1e-2
    truth = activations @ (rng.gamma(0.5, 1, (2, rank, n_bins)) + 1e-2)
    power = truth * rng.exponential(size=truth.shape)
    return truth.astype(np.float32), power.astype(np.float32)


@pytest.mark.parametrize("seed", range(3))
def test_no_update_makes_the_fit_worse(seed):
    _, power = low_rank(seed)
    model = Factorised.of(power, 5, n_updates=0)
    values = [divergence(power, model.variances)]
    for _ in range(40):
        model.update(power, 1)
        values.append(divergence(power, model.variances))
    assert (np.diff(values) < 1e-4).all()
    assert values[-1] < values[0] - 0.05


@pytest.mark.parametrize("seed", range(3))
def test_it_finds_the_variances_behind_one_draw(seed):
    truth, power = low_rank(seed)
    model = Factorised.of(power, 3, n_updates=200)
    fresh = truth * np.random.default_rng(99).exponential(size=truth.shape)
    by_frame, by_bin = power.mean(axis=2, keepdims=True), power.mean(axis=1, keepdims=True)
    product = by_frame * by_bin / power.mean(axis=(1, 2), keepdims=True)
    best = divergence(fresh, truth)
    assert divergence(fresh, model.variances) - best < 0.5 * (divergence(fresh, product) - best)


def test_spectra_can_be_kept():
    _, power = low_rank(0)
    model = Factorised.of(power, 3, n_updates=20)
    kept, before = model.spectra.copy(), divergence(power[:, ::-1], model.variances)
    model.update(power[:, ::-1], 20, learn_spectra=False)
    np.testing.assert_array_equal(model.spectra, kept)
    assert divergence(power[:, ::-1], model.variances) < before


@pytest.mark.parametrize("rank", [1, 5, 500])
def test_silence_and_few_frames(rank):
    model = Factorised.of(np.zeros((2, 3, 4), np.float32), rank, n_updates=5)
    assert np.isfinite(model.variances).all()
    assert model.activations.shape[2] <= 3
