"""Monotone curves: slope, inverse, gradients, and the logistic family."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sourcesep.ivae.chains.curves import BinnedSamples, Curves, SlopeFamily, rail_knots

SEEDS = [0, 1, 2]


def random_curves(rng, n_channels=2, n_knots=9):
    knots = np.sort(rng.uniform(-2, 2, (n_channels, n_knots)), axis=1)
    knots += 0.05 * np.arange(n_knots)
    return Curves(knots, rng.normal(0, 1, (n_channels, n_knots)))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from([3, 5, 17]))
def test_the_inverse_undoes_the_curve_inside_and_outside_the_knots(seed, n_channels, n_knots):
    rng = np.random.default_rng(seed)
    curves = random_curves(rng, n_channels, n_knots)
    x = rng.uniform(-5, 5, (n_channels, 200))
    y, _ = curves.forward(x)
    np.testing.assert_allclose(curves.inverse(y), x, atol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_log_slope_is_the_derivative(seed):
    rng = np.random.default_rng(seed)
    curves = random_curves(rng)
    x, step = rng.uniform(-4, 4, (2, 300)), 1e-6
    difference = (curves.forward(x + step)[0] - curves.forward(x - step)[0]) / (2 * step)
    np.testing.assert_allclose(np.exp(curves.forward(x)[1]), difference, rtol=1e-4)


def test_curves_increase_and_the_middle_knot_stays():
    curves = random_curves(np.random.default_rng(3))
    x = np.sort(np.random.default_rng(4).uniform(-4, 4, (2, 500)), axis=1)
    assert (np.diff(curves.forward(x)[0], axis=1) > 0).all()
    middle = curves.knots[:, 4:5]
    np.testing.assert_allclose(curves.forward(middle)[0], middle)


def test_the_identity_gives_back_the_very_samples():
    x = np.random.default_rng(0).normal(size=(2, 50))
    curves = Curves.identity(x)
    assert curves.is_identity
    assert np.array_equal(curves.forward(x)[0], x)
    assert np.array_equal(curves.inverse(x), x)
    assert not curves.forward(x)[1].any()


@pytest.mark.parametrize("seed", SEEDS)
def test_gradients_by_log_slopes_and_by_samples_match_differences(seed):
    rng = np.random.default_rng(seed)
    curves = random_curves(rng)
    x = rng.uniform(-4, 4, (2, 60))
    by_value, by_log = rng.normal(size=x.shape), rng.normal(size=60)

    def objective(x, log_slopes):
        value, slope = BinnedSamples(curves.knots, x).value(log_slopes)
        return (by_value * value).sum() + (by_log * np.log(slope)).sum()

    samples = BinnedSamples(curves.knots, x)
    _, slope = samples.value(curves.log_slopes)
    gradient = samples.gradient(curves.log_slopes, slope, by_value, by_log)
    by_x = samples.input_gradient(curves.log_slopes, slope, by_value, by_log)
    step = 1e-6
    for c, k in [(0, 0), (0, 4), (1, 3), (1, 8)]:
        nudge = np.zeros_like(gradient)
        nudge[c, k] = step
        ahead = objective(x, curves.log_slopes + nudge)
        behind = objective(x, curves.log_slopes - nudge)
        assert gradient[c, k] == pytest.approx((ahead - behind) / (2 * step), rel=1e-5, abs=1e-6)
    for c, t in [(0, 0), (0, 17), (1, 5), (1, 59)]:
        nudge = np.zeros_like(x)
        nudge[c, t] = step
        difference = objective(x + nudge, curves.log_slopes) - objective(
            x - nudge, curves.log_slopes
        )
        assert by_x[c, t] == pytest.approx(difference / (2 * step), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("strength", "offset"), [(1.0, 0.0), (3.0, 0.4), (5.0, -1.0)])
def test_rails_undo_tanh_of_any_strength_and_offset(strength, offset):
    y = np.linspace(-0.9, 0.8, 400)[None]
    x = np.tanh(strength * y + offset) / strength
    rails = np.array([1 / strength])
    knots = rail_knots(-rails, rails, x.min(axis=1), x.max(axis=1), 129)
    family = SlopeFamily(knots)
    slopes = family.log_slopes(family.rails_at(-rails, rails), np.zeros((1, 0)))
    undone = Curves(knots, slopes).forward(x)[0]
    # up to scale and shift, which the unmixing matrix and the offset hold
    residual = undone - np.polyval(np.polyfit(y[0], undone[0], 1), y)
    assert np.abs(residual).max() < 3e-4 * np.ptp(undone)


@pytest.mark.parametrize("seed", SEEDS)
def test_family_gradient_matches_differences(seed):
    rng = np.random.default_rng(seed)
    low, high, one = np.array([-1.3, -2.0]), np.array([1.2, 2.5]), np.ones(2)
    family = SlopeFamily(rail_knots(low, high, -one, one, 33))
    rails = family.rails_at(low, high) + rng.normal(0, 0.2, (2, 2))
    bends = rng.normal(0, 0.3, (2, 8))
    by_slopes = rng.normal(size=(2, 33))
    by_rails, by_bends = family.gradient(rails, bends, by_slopes)
    towards, bending = rng.normal(size=rails.shape), rng.normal(size=bends.shape)
    step = 1e-6
    ahead = family.log_slopes(rails + step * towards, bends + step * bending)
    behind = family.log_slopes(rails - step * towards, bends - step * bending)
    expected = ((ahead - behind) * by_slopes).sum() / (2 * step)
    assert (by_rails * towards).sum() + (by_bends * bending).sum() == pytest.approx(
        expected, rel=1e-6
    )


def test_knots_are_denser_near_the_rails():
    one = np.ones(1)
    knots = rail_knots(-1.001 * one, 1.001 * one, -one, one, 65)[0]
    gaps = np.diff(knots)
    assert (gaps > 0).all()
    assert gaps[32] > 50 * gaps[0]
