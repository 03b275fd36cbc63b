"""Filters: circular convolution, its inverse, gradients and log-determinant."""

import numpy as np
import pytest

from sourcesep.ivae.chains.filters import (
    adjoint,
    convolve,
    convolve_gradient,
    deconvolve,
    frequency_demixing,
    identity_taps,
    impulse_response,
    log_det_rate,
    log_det_rate_gradient,
)

SHAPES = [(40, 0), (37, 2), (1500, 24), (16, 10)]


def filters(rng, half, d=2):
    return identity_taps(d, half) + rng.normal(0, 0.3 / (2 * half + 1), (d, d, 2 * half + 1))


def circular_matrix(taps, n):
    """Explicit Jacobian of the circular filter, by its definition."""
    d, _, width = taps.shape
    matrix = np.zeros((d, n, d, n))
    for lag in range(width):
        for t in range(n):
            matrix[:, t, :, (t - (lag - width // 2)) % n] += taps[:, :, lag]
    return matrix.reshape(d * n, d * n)


@pytest.mark.parametrize(("n", "half"), [(40, 0), (37, 2), (30, 5), (16, 10)])
def test_convolution_and_log_determinant_match_the_explicit_matrix(n, half):
    rng = np.random.default_rng(n)
    taps, x = filters(rng, half), rng.normal(size=(2, n))
    matrix = circular_matrix(taps, n)
    np.testing.assert_allclose(convolve(taps, x).ravel(), matrix @ x.ravel(), atol=1e-12)
    assert n * log_det_rate(taps, n) == pytest.approx(np.linalg.slogdet(matrix)[1], abs=1e-9)


@pytest.mark.parametrize(("n", "half"), SHAPES)
def test_deconvolution_is_the_inverse(n, half):
    rng = np.random.default_rng(n)
    taps, x = filters(rng, half), rng.normal(size=(2, n))
    np.testing.assert_allclose(deconvolve(taps, convolve(taps, x)), x, atol=1e-10)


@pytest.mark.parametrize(("n", "half"), SHAPES)
def test_gradients_are_the_adjoints_of_a_bilinear_map(n, half):
    rng = np.random.default_rng(n)
    taps, x, g = filters(rng, half), rng.normal(size=(2, n)), rng.normal(size=(2, n))
    product = (g * convolve(taps, x)).sum()
    assert (convolve_gradient(taps, x, g) * taps).sum() == pytest.approx(product)
    assert (convolve(adjoint(taps), g) * x).sum() == pytest.approx(product)


@pytest.mark.parametrize("half", [0, 3])
def test_log_determinant_gradient_matches_differences(half):
    rng = np.random.default_rng(half)
    taps = filters(rng, half)
    value, gradient = log_det_rate_gradient(taps, 64)
    assert value == pytest.approx(log_det_rate(taps, 64))
    way, step = rng.normal(size=taps.shape), 1e-6
    ahead, behind = (log_det_rate(taps + s * step * way, 64) for s in (1, -1))
    assert (gradient * way).sum() == pytest.approx((ahead - behind) / (2 * step), rel=1e-6)


def test_impulse_response_is_that_of_the_inverse():
    taps = filters(np.random.default_rng(1), 3)
    response = impulse_response(taps, 256)
    impulse = np.zeros((2, 256))
    impulse[1, 0] = 1
    np.testing.assert_allclose(response[:, 1], deconvolve(taps, impulse), atol=1e-10)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_matrix_per_frequency_unmixes_a_convolutive_mixture(seed):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(30), 500)
    sources = rng.normal(size=(2, 15_000)) * np.exp(rng.normal(0, 1, (2, 30)))[:, labels]
    mixing = np.stack([[[1, 0.3, 0.1], [0.4, -0.5, 0.2]], [[-0.5, 0.3, 0.2], [1, 0.2, -0.1]]])
    x = convolve(mixing, sources)
    taps, loss = frequency_demixing(x, labels, np.eye(2), 16)
    unmixed = convolve(taps, x)
    leak = [
        np.std(convolve(taps, convolve(mixing, np.where([[j == 0], [j == 1]], sources, 0)))[i])
        for i, j in [(0, 1), (1, 0)]
    ]
    assert max(leak) < 0.1 * unmixed.std(axis=1).min()
    assert np.isfinite(loss)


@pytest.mark.parametrize("silent", [False, True])
def test_labels_of_one_frame_or_of_silence_leave_numbers_numbers(silent):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(12), 150)
    sources = rng.normal(size=(3, 1800)) * np.exp(rng.normal(0, 1, (3, 12)))[:, labels]
    x = rng.normal(size=(3, 3)) @ sources
    x[:, :450] *= not silent
    taps, loss = frequency_demixing(x, labels, np.eye(3), 16)
    assert np.isfinite(taps).all()
    assert np.isfinite(loss)
