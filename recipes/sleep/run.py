"""Sleep: sources told apart by sleep stage, and whether two nights agree on them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import sourcesep
from sourcesep.exceptions import InputError
from sourcesep.metrics import match_sources

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import command_line, cpu, fastica, fetching, finish

NAME = "sleep"
SUBJECTS = (0, 1, 2, 3)
WHERE = (
    "download them from https://physionet.org/content/sleep-edfx/1.0.0/ into "
    "ROOT/physionet-sleep-data/SC4001E0-PSG.edf and so on"
)
CHANNELS = ("EEG Fpz-Cz", "EEG Pz-Oz", "EOG horizontal")
STAGES = {
    "Sleep stage W": 0,
    "Sleep stage 1": 1,
    "Sleep stage 2": 2,
    "Sleep stage 3": 3,
    "Sleep stage 4": 3,
    "Sleep stage R": 4,
}
NAMES = ("W", "N1", "N2", "N3", "R")
BAND = (0.5, 35.0)
AWAKE = 1800.0
"""Seconds of waking that are kept before and after the sleep."""
SEED = 0
Array = NDArray[np.float64]
Transform = Callable[[Array], Array]


class Night(NamedTuple):
    """Microvolts of shape (n_samples, n_channels), and the stage of each sample (-1: none)."""

    name: str
    x: Array
    stages: NDArray[np.int64]


def download(root: Path, subjects: tuple[int, ...] = SUBJECTS) -> list[list[Path]]:
    """Fetch both nights of each subject through MNE, which knows the sha1 sums."""
    from mne.datasets import sleep_physionet

    root.mkdir(parents=True, exist_ok=True)
    with fetching(f"the nights of subjects {subjects}", WHERE):
        pairs = sleep_physionet.age.fetch_data(list(subjects), path=root, verbose="error")
    return [[Path(path) for path in pair] for pair in pairs]


def load(root: Path, subjects: tuple[int, ...] = SUBJECTS) -> dict[str, list[Night]]:
    """Read the nights of each subject."""
    found: dict[str, list[Night]] = {}
    for recording, scoring in download(root, subjects):
        found.setdefault(recording.name[:5], []).append(_night(recording, scoring))
    return found


def _night(recording: Path, scoring: Path) -> Night:
    import mne

    raw = mne.io.read_raw_edf(recording, include=list(CHANNELS), preload=True, verbose="error")
    missing = [name for name in CHANNELS if name not in raw.ch_names]
    if missing:
        raise InputError(f"{recording}: no channel {', '.join(missing)}")
    raw.filter(*BAND, picks="all", verbose="error")
    x = 1e6 * raw.get_data(list(CHANNELS)).T
    sfreq = raw.info["sfreq"]
    stages = np.full(len(x), -1)
    for note in mne.read_annotations(scoring):
        if note["description"] in STAGES:
            begun, lasts = note["onset"] * sfreq, note["duration"] * sfreq
            stages[round(begun) : round(begun + lasts)] = STAGES[note["description"]]
    asleep = np.flatnonzero(stages > 0)
    if not len(asleep):
        raise InputError(f"{scoring}: no sleep in it")
    margin = round(AWAKE * sfreq)
    span = slice(max(0, asleep[0] - margin), asleep[-1] + margin)
    return Night(recording.name[:6], x[span], stages[span])


def ivae(night: Night, *, shuffle: bool = False) -> tuple[Transform, Any]:
    """Find the sources whose power each stage changes in its own way."""
    u = night.stages
    if shuffle:
        u = np.random.default_rng(SEED).permutation(u)
    model = sourcesep.IVAE(mixing="linear", starts=("segments",), random_state=SEED)
    model.fit(night.x, u=u)
    return model.transform, model


METHODS: dict[str, Callable[[Night], tuple[Transform, Any]]] = {
    "u = stage": ivae,
    "u = stage, shuffled": lambda night: ivae(night, shuffle=True),
    "FastICA": lambda night: (fastica(night.x, SEED)[0], None),
}


def deviations(model: Any) -> Array:
    """Return the standard deviation of p(z|stage) in units of waking, (stages, components)."""
    table = np.full((len(NAMES), model.model_.n_components), np.nan)
    for row in model.prior_table():
        table[int(row["label"].removeprefix("u=")), row["component"]] = np.sqrt(row["variance"])
    return table / table[0]


def main(root: Path, quick: bool = False, *, output: Path | None = None) -> dict[str, Any]:
    """Fit each night by itself, and compare the two on the second; quick: one subject."""
    rows, priors = [], []
    for subject, nights in load(root, SUBJECTS[:1] if quick else SUBJECTS).items():
        if len(nights) < 2:
            continue
        first, second = nights[:2]
        for method, fit in METHODS.items():
            with cpu() as clock:
                (one, model), (two, again) = fit(first), fit(second)
            match = match_sources(two(second.x), one(second.x))
            row = {
                "subject": subject,
                "method": method,
                "nights agree": float(match.correlations.mean()),
                "least": float(match.correlations.min()),
                "CPU s": clock.seconds,
            }
            if model is not None:
                row["verdict"] = f"{model.verdict_.label}, {again.verdict_.label}"
            rows.append(row)
            if method == "u = stage":
                for night, its in ((first, model), (second, again)):
                    priors += _prior_rows(night.name, its)
    tables = {"Standard deviation of p(z|stage), waking = 1": priors}
    return finish(NAME, rows, quick=quick, output=output, tables=tables)


def _prior_rows(night: str, model: Any) -> list[dict[str, Any]]:
    largest = np.abs(model.mixing_).argmax(0)
    return [
        {"night": night, "component": k, "mostly at": CHANNELS[largest[k]]}
        | {stage: float(sd) for stage, sd in zip(NAMES, column, strict=True) if np.isfinite(sd)}
        for k, column in enumerate(deviations(model).T)
    ]


if __name__ == "__main__":
    command_line(NAME, main, __doc__)
