"""The recipe on a small file of dSprites' format: its keys, types, grid and pickled metadata."""

import itertools
import json

import numpy as np
import pytest

from sourcesep.exceptions import InputError

NAME = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"


@pytest.fixture(name="dsprites")
def loaded(recipe):
    return recipe("dsprites")


def ellipse(scale, turn, x, y):
    grid = np.arange(64) + 0.5
    right, down = grid - 16 - 32 * x, grid[:, None] - 16 - 32 * y
    along, across = (
        np.cos(turn) * right + np.sin(turn) * down,
        np.cos(turn) * down - np.sin(turn) * right,
    )
    return ((along / (14 * scale)) ** 2 + (across / (7 * scale)) ** 2 <= 1).astype(np.uint8)


@pytest.fixture(scope="module")
def arrays():
    scales, turns = np.linspace(0.5, 1, 3), np.linspace(0, 2 * np.pi, 16)
    places = np.linspace(0, 1, 9)
    values = np.array(list(itertools.product([1.0], [1.0, 2.0], scales, turns, places, places)))
    images = np.zeros((len(values), 64, 64), np.uint8)
    is_ellipse = np.flatnonzero(values[:, 1] == 2)
    for i in is_ellipse:
        images[i] = ellipse(*values[i, 2:])
    return {
        "imgs": images,
        "latents_values": values,
        "latents_classes": np.zeros(values.shape, np.int64),
        "metadata": np.array({"title": "dSprites dataset"}, dtype=object),
    }


@pytest.fixture(scope="module")
def root(arrays, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dsprites")
    np.savez_compressed(folder / NAME, **arrays)
    return folder


def test_images_and_factors_belong_together(dsprites, root, arrays, monkeypatch):
    monkeypatch.setattr(dsprites, "BLOCK", 100)
    data = dsprites.load(root, per_label=5)
    assert data.images.shape == (200, 256)
    np.testing.assert_array_equal(np.bincount(data.u), np.full(40, 5))
    assert np.abs(data.factors[:, 1]).max() <= np.pi / 4 + 1e-6
    assert np.abs(data.factors[:, 2:] - 0.5).max() <= 0.25
    for image, factors in zip(data.images[::9], data.factors[::9], strict=True):
        expected = ellipse(*factors).reshape(16, 4, 16, 4).mean(axis=(1, 3)).ravel()
        assert np.abs(image - expected).max() <= 1 / 16, "rounding of the half turn apart"


def test_factors_follow_labels_independently(dsprites, root):
    data = dsprites.load(root, per_label=200)
    means = np.stack([data.factors[data.u == label].mean(0) for label in range(40)])
    within = data.factors - means[data.u]
    assert (means.std(0) > 0.3 * data.factors.std(0)).all()
    assert np.abs(np.corrcoef(within.T) - np.eye(4)).max() < 0.1


def test_a_quick_run(dsprites, root, tmp_path, capsys, unasked_for_noise):
    result = dsprites.main(root, quick=True, output=tmp_path)
    assert json.loads((tmp_path / "result.json").read_text("utf-8"))["rows"] == result["rows"]
    assert (tmp_path / "traversals.png").stat().st_size > 10_000
    found = {row["method"]: row["MCC"] for row in result["rows"]}
    assert found["nonlinear iVAE"] > found["nonlinear iVAE, u shuffled"] + 0.1
    assert "| nonlinear iVAE |" in capsys.readouterr().out


def test_what_is_no_such_file(dsprites, arrays, tmp_path):
    with pytest.raises(InputError, match=r"not there; get dsprites.*github\.com"):
        dsprites.main(tmp_path)
    path = tmp_path / NAME
    path.write_bytes(b"no zip")
    with pytest.raises(InputError, match="cannot be read as dSprites"):
        dsprites.load(tmp_path)
    few = {name: array[:50] for name, array in arrays.items() if array.ndim}
    for name, wrong, said in (
        ("imgs", few["imgs"][:, :32], "has \\(n, 64, 64\\)"),
        ("imgs", few["imgs"].astype(float), "must be uint8"),
        ("latents_values", few["latents_values"][:, :5], "has \\(n, 64, 64\\)"),
        ("latents_values", few["latents_values"], "no ellipse"),
    ):
        np.savez_compressed(path, **few | {name: wrong})
        with pytest.raises(InputError, match=said):
            dsprites.load(tmp_path)
