"""Protocols: scales by segment, layers as published, controls that carry no information."""

from typing import get_args

import numpy as np
import pytest

from sourcesep import simulate
from sourcesep.exceptions import SettingsError
from sourcesep.simulate.protocols import LinearKind

PROTOCOLS = {"ivae": (simulate.ivae, 0.5), "icebeem": (simulate.icebeem, 0.01)}
KINDS = get_args(LinearKind)


def kurtosis(rows):
    return (rows**4).mean(-1) / (rows**2).mean(-1) ** 2 - 3


def segment_scales(protocol):
    labels = range(protocol.u.max() + 1)
    return np.stack([protocol.sources[protocol.u == k].std(0) for k in labels])


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("seed", [0, 1, 2])
class TestBoth:
    def test_scales_follow_the_labels(self, name, seed):
        draw, lowest = PROTOCOLS[name]
        protocol = draw(random_state=seed)
        n_segments = {"ivae": 40, "icebeem": 20}[name]
        size = protocol.u.size // n_segments
        np.testing.assert_array_equal(protocol.u, np.repeat(np.arange(n_segments), size))
        assert protocol.sources.shape == protocol.observations.shape == (40000, 5)
        assert ((protocol.scales >= lowest) & (protocol.scales <= 3)).all()
        assert protocol.scales.mean() == pytest.approx((lowest + 3) / 2, abs=0.25)
        ratio = segment_scales(protocol) / protocol.scales
        np.testing.assert_allclose(ratio, 1, atol=5 / np.sqrt(2 * size))
        within = protocol.sources / protocol.scales[protocol.u]
        assert np.abs(kurtosis(within.T)).max() < 0.2
        assert np.abs(np.corrcoef(within.T) - np.eye(5)).max() < 0.03

    def test_laplace_within_a_segment(self, name, seed):
        protocol = PROTOCOLS[name][0](source="laplace", random_state=seed)
        within = protocol.sources / protocol.scales[protocol.u]
        np.testing.assert_allclose(kurtosis(within.T), 3, atol=0.8)
        np.testing.assert_allclose(within.std(0), 1, atol=0.03)

    def test_controls(self, name, seed):
        draw, _ = PROTOCOLS[name]
        common = draw(modulation="common", random_state=seed)
        assert (common.scales == common.scales[:, :1]).all()
        assert np.ptp(common.scales[:, 0]) > 1.5
        still = segment_scales(draw(modulation="none", random_state=seed))
        np.testing.assert_allclose(still, 1, atol=0.13)
        told = draw(random_state=seed)
        shuffled = simulate.shuffled_labels(told, random_state=seed)
        np.testing.assert_array_equal(np.bincount(shuffled.u), np.bincount(told.u))
        assert shuffled.observations is told.observations
        spread = [np.log(segment_scales(p)).std(0).mean() for p in (told, shuffled)]
        assert spread[1] < 0.1 * spread[0]

    def test_a_seed_is_a_protocol(self, name, seed):
        draw, _ = PROTOCOLS[name]
        first = draw(random_state=seed)
        np.testing.assert_array_equal(first.observations, draw(random_state=seed).observations)
        other = draw(random_state=seed + 10)
        assert not np.allclose(first.observations, other.observations)


def linear_fit(x, y):
    """Return the fraction of y's power that no linear map of x explains."""
    x, y = x - x.mean(0), y - y.mean(0)
    rest = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return (rest**2).sum() / (y**2).sum()


