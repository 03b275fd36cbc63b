"""Rooms with a trained source prior, beside our blind family, ILRMA and the linear oracle.

    python benchmarks/source_prior.py --speech DIR [--tables rooms,unseen,ablations]
        [--seconds 9] [--repeats 1] [--quality normal] [--priors FOLDER]

DIR holds `fsdd/{digit}_{talker}_{index}.wav` (Free Spoken Digit Dataset). Priors are trained on
the recordings from index 5 on, mixtures are made of those below: per pair of talkers, and per
reverberation time, `repeats` mixtures of two talkers in a simulated room at 8 kHz. Their seeds
begin at 9000 and chose nothing. Trained priors are kept in FOLDER. Needs
``pip install pyroomacoustics``.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
from audio import pyroomacoustics
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

import sourcesep
from sourcesep import auxiliary, metrics, simulate
from sourcesep.ivae.convolutive import STARTS, ConvolutiveModel
from sourcesep.ivae.stft.cells import to_signal, to_spectrum
from sourcesep.ivae.stft.guided import search
from sourcesep.ivae.stft.level import Level
from sourcesep.ivae.stft.source_prior import SourcePrior
from sourcesep.metrics.separation import pair_by_ratio
from sourcesep.prior_training import train_prior
from sourcesep.recording import from_array
from sourcesep.simulate import Mixture

Array = NDArray[np.float64]
Method = Callable[["Scene"], Array]
"""From a scene to what the first channel hears of each source, (n_sources, n_times)."""

Train = Callable[..., SourcePrior]
"""From the name of a prior, and what is different about it."""

FIRST_SEED = 9000
FIRST_TRAINED = 5
"""Recordings below this index are for mixtures."""
TIMES = (0.15, 0.3)
GAP = (0.02, 0.15)
FAILURE = 8.0
"""dB of SDR below which a separation has failed."""
ORACLE_WINDOW = 4096


class Scene(NamedTuple):
    """Two talkers in a room."""

    mixture: Mixture
    talkers: tuple[str, str]
    rt60: float


def talker_of(path: Path) -> str:
    """Whose digit it is."""
    return path.stem.split("_")[1]


def index_of(path: Path) -> int:
    """Which of the talker's recordings of that digit."""
    return int(path.stem.split("_")[2])


def talk(paths: Sequence[Path], seconds: float, rng: np.random.Generator) -> tuple[Array, float]:
    """String recordings together, at unit power."""
    parts: list[Array] = []
    sfreq = 1.0
    for i in np.resize(rng.permutation(len(paths)), 100 * len(paths)):
        recording = sourcesep.read(paths[i])
        sfreq = recording.sfreq
        parts += [recording.data[0], np.zeros(round(rng.uniform(*GAP) * sfreq))]
        if sum(map(len, parts)) >= seconds * sfreq:
            break
    signal = np.concatenate(parts)[: round(seconds * sfreq)]
    return (signal - signal.mean()) / signal.std(), sfreq


def scenes(paths: list[Path], seconds: float, repeats: int) -> list[Scene]:
    """Every pair of talkers in rooms of both kinds."""
    test = [p for p in paths if index_of(p) < FIRST_TRAINED]
    pairs = list(combinations(sorted(set(map(talker_of, paths))), 2))
    made = []
    for number, (pair, rt60, _) in enumerate(
        (pair, rt60, r) for r in range(repeats) for rt60 in TIMES for pair in pairs
    ):
        seed = FIRST_SEED + number
        rng = np.random.default_rng(seed)
        said = [talk([p for p in test if talker_of(p) == t], seconds, rng) for t in pair]
        signals, sfreq = np.stack([signal for signal, _ in said]), said[0][1]
        room = simulate.room(signals, sfreq=sfreq, rt60=rt60, random_state=seed)
        made.append(Scene(room, pair, rt60))
    return made


def prior_of(
    paths: list[Path],
    priors: Path,
    quality: str,
    name: str,
    *,
    without: str = "",
    labels: str = "talker",
    **settings: object,
) -> SourcePrior:
    """Train a prior, or read it where that has been done."""
    file = priors / f"{name}_{quality}.safetensors"
    if file.exists():
        return sourcesep.load_prior(file)
    chosen = [p for p in paths if index_of(p) >= FIRST_TRAINED and talker_of(p) != without]
    rng = np.random.default_rng(0)
    names = [talker_of(p) for p in chosen]
    if labels == "random":
        names = [f"label{i}" for i in rng.integers(len(set(names)), size=len(names))]
    with tempfile.TemporaryDirectory() as folder:
        for path in chosen:
            shutil.copy(path, folder)
        with (Path(folder) / "labels.csv").open("w", newline="") as table:
            rows = zip((p.name for p in chosen), names, strict=True)
            csv.writer(table).writerows([("file", "talker"), *rows])
        begin = time.process_time()
        prior = train_prior(
            folder, aux="column:talker", save_model=file, quality=quality, **settings
        )
    card = prior.card
    print(
        f"{file.stem}: {sum(card['seconds'].values()) / 60:.1f} minutes of sound, "
        f"{card['n_steps']} steps, {time.process_time() - begin:.0f} CPU s, {card['elbo']}",
        flush=True,
    )
    return prior


class OneStart(ConvolutiveModel):
    """Begun from the channels as they are, with the labels given: nothing is chosen."""

    def _guided(self, y: NDArray[np.float32], level: Level, rows: Array, blind: object) -> Array:
        prior = cast("SourcePrior", self.source_prior)
        labels = self.source_labels or prior.labels[: len(rows)]
        proposal = search(prior, labels, Level(y, prior.size, len(rows)), [])
        return cast("Array", level.continued(proposal.signals))


