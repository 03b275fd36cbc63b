"""Sources switched by hidden Markov chains: segments that nobody gave."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import sourcesep
from sourcesep.simulate import Protocol

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import command_line, finish
from nonlinear import Fit, fastica, flow_without_u, ivae, runs, summary

NAME = "hmm_synthetic"
SEEDS = (31, 32, 33, 34)
"""None of them chose anything: development used seeds from 100."""
GUESSED = "segments:160"
"""Of four fifths of the samples: two fifths of the mean time between two switches of a source."""


def download(root: Path) -> Path:
    """Nothing to fetch: the data are simulated from their seeds."""
    return root


def load(root: Path, *, quick: bool = False) -> dict[int, Protocol]:
    """Simulate 5 sources of 40 000 samples that switch every 500 samples, 3 layers."""
    if quick:
        data = sourcesep.simulate.hidden_markov(3, 12_000, 2, random_state=SEEDS[0])
        return {SEEDS[0]: data}
    return {seed: sourcesep.simulate.hidden_markov(random_state=seed) for seed in SEEDS}


def methods(seed: int, quick: bool) -> dict[str, Fit]:
    """Return what is compared, by name; only the second sees the hidden states."""
    quality = "fast" if quick else "normal"

    def nonlinear(aux: str | None) -> Fit:
        return ivae(seed, aux=aux, mixing="nonlinear", quality=quality)

    compared = {
        f"iVAE, nonlinear, {GUESSED}": nonlinear(GUESSED),
        "iVAE, nonlinear, told the states": nonlinear(None),
        "states shuffled: what it fits": flow_without_u(seed, quality),
        f"iVAE, linear, {GUESSED}": ivae(seed, aux=GUESSED, mixing="linear"),
        "FastICA": fastica(seed),
    }
    others = {f"iVAE, nonlinear, {aux}": nonlinear(aux) for aux in ("segments", "adaptive")}
    return compared if quick else compared | others


def main(root: Path, quick: bool = False, *, output: Path | None = None) -> dict[str, Any]:
    """Fit every method to every seed's data."""
    data = load(download(root), quick=quick)
    found = [run for seed, hidden in data.items() for run in runs(hidden, methods(seed, quick))]
    rows = summary(found)
    return finish(NAME, rows, quick=quick, output=output, figure=rows[0]["MCC"], seeds=list(data))


if __name__ == "__main__":
    command_line(NAME, main, __doc__)