class TestLayers:
    @pytest.mark.parametrize("activation", ["xtanh", "leaky-relu", "none"])
    def test_one_layer_is_linear(self, activation):
        protocol = simulate.ivae(n_layers=1, activation=activation)
        assert linear_fit(protocol.sources, protocol.observations) < 1e-20

    def test_more_layers_are_less_linear(self):
        rest = [
            np.mean(
                [
                    linear_fit(p.sources, p.observations)
                    for p in (simulate.ivae(n_layers=n, random_state=s) for s in range(4))
                ]
            )
            for n in (2, 3, 4)
        ]
        assert 0.03 < rest[0] < rest[1] < rest[2]
        straight = simulate.ivae(n_layers=3, activation="none")
        assert linear_fit(straight.sources, straight.observations) < 1e-20

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_xtanh_is_undone_by_the_right_matrix(self, seed):
        """Two layers: observations @ inv(B) must be tanh(t) + 0.1 t of t = sources @ A."""
        protocol = simulate.ivae(2, 4, 500, n_layers=2, reuse_matrix=True, random_state=seed)
        one = simulate.ivae(2, 4, 500, n_layers=1, reuse_matrix=True, random_state=seed)
        np.testing.assert_array_equal(one.sources, protocol.sources)
        matrix = np.linalg.lstsq(one.sources, one.observations, rcond=None)[0]
        np.testing.assert_allclose(np.linalg.norm(matrix, axis=0), 1)
        inner = protocol.sources @ matrix
        expected = (np.tanh(inner) + 0.1 * inner) @ matrix
        np.testing.assert_allclose(protocol.observations, expected, atol=1e-9)

    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_icebeem_keeps_the_norm_of_its_activations(self, seed):
        protocol = simulate.icebeem(n_layers=2, random_state=seed)
        s = protocol.sources
        rectified = np.where(s > 0, s, 0.2 * s)
        np.testing.assert_allclose(
            np.linalg.norm(protocol.observations, axis=1), np.linalg.norm(rectified, axis=1)
        )
        assert np.abs(np.corrcoef(protocol.observations.T, rectified.T)[:5, 5:]).max() < 0.999

    def test_more_channels_and_noise(self):
        clean = simulate.ivae(3, 10, 200, n_channels=6, random_state=1)
        noisy = simulate.ivae(3, 10, 200, n_channels=6, noise=0.2, random_state=1)
        assert clean.observations.shape == (2000, 6)
        error = (noisy.observations - clean.observations).std(0) / clean.observations.std(0)
        np.testing.assert_allclose(error, 0.2, rtol=0.1)

    def test_matrices_are_well_conditioned(self):
        conditions = []
        for seed in range(10):
            p = simulate.ivae(n_segments=2, samples_per_segment=50, n_layers=1, random_state=seed)
            matrix = np.linalg.lstsq(p.sources, p.observations, rcond=None)[0]
            conditions.append(np.linalg.cond(matrix))
        assert max(conditions) < 6

    @pytest.mark.parametrize(
        ("draw", "message"),
        [
            (lambda: simulate.ivae(n_layers=0), "n_layers=0: must be a whole number, 1 or more"),
            (lambda: simulate.ivae(n_channels=2), "n_channels=2: must be a whole number, 5"),
            (lambda: simulate.ivae(activation="relu"), "activation='relu': allowed are xtanh"),
            (lambda: simulate.ivae(noise=-1), "noise=-1: must be a number, 0 or more"),
            (lambda: simulate.icebeem(n_layers=1), "n_layers=1: must be a whole number, 2"),
            (lambda: simulate.icebeem(slope=0), "slope=0: must be a number above 0"),
            (lambda: simulate.icebeem(modulation="shared"), "modulation='shared': allowed are"),
            (lambda: simulate.icebeem(samples_per_segment=1), "samples_per_segment=1: must be a"),
            (lambda: simulate.linear_sources("pink", 99), "kind='pink': allowed are uniform"),
        ],
    )
    def test_refusals(self, draw, message):
        with pytest.raises(SettingsError, match=message):
            draw()


