"""What the scripts of the gallery share: the command line, and pictures that are small."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["INK", "SERIES", "command_line", "figure", "save"]

INK = "#444444"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Colours that most people can tell apart (Okabe & Ito)."""


def figure(n_rows: int, n_columns: int, size: tuple[float, float], **options: Any) -> Any:
    """Return a figure and its axes, without the frame's upper and right line."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    style = {
        "font.size": 8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": INK,
        "axes.titlesize": 8,
    }
    with mpl.rc_context(style):
        return plt.subplots(
            n_rows, n_columns, figsize=size, squeeze=False, layout="constrained", **options
        )


def save(fig: Any, path: Path) -> None:
    """Write a picture of few colours, and close it."""
    import matplotlib.pyplot as plt
    from PIL import Image

    fig.savefig(path, dpi=100)
    plt.close(fig)
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(64)
    small.save(path, optimize=True)


def command_line(file: str, draw: Callable[..., dict[str, Any]]) -> None:
    """Draw the picture beside the script, and print what it shows in numbers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-o", "--output", type=Path, default=Path(file).with_suffix(".png"))
    parser.add_argument("--fast", action="store_true", help="less data, for a first look")
    options = parser.parse_args()
    for name, value in draw(options.output, fast=options.fast).items():
        print(f"{name}: {value}")
