"""Chains: exact inverse and log-determinant, and the likelihood's gradient."""

from dataclasses import replace

import numpy as np
import pytest

from sourcesep.ivae.chains.ascent import maximise
from sourcesep.ivae.chains.chain import Objective, Parameters
from sourcesep.ivae.chains.curves import SlopeFamily, rail_knots
from sourcesep.ivae.chains.filters import identity_taps

SEEDS = [0, 1, 2]
KINDS = {"matrix": (None, 0), "filter": (None, 3), "two filters": (2, 3)}


def random_problem(kind, seed, n_times=60):
    rng = np.random.default_rng(seed)
    outer_half, inner_half = KINDS[kind]
    x = 0.3 * rng.normal(size=(2, n_times)).cumsum(axis=1)
    x_min, x_max = x.min(axis=1), x.max(axis=1)
    low, high = x_min - 0.1, x_max + 0.2
    family = SlopeFamily(rail_knots(low, high, x_min, x_max, 17))

    def taps(half):
        return identity_taps(2, half) + rng.normal(0, 0.06, (2, 2, 2 * half + 1))

    parameters = Parameters(
        None if outer_half is None else taps(outer_half),
        family.rails_at(low, high) + rng.normal(0, 0.2, (2, 2)),
        rng.normal(0, 0.3, (2, 6)),
        rng.normal(0, 0.2, 2),
        taps(inner_half),
    )
    return x, family, parameters, rng


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_inverse_is_exact(kind, seed):
    x, family, parameters, _ = random_problem(kind, seed)
    chain = parameters.chain(family)
    np.testing.assert_allclose(chain.inverse(chain.forward(x)[0]), x, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_log_determinant_is_that_of_the_explicit_jacobian(kind, seed):
    x, family, parameters, _ = random_problem(kind, seed, n_times=12)
    chain = parameters.chain(family)
    step, jacobian = 1e-6, np.empty((x.size, x.size))
    for k in range(x.size):
        nudge = np.zeros(x.size)
        nudge[k] = step
        nudge = nudge.reshape(x.shape)
        difference = chain.forward(x + nudge)[0] - chain.forward(x - nudge)[0]
        jacobian[:, k] = difference.ravel() / (2 * step)
    assert chain.forward(x)[1].sum() == pytest.approx(np.linalg.slogdet(jacobian)[1], abs=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_mean", [False, True])
def test_the_gradient_matches_differences(kind, with_mean):
    x, family, parameters, rng = random_problem(kind, 6)
    labels = np.repeat(np.arange(-1, 5), 10)
    objective = Objective(x, labels, family, with_mean=with_mean, smoothness=0.01)
    _, gradient = objective(parameters)
    for at, (array, slope) in enumerate(zip(parameters.arrays, gradient.arrays, strict=True)):
        way = rng.normal(size=array.shape)
        ends = []
        for sign in (1, -1):
            moved = [a.ravel() for a in parameters.arrays]
            moved[at] = moved[at] + sign * 1e-7 * way.ravel()
            ends.append(objective(parameters.with_values(np.concatenate(moved)))[0])
        expected = (ends[0] - ends[1]) / 2e-7
        assert (slope * way).sum() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_left_out_samples_count_only_through_the_filters():
    x, family, parameters, _ = random_problem("matrix", 0)
    labels = np.repeat(np.arange(6), 10)
    without = np.where(labels == 2, -1, labels)
    few = Objective(x[:, labels != 2], labels[labels != 2], family, with_mean=False, smoothness=0)
    all_ = Objective(x, without, family, with_mean=False, smoothness=0)
    assert all_(parameters)[0] == pytest.approx(few(parameters)[0])


def test_the_objective_does_not_depend_on_the_sources_scale():
    x, family, parameters, _ = random_problem("filter", 1)
    objective = Objective(x, np.repeat(np.arange(6), 10), family, with_mean=False, smoothness=0)
    scaled = replace(parameters, inner=parameters.inner * np.array([3.0, 0.01])[:, None, None])
    assert objective(scaled)[0] == pytest.approx(objective(parameters)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_ascent_only_climbs_and_is_deterministic(kind):
    x, family, parameters, _ = random_problem(kind, 2, n_times=300)
    objective = Objective(x, np.repeat(np.arange(6), 50), family, with_mean=False, smoothness=0.01)
    found = [
        maximise(objective, parameters, np.random.default_rng(4), max_iter=15) for _ in range(2)
    ]
    assert found[0][1] < objective(parameters)[0] - 0.1
    assert found[0][1] == pytest.approx(objective(found[0][0])[0])
    for one, other in zip(found[0][0].arrays, found[1][0].arrays, strict=True):
        assert np.array_equal(one, other)