def ours(
    prior: SourcePrior | None,
    scene: Scene,
    *,
    known: bool = False,
    model: type[ConvolutiveModel] = ConvolutiveModel,
) -> Array:
    """Separate with or without a prior; no verdict."""
    mixture = scene.mixture
    fit = model(
        2,
        sfreq=mixture.sfreq,
        starts=STARTS["normal"],
        source_prior=prior,
        source_labels=scene.talkers if known else None,
    )
    u = auxiliary.build(None, from_array(mixture.data, mixture.sfreq))
    fit.fit(mixture.data, u, np.random.default_rng(0))
    return fit.images(mixture.data, u)[:, 0]


def ilrma(scene: Scene) -> Array:
    """Separate by pyroomacoustics' ILRMA, seeded."""
    return pyroomacoustics("ILRMA", 100, scene.mixture.data, 2, scene.mixture.sfreq)


def oracle(scene: Scene) -> Array:
    """Each source by the best matrix for every frequency, the truth being known."""
    x = to_spectrum(scene.mixture.data, ORACLE_WINDOW).transpose(2, 0, 1)
    true = to_spectrum(scene.mixture.images[:, 0], ORACLE_WINDOW).transpose(2, 0, 1)
    gram = x @ x.conj().swapaxes(1, 2)
    gram += 1e-9 * np.trace(gram, axis1=1, axis2=2).real[:, None, None] * np.eye(2)
    cross = true @ x.conj().swapaxes(1, 2)
    found = np.linalg.solve(gram.swapaxes(1, 2), cross.swapaxes(1, 2)).swapaxes(1, 2) @ x
    return to_signal(found.transpose(1, 2, 0), scene.mixture.data.shape[1])


def sdr(scene: Scene, found: Array) -> float:
    """Mean over the talkers, at the first microphone, in dB."""
    true = scene.mixture.images[:, 0]
    table = metrics.si_sdr(true[:, None], found[None])
    columns = pair_by_ratio(table)[1]
    return float(metrics.sdr(true, found[columns]).mean())


def show(title: str, methods: dict[str, Method], made: list[Scene]) -> None:
    """Print a row a method: mean SDR by reverberation time, failures, CPU seconds a second."""
    print(f"\n{title}: {len(made)} mixtures of {made[0].mixture.data.shape[1] / 8000:g} s")
    for name, separate in methods.items():
        begin = time.process_time()
        values = np.array([sdr(scene, separate(scene)) for scene in made])
        sound = sum(s.mixture.data.shape[1] / s.mixture.sfreq for s in made)
        factor = (time.process_time() - begin) / sound
        line = f"  {name:36}"
        for rt60 in TIMES:
            some = values[[scene.rt60 == rt60 for scene in made]]
            line += f"{some.mean():7.1f} [{(some < FAILURE).sum()}/{len(some)}]"
        print(f"{line}{values.mean():7.1f}{factor:7.2f}", flush=True)
        print(f"    {' '.join(f'{value:.1f}' for value in values)}", flush=True)


def rooms(paths: list[Path], made: list[Scene], train: Train) -> None:
    """The main table."""
    prior = train("talkers")
    methods: dict[str, Method] = {
        "oracle": oracle,
        "ILRMA": ilrma,
        "blind": partial(ours, None),
        "trained, labels known": partial(ours, prior, known=True),
        "trained, labels unknown": partial(ours, prior),
    }
    show("mean SDR, dB, [failures] at RT60 .15 and .3, all; real-time factor", methods, made)


def unseen(paths: list[Path], made: list[Scene], train: Train) -> None:
    """Each talker in turn is left out of the training, and is in every mixture."""
    by_talker = {
        talker: train(f"without_{talker}", without=talker)
        for talker in sorted(set(map(talker_of, paths)))
    }
    # each mixture once, its first or its second talker unseen in turn
    left = {id(scene): scene.talkers[i % 2] for i, scene in enumerate(made)}
    methods: dict[str, Method] = {
        "blind": partial(ours, None),
        "trained on others": lambda scene: ours(by_talker[left[id(scene)]], scene),
    }
    show("one talker unseen", methods, made)


def ablations(paths: list[Path], made: list[Scene], train: Train) -> None:
    """What the parts of the prior, and the choice among starts, are worth."""
    variants: dict[str, dict[str, object]] = {
        "talkers": {},
        "decoder_without_u": {"condition_decoder": False},
        "encoder_not_denoising": {"noisy": 0.0},
        "random_labels": {"labels": "random"},
    }
    for name, settings in variants.items():
        prior = train(name, **settings)
        known = name != "random_labels"
        methods: dict[str, Method] = {
            "one start": partial(ours, prior, known=known, model=OneStart),
            "start by evidence": partial(ours, prior, known=known),
        }
        show(f"{name}, labels {'known' if known else 'unknown'}", methods, made)


def main() -> None:
    """Print the tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--speech", type=Path, required=True, help="folder that holds fsdd/")
    parser.add_argument("--priors", type=Path, default=Path("priors"), help="for trained priors")
    parser.add_argument("--tables", default="rooms,unseen,ablations")
    parser.add_argument("--seconds", type=float, default=9.0)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--quality", default="normal", help="of the training")
    options = parser.parse_args()
    paths = sorted((options.speech / "fsdd").glob("*.wav"))
    made = scenes(paths, options.seconds, options.repeats)
    train = partial(prior_of, paths, options.priors, options.quality)
    tables = {run.__name__: run for run in (rooms, unseen, ablations)}
    with threadpool_limits(limits=1):
        for name in options.tables.split(","):
            tables[name](paths, made, train)


if __name__ == "__main__":
    main()
