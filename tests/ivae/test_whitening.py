"""Rank and whitening: what every fit begins with."""

import numpy as np
import pytest

from sourcesep.exceptions import InputError, SettingsError
from sourcesep.ivae.whitening import Basis, numerical_rank, whiten


@pytest.fixture(params=[0, 1, 2])
def rng(request):
    return np.random.default_rng(request.param)


def signals(rng, n_channels=5, n_times=400):
    return rng.standard_normal((n_channels, n_channels)) @ rng.laplace(size=(n_channels, n_times))


def degenerate(rng, how):
    x = signals(rng)
    if how == "average reference":
        return x - x.mean(axis=0), 4
    if how == "duplicated channel":
        x[3] = x[1]
        return x, 4
    if how == "one channel minus twice another":
        x[3] = -2e3 * x[1]
        return x, 4
    if how == "silent channel":
        x[2] = 0
        return x, 4
    if how == "constant channel":
        x[2] = 0.1
        return x, 4
    if how == "two samples":
        return x[:, :2], 1
    return x, 5


CASES = (
    "full rank",
    "average reference",
    "duplicated channel",
    "one channel minus twice another",
    "silent channel",
    "constant channel",
    "two samples",
)


@pytest.mark.parametrize("how", CASES)
@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("standardise", [False, True])
class TestWithinTheRank:
    def test_rank(self, rng, how, offset, standardise):
        x, rank = degenerate(rng, how)
        assert numerical_rank(x + offset) == rank
        assert whiten(x + offset, standardise_channels=standardise).rank == rank

    def test_whitened_signals_are_white_and_lose_nothing(self, rng, how, offset, standardise):
        x, rank = degenerate(rng, how)
        x = x + offset
        white = whiten(x, standardise_channels=standardise)
        y = white.matrix @ (x - white.mean[:, None])
        np.testing.assert_allclose(y @ y.T / y.shape[1], np.eye(rank), atol=1e-6)
        np.testing.assert_allclose(y.mean(axis=1), 0, atol=1e-6)
        back = white.inverse @ y + white.mean[:, None]
        np.testing.assert_allclose(back, x, atol=1e-9 * np.abs(x).max())
        np.testing.assert_allclose(white.matrix @ white.inverse, np.eye(rank), atol=1e-9)


class TestFewerComponents:
    @pytest.mark.parametrize("standardise", [False, True])
    @pytest.mark.parametrize("how", ["full rank", "duplicated channel", "silent channel"])
    def test_both_parts_are_inverted_and_do_not_mix(self, rng, how, standardise):
        x, rank = degenerate(rng, how)
        x *= np.array([1e-3, 1, 1, 10, 1e2])[:, None]
        white = whiten(x, 2, standardise_channels=standardise)
        assert white.complement.shape == (rank - 2, 5)
        both = np.concatenate([white.matrix, white.complement])
        back = np.concatenate([white.inverse, white.complement_inverse], axis=1)
        np.testing.assert_allclose(both @ back, np.eye(rank), atol=1e-8)
        centred = x - white.mean[:, None]
        np.testing.assert_allclose(back @ both @ centred, centred, atol=1e-8 * np.abs(x).max())

    def test_what_is_set_aside_has_unit_variance_on_average(self, rng):
        x = signals(rng)
        white = whiten(x, 2)
        aside = white.complement @ (x - white.mean[:, None])
        assert np.mean(aside**2) == pytest.approx(1)

    def test_the_strongest_directions_are_kept(self, rng):
        x = signals(rng)
        white = whiten(x, 2)
        values = np.sort(np.linalg.eigvalsh(np.cov(x, bias=True)))[::-1]
        kept = white.inverse @ white.matrix @ (x - white.mean[:, None])
        assert kept.var(axis=1).sum() == pytest.approx(values[:2].sum())

    def test_units_count_only_if_they_may(self, rng):
        x = signals(rng)
        units = np.array([1e-3, 1, 1, 1, 1e3])[:, None]

        def space(x, standardise):
            white = whiten(x, 2, standardise_channels=standardise)
            return np.linalg.qr((white.matrix @ (x - white.mean[:, None])).T)[0]

        def overlap(a, b):
            return np.linalg.svd(a.T @ b, compute_uv=False).min()

        assert overlap(space(x, True), space(x * units, True)) == pytest.approx(1, abs=1e-9)
        assert overlap(space(x, False), space(x * units, False)) < 0.99


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e6])
def test_scale_makes_no_difference(rng, scale):
    x = signals(rng)
    a, b = whiten(x), whiten(scale * x)
    np.testing.assert_allclose(b.matrix * scale, a.matrix, rtol=1e-6, atol=1e-9)
    assert numerical_rank(scale * x) == 5


def test_channels_of_very_different_scale_keep_their_rank(rng):
    x = signals(rng) * np.array([1e-6, 1, 1, 1, 1e3])[:, None]
    white = whiten(x)
    y = white.matrix @ (x - white.mean[:, None])
    np.testing.assert_allclose(y @ y.T / y.shape[1], np.eye(5), atol=1e-6)


class TestRefusals:
    def test_silence(self):
        with pytest.raises(InputError) as error:
            whiten(np.full((3, 50), 0.1))
        assert str(error.value) == (
            "every channel is constant (silent): there is nothing to separate"
        )

    @pytest.mark.parametrize("k", [-1, 0, 5])
    def test_numbers_that_cannot_be(self, rng, k):
        x = degenerate(rng, "duplicated channel")[0]
        with pytest.raises(SettingsError) as error:
            whiten(x, k)
        assert str(error.value) == (
            f"n_components={k}: the 5 channels hold 4 linearly independent signals; ask for 1 to 4"
        )

    def test_one_signal(self, rng):
        x = np.outer([1.0, 2.0], rng.standard_normal(50))
        with pytest.raises(SettingsError) as error:
            whiten(x, 2)
        assert str(error.value) == (
            "n_components=2: the 2 channels hold 1 linearly independent signal; ask for 1 to 1"
        )


class TestBasis:
    @pytest.mark.parametrize("how", CASES)
    @pytest.mark.parametrize("offset", [0.0, 10.0])
    def test_as_many_channels_as_the_rank_span_all(self, rng, how, offset):
        x, rank = degenerate(rng, how)
        x = x + offset
        basis = Basis.of(x)
        y = basis.coordinates(x)
        assert y.shape == (rank, x.shape[1])
        np.testing.assert_allclose(y.std(axis=1), 1)
        size = 1e-6 * np.abs(x).max()
        np.testing.assert_allclose(basis.mean[:, None] + basis.span @ y, x, atol=size)

    def test_silence_is_refused(self):
        with pytest.raises(InputError, match="silent"):
            Basis.of(np.zeros((2, 100)))

    def test_a_quiet_channel_is_no_reference(self, rng):
        x = rng.standard_normal((3, 500))
        assert Basis.of(x).reference == 0
        assert Basis.of(x * np.array([[0.01], [0.9], [1.0]])).reference == 1
