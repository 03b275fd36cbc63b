import numpy as np
import pytest

from sourcesep import simulate
from sourcesep.exceptions import SettingsError


@pytest.mark.parametrize("seed", [0, 1])
def test_a_table_is_what_it_says_it_is(seed):
    table = simulate.factors(6000, 9, 3, 5, noise=0.2, missing=0.1, random_state=seed)
    assert table.observations.shape == (6000, 9)
    assert np.isnan(table.observations).mean() == pytest.approx(0.1, abs=0.01)
    np.testing.assert_allclose(table.sources.std(axis=0), 1)
    rest = table.observations - table.sources @ table.loadings.T - table.offset
    np.testing.assert_allclose(np.nanvar(rest, axis=0), table.noise, rtol=0.1)
    clean = (table.sources @ table.loadings.T).var(axis=0)
    np.testing.assert_allclose(table.noise, 0.2 * clean)
    for regime, variance in enumerate(table.variances):
        inside = table.sources[table.u == regime]
        np.testing.assert_allclose(inside.var(axis=0), variance, rtol=0.2)
    assert (np.diff(table.u) >= 0).all()


def test_controls_have_one_volatility():
    common = simulate.factors(4000, volatility="common").variances
    np.testing.assert_allclose(common[0] / common[1], (common[0] / common[1])[0])
    assert np.ptp(common[:, 0]) > 0
    assert np.ptp(simulate.factors(4000, volatility="constant").variances, axis=0).max() == 0


def test_same_seed_same_table():
    a, b, other = (simulate.factors(100, random_state=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(a.observations, b.observations)
    assert not np.array_equal(a.sources, other.sources)


@pytest.mark.parametrize(
    "settings",
    [
        {"noise": -1},
        {"missing": 1.0},
        {"missing": -0.1},
        {"missing": "a"},
        {"volatility": "none"},
        {"n_factors": 0},
    ],
)
def test_what_cannot_be_is_refused(settings):
    with pytest.raises(SettingsError, match=next(iter(settings))):
        simulate.factors(100, **settings)
