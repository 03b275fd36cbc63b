"""Labelled images: the page about them runs, factors are found, and digits are not oversold."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from sourcesep import IVAE, simulate
from sourcesep.metrics import mcc

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "representations.md"
SHORT = {"mixing": "nonlinear", "quality": "fast", "random_state": 0}


@pytest.mark.slow
def test_the_page_runs_as_written(tmp_path):
    blocks = re.findall(
        r"^```python\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert len(blocks) == 2
    code = "\n".join(blocks)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "traversals.png").stat().st_size > 10_000
    assert (ROOT / "docs" / "traversals.png").stat().st_size < 150_000


@pytest.mark.parametrize("seed", [10, 11])
def test_factors_of_images_are_found_because_of_the_label(seed, unasked_for_noise):
    data = simulate.images(20, 150, ["x", "y", "scale"], random_state=seed)
    rng = np.random.default_rng(seed)
    held = rng.permutation(len(data.u)) % 5 == 0

    def found(u, **more):
        ivae = IVAE(3, **SHORT, **more).fit(data.pixels[~held], u=u[~held])
        return ivae, mcc(data.sources[held], ivae.transform(data.pixels[held]))

    ivae, score = found(data.u)
    assert score > 0.9
    assert ivae.model_.family == "nonlinear"
    # shapes alone, which u does not change, tell a good deal of them
    _, by_label = found(data.u, starts=("segments",))
    shuffled, chance = found(rng.permutation(data.u), starts=("segments",))
    assert by_label > chance + 0.1
    assert shuffled.verdict_.label == "not identifiable"


def test_nonlinear_digits_are_not_trusted(unasked_for_noise):
    """Ten labels are few: restarts from other rotations find other components."""
    x, u = load_digits(return_X_y=True)
    ivae = IVAE(4, **SHORT).fit(x, u=u)
    assert ivae.verdict_.label != "trusted"
    assert min(ivae.verdict_.agreement) < 0.95


@pytest.mark.parametrize("seed", [0, 1])
def test_restarts_are_turned_where_labels_mean_something(seed):
    import torch

    from sourcesep.ivae.flows.flow import Flow

    generator = torch.Generator().manual_seed(seed)
    flow = Flow.identity(4, 3, 5, 3, generator, torch.float64)
    flow.turn(generator)
    y = np.random.default_rng(seed).standard_normal((4, 200))
    first, *others = flow.encode(y)[0]
    np.testing.assert_allclose(first, y, atol=1e-10)
    for z in others:
        np.testing.assert_allclose(np.linalg.norm(z, axis=0), np.linalg.norm(y, axis=0))
        assert mcc(y.T, z.T) < 0.95
    assert mcc(others[0].T, others[1].T) < 0.95
