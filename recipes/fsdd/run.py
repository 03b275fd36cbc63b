"""Spoken digits in simulated rooms, with a prior trained on the talkers, or on others."""

from __future__ import annotations

import importlib.util
import re
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from sourcesep.exceptions import InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from common import command_line, finish
from source_prior import (
    FAILURE,
    TIMES,
    Method,
    ilrma,
    oracle,
    ours,
    prior_of,
    scenes,
    sdr,
    talker_of,
)

NAME = "fsdd"
FORM = re.compile(r"\d_[a-z]+_\d+\.wav")
WHERE = (
    "git clone --depth 1 --branch v1.0.10 "
    "https://github.com/Jakobovski/free-spoken-digit-dataset FOLDER"
)
Row = dict[str, Any]


def download(root: Path) -> Path:
    """Say where the digits come from, unless they are there.

    No hash of the archive could be checked when this was written, so none is stated and
    nothing is fetched here; git checks what it clones by itself.
    """
    if not load(root):
        raise InputError(f"{root}: no {{digit}}_{{talker}}_{{index}}.wav in it; get them: {WHERE}")
    return root


def load(root: Path) -> list[Path]:
    """Find the recordings, in whatever folder below."""
    return sorted(p for p in root.rglob("*.wav") if FORM.fullmatch(p.name))


def main(root: Path, quick: bool = False, *, output: Path | None = None) -> Row:
    """Print the table, write ``result.json``, and return what is in it."""
    paths = load(download(root))
    talkers = sorted(set(map(talker_of, paths)))
    if len(talkers) < 3:
        raise InputError(f"{root}: {len(talkers)} talkers; three are needed, one to leave out")
    made = scenes(paths, 3.0 if quick else 9.0, 1)
    if quick:
        made = [next(s for s in made if s.rt60 == rt60) for rt60 in TIMES]
    left = [scene.talkers[0 if quick else i % 2] for i, scene in enumerate(made)]
    settings = {"n_steps": 4} if quick else {}
    with tempfile.TemporaryDirectory() as temporary, threadpool_limits(limits=1):
        train = partial(prior_of, paths, Path(temporary), "normal", **settings)
        prior = train("talkers")
        others = {t: train(f"without_{t}", without=t) for t in sorted(set(left))}
        unseen = {id(s): others[t] for s, t in zip(made, left, strict=True)}
        methods: dict[str, Method] = {
            "linear oracle": oracle,
            "blind": partial(ours, None),
            "trained, labels known": partial(ours, prior, known=True),
            "trained, labels unknown": partial(ours, prior),
            "trained on others than one of the two": lambda s: ours(unseen[id(s)], s),
        }
        if importlib.util.find_spec("pyroomacoustics"):
            methods = {"ILRMA": ilrma, **methods}
        rows = []
        for name, separate in methods.items():
            begin = time.process_time()
            values = np.array([sdr(scene, separate(scene)) for scene in made])
            rows.append(_row(name, values, made, time.process_time() - begin))
    return finish(NAME, rows, quick=quick, output=output, talkers=talkers, card=prior.card)


def _row(name: str, values: np.ndarray, made: list[Any], seconds: float) -> Row:
    """Mean SDR in dB at either reverberation time, failures, CPU seconds a second."""
    row: Row = {"method": name}
    for rt60 in TIMES:
        some = values[[scene.rt60 == rt60 for scene in made]]
        row[f"SDR at {rt60:g} s"] = round(float(some.mean()), 2)
    sound = sum(scene.mixture.data.shape[1] / scene.mixture.sfreq for scene in made)
    row["failures"] = f"{int((values < FAILURE).sum())} of {len(values)}"
    row["CPU s a second"] = round(seconds / sound, 2)
    return row


if __name__ == "__main__":
    command_line(NAME, main, __doc__)
