"""The ICE-BeeM paper's simulated data: leaky ReLUs between orthogonal matrices."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import sourcesep
from sourcesep.simulate import Protocol

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import command_line, finish
from nonlinear import fastica, flow_without_u, ivae, runs, summary

NAME = "icebeem_synthetic"
SEEDS = (31, 32, 33, 34)
"""None of them chose anything: development used seeds from 100."""
LAYERS = (2, 4)


def download(root: Path) -> Path:
    """Nothing to fetch: the data are simulated from their seeds."""
    return root


def load(root: Path, *, quick: bool = False) -> dict[tuple[int, int], Protocol]:
    """Simulate 5 sources, 20 segments of 2000 samples; by number of layers and seed."""
    if quick:
        return {(2, SEEDS[0]): sourcesep.simulate.icebeem(3, 20, 500, 2, random_state=SEEDS[0])}
    return {
        (n_layers, seed): sourcesep.simulate.icebeem(n_layers=n_layers, random_state=seed)
        for n_layers in LAYERS
        for seed in SEEDS
    }


def main(root: Path, quick: bool = False, *, output: Path | None = None) -> dict[str, Any]:
    """Fit every method to every data set; the figure is that of most layers."""
    quality = "fast" if quick else "normal"
    found: dict[int, list[Any]] = {}
    for (n_layers, seed), data in load(download(root), quick=quick).items():
        methods = {
            "iVAE, nonlinear": ivae(seed, mixing="nonlinear", quality=quality),
            "u shuffled: what it fits": flow_without_u(seed, quality),
            "iVAE, linear": ivae(seed, mixing="linear"),
            "FastICA": fastica(seed),
        }
        found.setdefault(n_layers, []).extend(runs(data, methods))
    rows = [row for n_layers, its in found.items() for row in summary(its, layers=n_layers)]
    figure = next(r["MCC"] for r in rows if r["layers"] == max(found))
    return finish(NAME, rows, quick=quick, output=output, figure=figure, seeds=list(SEEDS))


if __name__ == "__main__":
    command_line(NAME, main, __doc__)