@pytest.mark.parametrize("seed", [0, 1, 2])
class TestLinearSources:
    N = 40000

    def draw(self, kind, seed, n=4):
        return simulate.linear_sources(kind, self.N, n, random_state=seed)

    @pytest.mark.parametrize("kind", KINDS)
    def test_independent_and_of_unit_variance(self, kind, seed):
        rows = self.draw(kind, seed)
        assert rows.shape == (4, self.N)
        np.testing.assert_allclose(np.cov(rows, bias=True), np.eye(4), atol=0.05)
        np.testing.assert_array_equal(rows, self.draw(kind, seed))

    def test_shapes_within_a_segment(self, seed):
        for name, expected in (("uniform", -1.2), ("laplace", 3.0), ("gaussian", 0.0)):
            np.testing.assert_allclose(kurtosis(self.draw(name, seed)), expected, atol=0.5)
        for name, expected in (("modulated", 0.0), ("modulated-laplace", 3.0)):
            segments = self.draw(name, seed).reshape(4, 40, -1)
            np.testing.assert_allclose(kurtosis(segments).mean(1), expected, atol=0.6)

    def test_only_the_modulated_change_over_time(self, seed):
        for name in KINDS:
            spread = np.log(self.draw(name, seed).reshape(4, 40, -1).std(-1)).std(1)
            changes = {"modulated": 4, "modulated-laplace": 4, "mixed": 1}.get(name, 0)
            assert (spread > 0.3).sum() == changes
            assert (spread < 0.1).sum() == 4 - changes

    def test_only_the_autoregressive_have_a_spectrum(self, seed):
        for name in KINDS:
            rows = self.draw(name, seed)
            lag = (rows[:, 1:] * rows[:, :-1]).mean(1)
            if name == "ar":
                assert np.diff(np.sort(lag)).min() > 0.2
            else:
                assert (np.abs(lag) > 0.05).sum() == (name == "mixed")

    def test_mixed_has_one_of_each(self, seed):
        modulated, laplace, uniform, ar = kurtosis(self.draw("mixed", seed))
        assert laplace == pytest.approx(3, abs=0.6)
        assert uniform == pytest.approx(-1.2, abs=0.05)
        assert modulated > 0.3
        assert ar > 0.3


@pytest.mark.parametrize("seed", [0, 1, 2])
class TestHiddenMarkov:
    def test_each_source_switches_at_times_of_its_own(self, seed):
        protocol = simulate.hidden_markov(4, 30_000, 1, dwell=200.0, random_state=seed)
        scales = protocol.scales[protocol.u]
        switches = np.diff(scales, axis=0) != 0
        np.testing.assert_allclose(1 / switches.mean(0), 200, rtol=0.35)
        assert np.abs(np.corrcoef(switches.T) - np.eye(4)).max() < 0.05
        np.testing.assert_allclose(np.unique(scales), np.geomspace(0.5, 3, 3))

    def test_a_state_is_white_gaussian_and_a_label_its_combination(self, seed):
        protocol = simulate.hidden_markov(3, 40_000, 2, n_states=2, random_state=seed)
        assert protocol.u.max() + 1 == len(protocol.scales) == 8
        within = protocol.sources / protocol.scales[protocol.u]
        np.testing.assert_allclose(within.std(0), 1, atol=0.02)
        assert np.abs(kurtosis(within.T)).max() < 0.2
        lagged = (within[1:] * within[:-1]).mean(0)
        assert np.abs(lagged).max() < 0.03
        share = np.bincount(protocol.u) / protocol.u.size
        assert share.min() > 0.02, "states are about equally frequent"

    def test_a_seed_is_a_protocol(self, seed):
        one, same, other = (
            simulate.hidden_markov(2, 500, random_state=s) for s in (seed, seed, seed + 1)
        )
        np.testing.assert_array_equal(one.observations, same.observations)
        assert not np.array_equal(one.observations, other.observations)


def test_a_hidden_chain_that_cannot_be_is_refused():
    for settings in ({"dwell": 0.5}, {"n_states": 1}, {"n_samples": 1}, {"activation": "relu"}):
        with pytest.raises(SettingsError, match=next(iter(settings))):
            simulate.hidden_markov(**settings)
