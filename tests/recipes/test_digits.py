"""The recipe on a tiny file of the real format, through its own loader."""

import gzip
import json

import numpy as np
import pytest

from sourcesep.exceptions import InputError


@pytest.fixture(name="digits")
def loaded(recipe):
    return recipe("digits")


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


def test_a_quick_run_on_tiny_data(digits, tmp_path, capsys):
    rows = fake()
    write(tmp_path / "data", rows)
    x, u = digits.load(tmp_path / "data")
    np.testing.assert_array_equal(np.c_[x, u], rows)
    result = digits.main(tmp_path / "data", quick=True, output=tmp_path / "out")
    by_name = {row["method"]: row["mean"] for row in result["rows"]}
    assert by_name["linear iVAE, u = digit"] > by_name["linear iVAE, u shuffled"] + 0.05
    assert result["reproduced"] is None
    assert json.loads((tmp_path / "out" / "result.json").read_text("utf-8")) == result
    assert (tmp_path / "out" / "traversals.png").stat().st_size > 10_000
    assert "| linear iVAE, u = digit |" in capsys.readouterr().out


def test_the_data_are_those_of_scikit_learn(digits, tmp_path):
    from sklearn.datasets import load_digits

    path = digits.download(tmp_path)
    assert digits.download(tmp_path) == path
    x, u = digits.load(tmp_path)
    bundled = load_digits()
    np.testing.assert_array_equal(x, bundled.data)
    np.testing.assert_array_equal(u, bundled.target)


@pytest.mark.slow
def test_the_figure_holds(digits, tmp_path):
    result = digits.main(tmp_path)
    assert result["reproduced"]
    means = {row["method"]: row["mean"] for row in result["rows"]}
    ours = means.pop("linear iVAE, u = digit")
    assert ours >= 0.93
    assert ours >= means["linear iVAE, u shuffled"] + 0.1
    assert ours > max(means.values())


def test_what_is_no_such_file(digits, tmp_path):
    with pytest.raises(InputError, match="not there"):
        digits.load(tmp_path)
    write(tmp_path, fake(30)[:, :60])
    with pytest.raises(InputError, match="65 columns"):
        digits.load(tmp_path)
    write(tmp_path, fake(30) + 17)
    with pytest.raises(InputError, match="from 17 to"):
        digits.load(tmp_path)
    (tmp_path / "digits.csv.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match="gzipped CSV"):
        digits.load(tmp_path)
