"""One table: ours against each peer, as ratios, in one run; and a check against a kept one.

    python benchmarks/run.py [--seeds 2] [--only room eeg] [--keep | --check]

For each task and peer: how many times the peer's seconds of CPU ours take, and by how much ours
is the better: dB of SI-SDR gain, or thousandths of MCC for EEG. Both are of the same mixtures, in
the same process and one after the other, so a busy machine counts for both. Peers and settings
are those of `audio.py` and `eeg.py`, on shorter signals, seeds from 7100. --keep writes
benchmarks/kept.json; --check compares with it and exits with 1 where ours has become slower
against a peer by more than half, or worse by more than 1 dB or 10 thousandths.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import audio
import eeg
import numpy as np
from threadpoolctl import threadpool_limits

from sourcesep import simulate
from sourcesep.ivae.convolutive import ConvolutiveModel
from sourcesep.ivae.linear import LinearModel
from sourcesep.ivae.underdetermined import UnderdeterminedModel
from sourcesep.simulate import Mixture

FIRST_SEED = 7100
KEPT = Path(__file__).with_name("kept.json")
SLOWER, WORSE = 1.5, {"dB": 1.0, "MCC / 1000": 10.0}
"""By how much the table may differ from the kept one: as a ratio, and in units of quality."""


class Row(NamedTuple):
    """Ours against a peer."""

    task: str
    peer: str
    cpu: float
    """Our seconds of CPU over the peer's."""
    better: float
    unit: str


def picard(x: np.ndarray, n: int, sfreq: float) -> np.ndarray:
    """Separate by Picard in its extended form."""
    from picard import picard as solve

    whitening, unmixing, z = solve(x, ortho=False, extended=True, random_state=0)
    mixing = np.linalg.inv(unmixing @ whitening)
    return np.asarray(mixing[0][:, None] * z)


def mixtures(task: str, n_seeds: int) -> Iterator[tuple[Mixture, int]]:
    """Yield mixtures of 6 s at 16 kHz, and how many sources they have."""
    for seed in range(FIRST_SEED, FIRST_SEED + n_seeds):
        if task == "panned":
            sources = audio.voices(None, 3, seed, 6, 16_000)
            places = np.array([0.3, 0.8, 1.3])
            images = np.stack([np.cos(places), np.sin(places)]).T[:, :, None] * sources[:, None]
            yield Mixture(images.sum(0), images, sources, 16_000, "instantaneous"), 3
        elif task == "mono":
            sources = audio.band(("pad", "drums"), seed, 6, 16_000)
            images = sources[:, None]
            yield Mixture(images.sum(0), images, sources, 16_000, "instantaneous"), 2
        else:
            talking = audio.voices(None, 2, seed, 6, 16_000)
            if task == "room":
                yield simulate.room(talking, sfreq=16_000, rt60=0.2, random_state=seed), 2
            else:
                yield simulate.instantaneous(talking, sfreq=16_000, random_state=seed), 2


TASKS: dict[str, tuple[str, Callable[..., np.ndarray], dict[str, Callable[..., np.ndarray]]]] = {
    "instantaneous": (
        "2 talkers, instantaneous",
        partial(audio.ours, LinearModel, "normal"),
        {"FastICA": audio.fastica, "Picard": picard},
    ),
    "room": (
        "2 talkers, room of RT60 .2 s",
        partial(audio.ours, ConvolutiveModel, "fast"),
        {name: partial(audio.pyroomacoustics, name) for name in ("AuxIVA", "ILRMA")},
    ),
    "panned": (
        "3 talkers in stereo",
        partial(audio.ours, UnderdeterminedModel, "normal"),
        {"DUET": audio.duet},
    ),
    "mono": (
        "pad and drums, mono",
        partial(audio.ours, UnderdeterminedModel, "normal"),
        {"HPSS": partial(audio.hpss, 4096)},
    ),
}


def sound(task: str, n_seeds: int) -> Iterator[Row]:
    """Compare on mixtures of sound."""
    title, ours, peers = TASKS[task]
    methods = {"ours": ours, **peers}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in methods}
    for number, (mixture, n) in enumerate([*mixtures(task, 1), *mixtures(task, n_seeds)]):
        for name, separate in methods.items():
            begin = time.process_time()
            images = separate(mixture.data, n, mixture.sfreq)
            seconds = time.process_time() - begin
            if number:  # the first loads what is loaded once
                found[name].append((audio.score(mixture, images, 0).si_sdr_gain, seconds))
    means = {name: np.mean(rows, axis=0) for name, rows in found.items()}
    for name in peers:
        gain, seconds = means["ours"] - means[name], means["ours"][1] / means[name][1]
        yield Row(title, name, float(seconds), float(gain[0]), "dB")


def brain(n_seeds: int) -> Iterator[Row]:
    """Compare on simulated EEG."""
    found: dict[str, list[tuple[float, float]]] = {"default": [], "picard": []}
    for number in range(-1, n_seeds):
        head = simulate.eeg(22, 60.0, n_channels=32, random_state=FIRST_SEED + max(0, number))
        raw = eeg.raw_of(head.data, head.names, head.sfreq)
        for method, rows in found.items():
            fitted, seconds = eeg.timed(method, raw)
            if number >= 0:
                rows.append((eeg.scores(fitted, raw, head, filtered=True)[0], seconds))
    ours, peer = (np.mean(found[name], axis=0) for name in ("default", "picard"))
    better = 1000 * float(ours[0] - peer[0])
    title = "EEG, 32 channels, 22 sources"
    yield Row(title, "MNE Picard", float(ours[1] / peer[1]), better, "MCC / 1000")


def regressions(rows: list[Row], kept: list[Row]) -> list[str]:
    """Name what is worse than it was."""
    before = {(row.task, row.peer): row for row in kept}
    found = []
    for row in rows:
        old = before.get((row.task, row.peer))
        where = f"{row.task}, against {row.peer}"
        if old is None:
            found.append(f"{where}: not in the kept table")
            continue
        if row.cpu > SLOWER * old.cpu:
            found.append(f"{where}: {row.cpu:.2f} times its seconds, kept {old.cpu:.2f}")
        if row.better < old.better - WORSE[row.unit]:
            found.append(f"{where}: {row.better:+.1f} {row.unit}, kept {old.better:+.1f}")
    return found


def main() -> None:
    """Print the table, and keep or check it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=[*TASKS, "eeg"], default=[*TASKS, "eeg"])
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    rows: list[Row] = []
    print(f"{'task':30} {'peer':12} {'CPU, ours / peer':>17} {'better by':>10}")
    with threadpool_limits(limits=1):
        for task in options.only:
            for row in brain(options.seeds) if task == "eeg" else sound(task, options.seeds):
                print(
                    f"{row.task:30} {row.peer:12} {row.cpu:17.2f} {row.better:10.1f} {row.unit}",
                    flush=True,
                )
                rows.append(row)
    if options.keep:
        KEPT.write_text(json.dumps([row._asdict() for row in rows], indent=1) + "\n")
    if options.check:
        problems = regressions(rows, [Row(**row) for row in json.loads(KEPT.read_text())])
        print(*problems or ["nothing is worse than in the kept table"], sep="\n")
        sys.exit(bool(problems))


if __name__ == "__main__":
    main()
