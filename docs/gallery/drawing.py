"""What the scripts of the gallery share: the command line, and pictures that are small."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["INK", "SERIES", "command_line", "picture"]

INK = "#444444"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
"""Colours that most people can tell apart (Okabe & Ito)."""


@contextmanager
def picture(
    path: Path, n_rows: int, n_columns: int, size: tuple[float, float], **options: Any
) -> Iterator[Any]:
    """Give axes to draw on, an array of shape (n_rows, n_columns), and write them at the end."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    style = {
        "axes.edgecolor": INK,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 8,
        "font.size": 8,
        "legend.frameon": False,
    }
    with mpl.rc_context(style):
        fig, axes = plt.subplots(
            n_rows, n_columns, figsize=size, squeeze=False, layout="constrained", **options
        )
        yield axes
        fig.savefig(path, dpi=100)
        plt.close(fig)
    # Few colours make a small file.
    with Image.open(path) as drawn:
        small = drawn.convert("RGB").quantize(64)
    small.save(path, optimize=True)


def command_line(file: str, draw: Callable[..., dict[str, Any]]) -> None:
    """Draw the picture beside the script, and print what it shows in numbers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-o", "--output", type=Path, default=Path(file).with_suffix(".png"))
    parser.add_argument("--fast", action="store_true", help="less data, for a first look")
    options = parser.parse_args()
    for name, value in draw(options.output, fast=options.fast).items():
        print(f"{name}: {value}")
