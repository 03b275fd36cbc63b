"""The iVAE paper's simulated data: nonlinear ICA, and what is left of it without u."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import sourcesep
from sourcesep.simulate import Protocol

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import command_line, finish
from nonlinear import Fit, fastica, flow_without_u, ivae, runs, summary

NAME = "ivae_synthetic"
SEEDS = (31, 32, 33, 34)
"""None of them chose anything: development used seeds from 100."""
VAE_STEPS = 8000


def download(root: Path) -> Path:
    """Nothing to fetch: the data are simulated from their seeds."""
    return root


def load(root: Path, *, quick: bool = False) -> dict[int, Protocol]:
    """Simulate the paper's data: 5 sources, 40 segments of 1000 samples, 3 layers."""
    if quick:
        return {SEEDS[0]: sourcesep.simulate.ivae(3, 20, 500, 2, random_state=SEEDS[0])}
    return {seed: sourcesep.simulate.ivae(random_state=seed) for seed in SEEDS}


def methods(n_sources: int, seed: int, quick: bool) -> dict[str, Fit]:
    """Return what is compared, by name."""
    quality = "fast" if quick else "normal"

    def plain_vae(x: Any, u: Any) -> Any:
        sys.path.insert(0, str(Path(__file__).resolve().parent))
        from vae import PlainVAE

        vae = PlainVAE(x.shape[1], n_sources, seed).fit(x, 500 if quick else VAE_STEPS)
        return vae.transform, ""

    return {
        "iVAE, nonlinear": ivae(seed, mixing="nonlinear", quality=quality),
        "u shuffled: what it fits": flow_without_u(seed, quality),
        "u shuffled: what it gives": ivae(seed, shuffle=True, mixing="nonlinear", quality=quality),
        "plain VAE": plain_vae,
        "iVAE, linear": ivae(seed, mixing="linear"),
        "FastICA": fastica(seed),
    }


def main(root: Path, quick: bool = False, *, output: Path | None = None) -> dict[str, Any]:
    """Fit every method to every seed's data."""
    data = load(download(root), quick=quick)
    found = [
        run
        for seed, protocol in data.items()
        for run in runs(protocol, methods(protocol.sources.shape[1], seed, quick))
    ]
    rows = summary(found)
    return finish(NAME, rows, quick=quick, output=output, figure=rows[0]["MCC"], seeds=list(data))


if __name__ == "__main__":
    command_line(NAME, main, __doc__)
