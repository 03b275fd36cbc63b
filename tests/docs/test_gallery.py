"""Each script of the gallery draws its picture, and the picture shows what it claims."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

GALLERY = Path(__file__).parents[2] / "docs" / "gallery"
SCRIPTS = sorted(p.stem for p in GALLERY.glob("*.py") if p.stem != "drawing")
MOST_BYTES = 60_000

CLAIMS = {
    "two_talkers": lambda shown: min(shown["SI-SDR of what was found, dB"]) > 40,
    "saturation": lambda shown: (
        min(shown["SI-SDR, curves undone, dB"]) > max(shown["SI-SDR, linear, dB"]) + 3
    ),
    "nonlinear_ica": lambda shown: shown["MCC, nonlinear"] > shown["MCC, linear"] + 0.05,
    "blinks": lambda shown: shown["correlation with the true blinks"] > 0.85,
    "verdict": lambda shown: (
        set(shown["power that changes"]) == set(shown["not Gaussian"]) == {"trusted"}
        and set(shown["white and Gaussian"]) == {"not identifiable"}
    ),
}


def is_drawn(path: Path) -> bool:
    """Whether a picture is small, and more than paper."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("L"))
    return path.stat().st_size < MOST_BYTES and 0.005 < np.mean(pixels < 200) < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_draws_what_it_claims(name, tmp_path, monkeypatch, unasked_for_noise):
    monkeypatch.setattr(sys, "path", [str(GALLERY), *sys.path])
    spec = importlib.util.spec_from_file_location(f"gallery_{name}", GALLERY / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shown = module.draw(tmp_path / "picture.png", fast=True)
    assert is_drawn(tmp_path / "picture.png")
    assert CLAIMS[name](shown), shown


def test_every_script_has_its_picture_and_its_place_on_the_page():
    page = (GALLERY / "README.md").read_text("utf-8")
    assert len(SCRIPTS) == 5
    for name in SCRIPTS:
        assert is_drawn(GALLERY / f"{name}.png")
        assert f"]({name}.py)" in page
        assert f"]({name}.png)" in page


def test_white_paper_is_no_picture(tmp_path):
    Image.new("L", (100, 100), 255).save(tmp_path / "white.png")
    assert not is_drawn(tmp_path / "white.png")
