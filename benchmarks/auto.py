"""How often ``--mixing auto`` takes a mixture for what it is, and what it costs against linear.

    python benchmarks/auto.py [--seeds 40] [--first 9000] [--seconds 8] [--sfreq 8000] [--only
        KIND]

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
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from sourcesep import Recording, metrics, separate, simulate
from sourcesep.simulate.instruments import InstrumentKind
from sourcesep.simulate.mixtures import Mixture

Array = NDArray[np.float64]
FIRST_SEED = 9000


class Length(NamedTuple):
    """Of a mixture: its duration, and samples a second."""

    seconds: float
    sfreq: float


def talkers(seed: int, length: Length, n: int) -> Array:
    """Simulated talkers, (n, n_times)."""
    return np.stack([simulate.speech(*length, random_state=100 * seed + k) for k in range(n)])


def instruments(seed: int, length: Length, n: int = 2, *, drums: bool = False) -> Array:
    """Instruments of different kinds, (n, n_times), drums the first of them if they are wanted."""
    kinds = np.random.default_rng(seed).permutation(list(get_args(InstrumentKind))).tolist()
    if drums:
        kinds.remove("drums")
        kinds.insert(0, "drums")
    return np.stack(
        [
            simulate.instrument(*length, kind=kind, random_state=100 * seed + k)
            for k, kind in enumerate(kinds[:n])
        ]
    )


def band(seed: int, length: Length) -> Array:
    """An instrument and a talker, (2, n_times)."""
    return np.concatenate([instruments(seed, length)[:1], talkers(seed, length, 1)])


def noises(seed: int, length: Length) -> Array:
    """Two noises, each coloured and changing in power as the seed has it, (2, n_times)."""
    n_times = round(length.seconds * length.sfreq)
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [
            simulate.linear_sources(kind, n_times, 1, random_state=rng)
            for kind in rng.permutation(["laplace", "ar", "modulated", "modulated-laplace"])[:2]
        ]
    )


def unbent(sources: Callable[[int, Length], Array]) -> Callable[[int, Length], Mixture]:
    """Mix sources by a matrix."""
    return lambda s, t: simulate.instantaneous(sources(s, t), sfreq=t.sfreq, random_state=s)


def echoing(
    sources: Callable[[int, Length], Array], rt60: float
) -> Callable[[int, Length], Mixture]:
    """Mix sources in a room, at as many microphones."""

    def make(seed: int, length: Length) -> Mixture:
        heard = sources(seed, length)
        return simulate.room(
            heard, sfreq=length.sfreq, n_mics=len(heard), rt60=rt60, random_state=seed
        )

    return make


def of_images(images: Array, sfreq: float, kind: str) -> Mixture:
    """A mixture of what the channels hear of each source."""
    return Mixture(images.sum(axis=0), images, images[:, 0], sfreq, kind)  # type: ignore[arg-type]


def room(seed: int, length: Length) -> Mixture:
    """Two talkers at two microphones in a room, RT60 .15 to .4 s."""
    rt60 = float(np.random.default_rng(seed).uniform(0.15, 0.4))
    sources = talkers(seed, length, 2)
    return simulate.room(sources, sfreq=length.sfreq, n_mics=2, rt60=rt60, random_state=seed)


def panned(sources: Callable[[int, Length], Array]) -> Callable[[int, Length], Mixture]:
    """Mix three sources on a stereo stage, at least 20 degrees apart."""

    def make(seed: int, length: Length) -> Mixture:
        jitter = np.random.default_rng(seed).uniform(-5, 5, 3)
        angles = np.deg2rad(np.array([15.0, 45.0, 75.0]) + jitter)
        gains = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        images = gains[:, :, None] * sources(seed, length)[:, None]
        return of_images(images, length.sfreq, "instantaneous")

    return make


def mono(seed: int, length: Length) -> Mixture:
    """Two talkers on one channel."""
    return of_images(talkers(seed, length, 2)[:, None], length.sfreq, "instantaneous")


CASES: dict[str, tuple[str, Callable[[int, Length], Mixture]]] = {
    "instantaneous": (
        "linear",
        lambda s, t: simulate.instantaneous(talkers(s, t, 2), sfreq=t.sfreq, random_state=s),
    ),
    "undistorted": (
        "linear",
        lambda s, t: simulate.instantaneous(instruments(s, t), sfreq=t.sfreq, random_state=s),
    ),
    "unbent 3 talkers": ("linear", unbent(partial(talkers, n=3))),
    "unbent 3 instruments": ("linear", unbent(partial(instruments, n=3))),
    "unbent drums": ("linear", unbent(partial(instruments, drums=True))),
    "unbent band": ("linear", unbent(band)),
    "unbent noises": ("linear", unbent(noises)),
    "echo .05, talkers": ("convolutive", echoing(partial(talkers, n=2), 0.05)),
    "echo .05, instruments": ("convolutive", echoing(instruments, 0.05)),
    "echo .15, 3 talkers": ("convolutive", echoing(partial(talkers, n=3), 0.15)),
    "echo .3, instruments": ("convolutive", echoing(instruments, 0.3)),
    "echo .5, talkers": ("convolutive", echoing(partial(talkers, n=2), 0.5)),
    "saturated": (
        "post-nonlinear",
        lambda s, t: simulate.saturated(talkers(s, t, 2), sfreq=t.sfreq, random_state=s),
    ),
    "saturated mildly": (
        "post-nonlinear",
        lambda s, t: simulate.saturated(
            talkers(s, t, 2), sfreq=t.sfreq, strength=1.0, random_state=s
        ),
    ),
    "room": ("convolutive", room),
    "panned": ("underdetermined", panned(partial(talkers, n=3))),
    "panned instruments": ("underdetermined", panned(partial(instruments, n=3))),
    "mono": ("underdetermined", mono),
}


def gain(mixture: Mixture, **settings: str) -> tuple[float, str]:
    """SI-SDR gain in dB at the first channel, and the family that gave it."""
    names = tuple(f"ch{k}" for k in range(len(mixture.data)))
    found = separate(
        Recording(mixture.data, mixture.sfreq, names, ("",) * len(names), "audio"), **settings
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
    parser.add_argument("--sfreq", type=float, default=8000.0)
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
            mixture = make(seed, Length(options.seconds, options.sfreq))
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
