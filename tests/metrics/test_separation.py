"""Metrics against brute force, an independent implementation, and values known by hand."""

import itertools

import fast_bss_eval.numpy as fast_bss_eval  # its front door needs torch
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sourcesep import metrics
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.metrics.separation import pair_by_ratio


@pytest.fixture(params=[0, 1, 2])
def rng(request):
    return np.random.default_rng(request.param)


def brute_force_mcc(S, S_hat):
    """Try every assignment of the smaller set into the larger."""
    d = S.shape[1]
    c = np.abs(np.corrcoef(S.T, S_hat.T)[:d, d:])
    c = c if c.shape[0] <= c.shape[1] else c.T
    rows = np.arange(c.shape[0])
    return max(c[rows, list(p)].mean() for p in itertools.permutations(range(c.shape[1]), len(c)))


class TestMatching:
    @pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3)])
    def test_mcc_is_the_best_assignment(self, rng, shape):
        S = rng.standard_normal((200, shape[0]))
        S_hat = S[:, :1] * rng.standard_normal(shape[1]) + rng.standard_normal((200, shape[1]))
        assert metrics.mcc(S, S_hat) == pytest.approx(brute_force_mcc(S, S_hat), abs=1e-12)

    def test_match_undoes_a_permutation_with_signs(self, rng):
        S = rng.laplace(size=(500, 5))
        order = rng.permutation(5)
        signs = rng.choice([-1.0, 1.0], 5)
        S_hat = 7.0 * (S * signs)[:, order] + 3.0
        match = metrics.match_sources(S, S_hat)
        np.testing.assert_array_equal(match.sources, np.arange(5))
        np.testing.assert_array_equal(order[match.components], np.arange(5))
        np.testing.assert_array_equal(match.signs, signs)
        np.testing.assert_allclose(match.correlations, 1.0)
        assert metrics.mcc(S, S_hat) == pytest.approx(1.0)

    def test_a_source_without_partner_is_not_listed(self, rng):
        S = rng.standard_normal((300, 3))
        match = metrics.match_sources(S, -S[:, [2, 0]])
        np.testing.assert_array_equal(match.sources, [0, 2])
        np.testing.assert_array_equal(match.components, [1, 0])
        np.testing.assert_array_equal(match.signs, [-1, -1])

    def test_pairs_have_the_largest_total_ratio_though_one_is_exact_and_one_silent(self, rng):
        S = rng.standard_normal((3, 400))
        found = np.stack([S[2] + 0.1 * S[0], np.zeros(400), S[0], S[1] + S[2]])
        table = metrics.si_sdr(S[:, None], found[None])
        assert np.isposinf(table[0, 2])
        assert np.isneginf(table[:, 1]).all()
        rows, columns = pair_by_ratio(table)
        np.testing.assert_array_equal(rows, np.arange(3))
        np.testing.assert_array_equal(columns, [2, 3, 0])

    def test_spearman_sees_through_monotone_curves(self, rng):
        S = rng.standard_normal((400, 3))
        S_hat = np.exp(3 * S[:, ::-1])
        assert metrics.mcc(S, S_hat, method="spearman") == pytest.approx(1.0)
        assert metrics.mcc(S, S_hat, method="pearson") < 0.7

    def test_independent_components_score_low(self, rng):
        a, b = rng.standard_normal((2, 5000, 3))
        assert metrics.mcc(a, b) < 0.06

    def test_scale_does_not_overflow(self, rng):
        S = rng.standard_normal((100, 2))
        assert metrics.mcc(S * 1e200, S * 1e-200) == pytest.approx(1.0)

    @pytest.mark.parametrize(
        ("S", "S_hat", "message"),
        [
            (np.ones(5), np.eye(5), r"S.shape=\(5,\): must be \(n_samples, n_components\)"),
            (np.eye(5), np.eye(4), r"S has 5 samples and S_hat 4: .* transpose \(channels, times"),
            (np.eye(4), np.full((4, 4), np.nan), "S_hat has NaN or infinite values"),
            (np.eye(4)[:, [0, 0]] * [1, 0], np.eye(4), r"S: column 1 is constant \(silent\)"),
            ("abc", np.eye(4), "S: must be an array of real numbers"),
            (np.eye(4), 1j * np.eye(4), "S_hat: must be an array of real numbers .they are compl"),
        ],
    )
    def test_refusals(self, S, S_hat, message):
        with pytest.raises(InputError, match=message):
            metrics.mcc(S, S_hat)

    def test_unknown_method(self):
        with pytest.raises(SettingsError, match="method='kendall': must be 'pearson' or"):
            metrics.mcc(np.eye(3), np.eye(3), method="kendall")


