"""The report's tables of what components do at each level, against matrix algebra."""

import numpy as np
import pytest

import sourcesep
from sourcesep.report import effects


def separated(seed, n_channels=4):
    """Two sources whose means and scales follow three levels, in channels of other units."""
    rng = np.random.default_rng(seed)
    u = rng.integers(3, size=900)
    means, scales = rng.normal(0, 1, (3, 2)), rng.uniform(0.3, 2, (3, 2))
    z = means[u] + scales[u] * rng.standard_normal((900, 2))
    x = rng.standard_normal((n_channels, 2)) @ z.T * 10.0 ** np.arange(n_channels)[:, None]
    return sourcesep.separate((x, 1.0), aux=u, mixing="linear", n_components=2)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_shift_and_spread_are_those_of_the_matrix(seed):
    found = separated(seed)
    mean, variance = found.ivae.model_.prior_moments()
    average = found.ivae.label_counts_ @ mean / found.ivae.label_counts_.sum()
    scaled = found.mixing / found.recording.data.std(axis=1, keepdims=True)
    names = list(found.recording.names)
    for k, effect in enumerate(effects.effects(found, ["a", "b"])):
        assert effect.component == "ab"[k]
        assert [level for level, _ in effect.rows] == ["u=0", "u=1", "u=2"]
        column = scaled[[names.index(name) for name in effect.channels], k]
        assert (np.diff(np.abs(column)) <= 1e-12).all(), "the most moved channel comes first"
        for level, (_, cells) in enumerate(effect.rows):
            shift = column * (mean[level, k] - average[k])
            spread = np.abs(column) * np.sqrt(variance[level, k])
            np.testing.assert_allclose(cells, np.stack([shift, spread], axis=1), atol=1e-9)


def test_many_channels_and_levels_are_cut(monkeypatch):
    monkeypatch.setattr(effects, "MOST_LABELS", 2)
    found = effects.effects(separated(0, 12), ["a", "b"])
    assert all(len(e.channels) == effects.MOST_CHANNELS and len(e.rows) == 2 for e in found)


def test_the_page_has_them_for_levels_and_not_for_time(table, audio):
    assert "What each component does at each level of u" in table.page
    assert table.page.count('aria-label="Effect of') == 2
    assert "What each component does" not in audio.page


def test_more_sources_than_channels_have_none_and_no_bound_of_misfit(tmp_path):
    """Sources of a spectrum's cells have no value at a row, and depend on each other."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 3)) @ rng.laplace(size=(3, 4000))
    levels = np.arange(4000) // 1000
    found = sourcesep.separate((x, 1000.0), aux=levels, mixing="underdetermined", n_components=3)
    found.save(tmp_path / "out", report=True)
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "of each source at each level of u" in page
    assert "What each component does" not in page
    assert "no bound" in page
