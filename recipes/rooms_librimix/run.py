"""Pairs of readers from LibriMix, each pair in a simulated room, two microphones."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import sourcesep
from sourcesep.exceptions import InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import command_line, cpu, finish, need
from sound import gains, peers

NAME = "rooms_librimix"
RATE = "wav16k"
LISTED = f"Libri2Mix/{RATE}/min/metadata/mixture_test_mix_clean.csv"
SOURCES = f"Libri2Mix/{RATE}/min/test"
WHERE = (
    "generate Libri2Mix (min, test, mix_clean, 16 kHz) with the scripts of "
    "https://github.com/JorisCos/LibriMix and name the folder that Libri2Mix lies in"
)
N_PAIRS = 20
SECONDS = 8.0
RT60 = (0.15, 0.3)
SEED = 0
Array = NDArray[np.float64]


class Pair(NamedTuple):
    """Two readers, one row each."""

    name: str
    sources: Array
    sfreq: float


def download(root: Path) -> Path:
    """Say where LibriMix comes from: it is made by its own scripts, from LibriSpeech."""
    need(root / LISTED, "LibriMix's list of test mixtures", WHERE)
    return root


def load(root: Path, n_pairs: int = N_PAIRS) -> list[Pair]:
    """Read the first pairs of the list that are long enough.

    The list names the files by where they lay when it was made; only their names count.
    """
    import soundfile

    with (root / LISTED).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found: list[Pair] = []
    for row in rows:
        if float(row["length"]) < SECONDS * 16_000:
            continue
        names = [Path(row[f"source_{k}_path"]).name for k in (1, 2)]
        paths = [root / SOURCES / f"s{k}" / name for k, name in enumerate(names, 1)]
        for path in paths:
            need(path, "a source of the list", WHERE)
        parts = [soundfile.read(path) for path in paths]
        sfreq = float(parts[0][1])
        sources = np.stack([x[: round(SECONDS * sfreq)] for x, _ in parts])
        found.append(Pair(row["mixture_ID"], sources, sfreq))
        if len(found) == n_pairs:
            return found
    if not found:
        raise InputError(f"{LISTED}: no mixture of {SECONDS:g} s or more")
    return found


def main(root: Path, quick: bool = False, *, output: Path | None = None) -> dict[str, Any]:
    """Separate every pair in every room; quick: one pair, one room."""
    pairs = load(download(root), 1 if quick else N_PAIRS)
    found: dict[tuple[float, str], list[tuple[float, float, float]]] = {}
    for rt60 in RT60[:1] if quick else RT60:
        for number, pair in enumerate(pairs):
            scene = sourcesep.simulate.room(
                pair.sources, sfreq=pair.sfreq, rt60=rt60, random_state=SEED + number
            )

            def ours(x: Array, sfreq: float = pair.sfreq) -> Array:
                separation = sourcesep.separate((x, sfreq), mixing="convolutive", n_components=2)
                return separation.images[:, 0]

            others = peers(pair.sfreq, SEED, n_iter=10 if quick else 100)
            for method, separate in {"sourcesep": ours, **others}.items():
                with cpu() as clock:
                    sources = separate(scene.data)
                gain = gains(scene.images[:, 0], scene.data[0], sources).improvement
                share = clock.seconds * pair.sfreq / scene.data.shape[1]
                its = found.setdefault((rt60, method), [])
                its.append((float(gain.mean()), float(gain.min()), share))
    rows = [
        {
            "RT60, s": rt60,
            "method": method,
            "pairs": len(its),
            "SI-SDR gain, dB": float(np.mean([g for g, _, _ in its])),
            "least pair": min(g for g, _, _ in its),
            "below 8 dB": sum(g < 8 for g, _, _ in its),
            "least source": min(g for _, g, _ in its),
            "CPU s a second": float(np.mean([s for _, _, s in its])),
        }
        for (rt60, method), its in found.items()
    ]
    return finish(NAME, rows, quick=quick, output=output)


if __name__ == "__main__":
    command_line(NAME, main, __doc__)
