"""Recordings that were clipped: what restoring them gains, for the channels and for the sources.

    python benchmarks/clipping.py [--first 106000] [--seeds 4] [--seconds 8] [--only KIND]

Mixtures of two sources at 16 kHz are cut off at a share of their peak. "As it is" and "restored"
are by the family that suits the mixture; an array of samples is taken as it is.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable

import numpy as np

from sourcesep import Recording, metrics, separate, simulate
from sourcesep.exceptions import SourcesepWarning
from sourcesep.result import Separation
from sourcesep.simulate import Mixture

SFREQ = 16_000.0
LEVELS = (0.6, 0.4, 0.25)
OF_SOUNDS = {"talkers": simulate.speech, "instruments": simulate.instrument}


def by_matrix(sound: str) -> Callable[[float, int], Mixture]:
    """Return what mixes two sounds of a kind by a matrix."""

    def mixed(seconds: float, seed: int) -> Mixture:
        sounds = [OF_SOUNDS[sound](seconds, random_state=2 * seed + k) for k in range(2)]
        return simulate.instantaneous(sounds, sfreq=SFREQ, random_state=seed)

    return mixed


def in_a_room(seconds: float, seed: int) -> Mixture:
    """Two talkers, RT60 .2 s."""
    voices = [simulate.speech(seconds, random_state=2 * seed + k) for k in range(2)]
    return simulate.room(voices, sfreq=SFREQ, rt60=0.2, random_state=seed)


KINDS = {name: by_matrix(name) for name in OF_SOUNDS} | {"room": in_a_room}


def gain(mixture: Mixture, x: np.ndarray, found: Separation) -> float:
    """Mean SI-SDR of both sources' images at the first channel, less that of the mixture."""
    true, images = mixture.images[:, 0], np.stack([found.image(k)[0] for k in range(2)])
    table = metrics.si_sdr(true[:, None], images[None])
    best = max(np.trace(table), np.trace(table[::-1])) / 2
    return float(best - metrics.si_sdr(true, x[0]).mean())


def row(kind: str, level: float, seconds: float, seed: int) -> list[float | str]:
    """Clipped share, dB of the channels before and after, gains as it is, restored, by auto."""
    mixture = KINDS[kind](seconds, seed)
    x = mixture.data / np.abs(mixture.data).max()
    clipped = np.clip(x, -level, level)
    recording = Recording(clipped, SFREQ, ("l", "r"), ("", ""), "audio")
    mixing = "convolutive" if kind == "room" else "linear"
    asked = {"n_components": 2, "mixing": mixing, "aux": "segments:.02"}
    as_it_is = separate((clipped, SFREQ), **asked)
    begin = time.process_time()
    restored, auto = separate(recording, **asked), separate(recording)
    taken = time.process_time() - begin
    heard = (restored.heard or recording).data
    gains = [gain(mixture, x, one) for one in (as_it_is, restored)]
    by_auto = gain(mixture, x, auto) if auto.n_components == 2 else float("nan")
    channels = [float(np.mean(metrics.si_sdr(x, y))) for y in (clipped, heard)]
    share = 100 * float(np.mean(np.abs(clipped) == level))
    return [share, *channels, *gains, by_auto, taken, auto.ivae.model_.family, auto.verdict.label]


def main() -> None:
    """Print a line a file, and the means of each kind and level."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--first", type=int, default=106_000)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--only", choices=list(KINDS))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", SourcesepWarning)
    columns = ("clipped, %", "channels", "restored", "as it is", "restored", "auto", "CPU s")
    print("kind         level  seed  ", *(f"{column:>9.9}" for column in columns))
    for kind in [arguments.only] if arguments.only else KINDS:
        for level in LEVELS:
            rows = []
            for seed in range(arguments.first, arguments.first + arguments.seeds):
                rows.append(row(kind, level, arguments.seconds, seed))
                print(f"{kind:12} {level:5} {seed:6}", *_texts(rows[-1]), flush=True)
            means = np.mean([r[:7] for r in rows], axis=0).tolist()
            print(f"{kind:12} {level:5} mean  ", *_texts(means), flush=True)


def _texts(values: list[float | str]) -> list[str]:
    return [v if isinstance(v, str) else f"{v:9.2f}" for v in values]


if __name__ == "__main__":
    main()
