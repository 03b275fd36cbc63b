"""Moments of labels, computed in parts and joined."""

import numpy as np
import pytest

from sourcesep.auxiliary import Auxiliary, Scale
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.moments import Moments
from sourcesep.ivae.whitening import whiten, whiten_moments


def recording(seed, n_labels=30, size=50, offset=0.0):
    rng = np.random.default_rng(seed)
    scale = rng.uniform(0.3, 3, (3, n_labels)).repeat(size, axis=1)
    matrix = np.random.default_rng(99).standard_normal((3, 3))
    return matrix @ (scale * rng.standard_normal(scale.shape)) + offset


def in_time(n_times, *sizes):
    scales = []
    for size in sizes:
        labels = np.arange(n_times) // size
        scales.append(Scale(labels, tuple(map(str, range(labels[-1] + 1)))))
    return Auxiliary(tuple(scales), None, True, "segments")


SEEDS = pytest.mark.parametrize("seed", [0, 1, 2])


@SEEDS
@pytest.mark.parametrize("is_time", [True, False])
def test_a_matrix_from_moments_is_the_one_from_samples(seed, is_time):
    parts = [recording([seed, k], offset=0.5 * k) for k in range(3)]
    x = np.concatenate(parts, axis=1)
    whole = in_time(x.shape[1], 50, 250)
    whole = Auxiliary(whole.scales, None, is_time, "segments")
    rng = np.random.default_rng(0)
    model = LinearModel(starts=("segments",)).fit(x, whole, rng)
    moments = Moments.joined(
        [
            Moments.of(part, Auxiliary(in_time(1500, 50, 250).scales, None, is_time, "segments"))
            for part in parts
        ]
    )
    pooled = LinearModel(starts=("segments",)).fit(parts[0], in_time(1500, 50), rng)
    pooled = pooled.pooled(moments)
    np.testing.assert_allclose(pooled.unmixing, model.unmixing, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(pooled.mixing, model.mixing, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(pooled.mean, model.mean, atol=1e-12)


def test_recordings_of_fewer_scales_join_too():
    parts = [
        Moments.of(recording(0), in_time(1500, 50, 500)),
        Moments.of(recording(1), in_time(1500, 50)),
    ]
    joined = Moments.joined(parts)
    assert [len(group.counts) for group in joined.groups] == [60, 3]
    assert joined.n_labels == 60
    assert joined.size == 63 * 9


def test_a_recording_of_which_nothing_is_used_adds_nothing():
    u = in_time(1500, 50)
    nothing = Auxiliary((Scale(np.full(1500, -1), u.scales[0].names),), None, True, "segments")
    empty = Moments.joined([Moments.of(recording(1), nothing)])
    assert empty.n_labels == 0
    joined = Moments.joined([Moments.of(recording(0), u), empty])
    np.testing.assert_array_equal(joined.overall[1], Moments.of(recording(0), u).overall[1])


def test_a_start_that_needs_samples_stays():
    x, u = recording(3), in_time(1500, 50)
    model = LinearModel(starts=("non-gaussian",)).fit(x, u, np.random.default_rng(0))
    assert model.pooled(Moments.of(x, u)) is model


def test_whitening_from_moments_is_whitening():
    x = recording(4)
    x[2] = x[0] + x[1]  # of rank 2
    mean = x.mean(axis=1)
    one, other = whiten(x), whiten_moments(mean, np.cov(x, bias=True))
    assert one.rank == other.rank == 2
    np.testing.assert_allclose(np.abs(one.matrix), np.abs(other.matrix), rtol=1e-6, atol=1e-9)
