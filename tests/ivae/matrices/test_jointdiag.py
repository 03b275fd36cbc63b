"""Joint diagonalisation against two other implementations, and against known truth."""

import numpy as np
import pytest
import qndiag
from hypothesis import given, settings
from hypothesis import strategies as st
from pyriemann.geometry.ajd import ajd_pham

from sourcesep.ivae.matrices.jointdiag import (
    Triangles,
    coarse_to_fine,
    joint_diagonalise,
    label_covariances,
)


def loss(v, covariances, weights=None):
    """Pham's criterion, written out."""
    weights = np.ones(len(covariances)) if weights is None else weights
    value = 0.0
    for w, c in zip(weights / weights.sum(), covariances, strict=True):
        value += 0.5 * w * np.log(np.diag(v @ c @ v.T)).sum()
    return value - np.log(abs(np.linalg.det(v)))


def noisy_set(rng, d=6, n_matrices=30, n_samples=60):
    """Sample covariances of modulated sources: no matrix diagonalises them all."""
    mixing = rng.standard_normal((d, d))
    scales = rng.uniform(0.3, 3, (n_matrices, d, 1))
    x = mixing @ (scales * rng.standard_normal((n_matrices, d, n_samples)))
    return x @ x.transpose(0, 2, 1) / n_samples


def distance_to_permutation(v, w):
    """0 if v and w are one matrix up to the order and scale of their rows."""
    product = np.abs(v @ np.linalg.inv(w))
    product /= product.max(axis=1, keepdims=True)
    assert len(set(product.argmax(axis=1))) == len(product)
    return np.sort(product, axis=1)[:, :-1].max()


@pytest.fixture(params=[0, 1, 2])
def rng(request):
    return np.random.default_rng(request.param)


class TestSameOptimum:
    def test_as_qndiag(self, rng):
        covariances = noisy_set(rng)
        ours = joint_diagonalise(covariances)
        theirs, _ = qndiag.qndiag(covariances, tol=1e-10)
        assert loss(ours.matrix, covariances) == pytest.approx(loss(theirs, covariances), abs=1e-8)
        assert distance_to_permutation(ours.matrix, theirs) < 1e-6

    def test_as_pyriemann(self, rng):
        covariances = noisy_set(rng)
        ours = joint_diagonalise(covariances)
        theirs, _ = ajd_pham(covariances, eps=1e-12, n_iter_max=500)
        assert loss(ours.matrix, covariances) == pytest.approx(loss(theirs, covariances), abs=1e-8)
        assert distance_to_permutation(ours.matrix, theirs) < 1e-5

    def test_with_weights(self, rng):
        covariances = noisy_set(rng)
        weights = rng.uniform(0.1, 5, len(covariances))
        ours = joint_diagonalise(covariances, weights)
        theirs, _ = ajd_pham(covariances, eps=1e-12, n_iter_max=500, sample_weight=weights)
        assert loss(ours.matrix, covariances, weights) == pytest.approx(
            loss(theirs, covariances, weights), abs=1e-8
        )
        unweighted = joint_diagonalise(covariances).matrix
        assert loss(ours.matrix, covariances, weights) < loss(unweighted, covariances, weights)

    def test_whole_weights_are_repetitions(self, rng):
        covariances = noisy_set(rng, d=4, n_matrices=8)
        times = rng.integers(1, 4, len(covariances))
        weighted = joint_diagonalise(covariances, times.astype(float)).matrix
        repeated = joint_diagonalise(np.repeat(covariances, times, axis=0)).matrix
        np.testing.assert_allclose(weighted, repeated, atol=1e-6)


class TestResult:
    @pytest.mark.parametrize("d", [1, 2, 5, 12])
    def test_exact_recovery(self, rng, d):
        mixing = rng.standard_normal((d, d))
        profiles = rng.uniform(0.1, 3, (20, d))
        covariances = np.einsum("ij,kj,lj->kil", mixing, profiles, mixing)
        found = joint_diagonalise(covariances)
        product = found.matrix @ mixing
        product /= np.abs(product).max(axis=1, keepdims=True)
        np.testing.assert_allclose(np.sort(np.abs(product), axis=1)[:, :-1], 0, atol=1e-6)
        assert found.gradient < 1e-7  # where the loss no longer changes in float64

    def test_mean_power_is_one(self, rng):
        covariances = noisy_set(rng)
        weights = rng.uniform(0.1, 5, len(covariances))
        v = joint_diagonalise(covariances, weights).matrix
        mean = np.average(v @ covariances @ v.T, axis=0, weights=weights)
        np.testing.assert_allclose(np.diag(mean), 1, atol=1e-12)

    def test_equivariance(self, rng):
        """What was mixed before makes no difference: V(A C A') A = V(C)."""
        covariances = noisy_set(rng, d=4)
        a = rng.standard_normal((4, 4))
        plain = joint_diagonalise(covariances).matrix
        mixed = joint_diagonalise(a @ covariances @ a.T).matrix
        assert distance_to_permutation(mixed @ a, plain) < 1e-6

    def test_deterministic(self, rng):
        covariances = noisy_set(rng)
        a, b = joint_diagonalise(covariances), joint_diagonalise(covariances)
        np.testing.assert_array_equal(a.matrix, b.matrix)

    def test_a_start_at_the_optimum_stays(self, rng):
        covariances = noisy_set(rng)
        first = joint_diagonalise(covariances, tol=1e-10)
        # the loss, to 16 digits, tells gradients from 0 down to 1e-8 or so
        again = joint_diagonalise(covariances, start=first.matrix, tol=1e-6)
        assert again.n_iter == 1
        np.testing.assert_allclose(again.matrix, first.matrix, atol=1e-12)

    def test_it_stops_when_told(self, rng):
        assert joint_diagonalise(noisy_set(rng), max_iter=3).n_iter == 3

    def test_equal_profiles_end_in_finite_numbers(self, rng):
        """Two sources that nothing tells apart leave a direction in which nothing changes."""
        mixing = rng.standard_normal((3, 3))
        profiles = rng.uniform(0.1, 3, (20, 3))
        profiles[:, 1] = profiles[:, 0]
        covariances = np.einsum("ij,kj,lj->kil", mixing, profiles, mixing)
        v = joint_diagonalise(covariances).matrix
        assert np.isfinite(v).all()
        third = np.abs(v @ mixing)[:, 2]
        assert np.sort(third)[-2] < 1e-5 * third.max()

    def test_float32_is_float64_to_its_precision(self, rng):
        covariances = noisy_set(rng, d=12, n_samples=400)
        exact = joint_diagonalise(covariances).matrix
        single = joint_diagonalise(covariances.astype(np.float32), tol=1e-4)
        assert single.matrix.dtype == np.float32
        assert distance_to_permutation(single.matrix.astype(float), exact) < 2e-3
        assert loss(single.matrix.astype(float), covariances) == pytest.approx(
            loss(exact, covariances), abs=1e-5
        )


