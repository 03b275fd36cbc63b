"""The recipe on a tiny file of the real format, through its own loader."""

import gzip
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from sourcesep.exceptions import InputError

PATH = Path(__file__).parents[2] / "recipes" / "digits" / "run.py"


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("recipe_digits", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write(root, rows):
    text = "\n".join(",".join(map(str, row)) for row in rows) + "\n"
    root.mkdir(parents=True, exist_ok=True)
    with gzip.open(root / "digits.csv.gz", "wt", encoding="ascii") as file:
        file.write(text)


def fake(n=600, seed=0):
    """Four patterns whose size follows the digit, as whole numbers from 0 to 16."""
    rng = np.random.default_rng(seed)
    u = rng.integers(10, size=n)
    z = rng.normal(0, 1, (10, 4))[u] + rng.uniform(0.2, 1.5, (10, 4))[u] * rng.normal(size=(n, 4))
    images = 8 + z @ rng.normal(0, 1, (4, 64)) + rng.normal(0, 0.3, (n, 64))
    return np.c_[np.clip(np.round(images), 0, 16), u].astype(int)


def test_a_quick_run_on_tiny_data(recipe, tmp_path, capsys):
    rows = fake()
    write(tmp_path / "data", rows)
    x, u = recipe.load(tmp_path / "data")
    np.testing.assert_array_equal(np.c_[x, u], rows)
    result = recipe.main(tmp_path / "data", quick=True, output=tmp_path / "out")
    by_name = {row["method"]: row["mean"] for row in result["rows"]}
    assert by_name["linear iVAE, u = digit"] > by_name["linear iVAE, u shuffled"] + 0.05
    assert result["reproduced"] is None
    assert json.loads((tmp_path / "out" / "result.json").read_text("utf-8")) == result
    assert (tmp_path / "out" / "traversals.png").stat().st_size > 10_000
    assert "| linear iVAE, u = digit |" in capsys.readouterr().out


def test_the_data_are_those_of_scikit_learn(recipe, tmp_path):
    from sklearn.datasets import load_digits

    path = recipe.download(tmp_path)
    assert recipe.download(tmp_path) == path
    x, u = recipe.load(tmp_path)
    bundled = load_digits()
    np.testing.assert_array_equal(x, bundled.data)
    np.testing.assert_array_equal(u, bundled.target)


@pytest.mark.slow
def test_the_figure_of_the_readme_holds(recipe, tmp_path):
    result = recipe.main(tmp_path)
    assert result["reproduced"]
    readme = (PATH.parent / "README.md").read_text("utf-8")
    assert f"{recipe.EXPECTED:g} +- {recipe.TOLERANCE:g}" in readme
    means = {row["method"]: row["mean"] for row in result["rows"]}
    ours = means.pop("linear iVAE, u = digit")
    assert ours >= 0.93
    assert ours >= means["linear iVAE, u shuffled"] + 0.1
    assert ours > max(means.values())


def test_what_is_no_such_file(recipe, tmp_path):
    with pytest.raises(InputError, match="not there"):
        recipe.load(tmp_path)
    write(tmp_path, fake(30)[:, :60])
    with pytest.raises(InputError, match="65 columns"):
        recipe.load(tmp_path)
    write(tmp_path, fake(30) + 17)
    with pytest.raises(InputError, match="from 17 to"):
        recipe.load(tmp_path)
    (tmp_path / "digits.csv.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match="gzipped CSV"):
        recipe.load(tmp_path)
