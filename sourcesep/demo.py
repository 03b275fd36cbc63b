"""Three small mixtures, separated beside FastICA: what `make demo` shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sourcesep import metrics, simulate
from sourcesep.ivae.model import Array
from sourcesep.metrics.separation import pair_by_ratio
from sourcesep.output import explained

__all__ = ["Row", "best_si_sdr", "mixtures", "run"]

SEED = 2026
SFREQ = 16000


@dataclass(frozen=True)
class Row:
    """One mixture's outcome: gains over the mixture are SI-SDR in dB."""

    name: str
    ours: float
    fastica: float
    verdict: str
    seconds: float


def mixtures(seconds: float = 8.0) -> dict[str, simulate.Mixture]:
    """Make two talkers mixed instantaneously, through saturating microphones, in a room."""
    talkers = [simulate.speech(seconds, SFREQ, random_state=SEED + k) for k in range(2)]
    return {
        "instantaneous": simulate.instantaneous(talkers, sfreq=SFREQ, random_state=SEED),
        "saturated": simulate.saturated(talkers, sfreq=SFREQ, random_state=SEED),
        "room": simulate.room(talkers, sfreq=SFREQ, n_mics=2, rt60=0.15, random_state=SEED),
    }


def best_si_sdr(references: Array, estimates: Array) -> float:
    """Mean SI-SDR of references and estimates (n, n_times), each matched to its best."""
    table = metrics.si_sdr(references[:, None], estimates[None])
    return float(table[pair_by_ratio(table)].mean())


def run(folder: Path) -> Iterator[Row]:
    """Write each mixture to a WAV file in `folder`, separate that file, and score both.

    Parameters
    ----------
    folder : pathlib.Path
        Gets ``NAME.wav`` and ``NAME/`` of every mixture, in the place of earlier ones.

    Yields
    ------
    Row
        Gains at the first microphone over leaving the mixture as it is.
    """
    from sklearn.decomposition import FastICA

    from sourcesep.adapters._wav import write_wav
    from sourcesep.separation import separate

    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, mixture in mixtures().items():
        path = folder / f"{name}.wav"
        with explained(folder):
            write_wav(path, mixture.data, SFREQ)
        separation = separate(path)
        separation.save(folder / name, overwrite=True)
        heard = mixture.images[:, 0]
        before = float(metrics.si_sdr(heard, mixture.data[0]).mean())
        ours = best_si_sdr(heard, np.stack([image[0] for image in separation.images]))
        ica = FastICA(2, whiten="unit-variance", random_state=0, max_iter=1000)
        theirs = best_si_sdr(heard, ica.fit_transform(separation.recording.data[:].T).T)
        yield Row(
            name, ours - before, theirs - before, separation.verdict.label, separation.seconds
        )
