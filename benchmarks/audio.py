"""Audio beside its peers: gain in dB, and seconds of CPU for a second of sound.

    python benchmarks/audio.py rooms [--seeds 4] [--seconds 8] [--sfreq 16000] [--speech DIR]
        [--cases 2:.15,2:.3,2:.5,2:.3:4,3:.2] [--only ours]
    python benchmarks/audio.py panned [--cases 3:band,4:band,3:talkers] [--speech DIR] ...
    python benchmarks/audio.py mono [--cases pad:drums] ...
    python benchmarks/audio.py alone [--cases 2:talkers,3:talkers,pad:drums] [--speech DIR] ...

Talkers are simulated, or read from the files of DIR, one a talker. Rooms of all rates are the
same mixtures, made at 16 kHz. The seeds begin at 7000; none was used to set a constant of the
package. Needs ``pip install pyroomacoustics`` (rooms)
and ``librosa`` (mono).
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

import sourcesep
from sourcesep import auxiliary, metrics, simulate
from sourcesep.ivae.convolutive import ConvolutiveModel
from sourcesep.ivae.model import Model
from sourcesep.ivae.settings import Settings
from sourcesep.ivae.stft.cells import to_signal, to_spectrum
from sourcesep.ivae.underdetermined import UnderdeterminedModel
from sourcesep.metrics.separation import pair_by_ratio
from sourcesep.recording import from_array
from sourcesep.simulate import Mixture
from sourcesep.simulate.instruments import InstrumentKind

Array = NDArray[np.float64]
Method = Callable[[Array, int, float], Array]
"""From x (n_channels, n_times), the number of sources and the rate to what the first channel
hears of each source, (n_sources, n_times)."""

FIRST_SEED = 7000
ROOM_RATE = 16_000
"""Hz at which mixtures in rooms are made."""
PEER_WINDOW = 0.256
"""Seconds; what the peers are usually run with at 16 kHz, 4096 samples."""


class Case(NamedTuple):
    """Talkers in a room."""

    n: int
    rt60: float
    n_mics: int

    @classmethod
    def parse(cls, text: str) -> Case:
        """Read TALKERS:RT60[:MICROPHONES]."""
        n, rt60, *n_mics = text.split(":")
        return cls(int(n), float(rt60), int(n_mics[0]) if n_mics else int(n))

    def __str__(self) -> str:
        return f"{self.n} talkers, {self.n_mics} mics, {self.rt60:g} s"


class Score(NamedTuple):
    """Mean over the sources of one mixture, but for the worst source; dB."""

    si_sdr_gain: float
    sdr_gain: float
    worst: float
    cpu: float


def ours(family: type[Model], quality: str, x: Array, n: int, sfreq: float) -> Array:
    """Fit a family, without a verdict."""
    u = auxiliary.build(None, from_array(x, sfreq))
    settings = Settings(n_components=n, sfreq=sfreq, quality=quality)
    model = family.configured(settings).fit(x, u, np.random.default_rng(0))
    return model.images(x, u)[:, 0]


def fastica(x: Array, n: int, sfreq: float) -> Array:
    """Separate by scikit-learn's FastICA: no memory at all."""
    from sklearn.decomposition import FastICA

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ica = FastICA(n, whiten="unit-variance", random_state=0, max_iter=1000)
        z = ica.fit_transform(x.T).T
    return np.asarray(ica.mixing_[0][:, None] * z)


def pyroomacoustics(name: str, n_iter: int, x: Array, n: int, sfreq: float) -> Array:
    """Separate by one of pyroomacoustics' algorithms, projected back to the first channel."""
    import pyroomacoustics as pra

    if n < len(x):
        return np.full((n, x.shape[1]), np.nan)
    size = 2 ** round(np.log2(PEER_WINDOW * sfreq))
    hop = size // 2
    window = pra.hann(size)
    # the transform delays by size - hop; small values make ILRMA divide by 0
    scale = 100 / x.std()
    padded = np.pad(scale * x, ((0, 0), (0, -x.shape[1] % hop + hop)))
    cells = pra.transform.stft.analysis(padded.T, size, hop, win=window)
    np.random.seed(0)  # noqa: NPY002 (ILRMA starts from the global generator)
    separate = {"AuxIVA": pra.bss.auxiva, "ILRMA": partial(pra.bss.ilrma, n_components=2)}[name]
    try:
        found = separate(cells, n_iter=n_iter, proj_back=True)
    except np.linalg.LinAlgError:  # singular matrices in bands without sound
        return np.full((n, x.shape[1]), np.nan)
    dual = pra.transform.stft.compute_synthesis_window(window, hop)
    signal = pra.transform.stft.synthesis(found, size, hop, win=dual)
    return np.asarray(signal.T[:, size - hop : size - hop + x.shape[1]]) / scale


