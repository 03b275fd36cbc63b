"""The figure of traversals shows what `effect` and `prior_table` say, and refuses the rest."""

import functools

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

import sourcesep
from sourcesep.exceptions import InputError, SettingsError
from sourcesep.report import traversals


@functools.cache
def fitted(n_labels=20, n_components=3):
    names = ["x", "y", "scale", "rotation", "brightness"][:n_components]
    data = sourcesep.simulate.images(n_labels, 60, names, size=8, random_state=0)
    ivae = sourcesep.IVAE(n_components, mixing="linear", starts=("segments",), random_state=0)
    return ivae.fit(data.pixels, u=data.u)


def intervals(place):
    """Where the two bundles of lines of a panel begin and end, wide and narrow."""
    return [np.array([path[:, 0] for path in lines.get_segments()]) for lines in place.collections]


@pytest.mark.parametrize("n_labels", [5, 20])
def test_it_shows_effects_and_prior(n_labels):
    ivae = fitted(n_labels)
    values = [-1.0, 0.5, 3.0]
    places = traversals(ivae, (8, 8), values=values).axes
    assert len(places) == 3 * 5
    mean, variance = ivae.model_.prior_moments()
    for k in range(3):
        *tiles, change, prior = places[5 * k : 5 * (k + 1)]
        effect = ivae.effect(k, values).reshape(3, 8, 8)
        for tile, image in zip(tiles, effect, strict=True):
            np.testing.assert_array_equal(tile.images[0].get_array(), image)
        np.testing.assert_array_equal(change.images[0].get_array(), effect[-1] - effect[0])
        wide, narrow = intervals(prior)
        order = np.arange(n_labels) if n_labels == 5 else np.argsort(mean[:, k])
        middle, spread = mean[order, k], np.sqrt(variance[order, k])
        for lines, reach in ((wide, 2), (narrow, 1)):
            expected = np.stack([middle - reach * spread, middle + reach * spread], axis=1)
            np.testing.assert_allclose(lines, expected)
        named = [label.get_text() for label in prior.get_yticklabels()]
        assert named == (list(ivae.u_names_) if n_labels == 5 else [])
    greys = {tile.images[0].get_clim() for k in range(3) for tile in places[5 * k : 5 * k + 3]}
    assert len(greys) == 1, "images of all components are on one scale"


def test_features_that_are_no_pixels():
    import pandas as pd

    rng = np.random.default_rng(0)
    u = np.repeat(np.arange(4), 100)
    z = rng.standard_normal((400, 2)) * rng.uniform(0.3, 3, (4, 2))[u]
    table = pd.DataFrame(z @ [[1, 2, 0], [3, 0, 1]], columns=["heart", "lung", "skin"])
    ivae = sourcesep.IVAE(2, mixing="linear", random_state=0).fit(table, u=u)
    places = traversals(ivae).axes
    assert len(places) == 4
    assert [label.get_text() for label in places[0].get_yticklabels()] == list(table.columns)
    shares = np.stack([place.images[0].get_array() for place in places[::2]])
    np.testing.assert_allclose(np.abs(shares).max(axis=(0, 2)), 1)


def test_it_can_be_written_and_leaves_pyplot_alone(tmp_path):
    import matplotlib.pyplot as plt

    traversals(fitted(), (8, 8)).savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    assert plt.get_fignums() == []


def test_what_cannot_be_drawn():
    with pytest.raises(SettingsError, match=r"image_shape=\(8, 9\).*64"):
        traversals(fitted(), (8, 9))
    for shape in ((64,), (-8, -8), "88", (8.0, 8.0), 64):
        with pytest.raises(SettingsError, match="image_shape"):
            traversals(fitted(), shape)
    for values in ([1.0], [[1.0, 2.0]], [0.0, np.nan]):
        with pytest.raises(InputError, match="values"):
            traversals(fitted(), (8, 8), values=values)
    with pytest.raises(NotFittedError):
        traversals(sourcesep.IVAE(2), (8, 8))
