"""How often ``--mixing auto`` takes a mixture for what it is, and what it costs against linear.

    python benchmarks/auto.py [--seeds 40] [--first 9000] [--seconds 8] [--only KIND]

Simulated talkers at 8 kHz; "undistorted" is two instruments. Kinds that begin with "unbent" are
undistorted too, of other sources; those with "echo" are rooms of one reverberation time. The
seeds begin at 9000; none was used to set a constant.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from sourcesep import Recording, metrics, separate, simulate
from sourcesep.simulate.instruments import InstrumentKind
from sourcesep.simulate.mixtures import Mixture

Array = NDArray[np.float64]
SFREQ = 8000
FIRST_SEED = 9000


def talkers(seed: int, seconds: float, n: int) -> Array:
    """Simulated talkers, (n, n_times)."""
    return np.stack(
        [simulate.speech(seconds, SFREQ, random_state=100 * seed + k) for k in range(n)]
    )


def instruments(seed: int, seconds: float) -> Array:
    """Two instruments of different kinds, (2, n_times)."""
    kinds = np.random.default_rng(seed).permutation(list(get_args(InstrumentKind)))[:2]
    return np.stack(
        [
            simulate.instrument(seconds, SFREQ, kind=kind, random_state=100 * seed + k)
            for k, kind in enumerate(kinds.tolist())
        ]
    )


def band(seed: int, seconds: float) -> Array:
    """An instrument and a talker, (2, n_times)."""
    return np.concatenate([instruments(seed, seconds)[:1], talkers(seed, seconds, 1)])


def noises(seed: int, seconds: float) -> Array:
    """Two noises, each coloured and changing in power as the seed has it, (2, n_times)."""
    n_times = round(seconds * SFREQ)
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [
            simulate.linear_sources(kind, n_times, 1, random_state=rng)
            for kind in rng.permutation(["laplace", "ar", "modulated", "modulated-laplace"])[:2]
        ]
    )


def unbent(sources: Callable[[int, float], Array]) -> Callable[[int, float], Mixture]:
    """Mix sources by a matrix."""
    return lambda s, t: simulate.instantaneous(sources(s, t), sfreq=SFREQ, random_state=s)


def echoing(
    sources: Callable[[int, float], Array], rt60: float
) -> Callable[[int, float], Mixture]:
    """Mix sources in a room, at as many microphones."""

    def make(seed: int, seconds: float) -> Mixture:
        heard = sources(seed, seconds)
        return simulate.room(heard, sfreq=SFREQ, n_mics=len(heard), rt60=rt60, random_state=seed)

    return make


def of_images(images: Array, kind: str) -> Mixture:
    """A mixture of what the channels hear of each source."""
    return Mixture(images.sum(axis=0), images, images[:, 0], SFREQ, kind)  # type: ignore[arg-type]


def room(seed: int, seconds: float) -> Mixture:
    """Two talkers at two microphones in a room, RT60 .15 to .4 s."""
    rt60 = float(np.random.default_rng(seed).uniform(0.15, 0.4))
    sources = talkers(seed, seconds, 2)
    return simulate.room(sources, sfreq=SFREQ, n_mics=2, rt60=rt60, random_state=seed)


def panned(seed: int, seconds: float) -> Mixture:
    """Three talkers on a stereo stage, at least 20 degrees apart."""
    jitter = np.random.default_rng(seed).uniform(-5, 5, 3)
    angles = np.deg2rad(np.array([15.0, 45.0, 75.0]) + jitter)
    gains = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return of_images(gains[:, :, None] * talkers(seed, seconds, 3)[:, None], "instantaneous")


def mono(seed: int, seconds: float) -> Mixture:
    """Two talkers on one channel."""
    return of_images(talkers(seed, seconds, 2)[:, None], "instantaneous")


CASES: dict[str, tuple[str, Callable[[int, float], Mixture]]] = {
    "instantaneous": (
        "linear",
        lambda s, t: simulate.instantaneous(talkers(s, t, 2), sfreq=SFREQ, random_state=s),
    ),
    "undistorted": (
        "linear",
        lambda s, t: simulate.instantaneous(instruments(s, t), sfreq=SFREQ, random_state=s),
    ),
    "unbent 3 talkers": ("linear", unbent(partial(talkers, n=3))),
    "unbent band": ("linear", unbent(band)),
    "unbent noises": ("linear", unbent(noises)),
    "echo .05, talkers": ("convolutive", echoing(partial(talkers, n=2), 0.05)),
    "echo .05, instruments": ("convolutive", echoing(instruments, 0.05)),
    "echo .15, 3 talkers": ("convolutive", echoing(partial(talkers, n=3), 0.15)),
    "echo .3, instruments": ("convolutive", echoing(instruments, 0.3)),
    "echo .5, talkers": ("convolutive", echoing(partial(talkers, n=2), 0.5)),
    "saturated": (
        "post-nonlinear",
        lambda s, t: simulate.saturated(talkers(s, t, 2), sfreq=SFREQ, random_state=s),
    ),
    "room": ("convolutive", room),
    "panned": ("underdetermined", panned),
    "mono": ("underdetermined", mono),
}


def gain(mixture: Mixture, **settings: str) -> tuple[float, str]:
    """SI-SDR gain in dB at the first channel, and the family that gave it."""
    names = tuple(f"ch{k}" for k in range(len(mixture.data)))
    found = separate(
        Recording(mixture.data, SFREQ, names, ("",) * len(names), "audio"), **settings
    )
    truth, estimates = mixture.images[:, 0], found.images[:, 0]
    match = metrics.match_sources(truth.T, estimates.T)
    truth = truth[match.sources]
    before = metrics.si_sdr(truth, np.broadcast_to(mixture.data[0], truth.shape))
    after = metrics.si_sdr(truth, estimates[match.components])
    return float((after - before).mean()), found.ivae.model_.family


def main() -> None:
    """Print one row a kind of mixture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--first", type=int, default=FIRST_SEED)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--verbose", action="store_true", help="a line a file")
    options = parser.parse_args()
    print("| mixture | right | families | gain, dB: auto | linear | least auto - linear | CPU s |")
    print("|---|---|---|---|---|---|---|")
    for name, (right, make) in CASES.items():
        if options.only not in name:
            continue
        auto, linear, families = [], [], Counter[str]()
        begun = time.process_time()
        for seed in range(options.first, options.first + options.seeds):
            mixture = make(seed, options.seconds)
            value, family = gain(mixture, mixing="auto")
            families[family] += 1
            auto.append(value)
            if len(mixture.images) == len(mixture.data):
                linear.append(gain(mixture, mixing="linear")[0])
            if options.verbose:
                print(name, seed, family, np.round([value, *linear[-1:]], 1), flush=True)
        seconds = (time.process_time() - begun) / options.seeds
        share = families[right] / options.seeds
        counts = ", ".join(f"{count} {family}" for family, count in families.most_common())
        line = f"| {name} | {100 * share:.0f} % | {counts} | {np.mean(auto):.1f} |"
        if linear:
            worst = np.subtract(auto, linear).min()
            line += f" {np.mean(linear):.1f} | {worst:.1f} |"
        else:
            line += " - | - |"
        print(f"{line} {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
