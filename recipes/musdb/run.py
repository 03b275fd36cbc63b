"""Songs of MUSDB18-HQ from their stereo mix alone: what is possible blind, and what is not."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import sourcesep
from sourcesep.exceptions import InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import command_line, cpu, finish, need
from sound import gains

NAME = "musdb"
STEMS = ("vocals", "drums", "bass", "other")
WHERE = "download MUSDB18-HQ from https://zenodo.org/records/3338373 and name its folder"
SECONDS = 30.0
"""From the middle of each song."""
SEED = 0
Array = NDArray[np.float64]


class Song(NamedTuple):
    """A stretch of a song: mixture (2, n_times) and stems (4, 2, n_times)."""

    name: str
    mixture: Array
    stems: Array
    sfreq: float


def download(root: Path) -> Path:
    """Say where MUSDB18-HQ comes from: Zenodo gives it to who accepts its terms."""
    need(root / "test", "the folder of test songs", WHERE)
    return root


def load(root: Path, n_songs: int | None = None, seconds: float = SECONDS) -> list[Song]:
    """Read the middle of the test songs, in the order of their names."""
    folders = sorted(p for p in (root / "test").iterdir() if (p / "mixture.wav").is_file())
    if not folders:
        raise InputError(f"{root / 'test'}: no folder with a mixture.wav; {WHERE}")
    return [_song(folder, seconds) for folder in folders[:n_songs]]


def _song(folder: Path, seconds: float) -> Song:
    import soundfile

    for stem in STEMS:
        need(folder / f"{stem}.wav", "a stem", WHERE)
    about = soundfile.info(folder / "mixture.wav")
    frames = min(about.frames, round(seconds * about.samplerate))
    where = {"start": (about.frames - frames) // 2, "frames": frames, "always_2d": True}
    read = [soundfile.read(folder / f"{name}.wav", **where)[0].T for name in ("mixture", *STEMS)]
    return Song(folder.name, read[0], np.stack(read[1:]), float(about.samplerate))


def main(root: Path, quick: bool = False, *, output: Path | None = None) -> dict[str, Any]:
    """Ask for four sources of every song, and compare them with its stems.

    Each stem is compared with the estimate that is most like it: which one that is nobody
    could know without the stems. A stem that is silent there is left out. Quick: five seconds
    of one song.
    """
    songs = load(download(root), 1 if quick else None, 5.0 if quick else SECONDS)
    its: dict[str, list[tuple[Array, Array, float]]] = {"sourcesep": [], "the mixture itself": []}
    verdicts = []
    for song in songs:
        with cpu() as clock:
            separation = sourcesep.separate(
                (song.mixture, song.sfreq),
                mixing="underdetermined",
                n_components=len(STEMS),
                random_state=SEED,
            )
            found = separation.images
        score = gains(song.stems, song.mixture, found)
        seconds = song.mixture.shape[1] / song.sfreq
        its["sourcesep"].append((score.estimate, score.improvement, clock.seconds / seconds))
        its["the mixture itself"].append((score.mixture, 0 * score.mixture, 0.0))
        verdicts.append(separation.verdict.label)
    rows = [
        {"method": method, "songs": len(songs)}
        | {stem: float(np.nanmedian([e[k] for e, _, _ in runs])) for k, stem in enumerate(STEMS)}
        | {
            "mean gain": float(np.nanmean([g for _, g, _ in runs])),
            "CPU s a second": float(np.mean([s for _, _, s in runs])),
        }
        for method, runs in its.items()
    ]
    counted = {label: verdicts.count(label) for label in dict.fromkeys(verdicts)}
    return finish(NAME, rows, quick=quick, output=output, verdicts=counted)


if __name__ == "__main__":
    command_line(NAME, main, __doc__)