class TestRatios:
    def test_si_sdr_agrees_with_fast_bss_eval(self, rng):
        reference = rng.laplace(size=(3, 2, 4000)) + 0.5
        estimate = 0.3 * reference + 0.2 * rng.standard_normal(reference.shape) - 1
        ours = metrics.si_sdr(reference, estimate)
        assert ours.shape == (3, 2)
        for k, j in np.ndindex(3, 2):
            pair = reference[k, j : j + 1], estimate[k, j : j + 1]
            theirs = fast_bss_eval.si_sdr(*pair, zero_mean=True).item()
            assert ours[k, j] == pytest.approx(theirs, abs=1e-6)

    def test_plain_sdr_is_never_above_bss_evals(self, rng):
        reference = rng.standard_normal((1, 4000))
        estimate = 0.9 * np.roll(reference, 3) + 0.1 * rng.standard_normal((1, 4000))
        forgiving = fast_bss_eval.sdr(reference, estimate, filter_length=64).item()
        assert forgiving > 15 > 0 > metrics.sdr(reference, estimate)[0]

    def test_sdr_known_by_hand(self):
        s = np.array([3.0, -4.0, 0.0, 5.0])
        e = s + np.array([0.5, 0.0, 0.5, 0.0])
        assert metrics.sdr(s, e) == pytest.approx(10 * np.log10(50 / 0.5))
        assert metrics.sdr(s, 2 * s) == pytest.approx(0.0)
        assert metrics.sdr(s, np.zeros(4)) == pytest.approx(0.0)

    @settings(max_examples=25, deadline=None)
    @given(st.floats(0.01, 100), st.floats(-5, 5), st.booleans(), st.integers(0, 99))
    def test_gain_and_offset_do_not_count_in_si_sdr(self, gain, offset, flip, seed):
        r = np.random.default_rng(seed)
        s = r.standard_normal(300)
        e = s + 0.1 * r.standard_normal(300)
        moved = (-gain if flip else gain) * e + offset
        assert metrics.si_sdr(s, moved) == pytest.approx(metrics.si_sdr(s, e), abs=1e-6)

    def test_offset_counts_in_sdr(self, rng):
        s = rng.standard_normal(1000)
        assert metrics.sdr(s, s + 1) == pytest.approx(10 * np.log10((s**2).mean()))

    def test_limits(self, rng):
        s = rng.standard_normal(100)
        assert metrics.sdr(s, s) == np.inf
        assert metrics.si_sdr(s, np.zeros(100)) == -np.inf
        assert metrics.si_sdr(s, np.full(100, 2.0)) == -np.inf
        assert metrics.si_sdr(s, s) > 250

    def test_leading_axes_broadcast(self, rng):
        s = rng.standard_normal((2, 500))
        e = rng.standard_normal((3, 1, 500)) + s
        result = metrics.si_sdr(s, e)
        assert result.shape == (3, 2)
        assert result[2, 1] == pytest.approx(float(metrics.si_sdr(s[1], e[2, 1])))

    @pytest.mark.parametrize("ratio", [metrics.sdr, metrics.si_sdr])
    @pytest.mark.parametrize(
        ("reference", "estimate", "message"),
        [
            (np.zeros(4), np.ones(4), r"reference is constant \(silent\): the ratio is not def"),
            (np.ones((2, 4)), np.ones(4), "reference is constant"),
            (np.arange(4), np.arange(5), "the last axis is time and must be equally long"),
            (np.eye(4)[:2], np.eye(4)[:3], "the leading axes must be equal or broadcast"),
            (np.arange(4), [0, 1, np.inf, 2], "estimate has NaN or infinite values"),
            (np.zeros((0, 4)), np.zeros((0, 4)), "reference is constant"),
            (1.0, 2.0, "the last axis is time"),
        ],
    )
    def test_refusals(self, ratio, reference, estimate, message):
        with pytest.raises(InputError, match=message):
            ratio(reference, estimate)


class TestAmari:
    def test_zero_for_every_permutation_and_scale(self, rng):
        A = rng.standard_normal((4, 4))
        W = np.linalg.inv(A)[rng.permutation(4)] * rng.uniform(-3, 3, (4, 1))
        assert metrics.amari_distance(W, A) == pytest.approx(0, abs=1e-12)

    @pytest.mark.parametrize("d", [2, 5])
    def test_one_when_nothing_is_separated(self, d):
        assert metrics.amari_distance(np.ones((d, d)), np.eye(d)) == pytest.approx(1.0)

    def test_known_by_hand(self):
        # Rows: 0.5 / 1 each in excess, columns alike: 4 * 0.5 / (2 * 2 * 1).
        product = np.array([[1.0, 0.5], [0.5, 1.0]])
        assert metrics.amari_distance(product, np.eye(2)) == pytest.approx(0.5)

    def test_between_zero_and_one_and_growing(self, rng):
        A = rng.standard_normal((6, 3))
        W, E = np.linalg.pinv(A), rng.standard_normal((3, 6))
        distances = [metrics.amari_distance(W + a * E, A) for a in (0, 0.003, 0.03, 0.3)]
        assert all(0 <= x <= 1 for x in distances)
        assert distances == sorted(distances)
        assert distances[0] < 1e-12 < distances[1]

    def test_one_source(self):
        assert metrics.amari_distance([[2.0, 0]], [[1.0], [3.0]]) == 0

    @pytest.mark.parametrize(
        ("W", "A", "message"),
        [
            (np.eye(3), np.eye(2), r"W.shape=\(3, 3\), A.shape=\(2, 2\): W must be"),
            (np.diag([1, 0]), np.eye(2), "row or column of zeros: a source is lost"),
            (np.eye(2) * np.nan, np.eye(2), "W has NaN or infinite values"),
            (np.zeros((0, 0)), np.zeros((0, 0)), "a source is lost"),
        ],
    )
    def test_refusals(self, W, A, message):
        with pytest.raises(InputError, match=message):
            metrics.amari_distance(W, A)
