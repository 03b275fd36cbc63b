"""Images: factors move what they are named after, and follow the labels."""

import numpy as np
import pytest

from sourcesep import simulate
from sourcesep.exceptions import SettingsError

NAMES = ("x", "y", "scale", "rotation", "brightness")


def moments(images):
    """Total light, its centre, and its second moments about that, of each image."""
    size = images.shape[1]
    place = (np.arange(size) + 0.5) * 2 / size - 1
    light = images.sum(axis=(1, 2))
    x = (images.sum(axis=1) @ place) / light
    y = (images.sum(axis=2) @ place) / light
    right, down = place - x[:, None], place - y[:, None]
    xx = np.einsum("nyx,nx->n", images, right**2) / light
    yy = np.einsum("nyx,ny->n", images, down**2) / light
    xy = np.einsum("nyx,ny,nx->n", images, down, right) / light
    return light, x, y, xx, yy, xy


@pytest.mark.parametrize("shape", ["ellipse", "rectangle"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_factors_move_what_they_are_named_after(shape, seed):
    def drawn(name):
        return simulate.images(5, 40, [name], size=48, shape=shape, random_state=seed)

    for name, which in (("x", 1), ("y", 2)):
        data = drawn(name)
        np.testing.assert_allclose(moments(data.images)[which], data.factors[:, 0], atol=0.04)
        np.testing.assert_allclose(moments(data.images)[3 - which], 0, atol=1e-9)
    data = drawn("rotation")
    _, _, _, xx, yy, xy = moments(data.images)
    np.testing.assert_allclose(np.arctan2(2 * xy, xx - yy) / 2, data.factors[:, 0], atol=0.02)
    data = drawn("scale")
    assert np.corrcoef(np.sqrt(moments(data.images)[3]), data.factors[:, 0])[0, 1] > 0.99
    data = drawn("brightness")
    np.testing.assert_allclose(data.images.max(axis=(1, 2)), data.factors[:, 0], rtol=0.05)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_sources_follow_the_labels(seed):
    data = simulate.images(30, 400, size=8, random_state=seed)
    assert data.names == NAMES
    assert data.images.shape == (12000, 8, 8)
    assert data.pixels.shape == (12000, 64)
    assert data.images.min() >= 0
    assert data.images.max() <= 1
    np.testing.assert_array_equal(data.u, np.repeat(np.arange(30), 400))
    within = (data.sources - data.means[data.u]) / data.scales[data.u]
    np.testing.assert_allclose(within.mean(0), 0, atol=0.04)
    np.testing.assert_allclose(within.std(0), 1, atol=0.03)
    assert np.abs(np.corrcoef(within.T) - np.eye(5)).max() < 0.04
    for source, factor in zip(data.sources.T, data.factors.T, strict=True):
        assert (np.diff(factor[np.argsort(source)]) >= 0).all()


@pytest.mark.parametrize("seed", [0, 1])
def test_controls_carry_nothing_that_tells_sources_apart(seed):
    common = simulate.images(20, 10, size=8, modulation="common", random_state=seed)
    assert (common.scales == common.scales[:, :1]).all()
    assert np.ptp(common.scales[:, 0]) > 0.5
    still = simulate.images(20, 10, size=8, modulation="none", random_state=seed)
    assert (still.scales == 1).all()
    assert (still.means == 0).all()
    assert (common.means == 0).all()


def test_a_seed_is_a_set_of_images_and_noise_is_added_to_them():
    first = simulate.images(3, 5, random_state=4)
    np.testing.assert_array_equal(first.images, simulate.images(3, 5, random_state=4).images)
    assert not np.allclose(first.images, simulate.images(3, 5, random_state=5).images)
    noisy = simulate.images(3, 5, noise=0.1, random_state=4)
    np.testing.assert_array_equal(noisy.sources, first.sources)
    assert (noisy.images - first.images).std() == pytest.approx(0.1, rel=0.1)
    rng = np.random.default_rng(4)
    np.testing.assert_array_equal(first.images, simulate.images(3, 5, random_state=rng).images)


def test_many_images_are_drawn_as_few_are(monkeypatch):
    whole = simulate.images(3, 7, random_state=1)
    monkeypatch.setattr("sourcesep.simulate.sprites.MOST_AT_ONCE", 1000)
    np.testing.assert_array_equal(simulate.images(3, 7, random_state=1).images, whole.images)


@pytest.mark.parametrize(
    "settings",
    [
        {"n_labels": 0},
        {"samples_per_label": 1},
        {"size": 3},
        {"shape": "heart"},
        {"modulation": "some"},
        {"reach": 0},
        {"noise": -1},
        {"noise": np.nan},
        {"factors": ()},
        {"factors": ("x", "x")},
        {"factors": ("x", "colour")},
        {"random_state": -1},
    ],
)
def test_settings_that_cannot_be(settings):
    with pytest.raises(SettingsError, match=next(iter(settings))):
        simulate.images(**{"n_labels": 2, "samples_per_label": 2, "size": 8} | settings)