class TestCoarseToFine:
    def test_every_group_weighs_the_same(self, rng):
        fine = noisy_set(rng, n_matrices=40)
        coarse = fine.reshape(5, 8, 6, 6).mean(axis=1)
        found = coarse_to_fine([fine, coarse], tol=1e-9)
        weights = np.r_[np.full(40, 1 / 40), np.full(5, 1 / 5)]
        both = np.concatenate([fine, coarse])
        direct = joint_diagonalise(both, weights, tol=1e-9).matrix
        assert loss(found.matrix, both, weights) == pytest.approx(
            loss(direct, both, weights), abs=1e-8
        )
        assert found.gradient < 1e-7

    def test_one_group_is_joint_diagonalisation(self, rng):
        covariances = noisy_set(rng)
        np.testing.assert_array_equal(
            coarse_to_fine([covariances], tol=1e-8).matrix, joint_diagonalise(covariances).matrix
        )

    def test_no_group(self):
        with pytest.raises(ValueError, match=r"^groups=\[\]: at least one group of covariances"):
            coarse_to_fine([], tol=1e-8)


def naive_covariances(x, labels, n_labels, centre):
    rows, counts = [], []
    for label in range(n_labels):
        piece = x[:, labels == label]
        if piece.shape[1]:
            piece = piece - piece.mean(axis=1, keepdims=True) if centre else piece
            rows.append(piece @ piece.T / piece.shape[1])
            counts.append(piece.shape[1])
    return np.array(rows), np.array(counts)


class TestLabelCovariances:
    @settings(max_examples=60, deadline=None)
    @given(
        seed=st.integers(0, 2**32 - 1),
        n_labels=st.integers(1, 7),
        n_times=st.integers(1, 60),
        is_sorted=st.booleans(),
        centre=st.booleans(),
    )
    def test_against_a_loop(self, seed, n_labels, n_times, is_sorted, centre):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((3, n_times))
        labels = rng.integers(-1, n_labels, n_times)
        labels[rng.integers(n_times)] = 0
        labels = np.sort(labels) if is_sorted else labels
        found, counts = label_covariances(x, labels, n_labels, centre=centre)
        expected, sizes = naive_covariances(x, labels, n_labels, centre)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        np.testing.assert_array_equal(counts, sizes)

    @pytest.mark.parametrize("lead", [0, 3])
    def test_equal_segments_with_a_longer_last_one(self, rng, lead):
        x = rng.standard_normal((4, 47 + lead))
        labels = np.r_[np.full(lead, -1), np.repeat(np.arange(4), 10), np.full(7, 4)]
        found, counts = label_covariances(x, labels, 5)
        expected, _ = naive_covariances(x, labels, 5, centre=False)
        np.testing.assert_allclose(found, expected, atol=1e-12)
        np.testing.assert_array_equal(counts, [10, 10, 10, 10, 7])

    def test_the_precision_is_the_signals_own(self, rng):
        x = rng.standard_normal((2, 20)).astype(np.float32)
        assert label_covariances(x, np.arange(20) // 5, 4)[0].dtype == np.float32


@pytest.mark.parametrize("d", [1, 2, 7])
def test_triangles_say_what_whole_matrices_do(rng, d):
    matrices = rng.standard_normal((5, d, d))
    matrices = matrices @ matrices.transpose(0, 2, 1)
    v, weights = rng.standard_normal((d, d)), rng.random((5, d))
    seen = v @ matrices @ v.T
    triangles = Triangles.of(matrices)
    assert np.allclose(triangles.powers(v), np.einsum("kii->ki", seen))
    assert np.allclose(triangles.weighted(v, weights), np.einsum("ki,kij->ij", weights, seen))