ROOM_METHODS: dict[str, Method] = {
    "ours": partial(ours, ConvolutiveModel, "normal"),
    "ours, fast": partial(ours, ConvolutiveModel, "fast"),
    "FastICA": fastica,
    "AuxIVA": partial(pyroomacoustics, "AuxIVA", 60),
    "ILRMA": partial(pyroomacoustics, "ILRMA", 100),
    "ILRMA, 20 its": partial(pyroomacoustics, "ILRMA", 20),
}


def score(mixture: Mixture, found: Array, cpu: float) -> Score:
    """Match what was found to the sources as the first channel hears them."""
    true, x = mixture.images[:, 0], mixture.data[0]
    if not np.isfinite(found).all():
        return Score(*[np.nan] * 4)
    table = metrics.si_sdr(true[:, None], found[None])
    rows, columns = pair_by_ratio(table)
    gain = table[rows, columns] - metrics.si_sdr(true, x)
    plain = metrics.sdr(true, found[columns]) - metrics.sdr(true, x)
    seconds = mixture.data.shape[1] / mixture.sfreq
    return Score(float(gain.mean()), float(plain.mean()), float(gain.min()), cpu / seconds)


def voices(folder: Path | None, n: int, seed: int, seconds: float, sfreq: float) -> Array:
    """Return talkers of unit power, (n, n_times): simulated, or n of the folder's files."""
    if folder is None:
        drawn = [simulate.speech(seconds, sfreq, random_state=100 * seed + k) for k in range(n)]
        return np.stack(drawn)
    from scipy.signal import resample_poly

    paths = sorted(p for p in folder.iterdir() if p.suffix in (".wav", ".flac"))
    choices = list(combinations(paths, n))
    n_times = round(seconds * sfreq)
    rng = np.random.default_rng(seed)
    cut = []
    for path in choices[seed % len(choices)]:
        recording = sourcesep.read(path)
        up, down = round(sfreq), round(recording.sfreq)
        common = int(np.gcd(up, down))
        talker = resample_poly(recording.data.mean(axis=0), up // common, down // common)
        begin = rng.integers(max(1, len(talker) - n_times))
        talker = np.resize(np.roll(talker, -begin), n_times)
        cut.append((talker - talker.mean()) / talker.std())
    return np.stack(cut)


def rooms(options: argparse.Namespace) -> None:
    """Talkers in simulated rooms."""
    methods = {k: v for k, v in ROOM_METHODS.items() if options.only in k}
    talkers = options.speech or "simulated talkers"
    print(f"{talkers}, {options.seconds:g} s at {options.sfreq:g} Hz, {options.seeds} seeds")
    print("SI-SDR gain: mean (least file), SDR gain, worst source; CPU seconds a second")
    for case in map(Case.parse, options.cases.split(",")):
        print(case, flush=True)
        scores: dict[str, list[Score]] = {name: [] for name in methods}
        for seed in range(options.first, options.first + options.seeds):
            talking = voices(options.speech, case.n, seed, options.seconds, ROOM_RATE)
            mixture = simulate.room(
                talking,
                sfreq=ROOM_RATE,
                n_mics=case.n_mics,
                rt60=case.rt60,
                random_state=seed,
            )
            run_all(methods, at_rate(mixture, options.sfreq), case.n, scores)
        show(scores)


def at_rate(mixture: Mixture, sfreq: float) -> Mixture:
    """Return the same mixture at another rate."""
    from scipy.signal import resample_poly

    up, down = round(sfreq), round(mixture.sfreq)
    common = int(np.gcd(up, down))
    data, images, sources = (
        resample_poly(signals, up // common, down // common, axis=-1)
        for signals in (mixture.data, mixture.images, mixture.sources)
    )
    return replace(mixture, data=data, images=images, sources=sources, sfreq=sfreq)


def run_all(
    methods: dict[str, Method], mixture: Mixture, n: int, scores: dict[str, list[Score]]
) -> None:
    """Add every method's score on one mixture."""
    for name, separate in methods.items():
        begin = time.process_time()
        found = separate(mixture.data, n, mixture.sfreq)
        scores[name].append(score(mixture, found, time.process_time() - begin))


def show(scores: dict[str, list[Score]]) -> None:
    """Print a row a method; nan: it has ended with an error."""
    for name, rows in scores.items():
        mean, least = Score(*np.mean(rows, axis=0)), Score(*np.min(rows, axis=0))
        files = " ".join(f"{row.si_sdr_gain:.1f}" for row in rows)
        print(
            f"  {name:14}{mean.si_sdr_gain:6.1f} ({least.si_sdr_gain:5.1f})"
            f"{mean.sdr_gain:7.1f}{least.worst:7.1f}{mean.cpu:7.2f}  [{files}]",
            flush=True,
        )


def band(kinds: Sequence[InstrumentKind], seed: int, seconds: float, sfreq: float) -> Array:
    """Return instruments of unit power."""
    return np.stack(
        [
            simulate.instrument(seconds, sfreq, kind=kind, random_state=100 * seed + k)
            for k, kind in enumerate(kinds)
        ]
    )


def duet(x: Array, n: int, sfreq: float) -> Array:
    """Give each cell to the nearest of n peaks of the panning histogram (Yilmaz 2004)."""
    size = 2 ** round(np.log2(0.064 * sfreq))
    cells = to_spectrum(x, size)
    angle = np.arctan2(np.abs(cells[1]), np.abs(cells[0]))
    weight = np.sqrt(np.square(np.abs(cells)).sum(axis=0))
    counts, edges = np.histogram(angle, np.linspace(0, np.pi / 2, 181), weights=weight)
    counts = np.convolve(counts, np.hanning(9), "same")
    centres, peaks = (edges[1:] + edges[:-1]) / 2, []
    for _ in range(n):
        peaks.append(centres[counts.argmax()])
        counts[np.abs(centres - peaks[-1]) < 0.12] = 0
    nearest = np.abs(angle - np.array(peaks)[:, None, None]).argmin(axis=0)
    masked = np.stack([np.where(nearest == k, cells[0], 0) for k in range(n)])
    return to_signal(masked, x.shape[1])


def panned(options: argparse.Namespace) -> None:
    """Instruments or talkers at places in a stereo mixture."""
    methods: dict[str, Method] = {
        "ours": partial(ours, UnderdeterminedModel, "normal"),
        "DUET": duet,
    }
    for case in options.cases.split(","):
        number, kind = case.split(":")
        n = int(number)
        print(f"{n} of {kind} in stereo", flush=True)
        scores: dict[str, list[Score]] = {name: [] for name in methods}
        for seed in range(options.first, options.first + options.seeds):
            rng = np.random.default_rng(seed)
            if kind == "band":
                kinds = rng.permutation(list(get_args(InstrumentKind)))[:n]
                sources = band(kinds.tolist(), seed, options.seconds, options.sfreq)
            else:
                sources = voices(options.speech, n, seed, options.seconds, options.sfreq)
            places = rng.permutation(np.linspace(0.3, np.pi / 2 - 0.3, n))
            places += rng.uniform(-0.08, 0.08, n)
            gains = np.stack([np.cos(places), np.sin(places)]) * 10 ** rng.uniform(-0.15, 0.15, n)
            images = gains.T[:, :, None] * sources[:, None]
            mixture = Mixture(images.sum(0), images, sources, options.sfreq, "instantaneous")
            run_all(methods, mixture, n, scores)
        show(scores)


def hpss(size: int, x: Array, n: int, sfreq: float) -> Array:
    """Separate by librosa's median filters (Fitzgerald 2010)."""
    import librosa

    cells = librosa.stft(x[0], n_fft=size)
    parts = librosa.decompose.hpss(cells)
    return np.stack([librosa.istft(part, length=x.shape[1]) for part in parts])


def mono(options: argparse.Namespace) -> None:
    """Two instruments in one channel."""
    methods: dict[str, Method] = {
        "ours": partial(ours, UnderdeterminedModel, "normal"),
        "HPSS, 2048": partial(hpss, 2048),
        "HPSS, 4096": partial(hpss, 4096),
    }
    for case in options.cases.split(","):
        print(f"{case} in one channel", flush=True)
        scores: dict[str, list[Score]] = {name: [] for name in methods}
        for seed in range(options.first, options.first + options.seeds):
            sources = band(case.split(":"), seed, options.seconds, options.sfreq)
            images = sources[:, None]
            mixture = Mixture(images.sum(0), images, sources, options.sfreq, "instantaneous")
            run_all(methods, mixture, 2, scores)
        show(scores)


def alone(options: argparse.Namespace) -> None:
    """One channel in which each source is alone first; scores where all sound together.

    Each is alone for the `--seconds`, then all sound for as long.
    """

    def told(x: Array, n: int, sfreq: float) -> Array:
        n_alone = x.shape[1] // (n + 1)
        labels = np.full(x.shape[1], "(none)", "<U10")
        for k in range(n):
            labels[k * n_alone : (k + 1) * n_alone] = f"source {k}"
        u = auxiliary.from_array(labels, x.shape[1])
        model = UnderdeterminedModel(sfreq=sfreq).fit(x, u, np.random.default_rng(0))
        return model.images(x, u)[:, 0]

    methods: dict[str, Method] = {
        "ours, told": told,
        "not told": partial(ours, UnderdeterminedModel, "normal"),
        "HPSS, 2048": partial(hpss, 2048),
    }
    for case in options.cases.split(","):
        first, second = case.split(":")
        n = int(first) if first.isdigit() else 2
        print(f"{case} in one channel, alone and together", flush=True)
        scores: dict[str, list[Score]] = {
            name: []
            for name in methods
            if options.only in name and (n == 2 or name == "ours, told")
        }
        for seed in range(options.first, options.first + options.seeds):
            seconds = (n + 1) * options.seconds
            if first.isdigit():
                sources = voices(options.speech, n, seed, seconds, options.sfreq)
            else:
                sources = band([first, second], seed, seconds, options.sfreq)  # type: ignore[list-item]
            n_alone = sources.shape[1] // (n + 1)
            for k, source in enumerate(sources):
                source[: k * n_alone] = 0
                source[(k + 1) * n_alone : n * n_alone] = 0
            x = sources.sum(axis=0, keepdims=True)
            together = slice(n * n_alone, None)
            mixture = Mixture(
                x[:, together],
                sources[:, None, together],
                sources[:, together],
                options.sfreq,
                "instantaneous",
            )
            for name in scores:
                begin = time.process_time()
                found = methods[name](x, n, options.sfreq)[:, together]
                scores[name].append(score(mixture, found, time.process_time() - begin))
        show(scores)


def main() -> None:
    """Print the table that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(required=True)
    tables = {
        rooms: "2:.15,2:.3,2:.5,2:.3:4,3:.2,4:.2",
        panned: "3:band,4:band,3:talkers",
        mono: "pad:drums",
        alone: "2:talkers,3:talkers,pad:melody,pad:drums,melody:bass",
    }
    for run, cases in tables.items():
        command = commands.add_parser(run.__name__, help=run.__doc__)
        command.set_defaults(run=run)
        command.add_argument("--cases", default=cases)
        command.add_argument("--seeds", type=int, default=4)
        command.add_argument("--first", type=int, default=FIRST_SEED)
        command.add_argument("--seconds", type=float, default=8.0)
        command.add_argument("--sfreq", type=float, default=16_000.0)
        command.add_argument("--speech", type=Path, help="folder of recordings, one a talker")
        command.add_argument("--only", default="", help="methods whose name has this in it")
    options = parser.parse_args()
    with threadpool_limits(limits=1):
        options.run(options)


if __name__ == "__main__":
    main()
